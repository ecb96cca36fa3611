/* Saved views: a name for the address, kept in the run; and the one this browser starts with. */

import { button, clip, el, fill } from "../core/dom.js";
import { curator, remember, remembered } from "../core/memory.js";
import { get, post } from "../core/net.js";
import { notice, on } from "../core/page.js";

const START = "popfactory.start";
export const startView = () => remembered(START, "");

export const viewsPanel = () => {
  const name = el("input", { class: "pf-input", maxlength: 80, placeholder: "name of this view", "aria-label": "Name of this view" });
  const shared = el("input", { type: "checkbox", id: "pf-view-shared" });
  const list = el("ul", { class: "pf-views" });
  const draw = async () => {
    const { views } = await get(`/api/views?curator=${encodeURIComponent(curator())}`);
    fill(list, ...views.map((view) => el("li", {},
      el("a", { href: `?${view.query}`, text: clip(view.name, 60), title: view.owner === curator() ? "" : `of ${clip(view.owner, 40)}` }),
      view.shared ? el("span", { class: "pf-muted pf-small", text: view.owner === curator() ? "shared" : clip(view.owner, 20) }) : null,
      el("span", { class: "pf-gap" }),
      el("button", { type: "button", class: "pf-link", "aria-pressed": startView() === view.query ? "true" : "false", text: startView() === view.query ? "starts here" : "start here",
        on: { click: () => { remember(START, startView() === view.query ? "" : view.query); draw(); } } }),
      view.owner === curator() ? el("button", { type: "button", class: "pf-off", title: `Delete “${clip(view.name, 60)}”`, "aria-label": `Delete ${clip(view.name, 60)}`, text: "×",
        on: { click: () => change("/api/views/delete", { name: view.name }) } }) : null)));
  };
  const change = async (path, body) => {
    try {
      await post(path, { curator: curator(), ...body });
      await draw();
    } catch (error) { notice(error.message); }
  };
  const save = async () => {
    if (!name.value.trim()) { name.focus(); return; }
    await change("/api/views", { name: name.value.trim(), query: location.search.slice(1), shared: shared.checked });
    name.value = "";
  };
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") save(); });
  on("run", () => { draw().catch((error) => notice(error.message)); });
  return el("section", { class: "pf-views-panel" }, el("h2", { class: "pf-part", text: "Saved views" }), list,
    el("div", { class: "pf-tools" }, name, button("Save", "", "Keep this address under a name", save)),
    el("label", { class: "pf-check pf-muted pf-small" }, shared, "other curators see it"));
};
