/* Left: the centroids, a list of any length of which only what is on the screen is in the page. */

import { button, choice, clip, count, el, fill } from "../core/dom.js";
import { closes } from "../core/drawers.js";
import { get, post, thumbnail } from "../core/net.js";
import { notice, on, page, part, tell } from "../core/page.js";
import { mapPanel } from "./map.js";
import { foresee, openCentroid, openSearch } from "./opening.js";
import { CENTROID_STATES, state, stateOf, writeAddress } from "./state.js";

const ROW_PX = 60;
const LARGEST_PICTURE = 2_800_000;
const quotaOf = (entry) => entry.quota ?? page.run.quota;
const share = (entry) => (quotaOf(entry) ? Math.min(1, entry.selected / quotaOf(entry)) : 1);
const ORDERS = {
  id: (a, b) => Number(a.centroid) - Number(b.centroid),
  size: (a, b) => b.size - a.size,
  open: (a, b) => b.neighbours - b.kept - b.rejected - (a.neighbours - a.kept - a.rejected),
  selected: (a, b) => b.selected - a.selected,
  short: (a, b) => share(a) - share(b) || Number(a.centroid) - Number(b.centroid),
  disputed: (a, b) => b.disputed - a.disputed || Number(a.centroid) - Number(b.centroid),
  label: (a, b) => a.label.localeCompare(b.label),
};
const SORTS = { id: "by number", label: "by label", size: "largest", open: "most open", selected: "most selected", short: "least filled", disputed: "least agreed on", similar: "like the open one" };
const ranked = () => state.ranking !== null && ["meaning", "similar"].includes(state.centroidSort.split(":")[0]);

const inside = (corners, [x, y]) => {
  let within = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
    const [ax, ay] = corners[i];
    const [bx, by] = corners[j];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
};

let order = null; // worked out once: it stays as it is while one decides
export const listed = () => (order ??= arranged());
const arranged = () => {
  const searched = state.search.trim().toLowerCase();
  const byMeaning = ranked() && state.centroidSort.startsWith("meaning");
  let entries = state.centroids;
  if (state.lasso.length > 2) entries = entries.filter((entry) => inside(state.lasso, entry.map));
  if (searched.startsWith("#")) entries = entries.filter((entry) => entry.centroid === searched.slice(1));
  else if (searched && !byMeaning) entries = entries.filter((entry) => entry.label.toLowerCase().includes(searched));
  if (ranked()) return [...entries].sort((a, b) => (state.ranking.get(b.centroid) ?? -2) - (state.ranking.get(a.centroid) ?? -2));
  return [...entries].sort(ORDERS[state.centroidSort] || ORDERS.id);
};

const isOpen = (entry) => !entry.state && !state.claims[entry.centroid];
const following = (entries, direction) => {
  const here = entries.findIndex((entry) => entry.centroid === state.centroid);
  const onwards = direction > 0 ? entries.slice(here + 1) : entries.slice(0, Math.max(0, here)).reverse();
  return onwards.find(isOpen) || null;
};
/* The next or previous centroid that is open and nobody else has before them. */
export const step = (direction) => {
  const next = following(listed(), direction);
  if (next) openCentroid(next.centroid);
  else notice(direction > 0 ? "No open centroid after this one, in this order." : "No open centroid before this one, in this order.");
};

/* Order by likeness: to words, to a picture, or to a centroid. */
const rank = async (like, sort) => {
  try {
    const answer = await get(`/api/ranking?like=${encodeURIComponent(like)}`);
    state.ranking = new Map(answer.centroids.map((centroid, place) => [centroid, answer.similarities[place]]));
    state.centroidSort = sort;
    notice("");
  } catch (error) {
    state.ranking = null;
    notice(error.message);
  }
  writeAddress();
  tell("centroids");
};
/* The order that the address asks for, where it takes a question. */
export const restoreRanking = async () => {
  const [kind, number] = state.centroidSort.split(":");
  if (kind === "meaning" && state.search) await rank(`text:${state.search}`, "meaning");
  else if (kind === "similar" && number) await rank(`centroid:${number}`, state.centroidSort);
};

