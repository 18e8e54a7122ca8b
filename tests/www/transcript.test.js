/** What is drawn of a room, row by row. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { initialState, reduce } from '../../www/state.js';
import { rows } from '../../www/transcript.js';
import { message } from './fakes.js';

const A = 'aaaaaaaaaa';
const MINUTE = 60_000_000;
const start = (...events) => events.reduce(reduce, initialState({ name: 'ada', rooms: ['lobby'], current: 'lobby', mine: ['mine'] }));
const push = (...messages) => ({ type: 'messages', messages });
const draw = (state, more = {}) => {
  const room = state.rooms.get('lobby');
  return rows(room, state.outbox, { start: 0, end: room.items.length, name: 'ada', known: new Set(), open: '', whole: new Set(), found: '', ...more });
};
const short = (drawn) => drawn.map((row) => (row.kind === 'message' ? `${row.data.together ? '+' : ''}${row.data.text}` : row.kind));

test('messages of one sender within five minutes stand together, under the line of their day', () => {
  const noon = Date.UTC(2026, 5, 1, 12) * 1_000;
  const state = start(push(message(`${A}.1`, noon, { text: 'a' }), message(`${A}.2`, noon + MINUTE, { text: 'b' }),
    message(`${A}.3`, noon + 7 * MINUTE, { text: 'c' }), message(`${A}.4`, noon + 8 * MINUTE, { text: 'd', from: 'eve' }),
    message(`${A}.5`, noon + 2 * 1_440 * MINUTE, { text: 'e', from: 'eve' })));
  assert.deepEqual(short(draw(state)), ['day', 'a', '+b', 'c', 'd', 'day', 'e']);
  assert.deepEqual(short(draw(state, { start: 1, end: 3 })), ['day', 'b', 'c'], 'the first of a span says who and when');
});

test('what is unsent stands at the end, and only where the end is drawn', () => {
  const state = start(push(message(`${A}.1`, 1, { text: 'a' })), { type: 'send', room: 'lobby', mid: 'm', text: 'out', at: 0 });
  assert.equal(short(draw(state)).at(-1), 'out');
  assert.equal(short(draw(state, { end: 0 })).includes('out'), false);
  const [pending, settled] = [draw(state), draw(reduce(state, { type: 'sent', mid: 'm', id: `${A}.2`, ts: 2, copies: 1 }))].map((drawn) => drawn.at(-1));
  assert.equal(pending.key, settled.key, 'settled, it is the same row');
  assert.deepEqual([pending.data.state, settled.data.state], ['sending', 'kept']);
});

test('the unread line stands before the first unread message', () => {
  const state = start({ type: 'attention', attentive: false }, push(message(`${A}.1`, 1, { text: 'a' }), message(`${A}.2`, 2, { text: 'b' })));
  assert.deepEqual(short(draw(state)), ['day', 'unread', 'a', '+b']);
});

test('a row is drawn anew only if it looks different', () => {
  const state = start(push(message(`${A}.1`, 1, { text: 'a' }), message(`${A}.2`, 2, { text: 'b' })));
  const looks = (more) => draw(state, more).map((row) => row.look);
  assert.deepEqual(looks({}), looks({}));
  const changed = (more) => looks(more).filter((look, at) => look !== looks({})[at]).length;
  assert.deepEqual([{ open: `${A}.1` }, { found: `${A}.2` }, { whole: new Set([`${A}.2`]) }, { name: 'eve' }].map(changed), [1, 1, 1, 2]);
});
