// Feedback: "this is the one" at each hit, and "none of these". Where the server takes none, nothing is shown.

import { ask } from "./ask.js";

const main = document.querySelector("main");
const bar = document.querySelector("#feedback");
const none = bar.querySelector(".none");
const undo = bar.querySelector(".undo");
const said = bar.querySelector(".said");
const error = document.querySelector("#error");
const session = tabName();
let search = null;
let busy = false;

function tabName() {  // of this tab, and gone with it
  const fresh = () => crypto.getRandomValues(new Uint32Array(4)).reduce((name, part) => name + part.toString(36), "");
  try {
    return (sessionStorage.session ??= fresh());
  } catch {  // a browser that keeps nothing
    return fresh();
  }
}

export function notice({ feedback }) {
  bar.hidden = !feedback;
  if (!feedback) return;
  bar.querySelector(".notice").textContent =
    `Feedback is on. When you choose a hit or “none of these”, your query, the hits shown, their scores and the time are ` +
    `written to ${feedback.file} on the server.` + (feedback.queries ? " Every query is written there, too, without a choice." : "");
}

export function offer(answer) {
  search = answer.search;
  mark(null);
  none.hidden = !search || answer.plain.length + answer.adapted.length === 0;
  if (!search) {  // nothing is shown, or no feedback is taken of it
    if (answer.seconds !== undefined) said.textContent = "No feedback is taken of this kind of search.";
    return;
  }
  for (const side of ["plain", "adapted"]) {
    for (const [index, button] of document.querySelectorAll(`section.${side} .right`).entries()) {
      button.hidden = false;
      button.dataset.side = side;
      button.dataset.segment = answer[side][index].id;
      const name = button.closest("li").querySelector("h3").textContent;
      button.ariaLabel = `This is the one: ${name}, by ${document.querySelector(`#${side}-title`).textContent}`;
    }
  }
}

function mark(pressed) {
  for (const button of [none, ...document.querySelectorAll("section .right")]) button.ariaPressed = String(button === pressed);
  undo.hidden = !pressed;
  if (!pressed) said.textContent = "";
}

async function send(path, options) {
  if (busy) return false;
  busy = true;
  error.textContent = "";
  const mine = search;
  try {
    await ask(path, options);
    return mine === search;  // else another search has taken the place of what was judged
  } catch (problem) {
    error.textContent = `${problem.message}${problem.gone ? " Try again: what is said twice counts once." : ""}`;
    return false;
  } finally {
    busy = false;
  }
}

async function judge(button) {
  const { side, segment } = button.dataset;
  const body = JSON.stringify({ search, session, view: main.dataset.view, side: side ?? null, segment: segment ?? null });
  if (!(await send("api/feedback", { method: "POST", headers: { "content-type": "application/json" }, body }))) return;
  mark(button);
  said.textContent = button === none ? "Written: none of these." : `Written: ${button.ariaLabel.slice("This is the one: ".length)}.`;
}

async function takeBack() {
  if (!(await send(`api/feedback/${search}`, { method: "DELETE" }))) return;
  const focused = document.activeElement === undo;
  mark(null);
  said.textContent = "Taken back.";
  if (focused) none.focus();  // the button that was pressed is gone
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("section .right, #feedback button");
  if (!button) return;
  if (button === undo || button.ariaPressed === "true") takeBack();
  else judge(button);
});
