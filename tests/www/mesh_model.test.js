/** The mesh put together from several nodes' answers: who lives, who hears whom, at which rates. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { label, readAnswer } from '../../www/mesh/answer.js';
import { addresses, DEAD_KEEP_MS, FADE_MS, FRESH_MS, linkKey, mark, newWorld, picture, takeAnswer } from '../../www/mesh/model.js';
import { statusText } from '../../www/mesh/words.js';
import { A, B, body, C, D, row, START, three, told, urlOf } from './mesh_rig.js';

const status = (world, now) => Object.fromEntries(picture(world, now).nodes.map((node) => [node.origin, node.status]));
const link = (world, now, speaker, hearer) => picture(world, now).links.find((it) => it.key === linkKey(speaker, hearer));

test('nodes that hear each other are alive, with a link for each direction', () => {
  const shown = picture(three(), START);
  assert.deepEqual(shown.nodes.map((node) => node.status), ['up', 'up', 'up']);
  assert.equal(shown.links.length, 6);
  assert.ok(shown.links.every((it) => it.state === 'up' && it.told && !it.oneWay));
  assert.deepEqual([shown.blind, shown.orphan], [false, false]);
  assert.deepEqual(shown.nodes.map((node) => node.home), [true, false, false]);
});

test('others are known from one answer: alive if they are heard, awaited if they never were', () => {
  const world = told(newWorld(urlOf(A)), START, body(A, [B, row(C, { state: 'dialing' }), row(null, { state: 'dialing', pub: 'tcp://127.0.0.1:9', name: '' })]));
  assert.deepEqual(status(world, START), { [A]: 'up', [B]: 'heard', [C]: 'awaited', '?tcp://127.0.0.1:9': 'awaited' });
  assert.deepEqual(addresses(world, START).urls, [urlOf(A), urlOf(B), urlOf(C)]);
  const later = told(world, START + 1, body(A, [B]));
  assert.deepEqual(Object.keys(status(later, START + 1)), [A, B], 'nobody speaks of the awaited any more');
});

test('a break in one direction is that of this direction', () => {
  for (const state of ['silent', 'dialing']) {
    const world = told(newWorld(urlOf(A)), START, body(A, [B]), body(B, [row(A, { state })]));
    assert.deepEqual([link(world, START, A, B).state, link(world, START, A, B).oneWay], [state, true]);
    assert.deepEqual([link(world, START, B, A).state, link(world, START, B, A).oneWay], ['up', false]);
  }
  const unlisted = told(newWorld(urlOf(A)), START, body(A, [B]), body(B, []));
  assert.deepEqual([link(unlisted, START, A, B).state, link(unlisted, START, A, B).oneWay], ['none', true]);
  const both = told(newWorld(urlOf(A)), START, body(A, [row(B, { state: 'silent' })]), body(B, [row(A, { state: 'silent' })]));
  assert.ok(picture(both, START).links.every((it) => !it.oneWay), 'a path that is cut both ways is no one-way break');
});

test('of a node that this page cannot read the others tell: whether it hears is their word for it', () => {
  const world = told(newWorld(urlOf(A)), START, B, body(A, [row(B, { hears_us: true }), row(C, { hears_us: false })]));
  assert.equal(status(world, START)[B], 'heard');
  assert.deepEqual([link(world, START, A, B).state, link(world, START, A, B).told], ['up', false]);
  assert.equal(link(world, START, A, C).oneWay, true);
  assert.equal(link(world, START, B, C), undefined, 'of two that say nothing nothing is known');
});

test('a node is dead when it does not answer and nobody hears it, and not before', () => {
  let world = told(three(), START + 1000, C);
  assert.equal(status(world, START + 1000)[C], 'heard', 'the others hear it still');
  world = told(world, START + 1500, body(A, [B, row(C, { state: 'silent' })]), body(B, [A, row(C, { state: 'dialing' })]));
  assert.equal(status(world, START + 1500)[C], 'silent', 'one has not given it up');
  world = told(world, START + 2000, body(A, [B, row(C, { state: 'dialing' })]));
  assert.equal(status(world, START + 2000)[C], 'dead');
  assert.ok(picture(world, START + 2000).links.every((it) => it.speaker !== C && it.hearer !== C));
  const frozen = told(three(), START + FRESH_MS + 1, body(A, [B, row(C, { state: 'dialing' })]), body(B, [A, row(C, { state: 'dialing' })]));
  assert.equal(status(frozen, START + FRESH_MS + 1)[C], 'silent', 'an answer that is only late kills nobody');
});

test('the dead fade and are forgotten, also while nothing else happens', () => {
  let world = told(three(), START + 1000, C, body(A, [B]), body(B, [A]));
  const fades = () => picture(world, now).nodes.find((node) => node.origin === C)?.fading;
  let now = START + 1000;
  assert.equal(fades(), false);
  now += DEAD_KEEP_MS - FADE_MS + 1;
  world = told(mark(world, now), now, body(A, [B]), body(B, [A]));
  assert.equal(fades(), true);
  now += FADE_MS;
  world = mark(world, now);
  assert.deepEqual(Object.keys(status(world, now)), [A, B]);
});

test('a node that comes back is another origin, on the place of the one before', () => {
  let world = told(three(), START + 1000, B, body(A, [row(B, { state: 'dialing' }), C]), body(C, [A, row(B, { state: 'dialing' })]));
  assert.equal(status(world, START + 1000)[B], 'dead');
  const back = { ...body(D, [A, C]), http: urlOf(B) };
  world = takeAnswer(world, urlOf(B), readAnswer(back), START + 2000);
  assert.deepEqual(status(world, START + 2000), { [A]: 'up', [B]: 'dead', [D]: 'up', [C]: 'up' });
  const places = picture(world, START + 2000).nodes.map((node) => [node.origin, node.place]);
  assert.deepEqual(places, [[A, 0], [B, 1], [D, 1], [C, 2]]);
});

test('one that is heard again was not dead', () => {
  let world = told(three(), START + 1000, C, body(A, [B]), body(B, [A]));
  assert.equal(status(world, START + 1000)[C], 'dead');
  world = told(world, START + 2000, body(A, [B, C]));
  assert.equal(status(world, START + 2000)[C], 'heard');
  world = told(world, START + 2500, body(C, [A, B]));
  assert.equal(status(world, START + 2500)[C], 'up');
});

test('while nobody answers nobody is declared dead', () => {
  const world = told(three(), START + 1000, A, B, C);
  const shown = picture(world, START + 1000);
  assert.deepEqual([shown.blind, shown.orphan], [true, false]);
  assert.deepEqual(shown.nodes.map((node) => node.status), ['silent', 'silent', 'silent']);
});

test('the page goes on without the node that served it', () => {
  const world = told(three(), START + 1000, A, body(B, [row(A, { state: 'dialing' }), C]), body(C, [row(A, { state: 'dialing' }), B]));
  const shown = picture(world, START + 1000);
  assert.equal(shown.orphan, true);
  assert.deepEqual(shown.nodes.map((node) => [node.status, node.home]), [['dead', true], ['up', false], ['up', false]]);
  assert.equal(shown.links.length, 2);
});

test('rates are made of two answers; a counter that fell is no negative rate', () => {
  let world = told(newWorld(urlOf(A)), START, body(A, [row(B, { received: 10 })], { counts: { said: 5, deliveries: 100 } }));
  assert.deepEqual([picture(world, START).nodes[0].said, link(world, START, B, A).rate], [null, null]);
  world = told(world, START + 2000, body(A, [row(B, { received: 40 })], { counts: { said: 5, deliveries: 500 } }));
  const shown = picture(world, START + 2000);
  assert.deepEqual([shown.nodes[0].said, shown.nodes[0].deliveries], [0, 200]);
  assert.equal(link(world, START + 2000, B, A).rate, 15);
  world = told(world, START + 3000, body(A, [row(B, { received: 0 })]));
  assert.equal(link(world, START + 3000, B, A).rate, 0);
});

test('a registry is told of by each node, and so is a broker', () => {
  const down = [{ url: 'http://127.0.0.1:7000', state: 'down' }];
  const broker = (state) => ({ buses: [{ url: 'redis://h:6379', state }] });
  const world = told(newWorld(urlOf(A)), START, body(A, [B], broker('up')), body(B, [A], { registries: down, ...broker('silent') }));
  assert.deepEqual(picture(world, START).registries, [
    { kind: 'registry', url: 'http://127.0.0.1:7000', up: [A], down: [B] },
    { kind: 'broker', url: 'redis://h:6379', up: [A], down: [B] },
  ]);
  const others = ['dns+chat:80', 'etcd://h:2379/chat', 'tls://h:7171'].map((url) => ({ url, state: 'up' }));
  const found = picture(told(newWorld(urlOf(A)), START, body(A, [B], { registries: others })), START).registries;
  assert.deepEqual(found.map((it) => it.kind), ['source', 'source', 'registry']);
});

test('one node under two addresses is asked once', () => {
  const home = 'http://localhost:8097';
  const world = takeAnswer(newWorld(home), home, readAnswer(body(A, [B])), START);
  assert.deepEqual([...addresses(world, START).aliases], [urlOf(A)]);
  assert.equal(picture(world, START).nodes[0].home, true);
});

test('what is no answer of a node is none, and what it says is made harmless', () => {
  for (const bad of [null, 1, 'x', [], {}, { origin: 7 }, { origin: '<svg>aaaaa' }, { origin: 'AAAAAAAAAA' }]) assert.equal(readAnswer(bad), null);
  const odd = readAnswer({ origin: A, name: ' \u202Eevil\u0000\u200B\n name ', http: 'javascript:alert(1)', links: [null, 7, { origin: 'x', state: 'odd', http: 'file:///etc', beat_age_ms: -1, received: 1e999 }], counts: { said: 'x' } });
  assert.deepEqual([odd.name, odd.http, odd.counts.said], ['evil name', null, 0]);
  assert.deepEqual([odd.links.length, odd.links[0].origin, odd.links[0].state, odd.links[0].http, odd.links[0].beatAge, odd.links[0].received], [1, null, 'dialing', null, null, 0]);
  assert.equal(readAnswer({ origin: A, name: '\u202E\u200B' }).name, 'aaaa');
  assert.equal(readAnswer({ origin: A, http: 'http://user:pw@host:1/path?q#f' }).http, 'http://host:1');
  assert.equal(Array.from(label('x'.repeat(500))).length, 40);
  assert.equal(readAnswer(body(A, Array.from({ length: 5000 }, () => B))).links.length, 256);
});

test('whom a node does not hear is told with the whole reason, and nobody of whom all is well', () => {
  const error = `no way there: ${'x'.repeat(200)}`;
  const refused = row(B, { state: 'dialing', reason: 'refused', error });
  const byHand = row(null, { state: 'dialing', pub: 'tcp://127.0.0.1:9', name: '', reason: 'timed_out', error: 'timed out' });
  const world = told(newWorld(urlOf(A)), START, body(A, [refused, byHand, C]), body(C, [A]));
  assert.deepEqual(picture(world, START).lacking, [
    { node: 'aaaa', peer: 'bbbb', at: 'tcp://127.0.0.1:5098', error },
    { node: 'aaaa', peer: '', at: 'tcp://127.0.0.1:9', error: 'timed out' },
  ]);
  assert.deepEqual(picture(three(), START).lacking, []);
});

test('a node that takes clients and has not all of before says so', () => {
  const lacking = [{ origin: C, after: 3, through: 5 }, { origin: D, after: 0, through: 1_000 }, 'nonsense', { after: 'x', through: 1 }];
  const world = told(newWorld(urlOf(A)), START, body(A, [B], { lacking }), body(B, [A]));
  assert.deepEqual(picture(world, START).nodes.map(statusText), ['alive, lacks 1\u202F002 messages', 'alive']);
});
