// What process.test.mjs runs, in processes and in worker threads.
import { parentPort, workerData } from 'node:worker_threads';
import { Client } from 'evergrant';

const { what, config, refreshToken } = workerData ?? JSON.parse(process.argv[2]);
const say = (message) => (parentPort ? parentPort.postMessage(message) : console.log(message));

const client = new Client(config);
const session = client.session('alice');
await session.save(refreshToken);

const programs = {
  /** Waits for a token, and ends whenever that lets it. */
  wait() {
    session.token().then(({ generation }) => say(generation));
    say('waiting');
  },
  exit() {
    session.token().catch(() => {});
    setTimeout(() => process.exit(7), 100);
    say('waiting');
  },
  /** Waits again, after a while in which nobody waited. */
  async again() {
    await session.renew();
    await new Promise((resolve) => setTimeout(resolve, 50));
    session.renew().then(({ generation }) => say(generation));
    say('waiting');
  },
  async giveUp() {
    await session.token({ signal: AbortSignal.timeout(100) }).catch(({ name }) => say(name));
  },
  async close() {
    say((await session.token()).generation);
    await client.close({ maxWaitMs: 5_000 });
  },
  async throw() {
    session.token().catch(() => {});
    setTimeout(() => {
      throw new Error('expected');
    }, 100);
    say('waiting');
  },
};
await programs[what]();
