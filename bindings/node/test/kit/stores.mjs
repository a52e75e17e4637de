// Servers of shared stores, from Debian's packages (tests/setup.sh).
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { temporaryDirectory } from '../support.mjs';

const PASSWORD = 'canary-password';

/** Until `isSo()` is, or for a minute. */
export async function until(isSo) {
  for (const end = performance.now() + 60_000; !(await isSo()); await sleep(20)) {
    if (performance.now() > end) throw new Error(`waited in vain: ${isSo}`);
  }
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A Redis server that syncs every write to its disk. It ends with the test. */
export async function startRedis(t) {
  const port = await freePort();
  const settings = {
    port,
    bind: '127.0.0.1',
    dir: temporaryDirectory(t),
    requirepass: PASSWORD,
    appendonly: 'yes',
    appendfsync: 'always',
    save: '',
  };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const command = ['--pdeathsig=INT', '--', 'redis-server', ...args];
  const server = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(server, 'exit');
  t.after(() => server.kill() && ended);
  let log = '';
  server.stdout.setEncoding('utf8').on('data', (part) => (log += part));
  await until(() => log.includes('Ready to accept connections'));
  return {
    url: `redis://:${PASSWORD}@127.0.0.1:${port}/0`,
    /** What `redis-cli` prints. */
    async cli(...command) {
      const client = spawn('redis-cli', ['-p', String(port), ...command], {
        env: { ...process.env, REDISCLI_AUTH: PASSWORD },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      return (await client.stdout.setEncoding('utf8').toArray()).join('');
    },
  };
}
