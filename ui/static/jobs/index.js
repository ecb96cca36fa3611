/* The Jobs page: every job of the run, whoever started it. */

import { button, clip, copyButton, count, el, fill, keepingFocus, seconds, when, words } from "../core/dom.js";
import { ACTIVE, bar, figures, jobs, jobStrip, mayStart, poll, startJobs } from "../core/jobs.js";
import { get, post } from "../core/net.js";
import { load, notice, on, part, tell } from "../core/page.js";
import * as router from "../core/router.js";
import { samplesPart } from "./samples.js";
import { isStartable, loadForm, startPart } from "./start.js";

const STATES = ["running", "queued", "done", "failed", "cancelled", "lost"];
const RETRIES = [["fetch", "fetch --retry-failed", "fetch --retry-failed: ask again what may answer another time"],
  ["caption", "caption --failed-only", "caption --failed-only: ask again for the captions that failed, and for no others"]];
const WRITTEN_S = 0.2;
const GRAPH = { width: 600, height: 90 };

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
  el("span", { class: "pf-muted pf-job-figures", text: [entry.stage, figures(entry)].filter(Boolean).join(" · ") }),
  el("span", { class: "pf-muted pf-job-time", text: `${when(entry.started)} · ${seconds(Math.max(1, (entry.ended || entry.updated) - entry.started))}` }));

  const drawDetail = (job) => {
    // Of every stage, as a later one's journal forgets them; before the stages are known, of the newest.
    const stages = story.job === job.job && story.stages.length ? story.stages : [job];
    const failing = stages.filter((stage) => Object.keys(stage.failures).length);
    const again_ = RETRIES.find(([stage]) => failing.some((each) => each.stage === stage));
    const working = !mayStart();
    const again = button(job.state === "done" ? "Run it again" : "Go on with it", "", "The same command: each stage does what is missing", () => change(`/api/jobs/${job.job}/again`), "pf-small-button");
    const retry = again_ && button("Retry what failed", "", again_[2], () => startJobs([again_[1]]), "pf-small-button");
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
      story.points.length > 5 ? graph(story.points, job.unit) : null,
      ...failing.map((stage) => causes(job, stage)),
      job.lines.length ? el("pre", { class: "pf-log", tabindex: 0, role: "region", "aria-label": "Last lines", text: job.lines.map((entry) => clip(entry, 2000)).join("\n") }) : null));
  };
  const causes = (job, { stage, failures, meanings = {} }) => el("table", { class: "pf-failures", "data-stage": stage }, el("caption", { text: `What failed in ${stage}, by cause` }),
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
        if (job === jobs.list[0]) await samples.draw(job);
      } catch (error) { notice(error.message); }
    }
    if (current() === job) drawDetail(job);
  });
});

const stagesTable = (stages) => el("div", { class: "pf-scroll-x" }, el("table", { class: "pf-stages" }, el("caption", { text: "Stages" }),
  el("thead", {}, el("tr", {}, ...["stage", "done", "of", "rate", "took", "failed"].map((name) => el("th", { scope: "col", text: name })))),
  el("tbody", {}, ...stages.map((stage) => el("tr", {},
    el("td", { text: stage.stage }), el("td", { text: `${count(stage.done)} ${stage.unit}` }), el("td", { text: stage.total === null ? "" : count(stage.total) }),
    el("td", { text: stage.rate ? `${stage.rate >= 10 ? count(Math.round(stage.rate)) : stage.rate.toFixed(1)}/s` : "" }),
    el("td", { text: seconds(Math.max(0, stage.updated - stage.began)) }),
    el("td", { text: count(Object.values(stage.failures).reduce((sum, number) => sum + number, 0)) }))))));

/* Units a second over the time of the newest stage. */
const graph = (all, unit) => {
  // What lies closer together than the journal is written tells nothing of the rate: a line that was said in between.
  const points = all.filter(([time], place) => place === 0 || time - all[place - 1][0] > WRITTEN_S);
  const first = points[0][0];
  const span = Math.max(1e-3, points[points.length - 1][0] - first);
  const rates = points.slice(1).map(([time, done], index) => [time - first, Math.max(0, done - points[index][1]) / Math.max(1e-3, time - points[index][0])]);
  const top = Math.max(1e-9, ...rates.map(([, rate]) => rate));
  const node = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const said = `At most ${top >= 10 ? count(Math.round(top)) : top.toFixed(1)} ${unit} a second over ${seconds(span)}`;
  const svg = node("svg", { viewBox: `0 0 ${GRAPH.width} ${GRAPH.height}`, class: "pf-graph", role: "img", "aria-label": said, preserveAspectRatio: "none" });
  svg.append(node("polyline", { points: rates.map(([time, rate]) => `${((time / span) * GRAPH.width).toFixed(1)},${(GRAPH.height - 4 - (rate / top) * (GRAPH.height - 8)).toFixed(1)}`).join(" ") }));
  return el("figure", { class: "pf-throughput" }, el("figcaption", { class: "pf-muted pf-small", text: `Throughput. ${said}.` }), svg);
};

load(["jobs"], async () => { await loadForm(); await poll(); });
