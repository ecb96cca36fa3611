/* The Jobs page: every job of the run, whoever started it. */

import { button, clip, count, el, fill, seconds, when, words } from "./core/dom.js";
import { bar, busy, figures, jobs, jobStrip, poll, startJobs } from "./core/jobs.js";
import { load, on, part, tell } from "./core/page.js";
import * as router from "./core/router.js";

const COMMANDS = {
  run: "Every stage that is not up to date, in order, to the release",
  select: "Decide on every candidate: filters, people, duplicates, quota",
  caption: "Describe the selected pictures",
  release: "Publish the dataset with its card",
};
part("jobs", (host) => {
  const buttons = Object.entries(COMMANDS).map(([command, meaning]) => button(command, "", meaning, () => startJobs([command]), command === "run" ? "pf-primary" : ""));
  const table = el("div", { class: "pf-jobs" });
  const detail = el("div", { class: "pf-job-detail" });
  let chosen = router.query().get("job");
  buttons.forEach((node) => { node.disabled = true; }); // until it is known whether a job is at work
  host.append(el("div", { class: "pf-page" },
    el("section", { class: "pf-start" }, el("h2", { class: "pf-part", text: "Start" }), el("div", { class: "pf-tools" }, ...buttons),
      el("p", { class: "pf-muted pf-small", text: "Each is the command of that name on this run, as its own process: it goes on when this page or the board is closed. Stopped and started again, it goes on from where it was." })),
    el("section", {}, el("h2", { class: "pf-part", text: "Jobs" }), table),
    detail));
  on("jobs", () => {
    const working = busy();
    buttons.forEach((node) => { node.disabled = working; });
    if (!jobs.list.length) { table.replaceChildren(el("p", { class: "pf-muted", text: "No job yet on this run." })); detail.replaceChildren(); return; }
    const job = jobs.list.find((candidate) => candidate.job === chosen) || jobs.list[0];
    table.replaceChildren(...jobs.list.map((entry) => el("button", {
      type: "button", class: "pf-job-row", "data-job": entry.job, "data-state": entry.state, "aria-pressed": entry === job ? "true" : "false",
      on: { click: () => {
        chosen = entry.job;
        router.write(["job"], [["job", chosen]]);
        tell("jobs");
      } },
    },
    el("span", { class: "pf-job-name", text: entry.command.split(" ")[1] || "" }),
    el("span", { class: `pf-state pf-state-${entry.state}`, text: entry.state }),
    bar(entry),
    el("span", { class: "pf-muted pf-job-figures", text: [entry.stage, figures(entry)].filter(Boolean).join(" · ") }),
    el("span", { class: "pf-muted pf-job-time", text: `${when(entry.started)} · ${seconds(Math.max(1, (entry.ended || entry.updated) - entry.started))}` }))));
    const failures = Object.entries(job.failures).sort((a, b) => b[1] - a[1]);
    fill(detail,
      el("h2", { class: "pf-part" }, `Job ${job.job}`),
      el("code", { class: "pf-command", text: clip(job.command, 500) }),
      jobStrip(job, false),
      failures.length ? el("table", { class: "pf-failures" }, el("caption", { text: "Failures by cause" }),
        ...failures.map(([reason, number]) => el("tr", {}, el("td", { text: words(reason) }), el("td", { text: count(number) })))) : null,
      job.lines.length ? el("pre", { class: "pf-log", tabindex: 0, "aria-label": "Last lines", text: job.lines.map((entry) => clip(entry, 2000)).join("\n") }) : null);
  });
});

load(["jobs"], poll);
