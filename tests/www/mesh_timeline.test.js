/** Events found by comparing pictures, and what of them is read out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newWorld, picture, takeAnswer } from '../../www/mesh/model.js';
import { readAnswer } from '../../www/mesh/answer.js';
import { announcement, ANNOUNCE_MS, compare, EVENTS_MAX, newTimeline, textOf } from '../../www/mesh/timeline.js';
import { A, B, body, C, D, row, START, three, told, urlOf } from './mesh_rig.js';

/** Runs a world through steps [milliseconds after the start, ...words], and gives the texts of all events. */
function events(steps, first = three()) {
  let world = first;
  let timeline = compare(newTimeline(), picture(world, START), START);
  for (const [after, ...words] of steps) {
    world = told(world, START + after, ...words);
    timeline = compare(timeline, picture(world, START + after), START + after);
  }
  return timeline.events.map(textOf);
}

test('the first picture is told in one line', () => {
  assert.deepEqual(events([]), ['watching 3 nodes']);
});

test('whom the page gets to know while it opens did not join, and changed no registry', () => {
  const down = { registries: [{ url: 'http://127.0.0.1:7000', state: 'down' }] };
  const first = told(newWorld(urlOf(A)), START, body(A, [B, C]));
  assert.deepEqual(events([[250, body(B, [A, C])], [500, body(C, [A, B], down)], [750, body(A, [B, C])]], first), ['watching 3 nodes']);
  assert.deepEqual(events([[1000, body(A, [B, C])], [2000, body(A, [B, C])], [3000, body(A, [B, C])]], first), ['watching 3 nodes'], 'others that cannot be read are not waited for');
  assert.deepEqual(events([[500, body(A, [B, C, D]), body(D, [A, B, C], down)]]).slice(1), ['node dddd joined']);
});

test('a node that dies is one event, not one for each of its links', () => {
  const without = [body(A, [B, row(C, { state: 'dialing' })]), body(B, [A, row(C, { state: 'dialing' })])];
  const told = events([[500, ...without], [1000, ...without, C], [2000, ...without], [3000, ...without], [4000, ...without]]);
  assert.deepEqual(told, ['watching 3 nodes', 'node cccc died']);
});

test('a new node joins, and one that comes back is said to', () => {
  const four = [body(A, [B, C, D]), body(B, [A, C, D]), body(C, [A, B, D]), body(D, [A, B, C])];
  assert.deepEqual(events([[1000, ...four], [2000, ...four]]), ['watching 3 nodes', 'node dddd joined']);
  const gone = [body(A, [B, row(C, { state: 'dialing' })]), body(B, [A, row(C, { state: 'dialing' })])];
  let world = told(three(), START + 1000, C, ...gone);
  let timeline = compare(compare(newTimeline(), picture(three(), START), START), picture(world, START + 1000), START + 1000);
  world = takeAnswer(told(world, START + 2000, ...gone), urlOf(C), readAnswer({ ...body(D, [A, B]), http: urlOf(C) }), START + 2000);
  timeline = compare(timeline, picture(world, START + 2000), START + 2000);
  assert.deepEqual(timeline.events.map(textOf).slice(1), ['node cccc died', 'node cccc came back as dddd']);
});

test('a break between the living is told when it lasts, as one-way if it is, and so is its end', () => {
  const broken = [body(A, [B, C]), body(B, [row(A, { state: 'silent' }), C]), body(C, [A, B])];
  const whole = [body(A, [B, C]), body(B, [A, C]), body(C, [A, B])];
  const lasting = [[500, ...broken], [1500, ...broken], [2500, ...broken], [3500, ...broken], [4000, ...whole], [5000, ...whole], [6000, ...whole], [7000, ...whole]];
  assert.deepEqual(events(lasting).slice(1), ['bbbb no longer hears aaaa, though it is heard there', 'bbbb hears aaaa again']);
  assert.deepEqual(events([[500, ...broken], [1000, ...whole], [3000, ...whole]]).slice(1), [], 'a blink is no event');
});

test('what was repaired and what was lost is counted, with whose it was', () => {
  const repaired = body(A, [row(B, { repaired: 120 }), C], { counts: { repaired: 120 } });
  const lost = body(A, [row(B, { repaired: 120, lost: 1 }), row(C, { lost: 2 })], { counts: { repaired: 120, lost: 3 } });
  assert.deepEqual(events([[500, repaired], [1000, lost], [1500, lost]]).slice(1), ['aaaa repaired 120 messages of bbbb', 'aaaa lost 3 messages of bbbb, cccc']);
  assert.deepEqual(events([[500, body(A, [B, C], { counts: { repaired: 1 } })]]).slice(1), ['aaaa repaired 1 message'], 'of an origin that has no link any more');
});

