/**
 * Draws the messages of one room: nodes are keyed, so that what is there already stays, is not announced twice by
 * a screen reader, and keeps its selection. All text goes in by `textContent`; links are made of checked http(s)
 * addresses only.
 */
import { element, keyed } from './dom.js';
import { hue, initials } from './names.js';

/** Messages of one sender stand under one name if they are no further apart. */
const GROUP_MS = 5 * 60_000;
const URLS = /https?:\/\/[^\s<>"']{2,2000}/g;

/**
 * @typedef {object} Row  one line of the transcript, as drawn
 * @property {string} key
 * @property {'message' | 'notice' | 'day' | 'unread'} kind
 * @property {string} look  equal looks are drawn alike: only a changed one is drawn again
 * @property {any} data
 */

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const exactFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const dayKeyFormat = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit' });

/** Day of a time; formatting is slow and neighbours are mostly of one hour. */
const dayOf = (() => {
  let hour = NaN;
  let day = '';
  return (/** @type {number} */ ms) => {
    // Quarters, for there are time zones off by quarters of an hour.
    const quarter = Math.floor(ms / 900_000);
    if (quarter !== hour) {
      hour = quarter;
      day = dayKeyFormat.format(ms);
    }
    return day;
  };
})();

/**
 * What is to be seen of a room, from top to bottom.
 * @param {import('./state.js').Room} room
 * @param {readonly import('./state.js').Pending[]} outbox
 * @param {string} name ours
 * @returns {Row[]}
 */
export function rows(room, outbox, name) {
  /** @type {Row[]} */
  const list = [];
  let day = '';
  let from = '';
  let at = 0;
  let unread = room.unreadFrom;
  let lastOwn = '';
  const outgoing = outbox.filter((pending) => pending.room === room.name);
  if (outgoing.length === 0) {
    const last = room.items.findLast((item) => item.kind === 'message');
    if (last?.kind === 'message' && last.own) lastOwn = last.id;
  }
  const heading = (/** @type {number} */ ms) => {
    const today = dayOf(ms);
    if (today === day) return;
    day = today;
    from = '';
    list.push({ key: `day ${today}`, kind: 'day', look: today, data: { ms } });
  };
  const grouped = (/** @type {string} */ who, /** @type {number} */ ms) => {
    const same = who === from && ms - at < GROUP_MS;
    from = who;
    at = ms;
    return same;
  };
  for (const item of room.items) {
    if (item.kind !== 'message') {
      list.push({ key: item.id, kind: 'notice', look: `${item.kind}${item.lost}`, data: item });
      from = '';
      continue;
    }
    const ms = item.ts / 1000;
    heading(ms);
    if (unread && (item.ts > unread.ts || (item.ts === unread.ts && item.origin >= unread.origin))) {
      unread = null;
      from = '';
      list.push({ key: 'unread', kind: 'unread', look: '', data: null });
    }
    const together = grouped(`${item.own ? '*' : ''}${item.from}`, ms);
    const state = item.own ? (item.copies > 0 ? 'kept' : 'sent') : '';
    const latest = item.id === lastOwn;
    list.push({
      // One key from the moment of sending on, so that a settled message is the same node.
      key: item.mid ? `m ${item.mid}` : item.id, kind: 'message',
      look: `${item.id}|${together}|${state}${item.copies}|${latest}|${item.own}|${item.from}|${item.text}`,
      data: { ...item, ms, together, state, latest, reason: '' },
    });
  }
  for (const pending of outgoing) {
    heading(pending.at);
    const together = grouped(`*${name}`, pending.at);
    list.push({
      key: `m ${pending.mid}`, kind: 'message',
      look: `|${together}|${pending.state}|${pending.reason}|${name}|${pending.text}`,
      data: {
        id: '', mid: pending.mid, from: name, text: pending.text, ms: pending.at, own: true, together, latest: true,
        state: pending.state, copies: 0, reason: pending.reason,
      },
    });
  }
  return list;
}

/**
 * @param {HTMLElement} node an avatar
 * @param {string} name
 */
export function fillAvatar(node, name) {
  node.className = `avatar hue-${hue(name)}`;
  node.textContent = initials(name);
}

/**
 * Text with its http and https addresses as links, and all else as it is.
 * @param {HTMLElement} parent
 * @param {string} text
 */
function fillText(parent, text) {
  parent.replaceChildren();
  let done = 0;
  for (const match of text.matchAll(URLS)) {
    // A sentence may end behind an address, or be in brackets.
    const address = match[0].replace(/[.,;:!?)\]}]+$/, '');
    let url;
    try {
      url = new URL(address);
    } catch {
      continue;
    }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') continue;
    parent.append(text.slice(done, match.index));
    const link = /** @type {HTMLAnchorElement} */ (element('a', '', address));
    link.href = url.href;
    link.rel = 'noopener noreferrer nofollow';
    link.target = '_blank';
    parent.append(link);
    done = match.index + address.length;
  }
  parent.append(text.slice(done));
}

