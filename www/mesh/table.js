/** The same as the picture in words: a table of the nodes, who hears whom, the details of one node, the events. */
import { element, setText } from '../dom.js';
import { linkKey } from './model.js';
import { duration, linkText, perSecond, size, statusText, whole } from './words.js';

/** @typedef {import('./model.js').Picture} Picture */
/** @typedef {import('./model.js').MeshNode} MeshNode */
/** @typedef {import('./model.js').Link} Link */

const NONE = '–';

/** @type {[string, (node: MeshNode, about: {heard: Link[]}) => string][]} what is said of a node */
const COLUMNS = [
  ['State', (node) => statusText(node)],
  ['Hears', (node, { heard }) => (node.alive && heard.length > 0 ? `${heard.filter((link) => link.state === 'up').length} of ${heard.length}` : NONE)],
  ['Beat', (_, { heard }) => duration(most(heard.map((link) => link.beatAge)))],
  ['Lag', (_, { heard }) => duration(most(heard.map((link) => link.lag)))],
  ['Said / s', (node) => perSecond(node.said)],
  ['Delivered / s', (node) => perSecond(node.deliveries)],
  ['Gaps', (node) => tell(node, (answer) => whole(answer.counts.gaps))],
  ['Repaired', (node) => tell(node, (answer) => whole(answer.counts.repaired))],
  ['Lost', (node) => tell(node, (answer) => whole(answer.counts.lost))],
  ['Clients', (node) => tell(node, (answer) => whole(answer.clients))],
  ['Rooms', (node) => tell(node, (answer) => whole(answer.rooms))],
  ['Storage', (node) => tell(node, ({ storage }) => `${storage.state}, ${whole(storage.messages)} (${size(storage.bytes)})`)],
  ['Registries and sources', (node) => tell(node, ({ registries }) => (registries.length === 0 ? 'none' : `${registries.filter((it) => it.state === 'up').length} of ${registries.length} up`))],
  ['Brokers', (node) => tell(node, ({ buses }) => (buses.length === 0 ? 'none' : `${buses.filter((it) => it.state === 'up').length} of ${buses.length} up`))],
  ['Keeper', (node) => tell(node, ({ keeper }) => keeper || 'none')],
  ['Running', (node) => tell(node, (answer) => duration(answer.uptime))],
  ['Version', (node) => tell(node, (answer) => answer.version)],
];

/**
 * @param {MeshNode} node
 * @param {(answer: import('./answer.js').Answer) => string} what
 * @returns {string}
 */
function tell(node, what) {
  return (node.answer && what(node.answer)) || NONE;
}

/**
 * @param {(number | null)[]} values
 * @returns {number | null} the greatest that is known
 */
function most(values) {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : Math.max(...known);
}

/**
 * Makes the children of `parent` so many elements of this kind, and gives them.
 * @param {Element} parent
 * @param {string} tag
 * @param {number} count
 * @returns {HTMLElement[]}
 */
function children(parent, tag, count) {
  while (parent.children.length < count) parent.append(element(tag));
  while (parent.children.length > count) parent.lastElementChild?.remove();
  return /** @type {HTMLElement[]} */ ([...parent.children]);
}

/**
 * @param {HTMLElement} cell
 * @param {string} name of a node: of any script, so it stands apart
 */
function writeName(cell, name) {
  const [bdi] = children(cell, 'bdi', 1);
  setText(bdi, name);
}

/**
 * @param {HTMLTableElement} table
 * @param {readonly MeshNode[]} heads the nodes of the rows
 * @param {readonly (string | MeshNode)[]} columns
 * @returns {HTMLElement[][]} the cells without heads
 */
function grid(table, heads, columns) {
  const [head, body] = [table.tHead, table.tBodies[0]];
  const [row] = children(/** @type {Element} */ (head), 'tr', 1);
  children(row, 'th', columns.length + 1).forEach((cell, index) => {
    cell.setAttribute('scope', 'col');
    const title = index === 0 ? table.dataset.corner ?? '' : columns[index - 1];
    if (typeof title === 'string') setText(cell, title);
    else writeName(cell, title.name);
  });
  return children(body, 'tr', heads.length).map((line, place) => {
    if (!line.firstElementChild) {
      const first = element('th');
      first.setAttribute('scope', 'row');
      line.append(first);
    }
    writeName(/** @type {HTMLElement} */ (line.firstElementChild), heads[place].name);
    line.dataset.origin = heads[place].origin;
    line.dataset.status = heads[place].status;
    while (line.children.length < columns.length + 1) line.append(element('td'));
    while (line.children.length > columns.length + 1) line.lastElementChild?.remove();
    return /** @type {HTMLElement[]} */ ([...line.children].slice(1));
  });
}

/**
 * @param {HTMLTableElement} table
 * @param {Picture} picture
 */
export function drawNodes(table, picture) {
  const living = new Set(picture.nodes.filter((node) => node.alive).map((node) => node.origin));
  grid(table, picture.nodes, COLUMNS.map(([title]) => title)).forEach((cells, place) => {
    const node = picture.nodes[place];
    const heard = picture.links.filter((link) => link.hearer === node.origin && living.has(link.speaker));
    COLUMNS.forEach(([, text], column) => setText(cells[column], text(node, { heard })));
  });
}

/**
 * @param {HTMLTableElement} table
 * @param {Picture} picture
 */
