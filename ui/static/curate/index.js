/* The Curate page: its keys, and what happens when it opens. */

import { clip } from "../core/dom.js";
import { closeDrawers } from "../core/drawers.js";
import { poll } from "../core/jobs.js";
import { keys } from "../core/keys.js";
import { get } from "../core/net.js";
import { load, notice, on, tell } from "../core/page.js";
import { adoptQueues } from "../core/queue.js";
import { askRest } from "./bulk.js";
import { finish, leaveOut } from "./centroid.js";
import { listed, restoreRanking, step } from "./centroids.js";
import { openCompare, openGroup, resolveGroup } from "./compare.js";
import { goTo, move, readReveal, reveal, revealAll, setTicks, tick, tickAlong } from "./cursor.js";
import "./filters.js";
import { columns, pageRows } from "./grid.js";
import { KEYS } from "./keys.js";
import { writeNote } from "./notes.js";
import { closeSearch, loadCentroids, openCentroid, openSearch, reload } from "./opening.js";
import { openPreview } from "./preview.js";
import { entryOf, readAddress, refresh, rowOf, state } from "./state.js";
import { decide, redo, rememberTicks, undo, unsure } from "./verdicts.js";
import { startView } from "./views.js";

const here = (act) => () => state.cursor && act(state.cursor);
const withRow = (act) => () => { const row = rowOf(state.cursor); if (row) act(row); };
const ticking = (act) => () => { rememberTicks(state.ticked); act(); };
const escape = () => {
  if (closeDrawers()) return;
  if (state.ticked.size) ticking(() => setTicks([]))();
  else if (state.like !== null) closeSearch();
};
const look = (event) => { if (!event.target.closest("button, a, summary")) openPreview(); };
const actions = {
  ArrowRight: () => move(1), ArrowLeft: () => move(-1), k: () => move(1), j: () => move(-1),
  ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()),
  PageDown: () => goTo(at() + columns() * pageRows()), PageUp: () => goTo(at() - columns() * pageRows()),
  Home: () => goTo(0), End: () => goTo(state.shown.length - 1),
  "Shift+ArrowRight": () => tickAlong(1), "Shift+ArrowLeft": () => tickAlong(-1),
  "Shift+ArrowDown": () => tickAlong(columns()), "Shift+ArrowUp": () => tickAlong(-columns()),
  a: () => decide("keep"), p: () => decide("keep"), r: () => decide("reject"), Delete: () => decide("reject"), 0: () => decide("clear"), q: unsure,
  "Shift+a": () => askRest("keep"), "Shift+r": () => askRest("reject"),
  u: undo, "Ctrl+z": undo, "Shift+u": redo, "Ctrl+Shift+z": redo,
  x: here(tick), "Ctrl+a": ticking(() => setTicks(state.shown.map((row) => row.id))), Escape: escape,
  " ": look, Enter: look, c: openCompare, g: openGroup, "Shift+g": resolveGroup, e: withRow(writeNote),
  m: withRow((row) => openSearch(`image:${row.id}`)), v: here(reveal), b: () => revealAll(),
  n: () => step(1), "Shift+n": () => step(-1), d: finish, "Shift+d": leaveOut,
};
const at = () => state.shown.findIndex((row) => row.id === state.cursor);

load(["centroids", "grid", "side"], async () => {
  keys("curate", KEYS, actions);
  if (!location.search && startView()) history.replaceState(history.state, "", `${location.pathname}?${startView()}`);
  readReveal();
  await loadCentroids();
  readAddress();
  tell("address");
  tell("filters");
  get("/api/server").then((server) => tell("server", server)).catch((error) => notice(error.message));
  await restoreRanking();
  tell("centroids");
  await adoptQueues();
  const stale = state.centroid !== null && !entryOf(state.centroid) ? state.centroid : null;
  const first = entryOf(state.centroid) || listed()[0] || state.centroids[0];
  const { like } = state;
  if (!first) {
    state.centroid = null;
    refresh();
  } else if (like) {
    state.centroid = first.centroid;
    await openSearch(like);
  } else await openCentroid(first.centroid);
  if (stale !== null && first) notice(`Centroid ${clip(stale, 40)} of this address is not in the run (any more); “${clip(first.label, 60)}” is open instead. Look for the one that was meant by its label.`);
  on("ended", reload);
  poll();
});
