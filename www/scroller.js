/**
 * The transcript as one reads it: which part of it is in the document, what stays in place while messages come,
 * the way to the newest, to the past, and to a message that is sought.
 */
import { setText } from './dom.js';
import { around, held, moved, spanOf, STEP } from './span.js';
import { drawRows, rows } from './transcript.js';
import { fold } from './words.js';

/** Nearer to the end than this is at the end: new messages scroll in by themselves. */
const AT_END_PX = 60;
/** Nearer to an edge of what is in the document than this asks for more. */
const NEAR_PX = 400;
const FOUND_MS = 4_000;
/** More messages than this in so short a time are counted to a screen reader, not read out. */
const FLOOD = 6;
const FLOOD_MS = 4_000;
const CALM_MS = 1_500;
/** So long after a quiet change what comes is read out again: screen readers look at changes a little late. */
const QUIET_MS = 300;

/** @typedef {import('./state.js').State} State */
/** @typedef {import('./room.js').Room} Room */

export class Scroller {
  /**
   * @param {Record<string, any>} ui  elements by id
   * @param {import('./view.js').Actions} on
   * @param {(text: string) => void} announce  says a thing to screen readers
   */
  constructor(ui, on, announce) {
    this.ui = ui;
    this.on = on;
    this.announce = announce;
    /** @type {number[]} when the last messages came */
    this.came = [];
    this.unsaid = 0;
    this.calmTimer = 0;
    /** @type {State | null} */
    this.state = null;
    this.atEnd = true;
    /** @type {import('./span.js').From} */
    this.from = null;
    /** Where each room was left, so that one comes back to the same place. */
    this.places = new Map();
    this.newBelow = 0;
    /** Where the past was last asked for without a person's doing: asked once only. */
    this.askedAt = '';
    /** Everybody who was seen, so that a mention stays one when they leave. */
    this.known = new Set();
    this.open = '';
    this.whole = new Set();
    this.found = '';
    this.foundTimer = 0;
    this.#listen();
  }

  /** Goes to the newest message, and stays there. */
  toEnd() {
    this.atEnd = true;
    this.from = null;
    this.#redraw(true);
    this.ui.scroller.scrollTop = this.ui.scroller.scrollHeight;
    this.#scrolled();
  }

  /** Stays at the end if it was there; for when something around it changed its size. */
  settle() {
    if (this.atEnd) this.ui.scroller.scrollTop = this.ui.scroller.scrollHeight;
  }

  /** @param {number} pages by how many screens; negative: up */
  page(pages) {
    this.ui.scroller.scrollBy({ top: pages * this.ui.scroller.clientHeight * 0.9 });
  }

  /**
   * @param {State} state
   * @param {State | null} before
   */
  render(state, before) {
    this.state = state;
    const room = /** @type {Room} */ (state.rooms.get(state.current));
    const old = before?.rooms.get(room.name);
    // Messages come into an empty room with an unread line: as good as coming to it anew.
    const switched = before?.current !== state.current || (old?.items.length === 0 && room.unreadFrom !== null);
    const sending = state.outbox.length > (before?.outbox.length ?? 0) && !switched;
    if (old?.members !== room.members) for (const name of room.members) this.known.add(fold(name));
    const same = !switched && old?.items === room.items && before?.outbox === state.outbox && old?.unreadFrom === room.unreadFrom
      && before?.name === state.name;
    if (same) this.#hold(() => this.#edges(room));
    else {
      const count = (/** @type {Room | undefined} */ of) => of?.items.filter((item) => item.kind === 'message').length ?? 0;
      const more = old?.items === room.items ? 0 : count(room) - count(old);
      if (sending) this.atEnd = true;
      if (switched) this.#enter(room);
      else if (this.atEnd) this.from = null;
      else {
        this.from = held(old?.items ?? [], this.from);
        if (more > 0 && room.older === old?.older) this.newBelow += more;
      }
      // A whole room put in, or the past put before the present, is not news to be read out; nor is who comes and goes.
      const quiet = switched || old?.older === 'loading' || (old?.items.length ?? 0) === 0 || (more <= 0 && !sending) || this.#flood(more);
      this.#redraw(quiet);
      if (switched) this.#arrive(room);
      this.#jump();
      this.#fill(room);
      this.#near(room);
    }
    this.#seek(state, room);
  }