export function drawMatrix(table, picture) {
  const links = new Map(picture.links.map((link) => [link.key, link]));
  const nodes = picture.nodes.filter((node) => node.status !== 'dead');
  grid(table, nodes, nodes).forEach((cells, row) => {
    nodes.forEach((speaker, column) => {
      const cell = cells[column];
      const link = links.get(linkKey(speaker.origin, nodes[row].origin));
      setText(cell, link ? cellText(link) : NONE);
      cell.dataset.state = link?.state ?? 'self';
      cell.classList.toggle('one-way', link?.oneWay === true);
    });
  });
}

/**
 * @param {Link} link
 * @returns {string}
 */
function cellText(link) {
  if (link.state === 'up') return link.beatAge === null ? '✓' : `✓ ${duration(link.beatAge)}`;
  return `✗ ${linkText(link)}${link.oneWay ? ', one way' : ''}`;
}

/**
 * @param {HTMLElement} panel
 * @param {Picture} picture
 * @param {string | null} chosen
 */
export function drawDetails(panel, picture, chosen) {
  const node = picture.nodes.find((it) => it.origin === chosen);
  panel.hidden = node === undefined;
  if (!node) return;
  const [title, facts, list] = /** @type {HTMLElement[]} */ ([...panel.querySelectorAll('[data-part]')]);
  writeName(title, node.name);
  const heard = picture.links.filter((link) => link.hearer === node.origin);
  const told = COLUMNS.map(([name, text]) => [name, text(node, { heard })]);
  const rows = [['Origin', node.origin], ['Address', node.url], ...told].filter(([, value]) => value !== '' && value !== NONE);
  const lines = children(facts, 'div', rows.length);
  rows.forEach(([name, value], place) => {
    children(lines[place], 'dt', 1);
    if (lines[place].children.length < 2) lines[place].append(element('dd'));
    setText(/** @type {HTMLElement} */ (lines[place].children[0]), name);
    setText(/** @type {HTMLElement} */ (lines[place].children[1]), value);
  });
  drawLinks(list, picture, node, heard);
}

/**
 * @param {HTMLElement} list
 * @param {Picture} picture
 * @param {MeshNode} node
 * @param {Link[]} heard
 */
function drawLinks(list, picture, node, heard) {
  const names = new Map(picture.nodes.map((it) => [it.origin, it.name]));
  const others = picture.links.filter((link) => link.speaker === node.origin);
  const rows = [...heard, ...others];
  children(list, 'li', rows.length).forEach((item, place) => {
    const link = rows[place];
    const mine = link.hearer === node.origin;
    const other = names.get(mine ? link.speaker : link.hearer) ?? '';
    const [verb, bdi, rest] = children(item, 'bdi', 3);
    item.dataset.state = link.state;
    setText(verb, mine ? 'from ' : 'to ');
    setText(bdi, other);
    const numbers = link.told ? `, beat ${duration(link.beatAge)}, ${perSecond(link.rate)} / s` : ', as far as others tell';
    const state = link.state === 'up' ? `up${numbers}` : linkText(link);
    setText(rest, `: ${state}${link.oneWay ? ', one way only' : ''}${link.repaired > 0 ? `, ${whole(link.repaired)} repaired` : ''}${link.lost > 0 ? `, ${whole(link.lost)} lost` : ''}${link.error ? ` (${link.error})` : ''}`);
  });
}

/**
 * @param {HTMLElement} list
 * @param {Picture} picture
 */
export function drawRegistries(list, picture) {
  const items = children(list, 'li', picture.registries.length);
  picture.registries.forEach((registry, place) => {
    const state = registry.down.length === 0 ? 'up' : registry.up.length === 0 ? 'down' : 'partly';
    items[place].dataset.state = state;
    const words = state === 'partly' ? `down for ${registry.down.length} of ${registry.down.length + registry.up.length}` : state;
    const [url, word] = children(items[place], 'bdi', 2);
    setText(url, registry.url);
    setText(word, ` ${words}`);
  });
}

/**
 * Whom which node does not hear, and why.
 * @param {HTMLElement} list
 * @param {Picture} picture
 */
export function drawLacking(list, picture) {
  const items = children(list, 'li', picture.lacking.length);
  picture.lacking.forEach((row, place) => {
    const [node, words, peer, why] = children(items[place], 'bdi', 4);
    setText(node, row.node);
    setText(words, ' and ');
    setText(peer, row.peer === '' ? row.at : `${row.peer} at ${row.at}`);
    setText(why, `: ${row.error}`);
  });
}

/**
 * Puts new events on top; events do not change.
 * @param {HTMLElement} list
 * @param {import('./timeline.js').Timeline} timeline
 */
export function drawEvents(list, timeline) {
  const newest = Number(/** @type {HTMLElement | null} */ (list.firstElementChild)?.dataset.id ?? 0);
  for (const event of timeline.events.filter((it) => it.id > newest)) {
    const item = element('li');
    item.dataset.id = String(event.id);
    item.dataset.kind = event.kind;
    const time = /** @type {HTMLTimeElement} */ (element('time', '', new Date(event.at).toLocaleTimeString('en-GB')));
    time.dateTime = new Date(event.at).toISOString();
    const words = element('span');
    for (const part of event.parts) words.append(typeof part === 'string' ? part : element('bdi', '', part.name));
    item.append(time, words);
    list.prepend(item);
  }
  while (list.children.length > timeline.events.length) list.lastElementChild?.remove();
}
