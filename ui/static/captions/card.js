/* One picture with its captions side by side. */

import { button, cap, clip, count, el, words } from "../core/dom.js";
import { thumbnail, url } from "../core/net.js";
import { FLAGS, pickedOf, state } from "./state.js";
import { differing } from "./words.js";

const MOST_SIGNS = 20_000;
const SHOWN_SIGNS = 5_000; // of a caption on its card; the editor has the whole
const WHY = {
  truncated: "cut off at the greatest length", loops: "repeats itself", speculating: "guesses", interpreting: "interprets", refusals: "doesn't describe the picture",
  not_english: "in another language than English", prefix_missing: "doesn't begin with the words the prompt asks for", retried: "asked a second time for a loop or a cut",
  unlike: "by CLIP it is no nearer to this picture than captions are to others",
};
const SAID = {
  new: ["", "new"], kept: ["✓", "kept"], edited: ["✎", "edited"], rejected: ["✕", "rejected"], failed: ["!", "failed"], missing: ["…", "not captioned yet"], blocked: ["⊘", "kept out"],
};

export const captioner = (caption) => [caption.model, caption.prompt_id, caption.take ? `take ${caption.take + 1}` : ""].filter(Boolean).join(" · ");

export const picture = (card, reveal) => {
  const shown = card.picture;
  if (shown.state !== "ready") {
    return el("div", { class: "pf-cap-frame pf-cap-none" }, el("span", { class: "pf-muted", text: words(shown.reason) }));
  }
  const hidden = shown.blurred && !state.revealAll && !state.revealed.has(card.id);
  const ratio = shown.width && shown.height ? Math.min(2, Math.max(0.6, shown.width / shown.height)) : 1;
  const image = el("img", { src: thumbnail(shown.sha256, hidden), alt: "", width: 208, height: Math.round(208 / ratio), loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "pf-muted", text: "no thumbnail: it can't be opened, or a list keeps it out" })));
  const frame = el("div", { class: "pf-cap-frame" }, image,
    hidden && reveal ? el("button", { type: "button", class: "pf-reveal", title: "Probably not safe for work, or not scored", on: { click: reveal } }, "Reveal", cap("V")) : null);
  frame.style.aspectRatio = ratio;
  return frame;
};

/* The text, with the words marked that another caption lacks. */
export const text = (shown, other) => {
  const node = el("div", { class: "pf-cap-text" });
  const cut = clip(shown, SHOWN_SIGNS);
  if (!other || other === shown) node.textContent = cut;
  else node.append(...differing(cut, clip(other, SHOWN_SIGNS)).map(([piece, lacking]) => (lacking ? el("mark", { text: piece }) : piece)));
  return node;
};

export const flagChips = (caption) => caption.flags.map((name) => el("span", { class: `pf-chip${name === "retried" ? "" : " pf-chip-bad"}`, title: name === "unlike" && caption.worst ? `${WHY[name]}; least of all “${clip(caption.worst, 300)}”` : WHY[name] || "", text: FLAGS[name] || words(name) }));

export const measures = (caption) => [
  caption.words === null ? "" : `${count(caption.words)} words`,
  caption.tokens === null ? "" : `${count(caption.tokens)} tokens`,
  caption.repetition >= 0.005 ? `${Math.round(caption.repetition * 100)} % repeated` : "",
  caption.speculation ? `${caption.speculation} guessing` : "",
  caption.interpretation ? `${caption.interpretation} interpreting` : "",
  typeof caption.clip !== "number" ? "" : `CLIP ${caption.clip.toFixed(2)}`,
].filter(Boolean).join(" · ");

/* The caption without its speculation and interpretation, where it has some and something is left. */
export const plainer = (caption) => {
  const clean = (caption.clean_caption || "").trim();
  return caption.status === "captioned" && clean && clean !== (caption.caption || "").trim() ? clean : null;
};
const shownOf = (caption) => caption.edited || caption.caption || "";

