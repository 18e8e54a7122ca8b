/** The events of the mesh, found by comparing one picture with the one before, and what of them is read out. Pure. */

/** So many events are kept. */
export const EVENTS_MAX = 200;
/** A broken link is told after this: by then it is known whether the node behind it died. */
const SETTLE_MS = 1_500;
/** Clients who come to others so soon after a node's death are taken for its own. */
const MOVE_MS = 15_000;
/** Clients are counted from this long before a death is noticed: some move faster than the page looks. */
const LOOK_BACK_MS = 4_000;
/** The first picture waits so long for all who live to answer: whom the page gets to know only then did not join. */
const FIRST_MS = 2_500;
/** Something is read out so often at the most, and so many events of it in full. */
export const ANNOUNCE_MS = 4_000;
const ANNOUNCE_MAX = 3;

/** @typedef {import('./model.js').Picture} Picture */
/** @typedef {import('./model.js').MeshNode} MeshNode */
/** @typedef {import('./model.js').Link} Link */
/** @typedef {'good' | 'bad' | 'warn' | 'plain'} Kind */

/**
 * @typedef {object} Happening
 * @property {number} id rises with each
 * @property {number} at
 * @property {Kind} kind
 * @property {(string | {name: string})[]} parts its words; names of nodes stand apart, they may be of any script
 */

/**
 * @typedef {object} Timeline
 * @property {number | null} since when anybody answered first
 * @property {Picture | null} last the picture that was compared last, of those in which anybody answered
 * @property {Happening[]} events newest last
 * @property {number} ids
 * @property {ReadonlyMap<string, {at: number, was: boolean}>} settling links that changed, and whether they were told up
 * @property {{at: number, clients: Map<string, number>}[]} crowd who had how many clients, lately
 * @property {Move[]} moves
 */

/** @typedef {{until: number, left: number, before: Map<string, number>, gained: Map<string, number>}} Move */

/** @returns {Timeline} */
export function newTimeline() {
  return { since: null, last: null, events: [], ids: 0, settling: new Map(), crowd: [], moves: [] };
}

/**
 * @param {Timeline} timeline
 * @param {Picture} after the picture of now
 * @param {number} now
 * @returns {Timeline}
 */
export function compare(timeline, after, now) {
  const before = timeline.last;
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  // What nobody tells has not happened: while no node answers nothing is compared.
  if (after.blind) return timeline;
  if (!before) {
    const since = timeline.since ?? now;
    const known = after.nodes.every((node) => node.answer || !node.alive);
    if (!known && now - since < FIRST_MS) return { ...timeline, since };
    const alive = after.nodes.filter((node) => node.alive).length;
    found.push(['plain', [`watching ${several(alive, 'node')}`]]);
    return append({ ...timeline, last: after, crowd: crowdOf(timeline, after, now) }, found, now);
  }
  found.push(...lives(before, after), ...states(before, after), ...repairs(before, after), ...registries(before, after));
  const links = breaks(timeline.settling, before, after, now);
  found.push(...links.found);
  const moved = moves(timeline, before, after, now);
  found.push(...moved.found);
  const next = { ...timeline, last: after, settling: links.settling, moves: moved.moves, crowd: crowdOf(timeline, after, now) };
  return append(next, found, now);
}

/**
 * @param {Timeline} timeline
 * @param {[Kind, Happening['parts']][]} found
 * @param {number} at
 * @returns {Timeline}
 */
function append(timeline, found, at) {
  if (found.length === 0) return timeline;
  const nameOnly = (/** @type {string | {name: string}} */ part) => (typeof part === 'string' ? part : { name: part.name });
  const events = found.map(([kind, parts], place) => ({ id: timeline.ids + place + 1, at, kind, parts: parts.map(nameOnly) }));
  return { ...timeline, ids: timeline.ids + found.length, events: [...timeline.events, ...events].slice(-EVENTS_MAX) };
}

/**
 * @param {Picture} before
 * @param {Picture} after
 * @returns {[Kind, Happening['parts']][]} who came, died, fell silent and came back
 */
