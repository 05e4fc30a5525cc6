"use strict";
// The table of rows: sorted by any heading, filtered by words and kinds, its commands copied.
{
  const table = document.getElementById("rows");
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const value = (line, column) => {
    const cell = line.cells[column];
    return cell && cell.dataset.v ? JSON.parse(cell.dataset.v) : null;
  };

  function sort(heading) {
    const column = heading.cellIndex;
    const text = heading.hasAttribute("data-text");
    const before = heading.getAttribute("aria-sort");
    const up = before ? before === "descending" : text; // figures: the largest first, names: from the first letter
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = lines.map((line, i) => [value(line, column), i, line]).sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j; // what has no figure stays last
      const by = typeof a === "string" ? a.localeCompare(b) : a - b;
      return (up ? by : -by) || i - j;
    });
    body.append(...order.map(([, , line]) => line));
  }
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  const words = document.getElementById("filter");
  const kinds = [...document.querySelectorAll("[data-shows]")];
  const count = document.getElementById("shown");
  function filter() {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set(kinds.filter((box) => box.checked).map((box) => box.dataset.shows));
    let shown = 0;
    for (const line of lines) {
      const text = line.textContent.toLowerCase();
      line.hidden = !kept.has(line.dataset.kind) || !asked.every((word) => text.includes(word));
      shown += !line.hidden;
    }
    count.textContent = `${shown} of ${lines.length} rows`;
  }
  words.addEventListener("input", filter);
  for (const box of kinds) box.addEventListener("change", filter);
  filter();

  const said = document.getElementById("copied");
  async function copy(button) {
    const command = button.dataset.command;
    try {
      await navigator.clipboard.writeText(command);
    } catch { // a browser that forbids it to a file: by a selection
      const field = Object.assign(document.createElement("textarea"), { value: command });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    said.textContent = `copied: ${command}`;
  }
  for (const button of document.querySelectorAll("[data-command]")) button.addEventListener("click", () => copy(button));
  document.getElementById("table-tools").hidden = false;
}
