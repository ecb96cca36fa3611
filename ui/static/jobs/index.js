/* The Jobs page: every job of the run, whoever started it. */

import { button, clip, copyButton, count, el, fill, keepingFocus, seconds, when, words } from "../core/dom.js";
import { ACTIVE, bar, figures, jobs, jobStrip, lossesOf, mayStart, poll, startJobs } from "../core/jobs.js";
import { get, post } from "../core/net.js";
import { load, notice, on, part, tell } from "../core/page.js";
import * as router from "../core/router.js";
import { graphPart } from "./graph.js";
import { samplesPart } from "./samples.js";
import { isStartable, loadForm, startPart } from "./start.js";

const STATES = ["running", "queued", "done", "failed", "cancelled", "lost"];
const RETRIES = [["fetch", "fetch --retry-failed", "fetch --retry-failed: ask again what may answer another time"],
  ["caption", "caption --failed-only", "caption --failed-only: ask again for the captions that failed, and for no others"]];

part("jobs", (host) => {
  const tally = el("div", { class: "pf-muted pf-small", role: "status" });
  const waiting = el("div", { class: "pf-waiting", hidden: true });
  const table = el("div", { class: "pf-jobs" });
  const detail = el("div", { class: "pf-job-detail" });
  let chosen = router.query().get("job");
  let story = { job: null, updated: null, stages: [], points: [] };
  let shown = ""; // the stage and cause whose examples are open
  let found = [];
  const samples = samplesPart();
  const graph = graphPart();
  host.append(el("div", { class: "pf-page" },
    startPart(),
    el("section", {}, el("h2", { class: "pf-part", text: "Jobs" }), tally, waiting, table),
    detail));

  const current = () => jobs.list.find((candidate) => candidate.job === chosen) || jobs.list[0];
  const choose = (job) => {
    chosen = job;
    shown = "";
    router.write(["job"], [["job", chosen]]);
    tell("jobs");
  };
  const rowNode = (entry, job) => el("button", {
    type: "button", class: "pf-job-row", "data-job": entry.job, "data-state": entry.state, "aria-pressed": entry === job ? "true" : "false", on: { click: () => choose(entry.job) },
  },
  el("span", { class: "pf-job-name", text: entry.command.split(" ")[1] || "" }),
  el("span", { class: `pf-state pf-state-${entry.state}`, text: entry.state }),
  bar(entry),
  el("span", { class: "pf-muted pf-job-figures", text: [entry.stage, figures(entry)].filter(Boolean).join(" · ") || (entry.state === "done" ? "all was up to date" : "") }),
  el("span", { class: "pf-muted pf-job-time", text: `${when(entry.started)} · ${seconds(Math.max(1, (entry.ended || entry.updated) - entry.started))}` }));

  const drawDetail = (job) => {
    // Of every stage, as a later one's journal forgets them; before the stages are known, of the newest.
    const stages = story.job === job.job && story.stages.length ? story.stages : [job];
    const failing = causesOf(stages);
    // What a filter kept fetch from asking for is nothing that another try would bring.
    const again_ = RETRIES.find(([stage]) => failing.some((each) => each.stage === stage && Object.keys(each.failures).some((reason) => !each.meanings[reason])));
    const working = !mayStart();
    const again = button(job.state === "done" ? "Run it again" : "Go on with it", "", "The same command: each stage does what is missing", () => change(`/api/jobs/${job.job}/again`), "pf-small-button");
    const retry = again_ && button(`Retry the ${count(lossesOf(failing.find((each) => each.stage === again_[0]))[0])} that failed`, "", again_[2], () => startJobs([again_[1]]), "pf-small-button");
    again.disabled = working;
    if (retry) retry.disabled = working;
    keepingFocus(detail, () => fill(detail,
      el("div", { class: "pf-tools" }, el("h2", { class: "pf-part" }, `Job ${job.job}`), el("span", { class: "pf-gap" }),
        ACTIVE.includes(job.state) || !isStartable(job.command.split(" ")[1]) ? null : again, ACTIVE.includes(job.state) ? null : retry),
      el("div", { class: "pf-tools pf-command-line" }, el("code", { class: "pf-command", text: clip(job.command, 500) }),
        copyButton(() => job.command)),
      jobStrip(job, false),
      job === jobs.list[0] ? samples.node : null,
      story.stages.length ? stagesTable(story.stages) : null,
      graph.node,
      ...failing.map((stage) => causes(job, stage)),
      job.lines.length ? el("pre", { class: "pf-log", tabindex: 0, role: "region", "aria-label": "Last lines", text: job.lines.map((entry) => clip(entry, 2000)).join("\n") }) : null));
  };
  const causes = (job, { stage, failures, meanings }) => el("table", { class: "pf-failures", "data-stage": stage }, el("caption", { text: `What failed in ${stage}${Object.keys(meanings).length ? ", or was passed over" : ""}, by cause` }),
    ...Object.entries(failures).sort((a, b) => b[1] - a[1]).flatMap(([reason, number]) => [
      el("tr", {}, el("td", {}, el("button", { type: "button", class: "pf-link", "aria-expanded": shown === `${stage} ${reason}` ? "true" : "false", text: meanings[reason] ? `not fetched: ${meanings[reason]}` : words(reason), on: { click: () => expand(job, stage, reason) } })), el("td", { text: count(number) })),
      shown === `${stage} ${reason}` ? el("tr", {}, el("td", { colspan: 2 }, el("ul", { class: "pf-examples" },
        ...(found.length ? found.map((each) => el("li", { text: [clip(each.what, 200), clip(each.url, 200), clip(each.message, 300)].filter(Boolean).join(" · ") })) : [el("li", { class: "pf-muted", text: "no examples are kept of this stage" })])))) : null,
    ].filter(Boolean)));
  const expand = async (job, stage, reason) => {
    shown = shown === `${stage} ${reason}` ? "" : `${stage} ${reason}`;
    found = [];
    if (shown) {
      try { found = (await get(`/api/jobs/${job.job}/examples?stage=${encodeURIComponent(stage)}&reason=${encodeURIComponent(reason)}`)).examples; } catch (error) { notice(error.message); }
    }
    drawDetail(job);
  };
  const change = async (path) => {
    try { await post(path, {}); notice(""); } catch (error) { notice(error.message); }
    chosen = null;
    await poll();
  };

  on("jobs", async () => {
    const by = STATES.map((state) => [state, jobs.list.filter((entry) => entry.state === state).length]).filter(([, number]) => number);
    tally.textContent = by.map(([state, number]) => `${count(number)} ${state}`).join(" · ");
    waiting.hidden = !jobs.waiting.length;
    waiting.textContent = jobs.waiting.length ? `Next: ${jobs.waiting.join(", then ")}` : "";
    if (!jobs.list.length) { table.replaceChildren(el("p", { class: "pf-muted", text: "No job yet on this run." })); detail.replaceChildren(); return; }
    if (chosen && !jobs.list.some((entry) => entry.job === chosen)) {
      if (jobs.shown < jobs.total) { jobs.shown = jobs.total; poll(); return; } // it may be an older one
      notice(`Job ${clip(chosen, 40)} of this address is not in the run; the newest is shown instead.`);
      chosen = null;
    }
    const job = current();
    const older = jobs.total - jobs.list.length;
    table.replaceChildren(...jobs.list.map((entry) => rowNode(entry, job)), ...(older > 0 ? [button(`${count(older)} older`, "", "Show earlier jobs too", () => { jobs.shown += 1000; poll(); }, "pf-quiet")] : []));
    if (story.job !== job.job || story.updated !== job.updated) {
      try {
        const answer = await get(`/api/jobs/${job.job}`);
        story = { job: job.job, updated: job.updated, ...answer };
        await graph.show(job.job, story.points, job.unit);
        if (job === jobs.list[0]) await samples.draw(job);
      } catch (error) { notice(error.message); }
    }
    if (current() === job && !graph.isDragged()) drawDetail(job); // a node that is put in anew lets go of the pointer
  });
});

