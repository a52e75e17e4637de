// Keeps sessions of oidc-provider renewed over 20 rotations: tests/oidc/run.sh node oidc.mjs
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'evergrant';

const oidc = JSON.parse(readFileSync(process.env.EVERGRANT_OIDC, 'utf8'));
const ROTATIONS = 20;

/** Endpoints and a secret, or a private key and an issuer whose endpoints are discovered. */
function access({ client_id, client_secret, private_key, key_id, assertion_algorithm }) {
  const { issuer, token_endpoint, revocation_endpoint, introspection_endpoint } = oidc;
  if (!private_key) {
    const endpoints = { tokenEndpoint: token_endpoint, revocationEndpoint: revocation_endpoint };
    return { ...endpoints, introspectionEndpoint: introspection_endpoint, clientSecret: client_secret };
  }
  // Beside the server's line: both are removed together.
  const privateKeyFile = `${process.env.EVERGRANT_OIDC}.${encodeURIComponent(client_id)}.pem`;
  writeFileSync(privateKeyFile, private_key);
  return { issuer, privateKeyFile, keyId: key_id, assertionAlgorithm: assertion_algorithm };
}

async function keep({ client_auth, client_id, token: answer, ...credentials }) {
  const client = new Client({
    ...access({ client_id, ...credentials }),
    clientAuth: client_auth,
    clientId: client_id,
    store: 'memory:',
    earlyRenewal: 'off',
  });
  const session = client.session('alice');
  await session.save(answer);

  const isLive = async () => {
    const { ok } = await session.fetch(oidc.userinfo_endpoint);
    return ok;
  };
  // Some end by themselves, the others are rejected before.
  for (let token = await session.token(); token.generation <= ROTATIONS; ) {
    assert.equal(await isLive(), true);
    // Both its end and what is left of it are given in whole seconds, rounded down.
    if (token.generation % 5 === 0) await sleep((token.expiresIn + 2) * 1000);
    else await session.renew({ rejected: token.accessToken });
    const next = await session.token();
    assert.ok(next.generation > token.generation);
    assert.notEqual(next.accessToken, token.accessToken);
    token = next;
  }
  assert.equal(await isLive(), true);
  if (client_auth !== 'none') assert.equal((await session.introspect()).active, true);
  const { history } = await session.describe();
  assert.ok(history.every(({ reason }) => reason === null));
  await session.signOut();
  await assert.rejects(session.token(), { code: 'EVERGRANT_SIGN_IN_REQUIRED', reason: 'signed_out' });
  await client.close();
}

await Promise.all(oidc.clients.map(keep));
