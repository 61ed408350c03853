// A client that does the work that limiter asks for (challenges.md), for Node.js.

import { createHash } from 'node:crypto';

/** The least number that solves a puzzle. */
export function solve({ seed, zero_bits: bits }) {
  for (let number = 0; ; number++) {
    const hash = createHash('sha256').update(`${seed}:${number}`).digest();
    if (hash.readUInt32BE(0) >>> (32 - bits) === 0) return number;
  }
}

/** Fetches a URL; where limiter poses a puzzle, solves it and asks once more with the clearance. */
export async function patiently(url, options = {}) {
  const headers = { Accept: 'application/json', ...options.headers };
  const first = await fetch(url, { ...options, headers });
  if (first.status !== 403 || !first.headers.get('x-limiter')) return first;
  const { puzzle } = await first.json();
  if (!puzzle) return first;
  const solution = { [puzzle.header]: `${puzzle.token}:${solve(puzzle)}` };
  const solved = await fetch(new URL(puzzle.path, url), { method: 'POST', headers: solution });
  if (!solved.ok) return solved;
  const { clearance, header } = await solved.json();
  return fetch(url, { ...options, headers: { ...headers, [header]: clearance } });
}