/* What failed in each stage, where a run came to it more than once all of it together. */
const causesOf = (stages) => {
  const found = new Map();
  for (const { stage, failures, meanings } of stages) {
    const sums = found.get(stage) || { stage, failures: {}, meanings: {} };
    for (const [reason, number] of Object.entries(failures)) sums.failures[reason] = (sums.failures[reason] || 0) + number;
    Object.assign(sums.meanings, meanings);
    found.set(stage, sums);
  }
  return [...found.values()].filter(({ failures }) => Object.keys(failures).length);
};

const stagesTable = (all) => {
  // A stage that is begun anew before anything is done, a captioner that has loaded its model say, is one.
  const stages = all.filter((stage, place) => all[place + 1]?.stage !== stage.stage || stage.rate || lossesOf(stage).some(Boolean));
  const kinds = ["failed", ...(stages.some((stage) => lossesOf(stage)[1]) ? ["passed over"] : [])];
  const head = el("thead", {}, el("tr", {}, ...["stage", "done", "of", "rate", "took", ...kinds].map((name) => el("th", { scope: "col", text: name }))));
  const row = (stage) => el("tr", {},
    el("td", { text: stage.stage }), el("td", { text: `${count(stage.done)} ${stage.unit}` }), el("td", { text: stage.total === null ? "" : count(stage.total) }),
    el("td", { text: stage.rate ? `${stage.rate >= 10 ? count(Math.round(stage.rate)) : stage.rate.toFixed(1)}/s` : "" }),
    el("td", { text: seconds(stage.took) }),
    ...lossesOf(stage).slice(0, kinds.length).map((number) => el("td", { text: count(number) })));
  return el("div", { class: "pf-scroll-x", tabindex: 0, role: "region", "aria-label": "Stages" },
    el("table", { class: "pf-stages" }, el("caption", { text: "Stages" }), head, el("tbody", {}, ...stages.map(row))));
};

load(["jobs"], async () => { await loadForm(); await poll(); });
