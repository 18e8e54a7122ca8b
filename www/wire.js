/**
 * What goes over the wire in `chat.v1`: frames, ids, close codes, limits. Pure.
 * A frame holds JSON objects, one per line; one field of each names the verb.
 */

/** The limits a node is assumed to have until its hello says otherwise, by the names that it gives them. */
export const DEFAULT_LIMITS = Object.freeze({ text_bytes: 4096, name_chars: 32, room_chars: 64, history: 200 });

/**
 * @param {unknown} told  what a node's hello says
 * @returns {Readonly<Record<keyof typeof DEFAULT_LIMITS, number>>} its own limits; the default of each that it does not tell
 */
export function limitsOf(told) {
  const own = /** @type {Record<string, unknown>} */ (told !== null && typeof told === 'object' ? told : {});
  const limits = { ...DEFAULT_LIMITS };
  for (const key of /** @type {(keyof typeof DEFAULT_LIMITS)[]} */ (Object.keys(limits))) {
    const limit = own[key];
    if (typeof limit === 'number' && Number.isSafeInteger(limit) && limit > 0) limits[key] = limit;
  }
  return limits;
}

const ID = /^([^.\s]{1,64})\.([1-9][0-9]{0,15})$/;
// Letters with the marks that write them, digits and three signs. The joiners only where they change what
// is seen: after a virama, and between letters of Arabic that would join. As nodes have it (PROTOCOL.md).
const BLANK = '\\u115F\\u1160\\u3164\\uFFA0\\u2800\\u034F\\u17B4\\u17B5\\u180B-\\u180F\\uFE00-\\uFE0F\\u{E0100}-\\u{E01EF}';
const VIRAMA = '\\u094D\\u09CD\\u0A4D\\u0ACD\\u0B4D\\u0BCD\\u0C4D\\u0CCD\\u0D3B\\u0D3C\\u0D4D\\u0DCA\\u0E3A\\u0EBA\\u0F84\\u1039\\u103A\\u1714\\u1715\\u1734\\u17D2\\u1A60\\u1B44\\u1BAA\\u1BAB\\u1BF2\\u1BF3\\uA806\\uA82C\\uA8C4\\uA953\\uA9C0\\uAAF6\\uABED';
const ENDS = '\\u0622-\\u0625\\u0627\\u0629\\u062F-\\u0632\\u0648\\u0671-\\u0673\\u0675-\\u0677\\u0688-\\u0699\\u06C0\\u06C3-\\u06CB\\u06CD\\u06CF\\u06D2\\u06D3\\u06D5\\u06EE\\u06EF';
const ARABIC = '\\u0620\\u0622-\\u063F\\u0641-\\u064A\\u066E\\u066F\\u0671-\\u0673\\u0675-\\u06D3\\u06D5\\u06EE\\u06EF\\u06FA-\\u06FC\\u06FF';
const LETTER = `(?![${BLANK}])[\\p{L}\\p{N}]`;
const MARK = `(?![${BLANK}])[\\p{Mn}\\p{Mc}]`;
const JOINED = `(?![${ENDS}])[${ARABIC}]\\p{Mn}*\\u200C(?=[${ARABIC}])`;
const AFTER_VIRAMA = `[${VIRAMA}](?:\\u200D|\\u200C(?=${LETTER}))`;
const ROOM = new RegExp(`^(?:[._-]|${JOINED}|${LETTER}(?:${AFTER_VIRAMA}|${MARK})*)+$`, 'u');
// The same letters that nodes refuse in names: control, bidi and zero-width characters. Joiners stay where they may.
const NOT_IN_NAMES = new RegExp(`(${JOINED}|${AFTER_VIRAMA})|[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]`, 'gu');
const PILE = /\p{Mn}{5}/u;
const encoder = new TextEncoder();

/**
 * Splits an entry's id, `<origin>.<seq>`.
 * @param {unknown} id
 * @returns {{origin: string, seq: number} | null} null for anything that is not an id
 */
