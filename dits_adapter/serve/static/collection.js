// The collection overview: facts, files and failures. The server reads the collection in the background, and is asked
// again until it has.

import { ask } from "./ask.js";
import { pages } from "./pages.js";
import { hubs } from "./hubs.js";

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
  const trained = about.trained_steps === null ? "" : `, ${about.trained_steps} steps`;
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

const complain = (problem) => { error.textContent = problem.message; };

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
  const shown = video ? Object.assign(document.createElement("a"), { href: video, textContent: name }) : name;
  const count = expected !== null && expected !== segments ? `${segments} of ${expected}` : expected === null ? `${segments}, the last one is missing` : String(segments);
  return row([shown, seconds === null ? "not known" : duration(seconds), count]);
}

const lists = [
  pages("files", (from, words, limit) => ask(`api/collection/files?${new URLSearchParams({ words, offset: from, limit })}`).then(({ total, files }) => [total, files.map(file)]), complain),
  pages("failures", (from, words, limit) => ask(`api/collection/failures?${new URLSearchParams({ words, offset: from, limit })}`).then(({ total, failures }) => [total, failures.map(({ path, reason }) => row([path, reason]))]), complain),
];

let shownAt = null;
async function look() {
  try {
    const now = await ask("api/collection");
    facts(now);
    error.textContent = now.error;
    if (now.at !== shownAt) for (const list of lists) list();
    shownAt = now.at;
    if (now.working || now.error) setTimeout(look, now.working ? SOON : LATER);
  } catch (problem) {
    complain(problem);
    setTimeout(look, LATER);
  }
}

async function measure() {
  try {
    const now = await ask("api/collection/hubs");
    hubs(now);
    if (now.working || now.error) setTimeout(measure, now.working ? SOON : LATER);
  } catch (problem) {
    complain(problem);
    setTimeout(measure, LATER);
  }
}

look();
measure();
