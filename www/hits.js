/** Which pieces of a text a search found, and the part of the text around them. Pure. */

/** So much of a long text is shown, and so much of it in front of the first word found. */
const SNIPPET = 240;
const LEAD = 60;
const WORDS = /[\p{L}\p{N}\p{M}_]+/gu;

/**
 * @param {string} word
 * @returns {string} equal for words that a node takes for the same
 */
function plain(word) {
  return word.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
}

/**
 * @param {string} text
 * @param {string} query  as it was typed
 * @returns {{text: string, hit: boolean}[]} the text, or the part of it with the first hit
 */
export function hits(text, query) {
  const wanted = new Set((query.match(WORDS) ?? []).map(plain));
  const found = [...text.matchAll(WORDS)].filter((word) => wanted.has(plain(word[0])));
  const first = found[0]?.index ?? 0;
  // Not in the middle of a character that takes two.
  let start = text.length <= SNIPPET || first <= LEAD ? 0 : first - LEAD;
  if (start > 0 && /[\uDC00-\uDFFF]/.test(text[start])) start -= 1;
  const end = Math.min(text.length, start + SNIPPET);
  const pieces = [];
  let at = start;
  for (const word of found) {
    if (word.index < at || word.index + word[0].length > end) continue;
    pieces.push({ text: text.slice(at, word.index), hit: false }, { text: word[0], hit: true });
    at = word.index + word[0].length;
  }
  pieces.push({ text: text.slice(at, end), hit: false });
  if (start > 0) pieces.unshift({ text: '… ', hit: false });
  if (end < text.length) pieces.push({ text: ' …', hit: false });
  return pieces.filter((piece) => piece.text !== '');
}
