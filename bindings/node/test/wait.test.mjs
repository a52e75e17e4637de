// Waits: who waits for what, for how long, and what it costs everybody else.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'evergrant';
import { native } from '../node_modules/evergrant/lib/native.js';
import { root, serverFor } from './support.mjs';

async function signedIn(t, config) {
  const server = await serverFor(t);
  const client = new Client(server.config(config));
  t.after(() => client.close());
  const session = client.session('alice');
  await session.save({ refresh_token: (await server.signIn()).refresh_token });
  return { server, client, session };
}

/** Counts the calls that reach the library's queue while the test runs. */
function counted(t) {
  const original = native.evergrant_queue_submit;
  const calls = [];
  Object.defineProperty(native, 'evergrant_queue_submit', {
    configurable: true,
    value: (queue, client, tag, text, error) => {
      calls.push(JSON.parse(text));
      return original(queue, client, tag, text, error);
    },
  });
  t.after(() => Object.defineProperty(native, 'evergrant_queue_submit', { configurable: true, value: original }));
  return calls;
}

test('5,000 callers wait for one renewal with one call of the library, and nobody else waits for it', async (t) => {
  const { server, session } = await signedIn(t);
  const calls = counted(t);
  const rounds = [];
  // A busy machine stops an event loop for longer than that when nobody waits, too.
  const isPrompt = ({ delay, before }) => delay <= Math.max(20, 2 * before);
  do {
    rounds.push(await round(server, session));
  } while (!isPrompt(rounds.at(-1)) && rounds.length < 5);
  assert.equal(calls.length, rounds.length);
  assert.equal((await server.refreshes()).length, rounds.length);
  assert.ok(isPrompt(rounds.at(-1)), `the event loop was blocked: ${JSON.stringify(rounds)}`);
  assert.ok(rounds.at(-1).reads > 0, `files could not be read: ${JSON.stringify(rounds)}`);
});

/** The longest delay of the event loop while files are read, in ms, and how many were read. */
async function reading(ms) {
  const started = performance.now();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  let reads = 0;
  while (performance.now() - started < ms) {
    await Promise.all(Array.from({ length: 8 }, () => readFile(join(root, 'include/evergrant.json'))));
    reads += 8;
    await sleep(5);
  }
  delay.disable();
  return { delay: delay.max / 1e6, reads };
}

async function round(server, session) {
  const { delay: before } = await reading(1_400);
  await server.faults({ fault: 'delay', before_ms: 2_000 });
  const rejected = session.accessTokenNow();
  const callers = Promise.all(
    Array.from({ length: 5_000 }, () => (rejected === undefined ? session.token() : session.renew({ rejected }))),
  );
  await sleep(50);

  const during = await reading(1_400);

  const tokens = await callers;
  assert.equal(new Set(tokens.map(({ accessToken }) => accessToken)).size, 1);
  return { ...during, before };
}

test('a caller gives up with its signal, and the renewal goes on', async (t) => {
  const { server, session } = await signedIn(t);
  await server.faults({ fault: 'delay', before_ms: 300 });
  const reason = new Error('enough');
  const controller = new AbortController();
  const given = session.token({ signal: controller.signal });
  const other = session.token();
  await sleep(50);
  controller.abort(reason);
  await assert.rejects(given, (error) => error === reason);
  assert.equal((await other).generation, 2);

  await assert.rejects(session.renew({ signal: AbortSignal.abort(reason) }), (error) => error === reason);
  assert.equal((await server.refreshes()).length, 1, 'a signal that was aborted before starts nothing');
  await assert.rejects(session.token({ signal: AbortSignal.abort() }), { name: 'AbortError' });
  await assert.rejects(session.accessToken({ signal: AbortSignal.abort() }), { name: 'AbortError' });

  await server.faults({ fault: 'delay', before_ms: 300 });
  await assert.rejects(session.renew({ signal: AbortSignal.timeout(30) }), { name: 'TimeoutError' });
  while ((await session.token()).generation < 3) await sleep(20);
});

test('every wait takes a signal', async (t) => {
  const { client, session } = await signedIn(t);
  const signal = AbortSignal.abort();
  const calls = counted(t);
  const waits = [
    session.save('a refresh token', { signal }),
    session.describe({ signal }),
    session.introspect({ signal }),
    session.signOut({ signal }),
    session.forget({ signal }),
    client.stats({ signal }),
    client.sessions({ signal }).next(),
    client.events({ signal }).next(),
    client.signIn('alice', {}, { signal }),
    client.signInStart({ redirectUri: 'https://localhost/' }, { signal }),
    client.close({ signal }),
  ];
  for (const wait of waits) await assert.rejects(wait, { name: 'AbortError' });
  assert.equal(calls.length, 0);
});

test('a signal that outlives its waits keeps nothing of them', async (t) => {
  const { session } = await signedIn(t);
  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args) => (listeners++, addEventListener.apply(signal, args));
  signal.removeEventListener = (...args) => (listeners--, removeEventListener.apply(signal, args));
  for (let i = 0; i < 5; i++) await session.describe({ signal });
  await assert.rejects(session.token({ signal, bogus: 1 }));
  assert.equal(listeners, 0);
});

test('a wait is as long as it was asked to be, also for one who joins another', async (t) => {
  const { server, session } = await signedIn(t, { maxWaitMs: 600 });
  const calls = counted(t);
  await server.faults({ fault: 'delay', before_ms: 5_000 });
  const timedOut = (promise) =>
    assert.rejects(promise, { code: 'EVERGRANT_TIMED_OUT' }).then(() => performance.now());
  const started = performance.now();
  const short = timedOut(session.token({ maxWaitMs: 100 }));
  const first = timedOut(session.token());
  await sleep(300);
  const late = performance.now();
  const joined = timedOut(session.token());
  assert.ok((await short) - started >= 95);
  assert.ok((await first) - started >= 590);
  assert.ok((await joined) - late >= 590, 'not when the wait that it joined ends');
  assert.deepEqual(calls.map(({ options }) => Object.keys(options)), [['max_wait_ms'], [], ['max_wait_ms']]);
});

test('only calls whose answer is good for everybody are joined', async (t) => {
  const { server, session } = await signedIn(t);
  const calls = counted(t);
  const rejected = await session.accessToken();
  const count = async (start) => {
    const before = calls.length;
    await Promise.allSettled([start(), start(), start()]);
    return calls.length - before;
  };
  assert.equal(await count(() => session.renew({ rejected })), 1);
  assert.equal(await count(() => session.renew()), 3);
  assert.equal(await count(() => session.save('a refresh token')), 3);
  assert.equal(await count(() => session.describe()), 3);
  assert.ok((await server.refreshes()).length >= 2);
});

test('a sign-in belongs to one user', async (t) => {
  const { client } = await signedIn(t);
  const calls = counted(t);
  const request = { redirectUri: 'https://localhost/callback' };
  await Promise.allSettled([client.signInStart(request), client.signInStart(request)]);
  assert.equal(calls.length, 2);
});
