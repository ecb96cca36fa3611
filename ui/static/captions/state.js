/* What the Captions page shows, and the address that says so. */

import { query, write } from "../core/router.js";

export const PAGE_CARDS = 40;
export const MOST_CARDS = 200;

export const STATES = {
  "": "all", new: "new", kept: "kept", edited: "edited", rejected: "rejected", failed: "failed", missing: "not captioned",
};
export const FLAGS = {
  any: "any flag", none: "no flag", loops: "loops", truncated: "cut off", speculating: "speculates", interpreting: "interprets",
  refusals: "refuses", not_english: "not English", prefix_missing: "other beginning", retried: "asked twice", unlike: "unlike the picture",
};
export const ORDERS = {
  centroid: "by centroid", "-repetition": "most repetitive", "-speculation": "most speculating", "-interpretation": "most interpreting",
  clip: "least like the picture", words: "shortest", "-words": "longest",
};
export const REASONS = ["wrong", "misses something", "makes something up", "speculates", "badly written"];

export const state = {
  cards: [], cursor: null, picked: new Map(), revealed: new Set(), revealAll: false, editing: null,
  show: "", flag: "", centroid: "", sort: "centroid",
  start: 0, total: 0, selected: 0, counts: {}, flagged: {}, meanings: {}, finished: false, outdated: false,
  lastEvent: 0, loaded: false, preview: null,
};

export const cardOf = (id) => state.cards.find((card) => card.id === id) || null;
export const here = () => cardOf(state.cursor);
export const pickedOf = (card) => card.captions.find((each) => each.caption_id === state.picked.get(card.id))
  || card.captions.find((each) => each.counts) || card.captions[0] || null;

export const readAddress = () => {
  const given = query();
  const known = (name, table, otherwise) => (Object.hasOwn(table, given.get(name) ?? otherwise) ? given.get(name) ?? otherwise : otherwise);
  state.show = known("show", STATES, "");
  state.flag = given.get("flag") && Object.hasOwn(FLAGS, given.get("flag")) ? given.get("flag") : "";
  state.sort = known("sort", ORDERS, "centroid");
  state.centroid = /^\d+$/.test(given.get("centroid") || "") ? given.get("centroid") : "";
  state.preview = given.get("preview");
  return given.get("at");
};

export const writeAddress = () => {
  const pairs = [["show", state.show], ["flag", state.flag], ["centroid", state.centroid], ["sort", state.sort === "centroid" ? "" : state.sort],
    ["at", state.cursor], ["preview", state.preview]];
  write(["show", "flag", "centroid", "sort", "at", "preview"], pairs.filter(([, value]) => value));
};

export const asked = (more = {}) => {
  const pairs = { show: state.show, flag: state.flag, centroid: state.centroid, sort: state.sort, ...more };
  return new URLSearchParams(Object.entries(pairs).filter(([, value]) => value !== "" && value !== null && value !== undefined));
};

/* Which caption counts, exactly as curation/caption_choice.py: the one kept last, else the first own one that none rejected. */
export const settle = (card) => {
  let best = null;
  let text = null;
  let standing = -2;
  for (const caption of card.captions) {
    const kept = caption.decision === "keep";
    if (!caption.own && !kept) continue;
    const said = caption.status === "captioned" ? caption.caption : null;
    const words = caption.decision === "reject" ? null : caption.edited || said;
    const now = words === null ? -1 : kept ? caption.event : 0;
    if (now > standing) [best, text, standing] = [caption, words, now];
  }
  for (const caption of card.captions) caption.counts = text !== null && caption === best;
  card.text = text;
  card.edited_by = best && text !== null && best.edited ? best.curator : null;
  if (card.edited_by) card.state = "edited";
  else if (text === null) card.state = !best ? "missing" : best.decision === "reject" ? "rejected" : "failed";
  else card.state = best.decision ? "kept" : "new";
};
