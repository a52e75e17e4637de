import { readFileSync } from 'node:fs';
import jsforce from 'jsforce';

const { access_token, refresh_token, instance_url } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const connection = new jsforce.Connection({
  oauth2: { clientId: 'c', clientSecret: 's', redirectUri: 'https://localhost/callback' },
  instanceUrl: instance_url,
  accessToken: access_token,
  refreshToken: refresh_token,
});
if (!connection.accessToken) throw new Error('no token');
