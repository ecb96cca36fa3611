/* The Setup page: servers, index, models, lists, access and disk as they stand. */

import { button, clip, count, el, fill, words } from "../core/dom.js";
import { changeKeysOf, inForceOn } from "../core/keys.js";
import { curator } from "../core/memory.js";
import { get, url } from "../core/net.js";
import { KEYS as CAPTION_KEYS } from "../captions/keys.js";
import { KEYS as CURATE_KEYS } from "../curate/keys.js";
import { load, notice, on, page, part, tell } from "../core/page.js";
import { created, size } from "../release/parts.js";
import { loadSettings, settingsPart } from "./settings.js";

const state = { about: null, server: null, engines: null, disk: null };
const section = (title, ...children) => el("section", { class: "pf-rel-section" }, el("h2", { class: "pf-part", text: title }), ...children);
const facts = (...pairs) => el("dl", { class: "pf-set-facts" }, ...pairs.filter(Boolean).flatMap(([name, ...value]) => [el("dt", { text: name }), el("dd", {}, ...value)]));
const good = (text) => el("span", { class: "pf-set-good", text: `✓ ${text}` });
const bad = (text) => el("span", { class: "pf-set-bad", text: `✕ ${text}` });

const ask = async (name, path) => {
  state[name] = await get(path).catch((error) => ({ error: error.message }));
  tell("setup");
};
const refresh = () => Promise.all([ask("about", "/api/setup"), ask("server", "/api/setup/server"), ask("engines", "/api/setup/engines"), ask("disk", "/api/setup/disk")]);

const searchesNode = (searches) => {
  if (!searches) return el("span", { class: "pf-muted", text: "not known: it does not tell (/metrics)" });
  if (!searches.count) return el("span", { class: "pf-muted", text: "not known: no request to /knn-service since it started" });
  return el("span", { text: `p50 ${searches.ms_p50.toFixed(1)} ms, p95 ${searches.beyond ? "over " : ""}${searches.ms_p95.toFixed(1)} ms of ${count(searches.count)} answers to /knn-service since it started` });
};
const serverNode = () => {
  const found = state.server;
  if (!found) return el("p", { class: "pf-muted", text: "asking …" });
  if (found.error) return bad(found.error);
  if (!found.url) return el("div", {}, el("p", { class: "pf-muted", text: "No server: search by text and picture is off. How fast it answers is not known. All else works from the run folder." }), el("p", { class: "pf-small", text: found.advice || "" }));
  return facts(["Address", el("span", { text: found.url })],
    ["State", found.ready ? good(`answers in ${found.ms_p50.toFixed(1)} ms (slowest of five ${found.ms_worst.toFixed(1)} ms)`) : bad(found.advice || "does not answer")],
    found.ready ? ["Answers", searchesNode(found.searches)] : null,
    found.ready ? ["Indices", el("span", { text: (found.indices || []).map((each) => clip(each, 60)).join(", ") || "none" })] : null,
    found.ready ? ["Model", found.fits ? good("its embeddings fit this run's centroids") : bad(found.trouble)] : null);
};

const indexNode = () => {
  const about = state.about;
  if (!about || about.error) return null;
  const index = about.index;
  if (!index) return el("p", { class: "pf-muted", text: "This run has no index of its own: it is searched elsewhere ([pool] index or server), or “index” has not run yet." });
  const recall = index.recall;
  return facts(["Index", el("span", { text: `${index.kind}: ${count(index.n)} vectors of ${count(index.d)} dimensions by ${index.model}` })],
    ["Size", el("span", { text: `${size(index.size_bytes)}, built ${created(index.created)}` })],
    index.nprobe ? ["nprobe", el("span", { text: count(index.nprobe) })] : null,
    ["Recall", recall ? el("span", {}, recall.recall_reached === false ? bad(`${recall.recall_at_100} of the ${recall.k} nearest found, ${recall.recall_wanted} was wanted`) : good(`recall@10 ${recall.recall_at_10}, recall@${recall.k} ${recall.recall_at_100}`),
      el("span", { class: "pf-muted", text: recall.queries_per_s ? ` · ${count(Math.round(recall.queries_per_s))} queries/s when it was built` : "" })) : el("span", { class: "pf-muted", text: "not measured; a flat index finds all, others are measured when “index” runs" })]);
};

