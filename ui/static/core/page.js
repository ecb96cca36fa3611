/* What every page has: its parts as Gradio mounts them, what the server says of the run, and topics by
   which the parts tell each other what changed. */

import { setCurator } from "./memory.js";
import { get, setBase } from "./net.js";

export const page = { run: null, notice: "" };

/* Whether who is here may decide, start jobs and change settings; with a token that reads, not. */
export const mayWrite = () => !page.run || page.run.may_write;

const listeners = {};
export const on = (topic, listener) => (listeners[topic] ??= []).push(listener);
export const tell = (topic, value) => (listeners[topic] || []).forEach((listener) => listener(value));
export const notice = (text) => { page.notice = text; tell("notice"); };

const builders = {};
const built = new Set();
const loaders = [];

/* `build(host)` draws a part into its node. The part's name is the one its Python page gives it. */
export const part = (name, build) => { builders[name] = build; };
export const has = (name) => built.has(name);

/* `load()` is called once the page's parts are there and `page.run` is known. */
export const load = (needed, start) => loaders.push({ needed, start });

const begin = async (start) => {
  try {
    page.run = await get("/api/run");
    setCurator(page.run.curator);
    tell("run");
    await start();
  } catch (error) {
    notice(`${error.message}. Trying again.`);
    setTimeout(() => begin(start), 3000);
  }
};

export const draw = () => {
  for (const [host, base] of (window.popfactoryParts || []).splice(0)) {
    const name = host.dataset.part;
    if (host.dataset.built || !builders[name]) continue;
    host.dataset.built = "yes";
    setBase(base);
    built.add(name);
    builders[name](host);
  }
  for (const loader of loaders) {
    if (loader.begun || !built.has("header") || !loader.needed.every((name) => built.has(name))) continue;
    loader.begun = true;
    begin(loader.start);
  }
};
