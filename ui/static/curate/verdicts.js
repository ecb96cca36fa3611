/* What the curator does to pictures and centroids, and how it is taken back: one list of deeds for the keys
   pressed in this page, and the server's for all before it. */

import { clip, count } from "../core/dom.js";
import { curator } from "../core/memory.js";
import { notice, on, tell } from "../core/page.js";
import { enqueue, queue } from "../core/queue.js";
import { changed, entryOf, filterText, keepingFilters, rowOf, state } from "./state.js";
import { advance, setTicks } from "./cursor.js";

const record = (event) => enqueue({ centroid_id: state.centroid, last_seen: state.lastEvent, ...event });
const told = () => ["counts", "status", "cursor"].forEach((topic) => tell(topic));

const setDecision = (row, decision, name = curator()) => {
  const entry = entryOf(state.centroid);
  if (entry) {
    for (const [action, field] of [["keep", "kept"], ["reject", "rejected"]]) {
      if (row.decision === action) entry[field] -= 1;
      if (decision === action) entry[field] += 1;
    }
  }
  row.decision = decision;
  row.curator = decision ? name : null;
  row.conflict = null;
  tell("tile", row);
};

// ------------------------------------------------------------------ deeds of this page, for undo and redo

let done = [];
let undone = [];
export const forgetDeeds = () => { done = []; undone = []; };
const before = (rows) => ({ rows: rows.map((row) => [row.id, row.decision, row.tag, row.note]), ticks: [...state.ticked] });
const restore = (deed) => {
  for (const [id, decision, tag, note] of deed.rows) {
    const row = rowOf(id);
    if (!row) continue;
    Object.assign(row, { tag, note });
    setDecision(row, decision);
  }
  if (deed.centroid) {
    const { state: kind, by, reason, own } = deed.centroid;
    keepingFilters(() => Object.assign(entryOf(deed.centroid.centroid) || {}, { state: kind, by, reason, own }));
    changed();
    tell("opened-state");
  }
  setTicks(deed.ticks);
};
/* The same things as they are now, so that the deed can be done again. */
const mirror = (deed) => ({
  ...before(deed.rows.map(([id]) => rowOf(id)).filter(Boolean)),
  sent: deed.sent,
  centroid: deed.centroid ? { ...entryOf(deed.centroid.centroid) } : null,
});
const remember = (deed) => { done.push(deed); undone = []; };
/* Ticks are undone too, while the page is open: a set of them is work. */
export const rememberTicks = (ticks) => remember({ rows: [], ticks: [...ticks], sent: false });

const takeBack = (action, from, to) => {
  const deed = from.pop();
  if (deed) {
    to.push(mirror(deed));
    restore(deed);
  }
  // Nothing of this page is left: the server knows what was done before it, here or elsewhere.
  if (!deed || deed.sent) record({ action, ids: [] });
  told();
};
export const undo = () => takeBack("undo", done, undone);
export const redo = () => takeBack("redo", undone, done);

// ------------------------------------------------------------------ verdicts

const chosen = () => (state.ticked.size ? state.shown.filter((row) => state.ticked.has(row.id)) : state.shown.filter((row) => row.id === state.cursor))
  .filter((row) => row.state !== "blocked");

const decideOn = (rows, action, more = {}) => {
  const changing = action === "clear" ? rows.filter((row) => row.decision) : rows;
  if (!changing.length) return;
  remember({ ...before(changing), sent: true });
  // What a search found becomes a candidate of the open centroid by its keep.
  const like = action === "keep" && state.like !== null ? { like: state.like } : {};
  record({ action, ids: changing.map((row) => row.id), ...like, ...more });
  for (const row of changing) setDecision(row, action === "clear" ? null : action);
};

export const decide = (action) => {
  const rows = chosen();
  if (!rows.length) return;
  const single = !state.ticked.size;
  decideOn(rows, action);
  if (single) advance();
  else setTicks([]);
  told();
};

/* What is shown, can be decided on, and nobody decided on. */
export const rest = () => state.shown.filter((row) => !row.decision && (row.state === "ready" || (state.like && row.state === "pending")));
export const decideRest = (action) => {
  const rows = rest();
  if (!rows.length) return;
  decideOn(rows, action, { filter: filterText() });
  setTicks([]);
  told();
};

/* Of near-duplicates the largest, of the largest the most aesthetic, of those the most similar. */
export const best = (rows) => [...rows].sort((a, b) => b.width * b.height - a.width * a.height
  || (b.aesthetic ?? -1e9) - (a.aesthetic ?? -1e9) || b.similarity - a.similarity || a.rank - b.rank)[0];
export const groupOf = (row) => (row && row.group ? state.rows.filter((each) => each.group === row.group && each.state === "ready") : []);
export const keepBest = (rows, stays = best(rows)) => {
  const losers = rows.filter((row) => row !== stays);
  if (!stays || !losers.length) return;
  decideOn(losers, "reject", { reason: `near-duplicate of ${stays.id}` });
  told();
};

export const note = (row, tag, text) => {
  remember({ ...before([row]), sent: true });
  Object.assign(row, { tag, note: text });
  record({ action: "note", ids: [row.id], tag, text });
  tell("tile", row);
};
export const unsure = () => {
  const rows = chosen();
  const single = !state.ticked.size;
  const tag = rows.every((row) => row.tag === "unsure") ? null : "unsure";
  for (const row of rows) note(row, tag, row.note || null);
  if (single) advance();
  told();
};

