/* Nodes of the page.

   Text from a pool is hostile: everything on the screen is made by el(), which sets textContent and
   attributes, never markup. */

const COPIED_MS = 2000;

export const el = (tag, options = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "class") node.className = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(present));
  return node;
};
export const fill = (node, ...children) => node.replaceChildren(...children.filter(present));
const present = (child) => child !== null && child !== undefined && child !== false;

/* A key as it is shown; what is given is the usual one, and `caps` has those that the curator changed. */
export const caps = new Map();
export const cap = (key) => el("kbd", { "data-key": key, text: caps.get(key) ?? key });
export const button = (label, key, title, action, extra = "") =>
  el("button", { type: "button", class: `pf-button ${extra}`, title, on: { click: action } }, label, key ? cap(key) : null);

export const copyButton = (textOf) => {
  const node = button("Copy", "", "Copy the command", async () => {
    try { await navigator.clipboard.writeText(textOf()); node.textContent = "Copied"; } catch { node.textContent = "Mark and copy it"; }
    setTimeout(() => { node.textContent = "Copy"; }, COPIED_MS);
  }, "pf-small-button");
  return node;
};

/* Do what makes a node's buttons anew, and leave the keyboard on the one it was on. */
export const keepingFocus = (node, change) => {
  const here = document.activeElement;
  const name = node.contains(here) && here.matches("button, [tabindex]") ? here.getAttribute("aria-label") || here.textContent : null;
  change();
  if (name === null) return;
  [...node.querySelectorAll("button, [tabindex]")].find((each) => (each.getAttribute("aria-label") || each.textContent) === name)?.focus();
};

export const choice = (options, label, change) => {
  const select = el("select", { class: "pf-input pf-choice", "aria-label": label, on: { change: () => { change(select.value); select.blur(); } } },
    ...Object.entries(options).map(([value, text]) => el("option", { value, text })));
  return select;
};

/* A dialog of its own, over everything; it takes the focus and gives it back. */
export const openDialog = (label, ...children) => {
  const dialog = el("dialog", { class: "pf-dialog", "aria-label": label }, ...children);
  dialog.addEventListener("close", () => dialog.remove());
  (document.querySelector(".gradio-container") || document.body).append(dialog);
  dialog.showModal();
  return dialog;
};

// ------------------------------------------------------------------ how values are written

/* Signs that turn the direction of what follows, beyond the text they came in: they are not shown. */
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
export const clip = (text, length) => {
  const shown = (text || "").replace(TURNING, "");
  return shown.length > length ? `${shown.slice(0, length)}…` : shown;
};
const grouped = new Intl.NumberFormat("en"); // made once: toLocaleString makes one each time
export const count = (number) => grouped.format(number);
export const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
export const words = (name) => String(name).replaceAll("_", " ").replace(TURNING, "");
export const seconds = (value) => {
  if (value === null || value === undefined) return "";
  if (value < 90) return `${Math.max(1, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
};
export const when = (time) => new Date(time * 1000).toLocaleString("en-GB",
  { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
