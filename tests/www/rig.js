/** A page without a view: connection, sender and state on fake sockets, for the tests; and events for its state. */
import { Connection } from '../../www/connection.js';
import { Nodes } from '../../www/nodes.js';
import { Sender } from '../../www/sender.js';
import { initialState, reduce, shownMids, since } from '../../www/state.js';
import { Keeper } from '../../www/storage.js';
import { Clock, FakeStorage, socketClass } from './fakes.js';

export const HOME = 'http://127.0.0.1:8080';
export const OTHER = 'http://127.0.0.1:8081';
export const THIRD = 'http://127.0.0.1:8082';
export const A = 'aaaaaaaaaa';
export const B = 'bbbbbbbbbb';

/** A page in two rooms, joined to none yet. */
export const start = (more = {}) => initialState({ name: 'ada', rooms: ['lobby', 'side'], current: 'lobby', ...more });
/** What events make of a state. */
export const run = (state, ...events) => events.reduce(reduce, state);
/** Messages as they are pushed. */
export const push = (...messages) => ({ type: 'messages', messages });
/** A node's answer to a join of the lobby. */
export const joined = (reply = {}, more = {}) => ({
  type: 'joined', room: 'lobby', resumed: false,
  reply: { recovered: true, at: [], messages: [], members: ['ada'], count: 1, ...reply }, ...more,
});

/** The page without its document: connection, sender and state, as main.js wires them. */
export function page({ rooms = ['lobby'], random = () => 0.5, storage = null, home = HOME, online = () => true } = {}) {
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
    mids: (room, behind) => shownMids(self.state, room, behind),
    emit: self.dispatch, onReady: () => self.sender.pump(), WebSocket: Socket, random, online, ...timers,
  });
  self.sender = new Sender({
    outbox: () => self.state.outbox, isJoined: (room) => self.connection.isJoined(room),
    copies: () => (self.state.nodes.length >= 2 || self.state.hasKeeper ? 1 : 0),
    request: (verb, body, done) => self.connection.request(verb, body, done), emit: self.dispatch, setTimeout: clock.setTimeout,
  });
  self.connection.start();
  return self;
}
