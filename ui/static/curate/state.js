/* What the Curate page shows: the open centroid's rows, the filters on them, cursor and ticks. */

import { curator } from "../core/memory.js";
import { page, tell } from "../core/page.js";
import * as router from "../core/router.js";

export const state = {
  centroids: [],
  byId: new Map(),
  centroid: null,
  like: null, // what the pool was searched for, instead of a centroid's neighbours
  failed: "", // why there are no rows
  rows: [],
  shown: [],
  first: 0, // of `shown`, in the page's nodes; `limit` from there on
  limit: 200,
  cursor: null,
  ticked: new Set(),
  revealed: new Set(),
  revealAll: false,
  filters: {},
  show: "passing",
  sort: "rank",
  search: "",
  centroidSort: "id",
  ranking: null, // similarity by centroid, of what was asked for
  lasso: [],
  lastEvent: 0,
  neighbours: null,
  claims: {},
};
export const PAGE_ROWS = 200;
export const MOST_ROWS = 1000;

export const rowOf = (id) => state.rows.find((row) => row.id === id);
export const entryOf = (centroid) => state.byId.get(centroid);
export const side = (row) => (row.width && row.height ? Math.min(row.width, row.height) : null);
export const setCentroids = (centroids) => {
  state.centroids = centroids;
  state.byId = new Map(centroids.map((entry) => [entry.centroid, entry]));
};
export const CENTROID_STATES = { open: ["○", "nothing decided"], begun: ["◐", "begun"], done: ["●", "done"], out: ["⊘", "left out"] };
export const stateOf = (entry) => entry.state || (entry.kept || entry.rejected ? "begun" : "open");
/* Pictures that can be judged by their values: in a search also those that nobody fetched. */
export const judged = (row) => row.state === "ready" || (state.like !== null && row.state === "pending");

// ------------------------------------------------------------------ filters, exactly as spine/filters.py

export const FILTERS = [
  { name: "side_px", label: "Shorter side", word: "small", bound: "min", digits: 0, step: 1, of: side },
  { name: "pwatermark", label: "Watermark", word: "watermark", bound: "max", digits: 2, step: 0.01, of: (row) => row.pwatermark, range: [0, 1] },
  { name: "punsafe", label: "Unsafe", word: "unsafe", bound: "max", digits: 2, step: 0.01, of: (row) => row.punsafe, range: [0, 1] },
  { name: "violence", label: "Violence", word: "violent", bound: "max", digits: 2, step: 0.01, of: (row) => row.violence, rare: true },
  { name: "aesthetic", label: "Aesthetic", word: "low aesthetic", bound: "min", digits: 1, step: 0.1, of: (row) => row.aesthetic },
  { name: "similarity", label: "Similarity", word: "low similarity", bound: "min", digits: 3, step: 0.001, of: (row) => row.similarity, viewOnly: true },
  { name: "aspect", label: "Width / height", word: "shape", bound: "max", digits: 2, step: 0.01, of: (row) => (row.width && row.height ? row.width / row.height : null), viewOnly: true },
];
export const SORTS = { rank: "most similar", aesthetic: "most aesthetic", side: "largest" };
export const SHOWS = {
  passing: "passing the filters",
  open: "passing, undecided",
  selected: "selected by the last run",
  decided: "decided by people",
  others: "decided by others than you",
  unsure: "unsure: look again",
  differing: "decided differently",
  duplicates: "near-duplicates",
  elsewhere: "nearer to another centroid",
  gone: "could not be had",
  passed_over: "not fetched: rejected by the pool's own values",
  all: "everything found",
};
/* Filters that a centroid may have of its own, by the name of the setting. */
export const OWN_NAMES = { side_px: "min_side_px", pwatermark: "pwatermark_max", punsafe: "punsafe_max", violence: "violence_max", aesthetic: "aesthetic_min" };
const ofRun = (filter) => {
  if (filter.viewOnly) return null;
  const own = state.like === null ? entryOf(state.centroid)?.own : null;
  if (own && OWN_NAMES[filter.name] in own) return own[OWN_NAMES[filter.name]] || (filter.name === "side_px" ? null : own[OWN_NAMES[filter.name]]);
  return page.run.filters[filter.name];
};
/* [lowest, highest], null where it is open. */
export const defaults = () => ({
  ...Object.fromEntries(FILTERS.map((filter) => [filter.name, filter.bound === "min" ? [ofRun(filter), null] : [null, ofRun(filter)]])),
  unknown: page.run.filters.unknown,
});
/* Whether `select` leaves a picture out before any filter; a keep overrules that it shows something else than the pool's. */
export const isUnusable = (row) => row.unusable === "unscored" || (row.unusable === "changed" && row.decision !== "keep");
export const isOn = (filter) => state.filters[filter.name].some((limit) => limit !== null);
export const differs = () => {
  const usual = defaults();
  return FILTERS.filter((filter) => state.filters[filter.name].some((limit, end) => limit !== usual[filter.name][end]));
};

