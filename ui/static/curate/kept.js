/* Captioning what people keep of the open centroid, and of no other. */

import { button, choice, clip, count, el, fill, openDialog, seconds } from "../core/dom.js";
import { form, readForm, saveSettings } from "../core/captioner.js";
import { busy, startJobs } from "../core/jobs.js";
import { get, url } from "../core/net.js";
import { mayWrite, notice, on, page } from "../core/page.js";
import { state } from "./state.js";

const STILL_MS = 600; // counted once nothing is decided or opened for so long: it never delays either

const ask = (centroid, prompt = "") => get(`/api/captions/kept?centroid=${centroid}&prompt=${encodeURIComponent(prompt)}`);
const timeOf = (found) => {
  if (!found.to_ask) return "Nothing to do.";
  return found.seconds === null ? "How long it takes isn't known: nothing was captioned in this run yet."
    : `That takes about ${seconds(found.seconds)} at ${found.rate.toFixed(1)}/s, as the last captioning here.`;
};

const openKept = async (centroid) => {
  try { await readForm(); } catch (error) { notice(error.message); return; }
  const told = el("p", { class: "pf-kept-told", role: "status", text: "counting …" });
  const wording = el("p", { class: "pf-muted pf-small" });
  const prompt = choice(Object.fromEntries(form.prompts.map((each) => [each.prompt_id, each.prompt_id])), "Prompt", () => draw());
  const start = button("Caption", "", "select, then caption: one after the other, each as a job", async () => {
    start.disabled = true;
    if (!await saveSettings({ prompt: prompt.value })) { dialog.close(); return; }
    dialog.close();
    await startJobs(["select", `caption --kept-in ${centroid}`]);
  }, "pf-primary");
  const dialog = openDialog("Caption what is kept here",
    el("h2", { class: "pf-part", text: `Caption what is kept in centroid ${centroid}` }),
    el("p", { text: "First select runs, so that every decision counts. Then the pictures that people keep here are captioned, those that have no caption by this prompt yet; what a list blocks or could not be had is left out. The rest of the run waits for “Caption what is selected”." }),
    el("p", { class: "pf-muted", text: `By the ${form.settings.engine} engine, model ${clip(form.settings.model, 120)}.` }),
    el("label", { class: "pf-tools" }, "Prompt", prompt), el("details", {}, el("summary", { text: "its words" }), wording),
    told,
    el("div", { class: "pf-tools pf-dialog-end" }, start, button("Cancel", "Esc", "Start nothing", () => dialog.close()), el("span", { class: "pf-gap" }),
      el("a", { class: "pf-link", href: url(`/captions?centroid=${centroid}`), text: "another model, or a try first" })));
  prompt.value = form.settings.prompt;
  const draw = async () => {
    const wanted = prompt.value;
    start.disabled = true;
    start.firstChild.textContent = wanted === form.settings.prompt ? "Caption" : "Save as the run's prompt, and caption";
    fill(wording, form.prompts.find((each) => each.prompt_id === wanted)?.text || "");
    try {
      const found = await ask(centroid, wanted);
      if (prompt.value !== wanted) return;
      told.textContent = `${count(found.kept)} kept here, ${count(found.to_ask)} of them without a caption by ${wanted}. ${timeOf(found)}`;
      start.disabled = !found.to_ask || busy() || !mayWrite();
    } catch (error) { told.textContent = error.message; }
  };
  await draw();
};

/* The button, with the number it would ask for. */
export const keptButton = () => {
  const node = button("Caption kept here", "", "Describe what people keep of this centroid; says first how many and how long", () => openKept(state.centroid));
  node.disabled = true;
  let waiting = null;
  let found = null;
  const enable = () => { node.disabled = !found || !found.kept || busy() || !mayWrite(); };
  const draw = () => {
    node.hidden = state.centroid === null || state.like !== null;
    node.firstChild.textContent = found ? `Caption kept here (${count(found.to_ask)})…` : "Caption kept here…";
    enable();
  };
  const recount = () => {
    clearTimeout(waiting);
    const centroid = state.centroid;
    if (centroid === null || state.like !== null || !page.run) { draw(); return; }
    waiting = setTimeout(async () => {
      const answer = await ask(centroid).catch(() => null); // the queue says when the server is gone
      if (state.centroid !== centroid) return;
      found = answer;
      draw();
    }, STILL_MS);
  };
  on("opened", () => { found = null; draw(); recount(); });
  for (const topic of ["answered", "ended", "run"]) on(topic, recount);
  on("jobs", enable);
  return node;
};
