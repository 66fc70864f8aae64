// The filter's box: completes the names of attributes, and their values as the catalogue has them.

import { choices } from "./combobox.js";
import { byId } from "./dom.js";

const MOST = 12;
const LONGEST_NOTE = 24;
const JOINING = [["and", "both hold"], ["or", "one holds"], ["not", "does not hold"]];
const COMPARED = /([A-Za-z_]\w*)\s*(?:==|!=|<=|>=|<|>|\bin\s*\[(?:[^\]]*,)?)\s*("[^"]*|[\w.]*)$/;
const CONTAINED = /\barray_contains(?:_any|_all)?\(\s*([A-Za-z_]\w*)\s*,\s*\[?(?:[^\]]*,)?\s*("[^"]*|[\w.]*)$/;
const NAMED = /[A-Za-z_]\w*$/;

/** What may follow a text that ends at the caret: [{ label, note, start, text }], `start` where the text goes. */
export function completions(text, attributes, valuesOf) {
  const compared = text.match(CONTAINED) ?? text.match(COMPARED);
  const attribute = compared && attributes.find(({ name }) => name === compared[1]);
  if (attribute) {
    const typed = compared[2].replace(/^"/, "").toLowerCase();
    const start = text.length - compared[2].length;
    return valuesOf(attribute.name)
      .filter((value) => String(value).toLowerCase().startsWith(typed))
      .slice(0, MOST)
      .map((value) => ({ label: String(value), note: "", start, text: JSON.stringify(value) }));
  }
  const word = text.match(NAMED)?.[0] ?? "";
  if (compared || /"[^"]*$/.test(text.replace(/\\./g, "").replace(/"[^"]*"/g, ""))) return []; // within a text
  const start = text.length - word.length;
  const named = attributes.flatMap(({ name, type }) => /^ARRAY/.test(type)
    ? [{ label: name, note: type.toLowerCase(), text: `array_contains(${name}, ` }]
    : [{ label: name, note: type.toLowerCase(), text: `${name} ` }]);
  const afterName = attributes.some(({ name }) => text.slice(0, start).trimEnd().endsWith(name));
  const joining = afterName
    ? [["is null", "has no value"], ["is not null", "has a value"]]
    : start > 0 ? JOINING : [["not", JOINING[2][1]]];
  const offered = [...(afterName ? [] : named), ...joining.map(([label, note]) => ({ label, note, text: `${label} ` }))];
  return offered
    .filter(({ label }) => label.toLowerCase().startsWith(word.toLowerCase()) && label !== word)
    .slice(0, MOST)
    .map((one) => ({ ...one, note: one.note.slice(0, LONGEST_NOTE), start }));
}

/** Makes the box complete; `attributes()` and `valuesOf(name)` say what there is. */
export function filterBox({ attributes, valuesOf }) {
  const input = byId("filter");
  const list = choices(input, byId("filter-choices"), take);

  function take({ start, text }) {
    const end = input.selectionEnd;
    input.setRangeText(text, start, end, "end");
    offer();
  }

  const offer = () => list.show(completions(input.value.slice(0, input.selectionEnd), attributes(), valuesOf));
  input.addEventListener("input", offer);
  input.addEventListener("focus", offer);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") list.move(1);
    else if (event.key === "ArrowUp") list.move(-1);
    else if (event.key === "Escape") list.show([]);
    else if (event.key === "Enter" && list.active()) take(list.active());
    else {
      if (event.key === "Enter") list.show([]); // the form asks
      return;
    }
    event.preventDefault();
  });
}
