// What is said twice is the same in both places: the tables of this package, and what the library says of itself.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { version } from 'evergrant';
import { keys } from '../node_modules/evergrant/lib/keys.js';
import { ABI_VERSION, native, prototypes, statuses } from '../node_modules/evergrant/lib/native.js';
import { root } from './support.mjs';

const read = (path) => readFileSync(join(root, path), 'utf8');
const api = JSON.parse(read('include/evergrant.json'));

test('the prototypes are those of the header', () => {
  assert.deepEqual(Object.keys(prototypes).sort(), api.functions.map(({ name }) => name).sort());
  const types = {
    void: 'void',
    'char *': 'void *',
    'const char *': 'str',
    int32_t: 'int32_t',
    uint32_t: 'uint32_t',
    uint64_t: 'uint64_t',
    evergrant_status: 'int32_t',
  };
  for (const { name, returns, parameters } of api.functions) {
    const [result, ...others] = prototypes[name];
    assert.equal(result, types[returns], name);
    assert.equal(others.length, parameters.length, name);
    parameters.forEach(({ name: parameter, type }, at) => {
      const where = `${name}: ${parameter}`;
      if (parameter.endsWith('_out')) assert.equal(typeof others[at], 'object', where);
      else assert.equal(others[at], types[type.replace(/^(const )?evergrant_(?!status)\w+ \*$/, 'char *')], where);
    });
  }
});

test('every function of the table is in the library', () => {
  for (const name of Object.keys(prototypes)) assert.equal(typeof native[name], 'function', name);
});

test('the statuses are those of the library', () => {
  const names = api.statuses.map(({ name }) => name);
  assert.deepEqual(statuses, names.filter((name) => name !== 'OK' && name !== 'STALE'));
  for (const { name, number } of api.statuses) assert.equal(native.evergrant_status_name(number), name);
});

test('the keys are those of the library', () => {
  const configuration = api.configuration.map(({ name }) => name);
  assert.deepEqual(Object.values(keys).sort(), configuration.sort());
  for (const [ours, theirs] of Object.entries(keys)) {
    assert.equal(ours.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), theirs);
  }
  const declared = /export interface Configuration \{(.*?)\n\}/s.exec(read('bindings/node/index.d.ts'))[1];
  assert.deepEqual([...declared.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name).sort(), Object.keys(keys).sort());
});

test('the declared choices are those of the library', () => {
  const declaration = read('bindings/node/index.d.ts');
  for (const { name, choices } of api.configuration.filter(({ choices }) => choices)) {
    const [ours] = Object.entries(keys).find(([, theirs]) => theirs === name);
    const declared = new RegExp(`^ {2}${ours}\\?: (.*) \\| undefined;`, 'm').exec(declaration)[1];
    assert.deepEqual(declared.split(' | '), choices.map((choice) => `'${choice}'`), ours);
  }
});

test('there is one version', () => {
  const expected = /^version = "(.*)"/m.exec(read('Cargo.toml'))[1];
  const main = JSON.parse(read('bindings/node/package.json'));
  const platform = JSON.parse(read('bindings/node/platforms/linux-x64/package.json'));
  assert.equal(main.version, expected);
  assert.equal(platform.version, expected);
  assert.equal(main.optionalDependencies['evergrant-linux-x64'], expected);
  assert.equal(version, expected);
  assert.equal(api.version, expected);
  assert.equal(ABI_VERSION, api.abi_version);
  assert.equal(native.evergrant_abi_version(), api.abi_version);
});
