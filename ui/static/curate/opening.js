/* Opening a centroid, and having its rows again when the run changed. */

import { get } from "../core/net.js";
import { notice, page, tell } from "../core/page.js";
import { queue } from "../core/queue.js";
import { PAGE_ROWS, refresh, state, writeAddress } from "./state.js";
import { applyPending } from "./verdicts.js";

export const openCentroid = async (number) => {
  if (number === null || number === undefined) return;
  state.centroid = String(number);
  Object.assign(state, { rows: [], limit: PAGE_ROWS, cursor: null, history: [] });
  state.ticked.clear();
  state.revealed.clear();
  writeAddress();
  document.body.classList.remove("pf-show-left");
  tell("centroids");
  tell("opened");
  try {
    const answer = await get(`/api/neighbours?centroid=${encodeURIComponent(state.centroid)}`);
    if (answer.centroid !== state.centroid) return;
    state.rows = answer.rows;
    state.lastEvent = answer.last_event;
    applyPending();
    notice("");
  } catch (error) {
    notice(error.message);
  }
  refresh();
};

export const reload = async () => {
  page.run = await get("/api/run");
  state.centroids = (await get("/api/centroids")).centroids;
  const cursor = state.cursor;
  const answer = state.centroid === null ? { rows: [] } : await get(`/api/neighbours?centroid=${state.centroid}`);
  if (!queue.events.length && answer.centroid === state.centroid) state.rows = answer.rows;
  state.cursor = cursor;
  refresh();
  tell("run");
  tell("centroids");
};
