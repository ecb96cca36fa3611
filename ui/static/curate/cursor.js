/* The cursor, the ticks, and which blurred pictures are shown clear. */

import { remember, remembered } from "../core/memory.js";
import { tell } from "../core/page.js";
import { MOST_ROWS, PAGE_ROWS, pageOf, rowOf, state } from "./state.js";

export const place = (id) => { state.cursor = id; tell("cursor"); };
const index = () => state.shown.findIndex((row) => row.id === state.cursor);
const last = () => state.shown.length - 1;
export const goTo = (number) => {
  const next = Math.max(0, Math.min(number, last()));
  if (!state.shown.length) return;
  const first = pageOf(next);
  if (first !== state.first || next - first >= state.limit) {
    state.limit = Math.min(Math.ceil((next - first + 1) / PAGE_ROWS) * PAGE_ROWS, MOST_ROWS);
    state.first = first;
    tell("grid");
  }
  place(state.shown[next].id);
};
export const move = (steps) => {
  const next = index() + steps;
  if (next >= 0 && next <= last()) goTo(next);
};
export const advance = () => move(1);

// ------------------------------------------------------------------ ticks

export const setTicks = (ids) => {
  const wanted = new Set(ids);
  const touched = [...state.ticked].filter((id) => !wanted.has(id)).concat(ids.filter((id) => !state.ticked.has(id)));
  state.ticked = wanted;
  for (const id of touched) tell("tile", rowOf(id));
  tell("status");
};
let anchor = null;
export const tick = (id) => {
  anchor = id;
  setTicks(state.ticked.has(id) ? [...state.ticked].filter((each) => each !== id) : [...state.ticked, id]);
};
/* From the last tick, or the cursor, to here. */
export const tickTo = (id) => {
  const from = state.shown.findIndex((row) => row.id === (anchor ?? state.cursor));
  const to = state.shown.findIndex((row) => row.id === id);
  if (from < 0 || to < 0) return;
  const between = state.shown.slice(Math.min(from, to), Math.max(from, to) + 1).map((row) => row.id);
  setTicks([...new Set([...state.ticked, ...between])]);
};
/* Shift and an arrow: the cursor moves and what it passes is ticked. */
export const tickAlong = (steps) => {
  const from = state.cursor;
  anchor ??= from;
  move(steps);
  if (from === null) return;
  const [low, high] = [state.shown.findIndex((row) => row.id === from), index()].sort((a, b) => a - b);
  setTicks([...new Set([...state.ticked, ...state.shown.slice(low, high + 1).map((row) => row.id)])]);
};
export const forgetAnchor = () => { anchor = null; };

// ------------------------------------------------------------------ blurred pictures

export const isCovered = (row) => Boolean(row.blurred) && row.state !== "blocked" && !state.revealAll && !state.revealed.has(row.id);
export const reveal = (id) => {
  const row = rowOf(id);
  if (!row || !row.blurred || row.state === "blocked" || row.state === "gone") return;
  if (state.revealed.has(id)) state.revealed.delete(id);
  else state.revealed.add(id);
  tell("tile", row);
  tell("cursor");
};
export const revealAll = (wanted = !state.revealAll) => {
  state.revealAll = wanted;
  remember("popfactory.reveal", wanted ? "all" : "");
  for (const row of state.rows.filter((each) => each.blurred)) tell("tile", row);
  tell("cursor");
  tell("status");
};
export const readReveal = () => { state.revealAll = remembered("popfactory.reveal", "") === "all"; };
