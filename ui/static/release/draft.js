/* What would be released now, in a dialog: looked at before it is published. */

import { button, count, el, fill, openDialog, words } from "../core/dom.js";
import { mayStart } from "../core/jobs.js";
import { get } from "../core/net.js";
import { changesNode, sampleNode } from "./parts.js";

const sums = (found) => {
  const { difference, name, released, stands } = found;
  const left = Object.entries(found.left_out).map(([reason, number]) => `${count(number)} ${words(reason)}`).join(", ");
  const changed = difference && difference.added + difference.removed + difference.changed;
  return el("div", { class: "pf-rel-sums" },
    el("p", {}, el("b", { text: stands ? `${difference.old} is this very release already: nothing would be published.` : `release/${name} would have ${count(released)} rows` }), left ? `; left out: ${left}` : ""),
    ...found.outdated.map((line) => el("p", { class: "pf-warn", text: line })),
    difference ? null : el("p", { class: "pf-muted", text: "It is the first release: there is none to compare it with." }),
    difference && !stands && !changed ? el("p", { text: `Its rows are those of ${difference.old}; its name, licence or tars differ.` }) : null);
};

/* `publish()` starts the job; `closed()` is told when the dialog goes. */
export const openDraft = async (publish, closed) => {
  const body = el("div", { class: "pf-rel-draft", tabindex: 0, role: "region", "aria-label": "The draft" }, el("p", { class: "pf-muted", role: "status", text: "putting the rows together …" }));
  const go = button("Publish", "", "Write it to the run's release folder, as a job", async () => { dialog.close(); await publish(); }, "pf-primary");
  go.disabled = true;
  const dialog = openDialog("What would be released", el("h2", { class: "pf-part", text: "What would be released" }), body,
    el("div", { class: "pf-tools pf-dialog-end" }, go, button("Cancel", "Esc", "Publish nothing", () => dialog.close())));
  dialog.classList.add("pf-wide");
  dialog.addEventListener("close", closed);
  try {
    const found = await get("/api/release/draft");
    fill(body, sums(found),
      found.difference && !found.stands ? el("section", {}, el("h3", { class: "pf-part", text: "What differs" }), changesNode(found.difference)) : null,
      el("section", {}, el("h3", { class: "pf-part", text: `${count(found.rows.length)} of its ${count(found.released)} rows, at random` }), el("div", { class: "pf-rel-samples" }, ...found.rows.map(sampleNode))),
      el("section", {}, el("h3", { class: "pf-part", text: "Its card" }), el("pre", { class: "pf-log pf-rel-card", tabindex: 0, role: "region", "aria-label": "Card", text: found.card })));
    go.firstChild.textContent = `Publish ${found.name}`;
    go.disabled = found.stands || !mayStart();
  } catch (error) { fill(body, el("p", { class: "pf-bad", role: "alert", text: error.message })); }
};
