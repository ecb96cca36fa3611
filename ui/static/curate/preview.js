/* One picture large, with all that is known of it. The keys of the grid go on working. */

import { button, clip, el, fill, openDialog, words } from "../core/dom.js";
import { curator } from "../core/memory.js";
import { get, thumbnail } from "../core/net.js";
import { notice, on } from "../core/page.js";
import { isCovered, move } from "./cursor.js";
import { factsOf, reasonOf, SIGNS, sourceOf, whyText } from "./facts.js";
import { rowOf, state } from "./state.js";
import { decide, undo, unsure } from "./verdicts.js";

let dialog = null;
let showing = null;

export const largeOf = (row) => {
  const covered = isCovered(row);
  if (row.state !== "ready") return sourceOf(row, covered);
  const by = row.blurred && !covered ? `?by=${encodeURIComponent(curator())}` : "";
  return `${thumbnail(`${row.sha256}.large`, covered)}${by}`;
};

const copy = async (text) => {
  try { await navigator.clipboard.writeText(text); notice("Copied."); } catch { notice("This browser does not let the page copy; mark the text and copy it."); }
};
const addressOf = (row) => {
  if (!row.address) return null;
  const ask = () => {
    const asking = openDialog("Open the source", el("h2", { class: "pf-part", text: "Open the source?" }),
      el("p", { text: "Its site will see this machine's address, and may show anything." }), el("code", { class: "pf-command", text: clip(row.address, 2000) }),
      el("div", { class: "pf-tools pf-dialog-end" },
        el("a", { class: "pf-button", href: row.address, target: "_blank", rel: "noreferrer noopener", text: "Open it", on: { click: () => asking.close() } }),
        button("Cancel", "Esc", "", () => asking.close())));
  };
  const link = row.link && /^https?:\/\//i.test(row.address);
  return el("div", { class: "pf-text pf-address" }, el("b", { text: "from " }), clip(row.address, 400), " ",
    button("Copy", "", "Copy the address", () => copy(row.address), "pf-small-button"), link ? button("Open…", "", "Open it in another tab", ask, "pf-small-button") : null);
};

const pane = (label, text) => (text ? el("div", { class: "pf-text" }, el("b", { text: `${label} ` }), clip(text, 20_000)) : null);
const draw = () => {
  const row = rowOf(state.cursor);
  if (!dialog || !row) return;
  const source = largeOf(row);
  const picture = source && row.state !== "gone" && row.state !== "blocked"
    ? el("img", { class: "pf-preview-picture", src: source, alt: row.caption ? clip(row.caption, 300) : "no caption yet", on: { error: (event) => event.target.replaceWith(el("p", { class: "pf-why", text: "can't be shown" })) } })
    : el("p", { class: "pf-why", text: reasonOf(row) });
  const story = el("ol", { class: "pf-story", "aria-label": "All that the run knows of it" }, el("li", { class: "pf-muted", text: "…" }));
  const place = `${state.shown.findIndex((each) => each.id === row.id) + 1} of ${state.shown.length}`;
  const mark = row.decision ? el("span", { class: `pf-mark-inline pf-mark-${row.decision}`, text: `${SIGNS[row.decision]} ${row.decision === "keep" ? "kept" : "rejected"}` }) : null;
  fill(dialog.querySelector(".pf-preview-body"),
    el("div", { class: "pf-preview-stage" }, picture),
    el("div", { class: "pf-preview-facts", tabindex: 0, role: "region", "aria-label": "What is known of it" },
      el("div", { class: "pf-tools" }, el("span", { class: "pf-muted", text: place }), mark, row.tag === "unsure" ? el("span", { class: "pf-mark-inline pf-mark-unsure", text: "? unsure" }) : null),
      el("div", { class: "pf-facts", text: factsOf(row).join(" · ") }),
      el("div", { text: whyText(row) }),
      ...Object.entries(row.differing || {}).map(([name, action]) => el("div", { class: "pf-muted", text: `${clip(name, 40)}: ${action}` })),
      pane("note", row.note), pane("caption", row.caption), pane("text", row.text), addressOf(row),
      el("div", { class: "pf-id", title: "its id", text: row.id }),
      el("h3", { class: "pf-part", text: "Its story" }), story));
  if (showing === row.id && draw.story) fill(story, ...draw.story.map(line));
  else tellStory(row, story);
};
const line = (text) => el("li", { class: text.startsWith("  ") ? "pf-muted" : "", text: clip(text.trim(), 600) });
const tellStory = async (row, story) => {
  showing = row.id;
  draw.story = null;
  try {
    const answer = await get(`/api/picture?of=${row.id}`);
    if (showing !== row.id) return;
    draw.story = answer.story;
    fill(story, ...answer.story.map(line));
  } catch (error) { fill(story, el("li", { class: "pf-muted", text: words(error.message) })); }
};

const DEEDS = [
  ["◂", "J", "Previous picture", () => move(-1)], ["▸", "K", "Next picture", () => move(1)],
  ["Keep", "A", "Keep it, and on to the next", () => decide("keep"), "pf-keep"], ["Reject", "R", "Reject it, and on to the next", () => decide("reject"), "pf-reject"],
  ["Unsure", "Q", "Mark it for a second look", unsure], ["Undo", "U", "Undo your last decision", undo],
];

export const openPreview = () => {
  if (dialog) { dialog.close(); return; }
  if (!rowOf(state.cursor)) return;
  const close = button("Close", "Space", "Back to the grid", () => dialog.close());
  close.autofocus = true;
  dialog = openDialog("Picture",
    el("div", { class: "pf-preview-body" }),
    el("div", { class: "pf-tools pf-dialog-end" }, ...DEEDS.map(([label, key, title, act, extra]) => button(label, key, title, act, extra)), el("span", { class: "pf-gap" }), close));
  dialog.classList.add("pf-wide", "pf-keys-go-on");
  dialog.addEventListener("close", () => { dialog = null; showing = null; });
  draw();
};
on("cursor", draw);
on("tile", (row) => { if (dialog && row && row.id === state.cursor) draw(); });
