/**
 * What the page itself says in a transcript: gaps, places where messages may be missing, who came and left.
 * Pure; used by the reducer in state.js only.
 */
import { compare, makeNotice, merge, parsePlace } from './messages.js';

/** In larger crowds nobody wants to read who comes and goes. */
export const CROWD = 50;

/** @typedef {import('./room.js').Room} Room */
/** @typedef {import('./messages.js').Item} Item */
/** @typedef {import('./messages.js').Message} Message */
/** @typedef {import('./messages.js').Notice} Notice */

/**
 * Puts a notice behind the newest message.
 * @param {Room} room
 * @param {Notice['kind']} kind
 * @param {number} number
 * @param {Partial<Notice>} [more]
 * @returns {Room}
 */
export function mark(room, kind, number, more = {}) {
  const last = room.items[room.items.length - 1];
  return {
    ...room, items: merge(room.items, [makeNotice(kind, number, last?.ts ?? 0, more)]).list,
    holes: room.holes + (more.hole ? 1 : 0),
  };
}

/**
 * Lets gaps go, or shrink, whose entries turned up after all, in whatever room.
 * @param {Room} room
 * @param {readonly Message[]} messages
 * @returns {Room}
 */
export function fillHoles(room, messages) {
  if (room.holes === 0) return room;
  let { items } = room;
  let holes = 0;
  for (const item of room.items) {
    if (item.kind !== 'gap' || !item.hole) continue;
    const { origin, after, through, found } = item.hole;
    const seqs = messages.map((message) => parsePlace(message.id)).filter((id) => id.origin === origin && id.seq > after && id.seq <= through);
    const all = [...new Set([...found, ...seqs.map((id) => id.seq)])];
    const lost = through - after - all.length;
    if (lost > 0) holes += 1;
    if (all.length === found.length) continue;
    const filled = { ...item, lost, hole: { origin, after, through, found: all } };
    items = lost > 0 ? items.map((other) => (other === item ? filled : other)) : items.filter((other) => other !== item);
  }
  return items === room.items ? room : { ...room, items, holes };
}

/**
 * Says quietly who came and who left. What happens while nobody speaks is one line, and who left and came back is none.
 * @param {Room} room  before the change
 * @param {{came: readonly string[], left: readonly string[], number: number, count: number}} what
 * @returns {Room}
 */
export function people(room, { came, left, number, count }) {
  if (room.state !== 'joined' || count > CROWD || room.items.length === 0 || came.length + left.length === 0) return room;
  const last = room.items[room.items.length - 1];
  const before = last.kind === 'people' ? last : null;
  const merged = {
    came: [...(before?.came ?? []).filter((name) => !left.includes(name)), ...came.filter((name) => !before?.left.includes(name))],
    left: [...(before?.left ?? []).filter((name) => !came.includes(name)), ...left.filter((name) => !before?.came.includes(name))],
  };
  const rest = before ? room.items.slice(0, -1) : room.items;
  if (merged.came.length + merged.left.length === 0) return { ...room, items: rest };
  if (before) return { ...room, items: [...rest, { ...before, ...merged }] };
  return mark(room, 'people', number, merged);
}

/**
 * @param {Room} room
 * @returns {{notice: Notice, next: Message} | null} the newest place where messages may be missing, and what stands behind it
 */
export function missing(room) {
  const at = room.items.findLastIndex((item) => item.kind === 'missing');
  const next = room.items.slice(at + 1).find((item) => item.kind === 'message');
  return at < 0 || next?.kind !== 'message' ? null : { notice: /** @type {Notice} */ (room.items[at]), next };
}

/**
 * A page was read back from behind a place where messages may be missing: the place moves to before the page, or
 * goes when the page reaches what was held before it.
 * @param {Room} room  with the page in it
 * @param {string} id  of the notice
 * @param {readonly Message[]} page
 * @param {boolean} more  whether there is anything before the page
 * @returns {Room}
 */
export function bridge(room, id, page, more) {
  const at = room.items.findIndex((item) => item.id === id);
  if (at < 0) return room;
  const notice = /** @type {Notice} */ (room.items[at]);
  const before = room.items.slice(0, at).findLast((item) => item.kind === 'message');
  const rest = room.items.filter((item) => item !== notice);
  const first = page.reduce((/** @type {Message | null} */ oldest, message) => (oldest && compare(oldest, message) < 0 ? oldest : message), null);
  if (!more || !first || !before || compare(first, before) <= 0) return { ...room, items: rest };
  // A microsecond before the page: behind all that was held before.
  return { ...room, items: merge(rest, [{ ...notice, ts: first.ts - 1, loading: false }]).list };
}
