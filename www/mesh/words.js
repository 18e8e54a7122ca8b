/** How states and numbers are said, in the picture, the tables and the details alike. Pure. */

/** @typedef {import('./model.js').MeshNode} MeshNode */
/** @typedef {import('./model.js').Link} Link */
/** @typedef {import('./model.js').Picture} Picture */

const STATUS = {
  up: 'alive', joining: 'joining', heard: 'heard by others', silent: 'silent', dead: 'dead', awaited: 'awaited',
};

const LINK = { up: 'hears', silent: 'silent', dialing: 'dialing', none: 'no link', unknown: 'unknown' };

/** @param {MeshNode} node */
export function statusText(node) {
  const lacks = node.status === 'up' ? (node.answer?.lacking ?? 0) : 0;
  return lacks > 0 ? `alive, lacks ${whole(lacks)} messages` : STATUS[node.status];
}

/** @param {Link} link */
export function linkText(link) {
  return LINK[link.state];
}

/**
 * @param {number | null} ms
 * @returns {string}
 */
export function duration(ms) {
  if (ms === null) return '–';
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/**
 * @param {number | null} rate
 * @returns {string} a second
 */
export function perSecond(rate) {
  if (rate === null) return '–';
  return rate > 0 && rate < 10 ? rate.toFixed(1) : whole(Math.round(rate));
}

/**
 * @param {number} count
 * @returns {string} with thin spaces between thousands
 */
export function whole(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, '\u202F');
}

/**
 * @param {number} bytes
 * @returns {string}
 */
export function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const amount = bytes / 2 ** (10 * power);
  return `${power === 0 || amount >= 10 ? Math.round(amount) : amount.toFixed(1)} ${units[power]}`;
}

/**
 * @param {number | null} rate entries a second over a link
 * @returns {0 | 1 | 2 | 3} how busy it looks
 */
export function busy(rate) {
  if (rate === null || rate <= 0) return 0;
  if (rate < 5) return 1;
  return rate < 50 ? 2 : 3;
}

/**
 * The mesh in one sentence.
 * @param {Picture} picture
 * @returns {string}
 */
export function summary(picture) {
  if (picture.blind) return picture.nodes.length === 0 ? 'Asking the node…' : 'No node answers; this is what was seen last';
  const alive = picture.nodes.filter((node) => node.alive).length;
  const living = new Set(picture.nodes.filter((node) => node.alive).map((node) => node.origin));
  const links = picture.links.filter((link) => living.has(link.speaker) && living.has(link.hearer));
  const up = links.filter((link) => link.state === 'up').length;
  const nodes = `${alive} ${alive === 1 ? 'node' : 'nodes'}`;
  if (links.length === 0) return `${nodes} alive`;
  return up === links.length ? `${nodes}, every one hears every other` : `${nodes}, ${up} of ${links.length} directions up`;
}
