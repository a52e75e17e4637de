// Processes and threads: how they end, and what they share.
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Client } from 'evergrant';
import { serverFor, temporaryDirectory } from './support.mjs';

const program = new URL('program.mjs', import.meta.url);

/** Longer than any test lets it be. */
const LONG = { fault: 'delay', before_ms: 10_000, count: null };
const AT_ONCE_MS = 7_000;

/** A session in a store that can be shared, and the fault that its renewal meets. */
async function shared(t, fault) {
  const server = await serverFor(t);
  const config = server.config({ store: `sqlite:${join(temporaryDirectory(t), 'a.db')}`, exitWaitMs: 0 });
  const { refresh_token: refreshToken } = await server.signIn();
  if (fault) await server.faults(fault);
  return { server, config, refreshToken };
}

async function runProcess({ config, refreshToken }, what) {
  const argument = JSON.stringify({ what, config, refreshToken });
  const child = spawn(process.execPath, [program.pathname, argument], { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = child.stdout.setEncoding('utf8').toArray();
  child.stderr.resume();
  const started = performance.now();
  const [code, signal] = await once(child, 'exit');
  return { code, signal, output: (await output).join(''), ms: performance.now() - started };
}

function startWorker({ config, refreshToken }, what) {
  return new Worker(program, { workerData: { what, config, refreshToken } });
}

test('a process with a wait in flight ends at once, however it ends', async (t) => {
  const context = await shared(t, LONG);
  for (const [what, code, output] of [
    ['exit', 7, 'waiting\n'],
    ['giveUp', 0, 'TimeoutError\n'],
    ['throw', 1, 'waiting\n'],
  ]) {
    const ended = await runProcess(context, what);
    assert.deepEqual([ended.code, ended.signal, ended.output], [code, null, output], what);
    assert.ok(ended.ms < AT_ONCE_MS, `${what}: ${ended.ms} ms`);
  }
});

test('a process stays while somebody waits, and ends when nobody does', async (t) => {
  const context = await shared(t, { fault: 'delay', before_ms: 500 });
  const { code, output } = await runProcess(context, 'wait');
  assert.deepEqual([code, output], [0, 'waiting\n2\n']);
  assert.equal((await runProcess(context, 'close')).output, '2\n');
  await context.server.faults({ fault: 'delay', before_ms: 500, count: 2 });
  const again = await runProcess(context, 'again');
  assert.deepEqual([again.code, again.output], [0, 'waiting\n4\n']);
});

test('a worker thread with a wait in flight ends at once, however it ends', async (t) => {
  const context = await shared(t, LONG);
  for (const [what, code] of [
    ['wait', 1],
    ['exit', 7],
  ]) {
    const worker = startWorker(context, what);
    await once(worker, 'message');
    const started = performance.now();
    const ended = once(worker, 'exit');
    if (what === 'wait') await worker.terminate();
    assert.deepEqual(await ended, [code]);
    assert.ok(performance.now() - started < AT_ONCE_MS, what);
  }
});

test('worker threads come and go, and the others do not notice', async (t) => {
  const context = await shared(t);
  const client = new Client(context.config);
  t.after(() => client.close({ maxWaitMs: 5_000 }));
  const session = client.session('alice');
  await session.save(context.refreshToken);
  const first = await session.token();
  const run = async (what, of = context) => {
    const worker = startWorker(of, what);
    const ended = once(worker, 'exit');
    const [message] = await once(worker, 'message');
    if (what === 'wait') await worker.terminate();
    await ended;
    assert.ok(message === 2 || message === 'waiting');
  };
  await run('wait');
  const sockets = () => links().filter((link) => link.startsWith('socket:')).length;
  const alone = await shared(t);
  const before = sockets();
  for (const what of ['close', 'exit', 'close', 'exit']) {
    await run(what);
    await run(what, alone);
  }
  assert.ok(sockets() <= before + 1, 'a worker that ends by itself leaves no queue'); // one for a renewal's connection
  assert.ok(!links().some((link) => link.startsWith(alone.config.store.slice('sqlite:'.length))), 'and no client');
  assert.equal((await session.token()).accessToken, first.accessToken);
  assert.equal(session.accessTokenNow(), first.accessToken);
  assert.equal((await session.renew()).generation, 3);
});

/** What is open in this process. */
function links() {
  return readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the directory that was read
    }
  });
}

