/**
 * What the words of a text are, as nodes have it when they search (`store/words.rs`), and where they stand.
 * Pure.
 */

// Accents of Latin, Greek and Cyrillic, points of Hebrew, Arabic and Syriac, and what is not seen. Not U+200B.
const OFF = '\\u0300-\\u036F\\u1AB0-\\u1AFF\\u1DC0-\\u1DFF\\u20D0-\\u20FF\\uFE20-\\uFE2F\\u0483-\\u0489\\u0591-\\u05BD\\u05BF\\u05C1\\u05C2'
  + '\\u05C4\\u05C5\\u05C7\\u0610-\\u061A\\u0640\\u064B-\\u065F\\u0670\\u06D6-\\u06DC\\u06DF-\\u06E4\\u06E7\\u06E8\\u06EA-\\u06ED\\u0711'
  + '\\u0730-\\u074A\\u0898-\\u089F\\u08CA-\\u08FF\\u00AD\\u061C\\u180B-\\u180F\\u200C-\\u200F\\u202A-\\u202E\\u2060-\\u206F\\uFE00-\\uFE0F'
  + '\\uFEFF\\u{E0000}-\\u{E0FFF}';
// Letters of scripts that put no space between words, and of Hangul: each is a word.
const ALONE = new RegExp('[\\u0E00-\\u0EFF\\u1000-\\u109F\\u1100-\\u11FF\\u1780-\\u17DF\\u1950-\\u19DF\\u1A20-\\u1AAF\\u1B00-\\u1B7F\\u2E80-\\u2FDF'
  + '\\u3005-\\u3007\\u3021-\\u3029\\u3031-\\u303C\\u3041-\\u31FF\\u3400-\\u4DBF\\u4E00-\\uA4CF\\uA960-\\uA97F\\uA980-\\uA9FF\\uAA60-\\uAADF'
  + '\\uAC00-\\uD7FF\\uF900-\\uFAFF\\u{1AFF0}-\\u{1B2FF}\\u{20000}-\\u{3FFFF}]', 'u');
const TAKEN_OFF = new RegExp(`(?<![\u0438\u0418](?=\u0306))[${OFF}]`, 'gu');
// A letter with what belongs to it: letters of a syllable of Hangul, marks, voicing marks of half width.
const CLUSTERS = new RegExp(`(?:[\\u1100-\\u115F][\\u1160-\\u11A7][\\u11A8-\\u11FF]?|[^])[\\p{M}\\uFF9E\\uFF9F${OFF}]*`, 'gu');
const LETTER = /[\p{Alphabetic}\p{N}]/u;
const MARK = /\p{M}/u;
const STROKED = new Map(Object.entries({ đ: 'd', ħ: 'h', ł: 'l', ø: 'o', ŧ: 't', æ: 'ae', œ: 'oe' }));

/**
 * @param {string} text
 * @returns {string}
 */
function folded(text) {
  const bare = text.normalize('NFKD').replace(TAKEN_OFF, '');
  // Letter by letter: the end of a word makes no difference.
  const lower = Array.from(bare, (c) => c.toLowerCase().toUpperCase()).join('');
  return Array.from(lower, (c) => Array.from(c.toLowerCase(), (d) => STROKED.get(d) ?? d).join('')).join('').normalize('NFC');
}

/**
 * @param {string} text
 * @returns {{word: string, start: number, end: number}[]} the end is behind the last character
 */
export function words(text) {
  /** @type {{word: string, start: number, end: number}[]} */
  const found = [];
  let open = false;
  let closed = false;
  for (const cluster of text.matchAll(CLUSTERS)) {
    const end = cluster.index + cluster[0].length;
    for (const c of folded(cluster[0])) {
      const last = found[found.length - 1];
      const alone = ALONE.test(c);
      if (MARK.test(c)) {
        if (open) Object.assign(last, { word: last.word + c, end });
      } else if (!LETTER.test(c)) open = closed = false;
      else if (open && !closed && !alone) Object.assign(last, { word: last.word + c, end });
      else {
        found.push({ word: c, start: cluster.index, end });
        open = true;
        closed = alone;
      }
    }
  }
  return found;
}
