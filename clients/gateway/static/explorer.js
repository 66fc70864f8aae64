// The explorer page: one user, what the model makes of the user's clicks, and where every candidate comes from.

import * as api from "./api.js";
import { themeButton, viewButton } from "./bar.js";
import { agreement, lead, renderAnswer, renderUnanswered } from "./answer.js";
import * as catalogue from "./catalogue.js";
import { byId, h } from "./dom.js";
import { filterBox } from "./filter.js";
import { searchBox, showHistory } from "./history.js";
import * as items from "./items.js";
import { differing } from "./opening.js";
import { START, fromHash, idsIn, toBody, toHash } from "./state.js";

const SERVERS = ["main", "compared"];
const NAMES = ["This server", "Second server"];
const POPULAR_EXAMPLES = 12;
const PATIENCE_MS = 700; // how long an answer waits for the titles of its items
const INPUT_OF_FIELD = { filter: "filter", top_k: "top-k" };

const maps = new Map();
let setup = { compares: false, has_titles: false, maps: [], users: [] };
let state = { ...START };
let sides = []; // one for each server: its answer to what is asked now or its error, nothing while it has not answered
let served = "";
let textIds = false; // whether the release has text ids
let asked = new AbortController();

/** Changes what is asked, and asks. */
function change(changes) {
  keep(changes);
  showQuestion();
  return ask();
}

/** Changes what is asked or shown, and keeps it in the address. */
function keep(changes) {
  state = { ...state, ...changes };
  history.replaceState(null, "", toHash(state));
}

/** Only when something was chosen: an answer that comes while somebody types must not touch the inputs. */
function showQuestion() {
  const known = setup.users.some(({ user_id }) => user_id === state.user);
  byId("user").value = known ? state.user : "";
  byId("top-k").value = state.topK;
  byId("merge").value = state.merge;
  byId("filter").value = state.filter;
  byId("exclude").value = state.exclude.join(", ");
  byId("exclude-history").checked = state.excludeHistory;
  byId("compare").checked = state.compare;
  const names = state.shown ?? items.usual();
  for (const box of byId("shown").querySelectorAll("input")) box.checked = names.includes(box.value);
}

function showClicks() {
  showHistory({
    history: state.history,
    titleOf: items.titleOf,
    answer: sides.find(({ answer }) => answer)?.answer,
    onRemove: (index) => {
      change({ history: state.history.filter((_, other) => other !== index) });
      byId("add").focus();
    },
  });
}

/** Asks every server. Until the first has answered, what is shown is dimmed: it answers another question. */
async function ask() {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const main = byId("answers");
  const servers = state.compare && setup.compares ? SERVERS : SERVERS.slice(0, 1);
  main.setAttribute("aria-busy", "true");
  main.classList.add("stale");
  byId("lead").classList.add("stale");
  sides = servers.map(() => ({}));
  showClicks();
  items.learn(state.history).then((learned) => learned && showClicks(), () => {}); // an answer may never come
  await Promise.all(servers.map(async (server, index) => {
    const side = await askOne(server, signal).catch((error) => ({ error }));
    if (signal.aborted) return;
    sides[index] = side;
    main.classList.remove("stale");
    byId("lead").classList.remove("stale");
    show();
  }));
  if (!signal.aborted) main.setAttribute("aria-busy", "false");
}

