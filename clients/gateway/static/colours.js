// Colours of items by an attribute: one for each frequent value, or for each fifth of the items by a number.

const MOST = 6;
const OTHER = "other";
const NONE = "none";
const NUMBERS = new Set(["INT64", "DOUBLE"]);

/** How items are coloured: `of(itemId)` is the number of a colour, `legend` says what each stands for. */
export function colouring(itemIds, type, valueOf) {
  const distinct = new Set(itemIds.map(valueOf).filter((value) => value !== null).map(String));
  return NUMBERS.has(type) && distinct.size > MOST ? byNumber(itemIds, valueOf) : byValue(itemIds, valueOf);
}

function byValue(itemIds, valueOf) {
  const texts = (itemId) => [valueOf(itemId) ?? []].flat().map(String);
  const counts = new Map();
  for (const itemId of itemIds) for (const text of texts(itemId)) counts.set(text, (counts.get(text) ?? 0) + 1);
  const frequent = [...counts].sort((one, two) => two[1] - one[1]).slice(0, MOST).map(([text]) => text);
  const of = (itemId) => {
    const own = texts(itemId);
    const place = frequent.findIndex((text) => own.includes(text));
    return place >= 0 ? place : own.length ? OTHER : NONE;
  };
  return { of, legend: legendOf(itemIds, of, frequent) };
}

function byNumber(itemIds, valueOf) {
  const numbers = itemIds.map(valueOf).filter((value) => value !== null).sort((one, two) => one - two);
  const ends = [...new Set([1, 2, 3, 4].map((fifth) => numbers[Math.floor((fifth * numbers.length) / 5)]))];
  const of = (itemId) => {
    const value = valueOf(itemId);
    return value === null ? NONE : `step-${ends.filter((end) => value >= end).length}`;
  };
  const labels = [`below ${ends[0]}`, ...ends.slice(1).map((end, place) => `${ends[place]} to below ${end}`), `${ends.at(-1)} or more`];
  const legend = labels.map((label, place) => ({ label, number: `step-${place}` }));
  return { of, legend: [...legend, ...(numbers.length < itemIds.length ? [{ label: "no value", number: NONE }] : [])] };
}

function legendOf(itemIds, of, frequent) {
  const used = new Set(itemIds.map(of));
  const rest = [[OTHER, "another value"], [NONE, "no value"]].filter(([number]) => used.has(number));
  return [...frequent.map((label, number) => ({ label, number })), ...rest.map(([number, label]) => ({ label, number }))];
}
