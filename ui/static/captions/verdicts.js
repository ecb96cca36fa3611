/* What the curator does to captions: choose, keep, edit, reject with a reason, clear, undo, ask again. */

import { button, choice, clip, count, el, openDialog } from "../core/dom.js";
import { busy, poll } from "../core/jobs.js";
import { curator } from "../core/memory.js";
import { get, post } from "../core/net.js";
import { mayWrite, notice, on, tell } from "../core/page.js";
import { enqueue, queue } from "../core/queue.js";
import { plainer } from "./card.js";
import { more } from "./loading.js";
import { asked, cardOf, here, pickedOf, settle, state, writeAddress } from "./state.js";

const SURE_FROM = 200; // captions decided on at once that a dialog asks about
let local = 0; // decisions of this page count after all that the server has told
const history = [];

const readsOnly = () => {
  if (!mayWrite()) notice("Your token reads only: ask for one that writes to decide here.");
  return !mayWrite();
};
const record = (event) => enqueue({ target: "caption", last_seen: state.lastEvent, ...event });
const changed = (card) => {
  const before = card.state;
  settle(card);
  if (before !== card.state && Object.hasOwn(state.counts, before)) {
    state.counts[before] -= 1;
    state.counts[card.state] = (state.counts[card.state] || 0) + 1;
  }
  tell("card", card);
  tell("counts");
};
const snapshot = (caption) => ({ decision: caption.decision, curator: caption.curator, said: caption.said, edited: caption.edited, event: caption.event });
const set = (caption, decision, more_ = {}) => {
  local += 1;
  Object.assign(caption, { decision, curator: decision ? curator() : null, said: null, edited: null, event: decision ? 1e15 + local : 0, ...more_ });
};

export const decide = (action, { reason = null, text = null, stay = false } = {}) => {
  const card = here();
  const caption = card && pickedOf(card);
  if (!caption || card.state === "blocked" || readsOnly()) return;
  if (action === "clear" && !caption.decision) return;
  if (action === "keep" && text === null && caption.edited) { // kept already, in the curator's words
    if (!stay) move(1);
    return;
  }
  history.push([[card.id, caption.caption_id, snapshot(caption)]]);
  const event = { action, ids: [caption.caption_id], centroid_id: card.centroid };
  record({ ...event, ...(reason ? { reason } : {}), ...(text !== null ? { text } : {}) });
  set(caption, action === "clear" ? null : action, { said: reason, edited: text });
  state.picked.delete(card.id);
  if (action === "reject") state.picked.set(card.id, caption.caption_id);
  changed(card);
  if (action === "keep" && !stay) move(1);
};

/* Keep the caption without its speculation and interpretation, as the captioner's cleaning left it. */
export const clean = () => {
  const card = here();
  const caption = card && pickedOf(card);
  const text = caption && plainer(caption);
  if (text) decide("keep", { text });
  else if (caption) notice("Nothing in this caption guesses or interprets by the captioner's lists, or nothing would be left.");
};

export const undo = () => {
  if (readsOnly()) return;
  for (const [id, name, before] of history.pop() || []) {
    const card = cardOf(id);
    const caption = card && card.captions.find((each) => each.caption_id === name);
    if (caption) { Object.assign(caption, before); changed(card); }
  }
  record({ action: "undo", ids: [] });
};
export const redo = () => { if (!readsOnly()) record({ action: "redo", ids: [] }); };

/* What answers said while further undos were on their way: each says only what it changed itself. */
let held = {};

on("answered", (answer) => {
  const pending = new Set(queue.events.flatMap((event) => event.ids || []));
  const guessing = queue.events.some((event) => event.action === "undo" || event.action === "redo");
  state.lastEvent = Math.max(state.lastEvent, answer.last_event);
  const known = { ...held, ...answer.captions };
  held = guessing ? known : {};
  for (const card of state.cards) {
    let touched = false;
    for (const caption of card.captions) {
      const now = known[caption.caption_id];
      if (!now || pending.has(caption.caption_id) || guessing) continue;
      const same = caption.decision === now.decision && caption.edited === (now.text ?? null) && caption.said === (now.reason ?? null) && caption.curator === now.curator;
      if (same) continue;
      local += 1;
      Object.assign(caption, { decision: now.decision, curator: now.curator, said: now.reason ?? null, edited: now.text ?? null, event: now.decision ? 1e15 + local : 0 });
      touched = true;
    }
    if (touched) changed(card);
  }
  if (answer.conflicts.length) {
    const [first] = answer.conflicts;
    notice(`${count(answer.conflicts.length)} left as decided by ${clip(first.curator, 40)} meanwhile; decide again to overrule.`);
  }
});

// ------------------------------------------------------------------ cursor

export const place = (id) => {
  if (state.cursor === id) return;
  if (state.editing) stopEditing(here());
  const before = here();
  state.cursor = id;
  writeAddress();
  if (before) tell("card", before);
  tell("card", here());
  tell("cursor");
};
export const move = async (steps) => {
  const at = state.cards.findIndex((card) => card.id === state.cursor) + steps;
  if (at >= state.cards.length - 3) {
    const loading = more();
    if (at >= state.cards.length) await loading;
  }
  if (state.cards[at]) place(state.cards[at].id);
};
export const pick = (card, caption) => {
  place(card.id);
  state.picked.set(card.id, caption.caption_id);
  tell("card", card);
};
export const pickNumber = (number) => {
  const card = here();
  if (card && card.captions[number - 1]) pick(card, card.captions[number - 1]);
};
export const reveal = (card) => {
  if (!card || card.picture.state !== "ready" || !card.picture.blurred) return;
  if (state.revealed.has(card.id)) state.revealed.delete(card.id);
  else state.revealed.add(card.id);
  tell("card", card);
};

