// A list of choices under an input, by pointer and by keyboard: the parts that the search box and the filter share.

import { h } from "./dom.js";

/** Shows choices `{ label, note }` in a listbox; `choose` gets the one that was pressed with the pointer. */
export function choices(input, list, choose) {
  let found = [];
  let active = -1;

  function show(items) {
    found = items;
    active = -1;
    list.replaceChildren(
      ...items.map((item, index) =>
        h("li", { id: `${list.id}-${index}`, role: "option", "aria-selected": "false", pointerdown: (event) => { event.preventDefault(); choose(item); } },
          h("span", {}, item.label), h("span", { class: "id" }, item.note))),
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

  input.addEventListener("blur", () => show([]));
  return { show, move, first: () => found[0], active: () => found[active] };
}
