/* The Captions page: its parts, its keys, and what happens when it opens. */

import { el } from "../core/dom.js";
import { saveSettings } from "../core/captioner.js";
import { closeDrawers } from "../core/drawers.js";
import { active, poll } from "../core/jobs.js";
import { keys } from "../core/keys.js";
import { load, notice, on, part, tell } from "../core/page.js";
import { adoptQueues } from "../core/queue.js";
import { KEYS } from "./keys.js";
import { again, open, recount } from "./loading.js";
import { ends, listPart } from "./list.js";
import { closePreview, openPreview, previewPart } from "./preview.js";
import { loadForm, runPart } from "./run.js";
import { here, readAddress, state } from "./state.js";
import { askAgain, clean, decide, edit, keepUnflagged, move, pickNumber, redo, reveal, stopEditing, undo } from "./verdicts.js";

part("captions", (host) => {
  const list = listPart();
  const preview = previewPart(async (captioner) => {
    if (await saveSettings({ prompt: captioner.prompt_id, model: captioner.asked || captioner.model })) notice(`${captioner.prompt_id} is the prompt of the next captioning.`);
  });
  host.append(el("div", { class: "pf-cap-page" }, list, preview, runPart()));
  on("preview", () => { list.hidden = !preview.hidden; });
});

const numbers = Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((number) => [number, () => pickNumber(number)]));
let lastCount = 0;

load(["captions"], async () => {
  keys("captions", KEYS, {
    ArrowDown: () => move(1), ArrowUp: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1), j: () => move(-1), k: () => move(1),
    PageDown: () => move(5), PageUp: () => move(-5), Home: ends(0), End: ends(-1), ...numbers,
    a: () => decide("keep"), p: () => decide("keep"), r: () => decide("reject"), Delete: () => decide("reject"), 0: () => decide("clear"),
    e: edit, c: clean, t: askAgain, u: undo, "Ctrl+z": undo, "Shift+u": redo, "Shift+a": keepUnflagged, v: () => reveal(here()),
    b: () => { state.revealAll = !state.revealAll; tell("list"); }, Escape: () => { if (closeDrawers()) return; if (state.editing) stopEditing(here()); else closePreview(); },
  });
  const at = readAddress();
  on("recount", recount);
  on("ended", async (job) => {
    await loadForm();
    if (job.command.includes(" --preview ") && job.state === "done") {
      const [newest] = (await import("../core/net.js").then(({ get }) => get("/api/captions/previews"))).previews;
      if (newest) await openPreview(newest.name);
    } else await again();
  });
  on("jobs", () => {
    const job = active();
    if (!job || job.stage !== "caption" || Date.now() - lastCount < 3000) return;
    lastCount = Date.now();
    if (state.cards.some((card) => card.state === "missing") && !state.editing) again();
    else recount();
  });
  await adoptQueues();
  state.cursor = at;
  await open(at);
  await loadForm();
  if (state.preview) await openPreview(state.preview);
  poll();
});