test('clients of a dead node are followed to where they go, no more than there were', () => {
  const at = (count) => ({ clients: count });
  const before = [body(A, [B, C], at(1)), body(B, [A, C], at(2)), body(C, [A, B], at(12))];
  const links = (other) => [other, row(C, { state: 'dialing' })];
  const after = (a, b) => [body(A, links(B), at(a)), body(B, links(A), at(b))];
  const texts = events([[500, ...before], [5000, ...before], [6000, C, ...after(1, 9)], [6500, ...after(1, 9)], [7000, ...after(4, 9)], [7500, ...after(9, 30)], [8000, ...after(40, 40)]]);
  assert.deepEqual(texts.slice(1), ['node cccc died', '7 clients moved to bbbb', '3 clients moved to aaaa', '2 clients moved to aaaa']);
  assert.deepEqual(events([[500, body(A, [B, C], at(50))], [1000, body(A, [B, C], at(90))]]).slice(1), [], 'clients who come are no event');
});

test('registries, disks and a node that is ready are told of', () => {
  const down = { registries: [{ url: 'http://127.0.0.1:7000', state: 'down' }] };
  const texts = events([[500, body(A, [B, C], down)], [1000, body(B, [A, C], down), body(C, [A, B], down)], [1500, body(A, [B, C]), body(B, [A, C]), body(C, [A, B])]]);
  const url = 'registry http://127.0.0.1:7000 is';
  assert.deepEqual(texts.slice(1), [`${url} down for some`, `${url} down`, `${url} up`]);
  const disk = (state) => ({ storage: { state, messages: 1, bytes: 1 } });
  assert.deepEqual(events([[1, body(A, [B, C], disk('ok'))], [500, body(A, [B, C], disk('full'))], [1000, body(A, [B, C], disk('ok'))]]).slice(2),
    ['storage of aaaa is full', 'storage of aaaa is ok']);
  assert.deepEqual(events([[500, body(A, [B, C], { ready: false })], [1000, body(A, [B, C])]]).slice(1), ['aaaa takes clients']);
});

test('the loss of the node that served the page is told, and its return', () => {
  const without = [body(B, [row(A, { state: 'dialing' }), C]), body(C, [row(A, { state: 'dialing' }), B])];
  const texts = events([[1000, A, ...without], [2000, ...without], [2500, body(A, [B, C]), body(B, [A, C]), body(C, [A, B])]]);
  assert.deepEqual(texts.slice(1), ['node aaaa died', 'the node that served this page is gone; the page goes on through bbbb',
    'node aaaa is heard again', 'the address that served this page answers again']);
});

test('while nobody answers nothing has happened', () => {
  assert.deepEqual(events([[1000, A, B, C], [2000, A, B, C], [3000, body(A, [B, C]), body(B, [A, C]), body(C, [A, B])]]).slice(1), []);
});

test('names stand apart from the words, and old events go', () => {
  let timeline = compare(newTimeline(), picture(newWorld(urlOf(A)), START), START);
  assert.equal(timeline.events.length, 0, 'there is nothing to tell before the first answer');
  timeline = compare(timeline, picture(three(), START), START);
  for (let count = 1; count <= EVENTS_MAX + 20; count += 1) {
    const world = told(three(), START, body(A, [B, C], { counts: { repaired: count } }));
    timeline = compare(timeline, picture(world, START), START + count);
  }
  assert.equal(timeline.events.length, EVENTS_MAX);
  assert.deepEqual(timeline.events.at(-1).parts[0], { name: 'aaaa' });
});

test('announcements do not flood: one in a while, the first of a storm and the number of the others', () => {
  const event = (id) => ({ id, at: START, kind: 'bad', parts: ['node ', { name: `n${id}` }, ' died'] });
  const line = (count) => ({ ...newTimeline(), events: Array.from({ length: count }, (_, place) => event(place + 1)), ids: count });
  const first = announcement(line(1), { id: 0, at: 0 }, START);
  assert.equal(first.text, 'node n1 died');
  assert.equal(announcement(line(1), first.told, START + 60_000), null, 'nothing is read out twice');
  assert.equal(announcement(line(9), first.told, START + ANNOUNCE_MS - 1), null);
  const storm = announcement(line(9), first.told, START + ANNOUNCE_MS);
  assert.equal(storm.text, 'node n2 died. node n3 died. node n4 died. and 5 more events');
  assert.equal(announcement(line(9), storm.told, START + 60_000), null);
});
