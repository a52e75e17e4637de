// 1,000 sessions that wait for their renewals in one event loop: how many threads that takes.
// To be run by tests/with-server.sh.
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'evergrant';
import { row } from './rounds.mjs';

const WAITS = 1000;

async function control(path, body, method = body ? 'POST' : 'GET') {
  const answer = await fetch(process.env.EVERGRANT_TEST_SERVER + path, { method, body: body && JSON.stringify(body) });
  assert.ok(answer.ok);
  return answer.json();
}

// This process's threads: those of the library, and others.
function threads() {
  const names = readdirSync('/proc/self/task').map((task) => readFileSync(`/proc/self/task/${task}/comm`, 'utf8'));
  const library = names.filter((name) => name.startsWith('evergrant')).length;
  return { library, others: names.length - library };
}

const client = new Client({
  tokenEndpoint: `${process.env.EVERGRANT_TEST_SITE}/token`,
  clientId: 'client',
  clientSecret: 'secret',
  store: 'memory:',
  maxWaitMs: 60_000,
});
const sessions = Array.from({ length: WAITS }, (_, number) => client.session(`user-${number}`));
for (const session of sessions) {
  const { refresh_token } = await control('/sign_in', { client_id: 'client' });
  await session.save({ refresh_token });
}
const before = threads();
await control('/faults', { fault: 'delay', count: null, before_ms: 1000 });
let done = 0;
const waits = sessions.map((session) => session.accessToken().then(() => done++));
await sleep(500);
assert.equal(done, 0);
const during = threads();
// Threads of libuv's pool that wait for us would keep a file from being read.
await readFile(import.meta.filename);
await control('/faults', undefined, 'DELETE');
await Promise.all(waits);
row('Node: 1,000 pending waits: threads that they add', '', '0', [during.others - before.others]);
row('  threads of the library', '', '', [during.library]);
await client.close();
