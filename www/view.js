/**
 * Draws the state. The markup is in index.html, and fixed; `render` may be called at any time and any number of
 * times, and touches only what differs. What a person does goes out through the `on` callbacks.
 * The ids that tests rely on are listed at the top of index.html.
 */
import { Composer } from './composer.js';
import { element, keyed, setText } from './dom.js';
import { Drawers } from './drawers.js';
import { Scroller } from './scroller.js';
import { Search } from './search.js';
import { mentionTotal, unreadTotal } from './state.js';
import { fillAvatar } from './transcript.js';

/**
 * @typedef {object} Actions
 * @property {(room: string) => void} open
 * @property {(room: string) => void} leave
 * @property {(typed: string) => boolean} join    false if no room can be called that
 * @property {(typed: string) => string | null} rename  the name taken, null if nobody can be called that
 * @property {(text: string) => void} send
 * @property {(text: string) => void} draft
 * @property {() => void} older
 * @property {() => void} reconnect
 * @property {(mid: string) => void} retry
 * @property {(mid: string) => void} discard
 * @property {() => void} bridge                  look for what may be missing in the room shown
 * @property {(id: string) => void} seek          show this message of the room shown
 * @property {() => void} arrived                 it is shown
 * @property {(query: string, before: string | null, done: (fault: any, reply?: any) => void) => void} search
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
    this.said = '';
    this.scroller = new Scroller(this.ui, on, (text) => this.announce(text));
    this.search = new Search(document, on);
    this.drawers = new Drawers(document);
    this.composer = new Composer(document, {
      draft: on.draft,
      send: (text) => {
        this.scroller.toEnd();
        on.send(text);
      },
      resized: () => this.scroller.settle(),
      members: () => this.#people(),
      page: (pages) => this.scroller.page(pages),
      announce: (text) => this.announce(text),
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
    const calls = mentionTotal(state);
    const news = [calls > 0 ? `@${calls}` : '', total > 0 ? String(total) : ''].filter((part) => part !== '').join(' · ');
    this.document.title = `${news === '' ? '' : `(${news}) `}#${room.name} · chatmesh`;
    this.#status(state);
    this.#rooms(state, total);
    this.#members(state, room);
    this.#typing(room);
    this.scroller.render(state, before);
    this.search.render(room.name);
    if (state.target?.state === 'lost') {
      this.announce('That message cannot be found.');
      this.on.arrived();
    }
    this.composer.render(room, before?.rooms.get(room.name), before?.current !== state.current, state.limits.text_bytes);
    if (before?.name !== state.name) {
      if (this.document.activeElement !== this.ui.name) this.ui.name.value = state.name;
      fillAvatar(this.ui['my-avatar'], state.name);
    }
  }

  /** @returns {string[]} who can be spoken to in the room shown: who is there, and who spoke lately */
  #people() {
    const room = this.state?.rooms.get(this.state.current);
    const spoke = (room?.items ?? []).slice(-200).flatMap((item) => (item.kind === 'message' ? [item.from] : []));
    return [...new Set([...(room?.members ?? []), ...spoke.reverse()])].filter((name) => name !== this.state?.name);
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
        open.append(element('span', 'hash', '#'), element('bdi', 'room-label', room.name), element('span', 'calls'), element('span', 'count'), element('span', 'hidden'));
        for (const shown of open.querySelectorAll('.hash, .calls, .count')) shown.setAttribute('aria-hidden', 'true');
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
      setText(/** @type {HTMLElement} */ (open.querySelector('.count')), unread);
      const calls = room.mentions > 99 ? '@99+' : room.mentions > 0 ? `@${room.mentions}` : '';
      setText(/** @type {HTMLElement} */ (open.querySelector('.calls')), calls);
      open.classList.toggle('has-unread', unread !== '');
      const heard = room.state === 'refused' ? `, refused: ${room.reason}`
        : `${unread ? `, ${unread} unread` : ''}${calls ? `, ${room.mentions} for you` : ''}`;
      setText(/** @type {HTMLElement} */ (open.lastElementChild), heard);
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
      const name = on.rename(ui.name.value);
      setText(ui['name-error'], name !== null ? '' : 'A name has 1 to 32 visible characters.');
      if (name !== null) ui.name.value = name;
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
    ui.retry.addEventListener('click', () => on.reconnect());
    document.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      const writing = /** @type {HTMLElement} */ (event.target).matches?.('input, textarea, select');
      const modified = event.ctrlKey || event.metaKey;
      if ((modified && !event.altKey && !event.shiftKey && event.key.toLowerCase() === 'k') || (event.key === '/' && !modified && !event.altKey && !writing)) {
        event.preventDefault();
        this.search.show();
      } else if (event.key === 'Escape' && !event.defaultPrevented && !event.isComposing && this.ui.shade.hidden && !this.ui.search.open) {
        this.scroller.toEnd();
        ui.compose.focus();
      }
    });
    ui['search-open'].addEventListener('click', () => this.search.show());
  }
}

/**
 * @param {string} text
 * @returns {string} with a capital letter at its head
 */
function sentence(text) {
  return text === '' ? 'Not connected' : text[0].toUpperCase() + text.slice(1);
}
