// What the page asks the gateway.

/** A failed request: the gateway's problem (RFC 9457), or that there is no gateway. */
export class Problem extends Error {
  constructor({ title, detail, reason, field }) {
    super(detail);
    Object.assign(this, { title, detail, reason, field });
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The gateway does not answer", detail: "It may have been stopped, or the network is down.", reason: "NO_GATEWAY" });
  }
  const content = await response.json().catch(() => null);
  if (response.ok && content !== null) return content;
  throw new Problem(content?.title ? content : { title: "Unexpected answer", detail: `HTTP ${response.status}`, reason: "UNEXPECTED" });
}

const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

export const setup = () => ask("/explorer/setup");
export const info = (server) => ask(`/v1/info?server=${server}`);
export const operations = () => ask("/explorer/operations");
export const explain = (body, server, signal) => post(`/v1/explain?server=${server}`, body, signal);
export const search = (text, signal) => ask(`/explorer/items?search=${encodeURIComponent(text)}`, { signal });
export const titles = (itemIds) => post("/explorer/titles", { item_ids: itemIds });
export const itemMap = (version) => ask(`/explorer/maps/${encodeURIComponent(version)}`);
export const items = (itemIds, names, server) => post(`/v1/items?server=${server}`, { item_ids: itemIds, return_attributes: names });
export const candidates = async (users, topK) => (await post("/v1/recall", { users, top_k: topK, exclude_history: true })).results;

/** The items similar to one: { answer }, as /v1/similar has it for a query. */
export const similar = async (itemId, by, topK, names, signal) =>
  ({ answer: (await post("/v1/similar", { queries: [{ item_ids: [itemId] }], top_k: topK, by, return_attributes: names }, signal)).results[0] });
export const recall = async (users, topK) => (await post("/v1/recall", { users, top_k: topK })).results;
export const popular = async (count) => (await recall([{}], count))[0].item_ids;

/** Popular items whose title contains a text, as it is written or with other capitals: [{ item_id, title }]. */
export async function searchTitles(text, count, signal) {
  const plain = text.replace(/["\\%_]/g, " ").trim();
  if (!plain) return [];
  const first = plain.toLowerCase().replace(/^./u, (letter) => letter.toUpperCase());
  const every = plain.toLowerCase().replace(/(?<=^|\s)\S/gu, (letter) => letter.toUpperCase());
  const spellings = [...new Set([plain, plain.toLowerCase(), first, every])];
  const ask = (before) => post("/v1/recall", {
    users: [{}],
    top_k: count,
    filter: spellings.map((one) => `title like "${before}${one}%"`).join(" or "),
    return_attributes: ["title"],
  }, signal);
  const answer = await ask("%").catch((error) => {
    if (error.name === "AbortError") throw error;
    return ask(""); // Milvus 2.3.5 only knows patterns that end with their wildcard
  });
  const { item_ids, attributes } = answer.results[0];
  return item_ids.map((item_id, place) => ({ item_id, title: attributes.title?.[place] ?? item_id }));
}
