/* Keys: each page gives a table of them; `?` shows those in force, and changes them. No key acts while somebody types. */

import { button, cap, caps, el, openDialog } from "./dom.js";
import { curator, forget, remember, remembered } from "./memory.js";
import { on } from "./page.js";

const FIXED = ["?", "Escape"];
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "␣", Enter: "↵", Delete: "Del", Escape: "Esc" };

/* How a key is shown: "Shift+a" as ⇧A. */
const shown = (name) => {
  const parts = name.split("+");
  const key = parts.pop() || "+";
  const sign = SIGNS[key] || (key.length === 1 ? key.toUpperCase() : key);
  return parts.map((part) => (part === "Shift" ? "⇧" : `${part}+`)).join("") + sign;
};
const movable = (name) => !FIXED.includes(name) && !name.startsWith("Ctrl+");
/* One sign, or a letter with Shift: what every keyboard has and no browser takes. */
const usable = (name) => !FIXED.includes(name) && (/^\S$/.test(name) || /^Shift\+[a-z]$/.test(name));

const typing = (target) => {
  if (target.isContentEditable) return true;
  if (target.tagName === "INPUT") return !["range", "checkbox", "button"].includes(target.type);
  return ["TEXTAREA", "SELECT"].includes(target.tagName);
};
const nameOf = (event) => {
  // Caps Lock changes nothing; some keyboards need Shift for a sign such as 0 or ?.
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shifted = event.shiftKey && (key.length > 1 || /^[a-z]$/.test(key));
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shifted ? "Shift+" : ""}${key}`;
};

// ------------------------------------------------------------------ the page's keys, and those the curator changed

let page = "";
let listed = [];
let table = {}; // usual key to what it does
let moved = {}; // usual key to the curator's own
let inForce = new Map(); // key to the usual one

const place = () => `popfactory.keys.${page}.${curator()}`;
const readMoved = () => {
  try {
    const given = Object.entries(JSON.parse(remembered(place(), "{}")));
    return Object.fromEntries(given.filter(([usual, key]) => Object.hasOwn(table, usual) && movable(usual) && usable(key)));
  } catch { return {}; }
};
const apply = () => {
  inForce = new Map(Object.keys(table).map((usual) => [moved[usual] ?? usual, usual]));
  caps.clear();
  for (const [usual, key] of Object.entries(moved)) caps.set(shown(usual), shown(key));
  for (const node of document.querySelectorAll("kbd[data-key]")) node.textContent = caps.get(node.dataset.key) ?? node.dataset.key;
};
const meaningOf = (usual) => (listed.find(([names, , fixed]) => (Array.isArray(names) ? names : fixed || []).includes(usual)) || [[], shown(usual)])[1];
/* Give a deed another key; why it can't be, or nothing. */
const move = (usual, key) => {
  if (!usable(key)) return `${shown(key)} can't be used: take a letter, a digit or a sign, with Shift or without.`;
  const holder = inForce.get(key);
  if (holder !== undefined && holder !== usual) return `${shown(key)} is taken: ${meaningOf(holder)}.`;
  moved = { ...moved, [usual]: key };
  if (key === usual) delete moved[usual];
  remember(place(), JSON.stringify(moved));
  apply();
  return "";
};

const pressed = (event) => {
  if (event.key === "Escape" && document.querySelector("dialog[open]")) return; // it closes the dialog
  if (typing(event.target) || event.altKey || document.querySelector("dialog.pf-dialog[open]:not(.pf-keys-go-on)")) return;
  const name = nameOf(event);
  const sliding = event.target.type === "range" && (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End");
  const pressing = event.target.closest("button, a, summary") && (name === " " || name === "Enter");
  const usual = inForce.get(name);
  if (pressing || sliding || usual === undefined) return;
  event.preventDefault();
  table[usual](event);
};

// ------------------------------------------------------------------ the list of keys

/* The keys of this page, each to be changed; on Setup those of another. */
const help = () => {
  let waiting = null; // the usual key of the one that is being changed
  const said = el("p", { class: "pf-muted pf-small", role: "status" });
  const say = (text) => { said.textContent = text || "Press a key here to give it another; the browser keeps it under your name."; };
  const stop = (text) => {
    if (waiting) waiting.node.classList.remove("pf-key-waiting");
    waiting = null;
    say(text);
  };
  const keyNode = (usual) => (movable(usual)
    ? el("button", { type: "button", class: "pf-key", title: "Give it another key", on: { click: (event) => {
      stop("");
      waiting = { usual, node: event.currentTarget };
      waiting.node.classList.add("pf-key-waiting");
      said.textContent = `Press the new key for “${meaningOf(usual)}”; Esc leaves it as it is.`;
    } } }, cap(shown(usual)))
    : cap(shown(usual)));
  const row = ([names, meaning]) => [
    el("dt", {}, ...(Array.isArray(names) ? names.map(keyNode) : [el("kbd", { text: names })])),
    el("dd", { text: meaning })];
  const usually = button("The usual keys", "", "Forget all that was changed", () => { moved = {}; forget(place()); apply(); stop("These are the usual keys."); });
  const dialog = openDialog("Keys",
    el("h2", { class: "pf-part", text: "Keys" }),
    el("dl", {}, ...listed.flatMap(row)),
    said,
    el("p", { class: "pf-muted pf-small", text: "A click only moves the cursor. Nothing is ever deleted: a verdict is an event, and undo is another." }),
    el("div", { class: "pf-tools pf-dialog-end" }, button("Close", "Esc", "Close", () => dialog.close()), usually));
  say("");
  dialog.addEventListener("keydown", (event) => {
    if (!waiting || ["Shift", "Control", "Alt", "Meta", "CapsLock", "Tab"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const { usual } = waiting;
    const refused = event.key === "Escape" ? "Left as it was." : move(usual, nameOf(event));
    stop(refused || `${shown(moved[usual] ?? usual)}: ${meaningOf(usual)}.`);
  });
  return dialog;
};

/* The keys of a page as they are in force under the curator's name: [keys as they are shown, what they do, whether any
   of them was changed]. */
export const inForceOn = (name, rows) => {
  take(name, rows, namesOf(rows));
  return rows.map(([names, meaning]) => (Array.isArray(names)
    ? [names.map((usual) => shown(moved[usual] ?? usual)).join(" "), meaning, names.some((usual) => usual in moved)]
    : [names, meaning, false]));
};
/* The list of a page's keys, to change them from another page. */
export const changeKeysOf = (name, rows, done) => {
  take(name, rows, namesOf(rows));
  help().addEventListener("close", done);
};
const namesOf = (rows) => Object.fromEntries(rows.flatMap(([names, , fixed]) => (Array.isArray(names) ? names : fixed || [])).map((usual) => [usual, () => {}]));
const take = (name, rows, actions) => {
  page = name;
  listed = rows;
  table = actions;
  moved = readMoved();
  apply();
};

/* The page's keys. `rows`: [usual keys, what they do], or a text in place of keys that can't be changed, then these keys. `actions`:
   key, with "Ctrl+" and "Shift+" before it, to a function. */
export const keys = (name, rows, actions) => {
  if (!Object.keys(table).length) {
    document.addEventListener("keydown", pressed);
    on("help", help);
  }
  take(name, rows, { ...actions, "?": help });
};
