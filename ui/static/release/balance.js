/* Balance over the map: which concepts are under- and over-filled, each a sign of its own shape and colour. */

import { clip, count, el } from "../core/dom.js";
import { url } from "../core/net.js";

/* As STATES of ui/figures.py; what matters most is drawn last. */
const STATES = [["empty", "with nothing", "--pf-reject"], ["short", "with less than the quota", "--pf-warn"], ["filled", "with the quota", "--pf-keep"],
  ["over", "with more, kept by curators", "--pf-duplicate"], ["out", "left out", "--pf-soft"]];
const ORDER = [4, 2, 3, 1, 0];
const NEAR_PX = 14;

const sign = (context, state, x, y, radius) => {
  context.beginPath();
  if (state === 0) { // a ring
    context.arc(x, y, radius, 0, 6.2832);
    context.stroke();
  } else if (state === 1) { // a triangle, its point down
    context.moveTo(x - radius, y - radius);
    context.lineTo(x + radius, y - radius);
    context.lineTo(x, y + radius);
    context.fill();
  } else if (state === 3) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
  else {
    context.arc(x, y, state === 4 ? radius / 2 : radius, 0, 6.2832);
    context.fill();
  }
};

const mapNode = (found, told, say) => {
  const canvas = el("canvas", { class: "pf-rel-map", role: "img", "aria-label": `Map of the concepts: ${told.map(([, meaning, , number]) => `${count(number)} ${meaning}`).join(", ")}` });
  let drawn = [];
  const draw = () => {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const style = getComputedStyle(canvas);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.lineWidth = 2;
    const radius = Math.max(1.6, Math.min(6, 70 / Math.sqrt(found.points.length)));
    drawn = [];
    for (const state of ORDER) {
      context.fillStyle = context.strokeStyle = style.getPropertyValue(STATES[state][2]).trim();
      for (const point of found.points.filter((each) => each[5] === state)) {
        const [x, y] = [8 + point[1] * (width - 16), 8 + point[2] * (height - 16)];
        sign(context, state, x, y, radius);
        drawn.push([x, y, point]);
      }
    }
  };
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    let [best, least] = [null, NEAR_PX ** 2];
    for (const [x, y, point] of drawn) {
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  };
  canvas.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    canvas.style.cursor = point ? "pointer" : "";
    if (point) say(`centroid ${point[0]} has ${count(point[3])} of ${count(point[4])}; click to open it`);
  });
  canvas.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) location.assign(url(`/?centroid=${point[0]}`));
  });
  new ResizeObserver(draw).observe(canvas);
  return [canvas, draw];
};

const legendNode = (told) => {
  const marks = told.map(([, , , , place]) => [el("canvas", { width: 28, height: 28, "aria-hidden": "true" }), place]);
  const draw = () => {
    for (const [mark, place] of marks) {
      const context = mark.getContext("2d");
      context.clearRect(0, 0, 28, 28);
      context.fillStyle = context.strokeStyle = getComputedStyle(mark).getPropertyValue(STATES[place][2]).trim();
      context.lineWidth = 4;
      sign(context, place, 14, 14, 9);
    }
  };
  return [el("ul", { class: "pf-rel-legend" }, ...told.map(([, meaning, , number], at) => el("li", {}, marks[at][0], `${count(number)} ${meaning}`))), draw];
};

let repaint = () => {};
new MutationObserver(() => repaint()).observe(document.body, { attributes: true, attributeFilter: ["class"] }); // light and dark

export const balanceNode = (found) => {
  if (!found || !found.points.length) return null;
  const told = STATES.map(([name, meaning, ink], place) => [name, meaning, ink, found.counts[name], place]).filter(([, , , number]) => number);
  const said = el("p", { class: "pf-muted pf-small pf-rel-said", role: "status" });
  const [canvas, draw] = mapNode(found, told, (text) => { said.textContent = text; });
  const [legend, drawLegend] = legendNode(told);
  repaint = () => { draw(); drawLegend(); };
  requestAnimationFrame(repaint);
  return el("div", { class: "pf-rel-balance" }, canvas, legend, said);
};

export const overNode = (found) => (found && found.over.length
  ? el("details", { class: "pf-rel-over" }, el("summary", { text: `${count(found.counts.over)} with more than the quota` }),
    el("ul", {}, ...found.over.map((each) => el("li", { class: "pf-small" }, el("a", { class: "pf-link", href: url(`/?centroid=${each.centroid}`), text: `${each.centroid} ${clip(each.label, 60)}` }), ` ${count(each.selected)} of ${count(each.quota)}`)))) : null);
