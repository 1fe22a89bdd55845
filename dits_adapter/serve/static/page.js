// The form and its searches. The page is a function of the form, and the form is kept in the address, so that a
// search can be shared; a picture is kept beside it in the history of the tab, for Back and for loading again.

import { ask } from "./ask.js";
import { notice, offer } from "./feedback.js";
import "./keys.js";
import { draw } from "./map.js";
import { canvasOf, frameOf, onPicture } from "./picture.js";
import { counted, nameOf } from "./moments.js";
import { list, percent } from "./rankings.js";
import { forget } from "./timeline.js";

const form = document.querySelector("form");
const main = document.querySelector("main");
const status = document.querySelector("#status");
const error = document.querySelector("#error");
const by = document.querySelector("#by");
const like = form.elements.like;
const welcome = status.textContent;
let pending = new AbortController();
let about;

const picture = () => history.state?.picture;
const byText = () => !like.value && !picture();

function fill(address) {
  const values = new URLSearchParams(address);
  like.value = "";
  for (const [name, value] of values) if (form.elements[name]) form.elements[name].value = value;
  show();
}

function show() {
  for (const value of form.querySelectorAll(".value")) value.textContent = form.elements[value.dataset.of].value;
  const { lanes, min_probability: least, steps, strength, view } = form.elements;
  const said = lanes.value === "said";  // which no adapter has a part in
  main.dataset.view = !byText() ? "similar" : said ? "plain" : view.value;
  for (const knob of form.querySelectorAll(".of-adapter")) knob.disabled = !byText() || said;
  lanes.disabled = !byText();
  document.querySelector("#plain-title").textContent = said ? "What is said" : "Plain CLIP";
  document.querySelector("figure").hidden = !byText() || said;
  least.disabled = !byText() || lanes.value !== "seen" || strength.value !== "1" ||
    (about.max_steps !== null && Number(steps.value) !== about.trained_steps);
  document.querySelector("#known").hidden = !least.disabled;
}

// The values of the form. Those that this kind of search has no use for are for the address alone: the next one may.
function options({ unused = false } = {}) {
  const filled = [...form.elements].filter((field) => field.name && field.name !== "view" && field.value !== "" &&
    !field.closest("[hidden]") && (unused || !field.matches(":disabled")));
  const values = new URLSearchParams(filled.map(({ name, value }) => [name, value]));
  if (values.get("lanes") === "seen") values.delete("lanes");
  return values;
}

function remember(method, state = history.state) {
  const values = options({ unused: true });
  const text = !like.value && state?.picture === undefined;
  values.delete(text ? "like" : "query");
  if (form.elements.view.value !== "both") values.set("view", form.elements.view.value);
  history[method](state, "", `?${values}`);
}

// What is asked of the server: the address of a request, and what else it has.
function request() {
  const values = options();
  const lanes = values.get("lanes");
  values.delete("lanes");
  for (const lane of lanes?.split(" ") ?? []) values.append("lanes", lane);
  if (byText()) return [`api/search?${values}`];
  const segment = values.get("like");
  for (const name of ["query", "like", "min_probability", "strength", "steps", "lanes"]) values.delete(name);
  if (picture()) return [`api/image?${values}`, { method: "POST", headers: { "content-type": "image/jpeg" }, body: picture().jpeg }];
  values.set("segment", segment);
  return [`api/similar?${values}`];
}

function rest() {  // nothing is searched, nor shown
  pending.abort();
  main.hidden = by.hidden = true;
  main.setAttribute("aria-busy", "false");
  offer({ search: null });
}

async function search() {
  if (byText() && !form.elements.query.value.trim()) {
    rest();
    [status.textContent, error.textContent] = [welcome, ""];
    return;
  }
  if (byText() && !form.reportValidity()) return;
  pending.abort();
  const mine = (pending = new AbortController());
  main.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => { [status.textContent, error.textContent] = ["Searching…", ""]; }, 400);
  try {
    const before = about.digest;
    const answer = await newest(mine.signal);
    if (answer.digest && answer.digest !== about.digest) await renew();
    const shown = picture() && (await canvasOf(picture().jpeg));
    mine.signal.throwIfAborted();  // a later search may have been sent meanwhile
    error.textContent = "";
    forget();
    if (answer.map) compared(answer);
    else alike(answer, shown);
    main.hidden = false;
    if (about.digest !== before) status.textContent += " The adapter is a new one.";
    main.setAttribute("aria-busy", "false");
  } catch (problem) {
    if (mine.signal.aborted) return;
    rest();
    [status.textContent, error.textContent] = ["", problem.message];
  } finally {
    clearTimeout(slow);
  }
}

