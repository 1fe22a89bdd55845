// Gap and hubs of the collection: segments and queries on a plane, and how often segments are near to queries.

import { nameOf, secondsOf } from "./moments.js";

const SOURCES = { feedback: "that people typed here", bank: "of the bank that the adapter was made of" };

function shape(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

const part = (name) => document.querySelector(name);
const percent = (share) => `${Math.round(100 * share)} %`;

function plane({ segments, plain, adapted, ...gap }) {
  const drawing = part("figure > svg");
  const { width, height } = drawing.viewBox.baseVal;
  const all = [...segments, ...plain, ...adapted];
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...all.map((point) => point[axis]))));
  const scale = Math.min(...[width, height].map((size, axis) => (size - 24) / (high[axis] - low[axis] || 1)));
  const at = ([x, y]) => [width / 2 + (x - (low[0] + high[0]) / 2) * scale, height / 2 - (y - (low[1] + high[1]) / 2) * scale];
  drawing.firstElementChild.replaceChildren(
    ...segments.map(at).map(([cx, cy]) => shape("circle", { class: "segment", cx, cy, r: 2 })),
    ...plain.map(at).map(([x, y]) => shape("rect", { class: "plain", x: x - 2, y: y - 2, width: 4, height: 4 })),
    ...adapted.map(at).map(([x, y]) => shape("path", { class: "adapted", d: "M0-3 3 0 0 3-3 0Z", transform: `translate(${x} ${y})` })),
  );
  part("#plane-words").textContent =
    `The mean query is ${gap.apart_plain.toFixed(2)} away from the mean segment, an adapted one ${gap.apart_adapted.toFixed(2)}. A query's best segment ` +
    `has a cosine of ${gap.best_plain.toFixed(2)} in the mean, and of ${gap.best_adapted.toFixed(2)} when it is adapted. Drawn across is the direction ` +
    "between the two means, and up the widest spread beside it. A gap alone makes no ranking bad; hubs do.";
}

function curves(rankings, { queries, k }) {
  const drawing = document.querySelectorAll("figure > svg")[1];
  const [left, bottom, width, height] = [36, 268, 312, 248];
  const ranks = Math.max(...rankings.map(({ curve }) => curve.at(-1)[0]));
  const most = Math.max(...rankings.map(({ most: top }) => top));
  const x = (rank) => left + width * Math.log(rank) / Math.log(ranks);
  const y = (count) => bottom - height * count / most;
  const ticks = [1, 10, 100, 1000, 10_000].filter((rank) => rank <= ranks);
  drawing.setAttribute("class", `curves${rankings.length}`);
  drawing.firstElementChild.replaceChildren(
    ...ticks.flatMap((rank) => [shape("line", { class: "tick", x1: x(rank), x2: x(rank), y1: bottom - height, y2: bottom }), shape("text", { x: x(rank), y: bottom + 12, "text-anchor": "middle" }, rank.toLocaleString("en"))]),
    ...[0, most].flatMap((count) => [shape("line", { class: "tick", x1: left, x2: left + width, y1: y(count), y2: y(count) }), shape("text", { x: left - 4, y: y(count) + 3, "text-anchor": "end" }, count)]),
    shape("text", { x: left + width / 2, y: bottom + 26, "text-anchor": "middle" }, "segments, the greatest hub first"),
    ...rankings.map(({ curve }, index) => shape("polyline", { class: `curve c${index}`, points: curve.map(([rank, count]) => `${x(rank).toFixed(1)},${y(count).toFixed(1)}`).join(" ") })),
  );
  part("#curves").className = `legend curves${rankings.length}`;
  part("#curves").replaceChildren(...rankings.map(({ name }, index) => {
    const item = document.createElement("li");
    const line = shape("svg", { viewBox: "-8 -8 16 16" });
    line.append(shape("path", { class: `curve c${index}`, d: "M-8 0H8" }));
    item.append(line, ` ${name}`);
    return item;
  }));
  part("#curve-words").textContent =
    `How many of the ${queries} queries have a segment among their ${k} nearest. ` +
    rankings.map(({ name, most: top }) => `By ${name}, the greatest hub is near to ${top} queries (${percent(top / queries)})`).join(". ") + ".";
}

function table(rankings, { queries, chance }) {
  const rows = [...rankings.map(({ name, skewness, most, unseen }) => [name, skewness.toFixed(2), `${most} of ${queries} queries`, percent(unseen)]), ["by chance", chance.toFixed(2), "", ""]];
  part("#hubness tbody").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((textContent, index) => Object.assign(document.createElement(index ? "td" : "th"), index ? { textContent } : { textContent, scope: "row" })));
    return row;
  }));
}

function hub(hit, rankings) {
  const item = document.createElement("li");
  const name = nameOf(hit);
  const line = (textContent) => Object.assign(document.createElement("p"), { textContent });
  if (hit.frame) item.append(Object.assign(document.createElement("img"), { src: hit.frame, alt: `Frame of ${name}`, loading: "lazy", width: 480, height: 360 }));
  item.append(line([name, secondsOf(hit)].filter(Boolean).join(", ")));
  item.append(...rankings.map(({ name: ranking }, index) => line(`${ranking}: ${hit.occurrences[index]}`)));
  return item;
}

export function hubs({ working, done, total, error, measured: taken }) {
  const bar = part("#measuring");
  bar.hidden = !working;
  if (working && total) Object.assign(bar, { max: total, value: done });
  const drawn = Boolean(taken?.plane);
  for (const name of [".figures", "#hubness"]) part(name).hidden = !drawn;
  part("#sample").textContent = !taken ? error || "Measured once the collection is read." :
    drawn ? `${taken.segments.toLocaleString("en")} segments and ${taken.queries.toLocaleString("en")} queries ${SOURCES[taken.source]}, each drawn by a seed. ${taken.note}`
    : taken.note;
  if (!drawn) return;
  plane(taken.plane);
  curves(taken.rankings, taken);
  table(taken.rankings, taken);
  part("#hubs").replaceChildren(...taken.hubs.map((each) => hub(each, taken.rankings)));
}
