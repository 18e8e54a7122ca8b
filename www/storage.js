/**
 * What the browser keeps between visits: the name, the rooms, drafts, unsent messages. A browser may refuse to
 * keep anything (private windows, full disk): then the page works all the same and forgets on reload.
 *
 * Each unsent message has a key of its own, because tabs share the storage: if all were one list, a tab that
 * writes its own would erase another's.
 */

const PREFIX = 'chatmesh.';
const OUT = `${PREFIX}out.`;
const MINE_MAX = 500;

/** @typedef {Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'>} StorageLike */

export class Keeper {
  /** @param {StorageLike | null} storage */
  constructor(storage) {
    this.storage = storage;
  }

  /** @returns {string | null} */
  name() {
    const name = this.#read('name');
    return typeof name === 'string' && name !== '' ? name : null;
  }

  /** @returns {string[]} */
  rooms() {
    const rooms = this.#read('rooms');
    return Array.isArray(rooms) ? rooms.filter((room) => typeof room === 'string') : [];
  }

  /** @returns {Map<string, string>} */
  drafts() {
    const drafts = this.#read('drafts');
    return new Map(Array.isArray(drafts)
      ? drafts.filter((pair) => typeof pair?.[0] === 'string' && typeof pair[1] === 'string') : []);
  }

  /** @returns {string[]} mids of what this browser sent lately */
  mine() {
    const mids = this.#read('mine');
    return Array.isArray(mids) ? mids.filter((mid) => typeof mid === 'string') : [];
  }

  /** @returns {import('./state.js').Pending[]} oldest first */
  outbox() {
    const found = [];
    for (let index = 0; index < (this.storage?.length ?? 0); index += 1) {
      const key = this.storage?.key(index);
      if (!key?.startsWith(OUT)) continue;
      const value = this.#read(key.slice(PREFIX.length));
      if (typeof value?.mid !== 'string' || typeof value.room !== 'string' || typeof value.text !== 'string') continue;
      found.push({
        mid: value.mid, room: value.room, text: value.text, at: Number(value.at) || 0, order: Number(value.order) || 0,
        state: value.state === 'failed' ? /** @type {const} */ ('failed') : /** @type {const} */ ('sending'),
        reason: typeof value.reason === 'string' ? value.reason : '',
      });
    }
    return found.sort((a, b) => a.at - b.at || a.order - b.order).map(({ order: _, ...pending }) => pending);
  }

  /**
   * Writes what differs between two states.
   * @param {import('./state.js').State | null} before
   * @param {import('./state.js').State} after
   */
  keep(before, after) {
    if (before?.name !== after.name) this.#write('name', after.name);
    if (before?.outbox !== after.outbox) this.#keepOutbox(before?.outbox ?? [], after.outbox);
    if (before?.mine !== after.mine) {
      this.#write('mine', [...new Set([...this.mine(), ...after.mine])].slice(-MINE_MAX));
    }
    if (before?.rooms === after.rooms) return;
    const names = [...after.rooms.keys()];
    if (!before || names.join('\n') !== [...before.rooms.keys()].join('\n')) this.#write('rooms', names);
    const changed = [...after.rooms.values()].some((room) => before?.rooms.get(room.name)?.draft !== room.draft);
    if (changed) {
      this.#write('drafts', [...after.rooms.values()].filter((room) => room.draft !== '').map((room) => [room.name, room.draft]));
    }
  }

  /**
   * The mid of an unsent message that another tab settled, as told by a `storage` event.
   * @param {{key: string | null, newValue: string | null}} event
   * @returns {string | null}
   */
  static settledElsewhere({ key, newValue }) {
    return key?.startsWith(OUT) && newValue === null ? key.slice(OUT.length) : null;
  }

  /**
   * @param {readonly import('./state.js').Pending[]} before
   * @param {readonly import('./state.js').Pending[]} after
   */
  #keepOutbox(before, after) {
    const had = new Set(before);
    const have = new Set(after.map((pending) => pending.mid));
    for (const { mid } of before) {
      if (!have.has(mid)) this.#write(`out.${mid}`, null);
    }
    // Two messages of one millisecond keep their order by their place in the list.
    after.forEach((pending, order) => {
      if (!had.has(pending)) this.#write(`out.${pending.mid}`, { ...pending, order });
    });
  }

  /**
   * @param {string} key
   * @returns {any}
   */
  #read(key) {
    try {
      return JSON.parse(this.storage?.getItem(PREFIX + key) ?? 'null');
    } catch {
      return null;
    }
  }

  /**
   * @param {string} key
   * @param {any} value null removes it
   */
  #write(key, value) {
    try {
      if (value === null) this.storage?.removeItem(PREFIX + key);
      else this.storage?.setItem(PREFIX + key, JSON.stringify(value));
    } catch {
      // Not kept, as said above.
    }
  }
}
