/**
 * Which part of a long transcript is in the document: a span of its items that moves with the reader. Pure.
 *
 * A room may hold ten thousand messages; a document with all of them is slow to lay out and large. The span is named
 * by its first item, not by a number, so it stays where it is when messages come in anywhere.
 */
import { place } from './messages.js';

/** Items in the document, and by how many the span moves. */
export const SPAN = 500;
export const STEP = 200;
/** At the end the span moves on only so often, or each new message would push out an old one and move all. */
const SLACK = 50;

/** @typedef {{ts: number, origin: string, id: string} | null} From  the first item of the span; null: the span ends at the newest */

/**
 * @param {readonly import('./messages.js').Item[]} items
 * @param {From} from
 * @returns {{start: number, end: number}}
 */
export function spanOf(items, from) {
  const last = Math.max(0, items.length - SPAN);
  const start = from === null ? last - (last % SLACK) : Math.min(place(items, from), last);
  return { start, end: from === null ? items.length : Math.min(items.length, start + SPAN) };
}

/**
 * The span, moved by some items.
 * @param {readonly import('./messages.js').Item[]} items
 * @param {From} from
 * @param {number} by  negative: into the past
 * @returns {From}
 */
export function moved(items, from, by) {
  return begin(items, spanOf(items, from).start + by);
}

/**
 * The span with this item in its midst.
 * @param {readonly import('./messages.js').Item[]} items
 * @param {number} index
 * @returns {From}
 */
export function around(items, index) {
  return begin(items, index - (SPAN >> 1));
}

/**
 * The span as it is, held where it is while messages are added at its end.
 * @param {readonly import('./messages.js').Item[]} items
 * @param {From} from
 * @returns {From}
 */
export function held(items, from) {
  return from ?? begin(items, spanOf(items, null).start);
}

/**
 * @param {readonly import('./messages.js').Item[]} items
 * @param {number} index
 * @returns {From}
 */
function begin(items, index) {
  if (items.length === 0) return null;
  const { ts, origin, id } = items[Math.min(Math.max(0, index), items.length - 1)];
  return { ts, origin, id };
}
