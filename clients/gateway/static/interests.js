// The interests of a user: which clicks made each, what it is about in words, how alike they are, and what each found.

import { badge, beside, meter, shares, wordsOf } from "./candidates.js";
import { h, s } from "./dom.js";
import { link, titleOf, valueOf } from "./items.js";
import { about, cosine } from "./words.js";

const SHOWN_HITS = 8;
const SHOWN_CLICKS = 12;
const THINNEST = 0.01; // share of an interest below which a line would say nothing
const WIDEST = 16; // pixels of a line for a click that made an interest alone
const RULED_OUT = new Set(["DROP_REASON_HISTORY", "DROP_REASON_EXCLUDED", "DROP_REASON_SHOWN"]);

/** The interests that the user has, with their numbers: { number, interest }. */
export const had = (answer) =>
  answer.interests.map((interest, number) => ({ interest, number })).filter(({ interest }) => interest.vector.some(Boolean));

const percent = (share) => `${Math.round(share * 100)} %`;

/** What the first items that an interest found are about, compared with the catalogue. */
const aboutOf = ({ interest }, { catalogue, groups, question }) =>
  about(interest.item_ids.slice(0, question.topK), catalogue, groups, { titleOf, valueOf });

/** The card with a line from each click to each interest; it is drawn anew whenever its size changes. */
export function threads(view) {
  const { answer } = view;
  const interests = had(answer).filter(({ interest }) => interest.weights.length === answer.used_hist_item.length);
  if (!interests.length || !answer.used_hist_item.length) return null;
  const heaviest = (place) => Math.max(...interests.map(({ interest }) => interest.weights[place]));
  const clicks = answer.used_hist_item.map((itemId, place) => ({ itemId, place }))
    .sort((one, two) => heaviest(two.place) - heaviest(one.place)).slice(0, SHOWN_CLICKS)
    .sort((one, two) => two.place - one.place);
  const left = h("ol", { class: "thread-clicks", "aria-label": "Clicks, newest first" },
    clicks.map(({ itemId }) => h("li", { "data-item": itemId }, link(itemId, "click"))));
  const right = h("ol", { class: "thread-interests", "aria-label": "Interests" }, interests.map((one) => box(one, view)));
  const lines = s("svg", { "aria-hidden": "true" });
  const frame = h("div", { class: "thread-frame" }, left, h("div", { class: "thread-lines" }, lines), right);
  new ResizeObserver(() => draw(lines, left, right, clicks, interests)).observe(frame);
  const all = answer.used_hist_item.length;
  return h("div", { class: "card threads" },
    h("h3", {}, "Which clicks made each interest"),
    h("p", { class: "hint" }, "The wider the line, the more a click counts in the interest.",
      clicks.length < all && ` These are the ${clicks.length} of ${all} clicks that count most.`),
    frame);
}

function box({ interest, number }, view) {
  const { answer, question } = view;
  const found = answer.candidates.interest.filter((one) => one === number).length;
  const made = answer.used_hist_item.map((itemId, place) => [itemId, interest.weights[place]]).sort((one, two) => two[1] - one[1]);
  return h("li", { class: `interest-${number % 4}` },
    h("p", {}, badge(number), h("span", {}, h("strong", {}, inWords(aboutOf({ interest }, view))),
      h("small", {}, ` ${found} of ${answer.candidates.item_ids.length} candidates`))),
    h("p", { class: "visually-hidden" }, `Made by ${made.slice(0, 3).map(([itemId, weight]) => `${titleOf(itemId)} ${percent(weight)}`).join(", ")}`));
}

/** An interest in a few words. */
function inWords({ values, words }) {
  const parts = [values.map(({ text }) => text).join(", "), words.join(", ")].filter(Boolean);
  return parts.length ? parts.join(" · ") : "nothing that is typical";
}

