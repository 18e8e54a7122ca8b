/**
 * The list that offers names and emoji while one is typed. Focus stays in the field; the list is told to screen
 * readers by `aria-activedescendant`.
 */
import { completion } from './complete.js';
import { element } from './dom.js';

export class Completer {
  /**
   * @param {Document} document
   * @param {HTMLTextAreaElement} field
   * @param {{members: () => readonly string[], changed: () => void, announce: (text: string) => void}} on
   */
  constructor(document, field, on) {
    this.on = on;
    this.field = field;
    this.list = /** @type {HTMLElement} */ (document.getElementById('options'));
    /** @type {import('./complete.js').Completion | null} */
    this.offer = null;
    this.chosen = 0;
    field.addEventListener('input', (event) => this.#look(/** @type {InputEvent} */ (event)));
    field.addEventListener('blur', () => this.close());
    // Before the field loses focus, or the list would be gone under the finger.
    this.list.addEventListener('pointerdown', (event) => {
      const option = /** @type {HTMLElement} */ (event.target).closest('[role="option"]');
      event.preventDefault();
      if (option) this.#take([...this.list.children].indexOf(option));
    });
  }

  close() {
    this.offer = null;
    this.list.hidden = true;
    this.field.removeAttribute('aria-activedescendant');
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} whether the key was meant for the list
   */
  key(event) {
    if (!this.offer || event.isComposing) return false;
    const { length } = this.offer.options;
    if (event.key === 'ArrowDown') this.#choose((this.chosen + 1) % length);
    else if (event.key === 'ArrowUp') this.#choose((this.chosen + length - 1) % length);
    else if ((event.key === 'Enter' || event.key === 'Tab') && !event.shiftKey) this.#take(this.chosen);
    else if (event.key === 'Escape') this.close();
    else return false;
    event.preventDefault();
    return true;
  }

  /** @param {InputEvent} event */
  #look(event) {
    const caret = this.field.selectionStart;
    const alone = caret === this.field.selectionEnd && !event.isComposing;
    this.offer = alone ? completion(this.field.value, caret, this.on.members()) : null;
    if (!this.offer) {
      this.close();
      return;
    }
    const { options, kind } = this.offer;
    this.list.replaceChildren(...options.map((option, index) => {
      const node = element('li');
      node.id = `option-${index}`;
      node.setAttribute('role', 'option');
      if (option.sign) node.append(element('span', 'sign', option.sign));
      node.append(element('bdi', '', option.label));
      return node;
    }));
    this.list.setAttribute('aria-label', kind === 'name' ? 'Members' : 'Emoji');
    if (this.list.hidden) this.on.announce(`${options.length} ${kind === 'name' ? 'names' : 'emoji'}, arrows to choose`);
    this.list.hidden = false;
    this.#choose(0);
  }

  /** @param {number} index */
  #choose(index) {
    this.chosen = index;
    [...this.list.children].forEach((node, at) => node.setAttribute('aria-selected', String(at === index)));
    this.field.setAttribute('aria-activedescendant', `option-${index}`);
  }

  /** @param {number} index */
  #take(index) {
    if (!this.offer) return;
    const { from, to, options } = this.offer;
    this.field.setRangeText(options[index].insert, from, to, 'end');
    this.close();
    this.on.changed();
  }
}
