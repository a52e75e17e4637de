import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { Client } from 'evergrant';
import { serverFor } from './support.mjs';

async function signedIn(t) {
  const server = await serverFor(t);
  const client = new Client(server.config());
  t.after(() => client.close());
  const session = client.session('alice');
  await session.save(await server.signIn());
  return { server, client, session };
}

async function take(events, count) {
  const taken = [];
  for await (const event of events) if (taken.push(event) === count) break;
  return taken;
}

test('events come in order, to everybody, from where one wants', async (t) => {
  const { client, session } = await signedIn(t);
  const [all, again] = [take(client.events(), 3), take(client.events(), 3)];
  await session.renew();
  await session.signOut();
  const events = await all;
  assert.deepEqual(events.map(({ n }) => n), [1, 2, 3]);
  assert.deepEqual(events.map(({ kind }) => kind), ['saved', 'renewed', 'signed_out']);
  assert.ok(events.every(({ session, atS }) => session === 'alice' && Number.isInteger(atS)));
  assert.ok(Number.isInteger(events[1].durationMs));
  assert.deepEqual(await again, events);
  assert.deepEqual(await take(client.events({ after: 2 }), 1), [events[2]]);
});

test('events end when the client is closed', async (t) => {
  const { client } = await signedIn(t);
  const all = take(client.events(), Infinity);
  await client.close();
  assert.deepEqual((await all).map(({ kind }) => kind), ['saved']);
});

test('a signal ends the wait for an event', async (t) => {
  const { client } = await signedIn(t);
  const reason = new Error('enough');
  const controller = new AbortController();
  const events = client.events({ signal: controller.signal });
  assert.equal((await events.next()).value.kind, 'saved');
  const waiting = events.next();
  controller.abort(reason);
  await assert.rejects(waiting, (error) => error === reason);
  assert.deepEqual(await events.next(), { done: true, value: undefined });
});

test('a wait for an event keeps the process alive, unless it is told not to', () => {
  const program = (options) => `
    import { Client } from 'evergrant';
    const client = new Client({ clientId: 'a', tokenEndpoint: 'http://127.0.0.1:1/token', store: 'memory:' });
    const events = client.events(${options});
    events.next().then(() => console.log('an event'));
    if (process.argv[1] === 'save') setTimeout(() => client.session('a').save('a refresh token'), 300).unref();
  `;
  const run = (options, ...args) => {
    const command = ['--input-type=module', '--eval', program(options), '--', ...args];
    const { status, stdout, error } = spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 20_000 });
    assert.ifError(error);
    assert.equal(status, 0);
    return stdout;
  };
  assert.equal(run('{ ref: false }', 'save'), '');
  assert.equal(run('', 'save'), 'an event\n');
});
