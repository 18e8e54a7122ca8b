/** The search of the room shown: a dialog with a field and what was found, newest first. */
import { element, setText } from './dom.js';
import { hits } from './hits.js';

const whenFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const PAUSE_MS = 350;

export class Search {
  /**
   * @param {Document} document
   * @param {import('./view.js').Actions} on
   */
  constructor(document, on) {
    const find = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
    this.on = on;
    this.dialog = /** @type {HTMLDialogElement} */ (find('search'));
    this.field = /** @type {HTMLInputElement} */ (find('search-input'));
    this.results = /** @type {HTMLElement} */ (find('search-results'));
    this.status = /** @type {HTMLElement} */ (find('search-status'));
    this.more = /** @type {HTMLButtonElement} */ (find('search-more'));
    this.where = /** @type {HTMLElement} */ (find('search-room'));
    /** What was asked for last; answers to anything else come too late. */
    this.asked = '';
    /** @type {string | null} */
    this.oldest = null;
    this.count = 0;
    this.timer = 0;
    this.field.addEventListener('input', () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#ask(), PAUSE_MS);
    });
    find('search-form').addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#ask();
    });
    this.more.addEventListener('click', () => this.#page(this.oldest));
    find('search-close').addEventListener('click', () => this.dialog.close());
    this.dialog.addEventListener('click', (event) => {
      // The dialog itself is hit only beside its content.
      if (event.target === this.dialog) this.dialog.close();
    });
    this.results.addEventListener('click', (event) => {
      const id = /** @type {HTMLElement} */ (/** @type {HTMLElement} */ (event.target).closest('[data-hit]'))?.dataset.hit;
      if (!id) return;
      this.dialog.close();
      on.seek(id);
    });
  }

  show() {
    if (!this.dialog.open) this.dialog.showModal();
    this.field.focus();
    this.field.select();
  }

  /** @param {string} room the one that is searched */
  render(room) {
    if (this.where.textContent === room) return;
    this.where.textContent = room;
    this.asked = '';
    this.#clear('');
  }

  #ask() {
    clearTimeout(this.timer);
    const query = this.field.value.trim();
    if (query === this.asked) return;
    this.asked = query;
    this.#clear(query === '' ? '' : 'Searching…');
    if (query !== '') this.#page(null);
  }

  /** @param {string} status */
  #clear(status) {
    this.results.replaceChildren();
    this.count = 0;
    this.oldest = null;
    this.more.hidden = true;
    setText(this.status, status);
  }

  /** @param {string | null} before */
  #page(before) {
    const query = this.asked;
    this.more.disabled = true;
    this.on.search(query, before, (fault, reply) => {
      if (query !== this.asked) return;
      this.more.disabled = false;
      if (fault) {
        // Asked for again, it may well be answered.
        this.asked = '';
        setText(this.status, fault.code === 'lost' ? 'Not connected: try again when you are.' : fault.message || fault.code);
        return;
      }
      const messages = (Array.isArray(reply.messages) ? reply.messages : []).filter((/** @type {any} */ message) => (
        typeof message?.id === 'string' && typeof message.text === 'string' && typeof message.from === 'string'));
      this.results.append(...messages.map((/** @type {any} */ message) => hit(message, query)).reverse());
      this.count += messages.length;
      this.oldest = messages[0]?.id ?? this.oldest;
      this.more.hidden = reply.more !== true || messages.length === 0;
      const found = `${this.count}${this.more.hidden ? '' : ' newest'} ${this.count === 1 ? 'message' : 'messages'} found`;
      setText(this.status, this.count === 0 ? 'Nothing was found. Whole words are looked for.' : found);
    });
  }
}

/**
 * @param {any} message
 * @param {string} query
 * @returns {HTMLElement}
 */
function hit(message, query) {
  const node = element('li');
  const button = element('button', 'hit');
  button.setAttribute('type', 'button');
  button.dataset.hit = message.id;
  const text = element('span', 'hit-text');
  text.dir = 'auto';
  text.append(...hits(message.text, query).map((piece) => (piece.hit ? element('mark', '', piece.text) : piece.text)));
  const head = element('span', 'hit-head');
  head.append(element('bdi', '', message.from), element('time', '', whenFormat.format(message.ts / 1000)));
  button.append(head, text);
  node.append(button);
  return node;
}
