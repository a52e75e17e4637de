/*
 * Prints where to send a session's requests, with a token that is valid now.
 *
 *   node renew.mjs client.json alice "$REFRESH_TOKEN"     # the refresh token only until it is known
 */
import { Client } from 'evergrant';

const [configFile, name, refreshToken] = process.argv.slice(2);
if (!name) throw new Error('usage: renew.mjs CONFIG_FILE SESSION [REFRESH_TOKEN]');

const client = new Client({ configFile });
try {
  const session = client.session(name);
  if (refreshToken) await session.save({ refresh_token: refreshToken }); // does nothing if it is known
  const { instanceUrl, accessToken } = await session.token();
  console.log(`${instanceUrl} with a token of ${accessToken.length} bytes`);
} finally {
  await client.close();
}