const enginesNode = () => {
  const found = state.engines;
  if (!found) return el("p", { class: "pf-muted", text: "asking …" });
  if (found.error) return bad(found.error);
  const rate = found.rate && el("p", { class: "pf-small" }, `The last captioning made ${found.rate.per_s.toFixed(1)} captions a second: `, el("a", { class: "pf-link", href: url(`/jobs?job=${found.rate.job}`), text: "its job" }));
  if (!found.engines.length) return el("div", {}, el("p", { class: "pf-muted", text: "No caption server is named ([caption] endpoints): captions are made in a process of this machine." }), rate || "");
  return el("div", {}, el("ul", { class: "pf-set-list" }, ...found.engines.map((each) => el("li", {}, el("b", { text: each.address }), " ", each.trouble ? bad(each.trouble) : good(`has ${each.models.map((name) => clip(name, 60)).join(", ")}`)))), rate || "");
};

const modelsNode = () => el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Models" }, el("table", { class: "pf-table" },
  el("thead", {}, el("tr", {}, ...["For", "In the settings", "Wrote what is here"].map((text) => el("th", { scope: "col", text })))),
  el("tbody", {}, ...state.about.models.map((each) => el("tr", {}, el("td", { text: each.does }), el("td", {}, each.setting ? clip(each.setting, 120) : el("span", { class: "pf-muted", text: "none: unknown" })),
    el("td", {}, each.wrote ? clip(String(each.wrote), 120) : el("span", { class: "pf-muted", text: "–" }), each.demo ? el("span", { class: "pf-chip pf-chip-warn", text: "demo model" }) : null))))));

const age = (time) => {
  const seconds = Date.now() / 1000 - time;
  for (const [unit, step] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) if (seconds >= 2 * step) return `${Math.floor(seconds / step)} ${unit} ago`;
  return "just now";
};
const listsNode = () => {
  const lists = state.about.lists;
  if (!lists.length) return el("p", { class: "pf-muted", text: "No takedown or hash list is named ([lists] in popfactory.toml): nothing is kept out by a list." });
  return el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Lists" }, el("table", { class: "pf-table" },
    el("thead", {}, el("tr", {}, ...["List", "File", "Entries", "Changed", "SHA-256"].map((text) => el("th", { scope: "col", text })))),
    el("tbody", {}, ...lists.map((each) => el("tr", {}, el("td", { text: words(each.kind) }), el("td", { text: each.path }),
      ...(each.trouble ? [el("td", { colspan: 3 }, bad(`${each.trouble}. Until it can be read, no page shows pictures.`))]
        : [el("td", { class: "pf-n", text: count(each.entries) }), el("td", { text: age(each.changed) }), el("td", { class: "pf-rel-id", title: each.digest, text: `${each.digest.slice(0, 16)}…` })]))))));
};

const accessNode = () => {
  const access = state.about.access;
  const told = access.curator ? `You came in as ${access.curator}, who may ${access.may_write ? "decide, start jobs and change settings" : "look and change nothing"}.`
    : "No token is asked for: the board answers on this machine alone, and whoever sits here may decide. The name at the top of Curate and Captions is recorded with each decision.";
  return el("div", {}, el("p", { text: told }), access.roles.length ? el("ul", { class: "pf-set-list" }, ...access.roles.map((each) => el("li", {}, el("b", { text: clip(each.name, 40) }), ` ${each.scope === "write" ? "decides, starts jobs, changes settings" : "looks"}`))) : null);
};

const keysNode = () => el("div", {}, ...[["Curate", "curate", CURATE_KEYS], ["Captions", "captions", CAPTION_KEYS]].flatMap(([label, name, rows]) => [
  el("details", { class: "pf-set-keys", "data-keys": name }, el("summary", { text: `${label}: ${keysSaid(inForceOn(name, rows))}` }),
    el("dl", {}, ...inForceOn(name, rows).flatMap(([keys, meaning, changed]) => [el("dt", {}, el("kbd", { text: keys })), el("dd", { class: changed ? "pf-set-changed" : "", text: changed ? `${meaning} (changed)` : meaning })]))),
  button(`Change the keys of ${label}…`, "", "The browser keeps them under your name; a key that is taken is refused", () => changeKeysOf(name, rows, () => tell("keys")), "pf-small-button")]),
el("p", { class: "pf-muted pf-small", text: `These are the keys of ${clip(curator(), 40)} in this browser. On Curate and Captions, ? lists them too.` }));
const keysSaid = (rows) => { const changed = rows.filter(([, , each]) => each).length; return changed ? `${count(changed)} changed` : "the usual keys"; };

