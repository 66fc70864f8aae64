// The user's clicks: a search box that adds items by title or id, and the list of what was clicked.

import { choices } from "./combobox.js";
import { byId, h } from "./dom.js";
import { link } from "./items.js";

const PAUSE_MS = 120;

/**
 * Makes the search box work; `onAdd` gets the ids to add, the newest last; `typedIds` reads ids that somebody typed;
 * `search` finds items by a text; `offer` says what happens to ids that somebody typed.
 */
export function searchBox({ search, typedIds, offer, onAdd, onRemoveNewest }) {
  const input = byId("add");
  const list = choices(input, byId("found"), ({ ids }) => add(ids));
  let timer;
  let asked = new AbortController();
  function add(itemIds) {
    clearTimeout(timer);
    asked.abort();
    input.value = "";
    input.setCustomValidity("");
    list.show([]);
    onAdd(itemIds);
  }

  /** Shows what the text may mean; false if it was changed meanwhile. */
  async function look() {
    asked.abort();
    asked = new AbortController();
    const text = input.value.trim();
    if (!text) {
      list.show([]);
      return true;
    }
    const { ids, areText } = typedIds(text);
    const choice = (itemIds, label) => ({ ids: itemIds, label, note: itemIds.join(", ") });
    const typed = ids?.length ? [choice(ids, offer(ids.length))] : [];
    try {
      const titled = (await search(text, asked.signal)).map(({ item_id, title }) => choice([item_id], title));
      // Any text may be an id, so what has a title comes first.
      const isTitled = ids?.length === 1 && titled.some((item) => item.ids[0] === ids[0]);
      list.show(areText ? [...titled, ...(isTitled ? [] : typed)] : [...typed, ...titled]);
    } catch (error) {
      if (error.name === "AbortError") return false;
      list.show(typed);
    }
    return true;
  }

  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, PAUSE_MS); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") list.move(1);
    else if (event.key === "ArrowUp") list.move(-1);
    else if (event.key === "Escape") list.show([]);
    else if (event.key === "Backspace" && !input.value) return onRemoveNewest();
    else if (event.key === "Enter") {
      const { ids, areText } = typedIds(input.value.trim());
      if (list.active()) add(list.active().ids);
      else if (areText) look().then((isShown) => isShown && list.first() && add(list.first().ids));
      else if (ids?.length) add(ids);
      else if (list.first()) add(list.first().ids);
    } else return;
    event.preventDefault();
  });
}

/** Shows the clicks, newest first, with what the model made of each. */
export function showHistory({ history, titleOf, answer, onRemove }) {
  const unknown = new Set(answer?.candidates.unknown_item_ids);
  const used = new Set(answer?.used_hist_item);
  const rows = history.map((itemId, index) => {
    const title = titleOf(itemId);
    const remark = unknown.has(itemId) ? "unknown to the model" : answer && used.size && !used.has(itemId) ? "too long ago" : "";
    return h("li", { class: remark ? "unused" : null, "data-item": itemId },
      h("span", { class: "title" }, link(itemId, "history"), remark && h("small", {}, ` ${remark}`)),
      h("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${title}`, click: () => onRemove(index) }, "×"));
  });
  byId("history").replaceChildren(...rows.reverse());
  byId("history-hint").textContent = history.length
    ? `${history.length} ${history.length === 1 ? "click" : "clicks"}, newest first`
    : "Nothing clicked yet: popular items are shown.";
}
