/** The reducer: order, duplicates, positions, unsent messages, unread, members, typing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEEP, TYPING_MS } from '../../www/room.js';
import { reduce, since, unreadTotal } from '../../www/state.js';
import { message } from './fakes.js';
import { A, B, joined, push, run, start } from './rig.js';

const send = (mid, text = 'hello', room = 'lobby') => ({ type: 'send', room, mid, text, at: 1 });
const lobby = (state) => state.rooms.get('lobby');
const ids = (state) => lobby(state).items.map((item) => item.id);

test('messages stand in the order of ts, then origin, however they arrive', () => {
  const state = run(start(), push(message(`${A}.2`, 300)), push(message(`${B}.1`, 200)),
    push(message(`${B}.2`, 300), message(`${A}.1`, 200), message(`${B}.9`, 250)));
  assert.deepEqual(ids(state), [`${A}.1`, `${B}.1`, `${B}.9`, `${A}.2`, `${B}.2`]);
});

test('a message received twice is shown once', () => {
  const first = run(start(), joined(), push(message(`${A}.1`, 100)));
  assert.equal(reduce(first, push(message(`${A}.1`, 100))), first, 'nothing changed, so the state is the same object');
});

test('two entries with one mid are shown once, and everybody keeps the earlier', () => {
  const early = message(`${A}.1`, 100, { mid: 'x' });
  const late = message(`${B}.1`, 200, { mid: 'x' });
  assert.deepEqual(ids(run(start(), push(early), push(late))), [`${A}.1`]);
  assert.deepEqual(ids(run(start(), push(late), push(early))), [`${A}.1`]);
  assert.deepEqual(ids(run(start(), push(late, early))), [`${A}.1`]);
});

test('one mid twice in a long replay is shown once', () => {
  const replay = Array.from({ length: 20 }, (_, i) => message(`${i % 2 ? A : B}.${i + 1}`, i + 1, { mid: `m${i >> 1}` }));
  assert.deepEqual(ids(run(start(), push(...replay))).length, 10);
});

test('an own message whose earlier twin turns up keeps what is known of its copies', () => {
  const state = run(start(), joined(), send('m'), { type: 'sent', mid: 'm', id: `${B}.5`, ts: 50, copies: 2 },
    push(message(`${A}.1`, 10, { mid: 'm', from: 'ada' })));
  assert.deepEqual(lobby(state).items.map(({ id, own, copies }) => [id, own, copies]), [[`${A}.1`, true, 2]]);
});

test('messages without a mid are not taken for one another', () => {
  const state = run(start(), push(message(`${A}.1`, 1, { mid: undefined }), message(`${A}.2`, 2, { mid: undefined })));
  assert.equal(ids(state).length, 2);
});

test('what is no message is left out, and rooms not joined are not made', () => {
  const state = run(start(), push(null, {}, message('nonsense', 1), message(`${A}.1`, 'soon'), message(`${A}.2`, 1, { text: 7 }),
    message(`${A}.3`, 1, { room: 'elsewhere' })));
  assert.deepEqual(ids(state), []);
  assert.equal(state.rooms.size, 2);
});

test('a room may have any legal name, also one that objects inherit', () => {
  for (const room of ['__proto__', 'constructor']) {
    const state = run(start(), { type: 'open', room }, push(message(`${A}.1`, 1, { room })));
    assert.equal(state.rooms.get(room).items.length, 1);
  }
});

test('the position is the base of the join, then the highest seen of each origin', () => {
  assert.equal(since(start(), 'lobby'), undefined, 'never joined');
  const state = run(start(), joined({ at: [`${A}.40`, `${B}.7`] }), push(message(`${A}.41`, 1), message(`${B}.6`, 2)));
  assert.deepEqual(since(state, 'lobby'), [`${A}.41`, `${B}.7`]);
  assert.equal(since(state, 'side'), undefined);
});

test('the position of an empty room is empty, and still a position', () => {
  assert.deepEqual(since(run(start(), joined()), 'lobby'), []);
});

test('a resume on another node takes the higher of what both know', () => {
  const state = run(start(), joined({ at: [`${A}.40`, `${B}.7`] }),
    joined({ at: [`${A}.39`, `${B}.9`, 'cccccccccc.1'], messages: [message(`${B}.9`, 5)] }, { resumed: true }));
  assert.deepEqual(since(state, 'lobby'), [`${A}.40`, `${B}.9`, 'cccccccccc.1']);
  assert.deepEqual(ids(state), [`${B}.9`], 'and no notice, for nothing is missing');
});

test('history read back does not move the position', () => {
  const before = run(start(), joined({ at: [`${A}.40`], messages: [message(`${A}.40`, 40)] }), { type: 'history-asked', room: 'lobby' });
  const state = run(before, { type: 'history', room: 'lobby', messages: [message(`${A}.3`, 3), message(`${B}.900`, 4)], more: true });
  assert.deepEqual(ids(state), [`${A}.3`, `${B}.900`, `${A}.40`]);
  assert.deepEqual(since(state, 'lobby'), [`${A}.40`]);
});

test('an acknowledgement does not move the position: messages before it may be on their way', () => {
  const state = run(start(), joined({ at: [`${A}.1`] }), send('m'), { type: 'sent', mid: 'm', id: `${A}.5`, ts: 5 });
  assert.deepEqual(since(state, 'lobby'), [`${A}.1`]);
});

test('what could not be recovered is marked between the old and the new', () => {
  const state = run(start(), joined({ at: [`${A}.1`], messages: [message(`${A}.1`, 10)] }),
    joined({ recovered: false, at: [`${B}.9`], messages: [message(`${B}.8`, 80), message(`${B}.9`, 90)] }, { resumed: true }));
  assert.deepEqual(lobby(state).items.map((item) => item.kind), ['message', 'missing', 'message', 'message']);
  assert.deepEqual(since(state, 'lobby'), [`${B}.9`], 'an origin that the node does not know is forgotten');
});

test('after a loss an overlapping page is merged', () => {
  const state = run(start(), joined({ at: [`${A}.2`], messages: [message(`${A}.1`, 10), message(`${A}.2`, 20)] }),
    joined({ recovered: false, at: [`${A}.3`], messages: [message(`${A}.2`, 20), message(`${A}.3`, 30)] }, { resumed: true }));
  assert.deepEqual(lobby(state).items.filter((item) => item.kind === 'message').map((item) => item.id), [`${A}.1`, `${A}.2`, `${A}.3`]);
  assert.equal(lobby(state).items.length, 4);
});

test('recovered:false on the first join marks nothing', () => {
  assert.deepEqual(ids(run(start(), joined({ recovered: false }))), []);
});

test('a loss in a room of which nothing is shown marks nothing', () => {
  assert.deepEqual(ids(run(start(), joined(), joined({ recovered: false }, { resumed: true }))), []);
});

test('a gap is told behind the newest message, each in its turn', () => {
  const gap = (after, through) => ({ type: 'gap', room: 'lobby', origin: A, after, through });
  const state = run(start(), push(message(`${A}.1`, 10)), gap(7, 9), gap(12, 13), push(message(`${A}.20`, 20)));
  assert.deepEqual(lobby(state).items.map((item) => item.lost ?? item.id), [`${A}.1`, 2, 1, `${A}.20`]);
  assert.equal(reduce(state, { type: 'gap', room: 'elsewhere', after: 1, through: 2 }), state);
});

test('an own message is shown at once as sending, and settled by the reply', () => {
  const sending = run(start(), joined(), send('m'));
  assert.deepEqual(sending.outbox.map(({ mid, state }) => [mid, state]), [['m', 'sending']]);
  const sent = run(sending, { type: 'sent', mid: 'm', id: `${A}.1`, ts: 5, copies: 2 });
  assert.deepEqual(sent.outbox, []);
  const [item] = lobby(sent).items;
  assert.deepEqual([item.own, item.copies, item.from, item.text], [true, 2, 'ada', 'hello']);
  assert.deepEqual(ids(run(sent, push(message(`${A}.1`, 5, { mid: 'm', from: 'ada', text: 'hello' })))), [`${A}.1`], 'its push adds nothing');
});

test('an own message is settled by its push, and the later reply adds its copies', () => {
  const pushed = run(start(), joined(), send('m'), push(message(`${A}.1`, 5, { mid: 'm', from: 'ada', text: 'hello' })));
  assert.deepEqual(pushed.outbox, []);
  assert.deepEqual([lobby(pushed).items[0].own, lobby(pushed).items[0].copies], [true, 0]);
  const replied = run(pushed, { type: 'sent', mid: 'm', id: `${A}.1`, ts: 5, copies: 1 });
  assert.equal(lobby(replied).items[0].copies, 1);
  assert.equal(ids(replied).length, 1);
});

test('an own message that was accepted before the loss is settled by the replay', () => {
  const state = run(start(), joined(), send('m'),
    joined({ at: [`${A}.1`], messages: [message(`${A}.1`, 5, { mid: 'm', from: 'ada' })] }, { resumed: true }));
  assert.deepEqual(state.outbox, []);
  assert.equal(lobby(state).items[0].own, true);
});

test('what the node made of the text replaces what was assumed', () => {
  const state = run(start(), joined(), send('m', 'a\u0000b'), { type: 'sent', mid: 'm', id: `${A}.1`, ts: 5 },
    push(message(`${A}.1`, 5, { mid: 'm', from: 'ada', text: 'ab' })));
  assert.equal(lobby(state).items[0].text, 'ab');
});

test('a refused message stays, says why, and can be tried again or thrown away', () => {
  const failed = run(start(), send('m'), { type: 'send-failed', mid: 'm', reason: 'too long' });
  assert.deepEqual([failed.outbox[0].state, failed.outbox[0].reason], ['failed', 'too long']);
  assert.equal(run(failed, { type: 'retry', mid: 'm' }).outbox[0].state, 'sending');
  assert.deepEqual(run(failed, { type: 'discard', mid: 'm' }).outbox, []);
});

test('messages are one\'s own by mid, not by name', () => {
  const state = run(start({ mine: ['kept'] }), push(message(`${A}.1`, 1, { from: 'ada' }), message(`${A}.2`, 2, { mid: 'kept', from: 'before' })));
  assert.deepEqual(lobby(state).items.map((item) => item.own), [false, true]);
});

test('a room with something unsent is joined again after a reload', () => {
  const state = start({ outbox: [{ mid: 'm', room: 'far', text: 'x', at: 1, state: 'sending', reason: '' }] });
  assert.ok(state.rooms.has('far'));
  assert.ok(state.mine.has('m'), 'and its message is known as own when it comes back');
});

test('unread counts what others said in rooms not looked at', () => {
  const other = (id, ts, more) => message(id, ts, { room: 'side', ...more });
  let state = run(start(), joined({}, { room: 'side' }), push(message(`${A}.1`, 1), other(`${A}.2`, 2), other(`${A}.3`, 3)));
  assert.equal(state.rooms.get('lobby').unread, 0, 'the one in view');
  assert.equal(unreadTotal(state), 2);
  assert.equal(state.rooms.get('side').unreadFrom.ts, 2);
  state = run(state, push(other(`${A}.2`, 2)));
  assert.equal(unreadTotal(state), 2, 'a duplicate is not news');
  assert.equal(run(state, push(other(`${A}.4`, 4))).rooms.get('side').unreadFrom.ts, 2, 'the line stays at the first');
  state = run(state, { type: 'open', room: 'side' });
  assert.equal(unreadTotal(state), 0);
  assert.equal(state.rooms.get('side').unreadFrom.ts, 2, 'the line stays while one reads');
  assert.equal(run(state, { type: 'open', room: 'lobby' }).rooms.get('side').unreadFrom, null);
});

test('the room in view is unread while nobody looks at the page', () => {
  const away = run(start(), joined(), { type: 'attention', attentive: false }, push(message(`${A}.1`, 1)));
  assert.equal(unreadTotal(away), 1);
  assert.equal(unreadTotal(run(away, { type: 'attention', attentive: true })), 0);
});

test('what was said before one came, and what one said oneself, is not unread', () => {
  const state = run(start({ mine: ['m'] }), joined({ messages: [message(`${A}.1`, 1, { room: 'side' })] }, { room: 'side' }),
    push(message(`${A}.2`, 2, { room: 'side', mid: 'm' })));
  assert.equal(unreadTotal(state), 0);
});

test('what a resume replays into a room out of view is unread', () => {
  const state = run(start(), joined({}, { room: 'side' }),
    joined({ messages: [message(`${A}.1`, 1, { room: 'side' })] }, { room: 'side', resumed: true }));
  assert.equal(unreadTotal(state), 1);
});

test('members come and go, each name once, and the count is the node\'s', () => {
  const state = run(start(), joined({ members: ['bob', 'ada', 'bob'], count: 2 }),
    { type: 'members', room: 'lobby', joined: ['eve', 'bob'], left: ['ada'], count: 700 });
  assert.deepEqual(lobby(state).members, ['bob', 'eve']);
  assert.equal(lobby(state).count, 700);
});

test('typing ends after six seconds, with a message, with leaving, and with the connection', () => {
  const typing = (name, at = 1000) => ({ type: 'typing', room: 'lobby', name, at });
  const who = (state) => [...lobby(state).typing.keys()];
  const state = run(start(), joined({ members: ['ada', 'bob', 'eve'] }), typing('bob'), typing('eve', 3000), typing('ada'));
  assert.deepEqual(who(state), ['bob', 'eve'], 'not oneself');
  assert.equal(run(state, { type: 'tick', now: 1000 + TYPING_MS - 1 }), state);
  assert.deepEqual(who(run(state, { type: 'tick', now: 1000 + TYPING_MS })), ['eve']);
  assert.deepEqual(who(run(state, push(message(`${A}.1`, 1, { from: 'bob' })))), ['eve']);
  assert.deepEqual(who(run(state, { type: 'members', room: 'lobby', left: ['eve'], count: 2 })), ['bob']);
  assert.deepEqual(who(run(state, { type: 'link', status: 'reconnecting' })), []);
});

test('the past is asked for once at a time, and ends', () => {
  const state = run(start(), joined({ messages: [message(`${A}.9`, 9)] }));
  assert.equal(lobby(state).older, 'some');
  const asked = run(state, { type: 'history-asked', room: 'lobby' });
  assert.equal(lobby(asked).older, 'loading');
  assert.equal(run(asked, { type: 'history-asked', room: 'lobby' }), asked);
  assert.equal(lobby(run(asked, { type: 'history-failed', room: 'lobby' })).older, 'some');
  const page = (messages, more) => lobby(run(asked, { type: 'history', room: 'lobby', messages, more })).older;
  assert.equal(page([message(`${A}.1`, 1)], true), 'some');
  assert.equal(page([message(`${A}.1`, 1)], false), 'none');
  assert.equal(page([], true), 'none');
  assert.equal(page([message(`${A}.9`, 9)], true), 'none', 'a page without anything new would be asked for for ever');
});

test('a request for the past that died with its connection can be made again', () => {
  const asked = run(start(), joined({ messages: [message(`${A}.9`, 9)] }), { type: 'history-asked', room: 'lobby' });
  assert.equal(lobby(run(asked, joined({}, { resumed: true }))).older, 'some');
});

test('memory is bounded: the oldest go first, and can be read back', () => {
  const many = Array.from({ length: KEEP + 10 }, (_, i) => message(`${A}.${i + 1}`, i + 1));
  const state = run(start(), joined(), push(...many));
  assert.equal(lobby(state).items.length, KEEP);
  assert.equal(lobby(state).items[0].id, `${A}.11`);
  assert.equal(lobby(state).older, 'some');
});

test('messages read back are not trimmed away by the next one', () => {
  const many = Array.from({ length: KEEP }, (_, i) => message(`${A}.${i + 100}`, i + 100));
  const state = run(start(), joined(), push(...many), { type: 'history-asked', room: 'lobby' },
    { type: 'history', room: 'lobby', messages: [message(`${A}.5`, 5)], more: true }, push(message(`${A}.9999`, 9999)));
  assert.equal(ids(state)[0], `${A}.5`);
});

test('drafts belong to rooms', () => {
  const state = run(start(), { type: 'draft', room: 'lobby', text: 'half' }, { type: 'open', room: 'side' });
  assert.equal(lobby(state).draft, 'half');
  assert.equal(state.rooms.get('side').draft, '');
  assert.equal(lobby(run(state, send('m'))).draft, '');
});

test('leaving a room drops it and shows another; the last one stays', () => {
  const one = run(start(), send('m'), { type: 'leave', room: 'lobby' });
  assert.deepEqual([[...one.rooms.keys()], one.current, one.outbox], [['side'], 'side', []]);
  assert.equal(run(one, { type: 'leave', room: 'side' }), one);
});

test('a refused room says why and is tried again when opened', () => {
  const refused = run(start(), { type: 'join-failed', room: 'lobby', fault: { code: 'forbidden', message: 'not for you' } });
  assert.deepEqual([lobby(refused).state, lobby(refused).reason], ['refused', 'not for you']);
  assert.equal(lobby(run(refused, { type: 'open', room: 'lobby' })).state, 'joining');
});

test('the reducer changes nothing in place', () => {
  const freeze = (value) => {
    if (value === null || typeof value !== 'object' || Object.isFrozen(value)) return value;
    Object.freeze(value);
    for (const part of value instanceof Map ? value.values() : Object.values(value)) freeze(part);
    return value;
  };
  const events = [joined({ at: [`${A}.1`], messages: [message(`${A}.1`, 1)] }), send('m'), push(message(`${A}.2`, 2, { mid: 'm' })),
    { type: 'sent', mid: 'm', id: `${A}.2`, ts: 2, copies: 1 }, { type: 'gap', room: 'lobby', after: 1, through: 2 },
    { type: 'typing', room: 'lobby', name: 'bob', at: 1 }, { type: 'tick', now: 9e15 }, { type: 'open', room: 'new' }, { type: 'leave', room: 'new' }];
  let state = freeze(start());
  for (const event of events) {
    const copies = [...state.rooms.values()].map((room) => [room, [...room.position], [...room.typing]]);
    const rooms = [...state.rooms.keys()];
    const mine = [...state.mine];
    const next = reduce(state, event);
    assert.deepEqual([[...state.rooms.keys()], [...state.mine]], [rooms, mine], event.type);
    for (const [room, position, typing] of copies) assert.deepEqual([[...room.position], [...room.typing]], [position, typing], event.type);
    state = freeze(next);
  }
  assert.equal(reduce(state, { type: 'unheard-of' }), state);
});
