// What tests/c/worker.c is, in Node: it does what stdin says and says on stdout what came of it. Its form is there.
// Of the commands it knows those that tests/processes tells workers of all languages.
import { createInterface } from 'node:readline';
import { Client, EvergrantError } from 'evergrant';

const camelCase = (key) => key.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const snakeCase = (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Names of members, as the other languages have them. */
const named = (naming, value) =>
  typeof value !== 'object' || value === null ? value
  : Array.isArray(value) ? value.map((each) => named(naming, each))
  : Object.fromEntries(Object.entries(value).map(([key, each]) => [naming(key), named(naming, each)]));

let client;
const commands = {
  open: (config) => void (client = new Client(named(camelCase, JSON.parse(config)))),
  save: (session, token) => client.session(session).save(JSON.parse(token)),
  token: async (session) => (await client.session(session).token()).toObject(),
  renew: async (session, rejected) => (await client.session(session).renew({ rejected })).toObject(),
  describe: async (session) => named(snakeCase, await client.session(session).describe()),
  repeat: async (name, ...words) => {
    for (;;) await commands[name](...words);
  },
  end: () => process.exit(0),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [tag, name, ...words] = line.split('\t');
  const began = process.hrtime.bigint();
  let status = 'OK';
  let answer;
  try {
    answer = await commands[name](...words);
  } catch (error) {
    if (!(error instanceof EvergrantError)) throw error;
    status = error.code.replace('EVERGRANT_', '');
    answer = { status, message: error.message, reason: error.reason, outcome: error.outcome };
  }
  const us = Number((process.hrtime.bigint() - began) / 1000n);
  console.log(JSON.stringify({ tag, pid: process.pid, us, status, answer: answer ?? null }));
}