function compared(answer) {
  by.hidden = true;
  const values = options();
  values.set("query", answer.query);  // the field may hold another one by now
  const moments = form.elements.lanes.value === "said" ? null : loader(values, pending.signal);
  list("plain", answer.plain, { moments });
  list("adapted", answer.adapted, { plain: answer.plain, moments });
  offer(answer);
  draw(answer);
  document.querySelector("#any").textContent = any(answer.probability_of_any) +
    (answer.plain.length && !answer.adapted.length ? " No video is that likely." : "");
  const number = Math.max(answer.plain.length, answer.adapted.length);
  const each = answer.plain.length === answer.adapted.length
    ? `${number} each` : `${answer.plain.length} by plain CLIP, ${answer.adapted.length} by ${adapterName()}`;
  document.querySelector("figure").hidden = form.elements.lanes.value === "said" || !number;
  status.textContent = number
    ? `“${answer.query}”: ${form.elements.lanes.value === "said" ? `${number} found` : each}, ${Math.round(answer.seconds * 1000)} ms.`
    : nothing();
}

function alike(answer, canvas) {
  const { of, results, seconds } = answer;
  const mine = picture();
  offer({ search: null, seconds });
  const moments = of && loader(new URLSearchParams({ segment: of.id }), pending.signal);
  list("similar", results, { moments });
  const title = of ? `Like ${nameOf(of)}, ${of.start?.toFixed(1) ?? 0} to ${of.end?.toFixed(1) ?? 0} s` : `Like ${mine.name ?? "the picture"}`;
  document.querySelector("#similar-title").textContent = title;
  by.querySelector("p").textContent = (of
    ? "This moment's own vector is searched with. "
    : "The picture is searched with as a frame of a video. ") +
    "Adapters move texts, so none has a part in it; nor are probabilities known.";
  const middle = of && ((of.start ?? 0) + (of.end ?? 0)) / 2;
  const shown = canvas ?? Object.assign(new Image(), { src: `${of?.video}/frame?at=${middle}` });
  shown.role = "img";
  shown.ariaLabel = title;
  by.querySelector("div").replaceChildren(...(mine || of?.video ? [shown] : []));
  by.hidden = false;
  status.textContent = results.length
    ? `${title}: ${results.length} found, ${Math.round(seconds * 1000)} ms.` : nothing();
}

function nothing() {
  if (["words", "min_duration", "max_duration"].some((name) => form.elements[name].value)) return "Nothing found; the filters leave no video.";
  if (form.elements.lanes.value === "said") return "Nothing found; no text beside a video has these words.";
  return byText() ? "Nothing found; the collection is empty. Put videos in with dits-adapter ingest." : "Nothing found; there is nothing else in the collection.";
}

function loader(values, signal) {
  const kept = new URLSearchParams([...values].filter(([name]) => ["query", "segment", "strength", "steps"].includes(name)));
  return async (video) => {
    try {
      return (await ask(`api/videos/${video}/timeline?${kept}`, { signal })).moments;
    } catch {  // the card has its own moment nevertheless
      return null;
    }
  };
}

async function newest(signal) {
  const asked = () => { const [path, rest] = request(); return ask(path, { ...rest, signal }); };
  try {
    return await asked();
  } catch (problem) {  // perhaps of an option that an adapter lacks which took the old one's place
    if (problem.name === "AbortError" || problem.gone || !(await renew())) throw problem;
    return asked();
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

function goBy(segment, state) {
  like.value = segment;
  remember("pushState", state);
  show();
  search();
}

function byPicture(found) {
  if (!about?.pictures) return;
  goBy("", { picture: found });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (about) return goBy("", null);
  early = form.elements.query.value;
  return begin();
});
form.addEventListener("input", ({ target }) => {
  if (!about) return;
  show();
  if (target.name === "view") remember("replaceState");
  else if (target.name && target.name !== "query") searchSoon();
});
addEventListener("popstate", () => { if (!about) return; form.reset(); defaults(); fill(location.search); search(); });
onPicture(byPicture);
main.addEventListener("click", async ({ target }) => {
  const card = target.closest("section li");
  if (target.closest(".like")) goBy(card.dataset.segment, null);
  else if (target.closest(".frame")) byPicture({ ...(await frameOf(card.querySelector("video"))), name: `a frame of ${card.querySelector("video").ariaLabel}` });
  else return;
  document.querySelector("#status").scrollIntoView({ block: "nearest" });
});
by.querySelector("button").addEventListener("click", () => { goBy("", null); form.elements.query.focus(); by.hidden = true; });

const adapterName = () => (about.adapter === "dits" ? "DITS" : about.adapter);

function introduce() {
  const subject = document.querySelector("#about");
  subject.textContent = `${counted(about.segments, "segment")} in “${about.collection}”, ${about.space.split(" [")[0]}`;
  subject.title = about.space;
  for (const element of document.querySelectorAll(".adapter")) element.textContent = adapterName();
  document.querySelector("#by-picture").hidden = !about.pictures;
  form.elements.lanes.closest(".knob").hidden = !about.texts;
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

let early = null;  // a query that was sent before the server had described itself
let beginning = false;
async function begin() {
  if (beginning) return;
  beginning = true;
  try {
    about = await ask("api/about");
    error.textContent = "";
    introduce();
    defaults();
    fill(location.search);
    if (early === null) search();
    else {
      form.elements.query.value = early;
      goBy("", null);
    }
  } catch (problem) {
    error.textContent = problem.message;
  } finally {
    beginning = false;
  }
}

begin();