export function parseId(id) {
  const parts = typeof id === 'string' ? ID.exec(id) : null;
  if (!parts) return null;
  const seq = Number(parts[2]);
  return Number.isSafeInteger(seq) ? { origin: parts[1], seq } : null;
}

/**
 * The objects in one received frame. A line that is no JSON object is left out: one bad line must not cost
 * the good ones next to it.
 * @param {unknown} data
 * @returns {Record<string, any>[]}
 */
export function decodeFrame(data) {
  if (typeof data !== 'string') return [];
  const objects = [];
  for (const line of data.split('\n')) {
    if (line.trim() === '') continue;
    try {
      const value = JSON.parse(line);
      if (value !== null && typeof value === 'object' && !Array.isArray(value)) objects.push(value);
    } catch {
      // Left out, as said above.
    }
  }
  return objects;
}

/**
 * @param {Record<string, any>} object
 * @returns {boolean} whether it is the ping, `{}`
 */
export function isPing(object) {
  return Object.keys(object).length === 0;
}

/**
 * Whether a client comes back after this close code, or stops and says why.
 * @param {number} code
 * @returns {boolean}
 */
export function comesBackAfter(code) {
  if (code >= 4000) return code < 4500;
  return code === 1001 || code === 1005 || code === 1006 || (code >= 1011 && code <= 1013);
}

/**
 * Why a connection ended, for people.
 * @param {number} code
 * @param {string} reason what the node said, if anything
 * @returns {string}
 */
export function closeText(code, reason) {
  if (reason) return reason;
  const known = {
    1000: 'the node ended the conversation', 1001: 'the node is going away', 1002: 'the node did not understand us',
    1003: 'the node did not understand us', 1006: 'the connection was lost', 1007: 'the node could not read our text',
    1008: 'the node refused us', 1009: 'we sent too much at once', 1011: 'the node had a fault',
    1012: 'the node is restarting', 1013: 'the node is overloaded', 4000: 'we were too slow to keep up',
    4001: 'the node did not hear our greeting', 4002: 'the node did not hear from us', 4004: 'we sent too much',
  };
  return known[/** @type {1000} */ (code)] ?? `closed with code ${code}`;
}

/**
 * The WebSocket address of a node, from its http address.
 * @param {string} http
 * @param {boolean} secure whether the page came by https: a browser then refuses plain `ws:`
 * @returns {string | null} null if this page cannot reach it
 */
export function socketUrl(http, secure) {
  let url;
  try {
    url = new URL(http);
  } catch {
    return null;
  }
  if (url.protocol === 'https:') url.protocol = 'wss:';
  else if (url.protocol === 'http:' && !secure) url.protocol = 'ws:';
  else return null;
  url.pathname = '/ws';
  url.search = '';
  url.hash = '';
  url.username = '';
  url.password = '';
  return url.href;
}

/**
 * @param {string} text
 * @returns {number} its length in bytes of UTF-8, which is what limits count
 */
export function byteLength(text) {
  return encoder.encode(text).length;
}

/**
 * A room's name as a person may type it: a leading `#` is decoration, spaces become hyphens.
 * @param {string} typed
 * @returns {string | null} null if no room can be called that
 */
export function cleanRoom(typed) {
  const name = typed.trim().replace(/^#+/, '').trim().replace(/\s+/g, '-').normalize('NFC');
  const fits = Array.from(name).length <= DEFAULT_LIMITS.room_chars && name !== '.' && name !== '..';
  return fits && ROOM.test(name) && !PILE.test(name) ? name : null;
}

/**
 * @param {string} typed
 * @returns {string | null} the name without what nodes refuse, or null if nothing is left
 */
export function cleanName(typed) {
  const name = typed.normalize('NFC').replace(NOT_IN_NAMES, (_, joined = '') => joined).replace(/\s+/g, ' ').trim().normalize('NFC');
  const short = Array.from(name).slice(0, DEFAULT_LIMITS.name_chars).join('').trim();
  return short === '' ? null : short;
}
