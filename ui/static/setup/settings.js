/* Every setting with its default and meaning, and the form that changes those that are a curator's. */

import { button, choice, count, el, fill } from "../core/dom.js";
import { get, post } from "../core/net.js";
import { mayWrite, notice, on, tell } from "../core/page.js";
import * as router from "../core/router.js";

const SHOWS = { all: "all settings", changed: "other than the default", editable: "to be changed here" };
const form = { seen: "", settings: [], show: "all" };
const drafts = new Map(); // what is typed and not saved, by "table key"
const opened = new Set(); // tables that are unfolded
const nameOf = (setting) => `${setting.table} ${setting.key}`;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const written = (value) => (value === null ? "off" : typeof value === "boolean" ? (value ? "yes" : "no") : Array.isArray(value) ? value.join(", ") || "none" : value === "" ? "empty" : typeof value === "number" ? String(value) : value);

export const loadSettings = async () => {
  const told = await get("/api/settings").catch((error) => { notice(error.message); return null; });
  if (!told) return;
  Object.assign(form, told);
  tell("settings");
};

const read = (setting, text) => {
  if (setting.kind === "texts") return text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (setting.kind !== "number") return text.trim();
  if (!text.trim()) return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : text;
};

const editor = (setting) => {
  const name = nameOf(setting);
  const value = drafts.has(name) ? drafts.get(name) : setting.value;
  const label = `[${setting.table}] ${setting.key}`;
  const take = (next) => {
    if (same(next, setting.value)) drafts.delete(name);
    else drafts.set(name, next);
    tell("drafts");
  };
  if (setting.kind === "truth") {
    const box = el("input", { type: "checkbox", "aria-label": label, disabled: !mayWrite(), on: { change: () => take(box.checked) } });
    box.checked = value;
    return box;
  }
  const tag = setting.kind === "texts" ? "textarea" : "input";
  const field = el(tag, { class: "pf-input", "aria-label": label, disabled: !mayWrite(), maxlength: 1000, inputmode: setting.kind === "number" ? "decimal" : null, rows: setting.kind === "texts" ? 2 : null,
    placeholder: setting.kind === "number" && setting.default === null ? "off" : null, on: { input: () => take(read(setting, field.value)) } });
  field.value = setting.kind === "texts" ? value.join("\n") : value ?? "";
  return field;
};

export const settingsPart = () => {
  const show = choice(SHOWS, "Which settings", (value) => { form.show = value; router.write(["settings"], value === "all" ? [] : [["settings", value]]); tell("settings"); });
  const search = el("input", { type: "search", class: "pf-input", placeholder: "search name or meaning", "aria-label": "Search settings", on: { input: () => tell("settings") } });
  const tables = el("div", {});
  const save = button("Save", "", "Write them to popfactory.toml; comments in it stay", async () => {
    const changes = form.settings.filter((each) => drafts.has(nameOf(each))).map((each) => ({ table: each.table, key: each.key, value: drafts.get(nameOf(each)) }));
    try {
      await post("/api/settings", { seen: form.seen, changes });
      drafts.clear();
      notice("Saved to popfactory.toml. Stages that depend on it are made anew at the next “run”.");
      await loadSettings();
      tell("saved");
    } catch (error) {
      await loadSettings(); // the file may have changed: what was typed stays, and is saved over what stands there now
      notice(error.message);
    }
  }, "pf-primary");
  const drop = button("Leave as it was", "", "Forget what was typed", () => { drafts.clear(); tell("settings"); });
  const bar = el("div", { class: "pf-set-bar" }, save, drop);
  form.show = Object.hasOwn(SHOWS, router.query().get("settings") || "") ? router.query().get("settings") : "all";

  const draftsChanged = () => {
    bar.hidden = !drafts.size;
    save.firstChild.textContent = `Save ${count(drafts.size)} to popfactory.toml`;
    for (const row of tables.querySelectorAll("tr[data-setting]")) row.classList.toggle("pf-set-draft", drafts.has(row.dataset.setting));
  };
  on("drafts", draftsChanged);
  on("settings", () => {
    show.value = form.show;
    const wanted = search.value.trim().toLowerCase();
    const shown = form.settings.filter((each) => (form.show === "all" || (form.show === "changed" ? !same(each.value, each.default) : each.editable))
      && (!wanted || `${each.table} ${each.key} ${each.meaning}`.toLowerCase().includes(wanted)));
    const names = [...new Set(shown.map((each) => each.table))];
    const open = Boolean(wanted) || form.show === "changed";
    fill(tables, ...names.map((table) => {
      const rows = shown.filter((each) => each.table === table);
      const changed = rows.filter((each) => !same(each.value, each.default)).length;
      const node = el("details", { class: "pf-set-part", "data-table": table, open: open || opened.has(table) || rows.some((each) => drafts.has(nameOf(each))) },
        el("summary", {}, el("code", { text: `[${table}]` }), el("span", { class: "pf-muted", text: ` ${count(rows.length)} settings${changed ? `, ${count(changed)} other than the default` : ""}` })),
        el("table", { class: "pf-table pf-set-table" },
          el("thead", {}, el("tr", {}, ...["Setting", "Value", "Default", "Meaning"].map((text) => el("th", { scope: "col", text })))),
          el("tbody", {}, ...rows.map((each) => el("tr", { "data-setting": nameOf(each), class: same(each.value, each.default) ? null : "pf-set-changed" },
            el("th", { scope: "row", text: each.key }),
            el("td", {}, each.editable ? editor(each) : el("span", { text: written(each.value) })),
            el("td", { class: "pf-muted", text: written(each.default) }),
            el("td", { class: "pf-muted", text: each.meaning }))))));
      node.addEventListener("toggle", () => { if (node.open) opened.add(table); else opened.delete(table); });
      return node;
    }),
    shown.length ? null : el("p", { class: "pf-muted", text: "No setting is like this." }));
    draftsChanged();
  });
  return el("section", { class: "pf-rel-section" }, el("h2", { class: "pf-part", text: "Settings" }),
    el("p", { class: "pf-muted pf-small", text: "Bold where it is not the default. Places of files, lists, models' heads and secrets are changed in popfactory.toml itself." }),
    el("div", { class: "pf-tools" }, show, search), el("div", { class: "pf-set-scroll", tabindex: 0, role: "region", "aria-label": "Settings" }, tables), bar);
};
