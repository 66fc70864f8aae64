// What is asked, and how it is kept in the address: behind the #, which browsers do not send to servers.

export const START = { user: "", history: [], topK: 20, merge: "best_score", filter: "", exclude: [], excludeHistory: true, compare: false };

/** Item ids in a text, whatever is between them; null if there is something else. */
export function idsIn(text) {
  const words = text.split(/[\s,;]+/).filter(Boolean);
  return words.every((word) => /^-?\d{1,19}$/.test(word)) ? words : null;
}

/** The address's part for a state. */
export function toHash(state) {
  const parts = new URLSearchParams();
  if (state.user) parts.set("user", state.user);
  parts.set("history", state.history.join(","));
  parts.set("top_k", state.topK);
  if (state.merge !== START.merge) parts.set("merge", state.merge);
  if (state.filter) parts.set("filter", state.filter);
  if (state.exclude.length) parts.set("exclude", state.exclude.join(","));
  if (!state.excludeHistory) parts.set("exclude_history", "0");
  if (state.compare) parts.set("compare", "1");
  return `#${parts}`;
}

/** The state of an address, null if it has none. */
export function fromHash(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  if (!parts.has("history")) return null;
  return {
    user: parts.get("user") ?? "",
    history: idsIn(parts.get("history")) ?? [],
    topK: Number.parseInt(parts.get("top_k"), 10) || START.topK,
    merge: parts.get("merge") === "round_robin" ? "round_robin" : START.merge,
    filter: parts.get("filter") ?? "",
    exclude: idsIn(parts.get("exclude") ?? "") ?? [],
    excludeHistory: parts.get("exclude_history") !== "0",
    compare: parts.get("compare") === "1",
  };
}

/** The body of /v1/explain for a state. */
export function toBody(state) {
  return {
    user: { hist_item: state.history, exclude_item_ids: state.exclude },
    top_k: state.topK,
    filter: state.filter,
    exclude_history: state.excludeHistory,
    merge_strategy: state.merge,
  };
}
