// The timeline of a video: a bar for each of its moments, the higher the better it fits the query; the scale is that of
// the ranking. It is one slider: arrows go from one matching moment to the next, Enter plays from there.

const HEIGHT = 24;
const asked = new Map();  // of the search on the screen: video → promise of its moments
const settings = new WeakMap();

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    fill(target);
  }
}, { rootMargin: "200px" });

export function forget() {
  asked.clear();
}

export function timeline(bar, hit, { name, first, last, side, moments, play, look }) {
  const end = hit.duration ?? hit.end;
  if (!hit.video || hit.start === null || !(end > 0)) { bar.remove(); return; }
  const own = { start: hit.start, end: hit.end, scores: { [side]: hit.lanes.seen?.score ?? hit.score } };
  const state = { hit, end, first, last, side, moments: [own], at: 0, load: moments, play, look };
  settings.set(bar, state);
  bar.ariaLabel = `Moments of ${name}`;
  bar.ariaValueMin = "0";
  bar.ariaValueMax = end.toFixed(1);
  draw(bar);
  tell(bar, 0);
  if (moments) near.observe(bar);
}

async function fill(bar) {
  const state = settings.get(bar);
  const { video_id: video } = state.hit;
  if (!asked.has(video)) asked.set(video, state.load(video));
  const moments = await asked.get(video);
  if (!moments?.length || !bar.isConnected) return;
  state.moments = moments;
  draw(bar);
  tell(bar, best(state));
}

const score = (state, moment) => moment.scores[state.side];
// A moment that would be in the ranking by itself; the only one that is known is.
const fits = (state, moment) => score(state, moment) >= state.last || state.moments.length === 1;

function best(state) {
  const at = state.hit.timestamp ?? (state.hit.start + state.hit.end) / 2;
  return Math.max(0, state.moments.findLastIndex((moment) => moment.start <= at));
}

function draw(bar) {
  const state = settings.get(bar);
  const scores = state.moments.map((moment) => score(state, moment));
  const high = Math.max(state.first, ...scores);
  const low = 2 * state.last - state.first;  // as far below the last hit as that is below the first
  const svg = bar.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${state.end} ${HEIGHT}`);
  svg.replaceChildren(...state.moments.map((moment, index) => {
    const height = HEIGHT * (high > low ? Math.max(0.1, (scores[index] - low) / (high - low)) : 1);
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const length = moment.end - moment.start;
    const width = Math.max(length - Math.min(length / 10, state.end / 150), state.end / 300);
    const box = { x: moment.start, y: HEIGHT - height, width, height };
    for (const [attribute, value] of Object.entries(box)) rect.setAttribute(attribute, value);
    rect.classList.toggle("fits", fits(state, moment));
    return rect;
  }));
}

function tell(bar, index) {
  const state = settings.get(bar);
  state.at = index;
  const moment = state.moments[index];
  const words = `${moment.start.toFixed(1)} to ${moment.end.toFixed(1)} s, ${score(state, moment).toFixed(3)}`;
  bar.ariaValueNow = moment.start.toFixed(1);
  bar.ariaValueText = fits(state, moment) ? words : `${words}, no match`;
  bar.querySelector("output").textContent = words;
  for (const [n, rect] of [...bar.querySelectorAll("rect")].entries()) rect.classList.toggle("at", n === index && state.moments.length > 1);
}

function under(bar, { clientX }) {
  const { left, width } = bar.querySelector("svg").getBoundingClientRect();
  const { moments, end } = settings.get(bar);
  return Math.max(0, moments.findLastIndex((moment) => moment.start <= (clientX - left) / width * end));
}

function next(state, step) {
  for (let n = state.at + step; n >= 0 && n < state.moments.length; n += step) if (fits(state, state.moments[n])) return n;
  return state.at;
}

let soon;
function show(bar, index) {
  const state = settings.get(bar);
  if (index === state.at) return;
  tell(bar, index);
  clearTimeout(soon);
  soon = setTimeout(() => state.look((state.moments[index].start + state.moments[index].end) / 2), 120);
}

const barOf = ({ target }) => target.closest?.(".timeline");
const main = document.querySelector("main");

main.addEventListener("pointermove", (event) => { const bar = barOf(event); if (bar) show(bar, under(bar, event)); });
main.addEventListener("pointerout", (event) => {
  const bar = barOf(event);
  if (bar && !bar.contains(event.relatedTarget) && bar !== document.activeElement) show(bar, best(settings.get(bar)));
});
main.addEventListener("focusout", (event) => { const bar = barOf(event); if (bar) show(bar, best(settings.get(bar))); });
main.addEventListener("click", (event) => {
  const bar = barOf(event);
  if (!bar) return;
  show(bar, under(bar, event));
  settings.get(bar).play(settings.get(bar).moments[settings.get(bar).at].start);
});
main.addEventListener("keydown", (event) => {
  const bar = barOf(event);
  if (!bar) return;
  const state = settings.get(bar);
  const to = {
    ArrowLeft: () => next(state, -1),
    ArrowRight: () => next(state, 1),
    Home: () => next({ ...state, at: -1 }, 1),
    End: () => next({ ...state, at: state.moments.length }, -1),
  }[event.key];
  if (to) show(bar, Math.max(0, Math.min(to(), state.moments.length - 1)));
  else if (event.key === "Enter" || event.key === " ") state.play(state.moments[state.at].start);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
