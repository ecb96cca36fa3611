/* What is decided on the open centroid as a whole. */

import { curator } from "../core/memory.js";
import { startJobs } from "../core/jobs.js";
import { get, post } from "../core/net.js";
import { notice, tell } from "../core/page.js";
import { openCentroid } from "./opening.js";
import { entryOf, setCentroids, state } from "./state.js";
import { step } from "./centroids.js";
import { askText } from "./notes.js";
import { decideCentroid } from "./verdicts.js";

/* Done, or open again; done goes on to the next. */
export const finish = () => {
  const entry = entryOf(state.centroid);
  if (!entry || state.like !== null) return;
  const open = entry.state === "done";
  decideCentroid(open ? "clear" : "keep");
  if (!open) step(1);
};

export const leaveOut = () => {
  const entry = entryOf(state.centroid);
  if (!entry || state.like !== null) return;
  if (entry.state === "out") { decideCentroid("clear"); return; }
  askText("Leave this centroid out", "Why; it may stay empty", "", 500, (reason) => { decideCentroid("reject", reason || null); step(1); });
};

/* What was searched for becomes a centroid of the curator's own, and its neighbours are looked for. */
export const makeConcept = () => {
  const { like } = state;
  if (like === null) return;
  const words = like.startsWith("text:") ? like.slice(5) : "";
  askText("A concept of your own: what to call it", "Name", words, 200, async (label) => {
    try {
      const { centroid } = await post("/api/concepts", { like, label, curator: curator() });
      setCentroids((await get("/api/centroids")).centroids);
      await openCentroid(centroid);
      tell("centroids");
      const started = await startJobs(["retrieve", "fetch", "score", "select"]);
      if (started) notice(`Centroid ${centroid} is added. Its pictures are being looked for: retrieve, fetch, score, select.`);
    } catch (error) { notice(error.message); }
  });
};
