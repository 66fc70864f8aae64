// The list of candidates, and what all lists of items on the page share.

import { h } from "./dom.js";
import { link, shown, titleOf, valueOf } from "./items.js";

/** Why hits are left out: in a sentence, and in a word. */
export const REASONS = {
  DROP_REASON_DUPLICATE: ["better place through another interest", "elsewhere"],
  DROP_REASON_HISTORY: ["clicked already", "clicked"],
  DROP_REASON_EXCLUDED: ["never show", "excluded"],
  DROP_REASON_SHOWN: ["shown before", "shown"],
  DROP_REASON_AT_MOST: ["enough candidates share its value", "at most"],
  DROP_REASON_DIVERSITY: ["too similar to other candidates", "similar"],
  DROP_REASON_PER_INTEREST_MIN: ["gave its place to another interest", "gave way"],
  DROP_REASON_BELOW_TOP_K: ["below the last candidate", "below"],
};

/** Why a hit is left out, in a sentence and in a word, with the attributes of at_most that dropped it. */
export function wordsOf({ reason, at_most: attributes = [] }) {
  const [sentence, word] = REASONS[reason] ?? [reason, reason];
  if (!attributes.length) return [sentence, word];
  return [`enough candidates share its ${attributes.join(" and its ")}`, `${word}: ${attributes.join(", ")}`];
}

/** A coloured number that stands for an interest everywhere on the page. */
export const badge = (interest) =>
  h("span", { class: `badge interest-${interest % 4}`, title: `interest ${interest}` }, String(interest));

/** The attributes of an item that are shown under its title. */
export function beside(itemId, { names }) {
  const parts = names.map((name) => [name, valueOf(itemId, name)]).filter(([, value]) => shown(value) !== "");
  if (!parts.length) return null;
  const texts = parts.map(([name, value]) => (typeof value === "string" || Array.isArray(value) ? shown(value) : `${name} ${shown(value)}`));
  return h("small", { class: "beside" }, texts.join(" · "));
}

/** The card with the candidates. */
export function candidateCard(view) {
  const { answer, clicked, other, question, onAdd } = view;
  const { item_ids, scores, interest, fallback } = answer.candidates;
  const origins = originsOf(answer);
  const share = shares(answer);
  const otherRank = new Map(other?.candidates.item_ids.map((itemId, rank) => [itemId, rank]));
  const rows = item_ids.map((itemId, rank) => {
    const also = (origins.get(itemId) ?? []).filter((found) => found !== interest[rank]);
    return h("li", { "data-item": itemId, class: interest[rank] < 0 ? null : `interest-${interest[rank] % 4}` },
      h("span", { class: "rank" }, String(rank + 1)),
      h("span", { class: "title" },
        link(itemId, "candidate"),
        clicked.has(itemId) && h("span", { class: "hit", title: "This user did click it afterwards" }, " ✓", h("span", { class: "visually-hidden" }, " clicked afterwards")),
        other && movement(otherRank.get(itemId), rank),
        beside(itemId, view)),
      h("span", { class: "found-by" }, interest[rank] < 0 ? h("small", {}, "popular") : [badge(interest[rank]), also.length > 0 && h("span", { class: "also", title: "also found by" }, also.map(badge)), answer.candidates.source[rank] === "SOURCE_NEIGHBOURS" && h("small", { title: "users clicked it soon after one of the newest clicks; the search did not find it" }, "neighbour")]),
      h("span", { class: "score" }, fallback ? `${(scores[rank] * 100).toFixed(2)}%` : scores[rank].toFixed(3)),
      meter(share(scores[rank])),
      h("button", { type: "button", class: "quiet add", "aria-label": `Click ${titleOf(itemId)}`, "data-focus": `add ${itemId}`, title: "Suppose they click it", click: () => onAdd(itemId) }, "+"));
  });
  const hits = item_ids.filter((itemId) => clicked.has(itemId)).length;
  return h("div", { class: "card candidates" },
    h("h3", {}, fallback ? "Popular items" : "Candidates"),
    h("p", { class: "hint" },
      item_ids.length ? `${item_ids.length} of ${question.topK} asked for` : "No candidates. A filter that nothing matches leaves none.",
      clicked.size > 0 && `; ✓ this user clicked ${hits} of them afterwards`),
    item_ids.length > 0 && legend(answer),
    h("ol", { class: "rows", tabindex: "0", "data-focus": "candidates", "aria-label": "Candidates, best first" }, rows));
}

function legend({ candidates, interests }) {
  return h("ul", { class: "legend" },
    !candidates.fallback && h("li", {}, badge(candidates.interest[0]), "the interest that scores it best"),
    !candidates.fallback && interests.length > 1 && h("li", {}, h("span", { class: "also" }, badge(candidates.interest[0])), "found by this one too"),
    h("li", {}, candidates.fallback ? "the number: its share of all clicks" : "the bar and the number: its score"),
    h("li", {}, h("span", {}, "+"), "adds it to the clicks"));
}

function movement(there, here) {
  if (there === undefined) return h("small", { class: "move only" }, " only here");
  if (there === here) return null;
  return h("small", { class: "move" }, ` ${there > here ? "▲" : "▼"}${Math.abs(there - here)}`,
    h("span", { class: "visually-hidden" }, there > here ? " places higher than there" : " places lower than there"));
}

/** Which interests found each item. */
function originsOf(answer) {
  const origins = new Map();
  answer.interests.forEach(({ item_ids }, number) => {
    for (const itemId of item_ids) origins.set(itemId, [...(origins.get(itemId) ?? []), number]);
  });
  return origins;
}

/** Lengths of score bars: one scale for the whole answer, from a little under its lowest score to its highest. */
export function shares({ candidates, interests }) {
  const scores = [...candidates.scores, ...interests.flatMap((interest) => interest.scores)];
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const start = low - (high - low) * 0.15;
  return (score) => (high > start ? (score - start) / (high - start) : 1);
}

export function meter(share) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" });
  bar.style.setProperty("--share", share);
  return bar;
}
