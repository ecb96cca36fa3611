/* The Captions page. */

import { count, el } from "./core/dom.js";
import { get } from "./core/net.js";
import { load, on, page, part, tell } from "./core/page.js";

const seen = { counts: null };

part("captions", (host) => {
  const text = el("p", { class: "pf-muted" });
  host.append(el("div", { class: "pf-page" }, el("h2", { class: "pf-part", text: "Captions" }), text));
  on("captions", () => {
    text.textContent = seen.counts === null
      ? "Nothing is captioned yet: start “caption” on the Jobs page, or `popfactory caption` in a terminal."
      : `${count(seen.counts.captioned ?? 0)} of ${count(page.run.selected ?? 0)} selected pictures are captioned.`;
  });
});

load(["captions"], async () => {
  seen.counts = (await get("/api/captions")).counts;
  tell("captions");
});
