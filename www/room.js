/**
 * One room as the page knows it, and the ways in which it changes. Pure; used by the reducer in state.js only.
 */
import { advance, compare, merge } from './messages.js';
import { mentions } from './words.js';

/** Messages kept per room, and how many more may be read back before that ends. */
export const KEEP = 5_000;
export const KEEP_READING = 10_000;
/** Somebody who was typing and is not heard of again has stopped. */
export const TYPING_MS = 6_000;
/** A message that stands so far behind the newest, microseconds, came late; less is the way of two nodes. */
export const LATE_US = 2_000_000;
/** Names shown of a room; the count is true whatever their number. */
export const MEMBERS_SHOWN = 500;

/**
 * @typedef {object} Room
 * @property {string} name
 * @property {'joining' | 'joined' | 'refused'} state
 * @property {string} reason             why it was refused, or ''
 * @property {ReadonlyMap<string, number>} position  the node's, and the highest seq seen since, per origin
 * @property {readonly import('./messages.js').Item[]} items  sorted
 * @property {number} keep               how many items are kept
 * @property {'unknown' | 'some' | 'loading' | 'none' | 'full'} older  what is known of the time before them
 * @property {readonly string[]} members sorted
 * @property {number} count
 * @property {ReadonlyMap<string, number>} typing    when each one's typing ends, ms
 * @property {number} unread
 * @property {number} mentions           how many of the unread speak to us
 * @property {{ts: number, origin: string} | null} unreadFrom  the first unread message
 * @property {{ts: number, origin: string} | null} readTo  the newest message that was read, here or in another tab
 * @property {number} holes              how many gaps among the items may still be filled
 * @property {string} draft
 */

/**
 * @param {string} name
 * @param {string} draft
 * @param {{ts: number, origin: string} | null} [readTo]
 * @returns {Room} not yet joined
 */
export function newRoom(name, draft, readTo = null) {
  return {
    name, state: 'joining', reason: '', position: new Map(), items: [], keep: KEEP, older: 'unknown', members: [],
    count: 0, typing: new Map(), unread: 0, mentions: 0, unreadFrom: null, readTo, holes: 0, draft,
  };
}

/**
 * Puts messages where they belong, and counts what is unread.
 * @param {Room} room
 * @param {readonly import('./messages.js').Message[]} messages
 * @param {{live: boolean, seen: boolean, name: string}} how  `live`: new, as against read back from the past; `seen`: a
 *   person can be looking at the room; `name`: ours
 * @returns {Room} the same object if nothing changed
 */
export function take(room, messages, { live, seen, name }) {
  const newest = room.items.findLast((item) => item.kind === 'message');
  const marked = live && newest ? messages.map((message) => (isLate(message, newest) ? { ...message, late: true } : message)) : messages;
  const { list, added } = merge(room.items, marked);
  const position = live ? advance(room.position, messages.map((message) => message.id)) : room.position;
  if (list === room.items && position === room.position) return room;
  const next = { ...room, items: list, position };
  if (!live) return next;
  const fresh = others(added);
  next.typing = withoutTyping(room.typing, messages.map((message) => message.from));
  if (seen) return trim(room.older === 'unknown' ? next : { ...next, readTo: newestPlace(next) });
  if (fresh.length > 0) {
    next.unread = room.unread + fresh.length;
    next.mentions = room.mentions + fresh.filter((message) => mentions(message.text, name)).length;
    if (room.unread === 0) next.unreadFrom = fresh.reduce((first, item) => (compare(item, first) < 0 ? item : first));
  }
  return trim(next);
}

/**
 * @param {import('./messages.js').Message} message
 * @param {import('./messages.js').Item} newest
 * @returns {boolean}
 */
function isLate(message, newest) {
  return !message.own && newest.ts - message.ts > LATE_US;
}

/**
 * @param {readonly import('./messages.js').Item[]} items
 * @returns {import('./messages.js').Message[]} what others said
 */
function others(items) {
  return /** @type {import('./messages.js').Message[]} */ (items.filter((item) => item.kind === 'message' && !item.own));
}

/**
 * @param {Room} room
 * @returns {{ts: number, origin: string} | null}
 */
function newestPlace(room) {
  const last = room.items.findLast((item) => item.kind === 'message');
  if (!last) return room.readTo;
  return room.readTo && compare(room.readTo, last) >= 0 ? room.readTo : { ts: last.ts, origin: last.origin };
}

/**
 * Counts anew what is unread: all that stands behind what was read.
 * @param {Room} room
 * @param {string} name  ours
 * @returns {Room}
 */
function recount(room, name) {
  const { readTo } = room;
  const unread = readTo ? others(room.items).filter((message) => compare(message, readTo) > 0) : [];
  return {
    ...room, unread: unread.length, unreadFrom: unread[0] ?? null,
    mentions: unread.filter((message) => mentions(message.text, name)).length,
  };
}

/**
 * Another tab showed the room to the person.
 * @param {Room} room
 * @param {{ts: number, origin: string}} place
 * @param {string} name  ours
 * @returns {Room}
 */
export function readElsewhere(room, place, name) {
  if (room.readTo && compare(room.readTo, place) >= 0) return room;
  const next = { ...room, readTo: place };
  return room.unread === 0 ? next : recount(next, name);
}

/**
 * Joined: all but the messages of a node's answer, which `take` has taken.
 * @param {Room} room
 * @param {any} reply
 * @param {{resumed: boolean, seen: boolean, name: string}} how  `seen`, `name` as in `take`
 * @returns {Room}
 */
export function settle(room, reply, { resumed, seen, name }) {
  const at = Array.isArray(reply.at) ? reply.at : [];
  const members = memberList(Array.isArray(reply.members) ? reply.members : []);
  // What was said before one came is not unread; but what was said since the last visit is.
  const counted = resumed ? room : recount(room, name);
  const settled = {
    ...counted, state: /** @type {const} */ ('joined'), reason: '',
    // The node's position stands for all that was seen. To go on naming origins that it does not name would make ours
    // grow with each node that has come and gone.
    position: at.length > 0 ? advance(known(room.position, [at, reply.messages]), at) : room.position,
    older: room.older === 'unknown' || room.older === 'loading' ? /** @type {const} */ ('some') : room.older,
    members, count: Number.isFinite(reply.count) ? reply.count : members.length,
  };
  return seen ? read(settled) : settled;
}

/**
 * @param {ReadonlyMap<string, number>} position
 * @param {[readonly string[], any]} reply  a node's position and messages
 * @returns {ReadonlyMap<string, number>} of it, the origins that the node names
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
  // Before the room is joined nobody can have read it.
  const readTo = room.older === 'unknown' ? room.readTo : newestPlace(room);
  return room.unread === 0 && readTo === room.readTo ? room : { ...room, unread: 0, mentions: 0, readTo };
}
