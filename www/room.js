/**
 * One room as the page knows it, and the ways in which it changes. Pure; used by the reducer in state.js only.
 */
import { advance, compare, makeNotice, merge } from './messages.js';

/** Messages kept per room, and how many more may be read back before that ends. */
export const KEEP = 5_000;
export const KEEP_READING = 10_000;
/** Somebody who was typing and is not heard of again has stopped. */
export const TYPING_MS = 6_000;
/** Names shown of a room; the count is true whatever their number. */
export const MEMBERS_SHOWN = 500;

/**
 * @typedef {object} Room
 * @property {string} name
 * @property {'joining' | 'joined' | 'refused'} state
 * @property {string} reason             why it was refused, or ''
 * @property {ReadonlyMap<string, number>} position  the highest seq seen, per origin
 * @property {readonly import('./messages.js').Item[]} items  sorted
 * @property {number} keep               how many items are kept
 * @property {'unknown' | 'some' | 'loading' | 'none' | 'full'} older  what is known of the time before them
 * @property {readonly string[]} members sorted
 * @property {number} count
 * @property {ReadonlyMap<string, number>} typing    when each one's typing ends, ms
 * @property {number} unread
 * @property {{ts: number, origin: string} | null} unreadFrom  the first unread message
 * @property {string} draft
 */

/**
 * @param {string} name
 * @param {string} draft
 * @returns {Room} not yet joined
 */
export function newRoom(name, draft) {
  return {
    name, state: 'joining', reason: '', position: new Map(), items: [], keep: KEEP, older: 'unknown', members: [],
    count: 0, typing: new Map(), unread: 0, unreadFrom: null, draft,
  };
}

/**
 * Puts messages where they belong, and counts what is unread.
 * @param {Room} room
 * @param {readonly import('./messages.js').Message[]} messages
 * @param {{live: boolean, seen: boolean}} how  `live`: new, as against read back from the past; `seen`: a person
 *   can be looking at the room
 * @returns {Room} the same object if nothing changed
 */
export function take(room, messages, { live, seen }) {
  const { list, added } = merge(room.items, messages);
  const position = live ? advance(room.position, messages.map((message) => message.id)) : room.position;
  if (list === room.items && position === room.position) return room;
  const next = { ...room, items: list, position };
  if (!live) return next;
  const fresh = added.filter((item) => item.kind === 'message' && !item.own);
  next.typing = withoutTyping(room.typing, messages.map((message) => message.from));
  if (fresh.length > 0 && !seen) {
    next.unread = room.unread + fresh.length;
    if (room.unread === 0) next.unreadFrom = fresh.reduce((first, item) => (compare(item, first) < 0 ? item : first));
  }
  return trim(next);
}

/**
 * Puts a notice behind the newest message.
 * @param {Room} room
 * @param {'gap' | 'missing'} kind
 * @param {number} number
 * @param {number} lost
 * @returns {Room}
 */
export function mark(room, kind, number, lost) {
  const last = room.items[room.items.length - 1];
  return { ...room, items: merge(room.items, [makeNotice(kind, number, last?.ts ?? 0, lost)]).list };
}

/**
 * Joined: all but the messages of a node's answer, which `take` has taken.
 * @param {Room} room
 * @param {any} reply
 * @param {{resumed: boolean, lossy: boolean}} how  `lossy`: the node could not replay all that was missed
 * @returns {Room}
 */
export function settle(room, reply, { resumed, lossy }) {
  const at = Array.isArray(reply.at) ? reply.at : [];
  const members = memberList(Array.isArray(reply.members) ? reply.members : []);
  return {
    ...room, state: 'joined', reason: '',
    // After a loss only what this node knows counts. To go on naming an origin that nobody has any more would
    // make every later return look like a loss.
    position: advance(lossy ? known(room.position, [at, reply.messages]) : room.position, at),
    older: room.older === 'unknown' || room.older === 'loading' ? 'some' : room.older,
    members, count: Number.isFinite(reply.count) ? reply.count : members.length,
    // What was said before one came is not unread.
    unread: resumed ? room.unread : 0, unreadFrom: resumed ? room.unreadFrom : null,
  };
}

/**
 * @param {ReadonlyMap<string, number>} position
 * @param {[readonly string[], any]} reply  a node's position and messages
 * @returns {ReadonlyMap<string, number>} of it, the origins that the node knows
 */
function known(position, [at, messages]) {
  const ids = Array.isArray(messages) ? messages.map((message) => message?.id) : [];
  const origins = advance(new Map(), [...at, ...ids]);
  return new Map([...position].filter(([origin]) => origins.has(origin)));
}

/**
 * What is known of the past after a page of it was taken.
 * @param {Room} room
 * @param {{more: boolean, found: number}} page  `found`: how many of its messages were new
 * @returns {Room}
 */
export function prepend(room, { more, found }) {
  const keep = Math.min(KEEP_READING, Math.max(room.keep, room.items.length + 1_000));
  // A page that brought nothing new ends it, whatever it claims, or the page would ask for ever.
  const older = !more || found === 0 ? 'none' : room.items.length >= KEEP_READING ? 'full' : 'some';
  return { ...room, older, keep };
}

/**
 * @param {Room} room
 * @returns {Room} with no more items than it keeps
 */
function trim(room) {
  if (room.items.length <= room.keep) return room;
  return { ...room, items: room.items.slice(room.items.length - room.keep), older: room.older === 'loading' ? 'loading' : 'some' };
}

/**
 * @param {ReadonlyMap<string, number>} typing
 * @param {readonly string[]} names
 * @returns {ReadonlyMap<string, number>}
 */
export function withoutTyping(typing, names) {
  if (!names.some((name) => typing.has(name))) return typing;
  const next = new Map(typing);
  for (const name of names) next.delete(name);
  return next;
}

/**
 * @param {Iterable<unknown>} names
 * @returns {string[]} each once, sorted, as many as are shown
 */
export function memberList(names) {
  const texts = new Set([...names].filter((name) => typeof name === 'string'));
  return /** @type {string[]} */ ([...texts]).sort((a, b) => a.localeCompare(b)).slice(0, MEMBERS_SHOWN);
}

/**
 * @param {Room} room
 * @returns {Room} with all of it read
 */
export function read(room) {
  return room.unread === 0 ? room : { ...room, unread: 0 };
}
