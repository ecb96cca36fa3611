/* A verdict on all that is shown and undecided: one event, with the filter it was made on. */

import { button, count, el, openDialog } from "../core/dom.js";
import { filterText } from "./state.js";
import { decideRest, rest } from "./verdicts.js";

const ASK_ABOVE = 200;

export const askRest = (action) => {
  const number = rest().length;
  if (!number) return;
  if (number <= ASK_ABOVE) { decideRest(action); return; }
  const word = action === "keep" ? "Keep" : "Reject";
  const dialog = openDialog(`${word} the rest`,
    el("h2", { class: "pf-part", text: `${word} ${count(number)} pictures?` }),
    el("p", { text: "All that is shown here and that nobody decided on. It is one decision: undo takes it back as one." }),
    el("code", { class: "pf-command", text: filterText() }),
    el("div", { class: "pf-tools pf-dialog-end" },
      button(`${word} ${count(number)}`, "", "", () => { dialog.close(); decideRest(action); }, action === "keep" ? "pf-keep" : "pf-reject"),
      button("Cancel", "Esc", "Decide nothing", () => dialog.close())));
};
