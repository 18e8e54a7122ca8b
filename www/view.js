/**
 * Draws the state. The markup is in index.html, and fixed; `render` may be called at any time and any number of
 * times, and touches only what differs. What a person does goes out through the `on` callbacks.
 * The ids that tests rely on are listed at the top of index.html.
 */
import { Composer } from './composer.js';
import { element, keyed, setText } from './dom.js';
import { Drawers } from './drawers.js';
import { unreadTotal } from './state.js';
import { drawRows, fillAvatar, rows } from './transcript.js';

/** Nearer to the end than this is at the end: new messages scroll in by themselves. */
const AT_END_PX = 60;
/** Nearer to the top than this asks for older messages. */
const NEAR_TOP_PX = 160;

/**
 * @typedef {object} Actions
 * @property {(room: string) => void} open
 * @property {(room: string) => void} leave
 * @property {(typed: string) => boolean} join    false if no room can be called that
 * @property {(typed: string) => boolean} rename  false if nobody can be called that
 * @property {(text: string) => void} send
 * @property {(text: string) => void} draft
 * @property {() => void} older
 * @property {() => void} reconnect
 * @property {(mid: string) => void} retry
 * @property {(mid: string) => void} discard
 */

export class View {
  /**
   * @param {Document} document
   * @param {Actions} on
   */
  constructor(document, on) {
    this.document = document;
    this.on = on;
    this.ui = /** @type {Record<string, any>} */ (new Proxy({}, {
      get: (_, id) => document.getElementById(String(id)),
    }));
    /** @type {import('./state.js').State | null} */
    this.state = null;
    this.atEnd = true;
    /** Where each room was left, so that one comes back to the same place. */
    this.places = new Map();
    this.said = '';
    this.newBelow = 0;
    /** Where the past was last asked for without a person's doing: asked once only. */
    this.askedAt = '';
    this.drawers = new Drawers(document);
    this.composer = new Composer(document, {
      draft: on.draft,
      send: (text) => {
        this.atEnd = true;
        on.send(text);
      },
      resized: () => {
        if (this.atEnd) this.ui.scroller.scrollTop = this.ui.scroller.scrollHeight;
      },
    });
    this.#listen();
  }

  /** @param {import('./state.js').State} state */
  render(state) {
    const before = this.state;
    if (before === state) return;
    this.state = state;
    const room = /** @type {import('./state.js').Room} */ (state.rooms.get(state.current));
    const total = unreadTotal(state);
    this.document.title = `${total > 0 ? `(${total}) ` : ''}#${room.name} · chatmesh`;
    this.#status(state);
    this.#rooms(state, total);
    this.#members(state, room);
    this.#typing(room);
    this.#transcript(state, before, room);
    this.composer.render(room, before?.rooms.get(room.name), before?.current !== state.current, state.limits.text);
    if (before?.name !== state.name) {
      if (this.document.activeElement !== this.ui.name) this.ui.name.value = state.name;
      fillAvatar(this.ui['my-avatar'], state.name);
    }
  }

  /** Says a thing to screen readers. */
  announce(/** @type {string} */ text) {
    if (this.said !== text) this.ui.announce.textContent = text;
    this.said = text;
  }

