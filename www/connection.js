/**
 * The one connection to the mesh: dials a node, greets it, joins the rooms where we left off, keeps the
 * connection alive, and goes on at another node when this one does not answer. Only this file knows the socket.
 *
 * Content-Security-Policy: the page talks to the node that served it and, when that node is lost, to any other,
 * whose addresses it learns only while running. So it needs `connect-src 'self' ws: wss:`. Everything else can
 * be shut: `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none';
 * form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'`.
 *
 * Another node sees this page's `Origin`, that of the node that served it: nodes have to let in the origins of
 * nodes they have known, also when those are gone, for that is when it matters.
 */
import { Nodes, backoffMs } from './nodes.js';
import { closeText, comesBackAfter, decodeFrame, isPing, socketUrl } from './wire.js';

/** A connection on which nothing was said for so long is pinged. */
export const QUIET_MS = 25_000;
/** A connection on which nothing was heard for so long is dead. */
export const SILENCE_MS = 35_000;
/** How long a node has from the dial to its hello. */
export const GREET_MS = 8_000;
/** How long any reply may take; a send with copies takes up to 2 s by itself. */
export const REPLY_MS = 10_000;
/** A connection that held so long was a good one: the next loss starts with a short wait. */
const STEADY_MS = 5_000;
const HISTORY_PAGE = 50;
/** A position of so many ids is made short again, by joining once more: a node takes 4096 of them. */
export const POSITION_LONG = 1_000;
/** Origins of which a join names what was shown; one that would need more starts anew. */
const NAMED_MAX = 1_000;

/**
 * An error as a node reports it, or our own: `lost` (the connection went), `timeout`.
 * @typedef {{code: string, message: string, retry_ms?: number, behind?: unknown}} Fault
 */

/**
 * @typedef {object} Options
 * @property {string} home                              http address of the node that served the page
 * @property {() => string} name                        the name to greet with
 * @property {() => readonly string[]} rooms            the rooms to be in
 * @property {(room: string) => string[] | undefined} since  the position in a room, undefined if never joined
 * @property {(room: string, behind: readonly unknown[]) => string[][]} [mids]  mids of messages shown in a room behind
 *   these ids, in lists of which each fits into a request
 * @property {(event: any) => void} emit                takes events for the reducer
 * @property {() => void} [onReady]                     called when something can be sent (again)
 * @property {any} [WebSocket]
 * @property {() => number} [now]
 * @property {() => number} [random]
 * @property {(run: () => void, ms: number) => any} [setTimeout]
 * @property {(timer: any) => void} [clearTimeout]
 * @property {() => boolean} [online]                   what the browser thinks of its network
 */

export class Connection {
  /** @param {Options} options */
  constructor(options) {
    this.options = {
      WebSocket: globalThis.WebSocket,
      now: () => Date.now(),
      random: Math.random,
      setTimeout: (/** @type {() => void} */ run, /** @type {number} */ ms) => setTimeout(run, ms),
      clearTimeout: (/** @type {any} */ timer) => clearTimeout(timer),
      online: () => globalThis.navigator?.onLine !== false,
      onReady: () => {},
      mids: () => [],
      ...options,
    };
    this.nodes = new Nodes(options.home, this.options.random);
    /** @type {any} the socket in use; events of any other are ignored */
    this.socket = null;
    this.greeted = false;
    this.stopped = false;
    this.attempt = 0;
    this.upSince = 0;
    this.heard = 0;
    this.spoke = 0;
    this.pinged = false;
    this.lastId = 0;
    /** @type {Map<number, {verb: string, done: (fault: Fault | null, reply?: any) => void, timer: any}>} */
    this.waiting = new Map();
    /** @type {Set<string>} rooms joined on this connection */
    this.joined = new Set();
    /** @type {Set<string>} rooms asked for and not yet answered */
    this.joining = new Set();
    /** @type {{origin: string, node: string} | null} the last node that greeted us */
    this.node = null;
    this.moved = false;
    this.settled = false;
    this.lastError = '';
    this.retryTimer = null;
    this.greetTimer = null;
    this.quietTimer = null;
    this.leaveTimer = null;
  }

