/**
 * Draws the messages of one room: nodes are keyed, so that what is there already stays, is not announced twice by
 * a screen reader, and keeps its selection. All text goes in by `textContent`.
 */
import { writeAddress } from './address.js';
import { element, keyed } from './dom.js';
import { hue, initials } from './names.js';
import { fillWords } from './wording.js';
import { isLong } from './words.js';

/** Messages of one sender stand under one name if they are no further apart. */
const GROUP_MS = 5 * 60_000;

/**
 * @typedef {object} Row  one line of the transcript, as drawn
 * @property {string} key
 * @property {'message' | 'notice' | 'people' | 'day' | 'unread'} kind
 * @property {string} look  equal looks are drawn alike: only a changed one is drawn again
 * @property {any} data
 */

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const exactFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
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
 * @typedef {object} Shown  what part of a room is drawn, and how
 * @property {number} start    the first of its items
 * @property {number} end      behind the last of its items
 * @property {string} name     ours
 * @property {ReadonlySet<string>} known  names that can be mentioned
 * @property {string} open     id of the message whose details are shown, or ''
 * @property {ReadonlySet<string>} whole  ids of long messages that are shown whole
 * @property {string} found    id of the message that was sought, or ''
 */

/**
 * What is to be seen of a room, from top to bottom.
 * @param {import('./state.js').Room} room
 * @param {readonly import('./state.js').Pending[]} outbox
 * @param {Shown} shown
 * @returns {Row[]}
 */
