/* Two to four pictures side by side, zoomed and moved together; and near-duplicates, to keep the best. */

import { button, count, el, openDialog } from "../core/dom.js";
import { notice } from "../core/page.js";
import { isCovered } from "./cursor.js";
import { factsOf } from "./facts.js";
import { largeOf } from "./preview.js";
import { rowOf, side, state } from "./state.js";
import { best, groupOf, keepBest } from "./verdicts.js";

const MOST = 4;

/* Panes that share one zoom: wheel, drag, plus and minus. */
const panes = (rows, footOf) => {
  const view = { scale: 1, x: 0, y: 0 };
  const pictures = [];
  const draw = () => { for (const node of pictures) node.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`; };
  const zoom = (by) => {
    view.scale = Math.max(1, Math.min(12, view.scale * by));
    if (view.scale === 1) Object.assign(view, { x: 0, y: 0 });
    draw();
  };
  const nodes = rows.map((row) => {
    const picture = el("img", { src: largeOf(row), alt: isCovered(row) ? "blurred" : `picture ${row.rank + 1}`, draggable: "false" });
    pictures.push(picture);
    const stage = el("div", { class: "pf-pane-stage" }, picture);
    stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2); }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      const start = { x: event.clientX - view.x, y: event.clientY - view.y };
      const drag = (moved) => { Object.assign(view, { x: moved.clientX - start.x, y: moved.clientY - start.y }); draw(); };
      stage.addEventListener("pointermove", drag);
      stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", drag), { once: true });
    });
    return el("figure", { class: "pf-pane" }, stage, el("figcaption", {}, el("div", { class: "pf-small", text: factsOf(row).join(" · ") }), footOf(row)));
  });
  const tools = [button("Closer", "+", "Zoom in, all of them", () => zoom(1.5)), button("Wider", "−", "Zoom out, all of them", () => zoom(1 / 1.5))];
  return { nodes, tools, zoom };
};

const show = (title, rows, footOf, ...more) => {
  const { nodes, tools, zoom } = panes(rows, footOf);
  const dialog = openDialog(title, el("h2", { class: "pf-part", text: title }), el("div", { class: "pf-panes" }, ...nodes),
    el("div", { class: "pf-tools pf-dialog-end" }, ...tools, ...more, el("span", { class: "pf-gap" }), button("Close", "Esc", "Back to the grid", () => dialog.close())));
  dialog.classList.add("pf-wide");
  dialog.addEventListener("keydown", (event) => { if (["+", "=", "-"].includes(event.key)) zoom(event.key === "-" ? 1 / 1.5 : 1.5); });
  return dialog;
};

const keepOne = (rows, row, close) => button("Keep this, reject the others", "", "One decision on all of them", () => { keepBest(rows, row); close(); }, "pf-keep");

export const openCompare = () => {
  const ticked = state.shown.filter((row) => state.ticked.has(row.id) && row.state === "ready");
  const rows = (ticked.length > 1 ? ticked : groupOf(rowOf(state.cursor))).slice(0, MOST);
  if (rows.length < 2) { notice("Tick two to four pictures to compare them."); return; }
  const dialog = show(`Compare ${rows.length}`, rows, (row) => keepOne(rows, row, () => dialog.close()));
};

export const openGroup = () => {
  const rows = groupOf(rowOf(state.cursor));
  if (rows.length < 2) { notice("No near-duplicate of this picture is among the pictures of this centroid."); return; }
  const first = best(rows);
  const foot = (row) => el("div", { class: "pf-tools" }, keepOne(rows, row, () => dialog.close()),
    row === first ? el("span", { class: "pf-badge-in", text: `the best: ${count(side(row))} px` }) : null);
  const dialog = show(`${count(rows.length)} near-duplicates`, rows, foot,
    button("Keep the best", "⇧G", "The largest, of these the most aesthetic, of these the most similar", () => { keepBest(rows); dialog.close(); }, "pf-primary"));
  dialog.addEventListener("keydown", (event) => { if (event.key === "G" && event.shiftKey) { keepBest(rows); dialog.close(); } });
};
export const resolveGroup = () => {
  const rows = groupOf(rowOf(state.cursor));
  if (rows.length < 2) notice("No near-duplicate of this picture is among the pictures of this centroid.");
  else keepBest(rows);
};