/* Do what changes the centroid, and keep the filters that were moved; the others become those of the new one. */
export const keepingFilters = (change) => {
  const moved = Object.keys(state.filters).length ? differs().map((filter) => [filter.name, state.filters[filter.name]]) : [];
  const { unknown } = state.filters;
  change();
  state.filters = { ...defaults(), ...Object.fromEntries(moved), unknown: unknown || defaults().unknown };
};

const fails = (row, filter) => {
  const [low, high] = state.filters[filter.name];
  if (low === null && high === null) return false;
  const value = filter.of(row);
  if (value === null || value === undefined) return state.filters.unknown === "drop";
  return (low !== null && value < low) || (high !== null && value > high);
};
/* A bit for each filter that a row fails; they are asked for many times. */
const mark = (rows) => {
  for (const row of rows) {
    row.failed = 0;
    FILTERS.forEach((filter, bit) => { if (fails(row, filter)) row.failed |= 1 << bit; });
  }
};
export const firstFailed = (row) => (row.failed ? FILTERS[31 - Math.clz32(row.failed & -row.failed)] : null);

/* How many are left after each rule, in their order, and how many each took. */
export const funnel = () => {
  const taken = new Map(FILTERS.map((filter) => [filter.name, 0]));
  const unusable = new Map();
  let ready = 0;
  let passed = 0;
  for (const row of state.rows) {
    if (!judged(row)) continue;
    ready += 1;
    const failed = firstFailed(row);
    if (isUnusable(row)) unusable.set(row.unusable, (unusable.get(row.unusable) || 0) + 1);
    else if (failed) taken.set(failed.name, taken.get(failed.name) + 1);
    else passed += 1;
  }
  return { found: state.rows.length, ready, unusable, taken, passed };
};

const KEEPERS = {
  passing: (row) => !(row.state === "passed_over" || (row.state === "pending" && !state.like && !row.origin)) && (!judged(row) || row.decision || !(row.failed || isUnusable(row))),
  open: (row) => judged(row) && !row.decision && !row.failed && !isUnusable(row),
  selected: (row) => row.verdict === "selected",
  decided: (row) => Boolean(row.decision),
  others: (row) => Boolean(row.decision) && row.curator !== curator(),
  unsure: (row) => row.tag === "unsure",
  differing: (row) => Boolean(row.differing),
  duplicates: (row) => row.group_size > 1,
  elsewhere: (row) => row.best !== null && row.best !== undefined && String(row.best) !== state.centroid,
  gone: (row) => row.state === "gone",
  passed_over: (row) => row.state === "passed_over",
  all: () => true,
};
const ORDERS = {
  rank: (a, b) => a.rank - b.rank,
  aesthetic: (a, b) => (b.aesthetic ?? -1e9) - (a.aesthetic ?? -1e9) || a.rank - b.rank,
  side: (a, b) => (side(b) ?? -1) - (side(a) ?? -1) || a.rank - b.rank,
};
/* Those of some rows that the filters and the choice of what to show leave, in order. */
export const shownOf = (rows) => {
  mark(rows);
  return rows.filter(KEEPERS[state.show]).sort(ORDERS[state.sort]);
};
/* Where the page of so many rows begins that has this one. */
export const pageOf = (index) => Math.floor(Math.max(0, index) / MOST_ROWS) * MOST_ROWS;
export const refresh = () => {
  state.shown = shownOf(state.rows);
  if (!state.shown.some((row) => row.id === state.cursor)) state.cursor = state.shown.length ? state.shown[0].id : null;
  state.first = pageOf(state.shown.findIndex((row) => row.id === state.cursor));
  for (const topic of ["grid", "cursor", "filters", "status"]) tell(topic);
};

