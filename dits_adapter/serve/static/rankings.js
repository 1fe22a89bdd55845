// The rankings: cards of moments, best first.

import { nameOf, reason, secondsOf } from "./moments.js";
import { poster } from "./posters.js";
import { timeline } from "./timeline.js";

const template = document.querySelector("#card");

export const key = (hit) => `${hit.video_id} ${hit.start}`;
const seen = (hit) => hit.lanes.seen?.score ?? (hit.lanes.said ? NaN : hit.score);  // its cosine
const place = (hits, hit) => hits.findIndex((other) => other.video_id === hit.video_id) + 1;

function move(rank, before) {
  if (!before) return "not found by plain CLIP";
  if (before === rank) return "same place";
  return before > rank ? `▲ up from ${before}` : `▼ down from ${before}`;
}

// Lay out one ranking. `plain` is the one to compare with; `moments` loads the timeline of a video.
export function list(side, hits, { plain = null, moments = null } = {}) {
  const cosines = hits.map(seen).filter(Number.isFinite);
  const items = hits.map((hit, index) => {
    const item = template.content.cloneNode(true).firstElementChild;
    const name = nameOf(hit);
    const part = (selector) => item.querySelector(selector);
    item.dataset.key = key(hit);
    item.dataset.segment = hit.id;
    part("h3").textContent = `${index + 1}. ${name}`;
    part("h3").title = [hit.title, hit.path].filter(Boolean).join("\n");
    part(".score").textContent = hit.score.toFixed(3);
    if (hit.probability !== null) part(".likely").textContent = `${percent(hit.probability)} likely`;
    if (plain) part(".move").textContent = move(index + 1, place(plain, hit));
    const lanes = Object.entries(hit.lanes).map(([lane, { rank }]) => `${lane}: rank ${rank}`);
    part(".lanes").textContent = lanes.length ? `(${lanes.join(", ")})` : "";
    part(".text").textContent = hit.said ? `“${hit.said}”` : "";
    part(".span").textContent = span(hit);
    part(".like").ariaLabel = `More like this moment of ${name}`;
    if (hit.video) clip(item, hit, name);
    else part(".clip").remove();
    timeline(part(".timeline"), hit, {
      name,
      first: Math.max(...cosines),
      last: Math.min(...cosines),
      side,
      moments,
      play: (at) => play(item, at),
      look: (at) => poster(part("video"), at),
    });
    return item;
  });
  document.querySelector(`section.${side} ol`).replaceChildren(...items);
}

export function percent(probability) {
  const value = 100 * probability;
  return `${value < 1 ? "under 1" : value > 99 ? "over 99" : Math.round(value)} %`;
}

function span(hit) {
  const seconds = secondsOf(hit);
  return seconds && hit.timestamp !== null ? `${seconds}, best at ${hit.timestamp.toFixed(1)} s` : seconds;
}

function clip(item, hit, name) {
  const [video, button] = item.querySelectorAll("video, .play");
  const start = hit.timestamp ?? hit.start;
  video.src = `${hit.video}#t=${start.toFixed(3)}`;
  video.dataset.url = hit.video;
  video.dataset.at = start;
  video.ariaLabel = name;
  poster(video, start);
  button.ariaLabel = `Play ${name} from ${start.toFixed(1)} s`;
  button.addEventListener("click", () => play(item, null));
  video.addEventListener("error", async () => {  // also of its poster
    const words = await reason(hit.frame);
    if (!words) return;
    video.controls = false;
    button.hidden = true;
    item.querySelector(".unplayable").textContent = words;
  });
  video.addEventListener("loadeddata", () => { item.querySelector(".frame").hidden = !video.videoWidth || document.querySelector("#by-picture").hidden; });
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
  });
}

// Play a card's video from a second; null for where it stands, at first its best moment.
function play(item, at) {
  const [video, button] = item.querySelectorAll("video, .play");
  if (!video || item.querySelector(".unplayable").textContent) return;
  button.hidden = true;
  video.controls = true;
  if (at !== null) {
    if (video.readyState) video.currentTime = at;
    else video.src = `${video.dataset.url}#t=${at.toFixed(3)}`;
  } else video.focus();
  video.play().catch(() => {});  // what cannot be played says so below
}

// Pause a card's video and give its button back.
export function stop(item) {
  const [video, button] = item.querySelectorAll("video, .play");
  video.pause();
  video.controls = false;
  button.hidden = false;
  button.focus();
}
