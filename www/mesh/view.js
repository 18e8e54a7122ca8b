/** Draws the picture: nodes on a ring and a line for each direction between them, in SVG. */
import { line, place } from './layout.js';
import { linkKey } from './model.js';
import { busy, linkText, statusText } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
/** Above this there are too many lines for dots to run along all of them: only the chosen node's do. */
const FLOW_NODES_MAX = 10;

/** @typedef {import('./model.js').Picture} Picture */
/** @typedef {import('./model.js').MeshNode} MeshNode */
/** @typedef {import('./model.js').Link} Link */

/**
 * @param {string} tag
 * @param {string} [className]
 * @returns {SVGElement}
 */
function svg(tag, className = '') {
  const node = document.createElementNS(SVG, tag);
  if (className) node.setAttribute('class', className);
  return node;
}

/**
 * Sets an attribute only if it differs.
 * @param {Element} node
 * @param {string} name
 * @param {string} value
 */
function set(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * @param {SVGElement} node
 * @param {string} text
 */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export class View {
  /**
   * @param {SVGSVGElement} root
   * @param {(origin: string | null) => void} choose
   */
  constructor(root, choose) {
    this.root = root;
    this.linkLayer = svg('g');
    this.linkLayer.setAttribute('aria-hidden', 'true');
    this.nodeLayer = svg('g');
    root.append(this.linkLayer, this.nodeLayer);
    /** @type {Map<string, SVGElement>} */
    this.links = new Map();
    /** @type {Map<string, SVGElement>} */
    this.nodes = new Map();
    const chosen = (/** @type {any} */ event) => event.target.closest('[data-origin]')?.getAttribute('data-origin') ?? null;
    root.addEventListener('click', (event) => choose(chosen(event)));
    root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') choose(null);
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      choose(chosen(event));
    });
  }

  /**
   * @param {Picture} picture
   * @param {string | null} chosen
   */
  render(picture, chosen) {
    const { width, height } = this.root.getBoundingClientRect();
    if (width === 0) return;
    set(this.root, 'viewBox', `0 0 ${Math.round(width)} ${Math.round(height)}`);
    const { radius, points } = place(picture.nodes.length, width, height);
    const at = new Map(picture.nodes.map((node, index) => [node.origin, points[index]]));
    const dots = picture.nodes.length <= FLOW_NODES_MAX;
    this.root.classList.toggle('has-choice', picture.links.some((link) => link.speaker === chosen || link.hearer === chosen));
    this.root.classList.toggle('blind', picture.blind);
    const names = new Map(picture.nodes.map((node) => [node.origin, node.name]));
    const keys = new Set(picture.links.map((link) => link.key));
    drop(this.links, keys);
    for (const link of picture.links) {
      const group = this.links.get(link.key) ?? this.#newLink(link.key);
      const run = line(/** @type {any} */ (at.get(link.speaker)), /** @type {any} */ (at.get(link.hearer)), radius);
      const of = link.speaker === chosen || link.hearer === chosen;
      drawLink(group, link, run, { of, dots: dots || of, thin: picture.nodes.length > 8, names });
    }
    drop(this.nodes, new Set(at.keys()));
    const byKey = new Map(picture.links.map((link) => [link.key, link]));
    for (const node of picture.nodes) {
      const group = this.nodes.get(node.origin) ?? this.#newNode(node.origin);
      drawNode(group, node, /** @type {any} */ (at.get(node.origin)), radius, node.origin === chosen);
      write(/** @type {SVGElement} */ (group.firstChild), spoken(node, picture, byKey));
    }
    // Focus goes around the ring in its order.
    const order = picture.nodes.map((node) => /** @type {SVGElement} */ (this.nodes.get(node.origin)));
    order.forEach((group, index) => {
      if (this.nodeLayer.children[index] !== group) this.nodeLayer.insertBefore(group, this.nodeLayer.children[index] ?? null);
    });
  }

  /**
   * @param {string} key
   * @returns {SVGElement}
   */
  #newLink(key) {
    const group = svg('g');
    group.dataset.key = key;
    group.append(svg('path', 'wire'), svg('path', 'flow'), svg('path', 'head'), svg('path', 'break'), svg('title'));
    this.linkLayer.append(group);
    this.links.set(key, group);
    return group;
  }

  /**
   * @param {string} origin
   * @returns {SVGElement}
   */
  #newNode(origin) {
    const group = svg('g');
    group.dataset.origin = origin;
    group.setAttribute('tabindex', '0');
    group.setAttribute('role', 'button');
    const inner = svg('g', 'inner');
    // What is heard is the title, in whole words.
    inner.setAttribute('aria-hidden', 'true');
    inner.append(svg('circle', 'halo'), svg('circle', 'body'), svg('path', 'cross'), svg('text', 'name'), svg('text', 'clients'));
    group.append(svg('title'), inner);
    this.nodeLayer.append(group);
    this.nodes.set(origin, group);
    return group;
  }
}

/**
 * @param {Map<string, SVGElement>} drawn
 * @param {Set<string>} keep
 */
