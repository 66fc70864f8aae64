// One server's answer: the candidates, the map, what made the interests, what each found, and what was left out.

import { candidateCard, REASONS, wordsOf } from "./candidates.js";
import { h } from "./dom.js";
import { had, interestCards, threads } from "./interests.js";
import { link } from "./items.js";
import { drawMap } from "./map.js";

const STATUSES = {
  USER_STATUS_EMPTY_HISTORY: "Nothing clicked: the popular items instead.",
  USER_STATUS_ALL_UNKNOWN: "The model knows none of these items: the popular items instead.",
  USER_STATUS_INVALID: "This user cannot be answered.",
};
const STAGES = ["queue", "encode", "search", "merge"];

/** What two answers have in common, as nodes. */
export function agreement(one, two) {
  const there = new Set(two.candidates.item_ids);
  const shared = one.candidates.item_ids.filter((itemId) => there.has(itemId)).length;
  const same = one.model_version === two.model_version ? "Both servers have the same model. " : "";
  return [same, h("strong", {}, `${shared} of ${one.candidates.item_ids.length}`), " candidates are on both lists."];
}

/** What the page shows now, in a sentence. */
export function lead({ candidates, interests, used_hist_item }, who, sides) {
  const number = candidates.item_ids.length;
  const where = sides > 1 ? ", as two servers answer" : "";
  if (candidates.fallback) return `The ${number} most popular items, because nothing is known of ${who}${where}.`;
  const found = had({ interests }).length;
  const [items, things, clicks] = [number === 1 ? "item" : "items", found === 1 ? "interest" : "interests", used_hist_item.length === 1 ? "click" : "clicks"];
  return `The ${number} ${items} that the model suggests for ${who}, best first, and why: ${found} ${things} found them, made by ${used_hist_item.length} ${clicks}${where}.`;
}

/** The section for one answer. */
export function renderAnswer(view) {
  const { answer, name } = view;
  const heading = name ? `${name}: model ${answer.model_version}` : "Candidates";
  const mapCard = view.anyMap ? drawMap(view) : noMap(answer.model_version);
  return h("section", { class: "side", "aria-label": heading },
    name && h("h2", { class: "side-name" }, name),
    remarks(answer),
    h("div", { class: "first" }, candidateCard(view), mapCard),
    threads(view),
    had(answer).length > 0 && interestCards(view),
    leftOut(view),
    facts(view));
}

/** The section for one of two servers that has given no answer; a node says why. */
export function renderUnanswered(name, why) {
  return h("section", { class: "side", "aria-label": `${name}: no answer` }, h("h2", { class: "side-name" }, name), why);
}

/** What the reader must know about the list; nothing if nothing is unusual. */
function remarks({ candidates, attributes_detail }) {
  const left = attributes_detail && `Attributes are left out: ${attributes_detail}`;
  return [STATUSES[candidates.status], candidates.detail, left].filter(Boolean).map((remark) => h("p", { class: "remark" }, remark));
}

function facts({ answer, roundTripMs }) {
  const { timings } = answer;
  const total = Math.max(timings.total_ms, 0.001);
  const bar = h("div", { class: "stages", "aria-hidden": "true" });
  for (const stage of STAGES) {
    const part = h("span", { class: stage });
    part.style.flexGrow = timings[`${stage}_ms`] / total;
    bar.append(part);
  }
  const words = STAGES.map((stage) => h("li", { class: stage }, `${stage} ${timings[`${stage}_ms`].toFixed(1)}`));
  return h("div", { class: "facts" },
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

function leftOut({ answer, question }) {
  const groups = new Map(Object.values(REASONS).map(([sentence]) => [sentence, new Set()]));
  for (const hit of answer.dropped) {
    const [sentence] = wordsOf(hit);
    (groups.get(sentence) ?? groups.set(sentence, new Set()).get(sentence)).add(hit.item_id);
  }
  const parts = [...groups].filter(([, items]) => items.size).map(([sentence, items]) =>
    h("details", {},
      h("summary", {}, h("strong", {}, String(items.size)), ` ${sentence}`),
      h("p", {}, [...items].slice(0, 60).map((itemId) => h("span", { class: "chip", "data-item": itemId }, link(itemId, sentence))), items.size > 60 && ` and ${items.size - 60} more`)));
  if (!parts.length && !question.filter) return null;
  return h("div", { class: "card left-out" },
    h("h3", {}, "Left out"),
    question.filter && h("p", { class: "hint" }, "The filter works inside the search: what it removes never becomes a hit. ", h("code", {}, question.filter)),
    parts);
}
