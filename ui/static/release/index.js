/* The Release page: what would be published, what was, and what differs. */

import { histogram } from "../core/charts.js";
import { button, choice, count, el, fill, words } from "../core/dom.js";
import { active, busy, jobs, jobStrip, mayStart, poll, startJobs } from "../core/jobs.js";
import { get, post, url } from "../core/net.js";
import { load, mayWrite, notice, on, part, tell } from "../core/page.js";
import * as router from "../core/router.js";
import { balanceNode, overNode } from "./balance.js";
import { openDraft } from "./draft.js";
import { changesNode, created, funnelNode, resemblanceNode, sampleNode, size, thumb, yieldNode } from "./parts.js";

const state = { about: null, figures: null, samples: null, seed: 0, diff: null, old: "", new: "", draft: false };
const section = (title, ...children) => el("section", { class: "pf-rel-section" }, el("h2", { class: "pf-part", text: title }), ...children);
const ask = (path) => get(path).catch((error) => { notice(error.message); return null; });

const writeAddress = () => router.write(["release", "old", "new", "draft"], [["release", state.samples && state.samples.name],
  ["old", state.diff && state.diff.old], ["new", state.diff && state.diff.new], ["draft", state.draft && "open"]].filter(([, value]) => value));

// ------------------------------------------------------------------ the next release

const showDraft = () => {
  state.draft = true;
  writeAddress();
  return openDraft(() => startJobs(["release"]), () => { state.draft = false; writeAddress(); });
};

const nextPart = () => {
  const fields = {
    name: el("input", { class: "pf-input", maxlength: 100, "aria-label": "Name" }),
    version: el("input", { class: "pf-input", maxlength: 100, "aria-label": "Version" }),
    licence: el("input", { class: "pf-input", maxlength: 300, "aria-label": "Licence" }),
    pixels: el("input", { type: "checkbox", "aria-label": "With the pictures themselves" }),
    aspect_buckets: el("input", { type: "checkbox", "aria-label": "One shape a tar" }),
  };
  const shapes = el("label", { class: "pf-rel-check" }, fields.aspect_buckets, "pictures of one shape together in a tar");
  const wanted = () => Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.type === "checkbox" ? field.checked : field.value.trim()]));
  const differs = () => Object.entries(wanted()).filter(([key, value]) => value !== state.about.settings[key]);
  const save = async () => {
    const changes = differs().map(([key, value]) => ({ table: "release", key, value }));
    if (!changes.length) return true;
    try {
      await post("/api/settings", { seen: state.about.seen, changes });
      notice("");
      return true;
    } catch (error) { notice(error.message); return false; } finally { await refresh(); }
  };
  const release = button("Look and release…", "", "Some rows, the card and what differs, before it is published", async () => { if (await save()) await showDraft(); }, "pf-primary");
  const run = button("Bring all up to date", "", "Run every stage that is not, in order, to the release", () => startJobs(["run"]));
  const hint = el("p", { class: "pf-muted pf-small" });
  const warnings = el("ul", { class: "pf-rel-warnings" });
  const strip = el("div", {});
  const changed = () => {
    shapes.hidden = !fields.pixels.checked;
    if (state.about) release.firstChild.textContent = differs().length ? "Save, look and release…" : "Look and release…";
  };
  for (const each of Object.values(fields)) { each.addEventListener("input", changed); each.addEventListener("change", changed); }
  const enable = () => {
    const about = state.about;
    release.disabled = !about || about.missing.length > 0 || busy();
    run.disabled = !about || !mayStart();
    for (const field of Object.values(fields)) field.disabled = !mayWrite();
    const job = active() || jobs.list.find((each) => ["release", "run"].includes(each.command.split(" ")[1]));
    fill(strip, job ? jobStrip(job, busy() || job.state !== "done") : null);
  };
  on("about", () => {
    const about = state.about;
    for (const [key, field] of Object.entries(fields)) {
      if (document.activeElement === field) continue;
      if (field.type === "checkbox") field.checked = about.settings[key];
      else field.value = about.settings[key];
    }
    fill(warnings,
      about.missing.length ? el("li", { text: `Not finished yet: ${about.missing.join(", ")}. “Bring all up to date” runs what is missing and releases.` }) : null,
      ...about.stale.map((line) => el("li", { text: line })));
    run.hidden = !about.missing.length && !about.stale.length;
    hint.textContent = about.first
      ? `It will be release/${about.next}.`
      : `${about.newest} stays as it is: where rows, licence or pixels differ, it will be ${about.next} beside it; where nothing differs, nothing is published.`;
    changed();
    enable();
  });
  on("jobs", enable);
  return section("The next release", warnings,
    el("div", { class: "pf-rel-form" },
      ...[["Name", fields.name], ["Version", fields.version], ["Licence", fields.licence]].map(([label, field]) => el("label", { class: `pf-rel-field${label === "Licence" ? " pf-rel-wide" : ""}` }, el("span", { class: "pf-muted", text: label }), field)),
      el("label", { class: "pf-rel-check" }, fields.pixels, "with the pictures themselves, as WebDataset tars"), shapes),
    el("div", { class: "pf-tools" }, release, run), hint, strip);
};

