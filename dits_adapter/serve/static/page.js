// The whole page is a function of the form; the form is kept in the address, so that a search can be shared.

const form = document.querySelector("form");
const main = document.querySelector("main");
const status = document.querySelector("#status");
const error = document.querySelector("#error");
const template = document.querySelector("template");
const drawing = document.querySelector("figure > svg");
const SIDES = ["plain", "adapted"];
let pending = new AbortController();
let about;

async function ask(path, signal) {
  const response = await fetch(path, { signal });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

// ---- the form ----

function fill(address) {
  for (const [name, value] of new URLSearchParams(address)) {
    if (form.elements[name]) form.elements[name].value = value;
  }
  show();
}

function show() {
  for (const value of form.querySelectorAll(".value")) value.textContent = form.elements[value.dataset.of].value;
  main.dataset.view = form.elements.view.value;
  const { min_probability: least, strength, steps } = form.elements;
  least.disabled = strength.value !== "1" || (about.max_steps !== null && Number(steps.value) !== about.trained_steps);
  document.querySelector("#known").hidden = !least.disabled;
}

function options() {
  const filled = [...new FormData(form)].filter(([name, value]) => value !== "" && name !== "view");
  return new URLSearchParams(filled.filter(([name]) => !form.elements[name].closest("[hidden]")));
}

function remember(how) {
  const state = options();
  if (form.elements.view.value !== "both") state.set("view", form.elements.view.value);
  history[how](null, "", `?${state}`);
}

// ---- searching ----

async function search() {
  if (!form.elements.query.value.trim() || !form.reportValidity()) return;
  pending.abort();
  const mine = (pending = new AbortController());
  main.setAttribute("aria-busy", "true");
  try {
    const found = await ask(`api/search?${options()}`, mine.signal);
    error.textContent = "";
    list(found);
    draw(found);
    main.hidden = false;
    const number = Math.max(found.plain.length, found.adapted.length);
    const each = found.plain.length === found.adapted.length
      ? `${number} each` : `${found.plain.length} by plain CLIP, ${found.adapted.length} by ${adapterName()}`;
    status.textContent = number
      ? `“${found.query}”: ${each}, ${Math.round(found.seconds * 1000)} ms.`
      : "Nothing found; the filters leave no video.";
    main.setAttribute("aria-busy", "false");
  } catch (problem) {
    if (problem.name === "AbortError") return;
    error.textContent = problem instanceof TypeError  // what fetch throws where nobody answers
      ? "The server does not answer. Is `dits-adapter serve` still running?"
      : problem.message;
    status.textContent = "";
    main.hidden = true;
  }
}

let timer;
function searchSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => { remember("replaceState"); search(); }, 150);
}

// ---- the two rankings ----

const key = (hit) => `${hit.video_id} ${hit.start}`;
const place = (hits, hit) => hits.findIndex((other) => other.video_id === hit.video_id) + 1;

function move(rank, before) {
  if (!before) return "not found by plain CLIP";
  if (before === rank) return "same place";
  return before > rank ? `▲ up from ${before}` : `▼ down from ${before}`;
}

function list(found) {
  for (const side of SIDES) {
    const items = found[side].map((hit, index) => {
      const item = template.content.cloneNode(true).firstElementChild;
      const name = hit.path ? hit.path.split(/[\\/]/).pop() : hit.video_id;
      item.dataset.key = key(hit);
      item.querySelector("h3").textContent = `${index + 1}. ${name}`;
      item.querySelector("h3").title = hit.path ?? "";
      item.querySelector(".score").textContent = hit.score.toFixed(3);
      if (hit.probability !== null) item.querySelector(".likely").textContent = likely(hit.probability);
      if (side === "adapted") item.querySelector(".move").textContent = move(index + 1, place(found.plain, hit));
      if (hit.start !== null) item.querySelector(".span").textContent = span(hit);
      clip(item, hit, name);
      return item;
    });
    document.querySelector(`section.${side} ol`).replaceChildren(...items);
  }
}

function likely(probability) {
  const percent = 100 * probability;
  return `${percent < 1 ? "under 1" : percent > 99 ? "over 99" : Math.round(percent)} % likely`;
}

function span(hit) {
  const best = hit.timestamp === null ? "" : `, best at ${hit.timestamp.toFixed(1)} s`;
  return `${hit.start.toFixed(1)} to ${hit.end.toFixed(1)} s${best}`;
}

const posters = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.poster = target.dataset.poster;
    posters.unobserve(target);
  }
}, { rootMargin: "200px" });