function draw(lines, left, right, clicks, interests) {
  const { width, height, left: x, top: y } = lines.getBoundingClientRect();
  if (!width) return;
  const middle = (element) => { const { top, height: own } = element.getBoundingClientRect(); return top + own / 2 - y; };
  lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const starts = [...left.children].map((row) => [row.getBoundingClientRect().right - x, middle(row)]);
  const ends = [...right.children].map(middle);
  lines.replaceChildren(...interests.flatMap(({ interest, number }, line) => clicks.flatMap(({ itemId, place }, row) => {
    const weight = interest.weights[place];
    if (weight < THINNEST) return [];
    const [from, start] = starts[row];
    return [s("path", {
      class: `thread interest-${number % 4}`,
      "data-item": itemId,
      "stroke-width": Math.max(WIDEST * weight, 0.75).toFixed(2),
      d: `M${Math.max(from, 0).toFixed(1)} ${start.toFixed(1)}C${(width / 2).toFixed(1)} ${start.toFixed(1)} ${(width / 2).toFixed(1)} ${ends[line].toFixed(1)} ${width.toFixed(1)} ${ends[line].toFixed(1)}`,
    })];
  })));
}

/** A card for each interest that the user has. */
export function interestCards(view) {
  const interests = had(view.answer);
  return h("div", { class: "interests" }, interests.map((one) => interestCard(view, one, interests)));
}

function interestCard(view, { interest, number }, interests) {
  const { answer } = view;
  const rankOf = new Map(answer.candidates.item_ids.map((itemId, rank) => [itemId, rank]));
  const chosenBy = new Map(answer.candidates.item_ids.map((itemId, rank) => [itemId, answer.candidates.interest[rank]]));
  const fates = new Map(answer.dropped.filter((hit) => hit.interest === number && hit.source !== "SOURCE_NEIGHBOURS" && chosenBy.get(hit.item_id) !== number).map((hit) => [hit.item_id, hit]));
  const share = shares(answer);
  const row = (itemId, index) => {
    const hit = fates.get(itemId);
    const reason = hit?.reason;
    const fate = reason === "DROP_REASON_DUPLICATE" && chosenBy.has(itemId) ? ["in ", badge(chosenBy.get(itemId))] : reason ? [wordsOf(hit)[1]] : [`#${rankOf.get(itemId) + 1}`];
    return h("li", { "data-item": itemId, class: reason ? "dropped" : null },
      h("span", { class: "title" }, link(itemId, `interest ${number}`), beside(itemId, view)),
      h("span", { class: "fate" }, fate),
      h("span", { class: "score" }, interest.scores[index].toFixed(3)),
      meter(share(interest.scores[index])));
  };
  const rows = interest.item_ids.map(row);
  // What the question itself rules out comes with the rest, when it is asked for.
  const open = rows.filter((_, index) => !RULED_OUT.has(fates.get(interest.item_ids[index])?.reason)).slice(0, SHOWN_HITS);
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
    compared(aboutOf({ interest }, view)),
    alike(interest, number, interests),
    h("p", { class: "hint" }, `${kept} of ${interest.item_ids.length} hits became candidates`),
    list,
    open.length < rows.length && h("button", { type: "button", class: "quiet more", click: showAll }, `Show all ${rows.length} hits`));
}

/** What is typical of an interest, with the shares that say so. */
function compared({ values, words }) {
  if (!values.length && !words.length) return null;
  return h("p", { class: "about" },
    values.map(({ text, share, usual }, place) => [place > 0 && ", ", h("strong", {}, text), h("small", {}, ` ${percent(share)}, catalogue ${percent(usual)}`)]).flat(),
    values.length > 0 && words.length > 0 && " · ",
    words.length > 0 && words.join(", "));
}

function alike({ vector }, number, interests) {
  const others = interests.filter((other) => other.number !== number);
  if (!others.length) return null;
  return h("p", { class: "hint alike" }, "cosine ",
    others.map((other, place) => [place > 0 && ", ", `${cosine(vector, other.interest.vector).toFixed(2)} with `, badge(other.number)]).flat());
}
