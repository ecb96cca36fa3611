/* The Setup page. */

import { count, el } from "./core/dom.js";
import { get } from "./core/net.js";
import { load, on, part, tell } from "./core/page.js";

const seen = { server: null, lists: null };

part("setup", (host) => {
  const text = el("p", { class: "pf-muted" });
  host.append(el("div", { class: "pf-page" }, el("h2", { class: "pf-part", text: "Setup" }), text));
  on("setup", () => {
    text.textContent = `Retrieval server: ${seen.server || "none"}. Lists in force: ${count(seen.lists.entries)} entries.`;
  });
});

load(["setup"], async () => {
  Object.assign(seen, await get("/api/setup"));
  tell("setup");
});
