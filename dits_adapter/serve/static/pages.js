// A list that is read a page at a time, with a field that looks for words. A total of null is not known yet: the server
// was started again, and reads the collection.

const LIMIT = 50;

export function pages(name, read, tell) {
  const form = document.querySelector(`form[data-list=${name}]`);
  const [earlier, later] = form.querySelectorAll("button");
  const shown = form.querySelector(".shown");
  let from = 0;
  let timer;
  let newest = 0;

  async function list() {
    const mine = (newest += 1);
    try {
      const [total, rows] = await read(from, form.elements.words.value, LIMIT);
      if (mine !== newest) return;  // what was asked for later has come sooner
      tell(name, "");
      document.querySelector(`#${name}`).replaceChildren(...rows);
      document.querySelector(`#${name}`).closest("table").hidden = !total;
      shown.textContent = total === null ? "The collection is being read." : total ? `${from + 1} to ${from + rows.length} of ${total.toLocaleString("en")}` : "None.";
      earlier.disabled = from === 0;
      later.disabled = from + LIMIT >= total;
    } catch (problem) {
      if (mine === newest) tell(name, problem.message);
    }
  }

  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { from = 0; list(); }, 150); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", ({ target }) => {
    if (target.type !== "button") return;
    from = Math.max(0, from + Number(target.value) * LIMIT);
    list();
  });
  return list;
}
