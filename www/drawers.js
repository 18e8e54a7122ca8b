/**
 * The panels of rooms and members, which become drawers when there is no room for columns. The widths are those of
 * style.css.
 */

export class Drawers {
  /** @param {Document} document */
  constructor(document) {
    const window = /** @type {Window} */ (document.defaultView);
    const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
    this.document = document;
    this.shade = find('shade');
    this.behind = find('room');
    this.drawers = [['rooms', '(max-width: 760px)'], ['members', '(max-width: 1080px)']].map(([name, width]) => ({
      name, panel: find(`${name}-panel`), opener: find(`${name}-open`), query: window.matchMedia(width),
    }));
    for (const { name, panel, opener, query } of this.drawers) {
      opener.addEventListener('click', () => this.show(name));
      query.addEventListener('change', () => this.show(null));
      panel.querySelector('[data-close]')?.addEventListener('click', () => this.show(null));
    }
    this.shade.addEventListener('click', () => this.show(null));
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || this.shade.hidden) return;
      event.preventDefault(); // It means nothing else then.
      this.show(null);
    });
    this.show(null);
  }

  /**
   * Opens one drawer, or closes all. Focus goes in with it, and back to where it came from. A closed drawer is out
   * of sight, so it has to be out of the order of focus; and behind an open one all else is.
   * @param {string | null} which
   */
  show(which) {
    const open = this.drawers.find(({ name, query }) => name === which && query.matches);
    this.behind.inert = open !== undefined;
    this.shade.hidden = open === undefined;
    for (const drawer of this.drawers) {
      const { panel, opener, query } = drawer;
      const held = panel.contains(this.document.activeElement);
      panel.classList.toggle('open', drawer === open);
      panel.inert = query.matches && drawer !== open;
      opener.setAttribute('aria-expanded', String(drawer === open));
      if (held && panel.inert) opener.focus();
    }
    /** @type {HTMLElement | null | undefined} */ (open?.panel.querySelector('[data-close]'))?.focus({ preventScroll: true });
  }
}