  /**
   * Read out one by one, a burst would drown all else for minutes: how many they were is said when it is over.
   * @param {number} more  messages that came
   * @returns {boolean} whether they are too many
   */
  #flood(more) {
    const now = performance.now();
    this.came = [...this.came.filter((at) => now - at < FLOOD_MS), ...Array(Math.max(0, Math.min(more, FLOOD + 1))).fill(now)];
    if (this.came.length <= FLOOD) return false;
    this.unsaid += more;
    clearTimeout(this.calmTimer);
    this.calmTimer = setTimeout(() => {
      this.announce(`${this.unsaid} new messages`);
      this.unsaid = 0;
    }, CALM_MS);
    return true;
  }

  /** @param {boolean} quiet whether what is new is not to be read out */
  #redraw(quiet) {
    const { transcript, messages } = this.ui;
    const { state } = this;
    const room = state?.rooms.get(state.current);
    if (!state || !room) return;
    if (quiet) transcript.setAttribute('aria-live', 'off');
    const span = spanOf(room.items, this.from);
    for (const item of room.items.slice(span.start, span.end)) if (item.kind === 'message') this.known.add(fold(item.from));
    this.#hold(() => {
      this.#edges(room);
      drawRows(messages, rows(room, state.outbox, {
        ...span, name: state.name, known: this.known, open: this.open, whole: this.whole, found: this.found,
      }));
      this.#rove(null);
    });
    if (quiet) setTimeout(() => transcript.setAttribute('aria-live', 'polite'), QUIET_MS);
  }

  /**
   * Changes what is in the document, and keeps what is being read, or the end, where it is.
   * @param {() => void} change
   */
  #hold(change) {
    const { scroller } = this.ui;
    const anchor = this.atEnd ? null : this.#anchor();
    change();
    if (anchor?.node.isConnected) scroller.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    else if (!anchor) scroller.scrollTop = scroller.scrollHeight;
  }

  /**
   * Another room is shown: where it was left, or at its unread line, or at its end.
   * @param {Room} room
   */
  #enter(room) {
    const place = this.places.get(room.name);
    const unread = room.unreadFrom ? room.items.findIndex((item) => item.ts === room.unreadFrom?.ts && item.origin === room.unreadFrom.origin) : -1;
    this.newBelow = 0;
    this.open = '';
    this.from = unread >= 0 ? around(room.items, unread) : place?.from ?? null;
    this.atEnd = unread < 0 && place === undefined;
    this.entered = { unread, place };
  }

  /** @param {Room} room */
  #arrive(room) {
    const { scroller, transcript } = this.ui;
    const line = transcript.querySelector('.unread');
    if (line) line.scrollIntoView({ block: 'center' });
    else scroller.scrollTop = this.entered?.place?.top ?? scroller.scrollHeight;
    this.#scrolled();
  }

  /**
   * Shows the message that is sought as soon as it is there.
   * @param {State} state
   * @param {Room} room
   */
  #seek({ target }, room) {
    if (!target) return;
    const index = room.items.findIndex((item) => item.id === target.id);
    if (index < 0) return;
    this.found = target.id;
    this.open = '';
    this.atEnd = false;
    this.from = around(room.items, index);
    this.#redraw(true);
    const node = this.#node(target.id);
    node?.scrollIntoView({ block: 'center' });
    this.#rove(/** @type {HTMLElement | null} */ (node?.querySelector('.when') ?? null))?.focus({ preventScroll: true });
    this.#scrolled();
    clearTimeout(this.foundTimer);
    this.foundTimer = setTimeout(() => {
      this.found = '';
      this.#redraw(true);
    }, FOUND_MS);
    this.on.arrived();
  }

  /**
   * @param {string} id
   * @returns {Element | undefined}
   */
  #node(id) {
    return [...this.ui.messages.children].find((node) => node.dataset.id === id);
  }

  /**
   * What is above the first message, and what is said when there is none.
   * @param {Room} room
   */
  #edges(room) {
    const { older, beginning, empty } = this.ui;
    const none = room.items.length === 0;
    const nothing = none && !this.state?.outbox.some((pending) => pending.room === room.name);
    const cut = spanOf(room.items, this.from).start > 0;
    older.hidden = none || !(cut || room.older === 'some' || room.older === 'loading');
    older.disabled = !cut && room.older === 'loading';
    setText(older, room.older === 'loading' ? 'Loading…' : 'Load older messages');
    beginning.hidden = none || cut || !(room.older === 'none' || room.older === 'full');
    setText(beginning, room.older === 'full' ? 'More was said before this; it is too much to show here.' : `This is where #${room.name} begins.`);
    empty.hidden = !nothing || room.state === 'joining';
    if (room.state === 'refused') setText(empty, `This room cannot be joined: ${room.reason}`);
    else if (!empty.hidden) setText(empty, 'Nothing has been said here yet. Say the first word.');
  }

  /**
   * @returns {{node: Element, top: number} | null} the first message in view and where it is, so that it can stay
   */
  #anchor() {
    const edge = this.ui.scroller.getBoundingClientRect().top;
    const nodes = this.ui.messages.children;
    let low = 0;
    let high = nodes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (nodes[middle].getBoundingClientRect().bottom <= edge) low = middle + 1;
      else high = middle;
    }
    // Day lines may go when older messages come before them; messages stay.
    while (low < nodes.length && !nodes[low].classList.contains('message')) low += 1;
    return low < nodes.length ? { node: nodes[low], top: nodes[low].getBoundingClientRect().top } : null;
  }

  /**
   * Asks for the past while there is room for it on the screen; nobody can scroll up in what does not scroll.
   * @param {Room} room
   */
  #fill(room) {
    const { scroller } = this.ui;
    const at = `${room.name} ${room.items[0]?.id}`;
    if (room.older !== 'some' || room.state !== 'joined' || at === this.askedAt || scroller.scrollHeight > scroller.clientHeight) return;
    this.askedAt = at;
    this.on.older();
  }

  #jump() {
    if (this.atEnd) this.newBelow = 0;
    this.ui.jump.hidden = this.atEnd;
    setText(this.ui['jump-text'], this.newBelow > 0 ? `${this.newBelow} new below` : 'Newest messages');
  }

  #scrolled() {
    const { scroller } = this.ui;
    const room = this.state?.rooms.get(this.state.current);
    if (!room) return;
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    this.atEnd = below < AT_END_PX && spanOf(room.items, this.from).end === room.items.length;
    if (this.atEnd) {
      this.places.delete(room.name);
    } else {
      this.from = held(room.items, this.from);
      this.places.set(room.name, { top: scroller.scrollTop, from: this.from });
    }
    this.#jump();
    this.#near(room);
  }

  /**
   * Brings more into the document when one is near to an edge of it. Also to be looked at when messages came: who is
   * at the very top cannot scroll, and so could not ask.
   * @param {Room} room
   */
  #near(room) {
    if (this.atEnd) return;
    const { scroller } = this.ui;
    const { start, end } = spanOf(room.items, this.from);
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    if (below < NEAR_PX && end < room.items.length) this.#slide(room, STEP);
    else if (scroller.scrollTop < NEAR_PX && start > 0) this.#slide(room, -STEP);
    else if (scroller.scrollTop < NEAR_PX) this.on.older();
  }

  /**
   * @param {Room} room
   * @param {number} by
   */
  #slide(room, by) {
    this.from = moved(room.items, this.from, by);
    this.#redraw(true);
  }

  /**
   * Of all times of messages one is in the order of focus: this one, or the one that was, or the last.
   * @param {HTMLElement | null} next
   * @returns {HTMLElement | null}
   */
  #rove(next) {
    const now = this.ui.messages.querySelector('.when[tabindex="0"]');
    const all = this.ui.messages.getElementsByClassName('when');
    const chosen = next ?? (now && !now.matches('.latest .when') ? now : all[all.length - 1]);
    if (chosen !== now) now?.setAttribute('tabindex', '-1');
    chosen?.setAttribute('tabindex', '0');
    return chosen ?? null;
  }

  /** @param {KeyboardEvent} event  on the time of a message: arrows go to that of the next */
  #arrow(event) {
    const when = /** @type {HTMLElement} */ (event.target).closest?.('.when');
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!when || by === undefined) return;
    event.preventDefault();
    const all = [...this.ui.messages.querySelectorAll('.when')];
    const next = all[all.indexOf(when) + by];
    if (!next) return;
    this.#rove(next)?.focus({ preventScroll: true });
    next.scrollIntoView({ block: 'nearest' });
  }

  /** @param {any} event  a click in the transcript */
  #clicked(event) {
    const action = event.target.closest('[data-action]')?.dataset.action;
    const { id, mid } = event.target.closest('li')?.dataset ?? {};
    if (mid && action === 'retry') this.on.retry(mid);
    else if (mid && action === 'discard') this.on.discard(mid);
    else if (action === 'bridge') this.on.bridge();
    else if (id && action === 'details') this.open = this.open === id ? '' : id;
    else if (id && action === 'unfold' && !this.whole.delete(id)) this.whole.add(id);
    if (action === 'details') this.#rove(event.target.closest('.when'));
    if (action === 'details' || action === 'unfold') this.#redraw(true);
  }

  #listen() {
    const { ui, on } = this;
    ui.transcript.addEventListener('click', (/** @type {Event} */ event) => this.#clicked(event));
    ui.transcript.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#arrow(event));
    ui.scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    ui.scroller.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      // The end of what is in the document need not be the end.
      if (event.key === 'End') {
        event.preventDefault();
        this.toEnd();
      }
    });
    ui.older.addEventListener('click', () => {
      // One who asks to see the past stays where they are.
      this.atEnd = false;
      const room = this.state?.rooms.get(this.state.current);
      if (room && spanOf(room.items, this.from).start > 0) this.#slide(room, -STEP);
      else on.older();
    });
    ui.jump.addEventListener('click', () => {
      this.toEnd();
      ui.compose.focus();
    });
    // A keyboard that opens, or a turned screen, must not hide the newest message.
    new ResizeObserver(() => this.settle()).observe(ui.scroller);
  }
}
