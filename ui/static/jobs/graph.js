/* How fast the newest stage of a job went, over its time; a span that is dragged over, or come to by keys, is shown large. */

import { button, count, el, fill, seconds } from "../core/dom.js";
import { get } from "../core/net.js";
import { notice } from "../core/page.js";
import * as router from "../core/router.js";

const WRITTEN_S = 0.2;
const WIDTH = 600;
const HEIGHT = 90;
const LEAST_DRAG = 0.01; // of the width: less is a click
const SHORTEST_S = 2;
const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

/* Units a second between one point and the next, each with when it was. */
const ratesOf = (points) => {
  // What lies closer together than the journal is written tells nothing of the rate: a line that was said in between.
  const apart = points.filter(([time], place) => place === 0 || time - points[place - 1][0] > WRITTEN_S);
  return apart.slice(1).map(([time, done], index) => [time, Math.max(0, done - apart[index][1]) / (time - apart[index][0])]);
};
/* "120..360", seconds since the stage began. */
const spanGiven = () => {
  const [from, to] = (router.query().get("span") || "").split("..").map(Number);
  return to > from && from >= 0 ? [from, to] : null;
};

export const graphPart = () => {
  let job = null;
  let unit = "";
  let whole = []; // points of all of the stage
  let points = []; // of what is shown
  let span = spanGiven(); // of the stage's seconds; null shows all
  let dragged = null; // from where to where, as shares of the width
  const said = el("span");
  const all = button("All of it", "", "Show the whole time again", () => zoom(null), "pf-small-button");
  const line = svg("polyline", {});
  const mark = svg("rect", { y: 0, height: HEIGHT, class: "pf-graph-mark", visibility: "hidden" });
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "pf-graph", role: "img", tabindex: 0, preserveAspectRatio: "none" });
  drawing.append(line, mark);
  const axis = el("div", { class: "pf-graph-axis pf-muted pf-small" });
  const node = el("figure", { class: "pf-throughput" },
    el("figcaption", { class: "pf-muted pf-small pf-tools" }, said, all), drawing, axis);

  const began = () => whole[0][0];
  const took = () => whole[whole.length - 1][0] - began();
  const shown = () => span || [0, took()];
  const draw = () => {
    const [from, to] = shown();
    const rates = ratesOf(points);
    const top = Math.max(1e-9, ...rates.map(([, rate]) => rate));
    const x = (time) => ((time - began() - from) / Math.max(1e-3, to - from)) * WIDTH;
    line.setAttribute("points", rates.map(([time, rate]) => `${x(time).toFixed(1)},${(HEIGHT - 4 - (rate / top) * (HEIGHT - 8)).toFixed(1)}`).join(" "));
    said.textContent = rates.length ? `Throughput: at most ${top >= 10 ? count(Math.round(top)) : top.toFixed(1)} ${unit} a second over ${seconds(to - from)}.` : "Throughput: nothing was done in this time.";
    drawing.setAttribute("aria-label", `${said.textContent} Drag over a part to see it large, or press + − ← →; Escape shows all.`);
    all.hidden = !span;
    fill(axis, el("span", { text: from < 1 ? "start" : `after ${seconds(from)}` }), span ? null : el("span", { text: "drag over a part to see it large" }), el("span", { text: `after ${seconds(to)}` }));
  };
  const zoom = async (to) => {
    span = to && [Math.max(0, to[0]), Math.min(took(), to[1])];
    if (span && span[1] - span[0] < Math.min(SHORTEST_S, took())) span = null;
    router.write(["span"], span ? [["span", span.map((each) => each.toFixed(1)).join("..")]] : []);
    await load();
  };
  const load = async () => {
    points = whole;
    if (span) {
      const [since, until] = span.map((each) => began() + each);
      try { points = (await get(`/api/jobs/${job}/points?since=${since}&until=${until}`)).points; } catch (error) { notice(error.message); }
    }
    draw();
  };
  const show = async (shownJob, given, unitOf) => {
    if (job !== null && job !== shownJob && span) { span = null; router.write(["span"], []); }
    job = shownJob;
    unit = unitOf;
    whole = given;
    node.hidden = whole.length <= 5;
    if (node.hidden) return;
    if (span && span[0] >= took()) span = null; // of another stage
    await load();
  };

  // ---------------------------------------------------------------- pointer and keys

  const at = (event) => { const box = drawing.getBoundingClientRect(); return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)); };
  drawing.addEventListener("pointerdown", (event) => { drawing.setPointerCapture(event.pointerId); dragged = [at(event), at(event)]; });
  drawing.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    dragged[1] = at(event);
    const [low, high] = [Math.min(...dragged), Math.max(...dragged)];
    for (const [name, value] of [["x", low * WIDTH], ["width", (high - low) * WIDTH], ["visibility", "visible"]]) mark.setAttribute(name, value);
  });
  const drop = (event) => {
    const ended = dragged;
    dragged = null;
    mark.setAttribute("visibility", "hidden");
    if (!ended || event.type !== "pointerup") return;
    const [low, high] = [Math.min(...ended), Math.max(...ended)];
    const [from, to] = shown();
    if (high - low > LEAST_DRAG) zoom([from + low * (to - from), from + high * (to - from)]);
  };
  drawing.addEventListener("pointerup", drop);
  drawing.addEventListener("pointercancel", drop);
  drawing.addEventListener("keydown", (event) => {
    const [from, to] = shown();
    const step = (to - from) / 4;
    const moved = (by) => { const least = Math.max(-from, Math.min(by, took() - to)); return [from + least, to + least]; };
    const wanted = { "+": [from + step, to - step], "-": [from - 2 * step, to + 2 * step], ArrowLeft: moved(-step), ArrowRight: moved(step), Escape: null }[event.key];
    if (wanted === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const everything = wanted === null || (wanted[0] <= 0 && wanted[1] >= took());
    zoom(everything ? null : wanted);
  });
  return { node, show, isDragged: () => dragged !== null };
};
