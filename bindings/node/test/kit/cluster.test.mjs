// The recipe for a cluster on Redis, as it stands: workers come and go, and each life of a token costs one request.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'evergrant';
import { serverFor, temporaryDirectory } from '../support.mjs';
import { test } from './kit.mjs';
import { freePort, startRedis, until } from './stores.mjs';

const recipe = new URL('../../recipes/cluster.mjs', import.meta.url).pathname;
const WORKERS = 4;
const LIFE_S = 2;
// A token is renewed in the last fifth of its life, which begins when its request is sent.
const LEAST_GAP_MS = 1000 * LIFE_S * 0.8 - 100;
const RENEWALS = 4;

test('a cluster on Redis makes one request for each life of a token', async (t) => {
  const directory = temporaryDirectory(t);
  const redis = await startRedis(t);
  const server = await serverFor(t, { mode: 'salesforce', latency_ms: 100 });
  writeFileSync(join(directory, 'key'), randomBytes(32).toString('base64'));
  const configFile = join(directory, 'client.json');
  writeFileSync(
    configFile,
    JSON.stringify({
      site_url: server.url,
      client_id: 'client',
      client_secret: 'secret',
      session_lifetime_s: LIFE_S,
      store: redis.url,
      encryption_key_file: 'key',
    }),
  );
  const client = new Client({ configFile });
  await client.session('alice').save(await server.signIn());
  await client.close();

  const port = await freePort();
  const env = {
    ...process.env,
    EVERGRANT_CONFIG: configFile,
    PORT: String(port),
    WORKERS: String(WORKERS),
    XDG_STATE_HOME: directory,
  };
  const primary = spawn(process.execPath, [recipe], { env, stdio: 'inherit' });
  const ended = once(primary, 'exit');
  t.after(() => primary.kill('SIGKILL'));
  const get = () => fetch(`http://127.0.0.1:${port}/services/data/v59.0/limits`, { headers: { connection: 'close' } });
  await until(() => get().then(() => true, () => false));

  const pids = new Set();
  const statuses = new Set();
  const renewals = () => server.refreshes();
  let latest;
  let ends = 0;
  while ((await renewals()).length < RENEWALS) {
    for (const answer of await Promise.all(Array.from({ length: 2 * WORKERS }, get))) {
      statuses.add(answer.status);
      latest = answer.headers.get('x-pid');
      pids.add(latest);
      await answer.arrayBuffer();
    }
    if (ends < (await renewals()).length) {
      ends += 1;
      process.kill(latest, 'SIGTERM'); // it answers what it has, and another one takes its place
      await until(() => !existsSync(`/proc/${latest}`));
    }
  }
  primary.kill();
  assert.deepEqual(await ended, [0, null]);

  assert.deepEqual([...statuses], [200]);
  assert.ok(pids.size > WORKERS, `${pids.size} workers have answered`);
  const log = await renewals();
  assert.deepEqual(new Set(log.map(({ outcome, reply }) => `${outcome} ${reply}`)), new Set(['ok written']));
  const gaps = log.slice(1).map(({ at_ms: at }, i) => at - log[i].at_ms);
  assert.ok(Math.min(...gaps) >= LEAST_GAP_MS, gaps.join());
  assert.equal((await server.control('stats')).reuses, 0);

  const [family] = await server.control('tokens');
  const stored = await redis.cli('--raw', 'EVAL', DUMP, '0');
  assert.match(stored, /alice/);
  for (const { token } of [...family.access_tokens, ...family.refresh_tokens]) assert.ok(!stored.includes(token));
});

/** All that Redis has. */
const DUMP = `local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  all[#all + 1] = key
  if redis.call('TYPE', key).ok == 'hash' then
    for _, value in ipairs(redis.call('HGETALL', key)) do all[#all + 1] = value end
  end
end
return all`;
