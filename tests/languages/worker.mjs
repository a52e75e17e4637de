// The same as worker.c in Node. The last argument is the number of worker threads; 0: the main thread does it.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Client, EvergrantError } from 'evergrant';

const EVERY = 8;
const LONGEST_PAUSE_MS = 60;

const [resource, config, first, threads] = isMainThread ? process.argv.slice(2) : workerData;

const camelCase = (key) => key.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const camelCased = (object) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [camelCase(key), value]));

async function use(token) {
  try {
    const answer = await fetch(resource, { headers: { authorization: `Bearer ${token}` } });
    await answer.arrayBuffer();
    return answer.status;
  } catch {
    return -1;
  }
}

async function work(session, untilMs, report) {
  for (let askedMs; (askedMs = Date.now()) < untilMs; await sleep(Math.random() * LONGEST_PAUSE_MS)) {
    let token;
    try {
      token = session.accessTokenNow() ?? (await session.accessToken());
    } catch (error) {
      if (!(error instanceof EvergrantError)) throw error;
      const status = error.code.replace('EVERGRANT_', '');
      report.failed.push([Date.now(), { status, reason: error.reason, message: error.message }]);
      continue;
    }
    const gotMs = Date.now();
    const entry = (report.seen[token] ??= [0, 0, 0, gotMs]);
    entry[0] += 1;
    entry[1] = Math.max(entry[1], askedMs);
    entry[2] = Math.max(entry[2], gotMs);
    if (++report.calls % EVERY === 0) {
      const status = await use(token);
      report.uses += 1;
      if (status !== 200) report.refused.push([token, gotMs, Date.now(), status]);
    }
  }
}

const merge = (reports) => {
  const seen = {};
  for (const [token, [calls, askedMs, gotMs, firstMs]] of reports.flatMap((report) => Object.entries(report.seen))) {
    const entry = (seen[token] ??= [0, 0, 0, firstMs]);
    seen[token] = [
      entry[0] + calls, Math.max(entry[1], askedMs), Math.max(entry[2], gotMs), Math.min(entry[3], firstMs),
    ];
  }
  return {
    calls: reports.reduce((sum, report) => sum + report.calls, 0),
    uses: reports.reduce((sum, report) => sum + report.uses, 0),
    seen,
    refused: reports.flatMap((report) => report.refused),
    failed: reports.flatMap((report) => report.failed),
  };
};

async function alone(tellReady, until) {
  const client = new Client(camelCased(JSON.parse(config)));
  const session = client.session('soak');
  await session.save(JSON.parse(first));
  tellReady();
  const report = { calls: 0, uses: 0, seen: {}, refused: [], failed: [] };
  await work(session, await until, report);
  await client.close({ maxWaitMs: 5000 });
  return report;
}

async function team(until) {
  const workers = Array.from({ length: Number(threads) }, () =>
    new Worker(fileURLToPath(import.meta.url), { workerData: [resource, config, first] }));
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  console.log('ready');
  const untilMs = await until;
  return merge(await Promise.all(workers.map(async (worker) => {
    worker.postMessage(untilMs);
    // Node may emit both in one turn, and then a listener for the second comes too late.
    const [[report]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
    return report;
  })));
}

if (isMainThread) {
  const lines = createInterface({ input: process.stdin });
  const until = once(lines, 'line').then(([line]) => Number(line));
  until.then(() => lines.close());
  const report = Number(threads) > 0 ? await team(until) : await alone(() => console.log('ready'), until);
  console.log(JSON.stringify(report));
} else {
  const until = once(parentPort, 'message').then(([untilMs]) => untilMs);
  parentPort.postMessage(await alone(() => parentPort.postMessage('ready'), until));
}