// ------------------------------------------------------------------ figures

const agreementText = ({ several, differently }) => (several
  ? `${count(several)} pictures were decided on by several curators: ${count(several - differently)} alike, ${count(differently)} differently; there the later verdict counts.`
  : "No picture was decided on by two curators.");
const rightsNode = (found) => el("ul", { class: "pf-rel-rights" },
  el("li", {}, el("b", { text: count(found.nothing) }), " selected pictures whose hosts were asked and reserve nothing"),
  found.reserved ? el("li", { class: "pf-warn" }, el("b", { text: count(found.reserved) }), " whose hosts reserve something: [fetch] honour_opt_out was off") : null,
  el("li", {}, el("b", { text: count(found.not_asked) }), " of which nobody was asked: files, or fetched without asking"),
  el("li", {}, el("b", { text: count(found.not_fetched) }), " candidates were not fetched, as their hosts reserve them"),
  el("li", { class: "pf-muted", text: "The run knows no licences of single pictures; the one above is stated for the release as a whole." }));

const figuresPart = () => {
  const funnel = el("div", {});
  const spread = el("div", { class: "pf-charts" });
  const yielded = el("div", {});
  const alike = el("div", {});
  const rights = el("div", {});
  on("about", () => fill(funnel, ...(state.about.funnel.length
    ? [funnelNode(state.about.funnel), el("p", { class: "pf-muted pf-small", text: "The bars grow with the square root of the counts, so that small ones can be seen." })]
    : [el("p", { class: "pf-muted", text: "No stage is finished yet: start “run” on the Jobs page." })])));
  on("figures", () => {
    const found = state.figures;
    fill(yielded, yieldNode(found.yield), balanceNode(found.balance), overNode(found.balance));
    fill(rights, rightsNode(found.rights));
    fill(spread, ...(found.selected ? [found.yield ? histogram("Pictures of a centroid", found.yield.selected) : null, ...found.distributions.map((each) => histogram(each.label, each.values, each.limit))] : [el("p", { class: "pf-muted", text: "Nothing is selected yet." })]));
    const { groups, pictures, rejected, largest } = found.duplicates;
    fill(alike,
      el("p", { text: groups ? `${count(groups)} groups of near-duplicates with ${count(pictures)} pictures; ${count(rejected)} candidates left for another that stands for them.` : "No near-duplicates were found among the fetched pictures." }),
      el("div", { class: "pf-rel-groups" }, ...largest.map((each) => el("figure", {}, thumb(each.picture, `stands for ${each.size} near-duplicates`), el("figcaption", { class: "pf-small", text: `≈${count(each.size)}` })))),
      el("p", { class: "pf-muted pf-small", text: agreementText(found.agreement) }));
  });
  return [section("From the pool to the dataset", funnel), section("What each centroid yields", yielded), section("What is selected", spread), section("Rights", rights), section("Near-duplicates and agreement", alike)];
};

// ------------------------------------------------------------------ what was released