/* Which filters can do something here: what has a limit, and a value that is known. */
const filtersNode = () => el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Filters" }, el("table", { class: "pf-table" },
  el("thead", {}, el("tr", {}, ...["Filter", "Limit", "Measured here", "Told by the pool", ""].map((text) => el("th", { scope: "col", text: text || "State" })))),
  el("tbody", {}, ...state.about.filters.map((each) => el("tr", { "data-filter": each.filter }, el("td", {}, el("code", { text: each.filter })),
    el("td", { class: "pf-n", text: each.limit === null ? "off" : String(each.limit) }),
    ...[each.measured, each.of_pool].map(([known, rows]) => el("td", { text: rows ? `${count(known)} of ${count(rows)}` : "–" })),
    el("td", {}, each.limit === null ? el("span", { class: "pf-muted", text: "no limit is set" }) : each.measured[0] + each.of_pool[0] ? good("at work") : !(each.measured[1] + each.of_pool[1]) ? el("span", { class: "pf-muted", text: "nothing is found yet that it could judge" }) : bad("no value is known: no head gives one, and the pool has no such column")))))));

const diskNode = () => {
  const found = state.disk;
  if (!found) return el("p", { class: "pf-muted", text: "counting …" });
  if (found.error) return bad(found.error);
  const all = Object.entries(found.folders).sort((a, b) => b[1] - a[1]);
  const sum = all.reduce((total, [, bytes]) => total + bytes, 0);
  return el("div", { class: "pf-set-disk" },
    el("p", {}, el("b", { text: `${found.complete ? "" : "at least "}${size(sum)}` }), ` in this run, ${size(found.free_bytes)} of ${size(found.total_bytes)} free on its disk`),
    el("ol", { class: "pf-rel-funnel" }, ...all.map(([name, bytes]) => {
      const bar = el("span", { class: "pf-rel-bar" });
      bar.style.width = `${Math.max(0.5, (bytes / sum) * 100)}%`;
      return el("li", {}, el("span", { text: `${name}/${name === "thumbnails" ? " (a cache)" : ""}` }), el("b", { text: size(bytes) }), el("span", { class: "pf-rel-track", "aria-hidden": "true" }, bar));
    })));
};

part("setup", (host) => {
  const places = { run: el("div", {}), server: el("div", {}), index: el("div", {}), engines: el("div", {}), models: el("div", {}), filters: el("div", {}), lists: el("div", {}), keys: el("div", {}), access: el("div", {}), disk: el("div", {}), documents: el("ul", { class: "pf-set-list pf-set-docs" }) };
  host.append(el("div", { class: "pf-page pf-set" },
    section("This run", places.run, el("div", { class: "pf-tools" }, button("Look again", "", "Ask the servers and read the files again", refresh))),
    section("Retrieval server and index", places.server, places.index),
    section("Caption servers", places.engines),
    section("Models", places.models),
    section("Filters", places.filters),
    section("Lists in force", places.lists),
    section("Who may do what", places.access),
    section("Keys", places.keys),
    section("Disk", places.disk),
    settingsPart(),
    section("Documents", places.documents)));
  on("keys", () => fill(places.keys, keysNode()));
  on("run", () => tell("keys"));
  on("setup", () => {
    const about = state.about;
    fill(places.server, serverNode());
    fill(places.engines, enginesNode());
    fill(places.disk, diskNode());
    if (!about) return;
    if (about.error) { fill(places.run, bad(about.error)); return; }
    const preset = about.preset;
    fill(places.run, facts(["Folder", el("code", { text: about.run })], ["popfactory", el("span", { text: about.version })],
      ["Preset", el("span", {}, `${preset.name}${preset.demo_models ? " with demo models" : ""}`, el("span", { class: "pf-muted", text: preset.differing.length ? `, but for ${preset.differing.length} settings: ${preset.differing.slice(0, 12).join(", ")}${preset.differing.length > 12 ? " …" : ""}` : ", as it is" }))],
      page.run && page.run.demo ? ["Stamp", el("span", { class: "pf-set-bad", text: page.run.demo })] : null));
    fill(places.index, indexNode());
    fill(places.models, modelsNode());
    fill(places.lists, listsNode());
    fill(places.filters, filtersNode());
    fill(places.access, accessNode());
    fill(places.documents, ...about.documents.map((each) => el("li", {}, el("a", { class: "pf-link", href: url(`/docs/${each.name}.md`), target: "_blank", rel: "noopener", text: each.title }), el("span", { class: "pf-muted pf-small", text: ` ${each.name}.md` }))));
  });
});

load(["setup"], async () => {
  on("saved", refresh);
  await Promise.all([refresh(), loadSettings()]);
  if (state.about && state.about.error) notice(state.about.error);
});
