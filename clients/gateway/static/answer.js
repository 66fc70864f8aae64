// One server's answer: the map, the candidates with their origin, the interests, and what was left out.

import { h } from "./dom.js";
import { drawMap } from "./map.js";

const SHOWN_HITS = 8;
const REASONS = {
  DROP_REASON_DUPLICATE: ["better place through another interest", "elsewhere"],
  DROP_REASON_HISTORY: ["clicked already", "clicked"],
  DROP_REASON_EXCLUDED: ["never show", "excluded"],
  DROP_REASON_BELOW_TOP_K: ["below the last candidate", "below"],
  DROP_REASON_AT_MOST: ["enough candidates share its value", "at most"],
  DROP_REASON_DIVERSITY: ["too similar to other candidates", "similar"],
  DROP_REASON_PER_INTEREST_MIN: ["gave its place to another interest", "gave way"],
};
const RULED_OUT = new Set(["DROP_REASON_HISTORY", "DROP_REASON_EXCLUDED"]);
const STATUSES = {
  USER_STATUS_EMPTY_HISTORY: "Nothing clicked: the popular items instead.",
  USER_STATUS_ALL_UNKNOWN: "The model knows none of these items: the popular items instead.",
  USER_STATUS_INVALID: "This user cannot be answered.",
};
const STAGES = ["queue", "encode", "search", "merge"];

/** A coloured number that stands for an interest everywhere on the page. */
export const badge = (interest) =>
  h("span", { class: `badge interest-${interest % 4}`, title: `interest ${interest}` }, String(interest));

/** What two answers have in common, as nodes. */
export function agreement(one, two) {
  const there = new Set(two.candidates.item_ids);
  const shared = one.candidates.item_ids.filter((itemId) => there.has(itemId)).length;
  const same = one.model_version === two.model_version ? "Both servers have the same model. " : "";
  return [same, h("strong", {}, `${shared} of ${one.candidates.item_ids.length}`), " candidates are on both lists."];
}

/** The section for one answer. */
export function renderAnswer(view) {
  const { answer, name } = view;
  const heading = name ? `${name}: model ${answer.model_version}` : "Candidates";
  const mapCard = view.anyMap ? drawMap(view) : noMap(answer.model_version);
  return h("section", { class: "side", "aria-label": heading },
    name && h("h2", { class: "side-name" }, name),
    facts(view),
    h("div", { class: "first" }, mapCard, candidateCard(view)),
    answer.interests.length > 0 && interestCards(view),
    leftOut(view));
}

/** The section for one of two servers that has given no answer; a node says why. */
export function renderUnanswered(name, why) {
  return h("section", { class: "side", "aria-label": `${name}: no answer` }, h("h2", { class: "side-name" }, name), why);
}

function facts({ answer, roundTripMs }) {
  const { timings, candidates } = answer;
  const total = Math.max(timings.total_ms, 0.001);
  const bar = h("div", { class: "stages", "aria-hidden": "true" });
  for (const stage of STAGES) {
    const part = h("span", { class: stage });
    part.style.flexGrow = timings[`${stage}_ms`] / total;
    bar.append(part);
  }
  const words = STAGES.map((stage) => h("li", { class: stage }, `${stage} ${timings[`${stage}_ms`].toFixed(1)}`));
  return h("div", { class: "facts" },
    STATUSES[candidates.status] && h("p", { class: "remark" }, STATUSES[candidates.status]),
    candidates.detail && h("p", { class: "remark" }, candidates.detail),
    h("dl", {},
      h("div", {}, h("dt", {}, "Model"), h("dd", {}, answer.model_version)),
      h("div", {}, h("dt", {}, "Collection"), h("dd", {}, answer.collection)),
      h("div", { class: "time" },
        h("dt", {}, "Time"),
        h("dd", {}, `${timings.total_ms.toFixed(1)} ms in the server, ${roundTripMs.toFixed(0)} ms for this page`, bar, h("ul", { class: "stage-words" }, words)))));
}

function noMap(version) {
  return h("div", { class: "card no-map" },
    h("h3", {}, "Map"),
    h("p", {}, `No map of model ${version}. This makes one:`),
    h("pre", { tabindex: "0" }, "python -m mind.item_map --artifact DIR --output map.json\nrecall-gateway --map map.json ..."));
}

