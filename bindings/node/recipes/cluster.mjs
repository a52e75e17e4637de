// A cluster of HTTP servers that share one session, here through Redis: any number of workers, on any number of
// machines.
//
//   EVERGRANT_CONFIG=client.json PORT=8080 node cluster.mjs
//
//   {
//     "site_url": "https://example.my.site.com",
//     "client_id": "YOUR_CONSUMER_KEY",
//     "client_secret_env": "CLIENT_SECRET",
//     "session_lifetime_s": 6600,
//     "store": "rediss://app:PASSWORD@redis.example.com:6379/0",
//     "encryption_key_file": "/run/secrets/evergrant"
//   }

import cluster from 'node:cluster';
import { createServer } from 'node:http';
import { availableParallelism } from 'node:os';
import { Client } from 'evergrant';

if (cluster.isPrimary) {
  let ending = false;
  for (let i = 0; i < Number(process.env.WORKERS ?? availableParallelism()); i++) cluster.fork();
  cluster.on('exit', () => ending || cluster.fork());
  process.once('SIGTERM', () => {
    ending = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
  });
} else {
  // A worker is a program of its own, with a client of its own.
  const client = new Client({ configFile: process.env.EVERGRANT_CONFIG });
  const session = client.session('alice');

  const server = createServer(async (request, response) => {
    try {
      const { instanceUrl } = await session.token();
      const answer = await session.fetch(instanceUrl + request.url);
      response.writeHead(answer.status, { 'x-pid': process.pid }).end(Buffer.from(await answer.arrayBuffer()));
    } catch (error) {
      response.writeHead(502).end(error.code ?? 'the resource server cannot be reached');
    }
  });
  server.listen(Number(process.env.PORT));

  process.once('SIGTERM', () => {
    server.close(async () => {
      await client.close(); // lets a renewal under way settle
      process.exit();
    });
    server.closeIdleConnections();
  });
}
