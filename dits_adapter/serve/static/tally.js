// The tally of the judgements: a sentence, the interval, and the counts.

import { counted } from "./moments.js";

const ROWS = [
  ["adapter better", "adapted"], ["plain CLIP better", "plain"], ["both good", "both"], ["neither good", "neither"],
  ["judges disagree, half and half", "split"], ["the same ranking twice", "same"], ["all", "queries"],
];

export function tally(counts) {
  const part = (name) => document.querySelector(`#tally ${name}`);
  const others = counts.others
    ? ` ${counted(counts.others, "query was", "queries were")} judged with other adapters or collections, which does not count here.`
    : "";
  part("#verdict").textContent =
    `${counts.verdict} ${counted(counts.judgements, "judgement")} by ${counted(counts.judges, "browser")}: ` +
    `left ${counts.left}, right ${counts.right}.${others}`;
  const drawing = part("svg");
  drawing.toggleAttribute("hidden", counts.share === null);
  const at = (share) => String(10 + 300 * share);
  part(".interval").setAttribute("x1", at(counts.low));
  part(".interval").setAttribute("x2", at(counts.high));
  part(".share").setAttribute("cx", at(counts.share ?? 0));
  part("tbody").replaceChildren(...ROWS.map(([name, field]) => {
    const row = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
    row.append(head, Object.assign(document.createElement("td"), { textContent: counts[field] }));
    return row;
  }));
}
