// The programs of the README: all are right by the types, and what needs no server runs as it stands.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { root } from './support.mjs';

const blocks = [...readFileSync(join(root, 'bindings/node/README.md'), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)];
const programs = blocks.map(([, program]) => program);

test('the programs of the README are right', (t) => {
  assert.ok(programs.length >= 4);
  const [first] = programs;
  const setUp = first.slice(0, first.indexOf('const { accessToken'));
  const directory = mkdtempSync(join(import.meta.dirname, 'readme-'));
  t.after(() => rmSync(directory, { recursive: true }));
  programs.forEach((program, at) => {
    const isWhole = program.includes('new Client(');
    writeFileSync(join(directory, `${at}.mts`), isWhole ? program : `${setUp}\n${program}`);
  });
  const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--types', 'node'];
  const files = programs.map((_, at) => join(directory, `${at}.mts`));
  const { status, stdout } = spawnSync('npx', ['--no-install', 'tsc', '--ignoreConfig', ...options, ...files], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stdout);
});

test('the unit test of the README runs', () => {
  const program = programs.find((text) => text.includes('memory:'));
  const args = ['--input-type=module', '--eval', program];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});
