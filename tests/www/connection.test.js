/** The connection: dialling, backing off, moving on, resuming, staying alive; and sending until acknowledged. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, QUIET_MS, REPLY_MS, SILENCE_MS } from '../../www/connection.js';
import { Nodes, backoffMs } from '../../www/nodes.js';
import { Sender } from '../../www/sender.js';
import { initialState, reduce, since } from '../../www/state.js';
import { Keeper } from '../../www/storage.js';
import { Clock, FakeStorage, message, socketClass } from './fakes.js';

const HOME = 'http://127.0.0.1:8080';
const OTHER = 'http://127.0.0.1:8081';
const THIRD = 'http://127.0.0.1:8082';
const A = 'aaaaaaaaaa';
const B = 'bbbbbbbbbb';

/** The page without its document: connection, sender and state, as main.js wires them. */
function page({ rooms = ['lobby'], random = () => 0.5, storage = null, home = HOME, online = () => true } = {}) {
  const clock = new Clock();
  const Socket = socketClass();
  const keeper = new Keeper(storage);
  const events = [];
  const self = {
    clock, Socket, events,
    state: initialState({ name: 'ada', rooms, current: rooms[0], outbox: keeper.outbox(), mine: keeper.mine() }),
    get socket() {
      return Socket.last;
    },
    link: () => events.findLast((event) => event.type === 'link'),
    dispatch(event) {
      events.push(event);
      const before = self.state;
      self.state = reduce(before, event);
      keeper.keep(before, self.state);
      if (before.outbox !== self.state.outbox) self.sender.pump();
    },
    send: (mid, text = `text ${mid}`, room = rooms[0]) => self.dispatch({ type: 'send', room, mid, text, at: clock.now() }),
    /** Opens, greets and joins. */
    up(origin = A, nodes = [HOME, OTHER], reply = {}) {
      self.socket.welcome(origin, nodes);
      for (const asked of self.socket.sent.filter((object) => object.join)) {
        self.socket.say({ id: asked.id, join: { room: asked.join.room, recovered: true, at: [`${origin}.1`], messages: [], members: ['ada'], count: 1, ...reply } });
      }
    },
  };
  const timers = { now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout };
  self.connection = new Connection({
    home, name: () => self.state.name, rooms: () => [...self.state.rooms.keys()], since: (room) => since(self.state, room),
    emit: self.dispatch, onReady: () => self.sender.pump(), WebSocket: Socket, random, online, ...timers,
  });
  self.sender = new Sender({
    outbox: () => self.state.outbox, isJoined: (room) => self.connection.isJoined(room),
    copies: () => (self.state.nodes.length >= 2 ? 1 : 0),
    request: (verb, body, done) => self.connection.request(verb, body, done), emit: self.dispatch, setTimeout: clock.setTimeout,
  });
  self.connection.start();
  return self;
}

test('hello comes first, then the rooms; connected is said when all have answered', () => {
  const it = page({ rooms: ['lobby', 'side'] });
  assert.equal(it.socket.url, 'ws://127.0.0.1:8080/ws');
  assert.deepEqual(it.socket.sent, []);
  it.socket.welcome(A);
  assert.deepEqual(it.socket.sent.map((object) => Object.keys(object)[1]), ['hello', 'join', 'join']);
  assert.deepEqual(it.socket.sent[1].join, { room: 'lobby', history: 50 });
  it.socket.say({ id: it.socket.sent[1].id, join: { room: 'lobby' } });
  assert.equal(it.link().status, 'connecting', 'one room is still open');
  it.socket.say({ id: it.socket.sent[2].id, join: { room: 'side' } });
  assert.deepEqual([it.link().status, it.link().name], ['connected', 'aaaa']);
});

test('a page that came by https speaks wss and cannot go to plain nodes', () => {
  const it = page({ home: 'https://chat.example' });
  assert.equal(it.socket.url, 'wss://chat.example/ws');
  it.up(A, ['http://10.0.0.1:8080', 'https://b.example']);
  assert.deepEqual(it.state.nodes, ['https://b.example']);
});

test('the wait is full jitter under a bound that doubles from half a second to thirty', () => {
  const bounds = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000];
  assert.deepEqual(bounds.map((_, attempt) => backoffMs(attempt, () => 0.999999)), bounds.map((bound) => bound - 1));
  assert.equal(backoffMs(3, () => 0), 0);
  assert.equal(backoffMs(5000, () => 0.5), 15000);
});

