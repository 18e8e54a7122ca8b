/** Names for guests, initials and colours for avatars. Pure but for the random source it is given. */

const MOODS = ['quiet', 'brave', 'sunny', 'gentle', 'swift', 'clever', 'merry', 'calm', 'bright', 'kind', 'patient',
  'nimble', 'cosy', 'lucky', 'mellow', 'dapper', 'breezy', 'snowy', 'amber', 'silver', 'early', 'humble', 'jolly', 'wise'];
const ANIMALS = ['otter', 'heron', 'fox', 'badger', 'lynx', 'robin', 'hare', 'owl', 'seal', 'finch', 'beaver', 'wren',
  'marten', 'puffin', 'ibex', 'swan', 'newt', 'stoat', 'crane', 'gecko', 'koala', 'tapir', 'panda', 'plover'];

/** How many colours there are for names; style.css has a class `hue-0` … for each. */
export const HUES = 12;

/**
 * @param {() => number} random in [0, 1)
 * @returns {string} such as "quiet-otter-42"
 */
export function guestName(random) {
  const pick = (/** @type {string[]} */ list) => list[Math.floor(random() * list.length)];
  return `${pick(MOODS)}-${pick(ANIMALS)}-${10 + Math.floor(random() * 90)}`;
}

/**
 * @param {string} name
 * @returns {string} one or two letters
 */
export function initials(name) {
  const words = name.split(/[^\p{L}\p{N}]+/u).filter((word) => word !== '');
  const letters = words.filter((word) => /^\p{L}/u.test(word));
  const first = (letters.length > 0 ? letters : words).slice(0, 2).map((word) => Array.from(word)[0]);
  return first.join('').toUpperCase() || '?';
}

/**
 * @param {string} name
 * @returns {number} the same colour for the same name on every page, 0 to HUES - 1
 */
export function hue(name) {
  let hash = 2166136261;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 16777619) >>> 0;
  return hash % HUES;
}

/**
 * @returns {string} a new idempotency key: 22 characters, 132 bits of chance
 */
export function newMid() {
  const bytes = crypto.getRandomValues(new Uint8Array(22));
  return Array.from(bytes, (byte) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'[byte & 63]).join('');
}
