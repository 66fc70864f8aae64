// Items like each of some items, 10 for each, within 500 ms: node similar.js localhost:50051 500 10 50 181,174
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { idFields, run, serverInfo } from "./recall.js";

/** Resolves to the SimilarItemsResponse for { queries, top_k, ... }; rejects with grpc.ServiceError. */
export function similarItems(client, request, timeoutMs) {
  return promisify(client.SimilarItems.bind(client))(request, { deadline: Date.now() + timeoutMs });
}

async function main(client, timeoutMs, topK, items) {
  const fields = idFields(await serverInfo(client, timeoutMs));
  const queries = items.map((ids) => ({ [fields.items]: ids.split(",").filter(Boolean) }));
  const answer = await similarItems(client, { queries, top_k: topK }, timeoutMs);
  answer.results.forEach(({ status, detail, scores, ...similar }, query) => {
    console.log(`query ${query}: ${status} ${detail}`.trimEnd());
    similar[fields.items].forEach((id, i) => console.log(`  ${id}  cosine ${scores[i].toFixed(4)}`));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [target, timeoutMs, topK, ...items] = process.argv.slice(2);
  await run(target, (client) => main(client, Number(timeoutMs), Number(topK), items));
}
