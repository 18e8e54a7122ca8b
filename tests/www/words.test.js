/** The parser of messages: what it understands, and that no text can hurt it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OPTIONS_MAX, completion } from '../../www/complete.js';
import { EMOJI } from '../../www/emoji.js';
import { fold, isJumbo, isLong, mentions, parse } from '../../www/words.js';

const who = { own: 'ada', known: new Set(['bob', 'quiet-otter-42', 'mary ann'].map(fold)) };
/** Tokens in short: a string for text, [kind, …] for all else. */
const short = (tokens) => tokens.map((token) => (token.kind === 'text' ? token.text
  : 'inner' in token ? [token.kind, ...short(token.inner)] : [token.kind, token.text]));
const read = (text) => short(parse(text, who));

test('emphasis, code and blocks', () => {
  assert.deepEqual(read('a **b** c'), ['a ', ['bold', 'b'], ' c']);
  assert.deepEqual(read('*a* _b_'), [['italic', 'a'], ' ', ['italic', 'b']]);
  assert.deepEqual(read('**a *b* c**'), [['bold', 'a ', ['italic', 'b'], ' c']]);
  assert.deepEqual(read('`**a**`'), [['code', '**a**']]);
  assert.deepEqual(read('see\n```js\nlet a = *b*;\n```\nso'), ['see', ['block', 'let a = *b*;'], 'so']);
  assert.deepEqual(read('```one line```'), [['block', 'one line']]);
});

test('what only looks like a mark stays as it is', () => {
  for (const text of ['2*3*4', 'snake_case_name', '**', '* a *', '*a', 'a*', '`', '``', '` `', '```', '``````', '10:30:45',
    ':no_such_emoji:', '@nobody', 'a@bob', 'x `a\nb` y', '_ _', '<b>&lt;</b>', 'javascript:alert(1)', 'data:text/html,x',
    'ftp://x.example/', 'http://', 'https://user:pass@evil.example/', 'xhttp://a.example']) {
    assert.deepEqual(read(text), [text]);
  }
  assert.deepEqual(read('**a *b** c'), [['bold', 'a *b'], ' c'], 'a mark that is never closed is a character');
});

