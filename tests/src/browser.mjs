// Drives a Chromium over its debugging pipe: `node browser.mjs '{ "data", "language", "width",
// "height", "dark", "steps" }'`. Steps are { go: URL }, { until: EXPRESSION }, { run: EXPRESSION }
// and { shot: FILE }. Prints the values of all `until` and `run` as JSON.

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const wanted = JSON.parse(process.argv[2]);
const PATIENCE_MS = 180_000;

const chromium = spawn(
  'chromium',
  [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-default-apps',
    '--disable-extensions',
    '--disable-sync',
    '--hide-scrollbars',
    `--accept-lang=${wanted.language}`,
    `--user-data-dir=${wanted.data}`,
    '--remote-debugging-pipe',
    'about:blank',
  ],
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
);
const [, , , to, from] = chromium.stdio;
// However this ends, the browser ends too.
process.on('exit', () => chromium.kill('SIGKILL'));
chromium.on('exit', () => process.exit(1));
setTimeout(() => {
  console.error('the browser takes too long');
  process.exit(1);
}, PATIENCE_MS).unref();

let last = 0;
const waiting = new Map();
let rest = '';
from.setEncoding('utf8');
from.on('data', (text) => {
  const messages = (rest + text).split('\0');
  rest = messages.pop();
  for (const message of messages.map((it) => JSON.parse(it))) {
    const { resolve, reject } = waiting.get(message.id) ?? {};
    waiting.delete(message.id);
    if (message.error) reject?.(new Error(JSON.stringify(message.error)));
    else resolve?.(message.result);
  }
});

function ask(method, params = {}, sessionId = undefined) {
  const id = ++last;
  to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
const { sessionId } = await ask('Target.attachToTarget', { targetId, flatten: true });
const tell = (method, params) => ask(method, params, sessionId);

async function value(expression) {
  const { result, exceptionDetails } = await tell('Runtime.evaluate', {
    expression,
    awaitPromise: true,
    returnByValue: true,
  });
  if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
  return result.value;
}

async function until(expression) {
  for (;;) {
    // While a page gives way to another one there is nobody to ask.
    const found = await value(expression).catch(() => undefined);
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

await tell('Page.enable');
await tell('Emulation.setDeviceMetricsOverride', {
  width: wanted.width,
  height: wanted.height,
  deviceScaleFactor: 1,
  mobile: wanted.width < 600,
});
await tell('Emulation.setEmulatedMedia', {
  features: [{ name: 'prefers-color-scheme', value: wanted.dark ? 'dark' : 'light' }],
});
const values = [];
for (const step of wanted.steps) {
  if (step.go) await tell('Page.navigate', { url: step.go });
  if (step.until) values.push(await until(step.until));
  if (step.run) values.push((await value(step.run)) ?? null);
  if (step.shot) {
    const { data } = await tell('Page.captureScreenshot', { format: 'png' });
    writeFileSync(step.shot, Buffer.from(data, 'base64'));
  }
}
console.log(JSON.stringify(values));
// Who is killed leaves children behind, which write to the profile a little longer.
chromium.removeAllListeners('exit');
const ended = new Promise((resolve) => chromium.once('exit', resolve));
ask('Browser.close').catch(() => {});
await ended;
process.exit(0);
