// The user's clicks: a search box that adds items by title or id, and the list of what was clicked.

import { search } from "./api.js";
import { byId, h } from "./dom.js";

const PAUSE_MS = 120;

/** Makes the search box work; `onAdd` gets the ids to add, the newest last; `typedIds` reads ids that somebody typed. */
export function searchBox({ hasTitles, typedIds, onAdd, onRemoveNewest }) {
  const input = byId("add");
  const list = byId("found");
  let found = [];
  let active = -1;
  let timer;
  let asked = new AbortController();
  byId("add-label").textContent = hasTitles ? "Add an item by title or id" : "Add an item by id";

  function show(items) {
    found = items;
    active = -1;
    list.replaceChildren(
      ...items.map(({ ids, title }, index) =>
        h("li", { id: `found-${index}`, role: "option", "aria-selected": "false", pointerdown: (event) => { event.preventDefault(); add(ids); } },
          h("span", {}, title), h("span", { class: "id" }, ids.join(", ")))),
    );
    list.hidden = items.length === 0;
    input.setAttribute("aria-expanded", String(items.length > 0));
    input.removeAttribute("aria-activedescendant");
  }

  function move(step) {
    if (!found.length) return;
    list.children[active]?.setAttribute("aria-selected", "false");
    active = (active + step + found.length + (active < 0 && step < 0 ? 1 : 0)) % found.length;
    const option = list.children[active];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  }

  function add(itemIds) {
    clearTimeout(timer);
    asked.abort();
    input.value = "";
    input.setCustomValidity("");
    show([]);
    onAdd(itemIds);
  }

  /** Shows what the text may mean; false if it was changed meanwhile. */
  async function look() {
    asked.abort();
    asked = new AbortController();
    const text = input.value.trim();
    if (!text) {
      show([]);
      return true;
    }
    const { ids, areText } = typedIds(text);
    const typed = ids?.length ? [{ ids, title: ids.length > 1 ? `Add ${ids.length} items` : "Add the item with this id" }] : [];
    try {
      const titled = hasTitles ? (await search(text, asked.signal)).map(({ item_id, title }) => ({ ids: [item_id], title })) : [];
      // Any text may be an id, so what has a title comes first.
      const isTitled = ids?.length === 1 && titled.some((item) => item.ids[0] === ids[0]);
      show(areText ? [...titled, ...(isTitled ? [] : typed)] : [...typed, ...titled]);
    } catch (error) {
      if (error.name === "AbortError") return false;
      show(typed);
    }
    return true;
  }

  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, PAUSE_MS); });
  input.addEventListener("blur", () => show([]));
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Escape") show([]);
    else if (event.key === "Backspace" && !input.value) return onRemoveNewest();
    else if (event.key === "Enter") {
      const { ids, areText } = typedIds(input.value.trim());
      if (active >= 0) add(found[active].ids);
      else if (areText) look().then((isShown) => isShown && found.length && add(found[0].ids));
      else if (ids?.length) add(ids);
      else if (found.length) add(found[0].ids);
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
      h("span", { class: "title" }, title, remark && h("small", {}, ` ${remark}`)),
      h("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${title}`, click: () => onRemove(index) }, "×"));
  });
  byId("history").replaceChildren(...rows.reverse());
  byId("history-hint").textContent = history.length
    ? `${history.length} ${history.length === 1 ? "click" : "clicks"}, newest first`
    : "Nothing clicked yet: popular items are shown.";
}
