import { readFileSync } from 'node:fs';
import { OAuth2Client } from 'google-auth-library';

const { access_token, refresh_token, expires_in } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const client = new OAuth2Client({ clientId: 'c', clientSecret: 's' });
client.setCredentials({ access_token, refresh_token, expiry_date: Date.now() + expires_in * 1000 });
if (!(await client.getAccessToken()).token) throw new Error('no token');
