/** The reducer, what a room shows besides its messages: late ones, gaps that fill, people, mentions, other tabs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CROWD, missing } from '../../www/notices.js';
import { LATE_US } from '../../www/room.js';
import { mentionTotal, shownMids, unreadTotal } from '../../www/state.js';
import { message } from './fakes.js';
import { A, B, joined, page, push, run, start } from './rig.js';

const lobby = (state) => state.rooms.get('lobby');
const kinds = (state) => lobby(state).items.map((item) => (item.kind === 'message' ? item.id : item.kind));

test('a message that comes well after its place is marked late, one that is just overtaken is not', () => {
  const newest = 10 * LATE_US;
  const state = run(start(), joined(), push(message(`${A}.1`, newest)), push(message(`${B}.1`, newest - LATE_US - 1)),
    push(message(`${B}.2`, newest - LATE_US)), push(message(`${A}.2`, newest + 1)));
  assert.deepEqual(lobby(state).items.map(({ id, late }) => [id, late]),
    [[`${B}.1`, true], [`${B}.2`, false], [`${A}.1`, false], [`${A}.2`, false]]);
});

test('the past read back is not late, nor is what one said oneself', () => {
  const newest = 10 * LATE_US;
  const state = run(start({ mine: ['m'] }), joined({ messages: [message(`${A}.9`, newest)] }),
    { type: 'history', room: 'lobby', messages: [message(`${A}.1`, 1)], more: true }, push(message(`${B}.1`, 2, { mid: 'm' })));
  assert.ok(lobby(state).items.every((item) => !item.late));
});

test('a gap shrinks and goes as its entries turn up, in whatever room and way', () => {
  const gap = { type: 'gap', room: 'lobby', origin: B, after: 2, through: 4 };
  const state = run(start(), joined(), joined({}, { room: 'side' }), push(message(`${A}.1`, 10)), gap);
  assert.deepEqual(kinds(state), [`${A}.1`, 'gap']);
  const half = run(state, push(message(`${B}.3`, 5, { room: 'side' })));
  assert.equal(lobby(half).items.at(-1).lost, 1);
  assert.equal(run(half, push(message(`${B}.3`, 5, { room: 'side' }), message(`${B}.5`, 6), message(`${A}.3`, 7))).rooms.get('lobby').items.at(-1).lost, 1,
    'nothing else counts');
  const full = run(half, { type: 'history', room: 'lobby', messages: [message(`${B}.4`, 4)], more: true });
  assert.deepEqual(kinds(full), [`${B}.4`, `${A}.1`]);
  assert.equal(lobby(full).holes, 0);
});

test('what was missed while away is read back page by page until it meets what is held', () => {
  const away = run(start(), joined({ at: [`${A}.2`], messages: [message(`${A}.1`, 10), message(`${A}.2`, 20)] }),
    joined({ recovered: false, at: [`${A}.9`], messages: [message(`${A}.8`, 80), message(`${A}.9`, 90)] }, { resumed: true }));
  const place = missing(lobby(away));
  assert.equal(place.next.id, `${A}.8`);
  const notice = place.notice.id;
  const asked = run(away, { type: 'bridge-asked', room: 'lobby', notice });
  assert.equal(missing(lobby(asked)).notice.loading, true);
  assert.equal(missing(lobby(run(asked, { type: 'bridge-failed', room: 'lobby', notice }))).notice.loading, false);
  const one = run(asked, { type: 'bridge', room: 'lobby', notice, messages: [message(`${A}.6`, 60), message(`${A}.7`, 70)], more: true });
  assert.deepEqual(kinds(one), [`${A}.1`, `${A}.2`, 'missing', `${A}.6`, `${A}.7`, `${A}.8`, `${A}.9`]);
  assert.equal(missing(lobby(one)).notice.loading, false);
  const two = run(one, { type: 'bridge', room: 'lobby', notice, messages: [message(`${A}.2`, 20), message(`${A}.5`, 50)], more: true });
  assert.equal(missing(lobby(two)), null, 'it met what was held');
  assert.equal(missing(lobby(run(one, { type: 'bridge', room: 'lobby', notice, messages: [message(`${A}.5`, 50)], more: false }))), null, 'or the beginning');
});

test('who comes and goes while nobody speaks is one line, and who leaves and returns is none', () => {
  const members = (more) => ({ type: 'members', room: 'lobby', joined: [], left: [], count: 3, ...more });
  const before = run(start(), joined({ members: ['ada', 'bob'], messages: [message(`${A}.1`, 1)] }));
  const state = run(before, members({ joined: ['eve'] }), members({ left: ['bob'] }));
  assert.deepEqual(kinds(state), [`${A}.1`, 'people']);
  assert.deepEqual([lobby(state).items[1].came, lobby(state).items[1].left], [['eve'], ['bob']]);
  assert.deepEqual(kinds(run(state, members({ left: ['eve'] }), members({ joined: ['bob'] }))), [`${A}.1`]);
  assert.deepEqual(kinds(run(state, push(message(`${A}.2`, 2)), members({ left: ['eve'] }))), [`${A}.1`, 'people', `${A}.2`, 'people']);
  assert.deepEqual(kinds(run(before, members({ joined: ['eve'], count: CROWD + 1 }))), [`${A}.1`], 'not in a crowd');
  assert.deepEqual(kinds(run(before, members({ joined: ['ada', 'bob'] }))), [`${A}.1`], 'neither oneself nor who is there');
  const renamed = run(before, { type: 'rename', name: 'ida' }, members({ left: ['ada'], joined: ['ida'] }));
  assert.deepEqual(kinds(renamed), [`${A}.1`], 'nor oneself under another name');
  assert.equal(unreadTotal(run(before, { type: 'attention', attentive: false }, members({ joined: ['eve'] }))), 0);
});

test('what speaks to us is counted apart', () => {
  const side = (id, ts, text) => message(id, ts, { room: 'side', text });
  const state = run(start(), joined({}, { room: 'side' }), push(side(`${A}.1`, 1, 'hi @Ada'), side(`${A}.2`, 2, '`@ada`'), side(`${A}.3`, 3, 'x')));
  assert.deepEqual([unreadTotal(state), mentionTotal(state)], [3, 1]);
  assert.equal(mentionTotal(run(state, { type: 'open', room: 'side' })), 0);
});

test('what was said since the last visit is unread after a reload, and the line stands before it', () => {
  const readTo = new Map([['side', { ts: 20, origin: A }]]);
  const messages = [10, 20, 30, 40].map((ts) => message(`${A}.${ts}`, ts, { room: 'side', text: '@ada' }));
  const state = run(start({ readTo }), joined({ messages }, { room: 'side' }));
  assert.deepEqual([unreadTotal(state), mentionTotal(state), state.rooms.get('side').unreadFrom.ts], [2, 2, 30]);
  const seen = run(start({ readTo, current: 'side' }), joined({ messages }, { room: 'side' }));
  assert.deepEqual([unreadTotal(seen), seen.rooms.get('side').unreadFrom.ts, seen.rooms.get('side').readTo.ts], [0, 30, 40]);
});

test('what another tab showed is read here too', () => {
  const state = run(start(), joined({}, { room: 'side' }), push(...[1, 2, 3].map((ts) => message(`${A}.${ts}`, ts, { room: 'side' }))));
  const read = (ts) => run(state, { type: 'read-elsewhere', room: 'side', place: { ts, origin: A } });
  assert.deepEqual([unreadTotal(read(2)), read(2).rooms.get('side').unreadFrom.ts], [1, 3]);
  assert.deepEqual([unreadTotal(read(3)), read(3).rooms.get('side').unreadFrom], [0, null]);
});

test('what another tab queued is shown here as own, once, and known as own when it comes', () => {
  const pending = { mid: 'm', room: 'lobby', text: 'x', at: 1, state: 'sending', reason: '' };
  const state = run(start(), joined(), { type: 'adopt', pending });
  assert.deepEqual(state.outbox.map(({ mid }) => mid), ['m']);
  assert.equal(run(state, { type: 'adopt', pending }), state);
  assert.equal(run(state, { type: 'adopt', pending: { ...pending, state: 'failed', reason: 'no' } }).outbox[0].reason, 'no');
  const come = run(state, push(message(`${A}.1`, 1, { mid: 'm' })));
  assert.deepEqual([come.outbox, lobby(come).items[0].own], [[], true]);
  const early = run(start(), joined(), push(message(`${A}.1`, 1, { mid: 'm' })), { type: 'adopt', pending });
  assert.deepEqual([early.outbox, lobby(early).items[0].own], [[], true], 'also if the push was quicker than the store');
});

test('a message that is sought is a target until it is reached, told lost, or another room is opened', () => {
  const state = run(start(), joined(), { type: 'seek', room: 'side', id: `${A}.1` });
  assert.deepEqual([state.current, state.target.state], ['side', 'sought']);
  assert.equal(run(state, { type: 'seek-failed' }).target.state, 'lost');
  assert.equal(run(state, { type: 'arrived' }).target, null);
  assert.equal(run(state, { type: 'open', room: 'lobby' }).target, null);
  assert.equal(run(state, { type: 'open', room: 'side' }).target.id, `${A}.1`);
});

test('what was shown behind some ids is named by its mids, in lists that fit into a request', () => {
  const many = Array.from({ length: 3000 }, (_, i) => message(`${A}.${i + 1}`, i + 1));
  const state = run(start(), joined(), push(...many, message(`${B}.1`, 1)));
  const lists = shownMids(state, 'lobby', [`${A}.1200`, 'nonsense', `${B}.7`]);
  const mids = lists.flat();
  assert.deepEqual([mids.length, mids[0], mids.at(-1)], [1800, `mid-${A}.1201`, `mid-${A}.3000`]);
  assert.ok(lists.every((list) => list.length <= 512), 'no more than a node takes');
  const long = many.map((item, i) => ({ ...item, mid: `${i}`.padEnd(64, '\u{1F600}') }));
  const parts = shownMids(run(start(), joined(), push(...long)), 'lobby', [`${A}.0`]);
  assert.equal(parts.flat().length, 3000);
  assert.ok(parts.every((list) => list.length > 50 && Buffer.byteLength(JSON.stringify(list)) < 60 << 10), 'no more than a frame holds');
  assert.deepEqual(shownMids(state, 'lobby', []), []);
  assert.deepEqual(shownMids(state, 'nowhere', [`${A}.0`]), []);
});

test('a node that asks for mids is told them, and asked again', () => {
  const it = page();
  it.up(A, undefined, { messages: [message(`${A}.1`, 1), message(`${A}.2`, 2)] });
  it.socket.end(1012);
  it.clock.pass(600);
  it.socket.welcome(B);
  assert.deepEqual(it.socket.bodies('join')[0].named, []);
  const last = () => it.socket.sent.at(-1);
  it.socket.say({ id: last().id, error: { code: 'mids_wanted', message: '', behind: [`${A}.1`] } });
  assert.deepEqual(last().seen, { room: 'lobby', mids: [`mid-${A}.2`] });
  it.socket.say({ id: last().id, seen: { room: 'lobby' } });
  assert.deepEqual(last().join.named, [`${A}.1`]);
  it.socket.say({ id: last().id, error: { code: 'mids_wanted', message: '', behind: [`${A}.1`] } });
  it.socket.say({ id: last().id, error: { code: 'too_many_mids', message: '' } });
  assert.equal('since' in last().join, false, 'what cannot be named cannot be resumed');
  it.socket.say({ id: last().id, join: { room: 'lobby', recovered: false, at: [], messages: [], members: [], count: 0 } });
  assert.ok(it.state.rooms.get('lobby').items.some((item) => item.kind === 'missing'), 'and that is shown');
});

test('the wait until the next try is counted from the moment of the loss', () => {
  const state = run(start(), { type: 'tick', now: 1_000 }, { type: 'link', status: 'reconnecting', at: 60_000, retryAt: 60_400 });
  assert.deepEqual([state.now, state.link.retryAt], [60_000, 60_400]);
});
