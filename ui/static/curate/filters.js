/* Right: filters on the open centroid's neighbours, the run's funnel, and captioning of what is selected. */

import { button, choice, count, el, words } from "../core/dom.js";
import { active, busy, jobs, jobStrip, startJobs } from "../core/jobs.js";
import { on, page, part } from "../core/page.js";
import { changed, defaults, fails, FILTERS, firstFailed, funnel, state } from "./state.js";

const BINS = 36;
part("side", (host) => {
  const controls = FILTERS.map((filter) => filterControl(filter));
  const unknown = choice({ keep: "keep", drop: "drop" }, "Pictures whose value is unknown", (value) => { state.filters.unknown = value; changed(); });
  const line = el("div", { class: "pf-funnel-line", role: "status" });
  const differs = el("div", { class: "pf-muted pf-small" });
  const chain = el("ol", { class: "pf-funnel" });
  const captionText = el("div", { class: "pf-muted pf-small" });
  const caption = button("Caption what is selected", "", "Bring the selection up to date with every decision, then caption it", () => startJobs(["select", "caption"]), "pf-primary");
  const select = button("Select", "", "Apply popfactory.toml and every decision", () => startJobs(["select"]));
  const strip = el("div", { class: "pf-strip" });
  const usually = button("Back to popfactory.toml", "", "The run's own filter settings", () => { state.filters = defaults(); changed(); });
  host.append(
    el("button", { type: "button", class: "pf-button pf-close-right", text: "Close", on: { click: () => document.body.classList.remove("pf-show-right") } }),
    el("div", { class: "pf-side-scroll", tabindex: 0, "aria-label": "Filters and the run's funnel" },
      el("section", {}, el("h2", { class: "pf-part", text: "Filters" }), ...controls.map((control) => control.node),
        el("label", { class: "pf-unknown" }, "Unknown values", unknown), line, differs, usually),
      el("section", {}, el("h2", { class: "pf-part", text: "The whole run" }), chain)),
    el("section", { class: "pf-captions" }, el("h2", { class: "pf-part", text: "Captions" }), captionText, el("div", { class: "pf-tools" }, caption, select), strip));

  on("filters", () => {
    unknown.value = state.filters.unknown || "keep";
    controls.forEach((control) => control.draw());
    const { found, ready, taken, passed } = funnel();
    const steps = [`${count(found)} found`, `${count(ready)} fetched`];
    let left = ready;
    for (const filter of FILTERS) {
      if (state.filters[filter.name] === null || state.filters[filter.name] === undefined) continue;
      left -= taken.get(filter.name);
      steps.push(`${count(left)} ${filter.label.toLowerCase()}`);
    }
    line.textContent = `${steps.join(" → ")} → ${count(passed)} pass`;
    const usual = page.run ? defaults() : {};
    const differing = FILTERS.some((filter) => !filter.viewOnly && state.filters[filter.name] !== usual[filter.name]) || state.filters.unknown !== usual.unknown;
    usually.hidden = !differing && state.filters.similarity === null;
    differs.textContent = differing ? "For looking only: select goes by popfactory.toml." : "";
  });
  on("run", () => {
    const run = page.run;
    chain.replaceChildren(...run.funnel.flatMap((step) => [
      el("li", {}, el("span", { text: step.label }), el("b", { text: count(step.count) })),
      ...step.losses.map((loss) => el("li", { class: "pf-loss", title: loss.meaning },
        el("span", { text: words(loss.reason) }), el("span", { text: `−${count(loss.count)}` }))),
    ]));
    if (!run.funnel.length) chain.append(el("li", { class: "pf-muted", text: "no stage is finished yet" }));
    captionText.textContent = `${run.selected === null ? "nothing selected yet" : `${count(run.selected)} selected`} · prompt ${run.caption.prompt} · ${run.caption.engine} engine · ${run.caption.model}`;
  });
  on("jobs", () => {
    const job = active() || jobs.list[0];
    const working = busy();
    caption.disabled = select.disabled = working || !page.run || !page.run.stages.neighbours;
    strip.replaceChildren(...(job ? [jobStrip(job, working || job.state !== "done")] : []));
  });
});

const filterControl = (filter) => {
  const bars = el("div", { class: "pf-bars", "aria-hidden": "true" });
  const set = (text) => {
    const value = Number.parseFloat(text);
    state.filters[filter.name] = Number.isFinite(value) ? value : null;
    changed();
  };
  const number = el("input", { type: "number", class: "pf-input pf-number", step: filter.step, placeholder: "off",
    "aria-label": `${filter.label}, ${filter.bound === "min" ? "at least" : "at most"}`, "data-filter": filter.name,
    on: { change: () => set(number.value), keydown: (event) => { if (event.key === "Enter") number.blur(); } } });
  const slider = el("input", { type: "range", class: "pf-slider", "aria-label": `${filter.label} slider`, on: { input: () => set(slider.value) } });
  const off = el("button", { type: "button", class: "pf-off", title: `Take the limit on ${filter.label.toLowerCase()} off`, text: "×", on: { click: () => set("") } });
  const counts = el("span", { class: "pf-muted pf-small" });
  const node = el("div", { class: "pf-filter" },
    el("div", { class: "pf-filter-head" },
      el("span", { class: "pf-filter-name", text: filter.label }),
      counts, el("span", { class: "pf-gap" }),
      el("span", { class: "pf-muted", text: filter.bound === "min" ? "≥" : "≤" }), number, off),
    bars, slider);
  const draw = () => {
    const limit = state.filters[filter.name] ?? null;
    const ready = state.rows.filter((row) => row.state === "ready");
    const values = ready.map(filter.of).filter((value) => value !== null && value !== undefined);
    const [low, high] = filter.range || [Math.min(...values), Math.max(...values)];
    const span = high > low ? high - low : 1;
    const all = new Array(BINS).fill(0);
    const kept = new Array(BINS).fill(0);
    let out = 0;
    for (const row of ready) {
      const value = filter.of(row);
      if (fails(row, filter)) out += 1;
      if (value === null || value === undefined) continue;
      const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / span) * BINS)));
      all[bin] += 1;
      if (!firstFailed(row)) kept[bin] += 1;
    }
    const top = Math.max(1, ...all);
    bars.replaceChildren(...all.map((total, bin) => {
      const inner = el("i");
      inner.style.height = `${total ? (kept[bin] / total) * 100 : 0}%`;
      const outer = el("span", {}, inner);
      outer.style.height = `${total ? Math.max(6, Math.sqrt(total / top) * 100) : 0}%`;
      return outer;
    }));
    const unknown = ready.length - values.length;
    counts.textContent = [limit !== null ? `−${count(out)}` : "", unknown ? `${count(unknown)} unknown` : ""].filter(Boolean).join(" · ");
    if (document.activeElement !== number) number.value = limit === null ? "" : String(limit);
    slider.disabled = !values.length;
    if (values.length) Object.assign(slider, { min: low, max: high, step: filter.step });
    slider.value = limit === null ? (filter.bound === "min" ? low : high) : limit;
    off.disabled = limit === null;
    node.classList.toggle("pf-filter-on", limit !== null);
  };
  return { node, draw };
};
