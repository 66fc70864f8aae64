// What is asked, and how it is kept in the address: behind the #, which browsers do not send to servers.

export const START = { user: "", history: [], topK: 20, merge: "best_score", filter: "", exclude: [], excludeHistory: true, compare: false, colour: "", shown: null };

/** Item ids that somebody typed: text between commas, or integers with anything between them; null if there is more. */
export function idsIn(text, areText) {
  if (areText) return text.split(",").map((id) => id.trim()).filter(Boolean);
  const words = text.split(/[\s,;]+/).filter(Boolean);
  return words.every((word) => /^-?\d{1,19}$/.test(word)) ? words : null;
}

/** Item ids as a part of the address, and back: an id may have commas, which are escaped. */
const joined = (itemIds) => itemIds.map(encodeURIComponent).join(",");

function parted(text) {
  try {
    return text.split(",").map((id) => decodeURIComponent(id.trim())).filter(Boolean);
  } catch {
    return []; // half an escape
  }
}

/** The address's part for a state. */
export function toHash(state) {
  const parts = new URLSearchParams();
  if (state.user) parts.set("user", state.user);
  parts.set("history", joined(state.history));
  parts.set("top_k", state.topK);
  if (state.merge !== START.merge) parts.set("merge", state.merge);
  if (state.filter) parts.set("filter", state.filter);
  if (state.exclude.length) parts.set("exclude", joined(state.exclude));
  if (!state.excludeHistory) parts.set("exclude_history", "0");
  if (state.compare) parts.set("compare", "1");
  if (state.colour) parts.set("colour", state.colour);
  if (state.shown) parts.set("shown", joined(state.shown));
  return `#${parts}`;
}

/** The state of an address, null if it has none. */
export function fromHash(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  if (!parts.has("history")) return null;
  return {
    user: parts.get("user") ?? "",
    history: parted(parts.get("history")),
    topK: Number.parseInt(parts.get("top_k"), 10) || START.topK,
    merge: parts.get("merge") === "round_robin" ? "round_robin" : START.merge,
    filter: parts.get("filter") ?? "",
    exclude: parted(parts.get("exclude") ?? ""),
    excludeHistory: parts.get("exclude_history") !== "0",
    compare: parts.get("compare") === "1",
    colour: parts.get("colour") ?? "",
    shown: parts.has("shown") ? parted(parts.get("shown")) : null,
  };
}

/** The items' page's part of an address for an item, and the item of it; null if it has none. */
export const toItemHash = (itemId) => `#item=${encodeURIComponent(itemId)}`;
export const fromItemHash = (hash) => new URLSearchParams(hash.slice(1).replaceAll("+", "%2B")).get("item");

/** The body of /v1/explain for a state; `names` are the attributes to return. */
export function toBody(state, names) {
  return {
    user: { hist_item: state.history, exclude_item_ids: state.exclude },
    top_k: state.topK,
    filter: state.filter,
    exclude_history: state.excludeHistory,
    merge_strategy: state.merge,
    return_attributes: names,
  };
}
