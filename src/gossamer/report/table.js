"use strict";
// The table of several runs: what is filtered and sorted in it is what the charts of several rows draw.
const rowsShown = (() => {
  const table = document.querySelector("table.comparison");
  if (!table) return { order: () => [], onChange: () => undefined };
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.querySelector("form.filter");
  const listeners = [];
  const order = () => [...body.rows].filter((row) => !row.hidden).map((row) => Number(row.dataset.row));
  const sections = [...document.querySelectorAll("section.run")];

  const passes = (row, wanted) => {
    const words = wanted.text.toLowerCase().split(/\s+/);
    if (!words.every((word) => row.dataset.words.includes(word))) return false;
    if (["method", "objective", "data"].some((key) => wanted[key] && row.dataset[key] !== wanted[key])) return false;
    const density = row.dataset.density === "" ? NaN : 100 * Number(row.dataset.density);
    // A density is shown with one decimal, and found by what is shown.
    const least = wanted.least === "" ? true : density >= Number(wanted.least) - 0.05;
    return least && (wanted.most === "" ? true : density <= Number(wanted.most) + 0.05);
  };
  const NAMES = { text: "with", least: "density from", most: "density to" };
  const changed = () => {
    const shown = order();
    const wanted = [...new FormData(form)].filter(([, each]) => each).map(([key, each]) => `${NAMES[key] ?? key} ${each}`);
    const runs = (some) => some.reduce((sum, row) => sum + Number(row.dataset.runs), 0);
    document.querySelector(".shown").textContent =
      `${shown.length} of ${rows.length} rows, ${runs(rows.filter((row) => !row.hidden))} of ${runs(rows)} runs${wanted.length ? `: ${wanted.join(", ")}` : ""}.`;
    const left = new Set(shown);
    sections.forEach((section) => { section.hidden = !left.has(Number(section.dataset.row)); });
    listeners.forEach((listener) => listener());
  };
  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    rows.forEach((row) => { row.hidden = !passes(row, wanted); });
    changed();
  };
  const value = (row, column) => {
    const said = row.cells[column].dataset.value;
    return said === "" ? null : Number.isNaN(Number(said)) ? said : Number(said);
  };
  const compare = (a, b) => (typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : a - b);
  const sort = (head, column) => {
    const falls = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const known = rows.filter((row) => value(row, column) !== null);
    const unknown = rows.filter((row) => value(row, column) === null);
    known.sort((a, b) => (falls ? -1 : 1) * compare(value(a, column), value(b, column)));
    body.append(...known, ...unknown);
    changed();
  };

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column));
  });
  let wait;
  ["input", "change"].forEach((kind) => form.addEventListener(kind, () => { clearTimeout(wait); wait = setTimeout(filter, 120); }));
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = rows.length < 4;
  document.querySelector(".shown").hidden = form.hidden;
  // A browser may keep what was typed before the page was loaded again.
  form.reset();
  return { order, onChange: (listener) => listeners.push(listener) };
})();

// A run's section may be folded: a link to it opens it.
const unfold = () => {
  const target = /^#run-\d+$/.test(location.hash) && document.querySelector(location.hash);
  const folded = target && target.querySelector("details.whole");
  if (!folded) return;
  folded.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", unfold);
addEventListener("load", unfold);
