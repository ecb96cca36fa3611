/* The Release page. */

import { count, el, fill } from "./core/dom.js";
import { get } from "./core/net.js";
import { load, on, page, part, tell } from "./core/page.js";

const seen = { releases: [] };

part("release", (host) => {
  const text = el("p", { class: "pf-muted" });
  const list = el("ul", {});
  host.append(el("div", { class: "pf-page" }, el("h2", { class: "pf-part", text: "Release" }), text, list));
  on("releases", () => {
    text.textContent = page.run.selected === null ? "Nothing is selected yet." : `${count(page.run.selected)} pictures are selected.`;
    fill(list, ...seen.releases.map((name) => el("li", { text: name })));
  });
});

load(["release"], async () => {
  seen.releases = (await get("/api/releases")).releases;
  tell("releases");
});