function lives(before, after) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const was = byOrigin(before);
  for (const node of after.nodes) {
    const old = was.get(node.origin);
    const oldStatus = old?.status ?? 'awaited';
    if (node.status === oldStatus) continue;
    if (node.alive && oldStatus === 'awaited') {
      const one = after.nodes.concat(before.nodes).find((it) => it.status === 'dead' && it.url === node.url && it.url !== '');
      found.push(['good', one ? ['node ', one, ' came back as ', node] : ['node ', node, ' joined']]);
    } else if (node.alive && (oldStatus === 'dead' || oldStatus === 'silent')) {
      found.push(['good', ['node ', node, ' is heard again']]);
    } else if (node.status === 'dead' && oldStatus !== 'awaited') {
      found.push(['bad', ['node ', node, ' died']]);
    } else if (node.status === 'silent' && old?.alive) {
      found.push(['warn', ['node ', node, ' is silent']]);
    }
  }
  if (after.orphan && !before.orphan) {
    const through = after.nodes.find((node) => node.answer);
    found.push(['warn', ['the node that served this page is gone; the page goes on through ', through ?? 'the others']]);
  }
  if (!after.orphan && before.orphan) found.push(['good', ['the address that served this page answers again']]);
  return found;
}

/**
 * @param {Picture} before
 * @param {Picture} after
 * @returns {[Kind, Happening['parts']][]} what became of disks, and who takes clients now
 */
function states(before, after) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const was = byOrigin(before);
  for (const node of after.nodes) {
    const old = was.get(node.origin);
    if (!node.answer || !old?.answer) continue;
    const { state } = node.answer.storage;
    if (state !== old.answer.storage.state) found.push([state === 'ok' ? 'good' : 'bad', ['storage of ', node, ` is ${state}`]]);
    if (node.status === 'up' && old.status === 'joining') found.push(['good', [node, ' takes clients']]);
  }
  return found;
}

/**
 * @param {Picture} before
 * @param {Picture} after
 * @returns {[Kind, Happening['parts']][]} what was repaired, and what nobody had
 */
function repairs(before, after) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const was = byOrigin(before);
  for (const node of after.nodes) {
    const old = was.get(node.origin);
    if (!node.answer || !old?.answer) continue;
    for (const [what, verb, kind] of /** @type {['repaired' | 'lost', string, Kind][]} */ ([['repaired', 'repaired', 'good'], ['lost', 'lost', 'bad']])) {
      const grown = node.answer.counts[what] - old.answer.counts[what];
      if (grown <= 0) continue;
      const of = node.answer.links.filter((row) => row[what] > (old.answer?.links.find((it) => it.origin === row.origin)?.[what] ?? 0));
      const names = of.flatMap((row, place) => [place > 0 ? ', ' : ' of ', { name: row.name || (row.origin ?? '?').slice(0, 4) }]);
      found.push([kind, [node, ` ${verb} ${several(grown, 'message')}`, ...names]]);
    }
  }
  return found;
}

/**
 * @param {Picture} before
 * @param {Picture} after
 * @returns {[Kind, Happening['parts']][]}
 */
function registries(before, after) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const word = (/** @type {number} */ up, /** @type {number} */ down) => {
    if (up + down === 0) return '';
    if (down === 0) return 'up';
    return up === 0 ? 'down' : 'down for some';
  };
  for (const registry of after.registries) {
    const old = before.registries.find((it) => it.url === registry.url);
    // A node that came or went changes who speaks, and not the registry.
    const both = [...registry.up, ...registry.down].filter((it) => old?.up.includes(it) || old?.down.includes(it));
    const count = (/** @type {string[] | undefined} */ list) => both.filter((it) => list?.includes(it)).length;
    const was = word(count(old?.up), count(old?.down));
    const is = word(count(registry.up), count(registry.down));
    if (was !== '' && is !== '' && was !== is) found.push([is === 'up' ? 'good' : 'warn', [`${registry.kind} `, { name: registry.url }, ` is ${is}`]]);
  }
  return found;
}

/**
 * @param {Timeline['settling']} settling
 * @param {Picture} before
 * @param {Picture} after
 * @param {number} now
 * @returns {{found: [Kind, Happening['parts']][], settling: Timeline['settling']}} links between the living that broke
 *   or came back, told when that has lasted
 */
