/** Ids, names, addresses: what is let in and what is not. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { HUES, guestName, hue, initials, newMid } from '../../www/names.js';
import { byteLength, cleanName, cleanRoom, parseId, socketUrl } from '../../www/wire.js';

test('ids are an origin and a number from one', () => {
  assert.deepEqual(parseId('k3f9q2m7xa.43'), { origin: 'k3f9q2m7xa', seq: 43 });
  for (const bad of ['', 'x', 'x.', '.1', 'x.0', 'x.01', 'x.-1', 'x.1.2', 'a b.1', 'x.9999999999999999', null, 7, {}]) {
    assert.equal(parseId(bad), null, String(bad));
  }
});

test('rooms are cleaned as a person would expect, or refused', () => {
  assert.equal(cleanRoom('  #Rust talk '), 'Rust-talk');
  assert.equal(cleanRoom('Žluťoučký_kůň.1'), 'Žluťoučký_kůň.1');
  for (const bad of ['', '#', 'a/b', 'a\u200bb', '<b>', 'x'.repeat(65)]) assert.equal(cleanRoom(bad), null, bad);
});

test('rooms of any language have one spelling, the same as on a node', () => {
  const table = JSON.parse(readFileSync(new URL('../tables/rooms.json', import.meta.url), 'utf8'));
  for (const [typed, spelled, why] of table.good) {
    // What a person types may begin with a mark of this page's own.
    assert.equal(cleanRoom(typed), spelled, why);
    assert.equal(cleanRoom(spelled), spelled, why);
  }
  for (const [typed, why] of table.bad) {
    // Spaces become hyphens here, and are gone at the ends.
    if (!/\s/.test(typed)) assert.equal(cleanRoom(typed), null, why);
  }
});

test('names lose what nodes refuse and are cut to length by letters', () => {
  assert.equal(cleanName(' a\u202e\u200b\n d '), 'a d');
  assert.equal(cleanName('\u200b \ufeff'), null);
  assert.equal(cleanName('Zoe\u0308 می\u200cخواهم \u0dc1\u0dca\u200d\u0dbb\u0dd3 a\u200cb'), 'Zo\u00eb می\u200cخواهم \u0dc1\u0dca\u200d\u0dbb\u0dd3 ab');
  assert.equal(Array.from(cleanName('😀'.repeat(40))).length, 32);
});

test('socket addresses come from http addresses only', () => {
  assert.equal(socketUrl('http://h:1/x?y#z', false), 'ws://h:1/ws');
  assert.equal(socketUrl('https://h', true), 'wss://h/ws');
  assert.equal(socketUrl('https://u:p@h', false), 'wss://h/ws');
  for (const bad of ['javascript:alert(1)', 'ws://h', 'h', '']) assert.equal(socketUrl(bad, false), null, bad);
  assert.equal(socketUrl('http://h', true), null, 'a browser refuses it from a page that came by https');
});

test('limits count bytes', () => assert.equal(byteLength('aé😀'), 7));

test('guests have pleasant legal names, everybody letters and a colour', () => {
  assert.match(guestName(() => 0), /^[a-z]+-[a-z]+-10$/);
  assert.match(guestName(() => 0.999999), /^[a-z]+-[a-z]+-99$/);
  assert.deepEqual(['quiet-otter-42', 'ada lovelace', 'bob', '42', '!?', 'علي'].map(initials), ['QO', 'AL', 'B', '4', '?', 'ع']);
  assert.equal(hue('ada'), hue('ada'));
  const hues = new Set(Array.from({ length: 200 }, (_, i) => hue(`name-${i}`)));
  assert.deepEqual([hues.size, Math.min(...hues), Math.max(...hues)], [HUES, 0, HUES - 1]);
});

test('mids are legal and never alike', () => {
  assert.match(newMid(), /^[\w-]{22}$/);
  assert.equal(new Set(Array.from({ length: 1000 }, newMid)).size, 1000);
});