test('each failed try waits longer, says until when, and a good connection starts afresh', () => {
  const it = page({ random: () => 0.999999 });
  const waits = [];
  for (let i = 0; i < 4; i += 1) {
    it.socket.end(1006);
    waits.push(it.link().retryAt - it.clock.now());
    assert.equal(it.link().status, 'reconnecting');
    const dialled = it.Socket.made.length;
    it.clock.pass(waits[i] - 1);
    assert.equal(it.Socket.made.length, dialled, 'not before the time that was told');
    it.clock.pass(1);
    assert.equal(it.Socket.made.length, dialled + 1);
  }
  assert.deepEqual(waits, [499, 999, 1999, 3999]);
  it.up();
  it.clock.pass(10_000);
  it.socket.end(1006);
  assert.equal(it.link().retryAt - it.clock.now(), 499);
});

test('a node that accepts and closes at once is not hammered', () => {
  const it = page({ random: () => 0.999999 });
  const waits = [];
  for (let i = 0; i < 3; i += 1) {
    it.up();
    it.socket.end(1011);
    waits.push(it.link().retryAt - it.clock.now());
    it.clock.pass(waits[i]);
  }
  assert.deepEqual(waits, [499, 999, 1999]);
});

test('close codes: which come back, and which stop and say why', () => {
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4004, 4499]) {
    const it = page();
    it.up();
    it.socket.end(code);
    assert.equal(it.link().status, 'reconnecting', `${code}`);
  }
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 1010, 1014, 1015, 3000, 3999, 4500, 4501, 4999]) {
    const it = page();
    it.up();
    it.socket.end(code, code === 4501 ? 'five bad requests' : '');
    assert.equal(it.link().status, 'stopped', `${code}`);
    assert.notEqual(it.link().reason, '');
    if (code === 4501) assert.equal(it.link().reason, 'five bad requests');
    it.clock.pass(600_000);
    assert.equal(it.Socket.made.length, 1, `${code} stays stopped`);
    it.connection.renew();
    assert.equal(it.Socket.made.length, 2, 'until a person says so');
  }
});

test('a node that does not answer is given up after eight seconds, and others are tried', () => {
  const it = page();
  it.up(A, [HOME, OTHER, THIRD]);
  it.clock.pass(6000);
  it.socket.end(1006);
  const tried = [];
  for (let i = 0; i < 4; i += 1) {
    it.clock.pass(it.link().retryAt - it.clock.now());
    tried.push(it.socket.url.slice(15, 19));
    it.clock.pass(8000); // Neither opened nor closed: a host that is gone.
  }
  assert.equal(tried[0], '8080', 'the same one first: it may just have blinked');
  assert.deepEqual(tried.slice(0, 3).sort(), ['8080', '8081', '8082'], 'then every other');
});

test('a node that restarts or is overloaded is the last to be tried', () => {
  for (const code of [1001, 1012, 1013]) {
    const it = page();
    it.up(A, [HOME, OTHER]);
    it.socket.end(code);
    it.clock.pass(600);
    assert.equal(it.socket.url, 'ws://127.0.0.1:8081/ws', `${code}`);
  }
});

test('the node list follows the pushes', () => {
  const it = page();
  it.up(A, [HOME, OTHER]);
  it.socket.say({ nodes: [HOME, THIRD, 'ftp://x', 7, 'garbage'] });
  assert.deepEqual(it.state.nodes, [HOME, THIRD]);
  it.socket.end(1012);
  it.clock.pass(600);
  assert.equal(it.socket.url, 'ws://127.0.0.1:8082/ws');
});

test('goaway: leaves for the named node before the old one closes, without a wait', () => {
  const it = page({ random: () => 0.99 });
  it.up(A, [HOME, OTHER]);
  const old = it.socket;
  it.socket.say({ goaway: { nodes: [THIRD], after_ms: 1200 } });
  it.clock.pass(600);
  assert.equal(it.socket.url, 'ws://127.0.0.1:8082/ws', 'within half of the time it gave');
  assert.equal(old.closed, 1000);
  it.up(B);
  assert.deepEqual([it.link().status, it.link().name], ['resumed', 'bbbb']);
  old.end(1012);
  assert.equal(it.link().status, 'resumed', 'the old one is of no more concern');
});

test('goaway without a node waits for the close', () => {
  const it = page();
  it.up();
  it.socket.say({ goaway: { nodes: [], after_ms: 1200 } });
  it.clock.pass(5000);
  assert.equal(it.Socket.made.length, 1);
});

