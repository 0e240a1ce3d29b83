// Answers side by side: those of other methods, and those of other settings.

import { element, percent } from "./parts.js";
import { figure } from "./flow.js";

/** Ask methods one after the other, and say in words what they answered; what was overtaken leaves
 * no places for answers. */
export async function compare(grid, methods, ask) {
  if (!methods.length) throw new Error("Choose at least one method.");
  const waiting = methods.map(() => element("div", "", { className: "waiting" }));
  grid.replaceChildren(...waiting);
  const said = [];
  try {
    for (const [i, method] of methods.entries()) {
      const found = await ask("comparison", { method });
      if (!found) return;
      waiting[i].replaceWith(cell({ ...found, name: method }));
      said.push(`${method} ${found.error ? "failed" : percent(found.support)}`);
    }
  } finally {
    for (const place of waiting) place.remove();
  }
  return `Marked by each: ${said.join(", ")}.`;
}

function cell({ name, source, error, picture, support, note }) {
  if (error) {
    const failed = element("figure");
    failed.append(element("div", error, { className: "failed", role: "note" }), element("figcaption", name));
    return failed;
  }
  const said = support > 0 ? percent(support) : "nothing exceeds its threshold";
  const shown = figure(picture, `${name}: in colour are ${said} of the pixels`, name, said);
  shown.querySelector("figcaption").append(element("small", note ? `${source}. ${note}` : source));
  return shown;
}

/** Ask for a grid, row by row, and say when it is there; without thresholds, of those that fit the
 * network. */
export async function sweep(table, hint, ks, taus, ask) {
  if (!ks.length) throw new Error("Give at least one k.");
  table.replaceChildren();
  for (const k of ks) {
    const row = await ask("sweep", { k, taus });
    if (!row) return;
    taus = row.taus; // those that were chosen for an empty field stay the same in every row
    if (!table.tHead) heads(table.createTHead().insertRow(), row.cells);
    const line = (table.tBodies[0] ?? table.createTBody()).insertRow();
    line.append(element("th", `k = ${percent(row.k, 0)}`, { scope: "row" }));
    for (const cell of row.cells) {
      const facts = `${percent(cell.density)} carry it; p kept ${percent(cell.kept)}, removed ${percent(cell.removed)}`;
      line.insertCell().append(figure(cell.picture, `k = ${row.k}, ${cell.tau}`, "", facts));
    }
    hint.textContent = `p is the probability of the class, ${percent(row.probability)} for the photo itself. Kept: where all but these pixels are blurred (${percent(row.blurred)} if everything is). Removed: where these pixels are blurred.`;
  }
  return `The grid is drawn: ${ks.length} times ${table.tHead.rows[0].cells.length - 1} pictures.`;
}

function heads(row, cells) {
  row.append(element("th", "maps kept", { scope: "col" }));
  row.append(...cells.map((cell) => element("th", cell.tau, { scope: "col" })));
}
