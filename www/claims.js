/**
 * Which tab sends which unsent message. Each is claimed by a lock of its own, which goes to another tab when the one
 * that holds it is closed. A browser without locks sends from every tab: nodes know a repeated `mid`.
 */

export class Claims {
  /**
   * @param {LockManager | undefined} locks
   * @param {(mid: string) => void} changed  called when a message became this tab's to send
   */
  constructor(locks, changed) {
    this.locks = locks;
    this.changed = changed;
    /** @type {Map<string, {held: boolean, release: () => void, stop: AbortController}>} */
    this.claims = new Map();
  }

  /**
   * Claims what waits, and lets go of what does not any more.
   * @param {readonly string[]} mids
   */
  keep(mids) {
    if (!this.locks) return;
    const wanted = new Set(mids);
    for (const [mid, claim] of this.claims) {
      if (wanted.has(mid)) continue;
      this.claims.delete(mid);
      claim.stop.abort();
      claim.release();
    }
    for (const mid of mids) if (!this.claims.has(mid)) this.#claim(mid, this.locks);
  }

  /**
   * @param {string} mid
   * @returns {boolean} whether this tab is to send it
   */
  has(mid) {
    return !this.locks || this.claims.get(mid)?.held === true;
  }

  /**
   * @param {string} mid
   * @param {LockManager} locks
   */
  #claim(mid, locks) {
    const claim = { held: false, release: () => {}, stop: new AbortController() };
    this.claims.set(mid, claim);
    const hold = () => new Promise((/** @type {(value?: any) => void} */ resolve) => {
      claim.release = () => resolve();
      if (this.claims.get(mid) !== claim) resolve();
      claim.held = true;
      this.changed(mid);
    });
    // Given up is no failure. Anything else means that there are no locks here, and then everybody may send.
    locks.request(`chatmesh.out.${mid}`, { signal: claim.stop.signal }, hold).catch(() => {
      if (claim.stop.signal.aborted) return;
      claim.held = true;
      this.changed(mid);
    });
  }
}
