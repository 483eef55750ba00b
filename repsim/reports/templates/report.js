// Sorting and copying are a convenience: without JavaScript the page shows the same numbers.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.classList.add("live");
  const body = table.tBodies[0];
  const key = (row, i) => {
    const text = row.cells[i].textContent.trim();
    const number = Number(text);
    return text === "–" ? Infinity : Number.isNaN(number) ? text : number;
  };
  table.tHead.querySelectorAll("th").forEach((head, i) => {
    head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "Copy as CSV";
  button.addEventListener("click", () => {
    const quote = (cell) => '"' + cell.textContent.trim().replaceAll('"', '""') + '"';
    const lines = [...table.rows].map((row) => [...row.cells].map(quote).join(","));
    navigator.clipboard.writeText(lines.join("\n")).then(() => { button.textContent = "Copied"; });
  });
  table.parentElement.before(button);
}
