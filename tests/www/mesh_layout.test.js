/** Where nodes stand and how lines run: nothing overlaps, nothing leaves the box, both directions are seen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { distance, line, place } from '../../www/mesh/layout.js';

const BOXES = [[300, 300], [288, 264], [880, 560], [2400, 1300], [360, 640]];

test('one to twenty nodes fit into every box without touching', () => {
  for (const [width, height] of BOXES) {
    for (let count = 1; count <= 20; count += 1) {
      const { radius, points } = place(count, width, height);
      const what = `${count} in ${width} by ${height}`;
      assert.equal(points.length, count, what);
      assert.ok(radius >= 13 && radius <= (height > 1000 ? 44 : 34), what);
      for (const [index, { x, y }] of points.entries()) {
        assert.ok(x - radius >= 0 && x + radius <= width && y - radius >= 0 && y + radius <= height, `${what}: ${x}, ${y}`);
        for (const other of points.slice(index + 1)) assert.ok(distance({ x, y }, other) > radius * 2 + 4, `${what}: too near`);
      }
    }
  }
});

test('one stands in the middle, two side by side, the first of more at the top, and all evenly', () => {
  assert.deepEqual(place(1, 400, 300).points, [{ x: 200, y: 150 }]);
  assert.deepEqual(place(0, 400, 300).points, []);
  const [left, right] = place(2, 400, 300).points;
  assert.ok(left.x < right.x && Math.abs(left.y - right.y) < 1);
  const { points } = place(7, 900, 500);
  assert.equal(Math.min(...points.map((point) => point.y)), points[0].y);
  const steps = points.map((point, index) => distance(point, points[(index + 1) % 7]));
  assert.ok(Math.max(...steps) < Math.min(...steps) * 1.25, `${steps}`);
});

test('the lines of two directions lie on two sides, and end at the rims', () => {
  const [a, b, radius] = [{ x: 0, y: 0 }, { x: 300, y: 0 }, 30];
  const there = line(a, b, radius);
  const back = line(b, a, radius);
  assert.ok(there.bend.y > 10 && back.bend.y < -10);
  assert.ok(distance(there.start, a) >= radius && distance(there.end, b) >= radius);
  assert.ok(there.start.x < there.end.x && back.start.x > back.end.x);
  assert.match(there.path, /^M[-\d. ]+Q[-\d. ]+$/);
});

test('nodes on one spot make no line that is no number', () => {
  assert.doesNotMatch(line({ x: 5, y: 5 }, { x: 5, y: 5 }, 30).path, /NaN|Infinity/);
});
