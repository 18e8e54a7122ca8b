/**
 * Wires the page together: events go to the reducer, the new state to the view and the store, and what a person
 * does to the connection.
 */
import { readAddress, writeAddress } from './address.js';
import { Claims } from './claims.js';
import { Connection } from './connection.js';
import { guestName, newMid } from './names.js';
import { missing } from './notices.js';
import { Sender } from './sender.js';
import { initialState, reduce, shownMids, since } from './state.js';
import { Keeper } from './storage.js';
import { View } from './view.js';
import { cleanName, cleanRoom } from './wire.js';

const LOBBY = 'lobby';
const TYPING_THROTTLE_MS = 3_000;
const HISTORY_PAGE = 100;
/** Pages that are read without being asked to find what was missed while away. */
const BRIDGE_PAGES = 10;

/** @returns {Storage | null} */
function storage() {
  try {
    return localStorage;
  } catch {
    return null; // Forbidden by the browser's settings.
  }
}

/** @returns {{room: string | null, id: string | null}} what the address names */
function address() {
  return readAddress(location.hash, location.search);
}

const keeper = new Keeper(storage());
const kept = keeper.rooms().filter((room) => cleanRoom(room) === room);
let state = initialState({
  name: cleanName(keeper.name() ?? '') ?? guestName(Math.random),
  rooms: kept,
  current: address().room ?? kept[0] ?? LOBBY,
  outbox: keeper.outbox(),
  mine: keeper.mine(),
  drafts: keeper.drafts(),
  readTo: keeper.readTo(),
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
  if (before.current !== state.current && address().room !== state.current) history.pushState(null, '', writeAddress(state.current));
  for (const room of state.rooms.keys()) {
    if (before.rooms.get(room) === undefined || (before.rooms.get(room)?.state === 'refused' && state.rooms.get(room)?.state === 'joining')) connection.join(room);
  }
  for (const room of before.rooms.keys()) {
    if (!state.rooms.has(room)) connection.leave(room);
  }
  draw();
  if (before.outbox !== state.outbox) {
    claims.keep(state.outbox.map((pending) => pending.mid));
    sender.pump();
  }
  if (before.name !== state.name && event.type === 'rename') connection.renew();
  if (event.type === 'joined') askMissing(event.room, BRIDGE_PAGES);
  pursue();
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
  mids: (room, behind) => shownMids(state, room, behind),
  emit: dispatch,
  onReady: () => sender.pump(),
});

/** Mids of what was written in this tab. */
const written = new Set();

// Asked once for nothing, for the first question may take a browser long.
navigator.locks?.query().catch(() => {});

const claims = new Claims(navigator.locks, (mid) => {
  // The lock of what another tab wrote comes free when it is sent, too.
  if (!written.has(mid) && !keeper.waits(mid)) dispatch({ type: 'discard', mid });
  else sender.pump();
});

const sender = new Sender({
  outbox: () => state.outbox.filter((pending) => claims.has(pending.mid)),
  isJoined: (room) => connection.isJoined(room),
  // With one node and no keeper there is nobody to keep a copy, and a reply would wait for it in vain.
  copies: () => (state.nodes.length >= 2 || state.hasKeeper ? 1 : 0),
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
    if (name && name !== state.name) dispatch({ type: 'rename', name });
    return name;
  },
  send(text) {
    typedAt = -Infinity;
    const mid = newMid();
    written.add(mid);
    // Before other tabs can know of it, or one of them might be quicker.
    claims.keep([...state.outbox.map((pending) => pending.mid), mid]);
    dispatch({ type: 'send', room: state.current, mid, text, at: Date.now() });
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
  bridge: () => askMissing(state.current, BRIDGE_PAGES),
  seek: (id) => dispatch({ type: 'seek', room: state.current, id }),
  arrived: () => dispatch({ type: 'arrived' }),
  search: (q, before, done) => connection.request('search', { room: state.current, q, limit: 50, ...(before ? { before } : {}) }, done),
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
  const limit = state.target ? state.limits.history : Math.min(HISTORY_PAGE, state.limits.history);
  connection.request('history', { room: name, before: oldest.id, limit }, (fault, reply) => {
    if (fault) {
      dispatch({ type: 'seek-failed' });
      dispatch({ type: 'history-failed', room: name });
    } else dispatch({ type: 'history', room: name, messages: reply.messages, more: reply.more });
  });
}

/**
 * Reads back what was missed while away, page by page, until it meets what is held.
 * @param {string} name
 * @param {number} pages  so many at most
 */
function askMissing(name, pages) {
  const room = state.rooms.get(name);
  const place = room && missing(room);
  if (!place || place.notice.loading || pages === 0 || !connection.isJoined(name)) return;
  const notice = place.notice.id;
  dispatch({ type: 'bridge-asked', room: name, notice });
  connection.request('history', { room: name, before: place.next.id, limit: state.limits.history }, (fault, reply) => {
    if (fault) {
      dispatch({ type: 'bridge-failed', room: name, notice });
    } else {
      dispatch({ type: 'bridge', room: name, notice, messages: reply.messages, more: reply.more });
      askMissing(name, pages - 1);
    }
  });
}

/** Goes on reading back towards a message that is sought, and says so if it is not there. */
function pursue() {
  const room = state.rooms.get(state.current);
  if (state.target?.state !== 'sought' || room?.state !== 'joined' || room.items.some((item) => item.id === state.target?.id)) return;
  if (room.older === 'none' || room.older === 'full' || room.items.length === 0) dispatch({ type: 'seek-failed' });
  else askOlder(state.current);
}

/** Shows what the address names. */
function follow() {
  const { room, id } = address();
  if (room && id) dispatch({ type: 'seek', room, id });
  else if (room && room !== state.current) dispatch({ type: 'open', room });
}

const start = address();
history.replaceState(null, '', writeAddress(state.current, start.room === state.current && start.id ? start.id : ''));
for (const change of ['popstate', 'hashchange']) addEventListener(change, follow);
const attend = () => dispatch({ type: 'attention', attentive: !document.hidden && document.hasFocus() });
for (const change of ['focus', 'blur']) addEventListener(change, attend);
document.addEventListener('visibilitychange', () => {
  attend();
  // Timers sleep in hidden tabs and in closed laptops: find out at once whether the node is still there.
  if (!document.hidden) connection.wake();
});
addEventListener('online', () => connection.wake());
addEventListener('storage', (event) => {
  const done = Keeper.doneElsewhere(event);
  if (done) dispatch(done);
});
setInterval(() => dispatch({ type: 'tick', now: Date.now() }), 500);

view.render(state);
attend();
claims.keep(state.outbox.map((pending) => pending.mid));
connection.start();
follow();
