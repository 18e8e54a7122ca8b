/**
 * The words of a message: text in, a tree of tokens out. Pure, takes time in proportion to the text, never throws,
 * and nests at most as deep as there are kinds of emphasis.
 *
 * What is understood: `code` and ```blocks``` of it, **bold**, *italic*, _italic_, http and https addresses,
 * `@name` of somebody known, `:name:` of an emoji. A mark without its partner is an ordinary character.
 */
import { EMOJI } from './emoji.js';

/**
 * @typedef {{kind: 'text', text: string}
 *   | {kind: 'bold' | 'italic', inner: Token[]}
 *   | {kind: 'code', text: string}
 *   | {kind: 'block', text: string}
 *   | {kind: 'link', text: string, href: string}
 *   | {kind: 'mention', text: string, own: boolean}
 *   | {kind: 'emoji', text: string, name: string}
 *   | {kind: 'odd', text: string, code: string}} Token
 */

/**
 * @typedef {object} Who
 * @property {string} own                  our name
 * @property {ReadonlySet<string>} known   names that can be mentioned, as `fold` makes them
 */

/** A name has at most so many characters; in UTF-16 units twice that. */
const NAME_MAX = 64;
const FENCE = '```';
// All that can begin something other than text. Control characters but tab and line feed, and those that turn the
// direction of what comes after them, are shown by a symbol; so is what is heaped on a letter beyond four marks, for it
// would be drawn over the lines above.
const SPECIAL = /https?:\/\/|\*\*|[*_`@:]|[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]|(?<=\p{M}{4})\p{M}+/giu;
const ADDRESS = /https?:\/\/[^\s<>"'`\u0000-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]{2,2000}/iy;
const SHORTCODE = /:([a-z0-9_+-]{1,32}):/y;
const WORD = /[\p{L}\p{N}_]/u;
/** Texts beyond one of these are folded until asked for. */
const FOLD_LINES = 28;
const FOLD_LENGTH = 2_400;

/**
 * @param {string} name
 * @returns {string} equal for names that are the same but for case
 */
export function fold(name) {
  return name.normalize('NFC').toLowerCase();
}

/**
 * @param {string} text
 * @returns {boolean} whether it is too long to be shown whole without being asked
 */
export function isLong(text) {
  if (text.length > FOLD_LENGTH) return true;
  let lines = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines += 1;
  return lines >= FOLD_LINES;
}

/**
 * @param {string} text
 * @param {string} name
 * @returns {boolean} whether the text speaks to somebody of this name
 */
export function mentions(text, name) {
  const folded = fold(name);
  // Nearly no text does: parse only those that may.
  if (!fold(text).includes(`@${folded}`)) return false;
  const found = (/** @type {readonly Token[]} */ tokens) => tokens.some((token) => (
    token.kind === 'mention' ? token.own : 'inner' in token && found(token.inner)));
  return found(parse(text, { own: name, known: new Set([folded]) }));
}

/**
 * @param {readonly Token[]} tokens
 * @returns {boolean} whether it is nothing but up to three emoji
 */
export function isJumbo(tokens) {
  const seen = tokens.filter((token) => token.kind !== 'text' || token.text.trim() !== '');
  if (seen.length === 0) return false;
  const alone = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\s){1,16}$/u;
  const pictures = seen.every((token) => token.kind === 'emoji'
    || (token.kind === 'text' && alone.test(token.text) && /\p{Extended_Pictographic}/u.test(token.text)));
  const count = seen.reduce((sum, token) => (
    sum + (token.kind === 'text' ? (token.text.match(/\p{Extended_Pictographic}/gu)?.length ?? 0) : 1)), 0);
  return pictures && count <= 3;
}

/**
 * @param {string} text
 * @param {Who} who
 * @returns {Token[]}
 */
