// Sorting, filtering and copying are a convenience: without JavaScript the page shows the same numbers.
"use strict";
const FILTER_FROM = 8;

// The number behind a cell, in full where it states it; text where it is none.
function valueOf(cell) {
  const text = (cell.title || cell.textContent).trim().replace("\u2212", "-").replaceAll(",", "");
  if (text === "–" || text === "never") return Infinity;
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(x, y) {
  if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
  return typeof x === "string" ? x.localeCompare(y) : x < y ? -1 : x > y ? 1 : 0;
}

function makeSortable(table) {
  table.classList.add("live");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[i]), row]);
      rows.sort((a, b) => (up ? 1 : -1) * compare(a[0], b[0]));
      table.tBodies[0].append(...rows.map((pair) => pair[1]));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

function makeFilter(table) {
  const rows = [...table.tBodies[0].rows];
  const box = document.createElement("input");
  const count = document.createElement("span");
  box.type = "search";
  box.placeholder = "Filter rows";
  box.setAttribute("aria-label", "Show only rows with these words");
  count.setAttribute("role", "status");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? ` ${shown} of ${rows.length} rows ` : " ";
  });
  return [box, count];
}

function makeCopy(table) {
  const button = document.createElement("button");
  button.textContent = "Copy as CSV";
  button.addEventListener("click", () => {
    const quote = (cell) => '"' + (cell.matches("td") && cell.title || cell.textContent).trim().replaceAll('"', '""') + '"';
    const rows = [...table.rows].filter((row) => !row.hidden);
    const lines = rows.map((row) => [...row.cells].map(quote).join(","));
    navigator.clipboard.writeText(lines.join("\n")).then(() => { button.textContent = "Copied"; });
  });
  return button;
}

for (const table of document.querySelectorAll("table.sortable")) {
  makeSortable(table);
  const tools = document.createElement("div");
  tools.className = "tools";
  if (table.tBodies[0].rows.length >= FILTER_FROM) tools.append(...makeFilter(table));
  tools.append(makeCopy(table));
  table.parentElement.before(tools);
}

// A link of the contents opens the table that it leads to; printing shows all of them.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
