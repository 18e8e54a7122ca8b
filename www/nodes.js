/**
 * Which node to try next, and when. Pure but for the random source it is given.
 */
import { socketUrl } from './wire.js';

/** The longest wait before the first try again, and before any, in milliseconds. */
export const BACKOFF_FIRST_MS = 500;
export const BACKOFF_MAX_MS = 30_000;

/**
 * Full jitter: anything from nothing to a bound that doubles. A crowd that lost one node does not come back as one.
 * @param {number} attempt 0 for the first
 * @param {() => number} random in [0, 1)
 * @returns {number} milliseconds
 */
export function backoffMs(attempt, random) {
  return Math.floor(random() * Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 10)));
}

/**
 * @template T
 * @param {readonly T[]} list
 * @param {() => number} random
 * @returns {T[]}
 */
function shuffled(list, random) {
  const copy = list.slice();
  for (let i = copy.length - 1; i > 0; i -= 1) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}

/**
 * @param {string} one
 * @param {string} other
 * @returns {boolean} whether both origins are the same place; a machine has several names for itself
 */
function isSame(one, other) {
  const plain = (/** @type {string} */ url) => url.replace(/\/\/(localhost|\[::1\])(?=:|$)/, '//127.0.0.1');
  return plain(one) === plain(other);
}

/** The nodes this page knows of, and the order in which it tries them. */
export class Nodes {
  /**
   * @param {string} home the http address of the node that served the page; always among those tried
   * @param {() => number} random
   */
  constructor(home, random) {
    this.home = new URL(home).origin;
    this.secure = this.home.startsWith('https:');
    this.random = random;
    /** The node in use, or tried at present. */
    this.current = this.home;
    /** @type {string[]} */
    this.known = [];
    /** @type {string[]} those still to be tried in this round */
    this.queue = [];
    /**
     * Whether the page came from no node but from a balancer before them. Its address leads to a node that takes
     * clients, while the nodes' own may be of a network that this browser is not in.
     */
    this.balanced = false;
  }

  /**
   * A node has greeted us, by a list in which it stands itself.
   * @param {unknown} urls
   * @returns {string[]} the ones this page can reach
   */
  greeted(urls) {
    const known = this.learn(urls);
    if (this.current === this.home && known.length > 0) this.balanced = !known.some((url) => isSame(url, this.home));
    return known;
  }

  /**
   * Takes the list that a node gave in the place of the last one.
   * @param {unknown} urls
   * @returns {string[]} the ones this page can reach
   */
  learn(urls) {
    this.known = this.#reachable(urls);
    return this.known;
  }

  /**
   * Makes a new plan after a loss.
   * @param {{again: boolean, named?: unknown}} how `again`: the same node first, it may just have blinked;
   *   otherwise it comes last. `named`: nodes that it told us to go to, before all others.
   */
  plan({ again, named = [] }) {
    if (this.balanced) {
      const nodes = shuffled([...new Set([...this.#reachable(named), ...this.known])], this.random);
      // The balancer may be gone and the nodes not, so they are tried in between.
      this.queue = [this.home, ...nodes.flatMap((url) => [url, this.home])];
      return;
    }
    const first = shuffled(this.#reachable(named), this.random).filter((url) => url !== this.current);
    const others = shuffled([...new Set([...this.known, this.home])], this.random)
      .filter((url) => url !== this.current && !first.includes(url));
    this.queue = again ? [...first, this.current, ...others] : [...first, ...others, this.current];
  }

  /**
   * The next one to try. A round that is over begins again in another order.
   * @returns {string} its http address
   */
  next() {
    if (this.queue.length === 0) this.plan({ again: false });
    this.current = /** @type {string} */ (this.queue.shift());
    return this.current;
  }

  /**
   * @param {unknown} urls
   * @returns {string[]}
   */
  #reachable(urls) {
    if (!Array.isArray(urls)) return [];
    const origins = urls.filter((url) => typeof url === 'string' && socketUrl(url, this.secure) !== null)
      .map((url) => new URL(url).origin);
    return [...new Set(origins)];
  }
}
