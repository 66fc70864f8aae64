// The explorer page: one user, what the model makes of the user's clicks, and where every candidate comes from.

import * as api from "./api.js";
import { agreement, renderAnswer, renderUnanswered } from "./answer.js";
import { byId, h } from "./dom.js";
import { searchBox, showHistory } from "./history.js";
import { START, fromHash, idsIn, toBody, toHash } from "./state.js";

const SERVERS = ["main", "compared"];
const NAMES = ["This server", "Second server"];
const POPULAR_EXAMPLES = 12;
const INPUT_OF_FIELD = { filter: "filter", top_k: "top-k" };

const titles = new Map();
const maps = new Map();
let setup = { compares: false, has_titles: false, maps: [], users: [] };
let state = { ...START };
let sides = []; // one for each server: its answer to what is asked now or its error, nothing while it has not answered
let served = "";
let textIds = false; // whether the release has text ids
let asked = new AbortController();

const titleOf = (itemId) => titles.get(itemId) ?? `item ${itemId}`;

/** Changes what is asked, and asks. */
function change(changes) {
  state = { ...state, ...changes };
  history.replaceState(null, "", toHash(state));
  showQuestion();
  return ask();
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
}

function showClicks() {
  showHistory({
    history: state.history,
    titleOf,
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
  sides = servers.map(() => ({}));
  showClicks();
  learnTitles(state.history).then((learned) => learned && showClicks(), () => {}); // an answer may never come
  await Promise.all(servers.map(async (server, index) => {
    const side = await askOne(server, signal).catch((error) => ({ error }));
    if (signal.aborted) return;
    sides[index] = side;
    main.classList.remove("stale");
    show();
  }));
  if (!signal.aborted) main.setAttribute("aria-busy", "false");
}

async function askOne(server, signal) {
  const started = performance.now();
  const answer = await api.explain(toBody(state), server, signal);
  const roundTripMs = performance.now() - started;
  for (const [itemId, title] of Object.entries(answer.titles)) titles.set(itemId, title);
  return { answer, roundTripMs, map: await mapOf(answer.model_version).catch(() => null) };
}

/** The map of a model's items, null if the gateway has none; asked for once. */
async function mapOf(version) {
  if (!setup.maps.includes(version)) return null;
  if (!maps.has(version)) maps.set(version, await api.itemMap(version));
  return maps.get(version);
}

function show() {
  const answers = sides.map(({ answer }) => answer).filter(Boolean);
  const errors = sides.map(({ error }) => error).filter(Boolean);
  const allAlike = errors.length === sides.length && new Set(errors.map(({ title, detail }) => `${title} ${detail}`)).size === 1;
  if (allAlike) showProblem(errors[0]);
  else byId("problem").hidden = true;
  blame(errors.find(({ field }) => field)?.field);
  byId("sides").replaceChildren(...(allAlike ? [] : sides.map(renderSide)));
  byId("sides").classList.toggle("two", sides.length > 1);
  const common = byId("agreement");
  common.hidden = answers.length < 2;
  if (answers.length > 1) common.replaceChildren(...agreement(...answers));
  showClicks();
  const [first] = answers;
  byId("said").textContent = first ? `${first.candidates.item_ids.length} candidates from ${first.interests.length} interests` : "";
  if (sides[0].answer && first.model_version !== served) showServed().catch(() => {});
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
    titleOf,
    learnTitles,
    onAdd: (itemId) => change({ history: [...state.history, itemId] }),
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

/** Titles of items that no answer has named yet, such as points of the map; whether any was asked for. */
async function learnTitles(itemIds) {
  const unknown = itemIds.filter((itemId) => !titles.has(itemId));
  if (!unknown.length || !setup.has_titles) return false;
  for (const [itemId, title] of Object.entries(await api.titles(unknown))) titles.set(itemId, title);
  return true;
}

async function offerUsers() {
  if (!setup.users.length) {
    const popular = await api.popular(POPULAR_EXAMPLES).catch(() => []);
    await learnTitles(popular).catch(() => {});
    setup.users = popular.map((itemId) => ({ user_id: `clicked ${titleOf(itemId)}`, hist_item: [itemId], eval_item: [], made: true }));
  }
  const options = setup.users.map(({ user_id, hist_item, made }) =>
    h("option", { value: user_id }, made ? user_id : `user ${user_id} · ${hist_item.length} clicks`));
  byId("user").replaceChildren(h("option", { value: "" }, "your own"), ...options);
}

const choose = (user) => change({ user: user.user_id, history: [...user.hist_item] });

function connect() {
  searchBox({
    hasTitles: setup.has_titles,
    typedIds: (text) => ({ ids: idsIn(text, textIds), areText: textIds }),
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
  };
  const busy = byId("answers").getAttribute("aria-busy") === "true";
  if (busy && toHash({ ...state, ...next }) === toHash(state)) return; // Enter is a change and a submission
  change(next);
}

/** Marks an item everywhere while the pointer or the focus is on one of its places. */
function light({ target }) {
  const itemId = target.closest?.("[data-item]")?.dataset.item;
  for (const lit of document.querySelectorAll(".lit")) if (lit.dataset.item !== itemId) lit.classList.remove("lit");
  if (itemId) for (const place of document.querySelectorAll(`[data-item="${CSS.escape(itemId)}"]`)) place.classList.add("lit");
}

function themeButton() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const update = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
    update();
  });
  system.addEventListener("change", update);
  update();
}

async function showServed() {
  const info = await api.info("main");
  served = info.model_version;
  textIds = info.id_type === "ID_TYPE_TEXT";
  byId("exclude").inputMode = textIds ? "text" : "numeric";
  byId("served").textContent = `${Number(info.item_count).toLocaleString("en")} items · ${info.num_interests} interests · model ${served}`;
  const names = info.attributes.map(({ name, type }) => `${name} (${type.toLowerCase()})`).join(", ");
  byId("attributes").textContent = names ? `Attributes: ${names}; \`is null\` finds items without one` : "This model's items have no attributes to filter by.";
  if (info.limits?.max_top_k) byId("top-k").max = info.limits.max_top_k;
}

async function start() {
  themeButton();
  try {
    setup = await api.setup();
  } catch (error) {
    showProblem(error);
  }
  byId("more").open = matchMedia("(min-width: 62rem)").matches;
  byId("compare-row").hidden = !setup.compares;
  await offerUsers();
  connect();
  showServed().catch(() => {});
  const first = setup.users[0];
  await change(fromHash(location.hash) ?? (first ? { user: first.user_id, history: [...first.hist_item], compare: setup.compares } : {}));
}

start();
