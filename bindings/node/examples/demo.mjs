// A process of `make demo`: once its input ends, it says the session's access token.
import { readFileSync } from 'node:fs';
import { Client } from 'evergrant';

const [configFile, name] = process.argv.slice(2);
const client = new Client({ configFile });
console.log(`Node ${process.versions.node}`);
readFileSync(0); // process.stdin would make the input, which others wait for too, non-blocking
console.log(`OK ${await client.session(name).accessToken()}`);
await client.close();
