/* What is said of a picture, in words. */

import { clip, count, fixed, words } from "../core/dom.js";
import { curator } from "../core/memory.js";
import { thumbnail, url } from "../core/net.js";
import { isCovered } from "./cursor.js";
import { entryOf, firstFailed, side, state } from "./state.js";

export const RULE_WORDS = {
  min_side_px: "small", pwatermark_max: "watermark", punsafe_max: "unsafe", violence_max: "violent", aesthetic_min: "low aesthetic",
  near_duplicate: "duplicate", other_centroid: "elsewhere", quota: "quota full", unfetched: "gone", unscored: "unscored", changed: "changed",
  takedown: "taken down", hash_block: "blocked", centroid_left_out: "left out", person: "",
};
export const STATE_WORDS = { gone: "could not be had", pending: "not fetched yet", blocked: "kept out by a list", passed_over: "not fetched" };
export const SIGNS = { keep: "✓", reject: "✕" };
/* Where the browser gets a row's small picture, or null where there is none. */
export const sourceOf = (row, covered = isCovered(row)) => {
  const by = row.blurred && !covered ? `?by=${encodeURIComponent(curator())}` : "";
  if (row.state === "ready") return `${thumbnail(row.sha256, covered)}${by}`;
  if (row.state === "pending") return url(`/preview/${row.id}${covered ? ".blurred" : ""}.webp`);
  return null;
};
export const reasonOf = (row) => (row.state === "gone" || row.state === "passed_over" ? `${STATE_WORDS[row.state]}: ${words(row.reason)}` : STATE_WORDS[row.state]);

/* A picture that another centroid had fetched, further down here than was asked for. */
const isBeyond = (row) => state.like === null && !row.origin && row.state === "ready" && !row.verdict && row.rank >= (entryOf(state.centroid)?.depth || 0);

export const wordOf = (row) => {
  if (row.verdict === "selected") return "selected";
  const failed = row.state === "ready" ? firstFailed(row) : null;
  return RULE_WORDS[row.rule] ?? row.rule ?? RULE_WORDS[row.unusable] ?? (failed ? failed.word : isBeyond(row) ? "beyond depth" : row.origin ? "found" : "");
};

export const tileLabel = (row) => {
  const parts = [fixed(row.similarity, 2).replace(/^0/, ""), row.width ? String(side(row)) : ""];
  if (row.group_size > 1) parts.push(`≈${row.group_size}`);
  parts.push(wordOf(row), `picture ${row.rank + 1}`);
  if (row.decision) parts.push(row.decision === "keep" ? "kept" : "rejected");
  if (row.tag === "unsure") parts.push("unsure");
  if (isCovered(row) && ["ready", "pending"].includes(row.state)) parts.push("blurred");
  if (row.state !== "ready") parts.push(reasonOf(row));
  return parts.filter(Boolean).join(", ");
};
const originOf = (like) => (like.startsWith("text:") ? `found by a search for “${clip(like.slice(5), 80)}”` : like.startsWith("image:") ? `found as like picture ${clip(like.slice(6), 24)}` : "found as like a curator's picture");
/* Why a picture is in or out, in one line. */
export const whyText = (row) => {
  const why = row.verdict ? `${row.verdict}: ${row.meaning || row.rule}${row.detail ? ` (${row.detail})` : ""}`
    : isBeyond(row) ? `no candidate: ${count(entryOf(state.centroid)?.depth || 0)} of this centroid's neighbours were asked for, and another centroid had this one fetched`
    : row.origin ? "a candidate by its keep, from the next fetch on"
    : state.like === null ? "no candidate of the last selection" : "found in the pool: kept, it becomes a candidate of the open centroid; a concept of its own brings in what is like it";
  const from = row.origin ? `${originOf(row.origin)}: ` : "";
  return `${from}${why}${row.decision ? ` · ${row.decision === "keep" ? "kept" : "rejected"} by ${row.curator || "you"}` : ""}`;
};
export const factsOf = (row) => {
  const facts = [`rank ${row.rank}`, `similarity ${fixed(row.similarity, 3)}`];
  if (["gone", "blocked", "passed_over"].includes(row.state)) return [...facts, reasonOf(row)];
  if (row.width) facts.push(`${row.width}×${row.height} px`);
  return [...facts, `aesthetic ${fixed(row.aesthetic, 2)}`, `watermark ${fixed(row.pwatermark, 2)}`, `unsafe ${fixed(row.punsafe, 2)}`, ...(typeof row.violence === "number" ? [`violence ${fixed(row.violence, 2)}`] : [])];
};
