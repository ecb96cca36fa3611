/* The newest of what the job's stage has written: pictures with what is said of them. */

import { clip, el, fill } from "../core/dom.js";
import { get } from "../core/net.js";
import { notice } from "../core/page.js";
import { reasonOf, sourceOf } from "../curate/facts.js";

const SIDE_PX = 132;

export const samplesPart = () => {
  const list = el("ul", { class: "pf-samples" });
  const node = el("section", { hidden: true, "aria-label": "Newest" }, el("h3", { class: "pf-part", text: "Newest" }), list);
  const revealed = new Set();
  let drawn = "";

  const pictureOf = (row) => {
    const covered = row.blurred && !revealed.has(row.id);
    const source = sourceOf(row, covered);
    if (!source) return el("div", { class: "pf-sample-picture" }, el("span", { class: "pf-why", text: reasonOf(row) }));
    const image = el("img", { src: source, alt: "", width: SIDE_PX, height: SIDE_PX, decoding: "async", on: { error: () => image.replaceWith(el("span", { class: "pf-why", text: "no thumbnail of it" })) } });
    const frame = el("div", { class: "pf-sample-picture" }, image,
      covered ? el("button", { type: "button", class: "pf-reveal", title: "Unsafe, or without an unsafe score", text: "Reveal", on: { click: () => { revealed.add(row.id); frame.replaceWith(pictureOf(row)); } } }) : null);
    return frame;
  };
  const draw = async (job) => {
    let found;
    try { found = await get(`/api/jobs/${job.job}/samples`); } catch (error) { notice(error.message); return; }
    const key = JSON.stringify(found.samples.map((row) => [row.id, row.state, row.blurred, row.said]));
    node.hidden = !found.samples.length;
    if (key === drawn) return; // or the pictures would load again each second
    drawn = key;
    fill(list, ...found.samples.map((row) => el("li", { class: "pf-sample", "data-id": row.id }, pictureOf(row), el("div", { class: "pf-small pf-sample-said", text: clip(row.said, 300) }))));
  };
  return { node, draw };
};
