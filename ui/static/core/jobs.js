/* The run's jobs as any page shows them, asked for each second while one is at work. */

import { button, clip, count, el, seconds } from "./dom.js";
import { get, post, url } from "./net.js";
import { has, mayWrite, notice, tell } from "./page.js";

export const jobs = { list: [], waiting: [], total: 0, shown: 100 };
export const ACTIVE = ["queued", "running"];
export const active = () => jobs.list.find((job) => ACTIVE.includes(job.state)) || null;
export const busy = () => Boolean(active() || jobs.waiting.length);
export const mayStart = () => mayWrite() && !busy();

let polling = null;
export const poll = async () => {
  clearTimeout(polling);
  const before = active();
  try {
    const answer = await get(`/api/jobs?count=${jobs.shown}`);
    jobs.list = answer.jobs;
    jobs.total = answer.total;
    jobs.waiting = answer.waiting;
    tell("jobs");
    const ended = before && jobs.list.find((job) => job.job === before.job && !ACTIVE.includes(job.state));
    if (ended) tell("ended", ended);
  } catch (error) {
    notice(error.message);
  }
  polling = setTimeout(poll, busy() ? 1000 : 5000);
};
export const startJobs = async (commands) => {
  let started = true;
  try {
    await post("/api/jobs", { commands });
    notice("");
  } catch (error) {
    started = false;
    notice(error.message);
  }
  await poll();
  return started;
};
export const cancel = async (job) => {
  try { await post(`/api/jobs/${job}/cancel`, {}); } catch (error) { notice(error.message); }
  await poll();
};
/* The same command once more: its stages do what is missing. */
export const resume = async (job) => {
  try { await post(`/api/jobs/${job}/again`, {}); notice(""); } catch (error) { notice(error.message); }
  await poll();
};
const STOPPED = ["cancelled", "failed", "lost"];

/* What a captioning would ask, as /api/captions/estimate counts it. */
export const estimated = (found) => {
  const time = !found.to_ask ? "nothing to do" : found.seconds === null ? "how long it takes isn't known yet: this captioner has no finished job here"
    : `about ${seconds(found.seconds)} at ${found.rate.toFixed(1)}/s, as its last job here`;
  return `${count(found.to_ask)} of ${count(found.contents)} would be asked: ${time}.`;
};

/* How many failed, and how many were not asked for as a filter rejects them by what the pool says. */
export const lossesOf = ({ failures, meanings }) => {
  const sum = (wanted) => Object.entries(failures).reduce((total, [reason, number]) => total + (reason in meanings === wanted ? number : 0), 0);
  return [sum(false), sum(true)];
};

export const figures = (job) => {
  const parts = [];
  if (job.stage) parts.push(job.total === null ? `${count(job.done)} ${job.unit}` : `${count(job.done)} of ${count(job.total)} ${job.unit}`);
  if (job.rate) parts.push(`${job.rate >= 10 ? count(Math.round(job.rate)) : job.rate.toFixed(1)}/s`);
  if (job.eta_s) parts.push(`${seconds(job.eta_s)} left`);
  const [failed, passed] = lossesOf(job);
  if (failed) parts.push(`${count(failed)} failed`);
  if (passed) parts.push(`${count(passed)} passed over`);
  return parts.join(" · ");
};

export const bar = (job) => {
  const share = job.state === "done" ? 1 : job.total ? Math.min(1, job.done / job.total) : 0;
  const moving = job.state === "running" && !job.total;
  const filled = el("span", { class: "pf-bar-fill" });
  filled.style.width = `${share * 100}%`;
  return el("div", {
    class: `pf-bar pf-bar-${job.state}${moving ? " pf-bar-moving" : ""}`, role: "progressbar",
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100), "aria-label": job.stage || job.command,
  }, filled);
};

export const jobStrip = (job, withLine = true) => el("div", { class: "pf-job", "data-state": job.state },
  el("div", { class: "pf-job-head" },
    el("b", {}, has("jobs") ? job.command.split(" ")[1] || "job" : el("a", { class: "pf-link", href: url(`/jobs?job=${job.job}`), title: "All of it, and what can be done about it", text: job.command.split(" ")[1] || "job" })), el("span", { class: `pf-state pf-state-${job.state}`, text: job.state }),
    jobs.waiting.length && ACTIVE.includes(job.state) ? el("span", { class: "pf-muted", text: `then ${jobs.waiting.join(", ")}` }) : null,
    el("span", { class: "pf-gap" }),
    ACTIVE.includes(job.state) && mayWrite() ? button("Cancel", "", "Stop; what is finished stays", () => cancel(job.job), "pf-quiet") : null,
    STOPPED.includes(job.state) && job === jobs.list[0] && job.startable && mayStart() && !has("jobs") ? button("Resume", "", "The same command: each stage does what is missing", () => resume(job.job), "pf-quiet") : null),
  bar(job),
  el("div", { class: "pf-muted pf-small", text: [job.stage, figures(job)].filter(Boolean).join(" · ") }),
  job.message ? el("div", { class: "pf-small pf-bad", text: clip(job.message, 400) }) : null,
  withLine && job.lines.length ? el("div", { class: "pf-muted pf-small pf-text", text: clip(job.lines[job.lines.length - 1], 300) }) : null);
