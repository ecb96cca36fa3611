/* A few pictures by several captioners side by side, and the choice of one for the run. */

import { button, clip, count, el, fill } from "../core/dom.js";
import { closeDrawers } from "../core/drawers.js";
import { get } from "../core/net.js";
import { notice, on, tell } from "../core/page.js";
import { flagChips, measures, picture, text } from "./card.js";
import { state, writeAddress } from "./state.js";

let shown = null;

export const openPreview = async (name) => {
  shown = await get(`/api/captions/previews/${encodeURIComponent(name)}`).catch((error) => { notice(error.message); return null; });
  state.preview = shown ? name : null;
  closeDrawers();
  writeAddress();
  tell("preview");
};
const close = () => { shown = null; state.preview = null; writeAddress(); tell("preview"); };

/* `useFor(captioner)` makes a column's captioner that of the run. */
export const previewPart = (useFor) => {
  const node = el("div", { class: "pf-cap-preview", hidden: true });
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0);
  on("preview", () => {
    node.hidden = !shown;
    if (!shown) { fill(node); return; }
    const columns = shown.captioners;
    const of = (card, place) => card.captions[place];
    const heads = columns.map((each, place) => {
      const rows = shown.cards.map((card) => of(card, place)).filter(Boolean);
      const flagged = rows.filter((row) => row.flags.some((flag) => flag !== "retried")).length;
      return el("th", { scope: "col" }, el("div", { text: `${each.model} · ${each.prompt_id}` }),
        el("div", { class: "pf-muted pf-small", text: `${mean(rows.map((row) => row.words || 0)).toFixed(0)} words on average · ${count(flagged)} flagged · ${count(rows.filter((row) => row.status !== "captioned").length)} failed` }),
        button("Use for the run", "", "Write this model and prompt to popfactory.toml", () => useFor(each)));
    });
    const lines = shown.cards.map((card) => el("tr", { "data-id": card.id },
      el("td", { class: "pf-cap-preview-picture" }, picture(card, () => { state.revealed.add(card.id); tell("preview"); }), el("div", { class: "pf-muted pf-small", text: clip(card.label, 60) })),
      ...columns.map((_, place) => {
        const row = of(card, place);
        if (!row) return el("td", { class: "pf-muted", text: card.state === "blocked" ? "kept out by a list" : "–" });
        const other = of(card, place === 0 ? 1 : 0);
        return el("td", {}, row.status === "captioned" ? text(row.caption, other && other.status === "captioned" ? other.caption : null)
          : el("p", { class: "pf-bad", text: `failed: ${row.reason}` }),
        el("div", { class: "pf-cap-by" }, ...flagChips(row), el("span", { class: "pf-muted pf-small", text: measures(row) })));
      })));
    fill(node,
      el("div", { class: "pf-bar-top" }, el("h2", { class: "pf-centroid-title", text: `${count(shown.cards.length)} pictures by ${columns.length} captioners` }),
        el("span", { class: "pf-muted pf-small", text: "marked: words the first one lacks; in the first, those the second lacks" }), button("Back to the captions", "Esc", "Close this view", close)),
      el("div", { class: "pf-cap-scroll", tabindex: 0, role: "region", "aria-label": "Captions side by side" },
        el("table", { class: "pf-cap-table" }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Picture" }), ...heads)), el("tbody", {}, ...lines))));
  });
  return node;
};
export const closePreview = () => { if (shown) close(); };