const rowNode = (item, index) => {
  const picture = item.exemplars[0];
  const kind = stateOf(item);
  const [sign, meaning] = CENTROID_STATES[kind];
  const who = state.claims[item.centroid];
  const filled = el("span", { class: "pf-yield-fill" });
  filled.style.width = `${share(item) * 100}%`;
  const row = el("div", {
    class: `pf-centroid pf-centroid-${kind}`, role: "option", id: `pf-centroid-${item.centroid}`, "data-centroid": item.centroid,
    "aria-selected": item.centroid === state.centroid && state.like === null ? "true" : "false", title: clip(item.label, 300),
    on: { click: () => openCentroid(item.centroid) },
  },
  picture ? el("img", { src: thumbnail(picture.sha256, picture.blurred), alt: "", width: 44, height: 44, decoding: "async" }) : el("span", { class: "pf-nopic" }),
  el("div", { class: "pf-centroid-text" },
    el("div", { class: "pf-name" }, el("span", { class: `pf-sign pf-sign-${kind}`, title: item.by ? `${meaning}, by ${clip(item.by, 40)}` : meaning, text: sign }),
      el("span", { class: "pf-label", text: clip(item.label, 120) })),
    el("div", { class: "pf-muted pf-counts" },
      el("span", { text: `#${item.centroid}` }),
      el("span", { title: `${count(item.size)} concept pictures; selected of those found`, text: `${count(item.selected)}/${count(item.neighbours)}` }),
      item.kept ? el("span", { class: "pf-kept", title: "kept by people", text: `✓${count(item.kept)}` }) : null,
      item.rejected ? el("span", { class: "pf-rejected", title: "rejected by people", text: `✕${count(item.rejected)}` }) : null,
      ranked() && state.ranking.has(item.centroid) ? el("span", { title: "similarity", text: state.ranking.get(item.centroid).toFixed(2) }) : null,
      item.disputed ? el("span", { title: "pictures on which curators differ", text: `≠${count(item.disputed)}` }) : null,
      item.added_by ? el("span", { class: "pf-added", title: `added by ${clip(item.added_by, 40)}`, text: "✚ added" }) : null,
      who ? el("span", { class: "pf-who", title: `${clip(who, 40)} has it open`, text: clip(who, 12) }) : null),
    el("span", { class: "pf-yield", title: `${count(item.selected)} selected of a quota of ${count(quotaOf(item))}` }, filled)));
  row.style.top = `${index * ROW_PX}px`;
  return row;
};

const pictureGiven = (done) => {
  const input = el("input", { type: "file", accept: "image/*", hidden: true, "aria-hidden": "true", tabindex: -1, on: { change: () => {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    if (file.size > LARGEST_PICTURE) { notice("This picture is over 2.8 MB: give a smaller copy."); return; }
    const reader = new FileReader();
    reader.addEventListener("load", async () => {
      try {
        done((await post("/api/search/picture", { picture: String(reader.result).split(",")[1] || "" })).like);
      } catch (error) { notice(error.message); }
    });
    reader.readAsDataURL(file);
  } } });
  return input;
};

