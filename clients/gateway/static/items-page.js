// The items' page: one item, its attributes, the items similar to it by embedding and by clicks, and who gets it.

import * as api from "./api.js";
import { themeButton } from "./bar.js";
import { beside, meter } from "./candidates.js";
import * as catalogue from "./catalogue.js";
import { byId, h } from "./dom.js";
import { searchBox } from "./history.js";
import * as items from "./items.js";
import { START, fromItemHash, idsIn, toHash, toItemHash } from "./state.js";

const SIMILAR = 20;
const POPULAR = 20;
const RECALLED = 100; // how many candidates of a user are looked through for the item
const KINDS = [
  { by: "embedding", heading: "Similar to the model", hint: "Its embedding points the same way. The number is the cosine.", nothing: "Its embedding has no direction to compare." },
  { by: "neighbours", heading: "Clicked soon after", hint: "Users clicked it soon after this item, at once or up to 20 clicks later. The number is the weight.", nothing: "Nothing is known of what users click after it." },
];
const SOURCES = {
  trained: "the model learned it",
  given: "was given with the item",
  neighbours: "comes from items that users clicked together with it",
  attributes: "comes from items with similar attributes",
};

let setup = { has_titles: false, users: [] };
let textIds = false;
let asked = new AbortController();

/** Shows the item of the address, or popular ones without one. */
async function show() {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const itemId = fromItemHash(location.hash);
  byId("item").setAttribute("aria-busy", "true");
  byId("problem").hidden = true;
  try {
    const [content, said] = itemId === null ? await start() : await itemView(itemId, signal);
    if (signal.aborted) return;
    byId("item").replaceChildren(...content.filter(Boolean));
    byId("said").textContent = said;
    document.title = itemId === null ? "mind-recall items" : `${items.titleOf(itemId)} · mind-recall`;
  } catch (error) {
    if (signal.aborted) return;
    byId("item").replaceChildren();
    byId("problem").hidden = false;
    byId("problem").replaceChildren(
      h("div", {}, h("strong", {}, error.title ?? "Something went wrong"), h("p", {}, error.detail ?? String(error)), error.reason && h("code", {}, error.reason)),
      h("button", { type: "button", click: show }, "Try again"));
  }
  byId("item").setAttribute("aria-busy", "false");
}

async function start() {
  const popular = await api.popular(POPULAR);
  await items.learn(popular).catch(() => {});
  const rows = popular.map((itemId) => row(itemId, null, 0));
  return [[h("section", { class: "card", "aria-label": "Popular items" }, h("h2", {}, "Popular items"), h("ol", { class: "rows similar-rows" }, rows))], ""];
}

async function itemView(itemId, signal) {
  const [, ...lists] = await Promise.all([
    items.learn([itemId]).catch(() => {}),
    ...KINDS.map(({ by }) => api.similar(itemId, by, SIMILAR, items.wanted("main"), signal).catch((error) => ({ error }))),
  ]);
  const [first] = lists;
  if (first.error) throw first.error;
  for (const { answer } of lists) if (answer) items.keep(answer.item_ids, answer.attributes);
  await items.learn(lists.flatMap(({ answer }) => answer?.item_ids ?? [])).catch(() => {});
  const isKnown = first.answer.status === "ITEM_STATUS_OK" || first.answer.status === "ITEM_STATUS_DEGRADED";
  const title = items.titleOf(itemId);
  const content = [about(itemId, title, isKnown)];
  if (isKnown) content.push(h("div", { class: "similar" }, KINDS.map((kind, place) => similarCard(kind, lists[place]))), whoGets(itemId));
  return [content, isKnown ? `${title}: ${first.answer.item_ids.length} similar items` : `${title} is unknown`];
}