test('a resume tells the highest seen of each origin, wherever it goes', () => {
  const it = page();
  it.up(A, [HOME, OTHER], { at: [`${A}.41`, `${B}.7`] });
  it.socket.say({ msg: message(`${A}.42`, 1) }, { msg: message(`${B}.8`, 2) });
  it.socket.end(1012);
  it.clock.pass(600);
  it.socket.welcome(B);
  assert.deepEqual(it.socket.bodies('join'), [{ room: 'lobby', history: 50, since: [`${A}.42`, `${B}.8`] }]);
  it.socket.answer('join', { room: 'lobby', recovered: true, at: [`${A}.43`, `${B}.8`], messages: [message(`${A}.43`, 3)], members: [], count: 0 });
  assert.equal(it.link().status, 'resumed');
  assert.deepEqual(it.state.rooms.get('lobby').items.map((item) => item.id), [`${A}.42`, `${B}.8`, `${A}.43`]);
});

test('back on the same node it is called connected, on another resumed', () => {
  const it = page();
  it.up(A);
  it.socket.end(1006);
  it.clock.pass(600);
  it.up(A);
  assert.equal(it.link().status, 'connected');
  it.socket.end(1006);
  it.clock.pass(600);
  it.up(B);
  assert.equal(it.link().status, 'resumed');
});

test('a frame may hold several objects; messages of one frame are one change; a bad line costs no other', () => {
  const it = page();
  it.up();
  const before = it.events.length;
  it.socket.onmessage({ data: `${JSON.stringify({ msg: message(`${A}.2`, 2) })}\n{nonsense\n[]\n"x"\nnull\n\n${JSON.stringify({ msg: message(`${A}.3`, 3) })}\n${JSON.stringify({ typing: { room: 'lobby', name: 'bob' } })}` });
  assert.deepEqual(it.events.slice(before).map((event) => event.type), ['messages', 'typing']);
  assert.equal(it.state.rooms.get('lobby').items.length, 2);
});

test('gap and members reach the state', () => {
  const it = page();
  it.up();
  it.socket.say({ gap: { room: 'lobby', origin: B, after: 7, through: 9 } }, { members: { room: 'lobby', joined: ['eve'], left: [], count: 2 } });
  assert.equal(it.state.rooms.get('lobby').items[0].lost, 2);
  assert.deepEqual(it.state.rooms.get('lobby').members, ['ada', 'eve']);
});

const pings = (socket) => socket.sent.filter((object) => Object.keys(object).length === 0).length;

test('a quiet connection is pinged after 25 s, and its answer is not answered', () => {
  const it = page();
  it.up();
  it.clock.pass(QUIET_MS - 1);
  assert.equal(pings(it.socket), 0);
  it.clock.pass(1);
  assert.equal(pings(it.socket), 1);
  it.socket.say({});
  assert.equal(pings(it.socket), 1, 'this was the answer to ours');
  it.socket.say({});
  assert.equal(pings(it.socket), 2, 'this was a ping of its own');
});

test('35 s of silence is death, and another node is tried first', () => {
  const it = page();
  it.up(A, [HOME, OTHER]);
  const old = it.socket;
  it.clock.pass(SILENCE_MS - 1);
  assert.equal(it.link().status, 'connected');
  it.clock.pass(1);
  assert.equal(it.link().status, 'reconnecting');
  assert.equal(old.closed, 1000);
  it.clock.pass(600);
  assert.equal(it.socket.url, 'ws://127.0.0.1:8081/ws');
});

test('anything heard keeps the connection, and who only listens still speaks', () => {
  const it = page();
  it.up();
  for (let i = 0; i < 12; i += 1) {
    it.clock.pass(10_000);
    it.socket.say({ typing: { room: 'lobby', name: 'bob' } });
  }
  assert.equal(it.link().status, 'connected');
  assert.equal(it.Socket.made.length, 1);
  assert.ok(pings(it.socket) >= 4, 'two minutes of listening: the node heard from us every 25 s');
});

test('waking asks a connected node for a sign of life, and cuts a wait short', () => {
  const it = page();
  it.up();
  it.connection.wake();
  assert.equal(pings(it.socket), 1);
  it.socket.end(1006);
  const made = it.Socket.made.length;
  it.connection.wake();
  assert.equal(it.Socket.made.length, made + 1);
  it.clock.pass(3000);
  assert.equal(it.Socket.made.length, made + 1, 'and the wait that was cut short does not dial again');
});

