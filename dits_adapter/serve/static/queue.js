// The queries that one person compares, and how far they are. They stay in this browser, so that a page that is loaded
// again, or opened in a second tab, goes on where the last judgement was.

const KEY = "blind comparison";
let unkept = null;  // what the browser does not keep, as it never does or as it is too much, lives as long as the page

function load() {
  try {
    return unkept ?? JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

function change(update) {  // what another tab has written meanwhile stays
  const changed = { ...load(), ...update(load()) };
  try {
    localStorage.setItem(KEY, JSON.stringify(changed));
    unkept = null;
  } catch {
    unkept = changed;
  }
}

const word = () => crypto.getRandomValues(new Uint32Array(4)).reduce((name, part) => name + part.toString(36), "");

export function queriesOf(text) {
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.trim()).filter(Boolean);
  if (!lines[0]?.startsWith('{"format": "dits_adapter feedback"')) return [...new Set(lines)];
  const found = lines.map((line) => { try { return JSON.parse(line).query; } catch { return null; } });
  return [...new Set(found.filter((query) => typeof query === "string" && query.trim()))];
}

export function start(queries) {
  change(() => ({ session: word(), queries, done: {}, last: null }));
}

export function forget() {
  change(() => ({ session: null, queries: null, done: {}, last: null }));
}

export function state() {
  const { session = null, queries = null, done = {}, last = null } = load();
  const open = (queries ?? []).filter((query) => !Object.hasOwn(done, query));
  return { session, queries, last, next: open[0] ?? null, judged: (queries?.length ?? 0) - open.length };
}

export function settle(query, outcome, comparison = null) {
  change(({ done, last }) => ({
    done: { ...done, [query]: outcome },
    last: comparison ? { comparison, query } : last,
  }));
}

export function reopen(query) {
  change(({ done }) => ({ done: Object.fromEntries(Object.entries(done).filter(([other]) => other !== query)), last: null }));
}
