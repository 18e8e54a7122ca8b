/** A node's own limits: what the page reads in a hello is what a node says there. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { DEFAULT_LIMITS, limitsOf } from '../../www/wire.js';
import { HELLO } from './fakes.js';
import { run, start } from './rig.js';

const welcome = (limits) => ({ type: 'welcome', name: 'ada', nodes: [], limits });

test('each limit that the page knows is one that nodes tell, and by default the same', () => {
  for (const [name, limit] of Object.entries(DEFAULT_LIMITS)) assert.equal(limit, HELLO.limits[name], name);
});

test('each limit that the page asks for is one that it takes from a hello', () => {
  const folder = new URL('../../www/', import.meta.url);
  const asked = readdirSync(folder).filter((name) => name.endsWith('.js')).flatMap((name) => {
    const text = readFileSync(new URL(name, folder), 'utf8');
    return Array.from(text.matchAll(/\b(?:limits|DEFAULT_LIMITS)\.(\w+)/g), (match) => [name, match[1]]);
  });
  assert.ok(asked.length >= 3, String(asked));
  for (const [name, limit] of asked) assert.ok(limit in DEFAULT_LIMITS, `${name} asks for ${limit}`);
});

test('the limits of a node are its own, whatever they are', () => {
  const doubled = Object.fromEntries(Object.entries(HELLO.limits).map(([name, limit]) => [name, 2 * limit]));
  const { limits } = run(start(), welcome(doubled));
  for (const [name, limit] of Object.entries(DEFAULT_LIMITS)) assert.equal(limits[name], 2 * limit, name);
});

test('what is no limit changes none', () => {
  for (const told of [undefined, null, 7, 'x', [], { text_bytes: '9' }, { text_bytes: -1 }, { text_bytes: 0.5 }, { text: 1 }]) {
    assert.deepEqual(limitsOf(told), { ...DEFAULT_LIMITS }, JSON.stringify(told));
  }
});