async function askOne(server, signal) {
  const started = performance.now();
  const answer = await api.explain(toBody(state, items.wanted(server)), server, signal);
  const roundTripMs = performance.now() - started;
  items.keepTitles(answer.titles);
  items.keep(answer.candidates.item_ids, answer.candidates.attributes);
  const found = answer.interests.flatMap((interest) => interest.item_ids);
  const learning = items.learn([...found, ...answer.dropped.map((hit) => hit.item_id), ...answer.candidates.item_ids], server)
    .then((learned) => { if (learned && !signal.aborted && sides.some((side) => side.answer === answer)) show(true); }, () => {});
  const map = await mapOf(answer.model_version).catch(() => null);
  await Promise.race([learning, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
  return { answer, roundTripMs, map };
}

/** The map of a model's items, null if the gateway has none; asked for once. */
async function mapOf(version) {
  if (!setup.maps.includes(version)) return null;
  if (!maps.has(version)) maps.set(version, await api.itemMap(version));
  return maps.get(version);
}

/** Shows what the servers answered; `isSame` says that only more is known of the same answers. */
function show(isSame = false) {
  const answers = sides.map(({ answer }) => answer).filter(Boolean);
  const errors = sides.map(({ error }) => error).filter(Boolean);
  const allAlike = errors.length === sides.length && new Set(errors.map(({ title, detail }) => `${title} ${detail}`)).size === 1;
  if (allAlike) showProblem(errors[0]);
  else byId("problem").hidden = true;
  blame(errors.find(({ field }) => field)?.field);
  const focused = document.activeElement?.closest("#sides [data-focus]");
  const side = focused && [...byId("sides").children].indexOf(focused.closest(".side"));
  const scrolled = [...byId("sides").children].map((one) => one.querySelector(".candidates .rows")?.scrollTop ?? 0);
  byId("sides").replaceChildren(...(allAlike ? [] : sides.map(renderSide)));
  [...byId("sides").children].forEach((one, place) => {
    const list = one.querySelector(".candidates .rows");
    if (list && isSame) list.scrollTop = scrolled[place] ?? 0;
    if (focused && place === side) one.querySelector(`[data-focus="${CSS.escape(focused.dataset.focus)}"]`)?.focus();
  });
  byId("sides").classList.toggle("two", sides.length > 1);
  const common = byId("agreement");
  common.hidden = answers.length < 2;
  if (answers.length > 1) common.replaceChildren(...agreement(...answers));
  showClicks();
  const [first] = answers;
  byId("lead").textContent = first ? lead(first, state.user ? `user ${state.user}` : "these clicks", sides.length) : "";
  byId("said").textContent = first ? `${first.candidates.item_ids.length} candidates from ${first.interests.length} interests` : "";
  if (sides[0].answer && first.model_version !== served) followRelease().catch(() => {});
}

function renderSide({ answer, error, roundTripMs, map }, index) {
  const name = sides.length > 1 ? NAMES[index] : null;
  if (error) return renderUnanswered(name, h("div", { class: "problem", role: "alert" }, problemIn(error)));
  if (!answer) return renderUnanswered(name, h("p", { class: "hint" }, "It has not answered yet."));
  const other = sides[1 - index];
  const clicked = new Set(setup.users.find(({ user_id }) => user_id === state.user)?.eval_item);
  return renderAnswer({
    answer,
    roundTripMs,
    map,
    anyMap: map ?? other?.map ?? null,
    name,
    other: other?.answer ?? null,
    clicked,
    question: state,
    names: state.shown ?? items.usual(),
    catalogue: catalogue.sample(),
    groups: catalogue.groups(),
    learn: items.learn,
    onAdd: (itemId) => change({ history: [...state.history, itemId] }),
    onColour: (colour) => { keep({ colour }); colourMap(); show(true); },
  });
}

function showProblem(error) {
  byId("problem").hidden = false;
  byId("problem").replaceChildren(...problemIn(error));
}

function problemIn(error) {
  return [
    h("div", {}, h("strong", {}, error.title ?? "Something went wrong"), h("p", {}, error.detail ?? String(error)), error.reason && h("code", {}, error.reason)),
    h("button", { type: "button", click: ask }, "Try again"),
  ];
}

/** Marks the input of the field at fault, and no other. */
function blame(fault) {
  for (const [field, id] of Object.entries(INPUT_OF_FIELD)) byId(id).setAttribute("aria-invalid", String(field === fault));
}

/** Learns what the map's items are, if it is coloured by an attribute. */
async function colourMap() {
  const map = sides.find((side) => side.map)?.map;
  if (state.colour && map && await items.learn(map.item_ids).catch(() => false)) show(true);
}

/** Learns what the catalogue has, and shows it in the answers. */
async function learnCatalogue() {
  await catalogue.learn(sides.find((side) => side.map)?.map, Number(byId("top-k").max));
  show(true);
}

async function offerUsers() {
  if (!setup.users.length) {
    const popular = await api.popular(POPULAR_EXAMPLES).catch(() => []);
    await items.learn(popular).catch(() => {});
    setup.users = popular.map((itemId) => ({ user_id: `clicked ${items.titleOf(itemId)}`, hist_item: [itemId], eval_item: [], made: true }));
  }
  const options = setup.users.map(({ user_id, hist_item, made }) =>
    h("option", { value: user_id }, made ? user_id : `user ${user_id} · ${hist_item.length} clicks`));
  byId("user").replaceChildren(h("option", { value: "" }, "your own"), ...options);
}

const choose = (user) => change({ user: user.user_id, history: [...user.hist_item] });

function connect() {
  byId("add-label").textContent = items.hasTitles() ? "Add an item by title or id" : "Add an item by id";
  filterBox({ attributes: () => [{ name: "item_id", type: textIds ? "VARCHAR" : "INT64" }, ...items.filterable()], valuesOf: catalogue.valuesOf });
  searchBox({
    search: (text, signal) => (setup.has_titles ? api.search(text, signal) : catalogue.search(text, signal)),
    typedIds: (text) => ({ ids: idsIn(text, textIds), areText: textIds }),
    offer: (count) => (count > 1 ? `Add ${count} items` : "Add the item with this id"),
    onAdd: (itemIds) => change({ history: [...state.history, ...itemIds] }),
    onRemoveNewest: () => change({ history: state.history.slice(0, -1) }),
  });
  byId("user").addEventListener("change", ({ target }) => {
    const user = setup.users.find(({ user_id }) => user_id === target.value);
    if (user) choose(user);
    else change({ user: "" });
  });
  byId("another").addEventListener("click", () => {
    const others = setup.users.filter(({ user_id }) => user_id !== state.user);
    if (others.length) choose(others[Math.floor(Math.random() * others.length)]);
  });
  byId("clear").addEventListener("click", () => { change({ user: "", history: [] }); byId("add").focus(); });
  byId("question").addEventListener("change", readQuestion);
  byId("question").addEventListener("submit", (event) => { event.preventDefault(); readQuestion(); });
  window.addEventListener("hashchange", () => {
    const next = fromHash(location.hash);
    if (next && toHash(next) !== toHash(state)) change(next);
  });
  document.addEventListener("pointerover", light);
  document.addEventListener("focusin", light);
}

function readQuestion() {
  const exclude = idsIn(byId("exclude").value, textIds);
  byId("exclude").setCustomValidity(exclude ? "" : "Item ids are whole numbers, such as 50, 181");
  if (!byId("question").reportValidity()) return;
  const next = {
    topK: byId("top-k").valueAsNumber,
    merge: byId("merge").value,
    filter: byId("filter").value.trim(),
    exclude,
    excludeHistory: byId("exclude-history").checked,
    compare: byId("compare").checked,
    shown: chosen(),
  };
  const busy = byId("answers").getAttribute("aria-busy") === "true";
  if (busy && toHash({ ...state, ...next }) === toHash(state)) return; // Enter is a change and a submission
  change(next);
}

/** The attributes to show beside titles; null if they are the usual ones. */
function chosen() {
  const boxes = [...byId("shown").querySelectorAll("input")];
  const names = boxes.filter((box) => box.checked).map(({ value }) => value);
  return names.join() === items.usual().join() ? null : names;
}

/** Marks an item everywhere while the pointer or the focus is on one of its places. */
function light({ target }) {
  const itemId = target.closest?.("[data-item]")?.dataset.item;
  for (const lit of document.querySelectorAll(".lit")) if (lit.dataset.item !== itemId) lit.classList.remove("lit");
  if (itemId) for (const place of document.querySelectorAll(`[data-item="${CSS.escape(itemId)}"]`)) place.classList.add("lit");
}

async function showServed() {
  const info = await api.info("main");
  items.useRelease("main", info);
  served = info.model_version;
  textIds = info.id_type === "ID_TYPE_TEXT";
  byId("exclude").inputMode = textIds ? "text" : "numeric";
  byId("served").textContent = `${Number(info.item_count).toLocaleString("en")} items · ${info.num_interests} interests · model ${served}`;
  const names = Object.values(info.attributes).map(({ name, type }) => `${name} (${type.toLowerCase()})`).join(", ");
  byId("attributes").textContent = names ? `Attributes: ${names}; \`is null\` finds items without one` : "This model's items have no attributes to filter by.";
  byId("shown").replaceChildren(...items.attributes().map(({ name }) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", value: name }), name)));
  byId("shown-row").hidden = !items.attributes().length;
  if (info.limits?.max_top_k) byId("top-k").max = info.limits.max_top_k;
}

/** Tells the new release, and learns its items. */
async function followRelease() {
  const before = served;
  await showServed();
  if (served === before) return; // servers with two models behind one address
  showQuestion();
  await learnCatalogue();
}

async function start() {
  themeButton();
  try {
    setup = await api.setup();
  } catch (error) {
    showProblem(error);
  }
  viewButton(setup.operations);
  items.useFile(setup.has_titles);
  byId("more").open = matchMedia("(min-width: 62rem)").matches;
  byId("compare-row").hidden = !setup.compares;
  const compared = setup.compares && api.info("compared").then((info) => items.useRelease("compared", info));
  await Promise.all([showServed(), compared].map((asked) => Promise.resolve(asked).catch(() => {})));
  await offerUsers();
  connect();
  const asked = fromHash(location.hash);
  const first = asked ? null : await differing(setup.users, items.limits()).catch(() => setup.users[0]);
  await change(asked ?? (first ? { user: first.user_id, history: [...first.hist_item], compare: setup.compares } : {}));
  await learnCatalogue().catch(() => {});
  await colourMap();
}

start();
