/* A note on a picture. */

import { button, el, openDialog } from "../core/dom.js";
import { note } from "./verdicts.js";

/* Ask for a line of text; `done` gets it. */
export const askText = (title, label, text, most, done) => {
  const area = el("textarea", { class: "pf-input pf-area", rows: 3, maxlength: most, placeholder: label, "aria-label": label });
  area.value = text || "";
  const save = () => { dialog.close(); done(area.value.trim()); };
  area.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); save(); } });
  const dialog = openDialog(title, el("h2", { class: "pf-part", text: title }), area,
    el("div", { class: "pf-tools pf-dialog-end" }, button("Save", "↵", "", save, "pf-primary"), button("Cancel", "Esc", "", () => dialog.close())));
  area.focus();
};

export const writeNote = (row) => askText("Note on this picture", "Note", row.note, 2000, (text) => note(row, row.tag || null, text || null));
