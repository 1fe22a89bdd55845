// The two rankings, as lists of clips.

const template = document.querySelector("template");
const SIDES = ["plain", "adapted"];

export const key = (hit) => `${hit.video_id} ${hit.start}`;
const place = (hits, hit) => hits.findIndex((other) => other.video_id === hit.video_id) + 1;

function move(rank, before) {
  if (!before) return "not found by plain CLIP";
  if (before === rank) return "same place";
  return before > rank ? `▲ up from ${before}` : `▼ down from ${before}`;
}

export function list(answer) {
  for (const side of SIDES) {
    const items = answer[side].map((hit, index) => {
      const item = template.content.cloneNode(true).firstElementChild;
      const name = hit.path ? hit.path.split(/[\\/]/).pop() : hit.video_id;
      item.dataset.key = key(hit);
      item.querySelector("h3").textContent = `${index + 1}. ${name}`;
      item.querySelector("h3").title = hit.path ?? "";
      item.querySelector(".score").textContent = hit.score.toFixed(3);
      if (hit.probability !== null) item.querySelector(".likely").textContent = `${percent(hit.probability)} likely`;
      if (side === "adapted") item.querySelector(".move").textContent = move(index + 1, place(answer.plain, hit));
      if (hit.start !== null && hit.start < hit.end) item.querySelector(".span").textContent = span(hit);
      clip(item, hit, name);
      return item;
    });
    document.querySelector(`section.${side} ol`).replaceChildren(...items);
  }
}

export function percent(probability) {
  const value = 100 * probability;
  return `${value < 1 ? "under 1" : value > 99 ? "over 99" : Math.round(value)} %`;
}

function span(hit) {
  const best = hit.timestamp === null ? "" : `, best at ${hit.timestamp.toFixed(1)} s`;
  return `${hit.start.toFixed(1)} to ${hit.end.toFixed(1)} s${best}`;
}

const posters = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.poster = target.dataset.poster;
    posters.unobserve(target);
  }
}, { rootMargin: "200px" });

function clip(item, hit, name) {
  const [video, button] = item.querySelectorAll("video, button");
  if (!hit.video) { item.querySelector(".clip").remove(); return; }
  const start = hit.timestamp ?? hit.start;
  video.src = `${hit.video}#t=${start.toFixed(3)}`;
  video.dataset.poster = hit.frame;
  video.ariaLabel = name;
  posters.observe(video);
  button.ariaLabel = `Play ${name} from ${start.toFixed(1)} s`;
  button.addEventListener("click", () => {
    button.hidden = true;
    video.controls = true;
    video.focus();
    video.play().catch(() => {});  // what cannot be played says so below
  });
  video.addEventListener("error", () => {
    video.controls = false;
    button.hidden = true;
    item.querySelector(".unplayable").hidden = false;
  });
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
  });
}
