/**
 * What one node says of itself and its links in `/api/mesh`, checked. A node may be of another version, or no node
 * at all: what has not the shape is left out. Pure.
 */

/** A node speaks of so many links, registries and spans at the most; what is beyond is not looked at. */
const ROWS_MAX = 256;
const LABEL_MAX = 40;
const SENTENCE_MAX = 300;
const LINK_STATES = ['up', 'silent', 'dialing'];
// Control, format and blank-looking characters have no place in a label.
const NOT_IN_LABELS = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cn}\p{Co}]/gu;

/**
 * @typedef {object} Counts totals since the start
 * @property {number} said messages of its clients
 * @property {number} deliveries messages written, times clients
 * @property {number} gaps @property {number} repaired @property {number} lost
 */

/**
 * @typedef {object} Row what a node says of one link: whom it hears, and how
 * @property {string | null} origin @property {string} name @property {string} pub
 * @property {string | null} http
 * @property {'up' | 'silent' | 'dialing'} state
 * @property {number | null} beatAge milliseconds @property {number | null} lag milliseconds
 * @property {boolean} hearsUs whether the other says that it hears this node
 * @property {number} received @property {number} gaps @property {number} repaired @property {number} lost
 * @property {string} reason why it is not heard or does not hear this node, in a word; empty when all is well
 * @property {string} error the same in a sentence
 */

/**
 * @typedef {object} Answer
 * @property {string} origin @property {string} name @property {string | null} http @property {string} pub
 * @property {boolean} ready
 * @property {number} lacking messages of before that it still fetches
 * @property {{url: string, state: string}[]} registries
 * @property {{url: string, state: string}[]} buses brokers by which it meets others; down until its own beats come back
 * @property {string} keeper how the broker is that keeps what is said besides; empty if there is none
 * @property {Row[]} links
 * @property {{state: string, messages: number, bytes: number}} storage
 * @property {number} clients @property {number} rooms
 * @property {string} version @property {number | null} uptime milliseconds
 * @property {Counts} counts
 */

/**
 * @param {unknown} value
 * @param {number} [max]
 * @returns {string} fit to be shown: one line, not long, nothing invisible
 */
export function label(value, max = LABEL_MAX) {
  if (typeof value !== 'string') return '';
  const clean = value.replace(NOT_IN_LABELS, '').replace(/\s+/g, ' ').trim();
  const letters = Array.from(clean);
  return letters.length > max ? `${letters.slice(0, max - 1).join('')}…` : clean;
}

/**
 * @param {unknown} value
 * @returns {string | null} the origin of a web address: nothing but scheme, host and port is taken from strangers
 */
export function webOrigin(value) {
  if (typeof value !== 'string' || value.length > 300) return null;
  try {
    const url = new URL(value);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.origin : null;
  } catch {
    return null;
  }
}

/**
 * @param {any} keeper
 * @returns {string}
 */
function readKeeper(keeper) {
  if (!isObject(keeper)) return '';
  if (keeper.state !== 'up') return 'away';
  return keeper.counts === true ? 'up' : 'up, not counted';
}

/**
 * @param {any} body
 * @returns {Answer | null} null for what is not a node's answer
 */
export function readAnswer(body) {
  if (!isObject(body) || typeof body.origin !== 'string' || !/^[a-z2-7]{10}$/.test(body.origin)) return null;
  const storage = isObject(body.storage) ? body.storage : {};
  return {
    origin: body.origin,
    name: label(body.name) || body.origin.slice(0, 4),
    http: webOrigin(body.http),
    pub: label(body.pub),
    ready: body.ready === true,
    lacking: missing(body.lacking),
    buses: list(body.buses).map((it) => ({ url: label(it.url), state: it.state === 'up' ? 'up' : 'down' })).filter((it) => it.url !== ''),
    registries: list(body.registries).map((it) => ({ url: label(it.url), state: label(it.state) })).filter((it) => it.url !== ''),
    keeper: readKeeper(body.keeper),
    links: list(body.links).map(readRow),
    storage: { state: label(storage.state), messages: count(storage.messages), bytes: count(storage.bytes) },
    clients: count(body.clients),
    rooms: count(body.rooms),
    version: label(body.version),
    uptime: time(body.uptime_ms),
    counts: readCounts(body.counts),
  };
}

/**
 * @param {any} row
 * @returns {Row}
 */
function readRow(row) {
  const known = typeof row.origin === 'string' && /^[a-z2-7]{10}$/.test(row.origin);
  return {
    origin: known ? row.origin : null,
    name: label(row.name),
    pub: label(row.pub),
    http: webOrigin(row.http),
    state: LINK_STATES.includes(row.state) ? row.state : 'dialing',
    beatAge: time(row.beat_age_ms),
    lag: time(row.lag_ms),
    hearsUs: row.hears_us === true,
    received: count(row.received),
    gaps: count(row.gaps),
    repaired: count(row.repaired),
    lost: count(row.lost),
    reason: label(row.reason),
    error: label(row.error, SENTENCE_MAX),
  };
}

/**
 * @param {any} counts
 * @returns {Counts}
 */
function readCounts(counts) {
  const of = isObject(counts) ? counts : {};
  return { said: count(of.said), deliveries: count(of.deliveries), gaps: count(of.gaps), repaired: count(of.repaired), lost: count(of.lost) };
}

/**
 * @param {unknown} value
 * @returns {any[]} its objects
 */
function list(value) {
  return Array.isArray(value) ? value.slice(0, ROWS_MAX).filter(isObject) : [];
}

/** @param {unknown} value */
function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/**
 * @param {unknown} value
 * @returns {number}
 */
function count(value) {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : 0;
}

/**
 * @param {unknown} value
 * @returns {number | null} milliseconds
 */
function time(value) {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : null;
}

/**
 * @param {unknown} spans `{after, through}` each
 * @returns {number} how many numbers they have
 */
function missing(spans) {
  if (!Array.isArray(spans)) return 0;
  const lengths = spans.slice(0, ROWS_MAX).map((span) => (isObject(span) ? Number(span.through) - Number(span.after) : 0));
  return lengths.reduce((sum, length) => (length > 0 && Number.isFinite(length) ? sum + length : sum), 0);
}
