/** Draws the tokens of a message. All of it goes in as text; links are those that the parser has checked. */
import { element } from './dom.js';
import { isJumbo, parse } from './words.js';

/**
 * @param {HTMLElement} parent
 * @param {string} text
 * @param {import('./words.js').Who} who
 */
export function fillWords(parent, text, who) {
  const tokens = parse(text, who);
  parent.classList.toggle('jumbo', isJumbo(tokens));
  parent.replaceChildren(...tokens.map(draw));
}

/**
 * @param {import('./words.js').Token} token
 * @returns {Node}
 */
function draw(token) {
  switch (token.kind) {
    case 'bold': case 'italic': {
      const node = element(token.kind === 'bold' ? 'strong' : 'em');
      node.append(...token.inner.map(draw));
      return node;
    }
    case 'code': return element('code', '', token.text);
    case 'block': {
      const node = element('pre');
      // Long lines scroll, so a keyboard must be able to.
      node.tabIndex = 0;
      node.setAttribute('role', 'region');
      node.setAttribute('aria-label', 'Code');
      node.append(element('code', '', token.text));
      return node;
    }
    case 'link': {
      const node = /** @type {HTMLAnchorElement} */ (element('a', '', token.text));
      node.href = token.href;
      node.rel = 'noopener noreferrer nofollow';
      node.target = '_blank';
      // A host in foreign letters that look like ours is seen here as what it is.
      node.title = token.href;
      return node;
    }
    case 'mention': return element('bdi', token.own ? 'mention me' : 'mention', token.text);
    case 'emoji': return titled(element('span', 'emoji', token.text), `:${token.name}:`);
    case 'odd': return titled(element('span', 'odd', token.text), token.code);
    default: return document.createTextNode(token.text);
  }
}

/**
 * @param {HTMLElement} node
 * @param {string} title
 * @returns {HTMLElement}
 */
function titled(node, title) {
  node.title = title;
  return node;
}
