// How the library is found, and what is said when it is not or does not fit.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { temporaryDirectory } from './support.mjs';

const modules = join(import.meta.dirname, '../node_modules');
const IMPORT = `import { version } from 'evergrant'; console.log(version);`;

function node(cwd, args, env = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status, stdout, stderr };
}

const evaluate = (cwd, env) => node(cwd, ['--input-type=module', '--eval', IMPORT], env);

/** A project with some of the packages. */
function project(t, ...packages) {
  const directory = temporaryDirectory(t);
  for (const name of ['koffi', '@koromix', ...packages]) {
    mkdirSync(join(directory, 'node_modules'), { recursive: true });
    cpSync(join(modules, name), join(directory, 'node_modules', name), { recursive: true });
  }
  return directory;
}

test('a library with another binary interface is refused, with both numbers and its path', (t) => {
  const directory = temporaryDirectory(t);
  const source = join(directory, 'stub.c');
  const library = join(directory, 'libevergrant.so');
  writeFileSync(source, 'unsigned evergrant_abi_version(void) { return 77; }\n');
  execFileSync('cc', ['-shared', '-fPIC', '-o', library, source]);
  const { status, stderr } = evaluate(import.meta.dirname, { EVERGRANT_LIBRARY: library });
  assert.equal(status, 1);
  assert.match(stderr, /binary interface 77, but .* needs 1:/);
  assert.ok(stderr.includes(library));
  assert.match(stderr, /code: 'EVERGRANT_LIBRARY'/);
});

test('without a library, the error says where it looked', (t) => {
  const { status, stderr } = evaluate(project(t, 'evergrant'));
  assert.equal(status, 1);
  assert.match(stderr, /There is no evergrant library for linux-x64\. Install the package evergrant-linux-x64/);
  assert.match(stderr, /Looked at: no such package/);

  const directory = project(t, 'evergrant', 'evergrant-linux-x64');
  const library = join(directory, 'node_modules/evergrant-linux-x64/glibc/libevergrant.so');
  writeFileSync(library, 'not a library');
  const broken = evaluate(directory);
  assert.equal(broken.status, 1);
  assert.ok(broken.stderr.includes(library));
});

test('EVERGRANT_LIBRARY comes first, and alone, and is a path', (t) => {
  const directory = project(t, 'evergrant');
  cpSync(join(modules, 'evergrant-linux-x64/glibc/libevergrant.so'), join(directory, 'moved.so'));
  assert.equal(evaluate(directory, { EVERGRANT_LIBRARY: join(directory, 'moved.so') }).status, 0);
  assert.equal(evaluate(directory, { EVERGRANT_LIBRARY: 'moved.so' }).status, 0);
  const { status, stderr } = evaluate(import.meta.dirname, { EVERGRANT_LIBRARY: 'libc.so.6' });
  assert.equal(status, 1, 'the system is not searched');
  assert.ok(stderr.includes(join(import.meta.dirname, 'libc.so.6')));
});

test('in Electron, the library is taken from beside the archive', (t) => {
  const directory = project(t, 'evergrant');
  const archive = join(directory, 'app.asar');
  mkdirSync(archive);
  renameSync(join(directory, 'node_modules'), join(archive, 'node_modules'));
  const name = 'node_modules/evergrant-linux-x64';
  cpSync(join(modules, 'evergrant-linux-x64'), join(directory, 'app.asar.unpacked', name), { recursive: true });
  mkdirSync(join(archive, name));
  cpSync(join(modules, 'evergrant-linux-x64/package.json'), join(archive, name, 'package.json'));
  assert.equal(evaluate(archive).status, 1);
  const electron = `Object.defineProperty(process, 'versions', { value: { ...process.versions, electron: '39' } })`;
  const preload = `data:text/javascript,${encodeURIComponent(electron)}`;
  const { status, stderr } = node(archive, ['--import', preload, '--input-type=module', '--eval', IMPORT]);
  assert.equal(status, 0, stderr);
});

test('the library is not looked for in the working directory', (t) => {
  const directory = project(t, 'evergrant');
  const library = join(modules, 'evergrant-linux-x64/glibc/libevergrant.so');
  for (const place of ['.', 'target/release', 'target/debug']) {
    mkdirSync(join(directory, place), { recursive: true });
    cpSync(library, join(directory, place, 'libevergrant.so'));
  }
  assert.equal(evaluate(directory).status, 1);
});

test('import and require give the same', () => {
  const program = `import('evergrant').then((imported) => {
    const required = require('evergrant');
    for (const name of ['Client', 'EvergrantError', 'Session', 'Token', 'isRejection', 'refresh', 'version']) {
      if (required[name] === undefined || required[name] !== imported[name]) throw new Error(name);
    }
    console.log(Object.keys(imported).length);
  })`;
  assert.equal(node(import.meta.dirname, ['--eval', program]).stdout, '7\n');
});

test('an esbuild bundle works with the packages beside it', async (t) => {
  const directory = temporaryDirectory(t);
  symlinkSync(modules, join(directory, 'node_modules'));
  const program = `
    import { Client } from 'evergrant';
    const client = new Client({ clientId: 'a', tokenEndpoint: 'http://127.0.0.1:1/token', store: 'memory:' });
    const session = client.session('alice');
    session.save({ access_token: 'an-access-token', token_type: 'Bearer', expires_in: 60 })
      .then(() => session.accessToken()).then(console.log).then(() => client.close());
  `;
  for (const format of ['esm', 'cjs']) {
    const outfile = join(directory, format === 'esm' ? 'bundle.mjs' : 'bundle.cjs');
    await build({
      stdin: { contents: program, resolveDir: import.meta.dirname },
      bundle: true,
      platform: 'node',
      format,
      external: ['evergrant', 'koffi'],
      outfile,
    });
    assert.deepEqual(node(directory, [outfile]), { status: 0, stdout: 'an-access-token\n', stderr: '' });
  }
});

test('importing loads nothing that a hit does not need', () => {
  const hit = `
    import { Client } from 'evergrant';
    const client = new Client({ clientId: 'a', tokenEndpoint: 'http://127.0.0.1:1/token', store: 'memory:' });
    client.session('alice').accessTokenNow();
  `;
  const loaded = (program) => {
    const list = `${program}; console.log(JSON.stringify(process.moduleLoadList))`;
    const { stdout } = node(import.meta.dirname, ['--input-type=module', '--eval', list]);
    return JSON.parse(stdout);
  };
  const before = new Set(loaded(`import 'koffi'`));
  assert.deepEqual(loaded(hit).filter((name) => !before.has(name)), []);
});
