/* Right: ranges on histograms, with live counts and the funnel; saved views, the run, captioning. */

import { button, choice, clip, count, el, words } from "../core/dom.js";
import { closes } from "../core/drawers.js";
import { active, busy, jobs, jobStrip, startJobs } from "../core/jobs.js";
import { get, post } from "../core/net.js";
import { notice, on, page, part } from "../core/page.js";
import { reload } from "./opening.js";
import { changed, defaults, differs, FILTERS, funnel, isOn, judged, OWN_NAMES, state } from "./state.js";
import { RULE_WORDS } from "./facts.js";
import { keptButton } from "./kept.js";
import { ownPanel } from "./own.js";
import { viewsPanel } from "./views.js";

const BINS = 36;
const LATELY_S = 600; // a job that is done is told of for so long
const LAST_EVERY_MS = 3000;
const NO_EFFECT = 0.995;
const written = (filter, value) => (value === null ? "" : String(Number(value.toFixed(filter.digits))));

part("side", (host) => {
  const controls = FILTERS.map((filter) => filterControl(filter));
  const unknown = choice({ keep: "keep", drop: "drop" }, "Pictures whose value is unknown", (value) => { state.filters.unknown = value; changed(); });
  const line = el("ol", { class: "pf-funnel pf-funnel-line", "aria-label": "What each rule takes" });
  const said = el("div", { class: "pf-sr", role: "status" });
  const pills = el("div", { class: "pf-tools" });
  const note = el("div", { class: "pf-muted pf-small" });
  const chain = el("ol", { class: "pf-funnel" });
  const captionText = el("div", { class: "pf-muted pf-small" });
  const caption = button("Caption what is selected", "", "Bring the selection up to date with every decision, then caption it", () => startJobs(["select", "caption"]), "pf-primary");
  const select = button("Select", "", "Apply popfactory.toml and every decision", () => startJobs(["select"]));
  const strip = el("div", { class: "pf-strip" });
  const usually = button("Back to popfactory.toml", "", "The run's own filter settings", () => { state.filters = defaults(); changed(); });
  const save = button("Save to popfactory.toml", "", "The run's filters from now on, for every centroid without its own; the next select goes by them", saveFilters);
  host.append(
    closes("pf-close-right"),
    el("div", { class: "pf-side-scroll", tabindex: 0, role: "region", "aria-label": "Filters, views and the run's funnel" },
      el("section", {}, el("h2", { class: "pf-part", text: "Filters" }), pills, ...controls.map((control) => control.node),
        el("label", { class: "pf-unknown" }, "Unknown values", unknown), line, said, note, el("div", { class: "pf-tools" }, usually, save)),
      ownPanel(), viewsPanel(),
      el("section", {}, el("h2", { class: "pf-part", text: "The whole run" }), chain)),
    el("section", { class: "pf-captions" }, el("h2", { class: "pf-part", text: "Captions" }), captionText, el("div", { class: "pf-tools" }, caption, keptButton(), select), strip));

  on("filters", () => {
    unknown.value = state.filters.unknown || "keep";
    controls.forEach((control) => control.draw());
    const { found, ready, unusable, taken, passed } = funnel();
    const steps = [[`${count(found)} found`, found - ready]];
    let left = ready;
    for (const [rule, took] of unusable) {
      steps.push([RULE_WORDS[rule], took, 0]);
      left -= took;
    }
    for (const filter of FILTERS.filter(isOn)) {
      const took = taken.get(filter.name);
      steps.push([filter.label.toLowerCase(), took, left ? 1 - took / left : 1]);
      left -= took;
    }
    line.replaceChildren(
      el("li", {}, el("span", { text: steps[0][0] }), el("span", { class: "pf-muted", text: state.like === null ? `${count(ready)} fetched` : ready < found ? `${count(ready)} to judge` : "" })),
      ...steps.slice(1).map(([label, took, kept]) => el("li", { class: "pf-loss" }, el("span", { text: label }),
        el("span", { text: took === 0 || kept > NO_EFFECT ? `−${count(took)} no effect` : `−${count(took)}` }))),
      el("li", {}, el("span", { text: "pass" }), el("b", { class: "pf-passed", text: count(passed) })));
    said.textContent = `${count(passed)} of ${count(ready)} pass`;
    const own = page.run ? differs() : [];
    const unusual = own.length > 0 || (page.run && state.filters.unknown !== defaults().unknown);
    usually.hidden = !unusual;
    save.hidden = !(own.some((filter) => !filter.viewOnly) || (page.run && state.filters.unknown !== defaults().unknown));
    note.textContent = unusual ? "For looking only: select goes by popfactory.toml." : "";
    pills.replaceChildren(...own.map((filter) => {
      const [low, high] = state.filters[filter.name];
      const text = low === null && high === null ? "off" : `${low === null ? "" : written(filter, low)}–${high === null ? "" : written(filter, high)}`;
      return el("button", { type: "button", class: "pf-pill", title: "Back to popfactory.toml for this one", on: { click: () => { state.filters[filter.name] = defaults()[filter.name]; changed(); } } }, `${filter.label} ${text} ×`);
    }));
  });
  // Of a captioning at work, what was written last.
  const last = el("div", { class: "pf-muted pf-small pf-text pf-last-caption" });
  let asked = 0;
  const newestCaption = async (job) => {
    if (!job || job.stage !== "caption" || job !== active() || Date.now() - asked < LAST_EVERY_MS) return;
    asked = Date.now();
    const answer = await get(`/api/jobs/${job.job}/samples`).catch(() => null); // the strip goes on without it
    if (answer && answer.samples.length) last.textContent = `“${clip(answer.samples[0].said, 200)}”`;
  };
  on("run", () => {
    const { run } = page;
    chain.replaceChildren(...run.funnel.flatMap((step) => [
      el("li", {}, el("span", { text: step.label }), el("b", { text: count(step.count) })),
      ...step.losses.map((loss) => el("li", { class: "pf-loss", title: loss.meaning },
        el("span", { text: words(loss.reason) }), el("span", { text: `−${count(loss.count)}` }))),
    ]));
    if (!run.funnel.length) chain.append(el("li", { class: "pf-muted", text: "no stage is finished yet" }));
    captionText.textContent = `${run.selected === null ? "nothing selected yet" : `${count(run.selected)} selected`} · prompt ${run.caption.prompt} · ${run.caption.engine} engine · ${run.caption.model}`;
  });
  on("jobs", () => {
    const working = busy();
    const [newest] = jobs.list;
    const job = active() || (newest && (newest.state !== "done" || Date.now() / 1000 - newest.updated < LATELY_S) ? newest : null);
    caption.disabled = select.disabled = working || !page.run || !page.run.stages.neighbours;
    strip.replaceChildren(...(job ? [jobStrip(job, working || job.state !== "done")] : []), ...(job && active() && job.stage === "caption" ? [last] : []));
    newestCaption(job);
  });
});

