/* What the curator does to pictures: keep, reject, clear, undo; cursor, ticks, reveal. */

import { clip, count } from "../core/dom.js";
import { curator } from "../core/memory.js";
import { notice, on, tell } from "../core/page.js";
import { enqueue, queue } from "../core/queue.js";
import { entryOf, MOST_ROWS, PAGE_ROWS, rowOf, state } from "./state.js";

const record = (event) => enqueue({ centroid_id: state.centroid, last_seen: state.lastEvent, ...event });

const setDecision = (row, decision) => {
  const centroid = entryOf(state.centroid);
  if (centroid) {
    for (const [action, field] of [["keep", "kept"], ["reject", "rejected"]]) {
      if (row.decision === action) centroid[field] -= 1;
      if (decision === action) centroid[field] += 1;
    }
  }
  row.decision = decision;
  row.curator = decision ? curator() : null;
  tell("tile", row);
};

// What the server says of these pictures now, unless a later decision is still on its way.
on("answered", (answer) => {
  const pending = new Set(queue.events.flatMap((event) => event.ids || []));
  const undoing = queue.events.some((event) => event.action === "undo");
  for (const [id, verdict] of Object.entries(answer.verdicts || {})) {
    const row = rowOf(id);
    if (!row || pending.has(id) || undoing) continue;
    if (row.decision !== verdict.decision) setDecision(row, verdict.decision);
    row.curator = verdict.curator;
  }
  if (!queue.events.length) {
    for (const [number, pair] of Object.entries(answer.counts)) {
      const entry = entryOf(number);
      if (entry) [entry.kept, entry.rejected] = pair;
    }
  }
  state.lastEvent = answer.last_event;
  if (answer.conflicts.length) {
    const [first] = answer.conflicts;
    notice(`${count(answer.conflicts.length)} left as decided by ${clip(first.curator, 40)} meanwhile; decide again to overrule.`);
  }
  tell("centroids");
  tell("status");
});

const targets = () => {
  const chosen = state.ticked.size ? state.shown.filter((row) => state.ticked.has(row.id)) : state.shown.filter((row) => row.id === state.cursor);
  return chosen.filter((row) => row.state !== "blocked");
};
const told = () => ["centroids", "status", "cursor"].forEach((topic) => tell(topic));

export const decide = (action) => {
  const rows = targets();
  if (!rows.length) return;
  const single = !state.ticked.size;
  const changing = action === "clear" ? rows.filter((row) => row.decision) : rows;
  if (changing.length) {
    state.history.push(changing.map((row) => [row.id, row.decision]));
    record({ action, ids: changing.map((row) => row.id) });
    for (const row of changing) setDecision(row, action === "clear" ? null : action);
  }
  if (single) move(1);
  else untick();
  told();
};

export const undo = () => {
  for (const [id, decision] of state.history.pop() || []) {
    const row = rowOf(id);
    if (row) setDecision(row, decision);
  }
  record({ action: "undo", ids: [] });
  told();
};

/* Decisions on these rows that are still on their way. */
export const applyPending = () => {
  for (const event of queue.events.filter((each) => each.centroid_id === state.centroid)) {
    for (const row of state.rows.filter((candidate) => (event.ids || []).includes(candidate.id))) {
      row.decision = event.action === "clear" ? null : event.action;
    }
  }
};

// ------------------------------------------------------------------ cursor, ticks, reveal

export const place = (id) => { state.cursor = id; tell("cursor"); };
export const move = (steps) => {
  const next = state.shown.findIndex((row) => row.id === state.cursor) + steps;
  if (!state.shown.length || next < 0 || next >= state.shown.length) return;
  if (next >= state.limit) { state.limit = Math.min(next + PAGE_ROWS, MOST_ROWS); tell("grid"); }
  place(state.shown[next].id);
};
export const tick = (id) => {
  if (state.ticked.has(id)) state.ticked.delete(id);
  else state.ticked.add(id);
  tell("tile", rowOf(id));
  tell("status");
};
export const untick = () => {
  const before = [...state.ticked];
  state.ticked.clear();
  for (const id of before) tell("tile", rowOf(id));
  tell("status");
};
export const reveal = (id) => {
  const row = rowOf(id);
  if (!row || row.state !== "ready" || !row.blurred) return;
  if (state.revealed.has(id)) state.revealed.delete(id);
  else state.revealed.add(id);
  tell("tile", row);
  tell("cursor");
};
