/* Distributions as plain SVG. Colours come from the style sheet. */

import { count, el } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 92;
const svg = (tag, options = {}, ...children) => {
  const node = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(options)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

export const short = (value) => {
  if (Number.isInteger(value) || Math.abs(value) >= 100) return count(Math.round(value));
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
};

/* `values` as ui/figures.py gives a distribution; `limit` draws a line at a threshold. */
export const histogram = (label, values, limit = null) => {
  if (!values) return el("figure", { class: "pf-chart" }, el("figcaption", { text: label }), el("p", { class: "pf-muted", text: "nothing known" }));
  const { low, high, counts } = values;
  const top = Math.max(1, ...counts);
  const step = WIDTH / counts.length;
  const span = (high - low) / counts.length;
  const at = (value) => ((value - low + (values.whole ? 0.5 : 0)) / (high - low)) * WIDTH; // a whole number's bar begins at it
  const range = (from) => (values.whole && span === 1 ? short(from) : `${short(from)} to ${short(values.whole ? from + span - 1 : from + span)}`);
  const bars = counts.map((number, place) => {
    const height = number ? Math.max(2, (number / top) * HEIGHT) : 0;
    const bar = svg("rect", { x: place * step + 0.5, y: HEIGHT - height, width: Math.max(1, step - 1), height, class: "pf-chart-bar" });
    bar.append(svg("title"));
    bar.firstChild.textContent = `${range(low + place * span)}: ${count(number)}`;
    return bar;
  });
  const line = limit !== null && limit > low && limit < high ? [svg("line", { x1: at(limit), x2: at(limit), y1: 0, y2: HEIGHT, class: "pf-chart-limit" })] : [];
  const middle = svg("line", { x1: at(values.p50), x2: at(values.p50), y1: 0, y2: HEIGHT, class: "pf-chart-middle" });
  const said = `half at most ${short(values.p50)}; 5 to 95 % within ${short(values.p5)} and ${short(values.p95)}`;
  return el("figure", { class: "pf-chart" }, el("figcaption", { text: label }),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${said}` }, ...bars, middle, ...line),
    el("div", { class: "pf-chart-axis" }, el("span", { text: short(low) }), el("span", { class: "pf-chart-said", text: said }), el("span", { text: short(values.most) })),
    el("div", { class: "pf-muted pf-small", text: [limit !== null ? `limit ${short(limit)}` : "", values.unknown ? `${count(values.unknown)} unknown` : ""].filter(Boolean).join(" · ") }));
};
