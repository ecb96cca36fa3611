/* Centre: the neighbours of the open centroid, a tile each. */

import { button, choice, clip, count, el, fill, fixed } from "../core/dom.js";
import { remember, remembered } from "../core/memory.js";
import { thumbnail } from "../core/net.js";
import { on, page, part, tell } from "../core/page.js";
import { step } from "./centroids.js";
import { changed, entryOf, FILTERS, firstFailed, funnel, MOST_ROWS, PAGE_ROWS, rowOf, SHOWS, side, SORTS, state } from "./state.js";
import { decide, move, place, reveal, tick, undo } from "./verdicts.js";

const RULE_WORDS = {
  min_side_px: "small", pwatermark_max: "watermark", punsafe_max: "unsafe", aesthetic_min: "low aesthetic",
  near_duplicate: "duplicate", other_centroid: "elsewhere", quota: "quota full", unfetched: "gone", unscored: "unscored",
  takedown: "taken down", hash_block: "blocked", centroid_left_out: "left out",
};
const STATE_WORDS = { gone: "could not be had", pending: "not fetched yet", blocked: "kept out by a list" };
const tiles = new Map();
let grid = null;

const tileLabel = (row) => {
  const parts = [`${row.rank + 1}`, `similarity ${fixed(row.similarity, 3)}`];
  if (row.decision) parts.push(row.decision === "keep" ? "kept" : "rejected");
  if (row.rule) parts.push(RULE_WORDS[row.rule] || row.rule);
  if (row.state !== "ready") parts.push(row.reason || "");
  return parts.join(", ");
};

on("tile", (row) => {
  const tile = row && tiles.get(row.id);
  if (tile) fillTile(tile, row);
});

const fillTile = (tile, row) => {
  const covered = row.state === "ready" && row.blurred && !state.revealed.has(row.id);
  const failing = row.state === "ready" ? firstFailed(row) : null;
  tile.className = ["pf-tile", `pf-${row.state}`, row.decision ? `pf-is-${row.decision}` : "", state.ticked.has(row.id) ? "pf-ticked" : "",
    failing && !row.decision ? "pf-failing" : "", row.id === state.cursor ? "pf-cursor" : ""].join(" ");
  tile.setAttribute("aria-selected", state.ticked.has(row.id) ? "true" : "false");
  tile.setAttribute("aria-label", tileLabel(row));
  const source = row.state === "ready" ? thumbnail(row.sha256, covered) : null;
  let picture = tile.querySelector(".pf-picture");
  if (!picture || picture.dataset.source !== String(source)) {
    const made = source
      ? el("img", { src: source, alt: "", loading: "lazy", decoding: "async", width: 256, height: 256,
        on: { error: (event) => event.target.replaceWith(el("span", { class: "pf-why", text: "its file can't be opened any more" })) } })
      : el("span", { class: "pf-why", text: row.state === "gone" ? `${STATE_WORDS.gone}: ${String(row.reason).replaceAll("_", " ")}` : STATE_WORDS[row.state] });
    const fresh = el("div", { class: "pf-picture", "data-source": String(source) }, made);
    if (picture) picture.replaceWith(fresh);
    else tile.append(fresh);
    picture = fresh;
  }
  tile.querySelectorAll(".pf-over").forEach((node) => node.remove());
  const mark = { keep: "✓", reject: "✕" }[row.decision];
  const tickBox = el("span", { class: "pf-over pf-tick", "aria-hidden": "true", text: state.ticked.has(row.id) ? "✓" : "",
    on: { click: (event) => { event.stopPropagation(); place(row.id); tick(row.id); } } });
  tile.append(tickBox);
  if (mark) tile.append(el("span", { class: `pf-over pf-mark pf-mark-${row.decision}`, text: mark }));
  if (covered) {
    tile.append(el("span", { class: "pf-over pf-reveal", "aria-hidden": "true",
      title: row.punsafe === null ? "Blurred: without an unsafe score" : `Blurred: unsafe ${fixed(row.punsafe, 2)}`,
      on: { click: (event) => { event.stopPropagation(); place(row.id); reveal(row.id); } } }, "Reveal", el("kbd", { text: "V" })));
  }
  const word = row.verdict === "selected" ? "selected" : row.rule === "person" ? "" : RULE_WORDS[row.rule] || row.rule || "";
  tile.append(el("div", { class: "pf-over pf-line" },
    el("span", { class: "pf-figure", title: "similarity to the centroid", text: fixed(row.similarity, 2).replace(/^0/, "") }),
    el("span", { class: "pf-muted pf-size-px", title: "shorter side in pixels", text: row.width ? String(side(row)) : "" }),
    row.group_size > 1 ? el("span", { class: "pf-duplicate", title: "near-duplicates in its group", text: `≈${row.group_size}` }) : null,
    el("span", { class: row.verdict === "selected" ? "pf-badge pf-badge-in" : "pf-badge", title: row.meaning || "", text: failing && !row.verdict ? failing.word : word })));
};

