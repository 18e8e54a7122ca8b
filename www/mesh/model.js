/**
 * What several nodes' answers, with the times at which they came, say together. Pure: `takeAnswer` and `takeFailure`
 * give a new world, `picture` says what it looks like at a time.
 */

/** An answer older than this says nothing of the present any more. */
export const FRESH_MS = 3_500;
/** The dead are shown for so long, */
export const DEAD_KEEP_MS = 45_000;
/** and fade for this, the last of it. */
export const FADE_MS = 2_000;
/** Rates are of the answers of so long a time. */
const RATE_MS = 5_000;

/** @typedef {import('./answer.js').Answer} Answer */
/** @typedef {import('./answer.js').Row} Row */

/**
 * @typedef {object} Seen what is remembered of one start of a node
 * @property {string} origin
 * @property {string} name
 * @property {string} url where it answers, or is said to
 * @property {number} place among all on the circle; one that comes back takes that of its predecessor
 * @property {boolean} lived whether it was ever heard or answered
 * @property {number | null} diedAt
 * @property {{at: number, answer: Answer}[]} answers the last ones, oldest first
 */

/**
 * @typedef {object} World
 * @property {string} home where the page came from
 * @property {ReadonlyMap<string, string>} at which origin answered last, by address
 * @property {ReadonlySet<string>} failing addresses whose last answer did not come
 * @property {ReadonlyMap<string, Seen>} seen by origin
 */

/**
 * @typedef {'up' | 'joining' | 'heard' | 'silent' | 'dead' | 'awaited'} Status
 *   up: answers. joining: answers, and does not take clients yet. heard: does not answer this page, but others hear
 *   it. silent: neither, and not given up. dead: gone. awaited: dialled, and never there.
 */

/**
 * @typedef {object} MeshNode
 * @property {string} origin @property {string} name @property {string} url @property {number} place
 * @property {Status} status
 * @property {boolean} alive
 * @property {boolean} fading whether it is about to leave the picture
 * @property {boolean} home whether the page came from it
 * @property {number | null} diedAt
 * @property {Answer | null} answer its last one, if it is of the present
 * @property {number | null} said messages of its clients a second
 * @property {number | null} deliveries a second
 */

/**
 * @typedef {object} Link one direction: whether `hearer` hears `speaker`
 * @property {string} key @property {string} speaker @property {string} hearer
 * @property {'up' | 'silent' | 'dialing' | 'none' | 'unknown'} state
 *   none: the hearer names no such link. unknown: nobody can tell.
 * @property {boolean} told whether the hearer itself says it
 * @property {boolean} oneWay whether it is broken while the way back is not
 * @property {number | null} beatAge @property {number | null} lag milliseconds
 * @property {number | null} rate entries a second
 * @property {number} gaps @property {number} repaired @property {number} lost
 * @property {string} error
 */

/**
 * @typedef {object} Picture
 * @property {MeshNode[]} nodes in the order of their places
 * @property {Link[]} links both directions of each two that live
 * @property {{kind: 'registry' | 'source' | 'broker', url: string, up: string[], down: string[]}[]} registries registries, other sources and brokers, and which nodes say so
 * @property {{node: string, peer: string, at: string, error: string}[]} lacking whom which node does not hear, and why
 * @property {boolean} blind whether no node answers
 * @property {boolean} orphan whether the node that served the page is gone, and others answer
 */

/**
 * @param {string} home
 * @returns {World}
 */
export function newWorld(home) {
  return { home, at: new Map(), failing: new Set(), seen: new Map() };
}

/**
 * @param {World} world
 * @param {string} url who answered
 * @param {Answer} answer
 * @param {number} now
 * @returns {World}
 */
