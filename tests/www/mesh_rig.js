/** Answers of nodes as they stand in `/api/mesh`, for the tests of the mesh view. */
import { readAnswer } from '../../www/mesh/answer.js';
import { newWorld, takeAnswer, takeFailure } from '../../www/mesh/model.js';

export const A = 'aaaaaaaaaa';
export const B = 'bbbbbbbbbb';
export const C = 'cccccccccc';
export const D = 'dddddddddd';
export const START = 1_700_000_000_000;

/** @param {string} origin */
export const urlOf = (origin) => `http://127.0.0.1:${8000 + origin.charCodeAt(0)}`;

const pubOf = (origin) => `tcp://127.0.0.1:${5000 + origin.charCodeAt(0)}`;

/** A row as a node sends it. */
export function row(origin, more = {}) {
  const who = origin === null ? { origin, name: '', http: '' } : { origin, name: origin.slice(0, 4), pub: pubOf(origin), http: urlOf(origin) };
  return {
    ...who, state: 'up', beat_age_ms: 300, lag_ms: 1, hears_us: true, received: 0, gaps: 0, repaired: 0, lost: 0, error: '', ...more,
  };
}

/** A body as a node sends it, with links to these others, or with these rows. */
export function body(origin, others, { counts = {}, ...more } = {}) {
  return {
    origin, name: origin.slice(0, 4), http: urlOf(origin), pub: pubOf(origin), ready: true,
    registries: [{ url: 'http://127.0.0.1:7000', state: 'up' }],
    links: others.map((other) => (typeof other === 'string' ? row(other) : other)),
    position: [], lost: [], storage: { state: 'memory', messages: 0, bytes: 0 }, clients: 0, rooms: 0, version: '0.1.0', uptime_ms: 1000,
    counts: { said: 0, deliveries: 0, gaps: 0, repaired: 0, lost: 0, ...counts }, ...more,
  };
}

/** A world that bodies and failures (an origin alone) made, one after the other at the same time. */
export function told(world, now, ...words) {
  return words.reduce((is, word) => (typeof word === 'string'
    ? takeFailure(is, urlOf(word), now)
    : takeAnswer(is, urlOf(word.origin), readAnswer(word), now)), world);
}

/** Three nodes that hear each other. */
export function three(now = START) {
  return told(newWorld(urlOf(A)), now, body(A, [B, C]), body(B, [A, C]), body(C, [A, B]));
}
