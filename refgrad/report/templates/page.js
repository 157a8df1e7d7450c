"use strict";

// A cell as a number where it is one (1,234 or −5.6% or 2e-3), else as text.
const valueOf = (cell) => {
  if (!cell) return "";
  if (cell.dataset.sort) return Number(cell.dataset.sort);
  const text = cell.textContent.trim();
  const number = text.replaceAll(",", "").replace("−", "-").replace(/%$/, "");
  return number !== "" && Number.isFinite(Number(number)) ? Number(number) : text;
};

const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === typeof b) return a.localeCompare(b, "en", { numeric: true });
  return typeof a === "number" ? -1 : 1;
};

const sort = (table, column, header) => {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column]), row]);
  rows.sort(([a], [b]) => (a === "" || b === "" ? (a === "") - (b === "") : up ? compare(a, b) : compare(b, a)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, column, header));
  });
}

// Rows stay that hold every word of the text and match every choice.
const filter = (id) => {
  const rows = [...document.getElementById(id).tBodies[0].rows];
  const text = document.querySelector(`[data-filter="${id}"]`)?.value.toLowerCase() ?? "";
  const words = text.split(/\s+/).filter(Boolean);
  const choices = [...document.querySelectorAll(`[data-choose="${id}"]`)].filter((select) => select.value);
  let left = 0;
  for (const row of rows) {
    const content = row.textContent.toLowerCase();
    const fits = words.every((word) => content.includes(word)) && choices.every((c) => row.dataset[c.dataset.key] === c.value);
    row.hidden = !fits;
    left += fits;
  }
  const count = document.querySelector(`[data-count="${id}"]`);
  if (count) count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
};

for (const input of document.querySelectorAll("[data-filter], [data-choose]")) {
  const id = input.dataset.filter ?? input.dataset.choose;
  input.addEventListener(input.dataset.filter ? "input" : "change", () => filter(id));
}

// A link to something filtered away or folded shows it.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const hidden = target.closest("[hidden]");
  if (hidden) {
    const id = hidden.closest("table").id;
    for (const input of document.querySelectorAll(`[data-filter="${id}"], [data-choose="${id}"]`)) input.value = "";
    filter(id);
  }
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
reveal();

const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const theme = document.getElementById("theme");
const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const label = () => {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
};
theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  label();
});
dark.addEventListener("change", label);
label();

for (const [id, open] of [["unfold", true], ["fold", false]]) {
  const button = document.getElementById(id);
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const part of document.querySelectorAll("details.part")) part.open = open;
  });
}

const folds = [];
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    folds.push(fold);
    fold.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const fold of folds.splice(0)) fold.open = false;
});
