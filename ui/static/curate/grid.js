/* Centre: the pictures, and the deeds below them. */

import { button, choice, clip, count, el, fill } from "../core/dom.js";
import { opens } from "../core/drawers.js";
import { remember, remembered } from "../core/memory.js";
import { on, page, part, tell } from "../core/page.js";
import { askRest } from "./bulk.js";
import { finish, leaveOut, makeConcept } from "./centroid.js";
import { step } from "./centroids.js";
import { openCompare, openGroup } from "./compare.js";
import { goTo, move, reveal, revealAll, tick } from "./cursor.js";
import { factsOf, whyText } from "./facts.js";
import { writeNote } from "./notes.js";
import { closeSearch, openSearch } from "./opening.js";
import { openPreview } from "./preview.js";
import { CENTROID_STATES, changed, entryOf, funnel, MOST_ROWS, PAGE_ROWS, rowOf, SHOWS, SORTS, state, stateOf } from "./state.js";
import { fillTile, layOut, tiles } from "./tiles.js";
import { decide, redo, rest, undo, unsure } from "./verdicts.js";

const FIRST_TILES = 60;
let grid = null;

const NONE = {
  open: "Nothing is left to decide here: every picture that passes the filters has a verdict.",
  selected: "The last select took none of this centroid's pictures.",
  decided: "Nobody has decided on a picture here yet.",
  others: "Nobody but you has decided on a picture here.",
  unsure: "No picture here is marked for a second look.",
  differing: "Curators differ on no picture here.",
  duplicates: "No picture here has near-duplicates.",
  elsewhere: "No picture here is nearer to another centroid.",
  gone: "Everything that was asked for could be had.",
  passed_over: "No picture here was passed over for what the pool says of it.",
};
const emptyText = () => {
  if (state.centroid === null) return "This run has no centroids yet. Start “run” on the Jobs page, or `popfactory run` in a terminal.";
  if (state.like !== null) return state.failed || NONE[state.rows.length ? state.show : ""] || (state.rows.length ? "Nothing to show with these filters." : "Nothing was found.");
  if (!state.rows.length) return page.run && page.run.stages.neighbours ? "This centroid has no neighbours." : "No neighbours yet: run `popfactory retrieve`, or start “run” on the Jobs page.";
  return NONE[state.show] || "Nothing to show with these filters. Widen them, or choose “everything found”.";
};
const likeText = (like) => {
  const [kind, name] = [like.slice(0, like.indexOf(":")), like.slice(like.indexOf(":") + 1)];
  if (kind === "text") return `In the pool: “${name}”`;
  return kind === "image" ? "In the pool: like the chosen picture" : kind === "picture" ? "In the pool: like your picture" : `In the pool: like centroid ${name}`;
};

const here = (act) => () => state.cursor && act(state.cursor);
const withRow = (act) => () => { const row = rowOf(state.cursor); if (row) act(row); };
/* Each deed: the word on its button, its key, what it says, what it does. */
const MAIN = [
  ["Keep", "A", "Keep the ticked ones, else the one under the cursor", () => decide("keep"), "pf-keep"],
  ["Reject", "R", "Reject them", () => decide("reject"), "pf-reject"],
  ["Unsure", "Q", "Mark for a second look; changes nothing in the selection", unsure],
  ["Clear", "0", "Take the verdict back", () => decide("clear")],
  ["Undo", "U", "Undo your last decision, also after a reload", undo],
  ["Redo", "⇧U", "Do again what was undone", redo],
];
const MORE = [
  ["Tick", "X", "Tick the one under the cursor", here(tick)],
  ["Look", "␣", "A large picture, with all that is known of it", () => openPreview()],
  ["Compare", "C", "The ticked ones, or its near-duplicates, side by side", () => openCompare()],
  ["Group", "G", "Its near-duplicates, to keep the best", () => openGroup()],
  ["Like it", "M", "Search the pool for pictures like it", withRow((row) => openSearch(`image:${row.id}`))],
  ["Note", "E", "Write a note on it", withRow(writeNote)],
  ["Reveal", "V", "Show or blur the one under the cursor", here(reveal)],
  ["All", "B", "Show or blur all", () => revealAll()],
];

