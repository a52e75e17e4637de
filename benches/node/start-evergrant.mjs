import { Client } from 'evergrant';

const client = new Client(JSON.parse(process.argv[2]));
if (!(await client.session('bench').accessToken())) throw new Error('no token');
await client.close();