function breaks(settling, before, after, now) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const next = new Map();
  const nodes = byOrigin(after);
  const was = new Map(before.links.map((link) => [link.key, link]));
  for (const link of after.links) {
    const speaker = nodes.get(link.speaker);
    const hearer = nodes.get(link.hearer);
    const old = was.get(link.key);
    if (!speaker?.alive || !hearer?.alive || !old || link.state === 'unknown') continue;
    const up = link.state === 'up';
    const since = settling.get(link.key) ?? (old.state !== 'unknown' && (old.state === 'up') !== up ? { at: now, was: !up } : null);
    if (!since || since.was === up) continue;
    if (now - since.at < SETTLE_MS) next.set(link.key, since);
    else if (up) found.push(['good', [hearer, ' hears ', speaker, ' again']]);
    else found.push(['bad', [hearer, ' no longer hears ', speaker, link.oneWay ? ', though it is heard there' : '']]);
  }
  return { found, settling: next };
}

/**
 * Clients of a node that died turn up at others.
 * @param {Timeline} timeline
 * @param {Picture} before
 * @param {Picture} after
 * @param {number} now
 * @returns {{found: [Kind, Happening['parts']][], moves: Move[]}}
 */
function moves(timeline, before, after, now) {
  /** @type {[Kind, Happening['parts']][]} */
  const found = [];
  const was = byOrigin(before);
  const current = clientsOf(after);
  const open = timeline.moves.filter((move) => now <= move.until && move.left > 0);
  const next = open.map((move) => {
    const gained = new Map(move.gained);
    let { left } = move;
    for (const node of after.nodes) {
      const had = move.before.get(node.origin) ?? 0;
      const more = Math.min(left, (current.get(node.origin) ?? 0) - had - (gained.get(node.origin) ?? 0));
      if (more <= 0 || node.status === 'dead') continue;
      gained.set(node.origin, (gained.get(node.origin) ?? 0) + more);
      left -= more;
      found.push(['plain', [`${several(more, 'client')} moved to `, node]]);
    }
    return { ...move, gained, left };
  });
  const counts = (/** @type {string} */ origin) => timeline.crowd.map(({ clients }) => clients.get(origin) ?? 0);
  for (const node of after.nodes) {
    const old = was.get(node.origin);
    const left = Math.max(0, ...counts(node.origin));
    // A node that came meanwhile began with none.
    const earlier = new Map(after.nodes.map(({ origin }) => [origin, Math.min(...counts(origin))]));
    if (node.status === 'dead' && old && old.status !== 'dead' && left > 0) {
      next.push({ until: now + MOVE_MS, left, before: earlier, gained: new Map() });
    }
  }
  return { found, moves: next };
}

/**
 * @param {Timeline} timeline
 * @param {Picture} picture
 * @param {number} now
 * @returns {Timeline['crowd']}
 */
function crowdOf(timeline, picture, now) {
  return [...timeline.crowd.filter((it) => now - it.at <= LOOK_BACK_MS), { at: now, clients: clientsOf(picture) }];
}

/**
 * @param {Picture} picture
 * @returns {Map<string, number>}
 */
function clientsOf(picture) {
  return new Map(picture.nodes.filter((node) => node.answer).map((node) => [node.origin, node.answer?.clients ?? 0]));
}

/**
 * @param {Picture} picture
 * @returns {Map<string, MeshNode>}
 */
function byOrigin(picture) {
  return new Map(picture.nodes.map((node) => [node.origin, node]));
}

/**
 * @param {number} count
 * @param {string} noun
 * @returns {string}
 */
export function several(count, noun) {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/**
 * @param {Happening} event
 * @returns {string}
 */
export function textOf(event) {
  return event.parts.map((part) => (typeof part === 'string' ? part : part.name)).join('');
}

/**
 * What to read out now. In a storm of events the first are told and the others counted.
 * @param {Timeline} timeline
 * @param {{id: number, at: number}} told the last event that was read out, and when
 * @param {number} now
 * @returns {{text: string, told: {id: number, at: number}} | null} null if it is not time, or there is nothing
 */
export function announcement(timeline, told, now) {
  const fresh = timeline.events.filter((event) => event.id > told.id);
  if (fresh.length === 0 || now - told.at < ANNOUNCE_MS) return null;
  const texts = fresh.slice(0, ANNOUNCE_MAX).map(textOf);
  const more = fresh.length - texts.length;
  if (more > 0) texts.push(`and ${several(more, 'more event')}`);
  return { text: texts.join('. '), told: { id: timeline.ids, at: now } };
}
