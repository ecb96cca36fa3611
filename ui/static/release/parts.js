/* What the Release page is made of: funnel, yield, pictures. */

import { button, clip, count, el, words } from "../core/dom.js";
import { thumbnail, url } from "../core/net.js";

export const size = (bytes) => {
  for (const [unit, step] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]]) if (bytes >= step) return `${(bytes / step).toFixed(bytes / step >= 100 ? 0 : 1)} ${unit}`;
  return `${count(bytes)} bytes`;
};
export const created = (text) => {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString("en-GB", { day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
};

/* A small picture: blurred ones are shown clear when clicked, listed ones never. */
export const thumb = (picture, label) => {
  if (picture.state !== "ready") return el("span", { class: "pf-rel-thumb pf-rel-none", title: words(picture.reason), text: picture.state === "blocked" ? "⊘" : "–" });
  const image = el("img", { src: thumbnail(picture.sha256, picture.blurred), alt: label, width: 96, height: 96, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "pf-muted pf-small", text: "no thumbnail" })));
  const frame = el("span", { class: "pf-rel-thumb" }, image);
  if (!picture.blurred) return frame;
  const reveal = button("Reveal", "", "Probably not safe for work, or not scored", () => { image.src = thumbnail(picture.sha256, false); reveal.remove(); }, "pf-rel-reveal");
  frame.append(reveal);
  return frame;
};

/* Each step of the funnel as a bar as long as its count, on a scale of roots so that small steps are seen. */
export const funnelNode = (steps) => {
  const top = Math.max(1, ...steps.map((step) => step.count));
  return el("ol", { class: "pf-rel-funnel" }, ...steps.map((step) => {
    const bar = el("span", { class: "pf-rel-bar" });
    bar.style.width = `${Math.max(0.5, Math.sqrt(step.count / top) * 100)}%`;
    const lost = step.losses.map((loss) => el("span", { class: "pf-chip", title: loss.meaning, text: `−${count(loss.count)} ${words(loss.reason)}` }));
    return el("li", {}, el("span", { class: "pf-rel-step", text: step.label }), el("b", { text: count(step.count) }), el("span", { class: "pf-rel-track", "aria-hidden": "true" }, bar),
      lost.length ? el("div", { class: "pf-rel-lost" }, ...lost) : null);
  }));
};

/* A row of a dataset with its picture. */
export const sampleNode = (row) => el("article", { class: "pf-rel-sample", "data-id": row.id }, thumb(row.picture, ""),
  el("div", {}, row.caption === null ? el("p", { class: "pf-muted", text: "kept out by a list: release anew" }) : el("p", { class: "pf-rel-caption", text: clip(row.caption, 2000) }),
    el("p", { class: "pf-muted pf-small", text: [clip(row.centroid_label || "", 60), row.width ? `${row.width} × ${row.height}` : "", row.caption_edited_by ? `written by ${clip(row.caption_edited_by, 40)}` : "", row.selected_by ? `kept by ${clip(row.selected_by, 40)}` : ""].filter(Boolean).join(" · ") })));

/* What differs between two releases: the sums, then a row each. */
export const changesNode = (found) => {
  const rows = found.changes;
  const sums = `${found.old} to ${found.new}: ${count(found.added)} added, ${count(found.removed)} removed, ${count(found.changed)} changed, ${count(found.same)} the same`;
  const total = found.added + found.removed + found.changed;
  return el("div", {}, el("p", { role: "status" }, el("b", { text: sums })),
    rows.length ? el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Rows that differ" }, el("table", { class: "pf-table" },
      el("thead", {}, el("tr", {}, ...["Change", "Picture", "What", "Why"].map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...rows.map((change) => el("tr", { "data-kind": change.kind },
        el("td", { class: `pf-rel-${change.kind}`, text: { added: "+ added", removed: "− removed", changed: "± changed" }[change.kind] }),
        el("td", {}, thumb(change.picture, "")), el("td", { class: "pf-rel-id", text: change.id }), el("td", { text: clip(change.reason, 300) })))))) : null,
    total > rows.length ? el("p", { class: "pf-muted pf-small", text: `the first ${count(rows.length)} of ${count(total)}` }) : null);
};

export const yieldNode = (found) => {
  if (!found) return el("p", { class: "pf-muted", text: "Nothing is selected yet: start “run” or “select” on the Jobs page." });
  const quota = found.quota.least === found.quota.most ? `of ${count(found.quota.most)}` : `of ${count(found.quota.least)} to ${count(found.quota.most)}`;
  return el("div", { class: "pf-rel-yield" },
    el("p", {}, el("b", { text: `${count(found.filled)} of ${count(found.centroids)} centroids` }), ` have their quota ${quota}`,
      found.short ? `; ${count(found.short)} are short, by ${count(found.missing)} pictures` : "", found.left_out ? `; ${count(found.left_out)} left out by curators` : "", "."),
    found.shortest.length ? el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Centroids that are short" },
      el("table", { class: "pf-table" },
        el("thead", {}, el("tr", {}, ...["Centroid", "Has", "Quota", "Why it is short"].map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, ...found.shortest.map((each) => el("tr", {},
          el("td", {}, el("a", { class: "pf-link", href: url(`/?centroid=${each.centroid}`), text: `${each.centroid} ${clip(each.label, 60)}` })),
          el("td", { class: "pf-n", text: count(each.selected) }), el("td", { class: "pf-n", text: count(each.quota) }), el("td", {}, each.why, each.lost.length ? el("div", { class: "pf-muted pf-small", text: each.lost.map((one) => `${count(one.count)} ${one.meaning}`).join(" · ") }) : null)))))) : null,
    found.short > found.shortest.length ? el("p", { class: "pf-muted pf-small", text: `the ${count(found.shortest.length)} that lack most are listed` }) : null);
};

/* Figures of a release beside those of other sets. */
export const resemblanceNode = (found) => {
  const sets = Object.entries(found.sets);
  if (!sets.length) return el("p", { class: "pf-muted", text: Object.values(found.missing)[0] || "Not measured: this release was published before it was." });
  const pictures = sets[0][1].pictures;
  return el("div", { class: "pf-rel-scroll", tabindex: 0, role: "region", "aria-label": "Resemblance" },
    el("p", { class: "pf-muted pf-small", text: `${found.name}, on embeddings alone: ${count(pictures)} pictures of each set at random against as many concept pictures. Compare within this table only.` }),
    el("table", { class: "pf-table pf-rel-figures" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Figure" }), ...sets.map(([name]) => el("th", { scope: "col", text: name })), el("th", { scope: "col", text: "What it is" }))),
      el("tbody", {}, ...Object.entries(found.meanings).map(([figure, meaning]) => el("tr", {}, el("th", { scope: "row", text: figure }),
        ...sets.map(([, values]) => el("td", { text: values[figure] === undefined ? "–" : values[figure].toFixed(values[figure] >= 10 ? 1 : 3) })), el("td", { class: "pf-muted", text: meaning }))))),
    ...Object.entries(found.missing).map(([name, why]) => el("p", { class: "pf-muted pf-small", text: `${name}: ${why}` })));
};