function drop(drawn, keep) {
  for (const [key, group] of drawn) {
    if (keep.has(key)) continue;
    group.remove();
    drawn.delete(key);
  }
}

/**
 * @param {SVGElement} group
 * @param {Link} link
 * @param {ReturnType<typeof line>} run
 * @param {{of: boolean, dots: boolean, thin: boolean, names: Map<string, string>}} look
 */
function drawLink(group, link, run, { of, dots, thin, names }) {
  const [wire, flow, head, broken, title] = /** @type {SVGElement[]} */ ([...group.children]);
  const level = link.state === 'up' ? busy(link.rate) : 0;
  const words = ['link', `is-${link.state}`, `busy-${level}`];
  if (link.oneWay) words.push('one-way');
  if (of) words.push('chosen');
  if (thin) words.push('thin');
  set(group, 'class', words.join(' '));
  set(group, 'data-state', link.state);
  set(wire, 'd', run.path);
  set(flow, 'd', dots && level > 0 ? run.path : '');
  set(head, 'd', arrow(run.bend, run.end, thin ? 5 : 7));
  // The middle of the bow, half way to its handle.
  const middle = { x: (run.start.x + 2 * run.bend.x + run.end.x) / 4, y: (run.start.y + 2 * run.bend.y + run.end.y) / 4 };
  set(broken, 'd', link.state === 'up' || link.state === 'unknown' ? '' : cross(middle, thin ? 4 : 6));
  write(title, `${names.get(link.speaker)} → ${names.get(link.hearer)}: ${linkText(link)}${link.oneWay ? ', one way only' : ''}`);
}

/**
 * @param {SVGElement} group
 * @param {MeshNode} node
 * @param {{x: number, y: number}} point
 * @param {number} radius
 * @param {boolean} chosen
 */
function drawNode(group, node, point, radius, chosen) {
  const words = ['node', `is-${node.status}`];
  if (chosen) words.push('chosen');
  if (node.fading) words.push('fading');
  if (node.home) words.push('home');
  set(group, 'class', words.join(' '));
  set(group, 'data-status', node.status);
  set(group, 'aria-pressed', String(chosen));
  set(group, 'transform', `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})`);
  const [halo, body, crossed, name, clients] = /** @type {SVGElement[]} */ ([...group.children[1].children]);
  set(halo, 'r', (radius + 4).toFixed(1));
  set(body, 'r', radius.toFixed(1));
  const roomy = radius >= 24;
  const letters = Array.from(node.name);
  write(name, letters.length > 6 ? `${letters.slice(0, 5).join('')}…` : node.name);
  set(name, 'y', roomy && node.answer ? '-5' : '0');
  set(name, 'font-size', String(Math.round(Math.max(9, Math.min(radius * 0.44, (radius * 2.9) / Math.max(4, Math.min(6, letters.length)))))));
  write(clients, roomy && node.answer ? `${node.answer.clients} ☺` : '');
  set(clients, 'y', '12');
  const far = radius * 0.7;
  set(crossed, 'd', node.status === 'dead' ? `M${-far} ${-far}L${far} ${far}M${far} ${-far}L${-far} ${far}` : '');
}

/**
 * @param {{x: number, y: number}} from
 * @param {{x: number, y: number}} to
 * @param {number} size
 * @returns {string} a triangle whose point is at `to`
 */
function arrow(from, to, size) {
  const length = Math.max(1, Math.hypot(to.x - from.x, to.y - from.y));
  const [dx, dy] = [((to.x - from.x) / length) * size, ((to.y - from.y) / length) * size];
  const corner = (/** @type {number} */ side) => `${(to.x - dx - side * dy * 0.55).toFixed(1)} ${(to.y - dy + side * dx * 0.55).toFixed(1)}`;
  return `M${to.x.toFixed(1)} ${to.y.toFixed(1)}L${corner(1)} ${corner(-1)}Z`;
}

/**
 * @param {{x: number, y: number}} at
 * @param {number} size
 * @returns {string}
 */
function cross({ x, y }, size) {
  const point = (/** @type {number} */ dx, /** @type {number} */ dy) => `${(x + dx * size).toFixed(1)} ${(y + dy * size).toFixed(1)}`;
  return `M${point(-1, -1)}L${point(1, 1)}M${point(1, -1)}L${point(-1, 1)}`;
}

/**
 * @param {MeshNode} node
 * @param {Picture} picture
 * @param {Map<string, Link>} links
 * @returns {string} what a screen reader says of it
 */
function spoken(node, picture, links) {
  const others = picture.nodes.filter((other) => other !== node && other.alive);
  const hears = others.filter((other) => links.get(linkKey(other.origin, node.origin))?.state === 'up').length;
  const heard = others.filter((other) => links.get(linkKey(node.origin, other.origin))?.state === 'up').length;
  const words = [`Node ${node.name}`, statusText(node)];
  if (node.alive && others.length > 0) words.push(`hears ${hears} and is heard by ${heard} of ${others.length} others`);
  return words.join(', ');
}
