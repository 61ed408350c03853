// Asks as often as the server allows: who is told to wait waits, and asks again.
//
//   import { politely } from './polite.mjs';
//   const response = await politely('https://example.com/api/items');

// The seconds that a response tells to wait, or undefined. `Retry-After` comes as seconds or as
// a date (RFC 9110, 10.2.3).
export function waitSeconds(response, now = Date.now()) {
  const after = response.headers.get('retry-after');
  if (after === null) return undefined;
  if (/^\d+$/.test(after.trim())) return Number(after);
  const date = Date.parse(after);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - now) / 1000);
}

// `fetch`, asked again after a 429 or 503 that says when, `tries` times in all. A request that
// was answered with 429 was not carried out, so that a POST may be sent again; a body must be
// one that can be read twice, as text can.
//
// Somebody who is to wait for longer than `longestSeconds` gets the response instead: a program
// that sleeps for an hour helps nobody. What all clients do in the same second is spread by up
// to a tenth.
export async function politely(url, options = {}, { tries = 3, longestSeconds = 60 } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch(url, options);
    const wait = [429, 503].includes(response.status) ? waitSeconds(response) : undefined;
    if (wait === undefined || wait > longestSeconds || attempt >= tries) return response;
    await response.arrayBuffer();
    const spread = 1 + Math.random() / 10;
    await new Promise((wake) => setTimeout(wake, wait * 1000 * spread + 50));
  }
}
