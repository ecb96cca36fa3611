/* Cards from the server: the first ones, those after and before, and the same ones again after a job. */

import { get } from "../core/net.js";
import { notice, tell } from "../core/page.js";
import { queue } from "../core/queue.js";
import { asked, MOST_CARDS, PAGE_CARDS, settle, state, writeAddress } from "./state.js";

let asking = 0;

const take = (answer) => {
  for (const name of ["total", "selected", "counts", "flagged", "meanings", "finished", "outdated"]) state[name] = answer[name];
  state.lastEvent = Math.max(state.lastEvent, answer.last_event);
};

/* Decisions that are still on their way: the server can't know them yet. */
const applyPending = (cards) => {
  for (const event of queue.events.filter((each) => each.target === "caption" && ["keep", "reject", "clear"].includes(each.action))) {
    const names = new Set(event.ids);
    for (const card of cards) {
      const waiting = card.captions.filter((each) => names.has(each.caption_id));
      for (const caption of waiting) {
        const decided = event.action === "clear" ? null : event.action;
        Object.assign(caption, { decision: decided, curator: null, said: event.reason ?? null, edited: event.text ?? null, event: decided ? 1e14 + event.seq : 0 });
      }
      if (waiting.length) settle(card);
    }
  }
};

export const open = async (at = null) => {
  asking += 1;
  const mine = asking;
  const answer = await get(`/api/captions?${asked({ begin: at, limit: PAGE_CARDS })}`).catch((error) => notice(error.message));
  if (!answer || mine !== asking) return;
  take(answer);
  applyPending(answer.cards);
  Object.assign(state, { cards: answer.cards, start: answer.start, loaded: true, editing: null });
  if (at && !answer.known) notice(`Picture ${at} is not selected any more; this is the beginning of the list.`);
  state.cursor = answer.cards.some((card) => card.id === state.cursor) ? state.cursor : answer.cards.length ? answer.cards[0].id : null;
  writeAddress();
  if (at && state.start > 0) await earlier(); // a link opens among its neighbours
  ["list", "counts", "cursor"].forEach((topic) => tell(topic));
};

let loadingMore = null;
/* The next cards behind the last one; the first ones leave when there are too many. */
export const more = () => {
  if (state.start + state.cards.length >= state.total && state.show === "") return Promise.resolve();
  loadingMore ??= (async () => {
    const last = state.cards[state.cards.length - 1];
    const mine = asking;
    const answer = last && await get(`/api/captions?${asked({ after: last.id, limit: PAGE_CARDS })}`).catch((error) => notice(error.message));
    loadingMore = null;
    if (!answer || mine !== asking || !answer.cards.length) return;
    take(answer);
    applyPending(answer.cards);
    const known = new Set(state.cards.map((card) => card.id));
    state.cards.push(...answer.cards.filter((card) => !known.has(card.id)));
    const surplus = state.cards.length - MOST_CARDS;
    if (surplus > 0) { state.cards.splice(0, surplus); state.start += surplus; }
    tell("list");
    tell("counts");
  })();
  return loadingMore;
};

export const earlier = async () => {
  const first = state.cards[0];
  const answer = first && await get(`/api/captions?${asked({ before: first.id, limit: PAGE_CARDS })}`).catch((error) => notice(error.message));
  if (!answer) return;
  take(answer);
  applyPending(answer.cards);
  const known = new Set(state.cards.map((card) => card.id));
  state.cards = [...answer.cards.filter((card) => !known.has(card.id)), ...state.cards].slice(0, MOST_CARDS);
  state.start = answer.start;
  tell("list");
  tell("counts");
};

/* The same cards as they are now, such as after a job; the counts alone while one is at work. */
export const again = () => open(state.cards.length ? state.cards[0].id : null);
export const recount = async () => {
  const answer = await get(`/api/captions?${asked({ limit: 1 })}`).catch(() => null);
  if (!answer) return;
  take(answer);
  tell("counts");
};
