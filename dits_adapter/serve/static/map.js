// The map: the query's path across the gap, and the hits.

import { key } from "./rankings.js";

const main = document.querySelector("main");
const drawing = document.querySelector("figure > svg");

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function draw({ map, plain, adapted, angle }) {
  const drawn = (results) => results.filter((hit) => hit.position);
  const all = [...map.path, map.query, ...map.cloud, ...drawn(plain).map((h) => h.position), ...drawn(adapted).map((h) => h.position)];
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
    ...drawn(adapted).map((hit) => marked(hit, "disc", 4.5)),
    ...drawn(plain).map((hit) => marked(hit, "ring", 6.5)),
    shape("polyline", { class: "path", points: map.path.map((point) => at(point).join()).join(" ") }),
    ...map.path.slice(1).map((point) => dot(point, "step", 2.5)),
    shape("rect", { class: "start", x: x - 5, y: y - 5, width: 10, height: 10 }),
    shape("path", { class: "sent", d: "M0-7 7 0 0 7-7 0Z", transform: `translate(${at(map.query)})` }),
  );
  const fused = [...plain, ...adapted].some((hit) => hit.lanes.said || hit.lanes.seen);
  const best = (results) => (results.length ? results[0].score.toFixed(2) : "none");
  document.querySelector("#map-words").textContent =
    `The adapter turns the query by ${angle.toFixed(0)}°${fused ? "" : `; the cosine of its best hit goes from ${best(plain)} to ${best(adapted)}`}. ` +
    `Drawn are the two principal components of path and hits, ${Math.round(map.explained_variance * 100)} % ` +
    "of their variance.";
}

function light({ target, type }) {
  const item = target.closest("section li");
  if (!item) return;
  const lit = type === "pointerover" || type === "focusin";
  for (const mark of document.querySelectorAll("[data-key]")) mark.classList.toggle("lit", lit && mark.dataset.key === item.dataset.key);
}
for (const event of ["pointerover", "pointerout", "focusin", "focusout"]) main.addEventListener(event, light);