function clip(item, hit, name) {
  const [video, button] = item.querySelectorAll("video, button");
  if (!hit.video) { item.querySelector(".clip").remove(); return; }
  const start = hit.timestamp ?? hit.start;
  video.src = `${hit.video}#t=${start.toFixed(3)}`;
  video.dataset.poster = hit.frame;
  video.ariaLabel = name;
  posters.observe(video);
  button.ariaLabel = `Play ${name} from ${start.toFixed(1)} s`;
  button.addEventListener("click", () => {
    button.hidden = true;
    video.controls = true;
    video.focus();
    video.play().catch(() => {});  // what cannot be played says so below
  });
  video.addEventListener("error", () => {
    video.controls = false;
    button.hidden = true;
    item.querySelector(".unplayable").hidden = false;
  });
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
  });
}

// ---- the map ----

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function draw({ map, plain, adapted, moved }) {
  const hits = (found) => found.filter((hit) => hit.position);
  const all = [...map.path, map.query, ...map.cloud, ...hits(plain).map((h) => h.position), ...hits(adapted).map((h) => h.position)];
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...all.map((point) => point[axis]))));
  const { width, height } = drawing.viewBox.baseVal;
  const margin = 16;
  const scale = Math.min(...[width, height].map((size, axis) => (size - 2 * margin) / (high[axis] - low[axis] || 1)));
  const at = ([x, y]) => [
    width / 2 + (x - (low[0] + high[0]) / 2) * scale,
    height / 2 - (y - (low[1] + high[1]) / 2) * scale,
  ].map((value) => value.toFixed(1));
  const dot = (point, kind, r) => { const [cx, cy] = at(point); return shape("circle", { class: kind, cx, cy, r }); };
  const marked = (hit, kind, r) => { const mark = dot(hit.position, kind, r); mark.dataset.key = key(hit); return mark; };
  const [x, y] = at(map.path[0]);

  drawing.firstElementChild.replaceChildren(
    ...map.cloud.map((point) => dot(point, "other", 2)),
    ...hits(adapted).map((hit) => marked(hit, "disc", 4.5)),
    ...hits(plain).map((hit) => marked(hit, "ring", 6.5)),
    shape("polyline", { class: "way", points: map.path.map((point) => at(point).join()).join(" ") }),
    ...map.path.slice(1).map((point) => dot(point, "step", 2.5)),
    shape("rect", { class: "start", x: x - 5, y: y - 5, width: 10, height: 10 }),
    shape("path", { class: "sent", d: "M0-7 7 0 0 7-7 0Z", transform: `translate(${at(map.query)})` }),
  );
  const best = (found) => (found.length ? found[0].score.toFixed(2) : "none");
  document.querySelector("#map-words").textContent =
    `The adapter turns the query by ${moved.toFixed(0)}°; the cosine of its best hit goes from ${best(plain)} to ` +
    `${best(adapted)}. Drawn are the two principal components of path and hits, ${Math.round(map.explained * 100)} % ` +
    "of their variance.";
}

function light({ target, type }) {
  const item = target.closest("section li");
  if (!item) return;
  const lit = type === "pointerover" || type === "focusin";
  for (const mark of document.querySelectorAll("[data-key]")) mark.classList.toggle("lit", lit && mark.dataset.key === item.dataset.key);
}
for (const event of ["pointerover", "pointerout", "focusin", "focusout"]) main.addEventListener(event, light);

// ---- start ----

form.addEventListener("submit", (event) => { event.preventDefault(); remember("pushState"); search(); });
form.addEventListener("input", ({ target }) => {
  show();
  if (target.name === "view") remember("replaceState");
  else if (target.name !== "query") searchSoon();
});
addEventListener("popstate", () => { form.reset(); defaults(); fill(location.search); search(); });

const adapterName = () => (about.adapter === "dits" ? "DITS" : about.adapter);

function defaults() {
  form.elements.strength.value = about.strength;
  form.elements.min_probability.parentElement.hidden = !about.calibrated;
  document.querySelector("#known").textContent =
    `known at strength 1${about.max_steps === null ? "" : ` and T′ ${about.trained_steps}`} only`;
  if (about.max_steps === null) return;
  form.elements.steps.max = about.max_steps;
  form.elements.steps.value = about.trained_steps;
  form.elements.steps.parentElement.hidden = false;
}

try {
  about = await ask("api/about");
  const subject = document.querySelector("#about");
  subject.textContent = `${about.segments} segments in “${about.collection}”, ${about.space.split(" [")[0]}`;
  subject.title = about.space;
  for (const element of document.querySelectorAll(".adapter")) element.textContent = adapterName();
  defaults();
  fill(location.search);
  search();
} catch (problem) {
  error.textContent = problem.message;
}
