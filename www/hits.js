/** Which pieces of a text a search found, and the part of the text around them. Pure. */
import { words } from './folded.js';

/** So much of a long text is shown, and so much of it in front of the first word found. */
const SNIPPET = 240;
const LEAD = 60;

/**
 * @param {string} query  as it was typed
 * @returns {string[][]} the words of each of its phrases
 */
function phrases(query) {
  // Every other piece between quotes is a phrase.
  const parts = query.split('"').flatMap((piece, index) => (index % 2 === 1 ? [piece] : piece.split(/\s+/)));
  return parts.map((part) => words(part).map((word) => word.word)).filter((phrase) => phrase.length > 0);
}

/**
 * @param {string} text
 * @param {string} query
 * @returns {{start: number, end: number}[]} where it has what was looked for, in order
 */
function found(text, query) {
  const has = words(text);
  const spans = phrases(query).flatMap((phrase) => has.flatMap((first, at) => (
    phrase.every((word, nth) => has[at + nth]?.word === word) ? [{ start: first.start, end: has[at + phrase.length - 1].end }] : [])));
  spans.sort((a, b) => a.start - b.start || b.end - a.end);
  /** @type {{start: number, end: number}[]} */
  const apart = [];
  for (const span of spans) {
    const last = apart[apart.length - 1];
    if (last && span.start < last.end) last.end = Math.max(last.end, span.end);
    else apart.push({ ...span });
  }
  return apart;
}

/**
 * @param {string} text
 * @param {string} query  as it was typed
 * @returns {{text: string, hit: boolean}[]} the text, or the part of it with the first hit
 */
export function hits(text, query) {
  const spans = found(text, query);
  const first = spans[0]?.start ?? 0;
  // Not in the middle of a character that takes two.
  let start = text.length <= SNIPPET || first <= LEAD ? 0 : first - LEAD;
  if (start > 0 && /[\uDC00-\uDFFF]/.test(text[start])) start -= 1;
  const end = Math.min(text.length, start + SNIPPET);
  const pieces = [];
  let at = start;
  for (const span of spans) {
    if (span.start < at || span.end > end) continue;
    pieces.push({ text: text.slice(at, span.start), hit: false }, { text: text.slice(span.start, span.end), hit: true });
    at = span.end;
  }
  pieces.push({ text: text.slice(at, end), hit: false });
  if (start > 0) pieces.unshift({ text: '… ', hit: false });
  if (end < text.length) pieces.push({ text: ' …', hit: false });
  return pieces.filter((piece) => piece.text !== '');
}