export function parse(text, who) {
  /** @type {Token[]} */
  const tokens = [];
  let at = 0;
  while (at < text.length) {
    const open = text.indexOf(FENCE, at);
    const close = open < 0 ? -1 : text.indexOf(FENCE, open + FENCE.length);
    if (close < 0) break;
    // The rest of the opening line is the language, if more lines follow; and the line feeds are the fences'.
    const inner = text.slice(open + FENCE.length, close).replace(/^[\w+#.-]{0,20}\n/, '').replace(/\n$/, '');
    if (inner.trim() === '') {
      inline(text.slice(at, close), who, tokens);
      at = close;
      // Fences with nothing between them: the second may open a block, and the first never will.
      if (text.indexOf(FENCE, close + FENCE.length) < 0) break;
      continue;
    }
    inline(text.slice(at, open).replace(/\n$/, ''), who, tokens);
    tokens.push({ kind: 'block', text: inner });
    at = close + FENCE.length;
    if (text[at] === '\n') at += 1;
  }
  inline(text.slice(at), who, tokens);
  return tokens;
}

/** A piece of text with emphasis not yet closed. */
class Frames {
  /** @param {Token[]} out */
  constructor(out) {
    /** @type {{mark: string, inner: Token[]}[]} */
    this.frames = [{ mark: '', inner: out }];
  }

  /** @param {Token} token */
  push(token) {
    const { inner } = this.frames[this.frames.length - 1];
    const last = inner[inner.length - 1];
    if (token.kind === 'text' && last?.kind === 'text') last.text += token.text;
    else if (token.kind !== 'text' || token.text !== '') inner.push(token);
  }

  /**
   * @param {string} mark
   * @param {boolean} opens
   * @param {boolean} closes
   */
  mark(mark, opens, closes) {
    const open = this.frames.findIndex((frame) => frame.mark === mark);
    if (open > 0 && closes) {
      while (this.frames.length > open + 1) this.#unwind();
      const { inner } = /** @type {{inner: Token[]}} */ (this.frames.pop());
      this.push({ kind: mark === '**' ? 'bold' : 'italic', inner });
    } else if (open < 0 && opens) {
      // Each mark is open once at most, so this is no deeper than there are marks.
      this.frames.push({ mark, inner: [] });
    } else {
      this.push({ kind: 'text', text: mark });
    }
  }

  end() {
    while (this.frames.length > 1) this.#unwind();
  }

  /** The innermost mark has no partner: it is a character like others. */
  #unwind() {
    const { mark, inner } = /** @type {{mark: string, inner: Token[]}} */ (this.frames.pop());
    this.push({ kind: 'text', text: mark });
    for (const token of inner) this.push(token);
  }
}

/**
 * @param {string} text  without blocks of code
 * @param {Who} who
 * @param {Token[]} out
 */
function inline(text, who, out) {
  const frames = new Frames(out);
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (!special) break;
    const start = special.index;
    if (start > at) frames.push({ kind: 'text', text: text.slice(at, start) });
    const mark = special[0];
    const before = start > 0 ? text[start - 1] : ' ';
    const token = whole(text, start, mark, before, who);
    if (token) {
      frames.push(token.token);
      at = start + token.length;
      continue;
    }
    at = start + mark.length;
    if (mark === '*' || mark === '**' || mark === '_') {
      const after = at < text.length ? text[at] : ' ';
      frames.mark(mark, !WORD.test(before) && !/\s/.test(after), !/\s/.test(before) && !WORD.test(after));
    } else {
      frames.push({ kind: 'text', text: mark });
    }
  }
  frames.push({ kind: 'text', text: text.slice(at) });
  frames.end();
}

/**
 * What begins at this place and is whole in itself.
 * @param {string} text
 * @param {number} start
 * @param {string} mark   what was found there
 * @param {string} before the character in front of it
 * @param {Who} who
 * @returns {{token: Token, length: number} | null}
 */
