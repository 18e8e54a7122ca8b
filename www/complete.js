/** What a word that is being typed may become: `@na` a member's name, `:na` an emoji. Pure. */
import { EMOJI } from './emoji.js';
import { fold } from './words.js';

/** As many as can be looked over at a glance. */
export const OPTIONS_MAX = 8;
// The piece before the caret is short, so these take no time worth counting.
const LOOK_BACK = 40;
const NAME = /(?:^|[\s([{"'])@([^\s@]{0,32})$/u;
const EMOJI_NAME = /(?:^|[\s([{"'])(:[a-z0-9_+-]{2,32})$/iu;

/**
 * @typedef {object} Option
 * @property {string} insert  what is put in the place of the typed word, a space behind it included
 * @property {string} label
 * @property {string} sign    shown before the label: an emoji, or ''
 */

/**
 * @typedef {object} Completion
 * @property {'name' | 'emoji'} kind
 * @property {number} from    where the typed word begins
 * @property {number} to      the caret
 * @property {Option[]} options  best first, never empty
 */

/**
 * @param {string} text
 * @param {number} caret
 * @param {readonly string[]} members
 * @returns {Completion | null} null if nothing fits
 */
export function completion(text, caret, members) {
  const before = text.slice(Math.max(0, caret - LOOK_BACK), caret);
  const name = NAME.exec(before)?.[1];
  if (name !== undefined) {
    const options = best(members, name).map((member) => ({ insert: `@${member} `, label: member, sign: '' }));
    return options.length === 0 ? null : { kind: 'name', from: caret - name.length - 1, to: caret, options };
  }
  const code = EMOJI_NAME.exec(before)?.[1];
  if (code === undefined) return null;
  const options = best([...EMOJI.keys()], code.slice(1))
    .map((key) => ({ insert: `${EMOJI.get(key)} `, label: `:${key}:`, sign: EMOJI.get(key) ?? '' }));
  return options.length === 0 ? null : { kind: 'emoji', from: caret - code.length, to: caret, options };
}

/**
 * @param {readonly string[]} names
 * @param {string} typed
 * @returns {string[]} those that begin with it, then those that hold it
 */
function best(names, typed) {
  const wanted = fold(typed);
  const begin = names.filter((name) => fold(name).startsWith(wanted));
  const hold = begin.length >= OPTIONS_MAX ? [] : names.filter((name) => fold(name).includes(wanted) && !begin.includes(name));
  return [...begin, ...hold].slice(0, OPTIONS_MAX);
}