/**
 * @param {string} state
 * @param {number} copies
 * @returns {string}
 */
function stateText(state, copies) {
  if (state === 'kept') return `kept by ${copies} other ${copies === 1 ? 'node' : 'nodes'}`;
  return { sending: 'sending', sent: 'sent', failed: 'not sent' }[state] ?? '';
}

/**
 * @param {HTMLElement} node
 * @param {any} data
 */
function fillMessage(node, data) {
  node.className = `message${data.own ? ' own' : ''}${data.together ? ' together' : ''}${data.latest ? ' latest' : ''}`;
  node.dataset.id = data.id;
  if (data.own) {
    node.dataset.mid = data.mid;
    node.dataset.state = data.state;
  }
  if (!node.firstChild) {
    const bubble = element('div', 'bubble');
    const head = element('p', 'head');
    head.append(element('bdi', 'from'));
    const text = element('p', 'text');
    text.dir = 'auto';
    const meta = element('p', 'meta');
    meta.append(element('time'), element('span', 'state'));
    bubble.append(head, text, meta);
    node.append(element('span', 'avatar'), bubble);
    node.firstElementChild?.setAttribute('aria-hidden', 'true');
  }
  const find = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (node.querySelector(selector));
  fillAvatar(find('.avatar'), data.from);
  find('.from').className = `from hue-${hue(data.from)}`;
  find('.from').textContent = data.from;
  fillText(find('.text'), data.text);
  const time = /** @type {HTMLTimeElement} */ (find('time'));
  const date = new Date(data.ms);
  time.textContent = timeFormat.format(date);
  time.dateTime = date.toISOString();
  time.title = data.id ? `${exactFormat.format(date)}\n${data.id}` : exactFormat.format(date);
  const state = find('.state');
  state.textContent = stateText(data.state, data.copies);
  state.title = state.textContent;
  const failed = data.state === 'failed';
  let actions = node.querySelector('.actions');
  if (failed && !actions) {
    actions = element('p', 'actions');
    for (const [action, label] of [['retry', 'Try again'], ['discard', 'Discard']]) {
      const button = element('button', 'small', label);
      button.setAttribute('type', 'button');
      button.dataset.action = action;
      actions.append(button);
    }
    actions.prepend(element('span', 'why'));
    find('.bubble').append(actions);
  }
  if (!failed) actions?.remove();
  else if (actions) /** @type {HTMLElement} */ (actions.firstElementChild).textContent = data.reason;
}

/**
 * @param {HTMLElement} node
 * @param {Row} row
 */
function fillRow(node, row) {
  if (node.dataset.look === row.look) return;
  node.dataset.look = row.look;
  if (row.kind === 'message') {
    fillMessage(node, row.data);
  } else if (row.kind === 'day') {
    node.className = 'day';
    node.replaceChildren(element('span', '', dayFormat.format(row.data.ms)));
  } else if (row.kind === 'unread') {
    node.className = 'unread';
    node.replaceChildren(element('span', '', 'New messages'));
  } else {
    const { kind, lost } = row.data;
    node.className = 'notice';
    node.dataset.kind = kind;
    const gap = lost > 0 ? `${lost} ${lost === 1 ? 'message is' : 'messages are'} lost here: no node has ${lost === 1 ? 'it' : 'them'} any more`
      : 'Messages are lost here: no node has them any more';
    node.replaceChildren(element('span', '', kind === 'gap' ? gap : 'Messages may be missing here'));
  }
}

/**
 * Draws the rows into the transcript.
 * @param {HTMLElement} list
 * @param {readonly Row[]} drawn
 */
export function drawRows(list, drawn) {
  keyed(list, drawn, (row) => row.key, fillRow);
}
