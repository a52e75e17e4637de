// The same from CommonJS: Node 20.19 and later require() an ES module.
import evergrant = require('evergrant');

const client: evergrant.Client = new evergrant.Client({ configFile: '/etc/program/evergrant.json' });
const token: Promise<string> = client.session('alice').accessToken();
console.log(token);