part("centroids", (host) => {
  let entries = [];
  const search = el("input", {
    type: "search", class: "pf-input", placeholder: "Label, #id, or words ↵", "aria-label": "Search centroids",
    on: {
      input: () => {
        state.search = search.value;
        if (state.centroidSort === "meaning") Object.assign(state, { centroidSort: "id", ranking: null });
        writeAddress();
        draw();
      },
      keydown: (event) => { if (event.key === "Enter" && words()) byMeaning(); },
    },
  });
  const words = () => { const text = state.search.trim(); return text.startsWith("#") ? "" : text; };
  const byMeaning = () => (words() ? rank(`text:${words()}`, "meaning") : search.focus());
  const sort = choice(SORTS, "Order of centroids", (value) => {
    if (value === "similar") { rank(`centroid:${state.centroid}`, `similar:${state.centroid}`); return; }
    Object.assign(state, { centroidSort: value, ranking: null });
    writeAddress();
    draw();
  });
  const meaning = button("By meaning", "", "Order the centroids by likeness to these words", byMeaning, "pf-small-button");
  const pool = button("In the pool", "", "Search the pool for these words", () => (words() ? openSearch(`text:${words()}`) : search.focus()), "pf-small-button");
  const file = pictureGiven((like) => openSearch(like));
  const picture = button("Picture…", "", "Search the pool for a picture like one of yours", () => file.click(), "pf-small-button");
  const asks = [meaning, pool, picture];
  const advice = el("p", { class: "pf-muted pf-small pf-advice", hidden: true });
  const inner = el("div", { class: "pf-virtual", role: "presentation" });
  const list = el("div", { class: "pf-list", role: "listbox", tabindex: 0, "aria-label": "Centroids", on: { scroll: () => paint(), keydown: (event) => walk(event) } }, inner);
  const total = el("span", { role: "status" });
  const whole = el("button", { type: "button", class: "pf-link", text: "clear the lasso", hidden: true, on: { click: () => { state.lasso = []; writeAddress(); tell("centroids"); } } });
  host.append(
    el("div", { class: "pf-tools pf-centroid-head" }, el("h2", { class: "pf-part", text: "Centroids" }), el("span", { class: "pf-gap" }), sort, closes("pf-close-left")),
    el("div", { class: "pf-tools" }, search), el("div", { class: "pf-tools pf-asks" }, ...asks, file), advice,
    mapPanel(), list, el("div", { class: "pf-muted pf-foot" }, total, whole));

  const paint = () => {
    const height = list.clientHeight || 600;
    const top = Math.max(0, Math.min(list.scrollTop, entries.length * ROW_PX - height)); // a shorter list scrolls back
    const first = Math.max(0, Math.floor(top / ROW_PX) - 4);
    const last = Math.min(entries.length, Math.ceil((top + height) / ROW_PX) + 4);
    inner.replaceChildren(...entries.slice(first, last).map((item, offset) => rowNode(item, first + offset)));
    const here = document.getElementById(`pf-centroid-${state.centroid}`);
    if (here) list.setAttribute("aria-activedescendant", here.id);
    else list.removeAttribute("aria-activedescendant");
  };
  const draw = () => {
    if (!page.run) return;
    order = null;
    entries = listed();
    inner.style.height = `${entries.length * ROW_PX}px`;
    total.textContent = entries.length === state.centroids.length ? `${count(entries.length)} centroids` : `${count(entries.length)} of ${count(state.centroids.length)} centroids`;
    whole.hidden = state.lasso.length < 3;
    if (![...sort.options].some((option) => option.value === state.centroidSort)) sort.selectedIndex = state.centroidSort.startsWith("similar") ? SORTS.length : -1;
    else sort.value = state.centroidSort;
    paint();
  };
  // In the list itself the arrows walk the centroids.
  const walk = (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!steps || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const next = entries[entries.findIndex((entry) => entry.centroid === state.centroid) + steps];
    if (next) openCentroid(next.centroid);
  };
  on("address", () => { search.value = state.search; sort.value = state.centroidSort; });
  on("centroids", draw);
  on("counts", paint); // the order stays as it is while one works in it
  on("opened", () => {
    const index = entries.findIndex((item) => item.centroid === state.centroid);
    const top = index * ROW_PX;
    if (index >= 0 && (top < list.scrollTop || top + ROW_PX > list.scrollTop + list.clientHeight)) list.scrollTop = top - list.clientHeight / 2;
    paint();
  });
  on("shown", () => { const next = following(listed(), 1); if (next) foresee(next.centroid); });
  on("server", (server) => {
    asks.forEach((each) => { each.disabled = !server.ready; each.hidden = !server.ready; });
    fill(advice, server.ready ? null : server.advice);
    advice.hidden = server.ready;
  });
  asks.forEach((each) => { each.disabled = true; });
  new ResizeObserver(paint).observe(list);
});