// ------------------------------------------------------------------ editing

export const edit = () => {
  const card = here();
  const caption = card && pickedOf(card);
  if (!caption || card.state === "blocked" || readsOnly()) return;
  state.editing = { id: card.id, caption: caption.caption_id, text: caption.edited || caption.caption || "" };
  state.picked.set(card.id, caption.caption_id);
  tell("card", card);
  tell("editing");
};
export const stopEditing = (card) => {
  state.editing = null;
  if (card) tell("card", card);
  tell("cursor");
};
export const saveEdit = (card, caption, text) => {
  const written = text.trim();
  state.editing = null;
  const before = caption.edited || caption.caption || "";
  if (!written || written === before.trim()) {
    if (!written) notice("An empty caption is none: reject it instead, and the picture is left out of the release.");
    stopEditing(card);
    return;
  }
  state.picked.set(card.id, caption.caption_id);
  decide("keep", written === (caption.caption || "").trim() ? { text: null, stay: true } : { text: written, stay: true });
  tell("cursor");
};

// ------------------------------------------------------------------ many at once, and asking again

export const keepUnflagged = async () => {
  if (readsOnly()) return;
  const found = await get(`/api/captions/unflagged?${asked({ show: "", flag: "" })}`).catch((error) => notice(error.message));
  if (!found || !found.captions.length) return;
  const act = () => {
    const names = new Set(found.captions);
    const before = [];
    record({ action: "keep", ids: found.captions, filter: `captions new without a flag${state.centroid ? `, centroid ${state.centroid}` : ""}`, centroid_id: state.centroid || null });
    for (const card of state.cards) {
      for (const caption of card.captions.filter((each) => names.has(each.caption_id))) {
        before.push([card.id, caption.caption_id, snapshot(caption)]);
        set(caption, "keep");
      }
      changed(card);
    }
    history.push(before);
    notice(`${count(found.captions.length)} captions kept; U takes it back.`);
    tell("recount");
  };
  if (found.captions.length < SURE_FROM) { act(); return; }
  const left = found.total - found.pictures.length;
  const dialog = openDialog("Keep many captions",
    el("h2", { class: "pf-part", text: `Keep ${count(found.captions.length)} captions?` }),
    el("p", { text: `All that nobody decided on and that have no flag${state.centroid ? ` in centroid ${state.centroid}` : ""}.${left > 0 ? ` ${count(left)} more are left for another time.` : ""} One undo takes them all back.` }),
    el("div", { class: "pf-tools" }, button(`Keep ${count(found.captions.length)}`, "", "Record it", () => { dialog.close(); act(); }, "pf-primary"), button("Cancel", "Esc", "Leave them", () => dialog.close())));
};

export const askAgain = async () => {
  const card = here();
  if (card && card.state !== "blocked") await ask([card.id], "this picture");
};

/* Ask again for what the filters show: such as all that loop, by another prompt. */
export const askAgainShown = async () => {
  const found = await get(`/api/captions/shown?${asked()}`).catch((error) => notice(error.message));
  if (!found || !found.pictures.length) return;
  const left = found.total - found.pictures.length;
  await ask(found.pictures, `${count(found.pictures.length)} pictures${left ? `; ${count(left)} more are left for another time` : ""}`);
};

const ask = async (ids, named) => {
  if (readsOnly()) return;
  if (busy()) { notice("A job is at work on this run: wait for it, or cancel it, then ask again."); return; }
  const form = await get("/api/captions/form").catch((error) => notice(error.message));
  if (!form) return;
  let prompt = form.settings.prompt;
  const model = el("input", { class: "pf-input", "aria-label": "Model", list: "pf-again-models", maxlength: 300 });
  model.value = form.settings.model;
  const prompts = choice(Object.fromEntries(form.prompts.map((each) => [each.prompt_id, each.prompt_id])), "Prompt", (value) => { prompt = value; });
  prompts.value = prompt;
  const start = async () => {
    dialog.close();
    const other = (value, usual) => (value && value !== usual ? value : null);
    try {
      await post("/api/captions/start", { kind: "again", ids, prompt: other(prompt, form.settings.prompt), model: other(model.value.trim(), form.settings.model) });
      notice("");
    } catch (error) { notice(error.message); }
    await poll();
  };
  const dialog = openDialog("Caption again",
    el("h2", { class: "pf-part", text: `Ask for another caption of ${named}` }),
    el("p", { class: "pf-muted", text: "It comes beside those that are there, and you choose. The same prompt and model draw other words each time." }),
    el("datalist", { id: "pf-again-models" }, ...form.models.map((each) => el("option", { value: each }))),
    el("label", { class: "pf-cap-field" }, "Prompt", prompts),
    el("label", { class: "pf-cap-field" }, "Model", model),
    el("div", { class: "pf-tools" }, button("Ask", "", "Start it as a job", start, "pf-primary"), button("Cancel", "Esc", "Leave it", () => dialog.close())));
};