part("grid", (host) => {
  const title = el("h2", { class: "pf-part pf-centroid-title" });
  const show = choice(SHOWS, "Which pictures to show", (value) => { state.show = value; changed(); });
  const sort = choice(SORTS, "Order of pictures", (value) => { state.sort = value; changed(); });
  const size = el("input", { type: "range", min: 96, max: 256, step: 8, class: "pf-size", "aria-label": "Size of tiles", title: "Size of tiles",
    on: { input: () => { remember("popfactory.tile", size.value); grid.style.setProperty("--pf-tile", `${size.value}px`); } } });
  size.value = remembered("popfactory.tile", "136");
  grid = el("div", { class: "pf-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Neighbours", tabindex: 0 });
  grid.style.setProperty("--pf-tile", `${size.value}px`);
  const more = button("Show more", "", "The next 200", () => { state.limit = Math.min(state.limit + PAGE_ROWS, MOST_ROWS); tell("grid"); }, "pf-more");
  const scroller = el("div", { class: "pf-scroll" }, grid, more);
  const detail = el("div", { class: "pf-detail", tabindex: 0, role: "region", "aria-label": "The picture under the cursor" });
  const status = el("div", { class: "pf-status pf-muted", role: "status" });
  const verdicts = el("div", { class: "pf-verdicts" },
    button("Keep", "A", "Keep the ticked ones, else the one under the cursor (also P)", () => decide("keep"), "pf-keep"),
    button("Reject", "R", "Reject them (also Del)", () => decide("reject"), "pf-reject"),
    button("Clear", "0", "Take the verdict back", () => decide("clear")),
    button("Undo", "U", "Undo your last decision, also after a reload", undo),
    button("Tick", "X", "Tick the one under the cursor", () => state.cursor && tick(state.cursor)),
    button("Reveal", "V", "Show or blur the one under the cursor", () => state.cursor && reveal(state.cursor)),
    button("Back", "J", "Previous picture", () => move(-1)),
    button("On", "K", "Next picture", () => move(1)));
  host.append(
    el("div", { class: "pf-bar-top" },
      button("Centroids", "", "Show the centroids", () => document.body.classList.toggle("pf-show-left"), "pf-open-left"),
      title,
      button("Filters", "", "Show filters and captions", () => document.body.classList.toggle("pf-show-right"), "pf-open-right"),
      el("div", { class: "pf-tools" },
        button("◂", "⇧N", "Previous centroid", () => step(-1)), button("▸", "N", "Next centroid", () => step(1)),
        show, sort, size)),
    scroller, detail, verdicts, status);

  on("address", () => { show.value = state.show; sort.value = state.sort; });
  on("opened", () => {
    const entry = entryOf(state.centroid);
    title.textContent = entry ? clip(entry.label, 160) : "";
    title.title = entry ? clip(entry.label, 300) : "";
    scroller.scrollTop = 0;
    grid.replaceChildren();
    tiles.clear();
    grid.setAttribute("aria-busy", "true");
  });
  on("grid", () => {
    const rows = state.shown.slice(0, state.limit);
    const wanted = new Set(rows.map((row) => row.id));
    for (const id of [...tiles.keys()]) if (!wanted.has(id)) { tiles.get(id).remove(); tiles.delete(id); }
    const nodes = rows.map((row) => {
      let tile = tiles.get(row.id);
      if (!tile) {
        tile = el("div", { role: "option", id: `pf-tile-${row.id}`, "data-id": row.id,
          on: { click: (event) => { place(row.id); if (event.ctrlKey || event.metaKey) tick(row.id); } } });
        tiles.set(row.id, tile);
      }
      fillTile(tile, row);
      return tile;
    });
    // Nodes already in their place are not touched: moving an <img> makes it load again.
    if (nodes.length !== grid.childNodes.length || nodes.some((node, index) => grid.childNodes[index] !== node)) {
      if (nodes.length) grid.replaceChildren(...nodes);
      else grid.replaceChildren(el("p", { class: "pf-empty pf-muted", text: emptyText() }));
    }
    grid.removeAttribute("aria-busy");
    more.hidden = state.shown.length <= state.limit || state.limit >= MOST_ROWS;
  });
  let before = null;
  on("cursor", () => {
    if (before && tiles.get(before)) tiles.get(before).classList.remove("pf-cursor");
    before = state.cursor;
    const tile = state.cursor && tiles.get(state.cursor);
    if (tile) {
      tile.classList.add("pf-cursor");
      tile.scrollIntoView({ block: "nearest" });
      grid.setAttribute("aria-activedescendant", tile.id);
    } else grid.removeAttribute("aria-activedescendant");
    describe(detail);
  });
  on("status", () => {
    const tally = (test) => state.rows.filter(test).length;
    const taken = funnel().taken;
    const parts = [`${count(state.shown.length)} of ${count(state.rows.length)} shown`];
    for (const filter of FILTERS) if (taken.get(filter.name)) parts.push(`${count(taken.get(filter.name))} out by ${filter.label.toLowerCase()}`);
    for (const [kind, word] of [["gone", "gone"], ["pending", "not fetched"], ["blocked", "blocked"]]) {
      const number = tally((row) => row.state === kind);
      if (number) parts.push(`${count(number)} ${word}`);
    }
    parts.push(`✓ ${count(tally((row) => row.decision === "keep"))} ✕ ${count(tally((row) => row.decision === "reject"))}`);
    if (state.ticked.size) parts.push(`${count(state.ticked.size)} ticked`);
    status.textContent = parts.join(" · ");
  });
});

