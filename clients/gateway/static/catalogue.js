// A sample of the catalogue: what interests are compared with, and the values that the filter offers.

import * as api from "./api.js";
import * as items from "./items.js";
import { grouping } from "./words.js";

const MOST = 1000; // items of the sample
const FOUND = 10; // most items that a search shows

let known = []; // ids of the sample
let grouped = []; // the attributes whose values repeat among them

export const sample = () => known;
export const groups = () => grouped;

/** Learns what the items of a map are, or else popular ones; `maxTopK` limits how many of these can be asked for. */
export async function learn(map, maxTopK) {
  const step = Math.max(1, Math.ceil((map?.item_ids.length ?? 0) / MOST));
  const chosen = map ? map.item_ids.filter((_, place) => place % step === 0) : await api.popular(Math.min(MOST, maxTopK));
  await items.learn(chosen);
  known = chosen;
  grouped = grouping(items.groups(), known, items.valueOf);
}

/** The values of an attribute in the sample, the most frequent first. */
export function valuesOf(name) {
  const counts = new Map();
  for (const value of known.flatMap((itemId) => items.valueOf(itemId, name) ?? [])) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((one, two) => two[1] - one[1]).map(([value]) => value);
}

/** Items whose title has a text: those that are known, and what the server finds. */
export async function search(text, signal) {
  if (!items.hasTitles()) return [];
  const titled = items.titled(text, FOUND);
  const found = await api.searchTitles(text, FOUND, signal).catch((error) => {
    if (error.name === "AbortError") throw error;
    return []; // the known ones are better than none
  });
  return [...new Map([...titled, ...found].map((item) => [item.item_id, item])).values()].slice(0, FOUND);
}
