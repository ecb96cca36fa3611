/* Opening a centroid or a search, having the next one ready before it is asked for, and keeping up with news. */

import { closeDrawers } from "../core/drawers.js";
import { curator, tab } from "../core/memory.js";
import { get, thumbnail } from "../core/net.js";
import { notice, on, page, tell } from "../core/page.js";
import { queue } from "../core/queue.js";
import { forgetAnchor, isCovered } from "./cursor.js";
import { entryOf, keepingFilters, PAGE_ROWS, refresh, setCentroids, shownOf, state, writeAddress } from "./state.js";
import { applyPending, forgetDeeds, hear } from "./verdicts.js";

const KEPT = 8;
const FIRST_SCREEN = 40;
const NEWS_EVERY_MS = 4_000;
const kept = new Map(); // centroid to the answer, of those opened or foreseen lately
const thisTab = tab();
const foreseen = []; // held, so that they stay decoded
let runState = null; // of the run when what is shown was asked for

const rowsOf = async (centroid) => {
  const answer = kept.get(centroid) || await get(`/api/neighbours?centroid=${encodeURIComponent(centroid)}`);
  kept.delete(centroid);
  kept.set(centroid, answer);
  while (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return answer;
};
on("changed-elsewhere", (centroids) => centroids.filter((number) => number !== state.centroid || state.like).forEach((number) => kept.delete(number)));

const clear = () => {
  Object.assign(state, { failed: "", rows: [], shown: [], first: 0, limit: PAGE_ROWS, cursor: null });
  state.ticked = new Set();
  state.revealed = new Set();
  forgetDeeds();
  forgetAnchor();
};
const fillIn = (answer) => {
  state.rows = answer.rows;
  state.lastEvent = answer.last_event;
  queue.neighbours = answer.neighbours || null;
  applyPending();
  if (!queue.trouble) notice(""); // what isn't saved stays told
};

export const openCentroid = async (number) => {
  if (number === null || number === undefined) return;
  keepingFilters(() => { state.centroid = String(number); state.like = null; });
  clear();
  writeAddress();
  closeDrawers();
  tell("opened");
  try {
    const wanted = state.centroid;
    const answer = await rowsOf(wanted);
    if (state.centroid !== wanted || state.like !== null) return;
    fillIn(answer);
  } catch (error) {
    notice(error.message);
  }
  refresh();
  askNews();
};

/* What the pool has near to words or a picture, in place of a centroid's neighbours. */
export const openSearch = async (like) => {
  keepingFilters(() => { state.like = like; });
  clear();
  writeAddress();
  tell("opened");
  try {
    const answer = await get(`/api/search?like=${encodeURIComponent(like)}`);
    if (answer.like !== state.like) return;
    fillIn(answer);
  } catch (error) {
    state.failed = error.message;
  }
  refresh();
};
export const closeSearch = () => openCentroid(state.centroid);

/* Have a centroid's rows and its first pictures here before it is opened. */
export const foresee = async (number) => {
  if (!number || kept.has(number)) return;
  try {
    const answer = await rowsOf(number);
    for (const row of shownOf(answer.rows).slice(0, FIRST_SCREEN)) {
      if (row.state !== "ready") continue;
      const picture = new Image();
      picture.src = thumbnail(row.sha256, isCovered(row));
      foreseen.push(picture);
    }
    foreseen.splice(0, foreseen.length - 2 * FIRST_SCREEN);
  } catch { /* it is asked for again when it is opened */ }
};

/* The list; what changes in the run from here on asks for all anew. */
export const loadCentroids = async () => {
  const { centroids, state: asked } = await get("/api/centroids");
  runState = asked;
  setCentroids(centroids);
};

export const reload = async () => {
  page.run = await get("/api/run");
  kept.clear();
  await loadCentroids();
  const asked = runState;
  runState = null; // until the rows are here too
  const { cursor } = state;
  if (!queue.events.length && state.centroid !== null) {
    const answer = state.like === null ? await rowsOf(state.centroid) : await get(`/api/search?like=${encodeURIComponent(state.like)}`);
    fillIn(answer);
  }
  runState = asked;
  state.cursor = cursor;
  refresh();
  tell("run");
  tell("centroids");
  tell("opened-state");
};
on("outdated", reload);

let asking = null;
export const askNews = async () => {
  clearTimeout(asking);
  asking = setTimeout(askNews, NEWS_EVERY_MS);
  if (document.hidden || !page.run) return;
  const place = `&curator=${encodeURIComponent(curator())}${entryOf(state.centroid) ? `&centroid=${state.centroid}` : ""}`;
  try {
    const since = state.lastEvent;
    const news = await get(`/api/news?since=${since}&client=${thisTab}${place}`);
    const fresh = news.state !== runState;
    const claims = JSON.stringify(news.claims) !== JSON.stringify(state.claims);
    state.claims = news.claims;
    if (fresh || news.all) await reload();
    else if (news.last_event > since && state.lastEvent === since) hear(news);
    else if (!claims) return;
    tell("counts");
  } catch { /* the queue says when the server is gone */ }
};
document.addEventListener("visibilitychange", () => { if (!document.hidden && asking) askNews(); });