  /** @param {import('./state.js').State} state */
  #status({ link, now }) {
    const { status } = link;
    const node = link.name || (link.node ? new URL(link.node).host : '');
    const seconds = Math.max(0, Math.ceil((link.retryAt - Math.max(now, 0)) / 1000));
    const wait = link.retryAt > 0 && now > 0 && seconds > 0 ? ` in ${seconds} s` : '';
    const verb = {
      connecting: 'connecting to ', connected: 'connected to ', resumed: 'resumed on ',
      reconnecting: `reconnecting${wait}`, offline: `offline, trying again${wait}`, stopped: 'stopped',
    }[status];
    const named = status === 'connecting' || status === 'connected' || status === 'resumed';
    const shown = this.ui.status;
    shown.dataset.state = status;
    shown.dataset.node = link.name;
    shown.title = link.node + (link.reason ? `\n${link.reason}` : '');
    setText(this.ui['status-verb'], verb);
    setText(this.ui['status-node'], named ? node : '');
    // The countdown is for the eye only: read out, it would drown everything else.
    const said = status === 'stopped' ? `stopped: ${link.reason}` : named ? verb + node : status;
    this.announce(said);
    this.ui.retry.hidden = status !== 'stopped' && !(link.retryAt > 0 && seconds > 2);
    const banner = status === 'stopped' ? `Not connected: ${link.reason}. What you write is kept and sent later.`
      : status === 'offline' ? 'You are offline. What you write is kept and sent when you are back.'
        : status === 'reconnecting' || (status === 'connecting' && link.reason !== '') ? `${sentence(link.reason)}. What you write is kept and sent as soon as a node answers.` : '';
    this.ui.banner.hidden = banner === '';
    setText(this.ui.banner, banner);
  }

  /**
   * @param {import('./state.js').State} state
   * @param {number} total
   */
  #rooms(state, total) {
    this.ui['rooms-dot'].hidden = total === 0;
    this.ui['rooms-open'].setAttribute('aria-label', total > 0 ? `Rooms, ${total} unread` : 'Rooms');
    keyed(this.ui.rooms, [...state.rooms.values()], (room) => room.name, (node, room) => {
      if (!node.firstChild) {
        const open = element('button', 'room');
        open.dataset.room = room.name;
        open.append(element('span', 'hash', '#'), element('bdi', 'room-label', room.name), element('span', 'count'));
        open.firstElementChild?.setAttribute('aria-hidden', 'true');
        const leave = element('button', 'icon leave', '×');
        leave.dataset.leave = room.name;
        leave.setAttribute('aria-label', `Leave ${room.name}`);
        for (const button of [open, leave]) button.setAttribute('type', 'button');
        node.append(open, leave);
      }
      const [open, leave] = /** @type {HTMLElement[]} */ (/** @type {unknown} */ (node.children));
      if (room.name === state.current) open.setAttribute('aria-current', 'true');
      else open.removeAttribute('aria-current');
      const unread = room.state === 'refused' ? '!' : room.unread > 999 ? '999+' : room.unread > 0 ? String(room.unread) : '';
      setText(/** @type {HTMLElement} */ (open.lastElementChild), unread);
      open.classList.toggle('has-unread', unread !== '');
      const label = room.state === 'refused' ? `${room.name}, refused: ${room.reason}` : `${room.name}${unread ? `, ${unread} unread` : ''}`;
      open.setAttribute('aria-label', label);
      leave.hidden = state.rooms.size === 1;
    });
  }

  /**
   * @param {import('./state.js').State} state
   * @param {import('./state.js').Room} room
   */
  #members(state, room) {
    setText(this.ui['room-name'], room.name);
    setText(this.ui['members-count'], String(room.count));
    setText(this.ui['members-badge'], room.count > 999 ? '999+' : String(room.count));
    this.ui['members-open'].setAttribute('aria-label', `Members, ${room.count}`);
    keyed(this.ui.members, room.members, (name) => name, (node, name) => {
      if (!node.firstChild) {
        const avatar = element('span', 'avatar');
        avatar.setAttribute('aria-hidden', 'true');
        fillAvatar(avatar, name);
        node.append(avatar, element('bdi', 'member', name), element('span', 'you'));
      }
      setText(/** @type {HTMLElement} */ (node.lastElementChild), name === state.name ? 'you' : '');
    });
    const more = room.count - room.members.length;
    setText(this.ui['members-more'], more > 0 && room.state === 'joined' ? `and ${more} more` : '');
    this.ui['members-panel'].classList.toggle('stale', room.state !== 'joined');
  }

  /** @param {import('./state.js').Room} room */
  #typing(room) {
    const names = [...room.typing.keys()];
    const shown = this.ui.typing;
    const look = names.join('\n');
    if (shown.dataset.look === look) return;
    shown.dataset.look = look;
    shown.replaceChildren();
    if (names.length > 3) shown.append('several people are typing');
    else names.forEach((name, index) => {
      shown.append(index === 0 ? '' : index === names.length - 1 ? ' and ' : ', ', element('bdi', '', name));
    });
    if (names.length > 0 && names.length <= 3) shown.append(names.length === 1 ? ' is typing' : ' are typing');
    if (names.length > 0) {
      const dots = element('span', 'dots');
      dots.append(element('i'), element('i'), element('i'));
      shown.append(dots);
    }
  }

  /**
   * @param {import('./state.js').State} state
   * @param {import('./state.js').State | null} before
   * @param {import('./state.js').Room} room
   */
  #transcript(state, before, room) {
    const old = before?.rooms.get(room.name);
    const switched = before?.current !== state.current;
    const same = !switched && old?.items === room.items && before?.outbox === state.outbox
      && old?.unreadFrom === room.unreadFrom && before?.name === state.name && before?.mine === state.mine;
    this.#edges(room);
    if (same) return;
    const { scroller, transcript, messages } = this.ui;
    const sending = state.outbox.length > (before?.outbox.length ?? 0) && !switched;
    if (sending) this.atEnd = true;
    if (switched) this.newBelow = 0;
    else if (!this.atEnd && room.items.length > (old?.items.length ?? 0) && room.older === old?.older) {
      this.newBelow += room.items.length - (old?.items.length ?? 0);
    }
    // A whole room put in, or the past put before the present, is not news to be read out.
    const quiet = switched || old?.older === 'loading' || (old?.items.length ?? 0) === 0;
    transcript.setAttribute('aria-live', quiet ? 'off' : 'polite');
    const anchor = this.atEnd || switched ? null : this.#anchor();
    drawRows(messages, rows(room, state.outbox, state.name));
    if (switched) {
      const place = this.places.get(room.name);
      const unread = transcript.querySelector('.unread');
      this.atEnd = place === undefined && !unread;
      if (unread) unread.scrollIntoView({ block: 'center' });
      else scroller.scrollTop = place ?? scroller.scrollHeight;
      this.#scrolled();
    } else if (anchor) {
      scroller.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    } else {
      scroller.scrollTop = scroller.scrollHeight;
    }
    this.#jump();
    this.#fill(room);
    if (quiet) setTimeout(() => transcript.setAttribute('aria-live', 'polite'), 300);
  }

  /**
   * What is above the first message, and what is said when there is none.
   * @param {import('./state.js').Room} room
   */
  #edges(room) {
    const { older, beginning, empty } = this.ui;
    const none = room.items.length === 0;
    const nothing = none && !this.state?.outbox.some((pending) => pending.room === room.name);
    older.hidden = none || !(room.older === 'some' || room.older === 'loading');
    older.disabled = room.older === 'loading';
    setText(older, room.older === 'loading' ? 'Loading…' : 'Load older messages');
    beginning.hidden = none || !(room.older === 'none' || room.older === 'full');
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
   * @param {import('./state.js').Room} room
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
    this.atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < AT_END_PX;
    if (this.state) {
      if (this.atEnd) this.places.delete(this.state.current);
      else this.places.set(this.state.current, scroller.scrollTop);
    }
    this.#jump();
  }

  #listen() {
    const { ui, on, document } = this;
    ui.skip.addEventListener('click', (/** @type {Event} */ event) => {
      // The hash names the room, so the link must not become one.
      event.preventDefault();
      ui.compose.focus();
    });
    ui['room-form'].addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      const ok = on.join(ui['room-input'].value);
      setText(ui['room-error'], ok ? '' : 'A room’s name has letters, digits, dots, hyphens or underscores, at most 64.');
      if (!ok) return;
      ui['room-input'].value = '';
      this.drawers.show(null);
      ui.compose.focus();
    });
    const rename = () => {
      if (ui.name.value === this.state?.name) return;
      const ok = on.rename(ui.name.value);
      setText(ui['name-error'], ok ? '' : 'A name has 1 to 32 visible characters.');
      if (ok && this.state) ui.name.value = this.state.name;
    };
    ui['name-form'].addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      rename();
    });
    ui.name.addEventListener('change', rename);
    ui.name.addEventListener('focus', () => ui.name.select());
    ui.rooms.addEventListener('click', (/** @type {any} */ event) => {
      const leave = event.target.closest('[data-leave]');
      const open = event.target.closest('[data-room]');
      if (leave) on.leave(leave.dataset.leave);
      else if (open) {
        on.open(open.dataset.room);
        this.drawers.show(null);
      }
    });
    ui.transcript.addEventListener('click', (/** @type {any} */ event) => {
      const action = event.target.closest('[data-action]')?.dataset.action;
      const mid = event.target.closest('.message')?.dataset.mid;
      if (mid && action === 'retry') on.retry(mid);
      if (mid && action === 'discard') on.discard(mid);
    });
    ui.scroller.addEventListener('scroll', () => {
      this.#scrolled();
      if (ui.scroller.scrollTop < NEAR_TOP_PX && !this.atEnd) on.older();
    }, { passive: true });
    ui.older.addEventListener('click', () => {
      // One who asks to see the past stays where they are.
      this.atEnd = false;
      on.older();
    });
    ui.jump.addEventListener('click', () => {
      ui.scroller.scrollTop = ui.scroller.scrollHeight;
      ui.compose.focus();
    });
    ui.retry.addEventListener('click', () => on.reconnect());
    // A keyboard that opens, or a turned screen, must not hide the newest message.
    new ResizeObserver(() => {
      if (this.atEnd) ui.scroller.scrollTop = ui.scroller.scrollHeight;
    }).observe(ui.scroller);
  }
}

/**
 * @param {string} text
 * @returns {string} with a capital letter at its head
 */
function sentence(text) {
  return text === '' ? 'Not connected' : text[0].toUpperCase() + text.slice(1);
}