export function takeAnswer(world, url, answer, now) {
  const at = new Map(world.at).set(url, answer.origin);
  const failing = new Set(world.failing);
  failing.delete(url);
  const seen = new Map(world.seen);
  const old = seen.get(answer.origin);
  const answers = [...(old?.answers ?? []).filter((it) => now - it.at <= RATE_MS), { at: now, answer }];
  const self = old ?? newcomer(seen, answer.origin, answer.name, url);
  seen.set(answer.origin, { ...self, name: answer.name, url, lived: true, answers });
  for (const row of answer.links) {
    const origin = keyOf(row, answer.origin, seen);
    if (origin === null) continue;
    const other = seen.get(origin) ?? newcomer(seen, origin, row.name || shortName(origin), row.http ?? '');
    seen.set(origin, {
      ...other,
      name: row.name || other.name,
      url: other.url || (row.http ?? ''),
      lived: other.lived || row.state === 'up',
    });
  }
  return mark({ ...world, at, failing, seen }, now);
}

/**
 * @param {World} world
 * @param {string} url who did not answer
 * @param {number} now
 * @returns {World}
 */
export function takeFailure(world, url, now) {
  return mark({ ...world, failing: new Set(world.failing).add(url) }, now);
}

/**
 * @param {ReadonlyMap<string, Seen>} seen
 * @param {string} origin
 * @param {string} name
 * @param {string} url
 * @returns {Seen} on the place of one that is dead and had this address, or on the first that is free
 */
function newcomer(seen, origin, name, url) {
  const all = [...seen.values()];
  const before = all.find((it) => it.diedAt !== null && it.url === url && url !== '');
  const taken = new Set(all.filter((it) => it !== before).map((it) => it.place));
  let place = before?.place ?? 0;
  while (taken.has(place)) place += 1;
  return { origin, name, url, place, lived: false, diedAt: null, answers: [] };
}

/**
 * Who a row is about. A link to an address where nobody was found yet has no origin.
 * @param {Row} row
 * @param {string} speaker
 * @param {ReadonlyMap<string, Seen>} seen
 * @returns {string | null} null for what is of no interest: the node itself
 */
function keyOf(row, speaker, seen) {
  if (row.origin !== null) return row.origin === speaker ? null : row.origin;
  if (row.pub === '') return null;
  const known = [...seen.values()].find((it) => it.answers.at(-1)?.answer.pub === row.pub);
  if (known) return known.origin === speaker ? null : known.origin;
  return `?${row.pub}`;
}

/**
 * @param {string} origin
 * @returns {string} what people call it
 */
