// Shows the nodes as they come and go: one event stream in, one keyed list out.

const $ = (id) => document.getElementById(id);
/** @type {Map<string, {item: HTMLElement, bornAt: number, age: HTMLElement}>} */
const shown = new Map();
/** What is there when the page opens is just there; only what comes later fades in. */
let isFirst = true;

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A link for http(s) addresses, plain text for all else. */
function address(text) {
  if (!/^https?:\/\//.test(text)) return document.createTextNode(text);
  const link = element('a', text);
  link.href = text;
  link.rel = 'noreferrer';
  return link;
}

function fill(item, node) {
  const facts = element('dl');
  const fact = (name, value) => {
    const cell = element('dd');
    cell.append(value);
    facts.append(element('dt', name), cell);
    return cell;
  };
  fact('id', node.id);
  for (const [name, value] of Object.entries(node.endpoints)) fact(name, address(value));
  for (const [name, value] of Object.entries(node.meta)) fact(name, value);
  const age = fact('listed', '');
  item.replaceChildren(element('h2', node.name), facts);
  return age;
}

function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** @param {number} heldMs how long ago the list was made: ages in it are of then */
function render(listing, heldMs = 0) {
  const now = Date.now();
  const live = new Set(listing.nodes.map((node) => node.id));
  for (const [id, { item }] of shown) {
    if (live.has(id)) continue;
    shown.delete(id);
    item.classList.add('going');
    item.setAttribute('aria-hidden', 'true');
    setTimeout(() => item.remove(), 700);
  }
  for (const node of listing.nodes) {
    let entry = shown.get(node.id);
    if (!entry) {
      const item = element('li');
      if (!isFirst) item.classList.add('coming');
      entry = { item, bornAt: now - heldMs - node.age_ms, age: item };
      shown.set(node.id, entry);
      $('nodes').append(item);
      requestAnimationFrame(() => requestAnimationFrame(() => item.classList.remove('coming')));
    }
    entry.age = fill(entry.item, node);
  }
  $('count').textContent = String(listing.nodes.length);
  $('count-word').textContent = listing.nodes.length === 1 ? 'node' : 'nodes';
  $('version').textContent = String(listing.version);
  $('empty').hidden = listing.nodes.length > 0;
  isFirst = false;
  tick();
}

function tick() {
  const now = Date.now();
  for (const { age, bornAt } of shown.values()) age.textContent = duration(now - bornAt);
}

function state(name, text) {
  $('state').dataset.state = name;
  $('state-text').textContent = text;
}

/** The list is for programs with the mesh secret: there is nothing to show, and nothing to wait for. */
function sealed() {
  state('sealed', 'sealed');
  $('listing').hidden = true;
  $('lists').hidden = true;
  $('sealed').hidden = false;
}

function connect() {
  const events = new EventSource('/v1/events');
  events.onopen = () => state('live', 'live');
  events.addEventListener('nodes', (event) => render(JSON.parse(event.data)));
  events.onerror = () => {
    state('lost', 'the registry does not answer; showing what it last said');
    // A browser gives up for good when the answer was an error: then start anew.
    if (events.readyState === EventSource.CLOSED) setTimeout(begin, 2000);
  };
}

async function begin() {
  try {
    const answer = await fetch('/v1/nodes');
    const said = await answer.json();
    if (said.code === 'secret_needed') return sealed();
    render(said, Number(answer.headers.get('age')) * 1000);
  } catch {
    // The stream of events tells what is wrong, and mends it.
  }
  connect();
}

setInterval(tick, 1000);
begin();