const emptyText = () => {
  if (state.centroid === null) return "";
  if (!state.rows.length) return page.run && page.run.stages.neighbours ? "This centroid has no neighbours." : "No neighbours yet: run `popfactory retrieve`, or start “run” on the Jobs page.";
  return "Nothing to show with these filters. Widen them, or choose “everything found”.";
};

const describe = (host) => {
  const row = rowOf(state.cursor);
  if (!row) { host.replaceChildren(); return; }
  const facts = [`#${row.rank + 1}`, `similarity ${fixed(row.similarity, 3)}`];
  if (row.state === "ready") {
    facts.push(`${row.width}×${row.height} px`, `aesthetic ${fixed(row.aesthetic, 2)}`, `watermark ${fixed(row.pwatermark, 2)}`, `unsafe ${fixed(row.punsafe, 2)}`);
  } else facts.push(row.reason || STATE_WORDS[row.state]);
  const why = row.verdict ? `${row.verdict}: ${row.meaning || row.rule}${row.detail ? ` (${row.detail})` : ""}` : "no candidate of the last selection";
  const person = row.decision ? ` · ${row.decision === "keep" ? "kept" : "rejected"} by ${row.curator || "you"}` : "";
  fill(host,
    el("div", { class: "pf-facts", text: facts.join(" · ") }),
    el("div", { class: "pf-muted" }, `${why}${person}`, el("span", { class: "pf-id", title: "its id", text: row.id })),
    row.caption ? el("div", { class: "pf-text", title: clip(row.caption, 2000) }, el("b", { text: "caption " }), clip(row.caption, 600)) : null,
    row.text ? el("div", { class: "pf-text", title: clip(row.text, 2000) }, el("b", { text: "text " }), clip(row.text, 400)) : null,
    !row.text && row.address ? el("div", { class: "pf-text" }, el("b", { text: "from " }), clip(row.address, 400)) : null);
};

// ------------------------------------------------------------------ right: filters, selection, captions

/* Tiles in a row of the grid. */
export const columns = () => {
  const nodes = grid ? [...grid.children] : [];
  const top = nodes.length ? nodes[0].offsetTop : 0;
  const next = nodes.findIndex((node) => node.offsetTop > top);
  return next > 0 ? next : Math.max(1, nodes.length);
};
