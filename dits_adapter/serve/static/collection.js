// The collection overview: facts, files and failures. The server reads the collection in the background, and is asked
// again until it has.

import { ask } from "./ask.js";
import { pages } from "./pages.js";
import { hubs } from "./hubs.js";
import { counted, steady } from "./moments.js";

const status = document.querySelector("#status");
const error = document.querySelector("#error");
const SOON = 1000, LATER = 10_000;

const number = (value) => value.toLocaleString("en");

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const rest = `${(seconds % 60).toFixed(seconds < 60 ? 1 : 0)} s`;
  return hours ? `${number(hours)} h ${minutes} min` : minutes ? `${minutes} min ${rest}` : rest;
}

function facts(now) {
  const { about } = now;
  const whole = now.incomplete ? `; of ${number(now.incomplete)} more some segments are missing` : "";
  const trained = about.trained_steps === null ? "" : `, ${counted(about.trained_steps, "step")}`;
  const bias = now.bias === null ? "none" : `weight ${now.bias}; ${now.bias_fits ? "searches by this adapter use it" : "it is for another adapter's queries, and left out"}`;
  const rows = {
    "store": `${now.store}, “${about.collection}”${now.tenant === null ? "" : `, tenant “${now.tenant}”`}`,
    "encoder": about.space,
    "adapter": `${now.adapter_name ?? "not saved"}: ${about.adapter}, strength ${about.strength}${trained}`,
    "probabilities": about.calibrated ? "known: the adapter is calibrated for this collection" : "not known: the adapter is not calibrated, or not for this strength and score bias (dits-adapter calibrate)",
    "videos": `${number(now.videos)}${whole}`,
    "segments": `${number(about.segments)}${now.cut === null ? "" : `, ${now.cut}`}${now.frames ? ", with frame vectors" : ""}`,
    "length": now.seconds === null ? (now.at === null ? "…" : "not known") : `${now.sample ? "about " : ""}${duration(now.seconds)}`,
    "failed files": now.failures === null ? "…" : number(now.failures),
    "score bias": bias,
    "texts beside segments": now.texts ? "yes: what is said can be searched" : "none",
  };
  document.querySelector("#facts").replaceChildren(...Object.entries(rows).flatMap(([name, value]) =>
    [["dt", name], ["dd", value]].map(([tag, textContent]) => Object.assign(document.createElement(tag), { textContent }))));
  document.querySelector("#about").textContent = `“${about.collection}”`;
  const at = now.at && new Date(now.at).toLocaleTimeString();
  status.textContent = now.working
    ? `Reading the collection${now.total ? `: ${number(now.done)} of ${number(now.total)}` : ""}.`
    : now.sample ? `Read at ${at}. The collection is large: the list of videos is a sample.`
    : at ? `Read at ${at}.` : "";
}

const problems = {};  // of each part of the page; what it succeeds in takes its own away
function tell(part, words) {
  problems[part] = words;
  error.textContent = [...new Set(Object.values(problems))].filter(Boolean).join(" ");
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells.map((cell, index) => {
    const made = document.createElement(index ? "td" : "th");
    if (!index) made.scope = "row";
    made.append(cell);
    return made;
  }));
  return line;
}

function file({ name, video, seconds, segments, expected }) {
  const shown = video ? Object.assign(document.createElement("a"), { href: video, textContent: steady(name) }) : steady(name);
  const count = expected !== null && expected !== segments ? `${segments} of ${expected}` : expected === null ? `${segments}, the last one is missing` : String(segments);
  return row([shown, seconds === null ? "not known" : duration(seconds), count]);
}

// Read a page of a list; where the server does not know it yet, the page looks again until it does.
async function read(list, line, words, offset, limit) {
  const { total, [list]: items } = await ask(`api/collection/${list}?${new URLSearchParams({ words, offset, limit })}`);
  if (total === null) {
    shownAt = null;
    lookIn(SOON);
  }
  return [total, items.map(line)];
}

const lists = [
  pages("files", (from, words, limit) => read("files", file, words, from, limit), tell),
  pages("failures", (from, words, limit) => read("failures", ({ path, reason }) => row([steady(path), steady(reason)]), words, from, limit), tell),
];

let timer;
function lookIn(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(look, milliseconds);
}

let shownAt = null;
async function look() {
  try {
    const now = await ask("api/collection");
    facts(now);
    tell("facts", now.error);
    if (now.at !== shownAt) for (const list of lists) list();
    shownAt = now.at;
    if (now.working || now.error) lookIn(now.working ? SOON : LATER);
  } catch (problem) {
    tell("facts", problem.message);
    lookIn(LATER);
  }
}

async function measure() {
  try {
    const now = await ask("api/collection/hubs");
    hubs(now);
    tell("hubs", "");
    if (now.working || now.error) setTimeout(measure, now.working ? SOON : LATER);
  } catch (problem) {
    tell("hubs", problem.message);
    setTimeout(measure, LATER);
  }
}

look();
measure();