part("grid", (host) => {
  const title = el("h2", { class: "pf-part pf-centroid-title" });
  const sign = el("span", { class: "pf-sign" });
  const show = choice(SHOWS, "Which pictures to show", (value) => { state.show = value; changed(); });
  const sort = choice(SORTS, "Order of pictures", (value) => { state.sort = value; changed(); });
  const size = el("input", { type: "range", min: 96, max: 256, step: 8, class: "pf-size", "aria-label": "Size of tiles", title: "Size of tiles",
    on: { input: () => { remember("popfactory.tile", size.value); grid.style.setProperty("--pf-tile", `${size.value}px`); } } });
  size.value = remembered("popfactory.tile", "136");
  grid = el("div", { class: "pf-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Pictures", tabindex: 0 });
  grid.style.setProperty("--pf-tile", `${size.value}px`);
  const more = button("Show more", "", "The next 200", () => { state.limit = Math.min(state.limit + PAGE_ROWS, MOST_ROWS); tell("grid"); }, "pf-more");
  const next = button(`Next ${count(MOST_ROWS)}`, "", "The page holds no more at once", () => goTo(state.first + MOST_ROWS), "pf-step-page");
  const previous = button(`Previous ${count(MOST_ROWS)}`, "", "Back to those before", () => goTo(state.first - MOST_ROWS), "pf-step-page");
  const scroller = el("div", { class: "pf-scroll" }, previous, grid, more, next);
  const inPage = () => state.shown.slice(state.first, state.first + state.limit);
  const detail = el("div", { class: "pf-detail", tabindex: 0, role: "region", "aria-label": "The picture under the cursor" });
  const status = el("div", { class: "pf-status pf-muted", role: "status" });
  const make = ([label, key, title_, act, extra = ""]) => button(label, key, title_, act, extra);
  const keepRest = button("Keep rest", "⇧A", "Keep all that is shown and undecided", () => askRest("keep"), "pf-quiet");
  const rejectRest = button("Reject rest", "⇧R", "Reject all that is shown and undecided", () => askRest("reject"), "pf-quiet");
  const done = button("Done", "D", "This centroid is done; on to the next open one", finish, "pf-quiet");
  const out = button("Leave out", "⇧D", "None of this centroid's pictures in the selection", leaveOut, "pf-quiet");
  const back = button("Back to the centroid", "Esc", "Leave the search", closeSearch, "pf-back");
  const concept = button("Make it a concept", "", "A centroid of your own of what was searched for", makeConcept, "pf-back");
  back.hidden = concept.hidden = true;
  host.append(
    el("div", { class: "pf-bar-top" },
      opens("Centroids", "Show the centroids", "pf-show-left", '[data-part="centroids"]', "pf-open-left"),
      sign, title, concept, back, done, out,
      button("◂", "⇧N", "Previous open centroid", () => step(-1), "pf-step"), button("▸", "N", "Next open centroid", () => step(1), "pf-step"),
      opens("Filters", "Show filters and captions", "pf-show-right", '[data-part="side"]', "pf-open-right"),
      el("div", { class: "pf-tools pf-shows" }, show, sort, size, status)),
    scroller, detail,
    el("div", { class: "pf-verdicts" }, ...MAIN.map(make), keepRest, rejectRest, el("span", { class: "pf-break" }),
      ...MORE.map((each) => make([...each.slice(0, 4), "pf-quiet"])),
      button("Back", "J", "Previous picture", () => move(-1), "pf-quiet"), button("On", "K", "Next picture", () => move(1), "pf-quiet")));

  on("address", () => { show.value = state.show; sort.value = state.sort; });
  const nameIt = () => {
    const entry = entryOf(state.centroid);
    const label = state.like !== null ? likeText(state.like) : entry ? entry.label : "";
    title.textContent = clip(label, 160);
    title.title = clip(label, 300);
    const [glyph, meaning] = entry ? CENTROID_STATES[stateOf(entry)] : ["", ""];
    sign.textContent = state.like === null ? glyph : "";
    sign.title = entry && entry.reason ? `${meaning}: ${clip(entry.reason, 200)}` : meaning;
    done.firstChild.textContent = entry && entry.state === "done" ? "Open again" : "Done";
    for (const node of [done, out]) node.hidden = state.like !== null;
    back.hidden = state.like === null;
    concept.hidden = state.like === null || state.like.startsWith("centroid:");
  };
  on("opened-state", nameIt);
  on("opened", () => {
    nameIt();
    scroller.scrollTop = 0;
    grid.replaceChildren(...(state.like === null ? [] : [el("p", { class: "pf-empty pf-muted", text: "Searching the pool…" })]));
    tiles.clear();
    more.hidden = next.hidden = previous.hidden = true;
    grid.setAttribute("aria-busy", "true");
  });
  let later = null;
  on("grid", () => {
    clearTimeout(later);
    const rows = inPage();
    // A centroid that was just opened: its first screen at once, the rest in the next free moment.
    const few = grid.hasAttribute("aria-busy") && rows.length > FIRST_TILES;
    layOut(grid, few ? rows.slice(0, FIRST_TILES) : rows, emptyText());
    if (few) later = setTimeout(() => layOut(grid, inPage(), emptyText()), 60);
    grid.removeAttribute("aria-busy");
    const left = state.shown.length - state.first;
    more.hidden = left <= state.limit || state.limit >= MOST_ROWS;
    next.hidden = left <= MOST_ROWS || state.limit < MOST_ROWS;
    previous.hidden = !state.first;
    tell("shown");
  });
  let before = null;
  on("cursor", () => {
    for (const id of new Set([before, state.cursor])) if (rowOf(id) && tiles.get(id)) fillTile(tiles.get(id), rowOf(id));
    before = state.cursor;
    const tile = state.cursor && tiles.get(state.cursor);
    if (tile) {
      tile.scrollIntoView({ block: "nearest" });
      grid.setAttribute("aria-activedescendant", tile.id);
    } else grid.removeAttribute("aria-activedescendant");
    describe(detail);
  });
  on("status", () => {
    const left = rest().length;
    for (const [node, word] of [[keepRest, "Keep"], [rejectRest, "Reject"]]) {
      node.firstChild.textContent = `${word} rest (${count(left)})`;
      node.disabled = !left;
    }
    status.textContent = statusText();
  });
});

