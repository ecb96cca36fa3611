/* Keys: each page gives a table of them; `?` shows it. No key acts while somebody types. */

import { button, el, openDialog } from "./dom.js";
import { on } from "./page.js";

const typing = (target) => {
  if (target.isContentEditable) return true;
  if (target.tagName === "INPUT") return !["range", "checkbox", "button"].includes(target.type);
  return ["TEXTAREA", "SELECT"].includes(target.tagName);
};

let table = {};
const pressed = (event) => {
  if (event.key === "Escape" && document.querySelector("dialog[open]")) return; // it closes the dialog
  if (typing(event.target) || event.altKey || document.querySelector("dialog.pf-dialog[open]:not(.pf-keys-go-on)")) return;
  // Caps Lock changes nothing; some keyboards need Shift for a sign such as 0 or ?.
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const sliding = event.target.type === "range" && (key.startsWith("Arrow") || key === "Home" || key === "End");
  const shifted = event.shiftKey && (key.length > 1 || /^[a-z]$/.test(key));
  const name = `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shifted ? "Shift+" : ""}${key}`;
  const pressing = event.target.closest("button, a, summary") && (key === " " || key === "Enter");
  if (pressing || sliding || !Object.hasOwn(table, name)) return;
  event.preventDefault();
  table[name](event);
};

/* The page's keys. `listed`: [shown key, what it does]. `actions`: key, with "Ctrl+" and "Shift+" before it,
   to a function. */
export const keys = (listed, actions) => {
  const help = () => {
    const dialog = openDialog("Keys",
      el("h2", { class: "pf-part", text: "Keys" }),
      el("dl", {}, ...listed.flatMap(([key, meaning]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: meaning })])),
      el("p", { class: "pf-muted pf-small", text: "A click only moves the cursor. Nothing is ever deleted: a verdict is an event, and undo is another." }),
      button("Close", "Esc", "Close", () => dialog.close()));
  };
  if (!Object.keys(table).length) {
    document.addEventListener("keydown", pressed);
    on("help", () => table["?"]());
  }
  table = { "?": help, ...actions };
};
