/* What the Curate page shows: the open centroid's rows, the filters on them, cursor and ticks. */

import { page, tell } from "../core/page.js";
import * as router from "../core/router.js";

export const state = {
  centroids: [],
  centroid: null,
  rows: [],
  shown: [],
  limit: 200,
  cursor: null,
  ticked: new Set(),
  revealed: new Set(),
  filters: {},
  show: "passing",
  sort: "rank",
  search: "",
  centroidSort: "id",
  lastEvent: 0,
  history: [],
};
export const PAGE_ROWS = 200;
export const MOST_ROWS = 1000;

export const rowOf = (id) => state.rows.find((row) => row.id === id);
export const entryOf = (centroid) => state.centroids.find((entry) => entry.centroid === centroid);
export const side = (row) => (row.width && row.height ? Math.min(row.width, row.height) : null);

// ------------------------------------------------------------------ filters, exactly as spine/filters.py

export const FILTERS = [
  { name: "side_px", label: "Shorter side", word: "small", bound: "min", digits: 0, step: 1, of: side },
  { name: "pwatermark", label: "Watermark", word: "watermark", bound: "max", digits: 2, step: 0.01, of: (row) => row.pwatermark, range: [0, 1] },
  { name: "punsafe", label: "Unsafe", word: "unsafe", bound: "max", digits: 2, step: 0.01, of: (row) => row.punsafe, range: [0, 1] },
  { name: "aesthetic", label: "Aesthetic", word: "low aesthetic", bound: "min", digits: 1, step: 0.1, of: (row) => row.aesthetic },
  { name: "similarity", label: "Similarity", word: "low similarity", bound: "min", digits: 3, step: 0.001, of: (row) => row.similarity, viewOnly: true },
];
export const SORTS = { rank: "similarity", aesthetic: "aesthetic", side: "size" };
export const SHOWS = {
  passing: "passing the filters",
  open: "passing, undecided",
  selected: "selected by the last run",
  decided: "decided by people",
  all: "everything found",
};
export const defaults = () => ({
  side_px: page.run.filters.side_px, pwatermark: page.run.filters.pwatermark,
  punsafe: page.run.filters.punsafe, aesthetic: page.run.filters.aesthetic,
  similarity: null, unknown: page.run.filters.unknown,
});

export const fails = (row, filter) => {
  const limit = state.filters[filter.name];
  if (limit === null || limit === undefined) return false;
  const value = filter.of(row);
  if (value === null || value === undefined) return state.filters.unknown === "drop";
  return filter.bound === "min" ? value < limit : value > limit;
};
export const firstFailed = (row) => FILTERS.find((filter) => fails(row, filter)) || null;

export const funnel = () => {
  const ready = state.rows.filter((row) => row.state === "ready");
  const taken = new Map(FILTERS.map((filter) => [filter.name, 0]));
  let passed = 0;
  for (const row of ready) {
    const failed = firstFailed(row);
    if (failed) taken.set(failed.name, taken.get(failed.name) + 1);
    else passed += 1;
  }
  return { found: state.rows.length, ready: ready.length, taken, passed };
};

const KEEPERS = {
  passing: (row) => (row.state === "pending" ? false : row.state !== "ready" || row.decision || !firstFailed(row)),
  open: (row) => row.state === "ready" && !row.decision && !firstFailed(row),
  selected: (row) => row.verdict === "selected",
  decided: (row) => Boolean(row.decision),
  all: () => true,
};
const ORDERS = {
  rank: (a, b) => a.rank - b.rank,
  aesthetic: (a, b) => (b.aesthetic ?? -1e9) - (a.aesthetic ?? -1e9) || a.rank - b.rank,
  side: (a, b) => (side(b) ?? -1) - (side(a) ?? -1) || a.rank - b.rank,
};
export const refresh = () => {
  state.shown = state.rows.filter(KEEPERS[state.show]).sort(ORDERS[state.sort]);
  if (!state.shown.some((row) => row.id === state.cursor)) state.cursor = state.shown.length ? state.shown[0].id : null;
  for (const topic of ["grid", "cursor", "filters", "status"]) tell(topic);
};

/* A control changed what is to be seen. */
export const changed = () => { writeAddress(); refresh(); };

// ------------------------------------------------------------------ the address

export const readAddress = () => {
  const query = router.query();
  state.filters = defaults();
  for (const given of query.getAll("f")) {
    const [name, value = ""] = given.split(":");
    if (name === "unknown" && (value === "keep" || value === "drop")) state.filters.unknown = value;
    const filter = FILTERS.find((candidate) => candidate.name === name);
    if (!filter) continue;
    const number = Number.parseFloat(value.replaceAll("..", ""));
    state.filters[name] = Number.isFinite(number) ? number : null;
  }
  state.show = Object.hasOwn(SHOWS, query.get("show")) ? query.get("show") : "passing";
  state.sort = Object.hasOwn(SORTS, query.get("sort")) ? query.get("sort") : "rank";
  state.search = query.get("cq") || "";
  state.centroidSort = query.get("csort") || "id";
  return query.get("centroid");
};

export const writeAddress = () => {
  const pairs = [];
  if (state.centroid !== null) pairs.push(["centroid", state.centroid]);
  const usual = defaults();
  for (const filter of FILTERS) {
    const value = state.filters[filter.name];
    if (value === usual[filter.name]) continue;
    pairs.push(["f", `${filter.name}:${value === null ? "off" : filter.bound === "min" ? `${value}..` : `..${value}`}`]);
  }
  if (state.filters.unknown !== usual.unknown) pairs.push(["f", `unknown:${state.filters.unknown}`]);
  if (state.show !== "passing") pairs.push(["show", state.show]);
  if (state.sort !== "rank") pairs.push(["sort", state.sort]);
  if (state.search) pairs.push(["cq", state.search]);
  if (state.centroidSort !== "id") pairs.push(["csort", state.centroidSort]);
  router.write(["centroid", "f", "show", "sort", "cq", "csort"], pairs);
};
