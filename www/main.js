/**
 * Wires the page together: events go to the reducer, the new state to the view and the store, and what a person
 * does to the connection.
 */
import { Connection } from './connection.js';
import { guestName, newMid } from './names.js';
import { Sender } from './sender.js';
import { initialState, reduce, since } from './state.js';
import { Keeper } from './storage.js';
import { View } from './view.js';
import { cleanName, cleanRoom } from './wire.js';

const LOBBY = 'lobby';
const TYPING_THROTTLE_MS = 3_000;
const HISTORY_PAGE = 100;

/** @returns {Storage | null} */
function storage() {
  try {
    return localStorage;
  } catch {
    return null; // Forbidden by the browser's settings.
  }
}

/** @returns {string | null} the room that the address names: `#room`, or `?room=` */
function roomInAddress() {
  try {
    return cleanRoom(decodeURIComponent(location.hash.slice(1))) ?? cleanRoom(new URLSearchParams(location.search).get('room') ?? '');
  } catch {
    return null; // A lone % in the hash.
  }
}

/**
 * @param {string} room
 * @returns {string} the address that names it
 */
function addressOf(room) {
  return `${location.pathname}#${encodeURIComponent(room)}`;
}

const keeper = new Keeper(storage());
const kept = keeper.rooms().filter((room) => cleanRoom(room) === room);
let state = initialState({
  name: cleanName(keeper.name() ?? '') ?? guestName(Math.random),
  rooms: kept,
  current: roomInAddress() ?? kept[0] ?? LOBBY,
  outbox: keeper.outbox(),
  mine: keeper.mine(),
  drafts: keeper.drafts(),
});
keeper.keep(null, state);

let drawing = false;

/**
 * Changes the state; all else follows from that.
 * @param {any} event
 */
function dispatch(event) {
  const before = state;
  state = reduce(state, event);
  if (state === before) return;
  keeper.keep(before, state);
  if (before.current !== state.current && roomInAddress() !== state.current) history.pushState(null, '', addressOf(state.current));
  for (const room of state.rooms.keys()) {
    if (before.rooms.get(room) === undefined || (before.rooms.get(room)?.state === 'refused' && state.rooms.get(room)?.state === 'joining')) connection.join(room);
  }
  for (const room of before.rooms.keys()) {
    if (!state.rooms.has(room)) connection.leave(room);
  }
  draw();
  if (before.outbox !== state.outbox) sender.pump();
}

/** Draws soon, once for all that changes until then; also in the background, where frames do not come. */
function draw() {
  if (drawing) return;
  drawing = true;
  const run = () => {
    drawing = false;
    view.render(state);
  };
  if (document.hidden) setTimeout(run, 100);
  else requestAnimationFrame(run);
}

const connection = new Connection({
  home: location.origin,
  name: () => state.name,
  rooms: () => [...state.rooms.keys()],
  since: (room) => since(state, room),
  emit: dispatch,
  onReady: () => sender.pump(),
});

const sender = new Sender({
  outbox: () => state.outbox,
  isJoined: (room) => connection.isJoined(room),
  // With one node there is nobody to keep a copy, and a reply would wait for it in vain.
  copies: () => (state.nodes.length >= 2 ? 1 : 0),
  request: (verb, body, done) => connection.request(verb, body, done),
  emit: dispatch,
});

let typedAt = -Infinity;

const view = new View(document, {
  open: (room) => dispatch({ type: 'open', room }),
  leave: (room) => dispatch({ type: 'leave', room }),
  join(typed) {
    const room = cleanRoom(typed);
    if (room) dispatch({ type: 'open', room });
    return room !== null;
  },
  rename(typed) {
    const name = cleanName(typed);
    if (name && name !== state.name) {
      dispatch({ type: 'rename', name });
      connection.renew();
    }
    return name !== null;
  },
  send(text) {
    typedAt = -Infinity;
    dispatch({ type: 'send', room: state.current, mid: newMid(), text, at: Date.now() });
  },
  draft(text) {
    dispatch({ type: 'draft', room: state.current, text });
    if (text.trim() === '' || performance.now() - typedAt < TYPING_THROTTLE_MS) return;
    typedAt = performance.now();
    connection.typing(state.current);
  },
  older: () => askOlder(state.current),
  reconnect: () => (state.link.status === 'stopped' ? connection.renew() : connection.wake()),
  retry: (mid) => dispatch({ type: 'retry', mid }),
  discard: (mid) => dispatch({ type: 'discard', mid }),
});

/**
 * Reads back a page of the time before the oldest message held.
 * @param {string} name
 */
function askOlder(name) {
  const room = state.rooms.get(name);
  const oldest = room?.items.find((item) => item.kind === 'message');
  if (!room || room.older !== 'some' || !oldest || !connection.isJoined(name)) return;
  dispatch({ type: 'history-asked', room: name });
  const limit = Math.min(HISTORY_PAGE, state.limits.history);
  connection.request('history', { room: name, before: oldest.id, limit }, (fault, reply) => {
    if (fault) dispatch({ type: 'history-failed', room: name });
    else dispatch({ type: 'history', room: name, messages: reply.messages, more: reply.more });
  });
}

history.replaceState(null, '', addressOf(state.current));
for (const change of ['popstate', 'hashchange']) {
  addEventListener(change, () => {
    const room = roomInAddress();
    if (room && room !== state.current) dispatch({ type: 'open', room });
  });
}
const attend = () => dispatch({ type: 'attention', attentive: !document.hidden && document.hasFocus() });
for (const change of ['focus', 'blur']) addEventListener(change, attend);
document.addEventListener('visibilitychange', () => {
  attend();
  // Timers sleep in hidden tabs and in closed laptops: find out at once whether the node is still there.
  if (!document.hidden) connection.wake();
});
addEventListener('online', () => connection.wake());
addEventListener('storage', (event) => {
  const mid = Keeper.settledElsewhere(event);
  if (mid) dispatch({ type: 'discard', mid });
});
setInterval(() => dispatch({ type: 'tick', now: Date.now() }), 500);

view.render(state);
attend();
connection.start();
