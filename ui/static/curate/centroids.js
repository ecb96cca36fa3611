/* Left: the centroids, a list of any length of which only what is on the screen is in the page. */

import { choice, clip, count, el } from "../core/dom.js";
import { thumbnail } from "../core/net.js";
import { on, part } from "../core/page.js";
import { openCentroid } from "./opening.js";
import { state, writeAddress } from "./state.js";

const ROW_PX = 58;
const ORDERS = {
  id: (a, b) => Number(a.centroid) - Number(b.centroid),
  size: (a, b) => b.size - a.size,
  open: (a, b) => b.neighbours - b.kept - b.rejected - (a.neighbours - a.kept - a.rejected),
  selected: (a, b) => b.selected - a.selected,
};

export const listed = () => {
  const searched = state.search.trim().toLowerCase();
  const fits = searched.startsWith("#")
    ? (entry) => entry.centroid === searched.slice(1)
    : (entry) => entry.label.toLowerCase().includes(searched);
  return state.centroids.filter(fits).sort(ORDERS[state.centroidSort] || ORDERS.id);
};

export const step = (direction) => {
  const entries = listed();
  const here = entries.findIndex((entry) => entry.centroid === state.centroid);
  const next = entries[Math.max(0, Math.min(entries.length - 1, here + direction))];
  if (next && next.centroid !== state.centroid) openCentroid(next.centroid);
};

const rowNode = (item, index) => {
  const picture = item.exemplars[0];
  const row = el("div", {
    class: "pf-centroid", role: "option", id: `pf-centroid-${item.centroid}`, "data-centroid": item.centroid,
    "aria-selected": item.centroid === state.centroid ? "true" : "false", title: clip(item.label, 300),
    on: { click: () => openCentroid(item.centroid) },
  },
  picture ? el("img", { src: thumbnail(picture.sha256, picture.blurred), alt: "", width: 44, height: 44, decoding: "async" }) : el("span", { class: "pf-nopic" }),
  el("div", { class: "pf-centroid-text" },
    el("div", { class: "pf-label", text: clip(item.label, 120) }),
    el("div", { class: "pf-muted pf-counts" },
      el("span", { text: `#${item.centroid}` }),
      el("span", { title: "concept pictures in it", text: `${count(item.size)} pictures` }),
      el("span", { title: "neighbours found, of which selected", text: `${count(item.selected)}/${count(item.neighbours)}` }),
      item.kept ? el("span", { class: "pf-kept", title: "kept by people", text: `✓${count(item.kept)}` }) : null,
      item.rejected ? el("span", { class: "pf-rejected", title: "rejected by people", text: `✕${count(item.rejected)}` }) : null)));
  row.style.top = `${index * ROW_PX}px`;
  return row;
};

part("centroids", (host) => {
  let entries = [];
  const search = el("input", {
    type: "search", class: "pf-input", placeholder: "Label or #id", "aria-label": "Search centroids",
    on: { input: () => { state.search = search.value; writeAddress(); draw(); } },
  });
  const sort = choice({ id: "by number", size: "by size", open: "most open", selected: "most selected" }, "Order of centroids",
    (value) => { state.centroidSort = value; writeAddress(); draw(); });
  const inner = el("div", { class: "pf-virtual", role: "presentation" });
  const list = el("div", { class: "pf-list", role: "listbox", tabindex: 0, "aria-label": "Centroids", on: { scroll: () => paint() } }, inner);
  const total = el("div", { class: "pf-muted pf-foot", role: "status" });
  host.append(el("h2", { class: "pf-part", text: "Centroids" }), el("div", { class: "pf-tools" }, search, sort), list, total);
  const paint = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 4);
    const last = Math.min(entries.length, Math.ceil((list.scrollTop + (list.clientHeight || 600)) / ROW_PX) + 4);
    inner.replaceChildren(...entries.slice(first, last).map((item, offset) => rowNode(item, first + offset)));
  };
  const draw = () => {
    entries = listed();
    inner.style.height = `${entries.length * ROW_PX}px`;
    total.textContent = entries.length === state.centroids.length ? `${count(entries.length)} centroids` : `${count(entries.length)} of ${count(state.centroids.length)} centroids`;
    paint();
  };
  on("address", () => { search.value = state.search; sort.value = state.centroidSort; });
  on("centroids", draw);
  on("opened", () => {
    const index = entries.findIndex((item) => item.centroid === state.centroid);
    const top = index * ROW_PX;
    if (index >= 0 && (top < list.scrollTop || top + ROW_PX > list.scrollTop + list.clientHeight)) list.scrollTop = top - list.clientHeight / 2;
    paint();
  });
  new ResizeObserver(paint).observe(list);
});