test('waking after a reconnect pings and does not dial', () => {
  const it = page();
  it.up();
  it.socket.end(1006);
  it.clock.pass(600);
  it.up();
  it.connection.wake();
  assert.equal(it.Socket.made.length, 2);
  assert.equal(pings(it.socket), 1);
});

test('every request is answered exactly once, also when the connection is lost', () => {
  const it = page();
  it.up();
  const codes = [];
  it.connection.request('history', { room: 'lobby' }, (fault) => codes.push(fault?.code));
  it.socket.end(1006);
  it.clock.pass(2 * REPLY_MS);
  it.connection.request('history', { room: 'lobby' }, (fault) => codes.push(fault?.code));
  assert.deepEqual(codes, ['lost', 'lost']);
});

test('without a network it says offline, and still tries', () => {
  const it = page({ online: () => false });
  it.socket.end(1006);
  assert.equal(it.link().status, 'offline');
  it.clock.pass(1000);
  assert.equal(it.Socket.made.length, 2);
});

test('a new name is a new greeting, with the position, at the same node', () => {
  const it = page();
  it.up(A, [HOME, OTHER], { at: [`${A}.4`] });
  it.dispatch({ type: 'rename', name: 'eve' });
  it.connection.renew();
  assert.equal(it.Socket.made[0].closed, 1000);
  it.socket.welcome(A);
  assert.deepEqual(it.socket.bodies('hello'), [{ name: 'eve' }]);
  assert.equal(it.socket.url, 'ws://127.0.0.1:8080/ws');
  assert.deepEqual(it.socket.bodies('join')[0].since, [`${A}.4`]);
});

test('a refused name stops and says why', () => {
  const it = page();
  it.socket.open();
  it.socket.refuse('hello', { code: 'name_invalid', message: 'that name is not allowed' });
  assert.deepEqual([it.link().status, it.link().reason], ['stopped', 'that name is not allowed']);
});

test('a refused room does not keep the others from being connected', () => {
  const it = page({ rooms: ['lobby', 'secret'] });
  it.socket.welcome(A);
  const [lobby, secret] = it.socket.sent.filter((object) => object.join);
  it.socket.say({ id: secret.id, error: { code: 'forbidden', message: 'no' } }, { id: lobby.id, join: { room: 'lobby', at: [] } });
  assert.equal(it.link().status, 'connected');
  assert.equal(it.state.rooms.get('secret').state, 'refused');
});

test('a join that is never answered is a dead node', () => {
  const it = page();
  it.socket.welcome(A);
  it.clock.pass(REPLY_MS);
  assert.equal(it.link().status, 'reconnecting');
});

test('a join that came too quick is made again', () => {
  const it = page();
  it.socket.welcome(A);
  it.socket.refuse('join', { code: 'rate_limited', message: 'slower', retry_ms: 800 });
  it.clock.pass(799);
  assert.equal(it.socket.bodies('join').length, 1);
  it.clock.pass(1);
  assert.equal(it.socket.bodies('join').length, 2);
});

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
  assert.equal(Keeper.settledElsewhere({ key: 'chatmesh.out.m1', newValue: null }), 'm1');
  assert.equal(Keeper.settledElsewhere({ key: 'chatmesh.out.m1', newValue: '{}' }), null);
  assert.equal(Keeper.settledElsewhere({ key: 'other', newValue: null }), null);
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

test('a room joined while connected is joined at once, one left is told', () => {
  const it = page();
  it.up();
  it.dispatch({ type: 'open', room: 'side' });
  it.connection.join('side');
  it.connection.join('side');
  assert.deepEqual(it.socket.bodies('join').map((body) => body.room), ['lobby', 'side'], 'once');
  it.socket.answer('join', { room: 'side', at: [] });
  it.connection.leave('side');
  assert.deepEqual(it.socket.bodies('leave'), [{ room: 'side' }]);
});

test('a plan names every node once, those told to go to first', () => {
  const nodes = new Nodes(HOME, () => 0.3);
  nodes.learn([OTHER, THIRD, `${HOME}/`, OTHER]);
  nodes.plan({ again: false, named: [THIRD] });
  assert.deepEqual([nodes.next(), nodes.next(), nodes.next()], [THIRD, OTHER, HOME]);
  const next = [nodes.next(), nodes.next(), nodes.next()];
  assert.deepEqual(next.sort(), [HOME, OTHER, THIRD], 'and a new round begins');
});