const block = (card, caption, place, acts) => {
  const many = card.captions.length > 1;
  const picked = pickedOf(card);
  const isPicked = caption === picked;
  const failed = caption.status !== "captioned" && !caption.edited;
  const compared = many && !isPicked && picked && picked.status === "captioned" ? shownOf(picked) : null;
  const editing = state.editing && state.editing.caption === caption.caption_id;
  const plain = !caption.edited && plainer(caption);
  return el("section", { class: `pf-cap-block${isPicked && many ? " pf-cap-picked" : ""}${caption.decision === "reject" ? " pf-cap-out" : ""}`, "data-caption": caption.caption_id,
    on: { click: () => acts.pick(card, caption) } },
  el("div", { class: "pf-cap-by" },
    many ? el("button", { type: "button", class: "pf-cap-number", "aria-pressed": isPicked ? "true" : "false", "aria-label": `Caption ${place + 1}: ${captioner(caption)}`, text: place + 1 }) : null,
    el("span", { class: "pf-muted", text: captioner(caption) }),
    caption.counts && many ? el("span", { class: "pf-chip pf-chip-in", title: "This text reaches the release", text: "counts" }) : null,
    caption.decision ? el("span", { class: `pf-chip pf-said-${caption.decision}`, text: verdictText(caption) }) : null,
    ...flagChips(caption)),
  editing ? editor(card, caption, acts)
    : failed ? el("p", { class: "pf-bad", text: `failed: ${words(caption.reason || "unknown")}${caption.message ? ` (${clip(caption.message, 300)})` : ""}` })
      : text(shownOf(caption), compared || plain),
  plain && !compared && !editing && !failed ? el("div", { class: "pf-muted pf-small" }, "marked: what guesses or interprets · ",
    el("button", { type: "button", class: "pf-cap-inline", text: "take it out", title: "Keep the caption without these sentences (C)", on: { click: (event) => { event.stopPropagation(); acts.clean(card, caption); } } })) : null,
  caption.edited && !editing ? el("details", { class: "pf-small" }, el("summary", { text: "as the model wrote it" }), text(caption.caption || "", caption.edited)) : null,
  el("div", { class: "pf-muted pf-small", text: measures(caption) }),
  isPicked && caption.decision === "reject" && state.cursor === card.id ? why(card, caption, acts) : null);
};

const verdictText = (caption) => {
  const by = caption.curator ? ` by ${clip(caption.curator, 40)}` : "";
  if (caption.decision === "reject") return `✕ rejected${by}${caption.said ? `: ${clip(caption.said, 80)}` : ""}`;
  return caption.edited ? `✎ edited${by}` : `✓ kept${by}`;
};

const why = (card, caption, acts) => el("div", { class: "pf-tools pf-cap-why" }, el("span", { class: "pf-muted", text: "Why?" }),
  ...acts.reasons.map((reason) => el("button", { type: "button", class: "pf-button pf-small", "aria-pressed": caption.said === reason ? "true" : "false", text: reason,
    on: { click: (event) => { event.stopPropagation(); acts.because(card, caption, reason); } } })));

const editor = (card, caption, acts) => {
  const field = el("textarea", { class: "pf-input pf-cap-edit", "aria-label": "The caption as it should be", maxlength: MOST_SIGNS, rows: 6, on: {
    input: () => { state.editing.text = field.value; },
    keydown: (event) => {
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); acts.stopEditing(card); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); acts.saveEdit(card, caption, field.value); }
    },
  } });
  field.value = state.editing.text;
  return el("div", { class: "pf-cap-editing" }, field, el("div", { class: "pf-tools" },
    button("Save", "Ctrl ⏎", "Keep this text; what the model wrote stays beside it", () => acts.saveEdit(card, caption, field.value), "pf-primary"),
    button("Cancel", "Esc", "Leave the caption as it was", () => acts.stopEditing(card))));
};

export const cardNode = (card, acts) => {
  const isHere = state.cursor === card.id;
  const [sign, said] = SAID[card.state];
  const centroid = el("a", { class: "pf-cap-centroid", href: url(`/?centroid=${card.centroid}`), title: "Open this centroid", tabindex: isHere ? null : -1, text: clip(card.label, 60) });
  const node = el("article", { class: `pf-cap pf-cap-${card.state}${isHere ? " pf-cap-here" : ""}`, "data-id": card.id, "data-state": card.state, tabindex: isHere ? 0 : -1,
    "aria-label": `Picture ${card.id}, ${said}`, "aria-current": isHere ? "true" : null,
    on: { click: (event) => { if (!event.target.closest("a, button, textarea, summary")) acts.place(card.id); } } },
  el("div", { class: "pf-cap-side" }, picture(card, () => acts.reveal(card)),
    el("div", { class: "pf-cap-state" }, sign ? el("span", { class: "pf-cap-sign", "aria-hidden": "true", text: sign }) : null, el("span", { text: said })),
    el("div", { class: "pf-small pf-cap-where" }, centroid, el("span", { class: "pf-muted", text: card.picture.width ? `${card.picture.width} × ${card.picture.height}` : "" }))),
  el("div", { class: "pf-cap-main" },
    card.captions.length ? el("div", { class: "pf-cap-blocks" }, ...card.captions.map((caption, place) => block(card, caption, place, acts)))
      : el("p", { class: "pf-muted", text: card.state === "blocked" ? "A list keeps this picture out; nothing of it is shown or released." : "Not captioned yet." }),
    card.alt ? el("p", { class: "pf-cap-alt" }, el("b", { text: "alt text " }), clip(card.alt, 600)) : null));
  return node;
};
