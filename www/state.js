/**
 * Everything the page knows, and the one way it changes: `reduce(state, event)`. Pure: no clock, no chance, no
 * socket, no document; all of these come in as events. A state is never changed in place, so what is the same
 * object is the same, and need not be drawn again.
 */
import { merge, positionIds, readMessage } from './messages.js';
import { bridge, fillHoles, mark, people } from './notices.js';
import { TYPING_MS, memberList, newRoom, prepend, read, readElsewhere, settle, take, withoutTyping } from './room.js';
import { DEFAULT_LIMITS, byteLength, limitsOf, parseId } from './wire.js';

/**
 * @typedef {object} Pending  a message that no node has acknowledged
 * @property {string} mid
 * @property {string} room
 * @property {string} text
 * @property {number} at      when it was written, milliseconds since 1970
 * @property {'sending' | 'failed'} state
 * @property {string} reason  why it failed, or ''
 */

/** @typedef {import('./room.js').Room} Room */

/**
 * @typedef {object} Link
 * @property {'connecting' | 'connected' | 'resumed' | 'reconnecting' | 'offline' | 'stopped'} status
 * @property {string} node    its http address
 * @property {string} name    its name
 * @property {string} reason  why it is not connected
 * @property {number} retryAt ms, 0 if not waiting
 */

/**
 * @typedef {object} State
 * @property {string} name
 * @property {Link} link
 * @property {readonly string[]} nodes
 * @property {boolean} hasKeeper                 whether the node has a keeper, which is one more copy
 * @property {ReturnType<typeof limitsOf>} limits
 * @property {ReadonlyMap<string, Room>} rooms  in the order they were joined
 * @property {string} current                   the room shown
 * @property {{id: string, state: 'sought' | 'lost'} | null} target  a message of it that is to be shown
 * @property {boolean} attentive                whether a person can be looking at the page
 * @property {readonly Pending[]} outbox        oldest first
 * @property {ReadonlySet<string>} mine         mids that this browser made
 * @property {readonly string[]} former         names that we had on this page
 * @property {number} notices                   how many were ever made
 * @property {number} now                       ms, as of the last tick
 */

/**
 * @param {object} from
 * @param {string} from.name
 * @param {readonly string[]} from.rooms
 * @param {string} from.current
 * @param {readonly Pending[]} [from.outbox]
 * @param {Iterable<string>} [from.mine]
 * @param {ReadonlyMap<string, string>} [from.drafts]
 * @param {ReadonlyMap<string, {ts: number, origin: string}>} [from.readTo]
 * @returns {State}
 */
export function initialState({ name, rooms, current, outbox = [], mine = [], drafts = new Map(), readTo = new Map() }) {
  // A room with something unsent in it is a room one is in, or it would never be sent.
  const names = new Set([...rooms, current, ...outbox.map((pending) => pending.room)]);
  return {
    name,
    link: { status: 'connecting', node: '', name: '', reason: '', retryAt: 0 },
    nodes: [],
    hasKeeper: false,
    limits: DEFAULT_LIMITS,
    rooms: new Map(Array.from(names, (room) => [room, newRoom(room, drafts.get(room) ?? '', readTo.get(room) ?? null)])),
    current,
    target: null,
    attentive: true,
    outbox,
    mine: new Set([...mine, ...outbox.map((pending) => pending.mid)]),
    former: [],
    notices: 0,
    now: 0,
  };
}

/**
 * @param {State} state
 * @param {string} room
 * @returns {string[] | undefined} what to join with: undefined if the room was never joined
 */
export function since(state, room) {
  const held = state.rooms.get(room);
  // A room in which nothing was ever said has an empty position, which is a position all the same.
  return held && held.older !== 'unknown' ? positionIds(held.position) : undefined;
}

/** Mids in one request, as a node takes them. */
const MIDS_MAX = 512;
/** Their bytes: others choose theirs, and a frame must hold them all. */
const MIDS_BYTES_MAX = 48 << 10;

