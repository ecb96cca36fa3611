/* The list of pictures with their captions, what is shown of them, and the bar of verdicts. */

import { button, choice, count, el, fill } from "../core/dom.js";
import { opens } from "../core/drawers.js";
import { on, page, tell } from "../core/page.js";
import { cardNode } from "./card.js";
import { earlier, more, open } from "./loading.js";
import { cardOf, FLAGS, here, ORDERS, REASONS, state, STATES, writeAddress } from "./state.js";
import { askAgain, clean, decide, edit, keepUnflagged, move, pick, place, redo, reveal, saveEdit, stopEditing, undo } from "./verdicts.js";

const acts = {
  place, pick, reveal, saveEdit, stopEditing, reasons: REASONS,
  clean: (card, caption) => { pick(card, caption); clean(); },
  because: (card, caption, reason) => { pick(card, caption); decide("reject", { reason, stay: true }); },
};
const change = (name, value) => {
  state[name] = value;
  state.cursor = null;
  writeAddress();
  open();
};

export const listPart = () => {
  const states = el("div", { class: "pf-cap-states", role: "group", "aria-label": "Show" });
  const flags = el("select", { class: "pf-input pf-choice", "aria-label": "Flag", on: { change: () => { change("flag", flags.value); flags.blur(); } } });
  const orders = choice(ORDERS, "Order", (value) => change("sort", value));
  const centroid = el("input", { class: "pf-input pf-cap-number-field", inputmode: "numeric", placeholder: "centroid", "aria-label": "Centroid, by number",
    on: { change: () => change("centroid", centroid.value.replace(/\D/g, "")), keydown: (event) => { if (event.key === "Enter") centroid.blur(); } } });
  const unflagged = button("", "", "Keep every caption that nobody decided on and that has no flag", keepUnflagged);
  const list = el("div", { class: "pf-cap-list" });
  const scroll = el("div", { class: "pf-cap-scroll", tabindex: 0, role: "region", "aria-label": "Pictures and captions" }, list);
  const status = el("div", { class: "pf-status pf-muted", role: "status" });
  const bar = el("div", { class: "pf-verdicts", role: "toolbar", "aria-label": "The caption under the cursor" },
    button("✓ Keep", "A", "Keep this caption and go on", () => decide("keep"), "pf-keep"),
    button("✎ Edit", "E", "Write it yourself; the model's words stay beside it", edit),
    button("✕ Reject", "R", "Reject this caption: without another, the picture leaves the release", () => decide("reject"), "pf-reject"),
    button("Again", "T", "Ask for another caption of this picture", askAgain),
    button("Clear", "0", "Take the verdict back", () => decide("clear")),
    button("Undo", "U", "Take your last decision back, also after a reload", undo),
    button("Redo", "⇧U", "Take the undo back", redo));

  const draw = () => {
    const nodes = state.cards.map((card) => cardNode(card, acts));
    const rest = state.total - state.start - state.cards.length;
    fill(list,
      state.start > 0 ? button(`${count(state.start)} before these`, "", "Show those before", earlier, "pf-cap-more") : null,
      ...nodes,
      !state.cards.length && state.loaded ? nothing() : null,
      rest > 0 && state.cards.length ? button(`${count(rest)} more`, "", "Show those after", more, "pf-cap-more") : null);
    bar.hidden = !state.cards.length;
  };
  const redraw = (card) => {
    if (!card) return;
    const old = list.querySelector(`article[data-id="${card.id}"]`);
    if (!old) return;
    const focused = old === document.activeElement;
    const made = cardNode(card, acts);
    old.replaceWith(made);
    if (focused) made.focus({ preventScroll: true });
  };
  on("list", draw);
  on("card", redraw);
  on("cursor", () => {
    const node = list.querySelector(".pf-cap-here");
    if (!node) return;
    const typing = document.activeElement && ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName) && scroll.contains(document.activeElement) === false && document.activeElement !== document.body;
    if (!typing) node.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
  });
  on("editing", () => {
    const field = list.querySelector(".pf-cap-edit");
    if (field) { field.focus(); field.setSelectionRange(field.value.length, field.value.length); }
  });
  on("counts", () => {
    const total = Object.values(state.counts).reduce((sum, number) => sum + number, 0);
    fill(states, ...Object.entries(STATES)
      .filter(([name]) => !["failed", "missing"].includes(name) || state.counts[name] || state.show === name)
      .map(([name, label]) => el("button", { type: "button", class: "pf-cap-statebutton", "data-show": name, "aria-pressed": state.show === name ? "true" : "false", on: { click: () => change("show", name) } },
        label, el("b", { text: count(name ? state.counts[name] || 0 : total) }))));
    fill(flags, el("option", { value: "", text: "any or no flag" }), ...Object.entries(FLAGS)
      .filter(([name]) => state.flagged[name] || state.flag === name || name === "any" || name === "none")
      .map(([name, label]) => el("option", { value: name, text: `${label} (${count(state.flagged[name] || 0)})` })));
    flags.value = state.flag;
    orders.value = state.sort;
    if (document.activeElement !== centroid) centroid.value = state.centroid;
    const plain = state.show === "" || state.show === "new";
    unflagged.hidden = !plain || !state.counts.new;
    unflagged.textContent = "Keep all new without a flag";
    const place_ = state.cards.findIndex((card) => card.id === state.cursor);
    const decided = (state.counts.kept || 0) + (state.counts.edited || 0) + (state.counts.rejected || 0);
    status.textContent = state.loaded && state.total
      ? `${count(state.start + Math.max(place_, 0) + 1)} of ${count(state.total)} · ${count(decided)} decided · ${count(state.counts.new || 0)} new${state.outdated ? " · the selection has changed since: caption again" : ""}`
      : "";
  });
  on("cursor", () => tell("counts"));

  const nothing = () => {
    const filtered = state.show || state.flag || state.centroid;
    const words = filtered ? "No caption is like this." : state.selected ? "" : page.run && page.run.stages.neighbours
      ? "Nothing is selected yet: start “select” on the Jobs page, or `popfactory select` in a terminal."
      : "This run has nothing to caption yet: start “run” on the Jobs page, or `popfactory run` in a terminal.";
    return el("div", { class: "pf-empty pf-muted" }, el("p", { text: words }),
      filtered ? button("Show all", "", "Take the filters off", () => { Object.assign(state, { show: "", flag: "", centroid: "" }); change("show", ""); }) : null);
  };

  return el("div", { class: "pf-cap-left" },
    el("div", { class: "pf-bar-top pf-cap-top" }, states, el("div", { class: "pf-tools" }, flags, orders, centroid, unflagged,
      opens("Run…", "Start captioning", "pf-show-run", ".pf-cap-run", "pf-cap-open-run"))),
    scroll, bar, status);
};

export const ends = (index) => () => { const card = state.cards.at(index); if (card) place(card.id); };
export { cardOf, here, move };