const releasesPart = () => {
  const table = el("div", { class: "pf-rel-scroll pf-rel-list", tabindex: 0, role: "region", "aria-label": "Releases" });
  const older = choice({}, "Earlier release", (value) => { state.old = value; });
  const newer = choice({}, "Later release", (value) => { state.new = value; });
  const compare = button("Compare", "", "Rows that were added, removed or changed, and why", () => openDiff(older.value, newer.value));
  const check = button("Check against the lists", "", "Name the rows of every release that a list blocks by now", async () => {
    fill(checked, el("p", { class: "pf-muted", text: "reading every release …" }));
    const found = await ask("/api/release/blocked");
    if (!found) { fill(checked); return; }
    const names = Object.entries(found.releases);
    fill(checked, names.length
      ? el("div", { class: "pf-rel-warnings" }, el("p", { class: "pf-bad", text: `Rows on a list by now: ${names.map(([name, number]) => `${name}: ${count(number)}`).join(", ")}. Release anew, then delete these folders and tell who has copies.` }),
        el("ul", {}, ...found.rows.slice(0, 50).map((row) => el("li", { class: "pf-small", text: `${row.release}: ${row.id}: ${words(row.rule)}` }))))
      : el("p", { text: "No row of any release is on a list." }));
  });
  const checked = el("div", { role: "status" });
  const differing = el("div", {});
  on("about", () => {
    const all = state.about.releases;
    fill(table, all.length ? el("table", { class: "pf-table" },
      el("thead", {}, el("tr", {}, ...["Release", "Published", "Rows", "Left out", "Size", "Files"].map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...all.map((each) => el("tr", { "data-release": each.name },
        el("td", {}, el("b", { text: each.name }), each.demo ? el("span", { class: "pf-chip pf-chip-warn", text: "demo models" }) : null),
        el("td", { text: created(each.created) }), el("td", { class: "pf-n", text: count(each.rows) }),
        el("td", { text: Object.entries(each.left_out).map(([reason, number]) => `${count(number)} ${words(reason)}`).join(", ") || "–" }),
        el("td", { class: "pf-n", text: size(each.size_bytes) }),
        el("td", {}, el("div", { class: "pf-tools" },
          el("a", { class: "pf-link", href: url(`/api/release/card/${each.name}`), target: "_blank", rel: "noopener", text: "card" }),
          ...each.files.filter((file) => !file.path.includes("/") && file.path !== "README.md").concat({ path: "manifest.json" }).map((file) => el("a", { class: "pf-link", href: url(`/api/release/files/${each.name}/${file.path}`), download: "", title: file.size_bytes === undefined ? "What it was made from, and the digest of each file" : size(file.size_bytes), text: file.path })),
          button("Samples", "", "Some of its rows with their pictures", () => openSamples(each.name, 0))))))))
      : el("p", { class: "pf-muted", text: "Nothing is released yet." }));
    const names = Object.fromEntries(all.map((each) => [each.name, each.name]));
    for (const [select, usual] of [[older, state.old || (all[1] || all[0] || {}).name], [newer, state.new || (all[0] || {}).name]]) {
      fill(select, ...Object.keys(names).map((name) => el("option", { value: name, text: name })));
      if (usual) select.value = usual;
    }
    for (const each of [older, newer, compare]) each.hidden = all.length < 2;
    check.hidden = !all.length;
  });
  on("diff", () => {
    const found = state.diff;
    const total = found ? found.added + found.removed + found.changed : 0;
    fill(differing, found ? changesNode(found) : null,
      found && total > found.changes.length ? el("p", { class: "pf-muted pf-small", text: `\`popfactory release RUN --diff ${found.old} ${found.new}\` lists them all` }) : null);
  });
  return section("Releases", table, el("div", { class: "pf-tools" }, older, newer, compare, check), checked, differing);
};

const openDiff = async (old, new_) => {
  state.diff = await ask(`/api/release/diff?${new URLSearchParams({ old, new: new_ })}`);
  writeAddress();
  tell("diff");
};

const samplesPart = () => {
  const grid = el("div", { class: "pf-rel-samples" });
  const head = el("p", { class: "pf-muted", role: "status" });
  const others = button("Others", "", "Other rows at random", () => openSamples(state.samples.name, state.seed + 1));
  const whole = section("Samples", el("div", { class: "pf-tools" }, head, others), grid);
  whole.hidden = true;
  on("samples", () => {
    whole.hidden = !state.samples;
    if (!state.samples) return;
    const { name, rows, samples } = state.samples;
    head.textContent = `${count(samples.length)} of ${count(rows)} rows of ${name}, at random`;
    fill(grid, ...samples.map(sampleNode));
  });
  return whole;
};

const resemblancePart = () => {
  const place = el("div", {});
  const whole = section("Does it resemble the concepts?", place);
  whole.hidden = true;
  on("samples", async () => {
    const found = state.samples && await ask(`/api/release/resemblance?${new URLSearchParams({ name: state.samples.name })}`);
    whole.hidden = !found;
    if (found) fill(place, resemblanceNode(found));
  });
  return whole;
};

const openSamples = async (name, seed, scroll = true) => {
  state.seed = seed;
  state.samples = await ask(`/api/release/samples?${new URLSearchParams({ name, seed })}`);
  writeAddress();
  tell("samples");
  if (scroll && state.samples) document.querySelector(".pf-rel-samples").scrollIntoView({ block: "nearest" });
};

// ------------------------------------------------------------------ the page

const refresh = async () => {
  const [about, figures] = await Promise.all([ask("/api/release"), ask("/api/release/figures")]);
  if (about) { state.about = about; tell("about"); }
  if (figures) { state.figures = figures; tell("figures"); }
};

part("release", (host) => host.append(el("div", { class: "pf-page pf-rel" }, nextPart(), releasesPart(), ...figuresPart(), resemblancePart(), samplesPart())));

load(["release"], async () => {
  const given = router.query();
  [state.old, state.new] = [given.get("old") || "", given.get("new") || ""];
  on("ended", refresh);
  await refresh();
  const newest = state.about && state.about.releases[0];
  const wanted = given.get("release") || (newest && newest.name);
  if (state.old && state.new) await openDiff(state.old, state.new);
  if (wanted) await openSamples(wanted, 0, false);
  if (given.get("draft") && state.about && !state.about.missing.length) await showDraft();
  poll();
});
