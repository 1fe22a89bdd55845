// Words of all pages: numbers of things, and of a moment the name of its video, its seconds, why it has no picture.

import { ask } from "./ask.js";

// Characters that would turn the direction of the words after them.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

export const steady = (words) => words.replace(TURNING, "\ufffd");

export const nameOf = (hit) => steady(hit.title?.trim() || hit.path?.split(/[\\/]/).pop() || hit.video_id);

export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const secondsOf = (hit) => (hit.start !== null && hit.start < hit.end ? `${hit.start.toFixed(1)} to ${hit.end.toFixed(1)} s` : "");

// Why a video does not play or has no picture: its file is gone, was changed, or this browser lacks a codec. Null where
// the server is away or busy, which may pass.
export async function reason(frame) {
  try {
    await ask(frame);
    return "This browser cannot play the file. The picture is the matching frame.";
  } catch (problem) {
    return [404, 410, 422].includes(problem.status) ? steady(problem.message) : null;
  }
}
