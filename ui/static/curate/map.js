/* The map of the centroids: a point each where its concept lies. Geometry once, colours on change. */

import { button, choice, clip, el, fill } from "../core/dom.js";
import { remember, remembered } from "../core/memory.js";
import { on, page, tell } from "../core/page.js";
import { openCentroid } from "./opening.js";
import { entryOf, state, stateOf, writeAddress } from "./state.js";

const CORNERS = 32;
const EDGE = 12; // pixels around, so that the ring around a centroid at the rim is whole
/* What each choice of colours means: class of a dot, and its word. */
const LEGENDS = {
  state: [["open", "open"], ["begun", "begun"], ["done", "done"], ["out", "left out"]],
  yield: [["yield-none", "none"], ["yield-full", "all of the quota"]],
  aesthetic: [["aesthetic-low", "low"], ["aesthetic-high", "high"], ["line", "unknown"]],
  people: [["begun", "somebody has it open"], ["line", "nobody"]],
};
const COLOURS = { state: "by state", yield: "by share of quota", aesthetic: "by aesthetic score", people: "by who has it open" };

export const mapPanel = () => {
  const canvas = el("canvas", { class: "pf-map-canvas", role: "img", "aria-label": "Map of the centroids; the list holds the same" });
  const said = el("span", { class: "pf-muted pf-small pf-map-said" });
  let colours = remembered("popfactory.map.colours", "state");
  if (!Object.hasOwn(COLOURS, colours)) colours = "state";
  const say = (text) => fill(said, ...(text ? [text] : LEGENDS[colours].flatMap(([name, word]) => [el("i", { class: `pf-dot pf-dot-${name}` }), word])));
  let lassoing = false;
  const colour = choice(COLOURS, "Colours of the map", (value) => { colours = value; remember("popfactory.map.colours", value); say(""); draw(); });
  colour.value = colours;
  say("");
  const lasso = button("Lasso", "", "Draw around centroids to list only these; also Shift and drag", () => { lassoing = !lassoing; lasso.setAttribute("aria-pressed", String(lassoing)); }, "pf-small-button");
  const whole = button("All", "", "Show the whole map", () => { view = { x: 0, y: 0, scale: 1 }; draw(); }, "pf-small-button");
  const large = button("Large", "", "A large map, or a small one again", () => {
    panel.classList.toggle("pf-map-large");
    large.textContent = panel.classList.contains("pf-map-large") ? "Small" : "Large";
  }, "pf-small-button");
  const body = el("div", { class: "pf-map-body" }, el("div", { class: "pf-tools" }, colour, lasso, whole, large), canvas, said);
  const panel = el("details", { class: "pf-map", open: remembered("popfactory.map", "open") === "open" }, el("summary", { class: "pf-part", text: "Map" }), body);
  panel.addEventListener("toggle", () => { remember("popfactory.map", panel.open ? "open" : "closed"); draw(); });

  let view = { x: 0, y: 0, scale: 1 };
  let drawn = [];
  let size = [0, 0]; // asked for once a drawing: each look at a node's width may lay out the whole page
  const toScreen = ([x, y]) => {
    const [width, height] = size;
    return [(x - view.x) * view.scale * (width - 2 * EDGE) + EDGE, (y - view.y) * view.scale * (height - 2 * EDGE) + EDGE];
  };
  const toMap = (x, y) => {
    const [width, height] = size;
    return [(x - EDGE) / (width - 2 * EDGE) / view.scale + view.x, (y - EDGE) / (height - 2 * EDGE) / view.scale + view.y];
  };

  const draw = () => {
    if (!panel.open || !page.run) return;
    size = [canvas.clientWidth, canvas.clientHeight];
    const [width, height] = size;
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(canvas);
    const pick = (name) => style.getPropertyValue(name).trim();
    const inks = { open: pick("--pf-soft"), begun: pick("--pf-keep"), done: pick("--pf-in"), out: pick("--pf-reject"), line: pick("--pf-line"), text: pick("--pf-text") };
    const scored = state.centroids.map((entry) => entry.aesthetic).filter((value) => value !== null);
    const least = scored.reduce((low, value) => Math.min(low, value), Infinity);
    const span = scored.reduce((high, value) => Math.max(high, value), -Infinity) - least || 1;
    const ink = {
      state: (entry) => inks[stateOf(entry)],
      yield: (entry) => `hsl(205 80% ${Math.round(78 - 50 * Math.min(1, entry.selected / Math.max(1, entry.quota ?? page.run.quota)))}%)`,
      aesthetic: (entry) => (entry.aesthetic === null ? inks.line : `hsl(25 85% ${Math.round(80 - (50 * (entry.aesthetic - least)) / span)}%)`),
      people: (entry) => (state.claims[entry.centroid] ? inks.begun : inks.line),
    }[colours];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const radius = Math.max(1.3, Math.min(4, (view.scale * 60) / Math.sqrt(state.centroids.length + 1)));
    drawn = [];
    for (const entry of state.centroids) {
      const [x, y] = toScreen(entry.map);
      if (x < -5 || y < -5 || x > width + 5 || y > height + 5) continue;
      drawn.push([x, y, entry]);
      context.fillStyle = ink(entry);
      if (radius < 2) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius); // many, and too small to be round
      else {
        context.beginPath();
        context.arc(x, y, radius, 0, 6.2832);
        context.fill();
      }
    }
    const here = entryOf(state.centroid);
    if (here) {
      const [x, y] = toScreen(here.map);
      context.strokeStyle = inks.text;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, radius + 4, 0, 6.2832);
      context.stroke();
    }
    outline(context, state.lasso, inks.begun);
  };
  const outline = (context, corners, ink) => {
    if (corners.length < 2) return;
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    context.beginPath();
    corners.forEach((corner, index) => context[index ? "lineTo" : "moveTo"](...toScreen(corner)));
    context.closePath();
    context.stroke();
  };

  // ---------------------------------------------------------------- pointer

  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const nearest = (x, y, within = 12) => {
    let found = null;
    let least = within * within;
    for (const [px, py, entry] of drawn) {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; found = entry; }
    }
    return found;
  };
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    drag = { x, y, view: { ...view }, corners: event.shiftKey || lassoing ? [toMap(x, y)] : null, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!drag) {
      const entry = nearest(x, y);
      say(entry ? `#${entry.centroid} ${clip(entry.label, 60)}` : "");
      return;
    }
    drag.moved ||= Math.hypot(x - drag.x, y - drag.y) > 4;
    if (drag.corners) {
      drag.corners.push(toMap(x, y));
      state.lasso = drag.corners;
    } else if (drag.moved) {
      const [width, height] = size;
      view = { ...view, x: drag.view.x - (x - drag.x) / width / view.scale, y: drag.view.y - (y - drag.y) / height / view.scale };
    }
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    const ended = drag;
    drag = null;
    if (!ended) return;
    if (ended.corners) {
      const every = Math.max(1, Math.ceil(ended.corners.length / CORNERS));
      state.lasso = ended.moved ? ended.corners.filter((_, index) => index % every === 0).slice(0, CORNERS) : [];
      lassoing = false;
      lasso.setAttribute("aria-pressed", "false");
      writeAddress();
      tell("centroids");
      say(state.lasso.length ? "The list holds those inside." : "");
    } else if (!ended.moved) {
      const entry = nearest(x, y);
      if (entry) openCentroid(entry.centroid);
    }
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = at(event);
    const [mx, my] = toMap(x, y);
    const scale = Math.max(1, Math.min(60, view.scale * (event.deltaY < 0 ? 1.25 : 0.8)));
    view.scale = scale;
    const [nx, ny] = toMap(x, y);
    view = scale === 1 ? { x: 0, y: 0, scale } : { x: view.x + mx - nx, y: view.y + my - ny, scale };
    draw();
  }, { passive: false });

  let due = false;
  const drawSoon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  };
  on("centroids", drawSoon);
  // The ring and the colours wait for the pictures and the keys.
  let later = null;
  for (const topic of ["opened", "counts"]) on(topic, () => { later ??= setTimeout(() => { later = null; drawSoon(); }, 400); });
  on("run", () => { panel.hidden = !page.run.stages.centroids; });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(draw, 50));
  return panel;
};
