/** The field in which messages are written. */
import { Completer } from './completer.js';
import { setText } from './dom.js';
import { byteLength } from './wire.js';

const HEIGHT_MAX_PX = 200;

export class Composer {
  /**
   * @param {Document} document
   * @param {{draft: (text: string) => void, send: (text: string) => void, resized: () => void, members: () => readonly string[],
   *   page: (pages: number) => void, announce: (text: string) => void}} on
   */
  constructor(document, on) {
    this.on = on;
    this.field = /** @type {HTMLTextAreaElement} */ (document.getElementById('compose'));
    this.button = /** @type {HTMLButtonElement} */ (document.getElementById('send'));
    this.note = /** @type {HTMLElement} */ (document.getElementById('compose-note'));
    this.limit = Infinity;
    this.completer = new Completer(document, this.field, {
      members: on.members,
      announce: on.announce,
      changed: () => {
        on.draft(this.field.value);
        this.#measure();
      },
    });
    this.field.addEventListener('keydown', (event) => {
      if (this.completer.key(event)) return;
      // In a field that does not scroll these keys would do nothing.
      if ((event.key === 'PageUp' || event.key === 'PageDown') && this.field.scrollHeight <= this.field.clientHeight) {
        event.preventDefault();
        on.page(event.key === 'PageUp' ? -1 : 1);
      }
      // Enter that ends a composition (of Japanese, say) is not meant for us.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.field.addEventListener('input', () => {
      on.draft(this.field.value);
      this.#measure();
    });
    document.getElementById('compose-form')?.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#measure();
  }

  /**
   * @param {import('./room.js').Room} room
   * @param {import('./room.js').Room | undefined} before  the same room as last drawn
   * @param {boolean} switched  whether another room was shown
   * @param {number} limit      bytes
   */
  render(room, before, switched, limit) {
    const placeholder = `Message #${room.name}`;
    if (this.field.placeholder !== placeholder) this.field.placeholder = placeholder;
    // While a person types, the field is ahead of the state; it is set only if another text belongs there.
    const emptied = room.draft === '' && before !== undefined && before.draft !== '';
    if (!switched && !emptied && limit === this.limit) return;
    if (switched || emptied) this.field.value = room.draft;
    this.limit = limit;
    this.#measure();
  }

  #send() {
    this.completer.close();
    this.#measure();
    if (!this.button.disabled) {
      const text = this.field.value;
      this.field.value = '';
      this.on.send(text);
      this.#measure();
    }
    this.field.focus();
  }

  /** Fits the field to its text, and says when the text is too long. */
  #measure() {
    const { field } = this;
    field.style.setProperty('height', 'auto');
    field.style.setProperty('height', `${Math.min(field.scrollHeight, HEIGHT_MAX_PX)}px`);
    const bytes = byteLength(field.value);
    const over = bytes - this.limit;
    setText(this.note, over > 0 ? `Too long by ${over} bytes.` : bytes > this.limit * 0.8 ? `${-over} bytes left.` : '');
    field.setAttribute('aria-invalid', String(over > 0));
    this.button.disabled = over > 0 || field.value.trim() === '';
    this.on.resized();
  }
}