function shortName(origin) {
  return origin.startsWith('?') ? origin.slice(1).replace(/^tcp:\/\//, '') : origin.slice(0, 4);
}

/**
 * The rows of all answers that are of the present: who says what of whom.
 * @param {World} world
 * @param {number} now
 * @returns {Map<string, Map<string, Row>>} by hearer, then by speaker
 */
function present(world, now) {
  const rows = new Map();
  for (const it of world.seen.values()) {
    const answer = freshAnswer(world, it, now);
    if (!answer) continue;
    const of = new Map();
    for (const row of answer.links) {
      const origin = keyOf(row, it.origin, world.seen);
      // Of two links to one node the better one counts.
      if (origin !== null && of.get(origin)?.state !== 'up') of.set(origin, row);
    }
    rows.set(it.origin, of);
  }
  return rows;
}

/**
 * @param {World} world
 * @param {Seen} it
 * @param {number} now
 * @returns {Answer | null} its last answer, unless that is old, or the node was asked since and did not answer
 */
function freshAnswer(world, it, now) {
  const last = it.answers.at(-1);
  const current = last && now - last.at <= FRESH_MS && world.at.get(it.url) === it.origin && !world.failing.has(it.url);
  return current ? last.answer : null;
}

/**
 * @param {World} world
 * @param {Seen} it
 * @param {Map<string, Map<string, Row>>} rows
 * @param {number} now
 * @returns {Status}
 */
function statusOf(world, it, rows, now) {
  const answer = freshAnswer(world, it, now);
  if (answer) return answer.ready ? 'up' : 'joining';
  const told = [...rows.values()].map((of) => of.get(it.origin)).filter((row) => row !== undefined);
  if (told.some((row) => row.state === 'up')) return 'heard';
  if (!it.lived) return 'awaited';
  const another = it.url !== '' && (world.at.get(it.url) ?? it.origin) !== it.origin;
  if (another) return 'dead';
  if (it.diedAt !== null) return 'dead';
  // An answer that is only late, or a link that is not given up: it may be frozen, or cut off.
  const asked = world.failing.has(it.url) || it.answers.length === 0;
  if (rows.size === 0 || !asked || told.some((row) => row.state === 'silent')) return 'silent';
  return 'dead';
}

/**
 * Notes who died, who lives again, and forgets who is dead for long. While nobody answers the page knows nothing,
 * and nobody dies for it.
 * @param {World} world
 * @param {number} now
 * @returns {World}
 */
export function mark(world, now) {
  const rows = present(world, now);
  const seen = new Map();
  for (const it of world.seen.values()) {
    const status = statusOf(world, it, rows, now);
    const dead = status === 'dead';
    const diedAt = dead ? it.diedAt ?? now : null;
    const gone = dead && diedAt !== null && now - diedAt > DEAD_KEEP_MS;
    const named = [...rows.values()].some((of) => of.has(it.origin));
    if (gone || (status === 'awaited' && !named)) continue;
    seen.set(it.origin, diedAt === it.diedAt ? it : { ...it, diedAt });
  }
  return { ...world, seen };
}

/**
 * @param {World} world
 * @param {number} now
 * @returns {Picture}
 */
export function picture(world, now) {
  const rows = present(world, now);
  const all = [...world.seen.values()].sort((a, b) => a.place - b.place || (a.origin < b.origin ? -1 : 1));
  const homeOrigin = world.at.get(world.home);
  const nodes = all.map((it) => {
    const status = statusOf(world, it, rows, now);
    const answer = freshAnswer(world, it, now);
    return {
      origin: it.origin, name: it.name, url: it.url, place: it.place, status,
      alive: status === 'up' || status === 'joining' || status === 'heard',
      fading: it.diedAt !== null && now - it.diedAt > DEAD_KEEP_MS - FADE_MS,
      home: it.origin === homeOrigin,
      diedAt: it.diedAt,
      answer,
      said: answer && rate(it, (old) => old.counts.said),
      deliveries: answer && rate(it, (old) => old.counts.deliveries),
    };
  });
  const orphan = rows.size > 0 && world.failing.has(world.home);
  return { nodes, links: linksOf(world, nodes, rows), registries: registriesOf(nodes), lacking: lackingOf(nodes), blind: rows.size === 0, orphan };
}

/**
 * @param {World} world
 * @param {MeshNode[]} nodes
 * @param {Map<string, Map<string, Row>>} rows
 * @returns {Link[]}
 */
function linksOf(world, nodes, rows) {
  const links = [];
  const shown = nodes.filter((node) => node.status !== 'dead');
  for (const speaker of shown) {
    for (const hearer of shown) {
      // Where nobody was found yet nobody hears, and what does not answer tells nothing.
      const one = speaker === hearer || hearer.status === 'awaited' || (!speaker.answer && !hearer.answer);
      if (!one) links.push(linkOf(world, speaker, hearer, rows));
    }
  }
  const byKey = new Map(links.map((link) => [link.key, link]));
  for (const link of links) {
    const back = byKey.get(linkKey(link.hearer, link.speaker));
    link.oneWay = back?.state === 'up' && link.state !== 'up' && link.state !== 'unknown';
  }
  return links;
}

/**
 * @param {World} world
 * @param {MeshNode} speaker
 * @param {MeshNode} hearer
 * @param {Map<string, Map<string, Row>>} rows
 * @returns {Link}
 */
function linkOf(world, speaker, hearer, rows) {
  const row = rows.get(hearer.origin)?.get(speaker.origin);
  const back = rows.get(speaker.origin)?.get(hearer.origin);
  /** @type {Link['state']} */
  let state = 'unknown';
  if (row) state = row.state;
  else if (hearer.answer) state = 'none';
  // The speaker's word for it, from the hearer's last beat.
  else if (back?.state === 'up') state = back.hearsUs ? 'up' : 'silent';
  const it = world.seen.get(hearer.origin);
  const received = (/** @type {Answer} */ old) => old.links.find((link) => link.origin === speaker.origin)?.received ?? null;
  return {
    key: linkKey(speaker.origin, hearer.origin), speaker: speaker.origin, hearer: hearer.origin, state,
    told: hearer.answer !== null, oneWay: false,
    beatAge: row?.beatAge ?? null, lag: row?.lag ?? null,
    rate: row && it ? rate(it, received) : null,
    gaps: row?.gaps ?? 0, repaired: row?.repaired ?? 0, lost: row?.lost ?? 0, error: row?.error ?? '',
  };
}

/**
 * @param {string} speaker
 * @param {string} hearer
 * @returns {string}
 */
export function linkKey(speaker, hearer) {
  return `${speaker}>${hearer}`;
}

/**
 * @param {Seen} it
 * @param {(answer: Answer) => number | null} counter
 * @returns {number | null} its growth a second over the last answers; null while there is only one
 */
function rate(it, counter) {
  const known = it.answers.filter(({ answer }) => counter(answer) !== null);
  const first = known[0];
  const last = known.at(-1);
  if (!first || !last || last.at - first.at < 500) return null;
  const grown = /** @type {number} */ (counter(last.answer)) - /** @type {number} */ (counter(first.answer));
  return Math.max(0, grown) / ((last.at - first.at) / 1000);
}

/**
 * @param {MeshNode[]} nodes
 * @returns {Picture['lacking']}
 */
function lackingOf(nodes) {
  return nodes.flatMap((node) => (node.answer?.links ?? [])
    .filter((row) => row.reason !== '')
    .map((row) => ({ node: node.name, peer: row.name || row.origin || '', at: row.pub, error: row.error })));
}

/**
 * @param {MeshNode[]} nodes
 * @returns {Picture['registries']}
 */
function registriesOf(nodes) {
  /** @type {Map<string, Picture['registries'][number]>} */
  const found = new Map();
  for (const { origin, answer } of nodes) {
    if (!answer) continue;
    for (const kind of /** @type {const} */ (['registry', 'broker'])) {
      for (const { url, state } of kind === 'registry' ? answer.registries : answer.buses) {
        // Where else nodes are found stands beside registries: dns+…, consul://…, etcd://….
        const is = kind === 'registry' && !/^(http|tls):/.test(url) ? 'source' : kind;
        const one = found.get(url) ?? { kind: is, url, up: [], down: [] };
        if (state === 'up') one.up.push(origin);
        else if (state === 'down') one.down.push(origin);
        found.set(url, one);
      }
    }
  }
  return [...found.values()].sort((a, b) => (a.url < b.url ? -1 : 1));
}

/**
 * @param {World} world
 * @param {number} now
 * @returns {{urls: string[], aliases: Set<string>}} the addresses that live nodes tell of, and which of them are
 *   other names of nodes that answer already
 */
export function addresses(world, now) {
  const urls = new Set();
  const aliases = new Set();
  for (const it of world.seen.values()) {
    const answer = freshAnswer(world, it, now);
    if (!answer) continue;
    if (answer.http && answer.http !== it.url) aliases.add(answer.http);
    urls.add(it.url);
    for (const row of answer.links) if (row.http) urls.add(row.http);
  }
  aliases.delete(world.home);
  return { urls: [...urls], aliases };
}
