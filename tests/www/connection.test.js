/** The connection: dialling, backing off, moving on, resuming, staying alive. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { POSITION_LONG, QUIET_MS, REPLY_MS, SILENCE_MS } from '../../www/connection.js';
import { Nodes, backoffMs } from '../../www/nodes.js';
import { message } from './fakes.js';
import { A, B, HOME, OTHER, THIRD, page } from './rig.js';

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
  assert.deepEqual(it.socket.bodies('join'), [
    { room: 'lobby', history: 50, since: [`${A}.42`, `${B}.8`], named: [] },
  ]);
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

test('a position that has grown long is made short by joining once more, on the same connection', () => {
  const it = page();
  it.up(A, [HOME], { at: [`${A}.4`] });
  it.socket.say({ nodes: [HOME] });
  assert.equal(it.socket.bodies('join').length, 1, 'it is short');
  const letters = 'abcdefghijklmnopqrstuvwxyz234567';
  const origin = (n) => `born${letters[n >> 10]}${letters[(n >> 5) & 31]}${letters[n & 31]}aaa`;
  const messages = Array.from({ length: POSITION_LONG + 1 }, (_, n) => ({ msg: message(`${origin(n)}.1`, n + 1) }));
  it.socket.say(...messages);
  it.socket.say({ nodes: [HOME] });
  const [, again] = it.socket.sent.filter((object) => object.join);
  assert.equal(again.join.since.length, POSITION_LONG + 2);
  const mark = 'madeattime.1760000000000123';
  it.socket.say({ id: again.id, join: { room: 'lobby', recovered: true, at: [`${A}.4`, mark], messages: [] } });
  it.socket.say({ nodes: [HOME] });
  assert.equal(it.socket.bodies('join').length, 2, 'it is short again');
  assert.equal(it.connection.isJoined('lobby'), true);
  it.socket.end(1006);
  it.clock.pass(1000);
  it.socket.welcome(A);
  assert.deepEqual(it.socket.bodies('join')[0].since, [`${A}.4`, mark], 'what the node gave it, the mark too');
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

test('a page that came from a balancer goes on through it, and tries nodes in between', () => {
  const it = page({ home: 'http://chat.example' });
  it.up(A, [OTHER, THIRD]);
  it.socket.say({ goaway: { nodes: [THIRD], after_ms: 300 } });
  it.clock.pass(300);
  assert.equal(it.socket.url, 'ws://chat.example/ws', 'not where it was sent: it may not reach that');
  it.up(B, [THIRD, OTHER]);
  const dialled = [];
  for (let i = 0; i < 5; i += 1) {
    it.socket.end(1006);
    it.clock.pass(it.link().retryAt - it.clock.now());
    dialled.push(it.socket.url);
  }
  const through = 'ws://chat.example/ws';
  assert.deepEqual([dialled[0], dialled[2], dialled[4]], [through, through, through]);
  assert.deepEqual([dialled[1], dialled[3]].sort(), [`ws://${new URL(OTHER).host}/ws`, `ws://${new URL(THIRD).host}/ws`].sort());
});

test('a node is no balancer by another name of its machine, nor when another node greets', () => {
  for (const name of ['localhost', '[::1]']) {
    const it = page({ home: `http://${name}:8080` });
    it.up(A, ['http://127.0.0.1:8080', OTHER]);
    it.socket.say({ goaway: { nodes: [OTHER], after_ms: 0 } });
    it.clock.pass(1);
    assert.equal(it.socket.url, `ws://${new URL(OTHER).host}/ws`);
    it.up(B, [OTHER, THIRD]);
    it.socket.say({ goaway: { nodes: [THIRD], after_ms: 0 } });
    it.clock.pass(1);
    assert.equal(it.socket.url, `ws://${new URL(THIRD).host}/ws`);
  }
});