export function rows(room, outbox, { start, end, name, known, open, whole, found }) {
  /** @type {Row[]} */
  const list = [];
  let day = '';
  let from = '';
  let at = 0;
  let unread = room.unreadFrom;
  let lastOwn = '';
  const outgoing = end < room.items.length ? [] : outbox.filter((pending) => pending.room === room.name);
  if (outgoing.length === 0) {
    const last = room.items.findLast((item) => item.kind === 'message');
    if (last?.kind === 'message' && last.own) lastOwn = last.id;
  }
  const who = { own: name, known };
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
  for (const item of room.items.slice(start, end)) {
    if (item.kind === 'people') {
      list.push({ key: item.id, kind: 'people', look: `${item.came.join('\n')}|${item.left.join('\n')}`, data: item });
      continue;
    }
    if (item.kind !== 'message') {
      list.push({ key: item.id, kind: 'notice', look: `${item.kind}${item.lost}${item.loading}`, data: item });
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
      look: `${item.id}|${together}|${state}${item.copies}${item.keeper}|${latest}|${item.own}|${item.late}|${item.id === open}|${whole.has(item.id)}|${
        item.id === found}|${name}|${item.from}|${item.text}`,
      data: {
        ...item, ms, together, state, latest, reason: '', room: room.name, who,
        open: item.id === open, whole: whole.has(item.id), found: item.id === found,
      },
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
        state: pending.state, copies: 0, keeper: false, reason: pending.reason, late: false, room: room.name, who,
        open: false, whole: false, found: false,
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
 * @param {string} state
 * @param {number} copies
 * @param {boolean} keeper whether one of them outlives all nodes
 * @returns {string}
 */
function stateText(state, copies, keeper) {
  const nodes = copies - (keeper ? 1 : 0);
  const others = `${nodes} other ${nodes === 1 ? 'node' : 'nodes'}`;
  if (state === 'kept' && keeper) return nodes > 0 ? `kept for good, and by ${others}` : 'kept for good';
  if (state === 'kept') return `kept by ${others}`;
  return { sending: 'sending', sent: 'sent', failed: 'not sent' }[state] ?? '';
}

/** The parts of a message that is drawn for the first time. */
function messageParts() {
  const bubble = element('div', 'bubble');
  const head = element('p', 'head');
  head.append(element('bdi', 'from'));
  const text = element('div', 'text');
  text.dir = 'auto';
  const meta = element('p', 'meta');
  // One of these is in the order of focus; scroller.js moves it with the arrows.
  const when = element('button', 'when');
  when.setAttribute('type', 'button');
  when.dataset.action = 'details';
  when.tabIndex = -1;
  when.append(element('time'));
  meta.append(element('span', 'late'), when, element('span', 'state'));
  bubble.append(head, text, meta);
  const avatar = element('span', 'avatar');
  avatar.setAttribute('aria-hidden', 'true');
  return [avatar, bubble];
}

/**
 * @param {HTMLElement} node
 * @param {any} data
 */
function fillMessage(node, data) {
  const flags = ['own', 'together', 'latest', 'found'].filter((flag) => data[flag]);
  node.className = ['message', ...flags].join(' ');
  node.dataset.id = data.id;
  if (data.own) {
    node.dataset.mid = data.mid;
    node.dataset.state = data.state;
  }
  if (!node.firstChild) node.append(...messageParts());
  const find = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (node.querySelector(selector));
  fillAvatar(find('.avatar'), data.from);
  find('.from').className = `from hue-${hue(data.from)}`;
  find('.from').textContent = data.from;
  const text = find('.text');
  fillWords(text, data.text, data.who);
  node.classList.toggle('to-me', !data.own && text.querySelector('.me') !== null);
  text.classList.toggle('folded', isLong(data.text) && !data.whole);
  const time = /** @type {HTMLTimeElement} */ (find('time'));
  const date = new Date(data.ms);
  time.textContent = timeFormat.format(date);
  time.dateTime = date.toISOString();
  time.title = exactFormat.format(date);
  find('.when').setAttribute('aria-expanded', String(data.open));
  find('.late').textContent = data.late ? 'came late' : '';
  const state = find('.state');
  state.textContent = stateText(data.state, data.copies, data.keeper);
  state.title = state.textContent;
  const failed = data.state === 'failed';
  node.querySelector('.details')?.remove();
  part(node, '.details', data.open, () => details(data));
  part(node, '.unfold', isLong(data.text), () => button('unfold small', 'unfold', ''));
  if (isLong(data.text)) find('.unfold').textContent = data.whole ? 'Show less' : 'Show all of it';
  part(node, '.actions', failed, () => {
    const actions = element('p', 'actions');
    actions.append(element('span', 'why'), button('small', 'retry', 'Try again'), button('small', 'discard', 'Discard'));
    return actions;
  });
  if (failed) find('.why').textContent = data.reason;
}

/**
 * Adds a part to a message's bubble, or takes it away.
 * @param {HTMLElement} node
 * @param {string} selector
 * @param {boolean} wanted
 * @param {() => HTMLElement} make
 */
function part(node, selector, wanted, make) {
  const there = node.querySelector(selector);
  if (!wanted) there?.remove();
  else if (!there) node.querySelector('.bubble')?.append(make());
}

/**
 * @param {string} className
 * @param {string} action
 * @param {string} label
 * @returns {HTMLElement}
 */
function button(className, action, label) {
  const node = element('button', className, label);
  node.setAttribute('type', 'button');
  node.dataset.action = action;
  return node;
}

/**
 * @param {any} data
 * @returns {HTMLElement} the exact time, and what else is known of a message
 */
function details(data) {
  const node = element('p', 'details');
  const exact = element('span', 'exact', exactFormat.format(new Date(data.ms)));
  const link = /** @type {HTMLAnchorElement} */ (element('a', '', 'Link to this message'));
  link.href = writeAddress(data.room, data.id);
  node.append(exact);
  if (data.late) node.append(element('span', '', 'It came after messages that were said later.'));
  if (data.state) node.append(element('span', '', `Here: ${stateText(data.state, data.copies, data.keeper)}.`));
  node.append(link);
  return node;
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
  } else if (row.kind === 'people') {
    node.className = 'people-line';
    node.replaceChildren(...sentenceOf(row.data.came, 'came'), row.data.came.length > 0 && row.data.left.length > 0 ? ', ' : '',
      ...sentenceOf(row.data.left, 'left'));
  } else if (row.kind === 'day') {
    node.className = 'day';
    node.replaceChildren(element('span', '', dayFormat.format(row.data.ms)));
  } else if (row.kind === 'unread') {
    node.className = 'unread';
    node.replaceChildren(element('span', '', 'New messages'));
  } else {
    fillNotice(node, row.data);
  }
}

/**
 * @param {readonly string[]} names
 * @param {string} verb
 * @returns {(Node | string)[]} such as "eve and bob came"
 */
function sentenceOf(names, verb) {
  const shown = names.length > 5 ? names.slice(0, 4) : names;
  const parts = shown.flatMap((name, index) => [
    index === 0 ? '' : index === names.length - 1 ? ' and ' : ', ', element('bdi', '', name),
  ]);
  if (shown.length < names.length) parts.push(` and ${names.length - shown.length} more`);
  return names.length === 0 ? [] : [...parts, ` ${verb}`];
}

/**
 * @param {HTMLElement} node
 * @param {import('./messages.js').Notice} notice
 */
function fillNotice(node, { kind, lost, loading }) {
  node.className = 'notice';
  node.dataset.kind = kind;
  const gap = lost > 0 ? `Up to ${lost} ${lost === 1 ? 'message is' : 'messages are'} lost here: no node has ${lost === 1 ? 'it' : 'them'} any more`
    : 'Messages are lost here: no node has them any more';
  const missing = loading ? 'Looking for what was said meanwhile…' : 'Messages may be missing here';
  node.replaceChildren(element('span', '', kind === 'gap' ? gap : missing));
  if (kind === 'missing' && !loading) node.firstElementChild?.append(' ', button('small', 'bridge', 'Look for them'));
}

/**
 * Draws the rows into the transcript.
 * @param {HTMLElement} list
 * @param {readonly Row[]} drawn
 */
export function drawRows(list, drawn) {
  keyed(list, drawn, (row) => row.key, fillRow);
}
