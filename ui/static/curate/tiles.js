/* A tile a picture: made once, changed where something about it changed. */

import { cap, clip, el, fixed, words } from "../core/dom.js";
import { get, pathOf } from "../core/net.js";
import { on } from "../core/page.js";
import { isCovered, place, reveal, tick, tickTo } from "./cursor.js";
import { reasonOf, SIGNS, sourceOf, STATE_WORDS, tileLabel, wordOf } from "./facts.js";
import { openPreview } from "./preview.js";
import { isUnusable, side, state } from "./state.js";

export const tiles = new Map();

// A picture that was not fetched comes while one waits; the reason why one does not come is asked for.
const failedPicture = async (node, row) => {
  const source = node.getAttribute("src");
  const pending = row.state === "pending";
  const said = el("span", { class: "pf-why", text: pending ? "looking for it…" : "" });
  node.replaceWith(said);
  try {
    await get(pending ? `/preview/${row.id}.blurred.webp` : pathOf(source));
    if (!pending) said.textContent = "it didn't come; reload the page";
  } catch (error) {
    said.textContent = error.status ? `${STATE_WORDS.gone}: ${words(error.message)}` : "the board's server can't be reached";
  }
};

const looks = (row) => [row.state, row.decision, row.tag, row.note ? 1 : 0, row.failed, row.id === state.cursor, state.ticked.has(row.id), isCovered(row),
  row.verdict, row.rule, row.conflict ? 1 : 0, row.differing ? 1 : 0, state.like === null].join("|");

export const fillTile = (tile, row) => {
  const look = looks(row);
  if (tile.dataset.look === look) return;
  tile.dataset.look = look;
  const covered = isCovered(row);
  const ticked = state.ticked.has(row.id);
  const failing = row.state === "ready" && (row.failed || isUnusable(row));
  tile.className = ["pf-tile", `pf-${row.state}`, row.decision ? `pf-is-${row.decision}` : "", ticked ? "pf-ticked" : "", row.tag === "unsure" ? "pf-is-unsure" : "",
    failing && !row.decision ? "pf-failing" : "", row.id === state.cursor ? "pf-cursor" : ""].filter(Boolean).join(" ");
  tile.setAttribute("aria-selected", ticked ? "true" : "false");
  tile.setAttribute("aria-label", tileLabel(row));
  const source = sourceOf(row, covered);
  let picture = tile.querySelector(".pf-picture");
  if (!picture || picture.dataset.source !== String(source)) {
    const made = source
      ? el("img", { src: source, alt: "", loading: "lazy", decoding: "async", width: 256, height: 256, on: { error: (event) => failedPicture(event.target, row) } })
      : el("span", { class: "pf-why", text: reasonOf(row) });
    const fresh = el("div", { class: "pf-picture", "data-source": String(source) }, made);
    if (picture) picture.replaceWith(fresh);
    else tile.append(fresh);
    picture = fresh;
  }
  tile.querySelectorAll(".pf-over").forEach((node) => node.remove());
  tile.append(el("span", { class: "pf-over pf-tick", "aria-hidden": "true", text: ticked ? "✓" : "",
    on: { click: (event) => { event.stopPropagation(); place(row.id); tick(row.id); } } }));
  if (row.conflict) {
    tile.append(el("span", { class: "pf-over pf-both", title: `${clip(row.conflict.curator, 40)} decided otherwise meanwhile; decide again to overrule` },
      el("span", { class: `pf-mark-${row.conflict.theirs}`, text: `${SIGNS[row.conflict.theirs] || "↶"} ${clip(row.conflict.curator, 10)}` }),
      el("span", { class: `pf-mark-${row.conflict.mine}`, text: `${SIGNS[row.conflict.mine] || "0"} you` })));
  } else if (row.decision) tile.append(el("span", { class: `pf-over pf-mark pf-mark-${row.decision}`, text: SIGNS[row.decision] }));
  if (row.tag === "unsure") tile.append(el("span", { class: "pf-over pf-mark pf-mark-unsure", title: "unsure: look again", text: "?" }));
  if (covered && ["ready", "pending"].includes(row.state)) {
    tile.append(el("span", { class: "pf-over pf-reveal", "aria-hidden": "true",
      title: row.punsafe === null ? "Blurred: without an unsafe score" : `Blurred: unsafe ${fixed(row.punsafe, 2)}`,
      on: { click: (event) => { event.stopPropagation(); place(row.id); reveal(row.id); } } }, "Reveal", cap("V")));
  }
  tile.append(el("div", { class: "pf-over pf-line" },
    el("span", { class: "pf-figure", title: "similarity", text: fixed(row.similarity, 2).replace(/^0/, "") }),
    el("span", { class: "pf-muted pf-size-px", title: "shorter side in pixels", text: row.width ? String(side(row)) : "" }),
    row.group_size > 1 ? el("span", { class: "pf-duplicate", title: "near-duplicates in its group", text: `≈${row.group_size}` }) : null,
    row.note ? el("span", { class: "pf-muted", title: clip(row.note, 300), text: "✎" }) : null,
    row.differing ? el("span", { class: "pf-muted", title: "curators differ on it", text: "≠" }) : null,
    el("span", { class: row.verdict === "selected" ? "pf-badge pf-badge-in" : "pf-badge", title: row.meaning || "", text: wordOf(row) })));
};

on("tile", (row) => {
  const tile = row && tiles.get(row.id);
  if (tile) fillTile(tile, row);
});

const tileOf = (row) => {
  let tile = tiles.get(row.id);
  if (!tile) {
    tile = el("div", { role: "option", id: `pf-tile-${row.id}`, "data-id": row.id, on: {
      click: (event) => {
        if (event.shiftKey) tickTo(row.id);
        place(row.id);
        if (event.ctrlKey || event.metaKey) tick(row.id);
      },
      dblclick: () => { place(row.id); openPreview(); },
    } });
    tiles.set(row.id, tile);
  }
  fillTile(tile, row);
  return tile;
};

/* Bring the page's nodes in step with the rows; what is in its place is not touched, or its picture would load again. */
export const layOut = (grid, rows, emptyText) => {
  const wanted = new Set(rows.map((row) => row.id));
  for (const [id, tile] of tiles) if (!wanted.has(id)) { tile.remove(); tiles.delete(id); }
  if (!rows.length) { grid.replaceChildren(el("p", { class: "pf-empty pf-muted", text: emptyText })); return; }
  grid.querySelector(".pf-empty")?.remove();
  let next = grid.firstChild;
  for (const row of rows) {
    const tile = tileOf(row);
    if (tile === next) next = next.nextSibling;
    else grid.insertBefore(tile, next);
  }
};