function candidateCard(view) {
  const { answer, clicked, other, question, titleOf, onAdd } = view;
  const { item_ids, scores, interest, fallback } = answer.candidates;
  const origins = originsOf(answer);
  const share = shares(answer);
  const otherRank = new Map(other?.candidates.item_ids.map((itemId, rank) => [itemId, rank]));
  const rows = item_ids.map((itemId, rank) => {
    const also = (origins.get(itemId) ?? []).filter((found) => found !== interest[rank]);
    return h("li", { "data-item": itemId, class: interest[rank] < 0 ? null : `interest-${interest[rank] % 4}` },
      h("span", { class: "rank" }, String(rank + 1)),
      h("span", { class: "title" },
        titleOf(itemId),
        clicked.has(itemId) && h("span", { class: "hit", title: "This user did click it afterwards" }, " ✓", h("span", { class: "visually-hidden" }, " clicked afterwards")),
        other && movement(otherRank.get(itemId), rank)),
      h("span", { class: "found-by" }, interest[rank] < 0 ? h("small", {}, "popular") : [badge(interest[rank]), also.length > 0 && h("span", { class: "also", title: "also found by" }, also.map(badge)), answer.candidates.source[rank] === "SOURCE_NEIGHBOURS" && h("small", { title: "users clicked it soon after one of the newest clicks; the search did not find it" }, "neighbour")]),
      h("span", { class: "score" }, fallback ? `${(scores[rank] * 100).toFixed(2)}%` : scores[rank].toFixed(3)),
      meter(share(scores[rank])),
      h("button", { type: "button", class: "quiet add", "aria-label": `Click ${titleOf(itemId)}`, title: "Suppose they click it", click: () => onAdd(itemId) }, "+"));
  });
  const hits = item_ids.filter((itemId) => clicked.has(itemId)).length;
  return h("div", { class: "card candidates" },
    h("h3", {}, fallback ? "Popular items" : "Candidates"),
    h("p", { class: "hint" },
      item_ids.length ? `${item_ids.length} of ${question.topK} asked for` : "No candidates. A filter that nothing matches leaves none.",
      clicked.size > 0 && `; ✓ this user clicked ${hits} of them afterwards`),
    h("ol", { class: "rows", tabindex: "0", "aria-label": "Candidates, best first" }, rows));
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

function interestCards(view) {
  return h("div", { class: "interests" }, view.answer.interests.map((interest, number) => interestCard(view, interest, number)));
}

function interestCard({ answer, titleOf }, interest, number) {
  const rankOf = new Map(answer.candidates.item_ids.map((itemId, rank) => [itemId, rank]));
  const chosenBy = new Map(answer.candidates.item_ids.map((itemId, rank) => [itemId, answer.candidates.interest[rank]]));
  const fates = new Map(answer.dropped.filter((hit) => hit.interest === number && hit.source !== "SOURCE_NEIGHBOURS" && chosenBy.get(hit.item_id) !== number).map((hit) => [hit.item_id, hit.reason]));
  const share = shares(answer);
  const row = (itemId, index) => {
    const reason = fates.get(itemId);
    const [, short] = REASONS[reason] ?? [reason, reason];
    const fate = reason === "DROP_REASON_DUPLICATE" && chosenBy.has(itemId) ? ["in ", badge(chosenBy.get(itemId))] : reason ? [short] : [`#${rankOf.get(itemId) + 1}`];
    return h("li", { "data-item": itemId, class: reason ? "dropped" : null },
      h("span", { class: "title" }, titleOf(itemId)),
      h("span", { class: "fate" }, fate),
      h("span", { class: "score" }, interest.scores[index].toFixed(3)),
      meter(share(interest.scores[index])));
  };
  const rows = interest.item_ids.map(row);
  // What the question itself rules out comes with the rest, when it is asked for.
  const open = rows.filter((_, index) => !RULED_OUT.has(fates.get(interest.item_ids[index]))).slice(0, SHOWN_HITS);
  const list = h("ol", { class: "rows" }, open);
  const showAll = ({ target }) => {
    list.replaceChildren(...rows);
    target.remove();
    rows[0].tabIndex = -1;
    rows[0].focus();
  };
  const kept = interest.item_ids.length - fates.size;
  return h("div", { class: `card interest interest-${number % 4}` },
    h("h3", {}, badge(number), ` Interest ${number}`),
    h("p", { class: "hint" }, interest.item_ids.length ? `${kept} of ${interest.item_ids.length} hits became candidates` : "Not used for this user."),
    list,
    open.length < rows.length && h("button", { type: "button", class: "quiet more", click: showAll }, `Show all ${rows.length} hits`));
}

function leftOut({ answer, question, titleOf }) {
  const groups = new Map(Object.keys(REASONS).map((reason) => [reason, new Set()]));
  for (const { item_id, reason } of answer.dropped) (groups.get(reason) ?? groups.set(reason, new Set()).get(reason)).add(item_id);
  const parts = [...groups].filter(([, items]) => items.size).map(([reason, items]) =>
    h("details", {},
      h("summary", {}, h("strong", {}, String(items.size)), ` ${(REASONS[reason] ?? [reason])[0]}`),
      h("p", {}, [...items].slice(0, 60).map((itemId) => h("span", { class: "chip", "data-item": itemId }, titleOf(itemId))), items.size > 60 && ` and ${items.size - 60} more`)));
  if (!parts.length && !question.filter) return null;
  return h("div", { class: "card left-out" },
    h("h3", {}, "Left out"),
    question.filter && h("p", { class: "hint" }, "The filter works inside the search: what it removes never becomes a hit. ", h("code", {}, question.filter)),
    parts);
}

/** Lengths of score bars: one scale for the whole answer, from a little under its lowest score to its highest. */
function shares({ candidates, interests }) {
  const scores = [...candidates.scores, ...interests.flatMap((interest) => interest.scores)];
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const start = low - (high - low) * 0.15;
  return (score) => (high > start ? (score - start) / (high - start) : 1);
}

function meter(share) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" });
  bar.style.setProperty("--share", share);
  return bar;
}
