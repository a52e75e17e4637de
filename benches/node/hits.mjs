// A token that memory has, for Node: CPU time of one call. Argument: the directory of python/prepare.py.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { Client } from 'evergrant';
import { OAuth2Client } from 'google-auth-library';
import koffi from 'koffi';
import { AuthorizationCode } from 'simple-oauth2';
import { inTurn, row } from './rounds.mjs';

const tokenEndpoint = 'http://127.0.0.1:1/token';
const answer = JSON.parse(readFileSync(`${process.argv[2]}/token.json`, 'utf8'));
const until = Date.now() + answer.expires_in * 1000;

const client = new Client({ tokenEndpoint, clientId: 'c', store: 'memory:' });
const session = client.session('bench');
await session.save(answer);
assert.equal(await session.accessToken(), answer.access_token);
assert.equal(session.accessTokenNow(), answer.access_token);

const google = new OAuth2Client({ clientId: 'c', clientSecret: 's' });
google.setCredentials({ access_token: answer.access_token, refresh_token: answer.refresh_token, expiry_date: until });

const simple = new AuthorizationCode({
  client: { id: 'c', secret: 's' },
  auth: { tokenHost: 'http://127.0.0.1:1' },
}).createToken({ ...answer, expires_at: new Date(until) });

const words = new Int32Array(new SharedArrayBuffer(4));
const byHand = {
  token: answer.access_token,
  until,
  words,
  now() {
    return this.words[0] === 0 && Date.now() < this.until ? this.token : undefined;
  },
};

const library = koffi.load(process.env.BENCH_LIBRARY);
const lends = library.func('const char *evergrant_version()');
const free = library.func('void evergrant_string_free(void *string)');
koffi.disposable('EvergrantBenchString', 'char *', free);
const gives = library.func(
  'int evergrant_json_member(const char *json, const char *name, _Out_ EvergrantBenchString *value, void *error)');
const out = [null];

// Each loop is a function of its own, so that one call's optimization is not the others'.
const loop = (expression, names, kind = '') => new Function(...Object.keys(names), `return ${kind} (number) => {
  let sink;
  for (let i = 0; i < number; i++) sink = ${expression};
  return sink;
}`)(...Object.values(names));

const calls = (expression, names) => measure(loop(expression, names));
const awaits = (expression, names) => measure(loop(`await ${expression}`, names, 'async'));

function measure(loop) {
  const number = 500_000;
  let warm = false;
  return async () => {
    if (!warm) await loop(number);
    warm = true;
    const begin = process.cpuUsage();
    const token = await loop(number);
    const { user, system } = process.cpuUsage(begin);
    assert.ok(token);
    return ((user + system) * 1000) / number;
  };
}

async function table(what, target, ours, peers) {
  const [figures, ...others] = await inTurn(ours, ...Object.values(peers));
  Object.keys(peers).forEach((peer, i) =>
    row(i === 0 ? `${what}; peer: ${peer}` : `  peer: ${peer}`, 'ns', i === 0 ? target : '', figures, others[i]));
}

await table('Node: accessTokenNow()', '<= 45 ns', calls('session.accessTokenNow()', { session }), {
  'google-auth-library, await getAccessToken()': awaits('(await google.getAccessToken()).token', { google }),
  'simple-oauth2, expired() ? : token': calls('simple.expired() ? undefined : simple.token.access_token', { simple }),
  'a word and a clock, by hand': calls('byHand.now()', { byHand }),
  'koffi, a call that lends a string': calls('lends()', { lends }),
  'koffi, a call that gives a string': calls("(gives('{\"a\":\"b\"}', 'a', out, null), out[0])", { gives, out }),
});
await table('Node: await accessToken()', '', awaits('session.accessToken()', { session }), {
  'google-auth-library, await getAccessToken()': awaits('google.getAccessToken()', { google }),
  'a promise that is there': awaits('there', { there: Promise.resolve(answer.access_token) }),
});
await client.close();