/**
 * @param {State} state
 * @param {string} room
 * @param {readonly unknown[]} behind  ids, one of an origin
 * @returns {string[][]} mids of the messages of those origins that were shown with higher numbers, so that a node need
 *   not show them again under other ids; each list fits into a request
 */
export function shownMids(state, room, behind) {
  const from = new Map();
  for (const text of behind) {
    // A node that has nothing of an origin says so by its number 0, which no message has.
    const [origin, seq] = String(text).split('.');
    from.set(origin, Number(seq));
  }
  /** @type {string[][]} */
  const lists = [];
  let left = 0;
  for (const item of state.rooms.get(room)?.items ?? []) {
    if (item.kind !== 'message' || item.mid === '') continue;
    const id = parseId(item.id);
    if (!id || !(id.seq > from.get(id.origin))) continue;
    left -= byteLength(item.mid) + 3;
    if (left < 0 || lists[lists.length - 1].length >= MIDS_MAX) {
      lists.push([]);
      left = MIDS_BYTES_MAX - byteLength(item.mid) - 3;
    }
    lists[lists.length - 1].push(item.mid);
  }
  return lists;
}

/**
 * @param {State} state
 * @returns {number} unread messages in all rooms
 */
export function unreadTotal(state) {
  let total = 0;
  for (const room of state.rooms.values()) total += room.unread;
  return total;
}

/**
 * @param {State} state
 * @returns {number} how many of them speak to us
 */
export function mentionTotal(state) {
  let total = 0;
  for (const room of state.rooms.values()) total += room.mentions;
  return total;
}

/**
 * @param {State} state
 * @param {any} event unknown types change nothing
 * @returns {State} the same object if nothing changed
 */
export function reduce(state, event) {
  const handler = HANDLERS[event.type];
  return handler ? handler(state, event) : state;
}

/**
 * @param {State} state
 * @param {string} name
 * @param {(room: Room) => Room} change
 * @returns {State}
 */
function changeRoom(state, name, change) {
  const room = state.rooms.get(name);
  if (!room) return state;
  const next = change(room);
  return next === room ? state : { ...state, rooms: new Map(state.rooms).set(name, next) };
}

/**
 * Puts received messages into a room, settles what waited for them, counts the unread.
 * @param {State} state
 * @param {string} name
 * @param {readonly any[]} wires
 * @param {{live: boolean}} how  `live`: new, as against read back from the past
 * @returns {State}
 */
function receive(state, name, wires, { live }) {
  const messages = wires.map((wire) => readMessage(wire, state.mine)).filter((message) => message !== null);
  const mids = new Set(messages.map((message) => message.mid));
  const outbox = state.outbox.filter((pending) => !mids.has(pending.mid));
  const settled = outbox.length === state.outbox.length ? state : { ...state, outbox };
  const next = changeRoom(settled, name, (room) => take(room, messages, { live, seen: isSeen(state, name), name: state.name }));
  let filled = next;
  for (const room of next.rooms.values()) filled = changeRoom(filled, room.name, (held) => fillHoles(held, messages));
  return filled;
}

/**
 * @param {State} state
 * @param {string} name
 * @returns {boolean} whether a person can be looking at the room
 */
function isSeen(state, name) {
  return state.attentive && state.current === name;
}

/**
 * @param {State} state
 * @param {string} name
 * @param {'gap' | 'missing'} kind
 * @param {Partial<import('./messages.js').Notice>} [more]
 * @returns {State} with a notice behind the newest message of the room
 */
function notify(state, name, kind, more = {}) {
  const number = state.notices + 1;
  return changeRoom({ ...state, notices: number }, name, (room) => mark(room, kind, number, more));
}

