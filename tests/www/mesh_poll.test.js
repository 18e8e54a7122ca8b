/** Whom the mesh view asks, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BACKOFF_MAX_MS, BACKOFF_NAMED_MS, FORGET_MS, NODES_MAX, Poll, POLL_MS } from '../../www/mesh/poll.js';
import { busy, duration, perSecond, size, summary, whole } from '../../www/mesh/words.js';
import { picture } from '../../www/mesh/model.js';
import { A, body, B, C, row, START, three, told } from './mesh_rig.js';

const HOME = 'http://127.0.0.1:8080';
const OTHER = 'http://127.0.0.1:8081';
const none = new Set();

/** The times at which a node is asked that never answers, unless it does. */
function times(poll, url, until, answers = () => false, tell = () => {}) {
  const asked = [];
  for (let now = 0; now <= until; now += 250) {
    tell(now);
    for (const due of poll.due(now)) {
      if (due === url) asked.push(now);
      poll.done(due, due !== url || answers(now), now);
    }
  }
  return asked;
}

test('a node that answers is asked about once a second, and not while an answer is awaited', () => {
  assert.deepEqual(times(new Poll(HOME, 0), HOME, 3000, () => true), [0, 1000, 2000, 3000]);
  const poll = new Poll(HOME, 0);
  assert.deepEqual(poll.due(0), [HOME]);
  assert.deepEqual(poll.due(60_000), []);
  poll.done(HOME, true, 60_000);
  assert.deepEqual(poll.due(60_000 + POLL_MS), [HOME]);
});

test('the dead are asked ever more seldom, and never given up if the page came from there', () => {
  const asked = times(new Poll(HOME, 0), HOME, FORGET_MS * 2);
  const gaps = asked.slice(1).map((at, place) => at - asked[place]);
  assert.deepEqual(gaps.slice(0, 5), [1000, 2000, 4000, 8000, BACKOFF_MAX_MS]);
  assert.equal(Math.max(...gaps), BACKOFF_MAX_MS);
});

test('one of whom the living speak is asked more often, one of whom nobody speaks is forgotten', () => {
  const poll = new Poll(HOME, 0);
  const asked = times(poll, OTHER, 30_000, undefined, (now) => poll.learn([HOME, OTHER], none, now));
  assert.ok(asked.slice(1).every((at, place) => at - asked[place] <= BACKOFF_NAMED_MS), `${asked}`);
  poll.learn([HOME], none, 30_000 + FORGET_MS - 1);
  assert.ok(poll.nodes.has(OTHER));
  poll.learn([HOME], none, 30_000 + FORGET_MS + 1);
  assert.deepEqual([...poll.nodes.keys()], [HOME]);
});

test('a new node is asked at once, an alias never, and there is an end to how many', () => {
  const poll = new Poll(HOME, 0);
  poll.learn([OTHER, 'http://localhost:8080'], new Set(['http://localhost:8080']), 0);
  assert.deepEqual(poll.due(0), [HOME, OTHER]);
  poll.learn(Array.from({ length: 500 }, (_, place) => `http://10.0.0.1:${place + 1}`), none, 0);
  assert.equal(poll.nodes.size, NODES_MAX);
});

test('a page that came by https asks by https alone', () => {
  const poll = new Poll('https://chat.example', 0);
  poll.learn(['http://127.0.0.1:8080', 'https://b.example'], none, 0);
  assert.deepEqual(poll.due(0), ['https://chat.example', 'https://b.example']);
});

test('all are asked at once when the page comes back to sight', () => {
  const poll = new Poll(HOME, 0);
  for (let round = 0; round < 6; round += 1) {
    poll.wake(round);
    poll.due(round);
    poll.done(HOME, false, round);
  }
  assert.deepEqual(poll.due(1000), []);
  poll.wake(1000);
  assert.deepEqual(poll.due(1000), [HOME]);
});

test('numbers are said for people', () => {
  assert.deepEqual([null, 0, 999, 1500, 60_000, 7_500_000, 400_000_000].map(duration), ['–', '0 ms', '999 ms', '1.5 s', '1 min', '2 h 5 min', '4 days']);
  assert.deepEqual([null, 0, 0.25, 12.4, 12_345].map(perSecond), ['–', '0', '0.3', '12', '12\u202F345']);
  assert.deepEqual([0, 999, 1_000, 1_234_567].map(whole), ['0', '999', '1\u202F000', '1\u202F234\u202F567']);
  assert.deepEqual([0, 1023, 1024, 20 * 1024, 5 * 1024 ** 3].map(size), ['0 B', '1023 B', '1.0 KiB', '20 KiB', '5.0 GiB']);
  assert.deepEqual([null, 0, 1, 5, 50].map(busy), [0, 0, 1, 2, 3]);
});

test('the mesh in a sentence', () => {
  assert.equal(summary(picture(three(), START)), '3 nodes, every one hears every other');
  const broken = told(three(), START, body(B, [row(A, { state: 'silent' }), C]));
  assert.equal(summary(picture(broken, START)), '3 nodes, 5 of 6 directions up');
  assert.match(summary(picture(told(three(), START, A, B, C), START)), /^No node answers/);
});