/* A control changed what is to be seen. */
export const changed = () => { writeAddress(); refresh(); };

// ------------------------------------------------------------------ the address

const NAMES = ["centroid", "like", "f", "show", "sort", "cq", "csort", "lasso"];
const numberOf = (text) => {
  const number = Number.parseFloat(text);
  return Number.isFinite(number) ? number : null;
};
export const readAddress = () => {
  const query = router.query();
  state.like = query.get("like");
  state.centroid = query.get("centroid");
  state.filters = defaults();
  for (const given of query.getAll("f")) {
    const [name, value = ""] = given.split(":");
    if (name === "unknown" && (value === "keep" || value === "drop")) state.filters.unknown = value;
    if (!FILTERS.some((candidate) => candidate.name === name)) continue;
    const [low, high = ""] = value.split("..");
    state.filters[name] = value === "off" ? [null, null] : [numberOf(low), numberOf(high)];
  }
  state.show = Object.hasOwn(SHOWS, query.get("show")) ? query.get("show") : "passing";
  state.sort = Object.hasOwn(SORTS, query.get("sort")) ? query.get("sort") : "rank";
  state.search = query.get("cq") || "";
  state.centroidSort = query.get("csort") || "id";
  state.lasso = (query.get("lasso") || "").split(";").map((corner) => corner.split(",").map(Number))
    .filter((corner) => corner.length === 2 && corner.every(Number.isFinite));
};

/* The view as the address says it; a decision on many is recorded with it. */
export const viewPairs = () => {
  const pairs = [];
  if (state.centroid !== null) pairs.push(["centroid", state.centroid]);
  if (state.like !== null) pairs.push(["like", state.like]);
  for (const filter of differs()) {
    const [low, high] = state.filters[filter.name];
    pairs.push(["f", `${filter.name}:${low === null && high === null ? "off" : `${low ?? ""}..${high ?? ""}`}`]);
  }
  if (state.filters.unknown !== defaults().unknown) pairs.push(["f", `unknown:${state.filters.unknown}`]);
  if (state.show !== "passing") pairs.push(["show", state.show]);
  if (state.sort !== "rank") pairs.push(["sort", state.sort]);
  if (state.search) pairs.push(["cq", state.search]);
  if (state.centroidSort !== "id") pairs.push(["csort", state.centroidSort]);
  if (state.lasso.length) pairs.push(["lasso", state.lasso.map((corner) => corner.map((place) => place.toFixed(3)).join(",")).join(";")]);
  return pairs;
};
export const writeAddress = () => router.write(NAMES, viewPairs());
/* What a decision on many was about, with the filters of the run too: those of today may be others tomorrow. */
export const filterText = () => {
  const limits = FILTERS.filter(isOn).map((filter) => {
    const [low, high] = state.filters[filter.name];
    return `f=${filter.name}:${low ?? ""}..${high ?? ""}`;
  });
  const place = state.like === null ? `centroid=${state.centroid}` : `like=${state.like}`;
  return [place, ...limits, `f=unknown:${state.filters.unknown}`, `show=${state.show}`].join("&");
};
