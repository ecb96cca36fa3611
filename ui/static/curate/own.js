/* What the open centroid has of its own: a quota, thresholds, and how deep its neighbours are fetched. */

import { button, count, el } from "../core/dom.js";
import { busy, startJobs } from "../core/jobs.js";
import { on, page } from "../core/page.js";
import { changed, defaults, entryOf, FILTERS, isOn, OWN_NAMES, state } from "./state.js";
import { setOwn } from "./verdicts.js";

const SETTINGS = [["quota_per_centroid", "Quota", 1], ["min_side_px", "Shorter side ≥", 1], ["aesthetic_min", "Aesthetic ≥", 0.1], ["pwatermark_max", "Watermark ≤", 0.01], ["punsafe_max", "Unsafe ≤", 0.01], ["violence_max", "Violence ≤", 0.01]];

const usualOf = (name) => {
  if (name === "quota_per_centroid") return page.run.quota;
  const filter = Object.keys(OWN_NAMES).find((each) => OWN_NAMES[each] === name);
  return page.run.filters[filter];
};

export const ownPanel = () => {
  const set = (name, value) => {
    setOwn(name, value);
    const filter = FILTERS.find((each) => OWN_NAMES[each.name] === name);
    if (filter) { state.filters[filter.name] = defaults()[filter.name]; changed(); }
  };
  const boxes = SETTINGS.map(([name, label, step]) => {
    const box = el("input", { type: "number", class: "pf-input pf-number pf-own-number", min: name === "violence_max" ? -2 : 0, step, "aria-label": `${label} of this centroid`, "data-own": name,
      on: { change: () => { const value = Number.parseFloat(box.value); set(name, Number.isFinite(value) ? value : undefined); }, keydown: (event) => { if (event.key === "Enter") box.blur(); } } });
    return { name, box, node: el("label", { class: "pf-own" }, label, box) };
  });
  const take = button("Take the filters above", "", "This centroid's own thresholds from now on", () => {
    for (const filter of FILTERS.filter((each) => OWN_NAMES[each.name] && isOn(each))) {
      const value = state.filters[filter.name][filter.bound === "min" ? 0 : 1];
      if (value !== null) setOwn(OWN_NAMES[filter.name], value);
    }
    state.filters = { ...state.filters, ...defaults() };
    changed();
  }, "pf-small-button");
  const said = el("div", { class: "pf-muted pf-small" });
  const refill = button("Refill", "", "Have more of its neighbours fetched", () => {
    const entry = entryOf(state.centroid);
    setOwn("refill", Math.min(entry.neighbours, depthOf(entry) + (entry.own?.quota_per_centroid ?? page.run.quota)));
  }, "pf-small-button");
  const now = button("Fetch now", "", "fetch, score and select, one after the other", () => startJobs(["fetch", "score", "select"]), "pf-small-button");
  const panel = el("details", { class: "pf-own-panel" }, el("summary", { class: "pf-part", text: "This centroid" }),
    ...boxes.map((each) => each.node), take, said, el("div", { class: "pf-tools" }, refill, now));
  const depthOf = (entry) => Math.max(entry.depth || 0, entry.own?.refill || 0);
  const draw = () => {
    const entry = entryOf(state.centroid);
    panel.hidden = !entry || state.like !== null;
    if (panel.hidden) return;
    const own = entry.own || {};
    for (const { name, box, node } of boxes) {
      const usual = usualOf(name);
      node.hidden = name === "violence_max" && (usual ?? null) === null && !(name in own); // few runs score it
      box.placeholder = usual === null || usual === undefined ? "off" : String(usual);
      if (document.activeElement !== box) box.value = name in own && own[name] !== null ? own[name] : "";
      box.classList.toggle("pf-own-set", name in own);
    }
    const waiting = depthOf(entry) > (entry.depth || 0);
    said.textContent = `${count(entry.selected)} of ${count(own.quota_per_centroid ?? page.run.quota)} selected; ${count(entry.depth || 0)} of ${count(entry.neighbours)} neighbours asked for${waiting ? "" : "."}`
      + (entry.found ? ` ${count(entry.found)} more found by searches and kept.` : "")
      + (waiting ? `, ${count(depthOf(entry))} at the next fetch.` : "");
    refill.disabled = depthOf(entry) >= entry.neighbours;
    now.disabled = busy();
    now.hidden = !waiting && !entry.found && !Object.keys(own).length;
    refill.firstChild.textContent = `Fetch ${count(Math.min(entry.neighbours - depthOf(entry), own.quota_per_centroid ?? page.run.quota))} more`;
  };
  for (const topic of ["opened-state", "opened", "counts", "run"]) on(topic, () => { if (page.run) draw(); });
  on("jobs", () => { now.disabled = busy(); });
  return el("section", {}, panel);
};