/* A centroid is done (keep), left out (reject), or open again (clear). */
export const decideCentroid = (action, reason = null) => {
  const entry = entryOf(state.centroid);
  if (!entry) return;
  remember({ ...before([]), sent: true, centroid: { ...entry } });
  record({ action, target: "centroid", ids: [entry.centroid], reason });
  Object.assign(entry, { state: { keep: "done", reject: "out" }[action] || null, by: action === "clear" ? null : curator(), reason });
  tell("opened-state");
  told();
};

/* What the open centroid has of its own; undefined for the run's own again. */
export const setOwn = (name, value) => {
  const entry = entryOf(state.centroid);
  if (!entry) return;
  remember({ ...before([]), sent: true, centroid: { ...entry, own: { ...entry.own } } });
  const text = value === undefined ? null : JSON.stringify(value);
  record({ target: "centroid", ids: [entry.centroid], ...(name === "refill" ? { action: "refill", text } : { action: "set", tag: name, text }) });
  entry.own = { ...entry.own, [name]: value };
  if (value === undefined) delete entry.own[name];
  tell("opened-state");
  told();
};

// ------------------------------------------------------------------ what the server says

const CENTROID_STATES = { keep: "done", reject: "out" };
const settle = (answer) => {
  // Unless a later decision on the same is still on its way.
  const pending = new Set(queue.events.filter((event) => (event.target || "image") === "image").flatMap((event) => event.ids || []));
  const undoing = queue.events.some((event) => event.action === "undo" || event.action === "redo");
  if (undoing) return;
  for (const [id, verdict] of Object.entries(answer.verdicts || {})) {
    const row = rowOf(id);
    if (!row || pending.has(id)) continue;
    if (row.decision !== verdict.decision) setDecision(row, verdict.decision, verdict.curator);
    row.curator = verdict.curator;
    const [tag, text] = (answer.notes || {})[id] || [null, null];
    if (row.tag !== tag || row.note !== text) { Object.assign(row, { tag, note: text }); tell("tile", row); }
  }
  const centroids = Object.entries(answer.centroids || {}).filter(([number]) => entryOf(number));
  if (centroids.length) {
    keepingFilters(() => {
      for (const [number, verdict] of centroids) {
        Object.assign(entryOf(number), { state: CENTROID_STATES[verdict.decision] || null, by: verdict.curator, reason: verdict.reason || null, own: verdict.own });
      }
    });
    if (centroids.some(([number]) => number === state.centroid)) changed();
  }
  if (!queue.events.length) {
    for (const [number, pair] of Object.entries(answer.counts || {})) {
      const entry = entryOf(number);
      if (entry) [entry.kept, entry.rejected] = pair;
    }
    for (const [number, found] of Object.entries(answer.found || {})) if (entryOf(number)) entryOf(number).found = found;
  }
  state.lastEvent = Math.max(state.lastEvent, answer.last_event);
};

on("answered", (answer) => {
  const conflicts = new Map(answer.conflicts.map((conflict) => [conflict.id, conflict]));
  settle(answer);
  for (const event of answer.sent) {
    for (const id of event.ids || []) {
      const row = conflicts.has(id) && rowOf(id);
      if (!row) continue;
      row.conflict = { mine: event.action, theirs: conflicts.get(id).action, curator: conflicts.get(id).curator };
      tell("tile", row);
    }
  }
  if (answer.conflicts.length) {
    const [first] = answer.conflicts;
    notice(`${count(answer.conflicts.length)} left as decided by ${clip(first.curator, 40)} meanwhile; decide again to overrule.`);
  } else if ((answer.gone || []).length) {
    notice(`${count(answer.gone.length)} of these pictures are no candidates any more: the run has new neighbours. Nothing was stored for them; the page is brought up to date.`);
    tell("outdated");
  } else if ((answer.unplaced || []).length) {
    notice(`${count(answer.unplaced.length)} kept, but the pool can't be asked any more where they lie: search once more and keep them again, or they come in only where they are neighbours of a centroid.`);
  } else if (answer.sent.some((event) => event.like)) {
    const entry = entryOf(answer.sent.find((event) => event.like).centroid_id);
    notice(`Kept: at the next fetch a candidate of “${clip(entry ? entry.label : "", 60)}”, unless it is one already. “Fetch now” under This centroid brings it in.`);
  } else {
    const [last] = answer.sent.slice(-1);
    const elsewhere = Object.keys(answer.counts).filter((number) => number !== state.centroid);
    if (["undo", "redo"].includes(last.action) && elsewhere.length) {
      const entry = entryOf(elsewhere[0]);
      notice(`${last.action === "undo" ? "Undone" : "Done again"} in ${entry ? `“${clip(entry.label, 60)}”` : `centroid ${elsewhere[0]}`}.`);
    }
  }
  tell("changed-elsewhere", Object.keys(answer.counts));
  tell("counts");
  tell("status");
  tell("opened-state");
});

/* What other pages did since; the same form as an answer. */
export const hear = (news) => {
  settle(news);
  tell("changed-elsewhere", Object.keys(news.counts));
  tell("status");
};

/* Decisions on these rows that are still on their way. */
export const applyPending = () => {
  for (const event of queue.events.filter((each) => (each.target || "image") === "image")) {
    for (const row of state.rows.filter((candidate) => (event.ids || []).includes(candidate.id))) {
      if (event.action === "note") Object.assign(row, { tag: event.tag, note: event.text });
      else if (["keep", "reject", "clear"].includes(event.action)) row.decision = event.action === "clear" ? null : event.action;
    }
  }
};
