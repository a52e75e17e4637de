// What a package brings along in this project: MiB of files, and other packages.
import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { row } from './rounds.mjs';

const query = (selector) =>
  JSON.parse(execFileSync('npm', ['query', selector], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));

const size = (directory) =>
  readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.name !== 'node_modules')
    .map((entry) => join(directory, entry.name))
    .reduce((sum, path) => sum + (statSync(path).isDirectory() ? size(path) : statSync(path).size), 0);

function installed(name) {
  const packages = [...query(`#${name}`), ...query(`#${name} *`)].map(({ location }) => location);
  const unique = [...new Set(packages)];
  return { mib: unique.reduce((sum, location) => sum + size(location), 0) / 2 ** 20, others: unique.length - 1 };
}

const ours = installed('evergrant');
for (const [i, peer] of ['google-auth-library', 'simple-oauth2', 'jsforce'].entries()) {
  const theirs = installed(peer);
  const what = i === 0 ? `installed for Node, with ${ours.others} more packages;` : ' ';
  row(`${what} peer: ${peer}, with ${theirs.others}`, 'MiB', '', [ours.mib], [theirs.mib]);
}
