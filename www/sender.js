/**
 * Sends what waits in the outbox, in the order in which it was written, until each is acknowledged.
 *
 * One message is unaccepted at a time: if two were on their way and the first were refused for being too quick,
 * the second would overtake it. Accepted is known from the reply or from our own message coming back, whichever
 * is first, so waiting for copies does not slow the next one down.
 */

/** Codes after which the same message may well be accepted later. All others are for good. */
const TEMPORARY = new Set(['rate_limited', 'overloaded', 'unavailable', 'not_ready', 'timeout', 'lost']);
const RETRY_MS = 1_000;

/**
 * @typedef {object} SenderOptions
 * @property {() => readonly import('./state.js').Pending[]} outbox
 * @property {(room: string) => boolean} isJoined
 * @property {() => number} copies      how many other nodes have to hold a message before the reply comes
 * @property {(verb: string, body: any, done: (fault: any, reply?: any) => void) => void} request
 * @property {(event: any) => void} emit
 * @property {(run: () => void, ms: number) => any} [setTimeout]
 */

export class Sender {
  /** @param {SenderOptions} options */
  constructor(options) {
    this.options = { setTimeout: (/** @type {() => void} */ run, /** @type {number} */ ms) => setTimeout(run, ms), ...options };
    /** @type {object | null} the send that is neither accepted nor refused */
    this.flight = null;
    this.flightMid = '';
    this.resting = false;
  }

  /** Sends the next one if it may. Call it whenever something changed; it does nothing if there is nothing to do. */
  pump() {
    const waiting = this.options.outbox().filter((pending) => pending.state === 'sending');
    if (this.flight && !waiting.some((pending) => pending.mid === this.flightMid)) this.flight = null;
    if (this.flight || this.resting) return;
    const next = waiting.find((pending) => this.options.isJoined(pending.room));
    if (!next) return;
    const flight = {};
    this.flight = flight;
    this.flightMid = next.mid;
    const copies = this.options.copies();
    const body = { room: next.room, mid: next.mid, text: next.text, ...(copies > 0 ? { copies } : {}) };
    this.options.request('send', body, (fault, reply) => {
      if (this.flight === flight) this.flight = null;
      if (!fault) this.options.emit({ type: 'sent', mid: next.mid, id: reply.id, ts: reply.ts, copies: reply.copies, keeper: reply.keeper });
      else if (fault.code === 'lost') return; // Ready again is told when there is a connection again.
      else if (fault.retry_ms !== undefined || TEMPORARY.has(fault.code)) this.#rest(fault.retry_ms ?? RETRY_MS);
      else this.options.emit({ type: 'send-failed', mid: next.mid, reason: fault.message || fault.code });
      this.pump();
    });
  }

  /** @param {number} ms */
  #rest(ms) {
    if (this.resting) return;
    this.resting = true;
    this.options.setTimeout(() => {
      this.resting = false;
      this.pump();
    }, Math.max(0, ms));
  }
}
