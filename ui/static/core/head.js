/* The head of every page: which run, the five pages, who is here, and whether all is saved. */

import { button, count, el } from "./dom.js";
import { remember, remembered } from "./memory.js";
import { url } from "./net.js";
import { on, page, part, tell } from "./page.js";
import { queue } from "./queue.js";

const PAGES = [["curate", "", "Curate"], ["captions", "captions", "Captions"], ["jobs", "jobs", "Jobs"], ["release", "release", "Release"], ["setup", "setup", "Setup"]];
const NOTICE_MS = 12_000;
const DECIDING = ["curate", "captions"]; // pages on which something is saved

part("header", (host) => {
  const last = location.pathname.replace(/\/$/, "").split("/").pop();
  const [here, , title] = PAGES.find(([, path]) => path && path === last) || PAGES[0];
  const deciding = DECIDING.includes(here);
  const name = el("span", { class: "pf-run" });
  const stamp = el("span", { class: "pf-stamp", hidden: true });
  const saving = el("span", { class: "pf-saving", role: "status" });
  const trouble = el("div", { class: "pf-notice", role: "alert", hidden: true });
  const person = el("input", {
    class: "pf-input pf-curator", "aria-label": "Your name", placeholder: "your name", maxlength: 40,
    on: { change: (event) => remember("popfactory.curator", event.target.value.trim()) },
  });
  person.value = remembered("popfactory.curator", "");
  host.append(
    el("header", { class: "pf-head" },
      el("h1", { class: "pf-title", text: `popfactory ${title.toLowerCase()}` }),
      name,
      el("nav", { class: "pf-nav", "aria-label": "Pages" }, ...PAGES.map(([target, path, label]) =>
        el("a", { href: url(`/${path}`), text: label, "aria-current": here === target ? "page" : null }))),
      stamp,
      el("span", { class: "pf-gap" }),
      deciding ? saving : null,
      deciding ? person : null,
      deciding ? button("Keys", "?", "All keys", () => tell("help")) : null),
    trouble);
  on("run", () => {
    name.textContent = page.run.run;
    name.title = page.run.server ? `with the retrieval server ${page.run.server}` : "without a retrieval server";
    if (page.run.curator) Object.assign(person, { value: page.run.curator, readOnly: true, title: "by your token" });
    if (!page.run.may_write) stamp.title = "your token reads only: nothing you decide is stored";
    const said = [page.run.may_write ? "" : "read only", page.run.demo || ""].filter(Boolean);
    stamp.textContent = said.join(" · ");
    stamp.hidden = !said.length;
  });
  on("saving", () => {
    const waiting = queue.events.length;
    saving.classList.toggle("pf-bad", Boolean(queue.trouble));
    saving.textContent = queue.trouble ? `${count(waiting)} not saved, retrying` : waiting ? `saving ${count(waiting)}` : "saved";
    saving.title = queue.trouble || (queue.kept ? "" : "this browser keeps nothing: don't close the page");
  });
  let ending = null;
  const close = () => { trouble.hidden = true; };
  trouble.addEventListener("click", close);
  on("notice", () => {
    clearTimeout(ending);
    trouble.textContent = page.notice;
    trouble.hidden = !page.notice;
    ending = setTimeout(close, NOTICE_MS); // what still holds is told again
  });
  tell("saving");
});
