// Two pages of 10 candidates for the user ann, at most 3 of a category on each, within 500 ms a call; then tells the
// service what was shown: node pages.js localhost:50051 500 10 category=3 ann 50,181,174
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { idFields, recall, run, serverInfo } from "./recall.js";

/** Resolves once every server knows what the user was shown; rejects with grpc.ServiceError. */
export function rememberShown(client, userId, shown, timeoutMs) {
  const request = { users: [{ user_id: userId, ...shown }] };
  return promisify(client.UpsertUsers.bind(client))(request, { deadline: Date.now() + timeoutMs });
}

async function main(client, timeoutMs, topK, rule, userId, history) {
  const info = await serverInfo(client, timeoutMs);
  const fields = idFields(info);
  const [attribute, count] = rule.split("=");
  const request = {
    users: [{ user_id: userId, [fields.history]: history.split(",").filter(Boolean) }],
    top_k: topK,
    at_most: [{ attribute, count: Number(count) }],
    diversity: 0.2,
    exclude_shown: info.users_enabled, // needs a server with --users
  };
  const first = await recall(client, { ...request, paged: true }, timeoutMs);
  const pages = [first.results[0][fields.items]];
  if (first.next_page_token.length > 0) {
    const second = await recall(client, { ...request, page_token: first.next_page_token }, timeoutMs);
    pages.push(second.results[0][fields.items]);
  }
  pages.forEach((ids, page) => console.log(`page ${page + 1}: ${ids.join(" ")}`));
  if (info.users_enabled) {
    await rememberShown(client, userId, { [fields.shown]: pages.flat() }, timeoutMs);
    console.log(`${pages.flat().length} items will not be shown to ${userId} again`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [target, timeoutMs, topK, ...question] = process.argv.slice(2);
  await run(target, (client) => main(client, Number(timeoutMs), Number(topK), ...question));
}
