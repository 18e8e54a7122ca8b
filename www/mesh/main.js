/** Wires the mesh view: asks the nodes, puts their answers together, draws. Only this file knows clock and network. */
import { setText } from '../dom.js';
import { readAnswer } from './answer.js';
import { addresses, mark, newWorld, picture, takeAnswer, takeFailure } from './model.js';
import { Poll, TIMEOUT_MS } from './poll.js';
import { drawDetails, drawEvents, drawLacking, drawMatrix, drawNodes, drawRegistries } from './table.js';
import { announcement, compare, newTimeline } from './timeline.js';
import { View } from './view.js';
import { summary } from './words.js';

const TICK_MS = 250;
/** Nothing new is drawn again after so many ticks: times pass. */
const IDLE_TICKS = 4;

const find = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
/** A clock that never goes back, of the time of day. */
const clock = () => performance.timeOrigin + performance.now();

const poll = new Poll(location.origin, clock());
let world = newWorld(location.origin);
let timeline = newTimeline();
let told = { id: 0, at: 0 };
/** @type {string | null} */
let chosen = null;
let fresh = true;
let ticks = 0;
/** Rises when the page comes back to sight: what was asked before that may have slept, and says nothing. */
let waking = 0;

const view = new View(find('picture'), (origin) => {
  chosen = origin === chosen ? null : origin;
  draw(clock());
});

/** @param {string} url */
async function ask(url) {
  const asked = waking;
  let answer = null;
  try {
    const response = await fetch(`${url}/api/mesh`, {
      signal: AbortSignal.timeout(TIMEOUT_MS), credentials: 'omit', cache: 'no-store', redirect: 'error',
    });
    if (response.ok) answer = readAnswer(await response.json());
  } catch {
    // No answer: refused, not in time, or not JSON.
  }
  const now = clock();
  const counts = asked === waking && !document.hidden;
  poll.done(url, !counts || answer !== null, now);
  if (!counts) return;
  world = answer ? takeAnswer(world, url, answer, now) : takeFailure(world, url, now);
  const { urls, aliases } = addresses(world, now);
  poll.learn(urls, aliases, now);
  fresh = true;
}

function tick() {
  if (document.hidden) return;
  const now = clock();
  for (const url of poll.due(now)) ask(url);
  ticks += 1;
  if (fresh || ticks % IDLE_TICKS === 0) draw(now);
}

/** @param {number} now */
function draw(now) {
  fresh = false;
  world = mark(world, now);
  const shown = picture(world, now);
  timeline = compare(timeline, shown, now);
  if (chosen !== null && !shown.nodes.some((node) => node.origin === chosen)) chosen = null;
  view.render(shown, chosen);
  drawNodes(find('nodes'), shown);
  drawMatrix(find('matrix'), shown);
  drawDetails(find('details'), shown, chosen);
  drawRegistries(find('registries'), shown);
  drawLacking(find('lacking'), shown);
  find('lacking-section').hidden = shown.lacking.length === 0;
  drawEvents(find('events'), timeline);
  setText(find('summary'), summary(shown));
  find('summary').dataset.state = stateOf(shown);
  find('hint').hidden = chosen !== null;
  find('no-registries').hidden = shown.registries.length > 0;
  notice(shown);
  const words = announcement(timeline, told, now);
  if (!words) return;
  told = words.told;
  setText(find('announce'), words.text);
}

/**
 * @param {import('./model.js').Picture} shown
 * @returns {string}
 */
function stateOf(shown) {
  if (shown.blind) return shown.nodes.length === 0 ? 'asking' : 'blind';
  const living = new Set(shown.nodes.filter((node) => node.alive).map((node) => node.origin));
  const broken = shown.links.some((link) => living.has(link.speaker) && living.has(link.hearer) && link.state !== 'up');
  return broken || shown.nodes.some((node) => !node.alive) ? 'troubled' : 'well';
}

/** @param {import('./model.js').Picture} shown */
function notice(shown) {
  const through = shown.nodes.find((node) => node.answer);
  const gone = shown.orphan && through;
  find('notice').hidden = !gone && !(shown.blind && shown.nodes.length > 0);
  if (gone) setText(find('notice'), `The node that served this page does not answer. The page goes on through \u2068${through.name}\u2069 and the others; reload it from one of them to keep it after this tab is closed.`);
  else if (shown.blind) setText(find('notice'), 'No node answers. The page goes on asking.');
}

document.addEventListener('visibilitychange', () => {
  waking += 1;
  if (document.hidden) return;
  poll.wake(clock());
  tick();
});
addEventListener('online', () => poll.wake(clock()));
// Not within the observer's turn: what is drawn may change sizes.
new ResizeObserver(() => requestAnimationFrame(() => draw(clock()))).observe(find('picture'));
find('close').addEventListener('click', () => {
  const origin = chosen;
  chosen = null;
  draw(clock());
  find('picture').querySelector(`[data-origin="${CSS.escape(origin ?? '')}"]`)?.focus();
});
setInterval(tick, TICK_MS);
tick();