test('two worker threads and the main thread renew a session once', async (t) => {
  const context = await shared(t, { fault: 'delay', before_ms: 300 });
  const client = new Client(context.config);
  t.after(() => client.close({ maxWaitMs: 5_000 }));
  const session = client.session('alice');
  await session.save(context.refreshToken);
  const workers = [startWorker(context, 'close'), startWorker(context, 'close')];
  const messages = Promise.all(workers.map((worker) => once(worker, 'message')));
  const ends = Promise.all(workers.map((worker) => once(worker, 'exit')));
  const token = await session.token();
  assert.equal(token.generation, 2);
  assert.deepEqual(await messages, [[2], [2]]);
  assert.deepEqual(await ends, [[0], [0]]);
  assert.equal((await context.server.refreshes()).length, 1);
});

test('eight processes renew a session once', async (t) => {
  const context = await shared(t, { fault: 'delay', before_ms: 300 });
  const all = await Promise.all(Array.from({ length: 8 }, () => runProcess(context, 'close')));
  assert.deepEqual(all.map(({ code, output }) => [code, output]), Array(8).fill([0, '2\n']));
  assert.equal((await context.server.refreshes()).length, 1);
});

test('100,000 calls leave nothing behind', async (t) => {
  const context = await shared(t);
  const client = new Client({ ...context.config, store: 'memory:' });
  t.after(() => client.close({ maxWaitMs: 5_000 }));
  const session = client.session('alice');
  await session.save(context.refreshToken);
  await session.token();
  const calls = async (count) => {
    for (let i = 0; i < count; i += 500) {
      // A call of its own for each, hits and errors in turn.
      await Promise.allSettled(
        Array.from({ length: 500 }, (_, j) => (j % 5 ? session.describe() : client.session(`nobody ${j}`).describe())),
      );
    }
  };
  const collect = await collector();
  const held = () => {
    collect();
    const { rss, heapTotal, heapUsed } = process.memoryUsage();
    return {
      used: heapUsed,
      native: rss - heapTotal, // the engine keeps room for what it has collected
      handles: process.getActiveResourcesInfo().length,
      fds: readdirSync('/proc/self/fd').length,
    };
  };
  await calls(20_000);
  const before = held();
  await calls(100_000);
  await sleep(10);
  const after = held();
  const grown = `${JSON.stringify(before)} → ${JSON.stringify(after)}`;
  const allowed = 300 * 100_000; // less than a call, its result and its promises would take
  assert.ok(after.used - before.used < allowed && after.native - before.native < allowed, grown);
  assert.ok(after.handles <= before.handles + 2, grown);
  assert.ok(after.fds <= before.fds + 2, grown);
});

test('a client that is lost is freed', async (t) => {
  const { config } = await shared(t);
  const open = () => new Client({ ...config, store: 'memory:' }).session('alice').accessTokenNow();
  const { native } = await import('../node_modules/evergrant/lib/native.js');
  const original = native.evergrant_client_free;
  let freed = 0;
  Object.defineProperty(native, 'evergrant_client_free', {
    configurable: true,
    value: (pointer) => (freed++, original(pointer)),
  });
  t.after(() => Object.defineProperty(native, 'evergrant_client_free', { configurable: true, value: original }));
  for (let i = 0; i < 100; i++) open();
  const collect = await collector();
  for (let i = 0; freed < 90 && i < 100; i++) {
    collect();
    await sleep(10);
  }
  assert.ok(freed >= 90, `${freed} of 100`);
});

test('nothing of a caller is kept', async (t) => {
  const context = await shared(t, { fault: 'delay', before_ms: 100 });
  const client = new Client({ ...context.config, store: 'memory:' });
  t.after(() => client.close({ maxWaitMs: 5_000 }));
  const session = client.session('alice');
  const local = new AsyncLocalStorage();
  const request = () => {
    const kept = {};
    return local.run(kept, async () => {
      await session.save(context.refreshToken);
      await session.describe({ signal: new AbortController().signal });
      await session.renew();
      assert.equal(local.getStore(), kept);
      return new WeakRef(kept);
    });
  };
  const kept = await request();
  const collect = await collector();
  for (let i = 0; kept.deref() !== undefined && i < 100; i++) {
    await sleep(10);
    collect();
  }
  assert.equal(kept.deref(), undefined);
});

/** The engine's collector, without a flag for the whole run. */
async function collector() {
  const { setFlagsFromString } = await import('node:v8');
  const { runInNewContext } = await import('node:vm');
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}
