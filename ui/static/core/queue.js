/* Decisions on their way: drawn at once by the page, sent here in order, numbered, until acknowledged.

   Every answer is told as "answered": what counts now for all that was concerned, and `sent`, the events it
   answers. Some of them may have been left alone: `conflicts`, where another curator decided meanwhile, and
   `gone`, what is no candidate any more. */

import { curator, forget, namesKept, remember, remembered } from "./memory.js";
import { post } from "./net.js";
import { notice, page, tell } from "./page.js";

export const client = crypto.getRandomValues(new Uint32Array(4)).reduce((text, each) => text + each.toString(16).padStart(8, "0"), "");
const prefix = () => `popfactory.queue.${page.run.run_id}.`;
const BATCH = 500;

export const queue = { events: [], next: 1, busy: false, wait: 0, trouble: "", kept: true, neighbours: null };

const keep = () => {
  const name = prefix() + client;
  if (queue.events.length) queue.kept = remember(name, JSON.stringify(queue.events));
  else forget(name);
  tell("saving");
};

export const enqueue = (event) => {
  queue.events.push({ seq: queue.next, ...event });
  queue.next += 1;
  keep();
  send();
};

const answerTo = async (body) => {
  try {
    return await post("/api/decisions", body);
  } catch (error) {
    if (error.status === 409 && error.content.acknowledged !== undefined) return error.content;
    throw error;
  }
};

const send = async () => {
  if (queue.busy || !queue.events.length) return;
  queue.busy = true;
  const batch = queue.events.slice(0, BATCH);
  try {
    const answer = await answerTo({ client, curator: curator(), events: batch, neighbours: queue.neighbours });
    const last = batch[batch.length - 1].seq;
    queue.events = queue.events.filter((event) => event.seq > last);
    queue.wait = 0;
    queue.trouble = "";
    tell("answered", { ...answer, sent: batch });
  } catch (error) {
    queue.wait = Math.min(queue.wait ? queue.wait * 2 : 500, 10_000);
    if (queue.trouble !== error.message) notice(`${error.message}. What you decide waits in this browser.`);
    queue.trouble = error.message;
  }
  queue.busy = false;
  keep();
  if (queue.events.length) setTimeout(send, queue.wait);
};

// Events an earlier page could not send. Sending them twice changes nothing: client and number are theirs.
export const adoptQueues = async () => {
  for (const name of namesKept(prefix()).filter((each) => each !== prefix() + client)) {
    const content = remembered(name, "[]");
    try {
      const events = JSON.parse(content);
      if (events.length) await answerTo({ client: name.slice(prefix().length), curator: curator(), events });
      if (remembered(name, "") === content) forget(name);
    } catch (error) {
      notice(`decisions of an earlier page are not saved yet: ${error.message}`);
    }
  }
};

window.addEventListener("beforeunload", (event) => { if (queue.events.length && !queue.kept) event.preventDefault(); });
