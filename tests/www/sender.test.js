/** Sending until acknowledged: once, in order, over reconnects and reloads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Keeper } from '../../www/storage.js';
import { FakeStorage, message } from './fakes.js';
import { A, B, HOME, OTHER, page } from './rig.js';

test('copies are asked for when there is somebody to keep one', () => {
  const alone = page();
  alone.up(A, [HOME]);
  alone.send('m1');
  assert.deepEqual(alone.socket.bodies('send'), [{ room: 'lobby', mid: 'm1', text: 'text m1' }]);
  const mesh = page();
  mesh.up(A, [HOME, OTHER]);
  mesh.send('m1');
  assert.deepEqual(mesh.socket.bodies('send'), [{ room: 'lobby', mid: 'm1', text: 'text m1', copies: 1 }]);
  mesh.socket.answer('send', { id: `${A}.2`, ts: 5, copies: 1 });
  assert.equal(mesh.state.rooms.get('lobby').items[0].copies, 1);
});

test('sends keep their order: the next goes when the last is accepted', () => {
  const it = page();
  it.up();
  for (const mid of ['m1', 'm2', 'm3']) it.send(mid);
  const mids = () => it.socket.bodies('send').map((body) => body.mid);
  assert.deepEqual(mids(), ['m1']);
  it.socket.say({ msg: message(`${A}.2`, 2, { mid: 'm1', from: 'ada' }) });
  assert.deepEqual(mids(), ['m1', 'm2'], 'its own push says so before the copies are counted');
  it.socket.answer('send', { id: `${A}.3`, ts: 3, copies: 1 });
  assert.deepEqual(mids(), ['m1', 'm2', 'm3']);
});

test('rate_limited waits as told and sends the same one again, none overtaking it', () => {
  const it = page();
  it.up();
  it.send('m1');
  it.send('m2');
  it.socket.refuse('send', { code: 'rate_limited', message: 'slower', retry_ms: 800 });
  it.clock.pass(799);
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m1']);
  it.clock.pass(1);
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m1', 'm1']);
  assert.equal(it.state.outbox[0].state, 'sending');
});

test('a refusal for good marks the message, and the next one goes', () => {
  const it = page();
  it.up();
  it.send('m1');
  it.send('m2');
  it.socket.refuse('send', { code: 'text_too_long', message: 'at most 4096 bytes' });
  assert.deepEqual(it.state.outbox.map(({ mid, state, reason }) => [mid, state, reason]),
    [['m1', 'failed', 'at most 4096 bytes'], ['m2', 'sending', '']]);
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m1', 'm2']);
  it.socket.answer('send', { id: `${A}.2`, ts: 2 });
  it.dispatch({ type: 'retry', mid: 'm1' });
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m1', 'm2', 'm1']);
});

test('what was not acknowledged is sent again elsewhere with the same mid, after the join, in order', () => {
  const it = page();
  it.up();
  it.send('m1');
  it.send('m2');
  it.socket.end(1012);
  it.send('m3');
  it.clock.pass(600);
  it.socket.welcome(B, [HOME, OTHER]);
  assert.deepEqual(it.socket.bodies('send'), [], 'the replay may settle them first');
  it.socket.answer('join', { room: 'lobby', recovered: true, at: [`${A}.2`], messages: [message(`${A}.2`, 2, { mid: 'm1', from: 'ada' })] });
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m2'], 'm1 had arrived');
  it.socket.answer('send', { id: `${B}.1`, ts: 3, copies: 1 });
  it.socket.answer('send', { id: `${B}.2`, ts: 4, copies: 1 });
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m2', 'm3']);
  assert.deepEqual(it.state.outbox, []);
});

test('a send that is never answered is sent again with the same mid', () => {
  const it = page();
  it.up();
  it.send('m1');
  for (let i = 0; i < 12; i += 1) {
    it.clock.pass(1000);
    it.socket.say({ typing: { room: 'lobby', name: 'bob' } });
  }
  assert.deepEqual(it.socket.bodies('send').map((body) => body.mid), ['m1', 'm1']);
});

test('unsent messages survive a reload and are sent once acknowledged or never', () => {
  const storage = new FakeStorage();
  const before = page({ storage });
  before.send('m1');
  before.send('m2');
  before.dispatch({ type: 'send-failed', mid: 'm2', reason: 'no' });
  const after = page({ storage });
  assert.deepEqual(after.state.outbox.map(({ mid, state }) => [mid, state]), [['m1', 'sending'], ['m2', 'failed']]);
  after.up();
  assert.deepEqual(after.socket.bodies('send').map((body) => body.mid), ['m1']);
  after.socket.answer('send', { id: `${A}.2`, ts: 2 });
  after.dispatch({ type: 'discard', mid: 'm2' });
  assert.deepEqual(page({ storage }).state.outbox, []);
  assert.ok(page({ storage }).state.mine.has('m1'), 'and it is still known as own');
});

test('unsent messages of one millisecond keep their order over a reload', () => {
  const storage = new FakeStorage();
  const before = page({ storage });
  for (const mid of ['z', 'y', 'x']) before.send(mid);
  storage.map = new Map([...storage.map].reverse());
  assert.deepEqual(page({ storage }).state.outbox.map(({ mid }) => mid), ['z', 'y', 'x']);
});

test('two tabs share the store and do not erase each other\'s messages', () => {
  const storage = new FakeStorage();
  const one = page({ storage });
  const two = page({ storage });
  one.send('m1');
  two.send('m2');
  assert.deepEqual(page({ storage }).state.outbox.map(({ mid }) => mid).sort(), ['m1', 'm2']);
  const { mine } = page({ storage }).state;
  assert.deepEqual(['m1', 'm2'].map((mid) => mine.has(mid)), [true, true]);
  one.send('m3');
  assert.deepEqual(new Keeper(storage).mine().sort(), ['m1', 'm2', 'm3'], 'nor what they know to be own');
});

test('what another tab does is told by the store', () => {
  const told = (key, value) => Keeper.doneElsewhere({ key, newValue: value === null ? null : JSON.stringify(value) });
  assert.deepEqual(told('chatmesh.out.m1', null), { type: 'discard', mid: 'm1' });
  const pending = { mid: 'm1', room: 'lobby', text: 'x', at: 1, state: 'sending', reason: '' };
  assert.deepEqual(told('chatmesh.out.m1', { ...pending, order: 3 }), { type: 'adopt', pending });
  assert.deepEqual(told('chatmesh.read.lobby', [5, A]), { type: 'read-elsewhere', room: 'lobby', place: { ts: 5, origin: A } });
  assert.deepEqual(told('chatmesh.mine', ['a', 7]), { type: 'mine', mids: ['a'] });
  assert.deepEqual(told('chatmesh.name', 'eve'), { type: 'rename', name: 'eve' });
  for (const [key, value] of [['other', null], [null, null], ['chatmesh.out.m1', {}], ['chatmesh.name', 5], ['chatmesh.read.x', 'y'], ['chatmesh.mine', 1]]) {
    assert.equal(told(key, value), null, String(key));
  }
  assert.equal(Keeper.doneElsewhere({ key: 'chatmesh.name', newValue: '{oops' }), null);
});

test('a store full of nonsense, or none, is an empty store', () => {
  const storage = new FakeStorage();
  for (const key of ['name', 'rooms', 'drafts', 'mine', 'out.x']) storage.setItem(`chatmesh.${key}`, key === 'out.x' ? '{"mid":5}' : '{oops');
  for (const keeper of [new Keeper(storage), new Keeper(null)]) {
    assert.deepEqual([keeper.name(), keeper.rooms(), [...keeper.drafts()], keeper.mine(), keeper.outbox()], [null, [], [], [], []]);
  }
  const full = new FakeStorage();
  full.setItem = () => {
    throw new Error('QuotaExceededError');
  };
  page({ storage: full }).send('m1');
});