  /** Dials the node that served the page. */
  start() {
    this.stopped = false;
    this.attempt = 0;
    this.nodes.plan({ again: true });
    this.#dial();
  }

  /** Greets again, for a name is told once per connection. What was missed meanwhile is replayed. */
  renew() {
    this.stopped = false;
    this.#drop(1000);
    this.nodes.plan({ again: true });
    this.#dial();
  }

  /** Tries at once if waiting to; asks for a sign of life if connected. For `online` and return to the page. */
  wake() {
    if (this.retryTimer !== null) this.#dial();
    else if (this.greeted) this.#ping();
  }

  /**
   * @param {string} room
   * @returns {boolean} whether messages can be sent there now
   */
  isJoined(room) {
    return this.joined.has(room);
  }

  /**
   * Joins a room now, if connected. If not, the next greeting does it.
   * @param {string} room
   */
  join(room) {
    if (!this.greeted || this.joined.has(room) || this.joining.has(room)) return;
    this.joining.add(room);
    const since = this.options.since(room);
    this.#enter(room, { since, resumed: since !== undefined, named: [] });
  }

  /**
   * @param {string} room
   * @param {{since: string[] | undefined, resumed: boolean, named: readonly unknown[]}} how  `since`: the position to go
   *   on from; `resumed`: whether there was one; `named`: behind which all that was shown has been named by its mid
   */
  #enter(room, how) {
    const { since, resumed, named } = how;
    const body = { room, history: HISTORY_PAGE, ...(since ? { since, named } : {}) };
    const socket = this.socket;
    this.request('join', body, (fault, reply) => {
      if (socket !== this.socket) return;
      if (since && fault?.code === 'mids_wanted') {
        // We were shown what no node has any more. If it is said again, only we can tell that.
        const behind = Array.isArray(fault.behind) ? fault.behind : [];
        if (named.length + behind.length > NAMED_MAX) this.#enter(room, { ...how, since: undefined });
        else this.#name(room, this.options.mids(room, behind), { ...how, named: [...named, ...behind] });
        return;
      }
      this.joining.delete(room);
      if (!this.options.rooms().includes(room)) return;
      if (!fault) {
        this.joined.add(room);
        this.options.emit({ type: 'joined', room, reply, resumed });
      } else if (fault.code === 'timeout') {
        this.#lost(1006, 'the node did not answer', false);
        return;
      } else if (fault.retry_ms !== undefined) {
        this.options.setTimeout(() => socket === this.socket && this.join(room), fault.retry_ms);
        return;
      } else {
        this.options.emit({ type: 'join-failed', room, fault });
      }
      this.#settle();
    });
  }

  /**
   * Names what was shown, one request after the other, and then enters. What is too much to name cannot be resumed.
   * @param {string} room
   * @param {readonly (readonly string[])[]} lists
   * @param {{since: string[] | undefined, resumed: boolean, named: readonly unknown[]}} how
   */
  #name(room, [mids, ...more], how) {
    if (!mids) {
      this.#enter(room, how);
      return;
    }
    const socket = this.socket;
    this.request('seen', { room, mids }, (fault) => {
      if (socket !== this.socket) return;
      if (fault) this.#enter(room, { ...how, since: undefined });
      else this.#name(room, more, how);
    });
  }

  /** @param {string} room */
  leave(room) {
    if (this.joined.delete(room)) this.request('leave', { room }, () => {});
  }

  /**
   * Says that something is being typed; nobody waits for the answer.
   * @param {string} room
   */
  typing(room) {
    if (this.joined.has(room)) this.request('typing', { room }, () => {});
  }

  /**
   * Asks the node something. `done` is called exactly once, also when the connection is lost first.
   * @param {string} verb
   * @param {Record<string, any>} body
   * @param {(fault: Fault | null, reply?: any) => void} done
   */
  request(verb, body, done) {
    if (!this.socket || (!this.greeted && verb !== 'hello')) {
      done({ code: 'lost', message: 'not connected' });
      return;
    }
    this.lastId += 1;
    const id = this.lastId;
    const timer = this.options.setTimeout(() => {
      this.waiting.delete(id);
      done({ code: 'timeout', message: 'the node did not answer' });
    }, REPLY_MS);
    this.waiting.set(id, { verb, done, timer });
    this.#send({ id, [verb]: body });
  }

  #dial() {
    this.#drop(1000);
    const node = this.nodes.next();
    this.options.emit({ type: 'link', status: 'connecting', node, attempt: this.attempt });
    let socket;
    try {
      socket = new this.options.WebSocket(socketUrl(node, this.nodes.secure));
    } catch {
      // The browser may refuse an address outright, such as a port it holds to be unsafe.
      this.#lost(1006, 'the browser refused the address', false);
      return;
    }
    this.socket = socket;
    this.greetTimer = this.options.setTimeout(() => this.#lost(1006, 'the node did not answer', false), GREET_MS);
    socket.onopen = () => socket === this.socket && this.#greet();
    socket.onmessage = (/** @type {any} */ event) => socket === this.socket && this.#receive(event.data);
    socket.onclose = (/** @type {any} */ event) => {
      if (socket === this.socket) this.#lost(event.code, event.reason, event.code === 1006 || event.code >= 4000);
    };
    socket.onerror = () => {}; // A close follows, and says more.
  }

  #greet() {
    this.heard = this.options.now();
    this.lastError = '';
    this.request('hello', { name: this.options.name() }, (fault, reply) => {
      if (fault) {
        if (fault.code === 'lost') return;
        const temporary = fault.code === 'timeout' || fault.retry_ms !== undefined;
        this.#lost(temporary ? 1013 : 4500, fault.message || fault.code, false);
        return;
      }
      this.options.clearTimeout(this.greetTimer);
      const last = this.node;
      this.node = { origin: String(reply.origin ?? ''), node: String(reply.node ?? reply.origin ?? '') };
      this.moved = last !== null && last.origin !== this.node.origin;
      this.greeted = true;
      this.settled = false;
      this.upSince = this.options.now();
      this.options.emit({
        type: 'welcome', name: reply.name, limits: reply.limits, nodes: this.nodes.greeted(reply.nodes),
        keeper: reply.keeper,
      });
      for (const room of this.options.rooms()) this.join(room);
      this.#settle();
      this.#watchQuiet();
    });
  }

  /** Connected is said when every room has been answered, not before: until then messages may be missing. */
  #settle() {
    if (!this.settled && this.joining.size === 0) {
      this.settled = true;
      this.options.emit({
        type: 'link', status: this.moved ? 'resumed' : 'connected', node: this.nodes.current, name: this.node?.node,
      });
    }
    this.options.onReady();
  }

  /** @param {unknown} data */
  #receive(data) {
    this.heard = this.options.now();
    /** @type {any[]} pushes of one frame, handed on together so that a burst costs one change of state */
    let messages = [];
    const flush = () => {
      if (messages.length > 0) this.options.emit({ type: 'messages', messages });
      messages = [];
    };
    const socket = this.socket;
    for (const object of decodeFrame(data)) {
      if (socket !== this.socket) return;
      if (object.msg) {
        messages.push(object.msg);
        continue;
      }
      flush();
      this.#take(object);
    }
    flush();
    if (socket === this.socket && this.greeted) this.options.onReady();
  }

  /** @param {Record<string, any>} object */
  #take(object) {
    if (isPing(object)) {
      if (this.pinged) this.pinged = false;
      else this.#send({});
      return;
    }
    if (typeof object.id === 'number') {
      const asked = this.waiting.get(object.id);
      if (!asked) return;
      this.waiting.delete(object.id);
      this.options.clearTimeout(asked.timer);
      if (object.error) asked.done({ code: 'error', message: '', ...object.error });
      else asked.done(null, object[asked.verb] ?? {});
      return;
    }
    if (object.error) this.lastError = String(object.error.message ?? object.error.code ?? '');
    else if (object.members) this.options.emit({ type: 'members', ...object.members });
    else if (object.typing) this.options.emit({ type: 'typing', ...object.typing, at: this.options.now() });
    else if (object.gap) this.options.emit({ type: 'gap', ...object.gap });
    else if (object.nodes) {
      this.options.emit({ type: 'nodes', nodes: this.nodes.learn(object.nodes) });
      this.#shorten();
    }
    else if (object.goaway) this.#goAway(object.goaway);
  }

  /** Positions grow with the nodes that come, and those that go stay in them. A node's own is short. */
  #shorten() {
    for (const room of [...this.joined]) {
      if ((this.options.since(room)?.length ?? 0) <= POSITION_LONG) continue;
      this.joined.delete(room);
      this.join(room);
    }
  }

  /**
   * The node is going away. If it names others we leave before it does, spread over the first half of the time
   * that it gives, so that its clients do not arrive elsewhere all in one instant.
   * @param {{nodes?: unknown, after_ms?: number}} goaway
   */
  #goAway(goaway) {
    if (!Array.isArray(goaway.nodes) || goaway.nodes.length === 0 || this.leaveTimer !== null) return;
    const spread = Math.min(Math.max(Number(goaway.after_ms) || 0, 0) / 2, 2_000);
    this.leaveTimer = this.options.setTimeout(() => {
      this.attempt = 0;
      this.nodes.plan({ again: false, named: goaway.nodes });
      this.#dial();
    }, Math.floor(this.options.random() * spread));
  }

  /**
   * The connection is gone: comes back later, elsewhere perhaps, or stops.
   * @param {number} code
   * @param {string} reason
   * @param {boolean} again whether the same node is worth the first try
   */
  #lost(code, reason, again) {
    const wasUp = this.greeted;
    if (wasUp && this.options.now() - this.upSince >= STEADY_MS) this.attempt = 0;
    const why = closeText(code, reason || this.lastError);
    this.#drop(1000);
    if (!comesBackAfter(code)) {
      this.stopped = true;
      this.options.emit({ type: 'link', status: 'stopped', node: this.nodes.current, reason: why });
      return;
    }
    if (wasUp) this.nodes.plan({ again });
    const wait = backoffMs(this.attempt, this.options.random);
    const at = this.options.now();
    this.attempt += 1;
    this.retryTimer = this.options.setTimeout(() => this.#dial(), wait);
    this.options.emit({
      type: 'link', status: this.options.online() ? 'reconnecting' : 'offline', node: this.nodes.current,
      reason: why, at, retryAt: at + wait, attempt: this.attempt,
    });
  }

  /** Lets go of the socket, whatever its state, and of everything that hung on it. */
  #drop(/** @type {number} */ code) {
    for (const timer of [this.retryTimer, this.greetTimer, this.quietTimer, this.leaveTimer]) this.options.clearTimeout(timer);
    this.retryTimer = this.greetTimer = this.quietTimer = this.leaveTimer = null;
    const socket = this.socket;
    this.socket = null;
    this.greeted = false;
    this.pinged = false;
    this.joined.clear();
    this.joining.clear();
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const { timer } of waiting) this.options.clearTimeout(timer);
    // Not waited for: with a dead peer the closing handshake takes as long as the silence did.
    socket?.close(code);
    for (const { done } of waiting) done({ code: 'lost', message: 'the connection was lost' });
  }

  /** @param {Record<string, any>} object */
  #send(object) {
    this.spoke = this.options.now();
    this.socket.send(JSON.stringify(object));
  }

  #ping() {
    this.pinged = true;
    this.#send({});
    this.#watchQuiet();
  }

  /** One timer, set to the next moment at which something has to be done about silence. */
  #watchQuiet() {
    this.options.clearTimeout(this.quietTimer);
    // Both ways count: a node that only ever talks to us has still to hear from us.
    const due = this.pinged ? Math.min(this.heard + SILENCE_MS, this.spoke + QUIET_MS)
      : Math.min(this.heard, this.spoke) + QUIET_MS;
    this.quietTimer = this.options.setTimeout(() => {
      const now = this.options.now();
      if (now - this.heard >= SILENCE_MS) this.#lost(1006, 'the node fell silent', false);
      else if (now - this.spoke >= QUIET_MS || (!this.pinged && now - this.heard >= QUIET_MS)) this.#ping();
      else this.#watchQuiet();
    }, Math.max(0, due - this.options.now()));
  }
}
