/** Where nodes stand in the picture, and how the lines between them run. Pure. */

const RADIUS_MAX = 44;
/** Larger only where the box is huge. */
const RADIUS_USUAL = 34;
const RADIUS_MIN = 13;
/** Room around the nodes, for their rings and marks. */
const MARGIN = 12;

/** @typedef {{x: number, y: number}} Point */

/**
 * Places nodes on an ellipse that fills the box, evenly along its rim; one alone in the middle, two side by side.
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @returns {{radius: number, points: Point[]}} the radius of a node, and where each stands
 */
export function place(count, width, height) {
  const middle = { x: width / 2, y: height / 2 };
  const short = Math.min(width, height);
  const widest = Math.min(RADIUS_MAX, Math.max(short / 20, Math.min(RADIUS_USUAL, short / 10)));
  if (count <= 1) return { radius: Math.max(RADIUS_MIN, widest), points: count === 1 ? [middle] : [] };
  const rim = (/** @type {number} */ radius) => {
    const b = Math.max(1, height / 2 - radius - MARGIN);
    // Much wider than high, a ring looks crushed.
    return { a: Math.max(1, Math.min(width / 2 - radius - MARGIN, b * 1.7)), b };
  };
  let radius = widest;
  let points = around(count, rim(radius), middle);
  // Neighbours keep a gap of most of a node between them.
  while (radius > RADIUS_MIN && closest(points) < radius * 2.7) {
    radius = Math.max(RADIUS_MIN, radius - 1);
    points = around(count, rim(radius), middle);
  }
  return { radius, points };
}

/**
 * Points at equal distances along the rim of an ellipse, the first at the top, or at the left of two.
 * @param {number} count
 * @param {{a: number, b: number}} rim
 * @param {Point} middle
 * @returns {Point[]}
 */
function around(count, { a, b }, middle) {
  const STEPS = 720;
  const at = (/** @type {number} */ step) => {
    const angle = (step / STEPS) * 2 * Math.PI + (count === 2 ? Math.PI : -Math.PI / 2);
    return { x: middle.x + a * Math.cos(angle), y: middle.y + b * Math.sin(angle) };
  };
  const lengths = [0];
  for (let step = 1; step <= STEPS; step += 1) lengths.push(lengths[step - 1] + distance(at(step - 1), at(step)));
  const whole = lengths[STEPS];
  const points = [];
  for (let place = 0, step = 0; place < count; place += 1) {
    while (lengths[step] < (whole * place) / count) step += 1;
    points.push(at(step));
  }
  return points;
}

/**
 * @param {Point[]} points at least two, in their order around
 * @returns {number}
 */
function closest(points) {
  return Math.min(...points.map((point, place) => distance(point, points[(place + 1) % points.length])));
}

/**
 * @param {Point} one
 * @param {Point} other
 * @returns {number}
 */
export function distance(one, other) {
  return Math.hypot(one.x - other.x, one.y - other.y);
}

/**
 * The line from one node to another, bent to its right: the way back bends to the other side, so that each
 * direction is seen. It begins and ends at the rims.
 * @param {Point} from
 * @param {Point} to
 * @param {number} radius of both
 * @returns {{start: Point, bend: Point, end: Point, path: string}}
 */
export function line(from, to, radius) {
  const length = Math.max(1, distance(from, to));
  const along = { x: (to.x - from.x) / length, y: (to.y - from.y) / length };
  const side = { x: -along.y, y: along.x };
  const off = Math.min(radius * 0.42, 12);
  const bow = Math.min(length * 0.07, 18);
  const gap = Math.min(radius + 5, length / 3);
  const at = (/** @type {Point} */ point, /** @type {number} */ forth, /** @type {number} */ aside) => ({
    x: point.x + along.x * forth + side.x * aside, y: point.y + along.y * forth + side.y * aside,
  });
  const start = at(from, gap, off);
  const end = at(to, -gap, off);
  const bend = at(from, length / 2, off + bow);
  const text = (/** @type {Point} */ { x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  return { start, bend, end, path: `M${text(start)}Q${text(bend)} ${text(end)}` };
}