function about(itemId, title, isKnown) {
  const told = items.attributes().map(({ name }) => [name, items.valueOf(itemId, name)]).filter(([, value]) => items.shown(value) !== "");
  const others = told.filter(([name]) => name !== "vector_source");
  const source = items.valueOf(itemId, "vector_source");
  const hash = toHash({ ...START, history: [itemId] });
  return h("section", { class: "card about-item", "aria-labelledby": "item-title" },
    h("h2", { id: "item-title" }, title),
    h("dl", {},
      fact("id", itemId),
      others.map(([name, value]) => fact(name, items.shown(value))),
      source && fact("vector", SOURCES[source] ?? source)),
    isKnown
      ? h("p", {}, h("a", { href: `/${hash}` }, "Candidates for somebody who clicked it"))
      : h("p", { class: "remark" }, "Neither the model nor the collection knows this item."));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function similarCard({ by, heading, hint, nothing }, { answer, error }) {
  const values = by === "neighbours" ? answer?.weights : answer?.scores;
  const most = Math.max(...(values ?? []), 1e-9);
  return h("section", { class: "card", "aria-label": heading },
    h("h3", {}, heading),
    h("p", { class: "hint" }, error ? error.reason === "NO_NEIGHBOURS" ? "The model of this release has no neighbours." : error.detail : hint),
    answer && (answer.item_ids.length
      ? h("ol", { class: "rows similar-rows" }, answer.item_ids.map((itemId, place) => row(itemId, values[place], values[place] / most)))
      : h("p", {}, nothing)));
}

function row(itemId, value, share) {
  return h("li", { "data-item": itemId },
    h("span", { class: "title" }, items.link(itemId), beside(itemId, { names: items.usual() })),
    value !== null && h("span", { class: "score" }, value.toFixed(3)),
    value !== null && meter(Math.max(share, 0)));
}

/** The example users whose candidates have the item; asked for when somebody wants to know. */
function whoGets(itemId) {
  const users = setup.users.slice(0, items.limits().max_users ?? 200);
  if (!users.length) return null;
  const list = h("div", {});
  const button = h("button", { type: "button", click: async () => {
    button.disabled = true;
    list.replaceChildren(h("p", { class: "hint" }, "Asking for their candidates."));
    try {
      list.replaceChildren(...getting(itemId, users, await api.candidates(users.map(({ hist_item }) => ({ hist_item })), Math.min(RECALLED, items.limits().max_top_k ?? RECALLED))));
    } catch (error) {
      list.replaceChildren(h("p", { class: "remark" }, error.detail ?? String(error)));
    }
    button.disabled = false;
  } }, `Ask for ${users.length} example users`);
  return h("section", { class: "card who-gets", "aria-label": "Who gets it" },
    h("h3", {}, "Who gets it"),
    h("p", { class: "hint" }, `Which example users have it among their first ${RECALLED} candidates.`),
    h("p", {}, button), list);
}

function getting(itemId, users, results) {
  const found = results.map(({ item_ids }, place) => ({ user: users[place], rank: item_ids.indexOf(itemId) + 1 }))
    .filter(({ rank }) => rank > 0).sort((one, two) => one.rank - two.rank);
  const had = users.filter(({ hist_item }) => hist_item.includes(itemId)).length;
  return [
    h("p", { role: "status" }, `${found.length} of ${users.length} users get it.${had ? ` ${had} clicked it already, so it is left out for them.` : ""}`),
    h("ol", { class: "rows similar-rows" }, found.map(({ user, rank }) => h("li", {},
      h("span", { class: "title" }, h("a", { href: `/${toHash({ ...START, user: user.user_id, history: user.hist_item, topK: RECALLED })}` }, `user ${user.user_id}`)),
      h("span", { class: "score" }, `place ${rank}`)))),
  ];
}

async function follow() {
  const info = await api.info("main");
  items.useRelease("main", info);
  textIds = info.id_type === "ID_TYPE_TEXT";
  byId("served").textContent = `${Number(info.item_count).toLocaleString("en")} items · model ${info.model_version}`;
}

async function open() {
  themeButton();
  await Promise.all([follow(), api.setup().then((found) => { setup = found; })].map((asking) => asking.catch(() => {})));
  items.useFile(setup.has_titles);
  byId("add-label").textContent = items.hasTitles() ? "Find an item by title or id" : "Find an item by id";
  searchBox({
    search: (text, signal) => (setup.has_titles ? api.search(text, signal) : catalogue.search(text, signal)),
    typedIds: (text) => ({ ids: idsIn(text, textIds)?.slice(0, 1), areText: textIds }),
    offer: () => "Show the item with this id",
    onAdd: ([itemId]) => { location.hash = toItemHash(itemId); },
    onRemoveNewest: () => {},
  });
  window.addEventListener("hashchange", () => show().then(() => window.scrollTo(0, 0)));
  await show();
}

open();
