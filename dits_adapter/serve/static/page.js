// The form and its searches. The page is a function of the form, and the form is kept in the address, so that a
// search can be shared.

import { notice, offer } from "./feedback.js";
import { draw } from "./map.js";
import { list, percent } from "./rankings.js";

const form = document.querySelector("form");
const main = document.querySelector("main");
const status = document.querySelector("#status");
const error = document.querySelector("#error");
let pending = new AbortController();
let about;

async function ask(path, signal) {
  const response = await fetch(path, { signal });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

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

function remember(method) {
  const state = options();
  if (form.elements.view.value !== "both") state.set("view", form.elements.view.value);
  history[method](null, "", `?${state}`);
}

async function search() {
  if (!form.elements.query.value.trim() || !form.reportValidity()) return;
  pending.abort();
  const mine = (pending = new AbortController());
  main.setAttribute("aria-busy", "true");
  try {
    const before = about.digest;
    const answer = await newest(mine.signal);
    if (answer.digest !== about.digest) await renew();
    error.textContent = "";
    list(answer);
    offer(answer);
    draw(answer);
    document.querySelector("#any").textContent = any(answer.probability_of_any);
    main.hidden = false;
    const number = Math.max(answer.plain.length, answer.adapted.length);
    const each = answer.plain.length === answer.adapted.length
      ? `${number} each` : `${answer.plain.length} by plain CLIP, ${answer.adapted.length} by ${adapterName()}`;
    status.textContent = number
      ? `“${answer.query}”: ${each}, ${Math.round(answer.seconds * 1000)} ms.${about.digest !== before ? " The adapter is a new one." : ""}`
      : "Nothing found; the filters leave no video.";
    main.setAttribute("aria-busy", "false");
  } catch (problem) {
    if (problem.name === "AbortError") return;
    error.textContent = problem instanceof TypeError  // what fetch throws where nobody answers
      ? "The server does not answer. Is `dits-adapter serve` still running?"
      : problem.message;
    status.textContent = "";
    main.hidden = true;
    offer({ search: null });
  }
}

async function newest(signal) {
  try {
    return await ask(`api/search?${options()}`, signal);
  } catch (problem) {  // perhaps of an option that an adapter lacks which took the old one's place
    if (problem.name === "AbortError" || problem instanceof TypeError || !(await renew())) throw problem;
    return ask(`api/search?${options()}`, signal);
  }
}

async function renew() {
  const before = about;
  about = await ask("api/about");
  if (about.digest === before.digest) return false;
  introduce();
  defaults();
  fill(location.search);
  return true;
}

function any(probability) {
  if (probability === null) return "";
  const words = `${percent(probability)} that any of the ten best hits is right, if half of all queries have their video here.`;
  return probability < 0.5 ? `Probably nothing here fits: ${words}` : words;
}

let timer;
function searchSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => { remember("replaceState"); search(); }, 150);
}

form.addEventListener("submit", (event) => { event.preventDefault(); remember("pushState"); search(); });
form.addEventListener("input", ({ target }) => {
  show();
  if (target.name === "view") remember("replaceState");
  else if (target.name !== "query") searchSoon();
});
addEventListener("popstate", () => { form.reset(); defaults(); fill(location.search); search(); });

const adapterName = () => (about.adapter === "dits" ? "DITS" : about.adapter);

function introduce() {
  const subject = document.querySelector("#about");
  subject.textContent = `${about.segments} segments in “${about.collection}”, ${about.space.split(" [")[0]}`;
  subject.title = about.space;
  for (const element of document.querySelectorAll(".adapter")) element.textContent = adapterName();
  notice(about);
}

function defaults() {
  form.elements.strength.value = about.strength;
  form.elements.min_probability.parentElement.hidden = !about.calibrated;
  document.querySelector("#known").textContent =
    `known at strength 1${about.max_steps === null ? "" : ` and T′ ${about.trained_steps}`} only`;
  form.elements.steps.parentElement.hidden = about.max_steps === null;
  if (about.max_steps === null) return;
  form.elements.steps.max = about.max_steps;
  form.elements.steps.value = about.trained_steps;
}

try {
  about = await ask("api/about");
  introduce();
  defaults();
  fill(location.search);
  search();
} catch (problem) {
  error.textContent = problem.message;
}
