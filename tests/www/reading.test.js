/** What one reads and how one gets there: addresses, the span of a long room, hits of a search, claims of tabs. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readAddress, writeAddress } from '../../www/address.js';
import { Claims } from '../../www/claims.js';
import { words } from '../../www/folded.js';
import { hits } from '../../www/hits.js';
import { SPAN, STEP, around, held, moved, spanOf } from '../../www/span.js';

const A = 'aaaaaaaaaa';

test('an address names a room, and perhaps a message in it', () => {
  assert.deepEqual(readAddress('#tea', ''), { room: 'tea', id: null });
  assert.deepEqual(readAddress(`#tea/${A}.7`, ''), { room: 'tea', id: `${A}.7` });
  assert.deepEqual(readAddress(writeAddress('käse.1', `${A}.7`), ''), { room: 'käse.1', id: `${A}.7` });
  assert.deepEqual(readAddress('', '?room=tea'), { room: 'tea', id: null });
  for (const hash of ['#', '', '#%', '#a b/c', `#/${A}.7`, '#../x', '#<b>']) {
    const { room, id } = readAddress(hash, '');
    assert.ok(id === null && (room === null || /^[\p{L}\p{N}._-]+$/u.test(room)), hash);
  }
  assert.equal(readAddress('#tea/nonsense', '').id, null);
});

const list = (count, first = 1) => Array.from({ length: count }, (_, i) => (
  { kind: 'message', id: `${A}.${i + first}`, origin: A, ts: i + first, mid: '', from: 'bob', text: '', own: false, copies: 0, late: false }));

test('a short room is in the document as a whole, a long one by a span that ends at the newest', () => {
  assert.deepEqual(spanOf([], null), { start: 0, end: 0 });
  assert.deepEqual(spanOf(list(10), null), { start: 0, end: 10 });
  assert.deepEqual(spanOf(list(10_000), null), { start: 10_000 - SPAN, end: 10_000 });
});

test('the span moves by steps, and no further than the ends', () => {
  const items = list(2_000);
  let from = moved(items, null, -STEP);
  assert.equal(spanOf(items, from).start, 2_000 - SPAN - STEP);
  for (let i = 0; i < 20; i += 1) from = moved(items, from, -STEP);
  assert.deepEqual(spanOf(items, from), { start: 0, end: SPAN });
  for (let i = 0; i < 20; i += 1) from = moved(items, from, STEP);
  assert.deepEqual(spanOf(items, from), { start: 2_000 - SPAN, end: 2_000 });
});

test('a span that is held keeps its first message, whatever is added before or behind it', () => {
  const items = list(2_000, 1_001);
  const from = moved(items, held(items, null), -STEP);
  const firstOf = (of) => of[spanOf(of, from).start].id;
  const was = firstOf(items);
  assert.equal(firstOf([...list(500, 501), ...items]), was);
  assert.equal(firstOf([...items, ...list(500, 3_001)]), was);
  const without = items.filter((item) => item.id !== was);
  assert.equal(spanOf(without, from).start, spanOf(items, from).start, 'also when that one goes');
});

test('a message that is sought is in the midst of the span', () => {
  const items = list(2_000);
  for (const index of [0, 3, 1_000, 1_999]) {
    const { start, end } = spanOf(items, around(items, index));
    assert.ok(start <= index && index < end && end - start === SPAN, String(index));
  }
});

test('words that were found are marked: whole ones, in any case, accents aside', () => {
  const marked = (text, query) => hits(text, query).filter((piece) => piece.hit).map((piece) => piece.text);
  assert.deepEqual(marked('Release the releases, RELEASE!', 'release'), ['Release', 'RELEASE']);
  assert.deepEqual(marked('Der Käse kam', '"kase kam"'), ['Käse kam']);
  assert.deepEqual(marked('kam der Käse kam', '"kase kam"'), ['Käse kam'], 'only where the phrase is');
  assert.deepEqual(marked('今天讨论了部署方案', '部署 讨论'), ['讨论', '部署']);
  assert.deepEqual(marked('Die STRASSE, die Stra\u00dfe', 'straße'), ['STRASSE', 'Stra\u00dfe']);
  assert.deepEqual(marked('e\u0301te\u0301 été', 'ete'), ['e\u0301te\u0301', 'été']);
  assert.deepEqual(marked('a.b (c)', '( .*'), []);
  for (const [text, query] of [['', 'x'], ['x', ''], ['a b c', 'b']]) assert.equal(hits(text, query).map((piece) => piece.text).join(''), text);
});

test('the words of a text are those that a node finds', () => {
  const table = JSON.parse(readFileSync(new URL('../tables/words.json', import.meta.url), 'utf8'));
  for (const [text, joined, why] of table.words) assert.equal(words(text).map((word) => word.word).join(' '), joined, why);
  for (const [query, text, found, why] of table.finds) {
    if (found) assert.ok(hits(text, query).some((piece) => piece.hit), why);
    else if (query.split(' ').length === 1) assert.ok(!hits(text, query).some((piece) => piece.hit), why);
    assert.equal(hits(text, query).map((piece) => piece.text).join(''), text, why);
  }
});

test('of a long text the part around the first hit is shown', () => {
  const text = `${'filler '.repeat(300)}needle ${'filler '.repeat(300)}`;
  const pieces = hits(text, 'needle');
  assert.ok(pieces.some((piece) => piece.hit && piece.text === 'needle'));
  const length = pieces.map((piece) => piece.text).join('').length;
  assert.ok(length < 300, String(length));
  assert.ok(hits(`${'😀'.repeat(200)} needle`, 'needle').every((piece) => piece.text.isWellFormed?.() ?? true));
});

/** Locks as a browser has them, for several tabs. */
class Locks {
  queues = new Map();

  request(name, { signal }, hold) {
    return new Promise((resolve, reject) => {
      const queue = this.queues.get(name) ?? [];
      this.queues.set(name, queue);
      const entry = { run: () => hold().then(() => { this.#leave(queue, entry); resolve(); }) };
      signal.addEventListener('abort', () => {
        if (queue[0] === entry) return;
        this.#leave(queue, entry);
        reject(new Error('aborted'));
      });
      queue.push(entry);
      if (queue.length === 1) entry.run();
    });
  }

  #leave(queue, entry) {
    const first = queue[0] === entry;
    queue.splice(queue.indexOf(entry), 1);
    if (first) queue[0]?.run();
  }
}

test('of two tabs with one message one may send it, and the other when the first is gone', async () => {
  const locks = new Locks();
  let told = 0;
  const one = new Claims(locks, () => { told += 1; });
  const two = new Claims(locks, () => { told += 1; });
  one.keep(['m1']);
  two.keep(['m1', 'm2']);
  assert.deepEqual([one.has('m1'), two.has('m1'), two.has('m2'), told], [true, false, true, 2]);
  one.keep([]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([two.has('m1'), told], [true, 3]);
});

test('a tab that need not send any more lets others have the lock, also if it never got it', async () => {
  const locks = new Locks();
  const [one, two, three] = [1, 2, 3].map(() => new Claims(locks, () => {}));
  for (const tab of [one, two, three]) tab.keep(['m']);
  two.keep([]);
  one.keep([]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([one.has('m'), two.has('m'), three.has('m')], [false, false, true]);
});

test('without locks, or with ones that fail, every tab sends', async () => {
  assert.equal(new Claims(undefined, () => {}).has('m'), true);
  const failing = new Claims({ request: () => Promise.reject(new Error('not here')) }, () => {});
  failing.keep(['m']);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(failing.has('m'), true);
});