const statusText = () => {
  const tally = { keep: 0, reject: 0, unsure: 0, gone: 0, pending: 0, blocked: 0, passed_over: 0 };
  for (const row of state.rows) {
    if (row.decision) tally[row.decision] += 1;
    if (row.tag === "unsure") tally.unsure += 1;
    if (row.state !== "ready") tally[row.state] += 1;
  }
  const { taken } = funnel();
  const out = [...taken.values()].reduce((sum, number) => sum + number, 0);
  const parts = [`${count(state.shown.length)} of ${count(state.rows.length)} shown`];
  if (out) parts.push(`${count(out)} filtered out`);
  for (const [kind, word] of [["gone", "gone"], ["pending", "not fetched"], ["passed_over", "passed over"], ["blocked", "blocked"]]) if (tally[kind]) parts.push(`${count(tally[kind])} ${word}`);
  parts.push(`✓\u00a0${count(tally.keep)} ✕\u00a0${count(tally.reject)} ?\u00a0${count(tally.unsure)}`);
  if (state.ticked.size) parts.push(`${count(state.ticked.size)} ticked`);
  if (state.revealAll) parts.push("all revealed");
  return parts.join(" · ");
};

const describe = (host) => {
  const row = rowOf(state.cursor);
  if (!row) { host.replaceChildren(); return; }
  fill(host,
    el("div", { class: "pf-facts", text: factsOf(row).join(" · ") }),
    el("div", { class: "pf-muted" }, whyText(row), el("span", { class: "pf-id", title: "its id", text: row.id })),
    row.note ? el("div", { class: "pf-text" }, el("b", { text: "note " }), clip(row.note, 400)) : null,
    row.caption ? el("div", { class: "pf-text", title: clip(row.caption, 2000) }, el("b", { text: "caption " }), clip(row.caption, 600)) : null,
    row.text ? el("div", { class: "pf-text", title: clip(row.text, 2000) }, el("b", { text: "text " }), clip(row.text, 400)) : null,
    !row.text && row.address ? el("div", { class: "pf-text" }, el("b", { text: "from " }), clip(row.address, 400)) : null);
};

/* Tiles in a row of the grid, and rows of them on the screen. */
export const columns = () => {
  const nodes = grid ? [...grid.children] : [];
  const top = nodes.length ? nodes[0].offsetTop : 0;
  const next = nodes.findIndex((node) => node.offsetTop > top);
  return next > 0 ? next : Math.max(1, nodes.length);
};
export const pageRows = () => {
  const tile = grid && grid.firstElementChild;
  const height = grid ? grid.parentElement.clientHeight : 0;
  return tile && tile.offsetHeight ? Math.max(1, Math.floor(height / (tile.offsetHeight + 10))) : 1;
};
