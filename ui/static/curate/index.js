/* The Curate page: its keys, and what happens when it opens. */

import { poll } from "../core/jobs.js";
import { keys } from "../core/keys.js";
import { get } from "../core/net.js";
import { load, notice, on, tell } from "../core/page.js";
import { adoptQueues } from "../core/queue.js";
import { listed, step } from "./centroids.js";
import "./filters.js";
import { columns } from "./grid.js";
import { openCentroid, reload } from "./opening.js";
import { entryOf, readAddress, refresh, state } from "./state.js";
import { decide, move, place, reveal, tick, undo, untick } from "./verdicts.js";

const KEYS = [
  ["← → ↑ ↓, J, K", "move"], ["A or P", "keep the ticked ones, else the one under the cursor"], ["R or Del", "reject"],
  ["0", "clear the verdict"], ["U or Ctrl+Z", "undo your last decision"], ["X", "tick"], ["Ctrl+A", "tick all shown"], ["Esc", "untick all"],
  ["V", "reveal or blur again"], ["N / Shift+N", "next / previous centroid"], ["Home / End", "first / last picture"], ["?", "this list"],
];
const here = (act) => () => state.cursor && act(state.cursor);
const end = (index) => () => { const row = state.shown.at(index); if (row) place(row.id); };

load(["centroids", "grid", "side"], async () => {
  keys(KEYS, {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), k: () => move(1), j: () => move(-1),
    ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()), Home: end(0), End: () => end(Math.min(state.limit, state.shown.length) - 1)(),
    a: () => decide("keep"), p: () => decide("keep"), r: () => decide("reject"), Delete: () => decide("reject"), 0: () => decide("clear"),
    u: undo, "Ctrl+z": undo, x: here(tick), v: here(reveal), n: () => step(1), "Shift+n": () => step(-1), Escape: untick,
    "Ctrl+a": () => { for (const row of state.shown) if (!state.ticked.has(row.id)) tick(row.id); },
  });
  const wanted = readAddress();
  tell("address");
  state.centroids = (await get("/api/centroids")).centroids;
  tell("filters");
  tell("centroids");
  await adoptQueues();
  const first = entryOf(wanted) || listed()[0];
  if (first) await openCentroid(first.centroid);
  else {
    notice("This run has no centroids yet. Start “run” on the Jobs page, or `popfactory run` in a terminal.");
    refresh();
  }
  on("ended", reload);
  poll();
});