test('addresses are linked without what a sentence puts behind them', () => {
  const all = (tokens) => tokens.flatMap((token) => ('inner' in token ? all(token.inner) : [token]));
  const links = (text) => all(parse(text, who)).filter((token) => token.kind === 'link').map((token) => token.text);
  assert.deepEqual(links('see https://a.example/x. and (http://b.example/y_(z)).'), ['https://a.example/x', 'http://b.example/y_(z)']);
  assert.deepEqual(links('**https://a.example**'), ['https://a.example']);
  assert.deepEqual(links('https://a.example/_x_*y*'), ['https://a.example/_x_*y']);
  assert.deepEqual(links('HTTPS://A.example'), ['HTTPS://A.example']);
  assert.deepEqual(links('https://a.example/\u202Egnp.exe'), ['https://a.example/'], 'nothing turns the rest around');
  for (const token of parse('http://exa\u0430mple.com https://a.example:99999/ http://[', who)) {
    if (token.kind === 'link') assert.match(token.href, /^https?:\/\//);
  }
});

test('members are mentioned, longest name first, oneself apart', () => {
  assert.deepEqual(parse('hi @Bob, @ADA! @quiet-otter-42: @mary ann?', who).filter((token) => token.kind === 'mention')
    .map((token) => [token.text, token.own]), [['@Bob', false], ['@ADA', true], ['@quiet-otter-42', false], ['@mary ann', false]]);
  assert.deepEqual(read('@bobby @bob_'), ['@bobby @bob_'], 'a name that only begins like one is another');
  assert.deepEqual([mentions('hey **@ada**', 'ada'), mentions('`@ada`', 'ada'), mentions('@adam', 'ada'), mentions('ada', 'ada')],
    [true, false, false, false]);
});

test('emoji by name, and big when alone', () => {
  assert.deepEqual(read(':tada::+1:').map((token) => token[1]), ['🎉', '👍']);
  assert.ok(EMOJI.size >= 300);
  for (const [name, emoji] of EMOJI) {
    assert.match(name, /^[a-z0-9_+-]{1,32}$/);
    assert.match(emoji, /\p{Emoji}/u, name);
  }
  const jumbo = (text) => isJumbo(parse(text, who));
  assert.deepEqual([':tada:', '🎉 👍', '❤️', '5', 'hi 🎉', '🎉🎉🎉🎉', ' '].map(jumbo), [true, true, true, false, false, false, false]);
});

test('control characters become symbols, tabs and lines stay', () => {
  assert.deepEqual(read('a\u0000b\u001B[2J'), ['a', ['odd', '␀'], 'b', ['odd', '␛'], '[2J']);
  assert.deepEqual(read('a\tb\nc'), ['a\tb\nc']);
  assert.deepEqual(read(`a${'\u0301'.repeat(500)} b`), [`a${'\u0301'.repeat(4)}`, ['odd', '⋯'], ' b']);
  assert.deepEqual(parse('\u202Ex\u2066', who).map((token) => token.code ?? token.text), ['U+202E', 'x', 'U+2066']);
});

test('long texts are known as such', () => {
  assert.deepEqual(['a', 'a\n'.repeat(10), '\n'.repeat(4096), 'a'.repeat(4096)].map(isLong), [false, false, true, true]);
});

/** A small generator of chance that gives the same for the same seed. */
function chance(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const PIECES = ['*', '**', '_', '`', '```', '\n', ' ', 'a', 'bob', '@', '@bob', '@ada', ':', ':tada:', ':x', 'https://a.example/', 'http://',
  '(', ')', '.', '\u202E', '\u0000', '\uD800', '😀', 'é', '\u0301', 'שלום', '<b>', '\\', '#', '[', ']', '!'];

test('any text gives a tree that says all of it, no deeper than the marks', () => {
  const words = (tokens) => tokens.map((token) => ('inner' in token ? words(token.inner) : token.text)).join('');
  const depth = (tokens) => Math.max(0, ...tokens.map((token) => ('inner' in token ? 1 + depth(token.inner) : 0)));
  for (let seed = 1; seed <= 3_000; seed += 1) {
    const pick = chance(seed);
    const text = Array.from({ length: pick(40) }, () => PIECES[pick(PIECES.length)]).join('');
    const tokens = parse(text, who);
    assert.ok(depth(tokens) <= 3, `seed ${seed}`);
    const letters = (value) => value.replace(/:|tada|x|🎉|❌|[*_`\n\s]/g, '').replace(/[\u0000\u202E]/g, '').replace(/(\u0301{4})\u0301+/g, '$1');
    const shown = letters(words(tokens)).replace(/\u2400|U\+202E|⋯/g, '');
    const language = /```[\w+#.-]{0,20}\n/.test(text);
    if (!language && !text.includes('`')) assert.equal(shown, letters(text), `seed ${seed}: ${JSON.stringify(text)}`);
    for (const token of tokens) if (token.kind === 'link') assert.match(token.href, /^https?:\/\//);
  }
});

test('time is in proportion to the text', () => {
  for (const piece of ['*', '**', '_', '`', '`\n', '```', '``` ', '*a ', '**a_b ', '@', '@bob', '@a ', ':', ':a', 'http://', 'https://a)', '(', '*a_a**a', '\u0301', 'a\u0301\u0301\u0301\u0301\u0301']) {
    const text = piece.repeat(100_000);
    const begin = process.cpuUsage();
    parse(text, who);
    // Of the processor's time, which others do not lengthen. Were it quadratic, it would be ten thousand million steps.
    const took = process.cpuUsage(begin).user / 1_000;
    assert.ok(took < 3_000, `${JSON.stringify(piece)} took ${took} ms`);
  }
});

test('a word being typed is completed: names, emoji, best first', () => {
  const members = ['ada', 'bob', 'bobby', 'quiet-otter-42'];
  assert.deepEqual(completion('hi @bo', 6, members)?.options.map((option) => option.insert), ['@bob ', '@bobby ']);
  assert.deepEqual(completion('@OTT', 4, members)?.options.map((option) => option.label), ['quiet-otter-42']);
  assert.equal(completion('@', 1, members)?.options.length, 4);
  const tada = completion('so :tad and', 7, members);
  assert.deepEqual([tada?.from, tada?.to, tada?.options[0].insert], [3, 7, '🎉 ']);
  assert.equal(completion(':sm', 3, members)?.options.length <= OPTIONS_MAX, true);
  for (const text of ['', 'a@bo', ':s', 'x:sm', '@nobody', '10:30', 'hi @bob ']) assert.equal(completion(text, text.length, members), null, text);
});
