/**
 * The transcript of one room as a sorted list, and the ways to change it. Pure.
 *
 * The one order that every node shows is `(ts, origin)`. `ts` is unique per origin, so two items with the same
 * key are the same entry: the order is also the test for duplicates.
 */
import { parseId } from './wire.js';

/**
 * @typedef {object} Message
 * @property {'message'} kind
 * @property {string} id       `<origin>.<seq>`
 * @property {string} origin
 * @property {number} ts       microseconds since 1970
 * @property {string} mid      the sender's own id for it, or ''
 * @property {string} from
 * @property {string} text
 * @property {boolean} own     whether this browser sent it
 * @property {number} copies   how many others are known to hold it, a keeper among them
 * @property {boolean} keeper  whether a keeper does, which outlives all nodes
 * @property {boolean} late    whether it came after messages that stand well behind it
 */

/**
 * Something the page itself says in the transcript: a hole, a place where messages may be missing, who came and left.
 * @typedef {object} Notice
 * @property {'gap' | 'missing' | 'people'} kind
 * @property {string} id
 * @property {string} origin   sorts after every node's origin
 * @property {number} ts
 * @property {number} lost     of a gap: how many messages, 0 if unknown
 * @property {{origin: string, after: number, through: number, found: readonly number[]} | null} hole  of a gap
 * @property {boolean} loading of a place where messages may be missing: whether they are being asked for
 * @property {readonly string[]} came
 * @property {readonly string[]} left
 */

/** @typedef {Message | Notice} Item */

// Origins are made of letters and digits, so a notice stands after the message it was put behind.
const NOTICE_ORIGIN = '~';

/**
 * @param {{ts: number, origin: string, id?: string}} a
 * @param {{ts: number, origin: string, id?: string}} b
 * @returns {number} below, at or above zero, as sort wants it
 */
export function compare(a, b) {
  if (a.ts !== b.ts) return a.ts - b.ts;
  if (a.origin !== b.origin) return a.origin < b.origin ? -1 : 1;
  // Only notices can get here with different ids; they stay in the order of their making.
  return a.origin === NOTICE_ORIGIN ? Number(a.id?.slice(1)) - Number(b.id?.slice(1)) : 0;
}

/**
 * A message as received, checked; `null` if it is not one.
 * @param {any} wire
 * @param {ReadonlySet<string>} mine the mids that this browser made
 * @returns {Message | null}
 */
export function readMessage(wire, mine) {
  const id = parseId(wire?.id);
  if (!id || typeof wire.text !== 'string' || typeof wire.from !== 'string' || !Number.isFinite(wire.ts)) return null;
  const mid = typeof wire.mid === 'string' ? wire.mid : '';
  return {
    kind: 'message', id: wire.id, origin: id.origin, ts: wire.ts, mid,
    from: wire.from, text: wire.text, own: mine.has(mid), copies: 0, keeper: false, late: false,
  };
}

/**
 * @param {string} id
 * @returns {{origin: string, seq: number}} of an id that was checked
 */
export function parsePlace(id) {
  return parseId(id) ?? { origin: '', seq: 0 };
}

/**
 * @param {Notice['kind']} kind
 * @param {number} number  makes its id; unique in the state
 * @param {number} ts      of the message it stands behind
 * @param {Partial<Notice>} [more]
 * @returns {Notice}
 */
export function makeNotice(kind, number, ts, more = {}) {
  return { lost: 0, hole: null, loading: false, came: [], left: [], ...more, kind, id: `!${number}`, origin: NOTICE_ORIGIN, ts };
}

/**
 * Where an item belongs: the index of the first that is not before it.
 * @param {readonly Item[]} list
 * @param {{ts: number, origin: string, id?: string}} item
 * @returns {number}
 */
export function place(list, item) {
  let low = 0;
  let high = list.length;
  // Nearly everything is newest: look there first.
  if (high > 0 && compare(list[high - 1], item) < 0) return high;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(list[middle], item) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Puts items where they belong. What is held already, by id or by mid, is not held twice: of two entries with
 * one mid (one send, retried through another node) the earlier stays, so that everybody keeps the same one.
 * @param {readonly Item[]} list  sorted
 * @param {readonly Item[]} items in any order
 * @returns {{list: readonly Item[], added: Item[]}} the same `list` if nothing changed
 */
export function merge(list, items) {
  /** @type {Item[] | null} */
  let copy = null;
  const added = [];
  // Looking for a mid through the whole list is cheap for one message, and not for a long replay.
  const mids = items.length > 8 ? new Set(list.map((item) => (item.kind === 'message' ? item.mid : ''))) : null;
  for (const item of items) {
    const held = copy ?? list;
    const at = place(held, item);
    const there = held[at];
    if (there && compare(there, item) === 0) {
      // What came from the node settles what we assumed from our own send.
      if (there.kind === 'message' && item.kind === 'message' && (there.text !== item.text || there.from !== item.from)) {
        copy ??= list.slice();
        copy[at] = { ...there, text: item.text, from: item.from };
      }
      continue;
    }
    const mid = item.kind === 'message' ? item.mid : '';
    const twin = mid !== '' && (mids === null || mids.has(mid))
      ? held.findIndex((other) => other.kind === 'message' && other.mid === mid) : -1;
    mids?.add(mid);
    if (twin < 0) {
      copy ??= list.slice();
      copy.splice(at, 0, item);
      added.push(item);
      continue;
    }
    const other = /** @type {Message} */ (held[twin]);
    if (compare(other, item) < 0) continue;
    copy ??= list.slice();
    copy.splice(twin, 1);
    copy.splice(place(copy, item), 0, { .../** @type {Message} */ (item), copies: other.copies, keeper: other.keeper, late: other.late });
  }
  return { list: copy ?? list, added };
}

/**
 * Takes the higher of two positions, origin by origin.
 * @param {ReadonlyMap<string, number>} position
 * @param {readonly unknown[]} ids
 * @returns {ReadonlyMap<string, number>} the same map if nothing is higher
 */
export function advance(position, ids) {
  /** @type {Map<string, number> | null} */
  let next = null;
  for (const text of ids) {
    const id = parseId(text);
    if (!id || ((next ?? position).get(id.origin) ?? 0) >= id.seq) continue;
    next ??= new Map(position);
    next.set(id.origin, id.seq);
  }
  return next ?? position;
}

/**
 * A position as it is sent in `since`.
 * @param {ReadonlyMap<string, number>} position
 * @returns {string[]}
 */
export function positionIds(position) {
  return Array.from(position, ([origin, seq]) => `${origin}.${seq}`);
}
