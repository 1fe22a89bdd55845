// One request to the API: its answer, or an error in words.

export async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw Object.assign(new Error("The server does not answer. Is `dits-adapter serve` still running?"), { gone: true });
  }
  const answer = await response.json().catch(() => ({}));  // something between may answer in its own words
  if (!response.ok) throw Object.assign(new Error(answer.detail ?? `The server answers with the status ${response.status}.`), { status: response.status });
  return answer;
}