const SAVED_AS = { ...OWN_NAMES, aesthetic: "aesthetic_min.value" };
const saveFilters = async () => {
  const changes = FILTERS.filter((filter) => SAVED_AS[filter.name]).map((filter) => {
    const value = state.filters[filter.name][filter.bound === "min" ? 0 : 1];
    return { table: "filters", key: SAVED_AS[filter.name], value: value ?? (filter.name === "side_px" ? 0 : null) };
  });
  changes.push({ table: "filters", key: "unknown", value: state.filters.unknown });
  try {
    const { seen } = await get("/api/settings");
    await post("/api/settings", { seen, changes });
    await reload();
    state.filters = { ...state.filters, ...Object.fromEntries(FILTERS.filter((filter) => SAVED_AS[filter.name]).map((filter) => [filter.name, defaults()[filter.name]])) };
    changed();
    notice("Saved in [filters] of popfactory.toml. Select applies them.");
  } catch (error) { notice(error.message); }
};

/* A range with two handles on a histogram: grey all, blue what the other filters leave. */
const filterControl = (filter) => {
  const spans = Array.from({ length: BINS }, (_, bin) => el("span", { on: { click: () => pick(bin) } }, el("i")));
  const missingBar = el("span", { class: "pf-bar-unknown" }, el("i"));
  const bars = el("div", { class: "pf-bars", "aria-hidden": "true", title: "Click a bar to see only these" }, ...spans, missingBar);
  let low = 0;
  let high = 1;
  const set = (end, value) => {
    const range = [...state.filters[filter.name]];
    range[end] = value;
    // A handle pushed over the other takes it along.
    if (range[0] !== null && range[1] !== null && range[0] > range[1]) range[1 - end] = value;
    state.filters[filter.name] = range;
    changed();
  };
  const pick = (bin) => {
    const width = (high - low) / BINS;
    const round = (value) => Number(value.toFixed(filter.digits + 1));
    state.filters[filter.name] = [round(low + bin * width), round(low + (bin + 1) * width)];
    changed();
  };
  const parse = (text) => { const value = Number.parseFloat(text); return Number.isFinite(value) ? value : null; };
  const box = (end) => {
    const node = el("input", { type: "number", class: "pf-input pf-number", step: filter.step, placeholder: end ? "most" : "least",
      "aria-label": `${filter.label}, ${end ? "at most" : "at least"}`, "data-filter": `${filter.name}:${end ? "max" : "min"}`,
      on: { change: () => set(end, parse(node.value)), keydown: (event) => { if (event.key === "Enter") node.blur(); } } });
    return node;
  };
  const handle = (end) => {
    const node = el("input", { type: "range", class: `pf-slider pf-slider-${end ? "high" : "low"}`, "aria-label": `${filter.label}, ${end ? "at most" : "at least"}, slider`, on: { input: () => {
      const value = Number(node.value);
      set(end, value <= Number(node.min) && !end ? null : value >= Number(node.max) && end ? null : value);
    } } });
    return node;
  };
  const boxes = [box(0), box(1)];
  const handles = [handle(0), handle(1)];
  const off = el("button", { type: "button", class: "pf-off", title: `Take the limits on ${filter.label.toLowerCase()} off`, "aria-label": `Take the limits on ${filter.label.toLowerCase()} off`, text: "×", on: { click: () => { state.filters[filter.name] = [null, null]; changed(); } } });
  const counts = el("span", { class: "pf-muted pf-small" });
  const node = el("div", { class: "pf-filter" },
    el("div", { class: "pf-filter-head" }, el("span", { class: "pf-filter-name", text: filter.label }), counts, el("span", { class: "pf-gap" }), ...boxes, off),
    bars, el("div", { class: "pf-range" }, ...handles));

  const bit = 1 << FILTERS.indexOf(filter);
  const draw = () => {
    const limits = state.filters[filter.name] || [null, null];
    const ready = state.rows.filter(judged);
    const values = ready.map(filter.of);
    const known = values.filter((value) => value !== null && value !== undefined);
    [low, high] = filter.range || (known.length ? [Math.min(...known), Math.max(...known)] : [0, 1]);
    const span = high > low ? high - low : 1;
    const all = new Array(BINS).fill(0);
    const left = new Array(BINS).fill(0);
    let out = 0;
    ready.forEach((row, index) => {
      if (row.failed & bit) out += 1;
      const value = values[index];
      if (value === null || value === undefined) return;
      const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / span) * BINS)));
      all[bin] += 1;
      if (!(row.failed & ~bit)) left[bin] += 1;
    });
    const top = Math.max(1, ...all);
    spans.forEach((outer, bin) => {
      outer.style.height = `${all[bin] ? Math.max(6, Math.sqrt(all[bin] / top) * 100) : 0}%`;
      outer.firstChild.style.height = `${all[bin] ? (left[bin] / all[bin]) * 100 : 0}%`;
    });
    const missing = ready.length - known.length;
    missingBar.hidden = !missing;
    missingBar.title = `${count(missing)} without this value`;
    missingBar.style.height = `${Math.max(12, Math.sqrt(missing / Math.max(top, missing)) * 100)}%`;
    counts.textContent = [isOn(filter) ? `−${count(out)}` : "", missing ? `?${count(missing)}` : ""].filter(Boolean).join(" ");
    counts.title = [isOn(filter) ? `${count(out)} fail this one` : "", missing ? `${count(missing)} without this value` : ""].filter(Boolean).join(", ");
    boxes.forEach((each, end) => { if (document.activeElement !== each) each.value = written(filter, limits[end]); });
    handles.forEach((each, end) => {
      each.disabled = !known.length;
      // The ends lie on whole steps outside the values, so that an open end takes nothing out.
      const least = Math.floor(low / filter.step) * filter.step;
      const most = Math.ceil(high / filter.step) * filter.step;
      Object.assign(each, { min: least, max: most > least ? most : least + filter.step, step: filter.step });
      each.value = limits[end] === null ? (end ? each.max : each.min) : limits[end];
    });
    off.disabled = !isOn(filter);
    node.hidden = Boolean(filter.rare) && !known.length && !isOn(filter);
    node.classList.toggle("pf-filter-on", isOn(filter));
  };
  return { node, draw: () => { if (state.filters[filter.name]) draw(); } };
};
