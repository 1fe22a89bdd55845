// Blind comparison: a query after the other, two rankings without names, and the tally for those who ask for it.

import { ask } from "./ask.js";
import { counted, nameOf, reason, secondsOf } from "./moments.js";
import { forget, queriesOf, reopen, settle, start, state } from "./queue.js";
import { tally } from "./tally.js";

const form = document.querySelector("form");
const stage = document.querySelector("#stage");
const status = document.querySelector("#status");
const error = document.querySelector("#error");
const [heading, back, template] = ["#query", "#back", "template"].map((name) => document.querySelector(name));
let shown = null;  // the comparison on the screen
let busy = false;

const send = (path, method, body) => ask(path, { method, headers: body && { "content-type": "application/json" }, body: body && JSON.stringify(body) });

function card(hit) {
  const item = template.content.cloneNode(true).firstElementChild;
  const name = nameOf(hit);
  const at = hit.timestamp ?? hit.start ?? 0;
  const [clip, picture, play] = [".clip", "img", "button"].map((part) => item.querySelector(part));
  item.querySelector(".name").append(name);
  item.querySelector(".name").title = name;
  item.querySelector(".span").textContent = secondsOf(hit);
  if (!hit.video) { clip.remove(); return item; }
  const explain = async () => {
    const words = await reason(hit.frame);
    if (!words) return;
    play.remove();
    item.querySelector(".span").textContent = words;
  };
  picture.addEventListener("error", () => { picture.remove(); explain(); });
  picture.src = hit.frame;
  picture.alt = `Frame at ${at.toFixed(1)} s`;
  play.ariaLabel = `Play ${name} from ${at.toFixed(1)} s`;
  play.addEventListener("click", () => {
    const video = Object.assign(document.createElement("video"), { src: `${hit.video}#t=${at.toFixed(3)}`, controls: true, muted: true, playsInline: true });
    video.ariaLabel = name;
    video.addEventListener("error", () => {
      clip.replaceChildren(picture);
      explain();
    });
    for (const other of document.querySelectorAll("video")) other.pause();
    clip.replaceChildren(video);
    video.focus();
    video.play().catch(() => {});  // what cannot be played says so
  });
  return item;
}

function show(comparison) {
  shown = comparison;
  heading.textContent = comparison ? `“${comparison.query}”` : "";
  for (const side of ["left", "right"]) document.querySelector(`#${side}`).replaceChildren(...(comparison?.[side] ?? []).map(card));
  for (const part of [heading, ...document.querySelectorAll(".columns, .judge")]) part.hidden = !comparison;
}

// Show the next query that is to be judged. Queries whose rankings are equal are told, and passed over.
async function next(told = "") {
  let same = 0;
  for (;;) {
    const { queries, session, next: query, judged, last } = state();
    form.hidden = queries !== null;
    stage.hidden = queries === null;
    if (queries === null) return show(null);
    back.hidden = !last;
    const equal = same ? `${same === 1 ? "One query has" : `${same} queries have`} the same ranking twice, a tie without a question. ` : "";
    if (query === null) {
      show(null);
      status.textContent = `${told}${equal}${queries.length === 1 ? "The query is" : `All ${queries.length} queries are`} done. Thank you.`;
      return undefined;
    }
    const comparison = await send("api/comparisons", "POST", { query, session }).catch((problem) => {
      show({ comparison: null, query, left: [], right: [] });  // to be tried again, or skipped
      throw problem;
    });
    if (!comparison.same) {
      show(comparison);
      status.textContent = `${told}${equal}Query ${judged + 1} of ${queries.length}.`;
      return undefined;
    }
    settle(query, "same");
    same += 1;
  }
}

const complain = (problem) => { error.textContent = `${problem.message}${problem.gone ? " Try again: what is said twice counts once." : ""}`; };

async function busily(work) {
  if (busy) return;
  busy = true;
  stage.setAttribute("aria-busy", "true");
  error.textContent = "";
  try {
    await work();
  } catch (problem) {
    complain(problem);
  } finally {
    busy = false;
    stage.setAttribute("aria-busy", "false");
  }
}

async function judge(better) {
  if (shown.comparison === null) return next();
  const { comparison, query } = shown;
  try {
    await send(`api/comparisons/${comparison}`, "POST", { better });
  } catch (problem) {
    if (problem.status !== 410) throw problem;
    return next("The server was started again meanwhile, so that this query is asked again. ");
  }
  settle(query, better, comparison);
  document.querySelector("#tally").open = false;  // who goes on judging does not look
  await next();
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  return undefined;
}

async function takeBack() {
  const { last } = state();
  if (!last) return;
  await send(`api/comparisons/${last.comparison}`, "DELETE").catch((problem) => {
    if (problem.status !== 410) throw problem;  // forgotten, and what is said next of this query counts instead
  });
  reopen(last.query);
  await next("Taken back. ");
}

async function skip() {
  settle(shown.query, "skipped");
  await next("Skipped. ");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busily(async () => {
    const queries = queriesOf(form.elements.queries.value);
    if (!queries.length) throw new Error("There is no query; write one a line, or choose a file.");
    start(queries);
    await next();
  });
});
document.querySelector("#file").addEventListener("change", ({ target }) => busily(async () => {
  const queries = queriesOf(await target.files[0].text());
  if (!queries.length) throw new Error(`${target.files[0].name} holds no query.`);
  form.elements.queries.value = queries.join("\n");
}));
for (const button of document.querySelectorAll("[data-better]")) button.addEventListener("click", () => busily(() => judge(button.dataset.better)));
document.querySelector("#skip").addEventListener("click", () => busily(skip));
back.addEventListener("click", () => busily(takeBack));
document.querySelector("#fresh").addEventListener("click", () => busily(async () => { forget(); await next(); form.elements.queries.focus(); }));

const KEYS = { 1: "left", 2: "right", 3: "both", 4: "neither" };
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || stage.hidden || event.target.closest("input, textarea, video")) return;
  if (event.key === "Backspace" && !back.hidden) busily(takeBack);
  else if (!shown) return;
  else if (event.key in KEYS) busily(() => judge(KEYS[event.key]));
  else if (event.key === "0") busily(skip);
  else return;
  event.preventDefault();
});

document.querySelector("#tally").addEventListener("toggle", ({ target }) => {
  if (target.open) ask("api/comparisons/tally").then(tally).catch(complain);
});

busily(async () => {
  const about = await ask("api/about");
  document.querySelector("#about").textContent = `${counted(about.segments, "segment")} in “${about.collection}”`;
  if (!about.feedback) throw new Error("This server keeps no judgements. Start it with a file for them: dits-adapter serve … --feedback feedback.jsonl");
  document.querySelector(".notice").textContent =
    `Each judgement is written to ${about.feedback.file} on the server: the query, the hits of both rankings, the adapter and the time. ` +
    "The list, how far you are, and a random word that keeps your second thoughts from counting twice, stay in this browser until you take another list.";
  document.querySelector("#tally").hidden = false;
  await next();
});
