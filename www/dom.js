/** The few things done to the document that more than one file does. */

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElement}
 */
export function element(tag, className = '', text = '') {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/**
 * Makes the children of `parent` those of `items`, keeping nodes whose key is the same.
 * @template T
 * @param {HTMLElement} parent
 * @param {readonly T[]} items
 * @param {(item: T) => string} keyOf
 * @param {(node: HTMLElement, item: T) => void} fill called on new nodes, and on others to bring them up to date
 */
export function keyed(parent, items, keyOf, fill) {
  /** @type {Map<string, HTMLElement>} */
  const nodes = /** @type {any} */ (parent).nodesByKey ?? new Map();
  const next = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const node = nodes.get(key) ?? element('li');
    next.set(key, node);
    fill(node, item);
  }
  for (const [key, node] of nodes) {
    if (!next.has(key)) node.remove();
  }
  let expected = parent.firstChild;
  for (const node of next.values()) {
    if (node === expected) expected = node.nextSibling;
    else parent.insertBefore(node, expected);
  }
  /** @type {any} */ (parent).nodesByKey = next;
}

/**
 * Sets a text only if it differs, so that nothing is selected anew or read out again.
 * @param {HTMLElement} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
