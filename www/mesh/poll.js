/**
 * Which nodes to ask, and when: about once a second each, the dead ever more seldom. Pure: time is an argument.
 */

/** A node that answers is asked again after this, */
export const POLL_MS = 1_000;
/** one that does not after twice as long each time, up to this, */
export const BACKOFF_MAX_MS = 15_000;
/** or up to this while a node that answers speaks of it: it may be about to come. */
export const BACKOFF_NAMED_MS = 3_000;
/** An answer is waited for so long. */
export const TIMEOUT_MS = 2_000;
/** Whom nobody speaks of, and who does not answer, is forgotten after this. */
export const FORGET_MS = 120_000;
/** So many nodes are asked at the most. */
export const NODES_MAX = 64;

/**
 * @typedef {object} Asked
 * @property {number} due when to ask next
 * @property {number} failures in a row
 * @property {boolean} waiting for an answer
 * @property {number} useful when it answered or was spoken of last
 * @property {boolean} named whether a node that answered lately spoke of it
 */

/** The list of those to ask. */
export class Poll {
  /**
   * @param {string} home where the page came from; always among them
   * @param {number} now
   */
  constructor(home, now) {
    this.home = home;
    this.secure = home.startsWith('https:');
    /** @type {Map<string, Asked>} */
    this.nodes = new Map();
    this.#add(home, now);
  }

  /**
   * Takes note of the nodes that are spoken of at present.
   * @param {readonly string[]} urls web origins
   * @param {ReadonlySet<string>} aliases other names of nodes that are asked already
   * @param {number} now
   */
  learn(urls, aliases, now) {
    for (const asked of this.nodes.values()) asked.named = false;
    for (const url of urls) {
      // A page that came by https may not ask by http.
      if (aliases.has(url) || (this.secure && !url.startsWith('https:'))) continue;
      const asked = this.nodes.get(url) ?? this.#add(url, now);
      if (!asked) continue;
      asked.named = true;
      asked.useful = now;
      if (asked.failures > 0) asked.due = Math.min(asked.due, now + BACKOFF_NAMED_MS);
    }
    for (const [url, asked] of this.nodes) {
      const useless = now - asked.useful > FORGET_MS || aliases.has(url);
      if (useless && url !== this.home && !asked.waiting) this.nodes.delete(url);
    }
  }

  /**
   * @param {number} now
   * @returns {string[]} whom to ask now; each is waited for until `done`
   */
  due(now) {
    const due = [...this.nodes].filter(([, asked]) => !asked.waiting && asked.due <= now);
    for (const [, asked] of due) asked.waiting = true;
    return due.map(([url]) => url);
  }

  /**
   * @param {string} url
   * @param {boolean} answered
   * @param {number} now
   */
  done(url, answered, now) {
    const asked = this.nodes.get(url);
    if (!asked) return;
    asked.waiting = false;
    asked.failures = answered ? 0 : asked.failures + 1;
    if (answered) asked.useful = now;
    const most = asked.named ? BACKOFF_NAMED_MS : BACKOFF_MAX_MS;
    asked.due = now + (answered ? POLL_MS : Math.min(most, POLL_MS * 2 ** Math.min(asked.failures - 1, 10)));
  }

  /**
   * All are asked at once: the page was hidden, or the network is back.
   * @param {number} now
   */
  wake(now) {
    for (const asked of this.nodes.values()) asked.due = now;
  }

  /**
   * @param {string} url
   * @param {number} now
   * @returns {Asked | null} null where there is no room
   */
  #add(url, now) {
    if (this.nodes.size >= NODES_MAX) return null;
    const asked = { due: now, failures: 0, waiting: false, useful: now, named: false };
    this.nodes.set(url, asked);
    return asked;
  }
}