function whole(text, start, mark, before, who) {
  const first = text[start];
  if (first === '`') return code(text, start);
  if (first === '@') return WORD.test(before) ? null : mention(text, start, who);
  if (first === ':') {
    SHORTCODE.lastIndex = start;
    const name = WORD.test(before) ? undefined : SHORTCODE.exec(text)?.[1];
    const emoji = name === undefined ? undefined : EMOJI.get(name);
    return name !== undefined && emoji !== undefined
      ? { token: { kind: 'emoji', text: emoji, name }, length: name.length + 2 } : null;
  }
  if (first === 'h' || first === 'H') return WORD.test(before) ? null : link(text, start);
  const number = first.charCodeAt(0);
  if (number === 0x2A || number === 0x5F) return null;
  if (/\p{M}/u.test(mark)) return { token: { kind: 'odd', text: '⋯', code: `${Array.from(mark).length} more marks` }, length: mark.length };
  const name = `U+${number.toString(16).toUpperCase().padStart(4, '0')}`;
  const symbol = number < 0x20 ? String.fromCharCode(0x2400 + number) : number === 0x7F ? '\u2421' : name;
  return { token: { kind: 'odd', text: symbol, code: name }, length: 1 };
}

/**
 * @param {string} text
 * @param {number} start
 * @returns {{token: Token, length: number} | null}
 */
function code(text, start) {
  const end = text.indexOf('`', start + 1);
  if (end <= start + 1) return null;
  const inner = text.slice(start + 1, end);
  return inner.includes('\n') || inner.trim() === '' ? null : { token: { kind: 'code', text: inner }, length: inner.length + 2 };
}

/**
 * @param {string} text
 * @param {number} start
 * @returns {{token: Token, length: number} | null}
 */
function link(text, start) {
  ADDRESS.lastIndex = start;
  const found = ADDRESS.exec(text)?.[0];
  if (!found) return null;
  let end = found.length;
  // A sentence may end behind an address, be in brackets, or be emphasised; a bracket that it opened is its own.
  while (end > 0 && '.,;:!?)]}*_~\u2026'.includes(found[end - 1])) {
    if (found[end - 1] === ')' && balanced(found, end)) break;
    end -= 1;
  }
  const address = found.slice(0, end);
  try {
    const url = new URL(address);
    // What stands before an @ looks like the host and is not.
    if ((url.protocol !== 'http:' && url.protocol !== 'https:') || url.username !== '' || url.password !== '') return null;
    return { token: { kind: 'link', text: address, href: url.href }, length: end };
  } catch {
    return null;
  }
}

/**
 * @param {string} text
 * @param {number} end
 * @returns {boolean} whether every bracket that closes before `end` was opened there, looking at a short piece only
 */
function balanced(text, end) {
  let depth = 0;
  for (let at = Math.max(0, end - 200); at < end; at += 1) {
    if (text[at] === '(') depth += 1;
    else if (text[at] === ')') depth -= 1;
    if (depth < 0) return false;
  }
  return true;
}

/**
 * The longest known name behind an `@`. Names may have spaces in them.
 * @param {string} text
 * @param {number} start
 * @param {Who} who
 * @returns {{token: Token, length: number} | null}
 */
function mention(text, start, { own, known }) {
  const piece = text.slice(start + 1, start + 1 + NAME_MAX).split(/[@\n]/, 1)[0];
  for (let end = piece.length; end > 0; end -= 1) {
    // A name ends where a word does, and neither in white space nor with what ends a sentence.
    if (WORD.test(text[start + 1 + end] ?? ' ') || /[\s,;:!?]/.test(piece[end - 1])) continue;
    const name = piece.slice(0, end);
    const folded = fold(name);
    if (folded === fold(own)) return { token: { kind: 'mention', text: `@${name}`, own: true }, length: end + 1 };
    if (known.has(folded)) return { token: { kind: 'mention', text: `@${name}`, own: false }, length: end + 1 };
  }
  return null;
}
