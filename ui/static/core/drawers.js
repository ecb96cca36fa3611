/* Panels at the side that a narrow screen shows one at a time, over the page: a button opens one; Esc, its own button
   and a press beside it close it. */

import { button } from "./dom.js";

const CLASSES = ["pf-show-left", "pf-show-right", "pf-show-run"];
let opener = null;
let panel = null;

export const closeDrawers = () => {
  const open = CLASSES.some((name) => document.body.classList.contains(name));
  document.body.classList.remove(...CLASSES);
  if (open && panel?.contains(document.activeElement)) opener?.focus();
  opener = panel = null;
  return open;
};
const openDrawer = (name, selector) => {
  const from = document.activeElement;
  closeDrawers();
  document.body.classList.add(name);
  panel = document.querySelector(selector);
  opener = from;
  panel.tabIndex = -1;
  panel.focus();
};

export const opens = (label, title, name, selector, extra) => button(label, "", title, () => openDrawer(name, selector), extra);
export const closes = (extra) => button("Close", "Esc", "Back to the page", closeDrawers, extra);

document.addEventListener("pointerdown", (event) => { if (panel && !panel.contains(event.target) && !event.target.closest("dialog")) closeDrawers(); });