/** @type {Record<string, (state: State, event: any) => State>} */
const HANDLERS = {
  /** The connection's condition changed. */
  link(state, { status, node = '', name = '', reason = '', at = 0, retryAt = 0 }) {
    const link = { status, node, name, reason: reason || (status === 'connecting' ? state.link.reason : ''), retryAt };
    if (status === 'connected' || status === 'resumed') return { ...state, link };
    // Who is there, and who types, is hearsay without a connection.
    const rooms = new Map(Array.from(state.rooms, ([key, room]) => [
      key, room.state === 'refused' ? room : { ...room, state: /** @type {const} */ ('joining'), typing: new Map() },
    ]));
    return { ...state, link, rooms, now: Math.max(state.now, at) };
  },

  welcome(state, { name, limits, nodes, keeper }) {
    return {
      ...state, nodes,
      hasKeeper: keeper === true,
      name: typeof name === 'string' && name !== '' ? name : state.name,
      limits: limitsOf(limits),
    };
  },

  nodes(state, { nodes }) {
    return { ...state, nodes };
  },

  rename(state, { name }) {
    return state.name === name ? state : { ...state, name, former: [...state.former.slice(-20), state.name] };
  },

  /** A person wants to be in a room, and to see it. */
  open(state, { room }) {
    const left = state.rooms.get(state.current);
    const rooms = new Map(state.rooms);
    if (left && left.name !== room && left.unreadFrom) rooms.set(left.name, { ...left, unreadFrom: null });
    const there = rooms.get(room) ?? newRoom(room, '');
    rooms.set(room, read(there.state === 'refused' ? { ...there, state: 'joining', reason: '' } : there));
    return { ...state, rooms, current: room, target: state.current === room ? state.target : null };
  },

  /** A person wants to see a message: it is read back to, if need be. */
  seek(state, { room, id }) {
    return { ...HANDLERS.open(state, { room }), target: { id, state: 'sought' } };
  },

  /** There is no such message, or none that can be reached. */
  'seek-failed'(state) {
    return state.target?.state === 'sought' ? { ...state, target: { ...state.target, state: 'lost' } } : state;
  },

  /** The message sought is in view, or it was told that it is not there. */
  arrived(state) {
    return state.target === null ? state : { ...state, target: null };
  },

  leave(state, { room }) {
    if (!state.rooms.has(room) || state.rooms.size === 1) return state;
    const rooms = new Map(state.rooms);
    rooms.delete(room);
    const outbox = state.outbox.filter((pending) => pending.room !== room);
    const current = state.current === room ? /** @type {string} */ (rooms.keys().next().value) : state.current;
    return { ...state, current, outbox, target: null, rooms: rooms.set(current, read(/** @type {Room} */ (rooms.get(current)))) };
  },

  /** A node answered our join: what was missed, or the newest page; from here on the stream has no hole. */
  joined(state, { room: name, reply, resumed }) {
    const held = state.rooms.get(name);
    if (!held) return state;
    const lossy = resumed && reply.recovered === false;
    const marked = lossy && held.items.length > 0 ? notify(state, name, 'missing') : state;
    const wires = Array.isArray(reply.messages) ? reply.messages : [];
    const received = receive(marked, name, wires, { live: true });
    return changeRoom(received, name, (room) => settle(room, reply, { resumed, seen: isSeen(state, name), name: state.name }));
  },

  'join-failed'(state, { room, fault }) {
    return changeRoom(state, room, (held) => ({ ...held, state: 'refused', reason: fault.message || fault.code }));
  },

  /** Messages as they are pushed, of any rooms. */
  messages(state, { messages }) {
    /** @type {Map<string, any[]>} */
    const byRoom = new Map();
    for (const message of messages) byRoom.set(message?.room, [...(byRoom.get(message?.room) ?? []), message]);
    let next = state;
    for (const [room, wires] of byRoom) next = receive(next, room, wires, { live: true });
    return next;
  },

  /** "Load older" was asked for. */
  'history-asked'(state, { room }) {
    return changeRoom(state, room, (held) => (held.older === 'some' ? { ...held, older: 'loading' } : held));
  },

  history(state, { room: name, messages, more }) {
    const wires = Array.isArray(messages) ? messages : [];
    const before = state.rooms.get(name)?.items.length ?? 0;
    const next = receive(state, name, wires, { live: false });
    return changeRoom(next, name, (room) => prepend(room, { more: more !== false, found: room.items.length - before }));
  },

  'history-failed'(state, { room }) {
    return changeRoom(state, room, (held) => (held.older === 'loading' ? { ...held, older: 'some' } : held));
  },

  /** What was missed is asked for, a page at a time, from its newer end. */
  'bridge-asked'(state, { room, notice }) {
    return changeNotice(state, room, notice, true);
  },

  bridge(state, { room: name, notice, messages, more }) {
    const wires = Array.isArray(messages) ? messages : [];
    const page = wires.map((wire) => readMessage(wire, state.mine)).filter((message) => message !== null);
    return changeRoom(receive(state, name, wires, { live: false }), name, (room) => bridge(room, notice, page, more !== false));
  },

  'bridge-failed'(state, { room, notice }) {
    return changeNotice(state, room, notice, false);
  },

  gap(state, { room, origin, after, through }) {
    if (!state.rooms.has(room)) return state;
    const lost = Number.isFinite(through - after) ? Math.max(through - after, 0) : 0;
    const hole = lost > 0 && typeof origin === 'string' ? { origin, after, through, found: [] } : null;
    return notify(state, room, 'gap', { lost, hole });
  },

  members(state, { room, joined = [], left = [], count }) {
    const ours = new Set([state.name, ...state.former]);
    const number = state.notices + 1;
    return changeRoom({ ...state, notices: number }, room, (before) => {
      const gone = new Set(left);
      const there = new Set(before.members);
      const held = people(before, {
        came: joined.filter((/** @type {string} */ name) => !there.has(name) && !ours.has(name)),
        left: left.filter((/** @type {string} */ name) => there.has(name) && !ours.has(name)), number, count,
      });
      const names = memberList([...held.members.filter((name) => !gone.has(name)), ...joined]);
      return {
        ...held, members: names, count: Number.isFinite(count) ? count : names.length,
        typing: withoutTyping(held.typing, [...gone]),
      };
    });
  },

  typing(state, { room, name, at }) {
    if (name === state.name || typeof name !== 'string') return state;
    return changeRoom({ ...state, now: Math.max(state.now, at) }, room,
      (held) => ({ ...held, typing: new Map(held.typing).set(name, at + TYPING_MS) }));
  },

  /** Time went by. Changes nothing unless something shown depends on it. */
  tick(state, { now }) {
    let next = state.link.retryAt > 0 ? { ...state, now } : state;
    for (const room of state.rooms.values()) {
      const over = [...room.typing].filter(([, end]) => end <= now).map(([name]) => name);
      if (over.length > 0) next = changeRoom(next, room.name, (held) => ({ ...held, typing: withoutTyping(held.typing, over) }));
    }
    return next;
  },

  draft(state, { room, text }) {
    return changeRoom(state, room, (held) => (held.draft === text ? held : { ...held, draft: text }));
  },

  /** A person sends something. It is shown at once, and kept until a node has it. */
  send(state, { room, mid, text, at }) {
    const pending = { mid, room, text, at, state: /** @type {const} */ ('sending'), reason: '' };
    const next = { ...state, outbox: [...state.outbox, pending], mine: new Set(state.mine).add(mid) };
    return changeRoom(next, room, (held) => ({ ...held, draft: '', unreadFrom: null }));
  },

  /** A node acknowledged a send. The position stays: messages before it may still be on their way. */
  sent(state, { mid, id, ts, copies = 0, keeper = false }) {
    const pending = state.outbox.find((other) => other.mid === mid);
    let next = state;
    if (pending) {
      const wire = { id, ts, mid, from: state.name, text: pending.text };
      const message = readMessage(wire, state.mine);
      // A reply without an id settles nothing: the message itself will.
      if (!message) return state;
      next = changeRoom({ ...state, outbox: state.outbox.filter((other) => other !== pending) }, pending.room,
        (room) => ({ ...room, items: merge(room.items, [message]).list }));
    }
    for (const room of next.rooms.values()) {
      const at = room.items.findLastIndex((item) => item.kind === 'message' && item.mid === mid);
      if (at < 0) continue;
      const message = /** @type {import('./messages.js').Message} */ (room.items[at]);
      const kept = Math.max(message.copies, Number(copies) || 0);
      const inKeeper = message.keeper || keeper === true;
      if (kept === message.copies && inKeeper === message.keeper) return next;
      const told = { ...message, copies: kept, keeper: inKeeper };
      return changeRoom(next, room.name, (held) => ({ ...held, items: held.items.with(at, told) }));
    }
    return next;
  },

  'send-failed'(state, { mid, reason }) {
    return changePending(state, mid, (pending) => ({ ...pending, state: 'failed', reason }));
  },

  retry(state, { mid }) {
    return changePending(state, mid, (pending) => ({ ...pending, state: 'sending', reason: '' }));
  },

  /** Another tab has something to send; this one shows it too, and sends it if the other is closed. */
  adopt(state, { pending }) {
    const held = state.outbox.find((other) => other.mid === pending.mid);
    if (held && held.state === pending.state && held.reason === pending.reason) return state;
    if (held) return changePending(state, pending.mid, (other) => ({ ...other, state: pending.state, reason: pending.reason }));
    const shown = state.rooms.get(pending.room)?.items.some((item) => item.kind === 'message' && item.mid === pending.mid);
    const next = HANDLERS.mine(state, { mids: [pending.mid] });
    return shown || !state.rooms.has(pending.room) ? next : { ...next, outbox: [...next.outbox, pending] };
  },

  /** Other tabs sent these: they are our own as well. */
  mine(state, { mids }) {
    const fresh = new Set(mids.filter((/** @type {string} */ mid) => !state.mine.has(mid)));
    if (fresh.size === 0) return state;
    let next = { ...state, mine: new Set([...state.mine, ...fresh]) };
    for (const room of state.rooms.values()) {
      if (!room.items.some((item) => item.kind === 'message' && fresh.has(item.mid))) continue;
      const items = room.items.map((item) => (item.kind === 'message' && fresh.has(item.mid) ? { ...item, own: true } : item));
      next = changeRoom(next, room.name, (held) => ({ ...held, items }));
    }
    return next;
  },

  /** Another tab showed a room to the person. */
  'read-elsewhere'(state, { room, place }) {
    return changeRoom(state, room, (held) => readElsewhere(held, place, state.name));
  },

  /** It need not be sent: thrown away by a person, or settled by another tab. */
  discard(state, { mid }) {
    const outbox = state.outbox.filter((pending) => pending.mid !== mid);
    return outbox.length === state.outbox.length ? state : { ...state, outbox };
  },

  /** The page came into view or went out of it. */
  attention(state, { attentive }) {
    const next = state.attentive === attentive ? state : { ...state, attentive };
    return attentive ? changeRoom(next, state.current, read) : next;
  },
};

/**
 * @param {State} state
 * @param {string} mid
 * @param {(pending: Pending) => Pending} change
 * @returns {State}
 */
function changePending(state, mid, change) {
  if (!state.outbox.some((pending) => pending.mid === mid)) return state;
  return { ...state, outbox: state.outbox.map((pending) => (pending.mid === mid ? change(pending) : pending)) };
}

/**
 * @param {State} state
 * @param {string} room
 * @param {string} id
 * @param {boolean} loading
 * @returns {State}
 */
function changeNotice(state, room, id, loading) {
  return changeRoom(state, room, (held) => ({
    ...held, items: held.items.map((item) => (item.id === id && item.kind !== 'message' ? { ...item, loading } : item)),
  }));
}
