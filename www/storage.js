/**
 * What the browser keeps between visits: the name, the rooms, drafts, unsent messages. A browser may refuse to
 * keep anything (private windows, full disk): then the page works all the same and forgets on reload.
 *
 * Each unsent message has a key of its own, because tabs share the storage: if all were one list, a tab that
 * writes its own would erase another's.
 */

const PREFIX = 'chatmesh.';
const OUT = `${PREFIX}out.`;
const READ = `${PREFIX}read.`;
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
      const pending = pendingOf(value);
      if (pending) found.push({ ...pending, order: Number(value.order) || 0 });
    }
    return found.sort((a, b) => a.at - b.at || a.order - b.order).map(({ order: _, ...pending }) => pending);
  }

  /**
   * @param {string} mid
   * @returns {boolean} whether it is kept as unsent
   */
  waits(mid) {
    return this.#read(`out.${mid}`) !== null;
  }

  /** @returns {Map<string, {ts: number, origin: string}>} up to where each room was read */
  readTo() {
    const places = new Map();
    for (let index = 0; index < (this.storage?.length ?? 0); index += 1) {
      const key = this.storage?.key(index);
      const place = key?.startsWith(READ) ? placeOf(this.#read(key.slice(PREFIX.length))) : null;
      if (key && place) places.set(key.slice(READ.length), place);
    }
    return places;
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
    for (const room of after.rooms.values()) {
      const was = before?.rooms.get(room.name)?.readTo;
      const stored = room.readTo && was !== room.readTo ? placeOf(this.#read(`read.${room.name}`)) : null;
      if (room.readTo && was !== room.readTo && (!stored || stored.ts < room.readTo.ts)) {
        this.#write(`read.${room.name}`, [room.readTo.ts, room.readTo.origin]);
      }
    }
    const changed = [...after.rooms.values()].some((room) => before?.rooms.get(room.name)?.draft !== room.draft);
    if (changed) {
      this.#write('drafts', [...after.rooms.values()].filter((room) => room.draft !== '').map((room) => [room.name, room.draft]));
    }
  }

  /**
   * What another tab did, as told by a `storage` event: an event for the reducer, or null.
   * @param {{key: string | null, newValue: string | null}} event
   * @returns {any}
   */
  static doneElsewhere({ key, newValue }) {
    if (key?.startsWith(OUT) && newValue === null) return { type: 'discard', mid: key.slice(OUT.length) };
    let value;
    try {
      value = JSON.parse(newValue ?? 'null');
    } catch {
      return null;
    }
    if (key?.startsWith(OUT)) {
      const pending = pendingOf(value);
      return pending && { type: 'adopt', pending };
    }
    if (key?.startsWith(READ)) {
      const place = placeOf(value);
      return place && { type: 'read-elsewhere', room: key.slice(READ.length), place };
    }
    if (key === `${PREFIX}mine`) return Array.isArray(value) ? { type: 'mine', mids: value.filter((mid) => typeof mid === 'string') } : null;
    return key === `${PREFIX}name` && typeof value === 'string' && value !== '' ? { type: 'rename', name: value } : null;
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
      const stored = had.has(pending) ? null : pendingOf(this.#read(`out.${pending.mid}`));
      // What another tab wrote just so is not written again, or it might outlive its sending.
      if (stored?.state === pending.state && stored.reason === pending.reason) return;
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

/**
 * @param {any} value  as stored
 * @returns {import('./state.js').Pending | null}
 */
function pendingOf(value) {
  if (typeof value?.mid !== 'string' || typeof value.room !== 'string' || typeof value.text !== 'string') return null;
  return {
    mid: value.mid, room: value.room, text: value.text, at: Number(value.at) || 0,
    state: value.state === 'failed' ? 'failed' : 'sending',
    reason: typeof value.reason === 'string' ? value.reason : '',
  };
}

/**
 * @param {any} value  as stored
 * @returns {{ts: number, origin: string} | null}
 */
function placeOf(value) {
  return Array.isArray(value) && Number.isFinite(value[0]) && typeof value[1] === 'string' ? { ts: value[0], origin: value[1] } : null;
}
