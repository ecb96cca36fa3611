/* A captioning run: who is asked what, a try on a few pictures, how long it takes, and the start. */

import { button, choice, clip, count, el, fill } from "../core/dom.js";
import { form, readForm, saveSettings } from "../core/captioner.js";
import { closes } from "../core/drawers.js";
import { busy, estimated, jobs, jobStrip, mayStart, poll } from "../core/jobs.js";
import { get, post } from "../core/net.js";
import { mayWrite, notice, on, page } from "../core/page.js";
import { openPreview } from "./preview.js";
import { state } from "./state.js";
import { askAgainShown } from "./verdicts.js";

const ENGINES = { embedded: "embedded: in a process of this machine", http: "http: OpenAI-compatible servers" };
export const loadForm = async () => {
  try {
    form.previews = (await get("/api/captions/previews")).previews;
    await readForm();
  } catch (error) { notice(error.message); }
};

export const startJob = async (content) => {
  try { await post("/api/captions/start", content); notice(""); } catch (error) { notice(error.message); }
  await poll();
};

const field = (label, control, ...more) => el("label", { class: "pf-cap-field" }, el("span", { class: "pf-muted", text: label }), control, ...more);

export const runPart = () => {
  const here = { n: 8, prompts: new Set(), estimate: "" };
  const engine = choice(ENGINES, "Engine", () => changed());
  const endpoints = el("textarea", { class: "pf-input", rows: 2, "aria-label": "Servers' addresses, one a line", placeholder: "http://127.0.0.1:8000/v1", on: { input: () => changed() } });
  const servers = field("Servers, one a line", endpoints);
  const model = el("input", { class: "pf-input", list: "pf-models", maxlength: 300, "aria-label": "Model", on: { input: () => changed() } });
  const models = el("datalist", { id: "pf-models" });
  const prompt = choice({}, "Prompt", () => changed());
  const wording = el("p", { class: "pf-cap-prompt" });
  const tokens = el("input", { type: "number", class: "pf-input pf-number", min: 1, max: 4096, "aria-label": "Greatest length in tokens", on: { input: () => changed() } });
  const save = button("Save to popfactory.toml", "", "From then on every captioning asks so; comments in the file stay", () => saveSettings(wanted()));
  const unsaved = el("span", { class: "pf-small pf-warn", hidden: true, text: "not saved" });
  const who = el("p", { class: "pf-muted pf-small" });

  const amount = el("input", { type: "number", class: "pf-input pf-number", min: 1, max: 50, value: 8, "aria-label": "Pictures to try on" });
  const tried = el("div", { class: "pf-cap-checks", role: "group", "aria-label": "Prompts to try" });
  const second = el("input", { class: "pf-input", list: "pf-models", maxlength: 300, placeholder: "and another model, if you like", "aria-label": "Another model to try" });
  const tryOut = button("Try", "", "Ask for these captions and show them side by side; nothing else changes", () => startJob({
    kind: "preview", n: Math.min(50, Math.max(1, Number.parseInt(amount.value, 10) || 8)), prompts: [...here.prompts],
    models: second.value.trim() ? [model.value.trim(), second.value.trim()] : [],
  }));
  const previews = el("ul", { class: "pf-cap-previews" });

  const told = el("p", { class: "pf-small", role: "status" });
  const estimate = button("Estimate", "", "Count what would be asked, and how long it takes; asks nothing", async () => {
    told.textContent = "counting …";
    try { told.textContent = estimated(await get("/api/captions/estimate")); } catch (error) { told.textContent = error.message; }
  });
  const start = button("Caption", "", "Describe every selected picture that has no caption yet", () => run({ kind: "run" }), "pf-primary");
  const failed = button("Only the failed", "", "Ask again for those that failed, and for no others", () => run({ kind: "run", failed_only: true }));
  const shown = button("", "", "Other captions of the pictures that the filters show; they come beside those that are there", askAgainShown);
  const strip = el("div", {});
  const run = async (content) => { if (await saveSettings(wanted())) await startJob(content); };

  const wanted = () => ({
    engine: engine.value, model: model.value.trim(), prompt: prompt.value,
    max_new_tokens: Number.parseInt(tokens.value, 10) || form.settings.max_new_tokens,
    ...(engine.value === "http" ? { endpoints: endpoints.value.split(/\s+/).filter(Boolean) } : {}),
  });
  const differs = () => form.settings && Object.entries(wanted()).some(([key, value]) => JSON.stringify(value) !== JSON.stringify(form.settings[key]));
  const changed = () => {
    servers.hidden = engine.value !== "http";
    const chosen = form.prompts.find((each) => each.prompt_id === prompt.value);
    wording.textContent = chosen ? chosen.text : "";
    unsaved.hidden = save.hidden = !differs();
    start.firstChild.textContent = differs() ? "Save and caption" : "Caption";
  };

  on("form", () => {
    const settings = form.settings;
    if (!settings) return;
    fill(models, ...form.models.map((each) => el("option", { value: each })));
    fill(prompt, ...form.prompts.map((each) => el("option", { value: each.prompt_id, text: each.prompt_id })));
    engine.value = settings.engine;
    model.value = settings.model;
    prompt.value = settings.prompt;
    tokens.value = settings.max_new_tokens;
    endpoints.value = settings.endpoints.join("\n");
    if (!here.prompts.size) here.prompts = new Set(form.prompts.slice(0, 2).map((each) => each.prompt_id).concat(settings.prompt));
    fill(tried, ...form.prompts.map((each) => {
      const box = el("input", { type: "checkbox", on: { change: () => { if (box.checked) here.prompts.add(each.prompt_id); else here.prompts.delete(each.prompt_id); } } });
      box.checked = here.prompts.has(each.prompt_id);
      return el("label", {}, box, each.prompt_id);
    }));
    fill(previews, ...form.previews.slice(0, 8).map((each) => el("li", {}, button(
      `${count(each.pictures)} pictures: ${clip(each.captioners.map((one) => one.prompt_id).filter((one, at, all) => all.indexOf(one) === at).join(", "), 60)}`,
      "", `Side by side, of ${each.created}`, () => openPreview(each.name), "pf-cap-link"))));
    changed();
    enable();
  });
  on("counts", () => {
    const number = (name) => state.counts[name] || 0;
    const written = number("new") + number("kept") + number("edited") + number("rejected");
    who.textContent = state.selected
      ? `${count(written)} captioned, ${count(number("failed"))} failed, ${count(number("missing"))} not asked yet${state.centroid ? ` (in centroid ${state.centroid})` : ""}.${state.finished ? "" : " Not finished: later stages wait for the rest."}`
      : "Nothing is selected, so there is nothing to caption.";
    failed.hidden = !number("failed");
    shown.hidden = !(state.show || state.flag || state.centroid) || !state.total;
    shown.textContent = `Ask again for the ${count(state.total)} shown…`;
  });
  const enable = () => {
    const ready = Boolean(page.run && page.run.stages.selection) && mayStart();
    for (const each of [start, failed, tryOut, shown]) each.disabled = !ready;
    for (const each of [engine, endpoints, model, prompt, tokens]) each.disabled = !mayWrite() || !form.settings; // or what is chosen before they are there is lost
    const job = jobs.list.find((each) => each.command.split(" ")[1] === "caption" || each.state === "running" || each.state === "queued");
    fill(strip, job ? jobStrip(job, busy() || job.state !== "done") : null);
  };
  on("jobs", enable);
  on("run", enable);

  return el("aside", { class: "pf-cap-run", "aria-label": "Captioning" },
    closes("pf-cap-close-run"),
    el("section", {}, el("h2", { class: "pf-part", text: "Captioner" }), who, models,
      field("Engine", engine), servers, field("Model", model), field("Prompt", prompt),
      el("details", {}, el("summary", { text: "its words" }), wording),
      field("Greatest length, tokens", tokens), el("div", { class: "pf-tools" }, save, unsaved)),
    el("section", {}, el("h2", { class: "pf-part", text: "Try it on a few pictures" }),
      tried, second, el("div", { class: "pf-tools" }, field("Pictures", amount), tryOut), previews),
    el("section", {}, el("h2", { class: "pf-part", text: "Caption the selection" }),
      el("div", { class: "pf-tools" }, estimate, start, failed, shown), told, strip));
};

