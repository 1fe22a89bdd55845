// Keys: / to the query, arrows from card to card, Escape back. Enter is the buttons' own.

import { stop } from "./rankings.js";

const query = document.querySelector("#query");
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const typing = ({ target }) => target.matches("input, select, textarea, video, [role=slider]");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const card = event.target.closest?.("section li");
  if (event.key === "Escape" && card) {
    if (card.querySelector("video")?.controls) stop(card);
    else query.focus();
  } else if (event.key === "/" && !typing(event)) {
    query.focus();
    query.select();
  } else if (card && event.key in ARROWS && !typing(event)) {
    beside(card, ARROWS[event.key])?.querySelector("button:not([hidden])")?.focus();
  } else if (event.key === "ArrowDown" && event.target === query) {
    document.querySelector("section li button:not([hidden])")?.focus();
  } else return;
  event.preventDefault();
});

// The nearest card in a direction, which is straight ahead or at most as far aside.
function beside(card, [dx, dy]) {
  const middle = (of) => { const box = of.getBoundingClientRect(); return [box.x + box.width / 2, box.y + Math.min(box.height, 80) / 2]; };
  const [x, y] = middle(card);
  let nearest = null;
  let least = Infinity;
  for (const other of document.querySelectorAll("section li")) {
    if (other === card || !other.offsetParent) continue;
    const [across, down] = middle(other).map((value, axis) => value - [x, y][axis]);
    const [ahead, aside] = dx ? [across * dx, Math.abs(down)] : [down * dy, Math.abs(across)];
    if (ahead > 0 && aside <= ahead && ahead + 2 * aside < least) [nearest, least] = [other, ahead + 2 * aside];
  }
  return nearest;
}
