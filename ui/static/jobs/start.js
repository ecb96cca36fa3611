/* What can be started, with the options of each command and the line as it would be typed. */

import { button, choice, copyButton, el, fill, openDialog } from "../core/dom.js";
import { estimated, mayStart, startJobs } from "../core/jobs.js";
import { get } from "../core/net.js";
import { on, tell } from "../core/page.js";
import * as router from "../core/router.js";

const form = { run: "", commands: [] };
export const loadForm = async () => {
  Object.assign(form, await get("/api/jobs/form"));
  tell("form");
};
export const isStartable = (name) => form.commands.some((command) => command.name === name);

export const startPart = () => {
  let command = null;
  let given = new Map(); // option to its number, or null of a switch
  const which = choice({}, "Command", (name) => { choose(name, new Map()); writeAddress(); });
  const meaning = el("span", { class: "pf-muted" });
  const options = el("div", { class: "pf-options", role: "group", "aria-label": "Options" });
  const line = el("code", { class: "pf-command" });
  const told = el("p", { class: "pf-small", role: "status" });
  const typed = () => [command.name, ...[...given].map(([name, number]) => (number === null ? name : `${name} ${number}`))].join(" ");
  const typedLine = () => { const [name, ...rest] = typed().split(" "); return ["popfactory", name, form.run, ...rest].join(" "); };
  const start = button("Start", "", "As its own process: it goes on when this page or the board is closed", () => (given.has("--force") ? ask() : begin()), "pf-primary");
  const estimate = button("Estimate", "", "Count what would be asked, and how long it takes; asks nothing", async () => {
    told.textContent = "counting …";
    const query = [given.has("--limit") ? `limit=${given.get("--limit")}` : "", given.has("--failed-only") ? "failed_only=true" : "", given.has("--kept-in") ? `kept_in=${given.get("--kept-in")}` : ""].filter(Boolean).join("&");
    try { told.textContent = estimated(await get(`/api/captions/estimate?${query}`)); } catch (error) { told.textContent = error.message; }
  });
  const begin = () => startJobs([typed()]);
  const ask = () => {
    const meant = command.options.find((option) => option.name === "--force").meaning;
    const dialog = openDialog("Start over?", el("h2", { class: "pf-part", text: "Start over?" }), el("p", { text: `${typedLine()}: ${meant} What the stage has made so far is thrown away.` }),
      el("div", { class: "pf-tools" }, button("Start over", "", "Throw away and begin again", () => { dialog.close(); begin(); }, "pf-primary"), button("Cancel", "Esc", "Leave it as it is", () => dialog.close())));
  };
  const writeAddress = () => router.write(["start"], typed() === form.commands[0].name ? [] : [["start", typed()]]);
  const draw = () => {
    meaning.textContent = `${command.meaning}.`;
    line.textContent = typedLine();
    told.textContent = "";
    estimate.hidden = command.name !== "caption" || given.has("--force");
    start.disabled = !mayStart();
  };
  const changed = () => { draw(); writeAddress(); };
  const optionNode = (option) => {
    const set = (on_, value) => { if (on_) given.set(option.name, value); else given.delete(option.name); changed(); };
    const box = option.least === null
      ? el("input", { type: "checkbox", on: { change: () => set(box.checked, null) } })
      : el("input", { type: "number", class: "pf-input pf-number", min: option.least, step: 1, placeholder: "all", on: { input: () => { const value = Number.parseInt(box.value, 10); set(value >= option.least, value); } } });
    if (option.least === null) box.checked = given.has(option.name);
    else box.value = given.get(option.name) ?? "";
    return el("label", { class: "pf-option" }, box, el("code", { text: option.name }), el("span", { class: "pf-muted", text: option.meaning }));
  };
  const choose = (name, chosen) => {
    command = form.commands.find((each) => each.name === name) || form.commands[0];
    given = new Map(command.options.filter((option) => chosen.has(option.name)).map((option) => [option.name, chosen.get(option.name)]));
    which.value = command.name;
    options.replaceChildren(...command.options.map(optionNode));
    draw();
  };
  /* "caption --limit 20" to its name and options. */
  const read = (words) => {
    const [name, ...rest] = (words || "").split(" ");
    const chosen = new Map();
    rest.forEach((word, place) => {
      if (!word.startsWith("--")) return;
      const number = Number.parseInt(rest[place + 1], 10);
      chosen.set(word, number >= 0 ? number : null);
    });
    return [name, chosen];
  };
  start.disabled = true; // until it is known whether a job is at work
  on("form", () => {
    fill(which, ...form.commands.map((each) => el("option", { value: each.name, text: each.name })));
    choose(...read(router.query().get("start")));
  });
  on("jobs", () => { start.disabled = !command || !mayStart(); });
  return el("section", { class: "pf-start" }, el("h2", { class: "pf-part", text: "Start" }),
    el("div", { class: "pf-tools" }, which, meaning), options,
    el("div", { class: "pf-tools pf-command-line" }, line, copyButton(() => line.textContent), estimate, start), told,
    el("p", { class: "pf-muted pf-small", text: "It works as its own process and goes on when this page or the board is closed. Stopped and started again, it goes on from where it was. One works on a run at a time." }));
};
