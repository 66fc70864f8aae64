// Candidates for a batch of users, 10 for each, within 500 ms: node recall.js localhost:50051 500 10 50,181,174 ""
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../../protos", import.meta.url)); // your copy of recall/v1/recall.proto

const BACKOFF = { maxAttempts: 4, initialBackoff: "0.05s", maxBackoff: "1s", backoffMultiplier: 2 };
// Calls are spread over all addresses of the target. A second attempt is harmless, except after UpsertUsers, which may
// append: it is repeated only if the server refused it before it wrote anything.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "recall.v1.RecallService" }],
      retryPolicy: { ...BACKOFF, retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"] },
    },
    {
      name: [{ service: "recall.v1.RecallService", method: "UpsertUsers" }],
      retryPolicy: { ...BACKOFF, retryableStatusCodes: ["RESOURCE_EXHAUSTED"] },
    },
  ],
  retryThrottling: { maxTokens: 100, tokenRatio: 0.1 },
};

// Integers of 64 bits are exact as strings; a JavaScript number is so up to 2^53 alone.
const definition = protoLoader.loadSync("recall/v1/recall.proto", {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
});
const { RecallService } = grpc.loadPackageDefinition(definition).recall.v1;

/** Resolves to what the server serves. Ask once, not for each request. */
export function serverInfo(client, timeoutMs) {
  return promisify(client.GetServerInfo.bind(client))({}, { deadline: Date.now() + timeoutMs });
}

/** The names of the fields with item ids: text or integers, whichever the release has. */
export function idFields({ id_type }) {
  return id_type === "ID_TYPE_TEXT"
    ? { history: "hist_item_keys", items: "item_keys", shown: "shown_item_keys" }
    : { history: "hist_item", items: "item_ids", shown: "shown_item_ids" };
}

/** Resolves to the RecallResponse for { users, top_k, ... }; rejects with grpc.ServiceError. The time includes retries. */
export function recall(client, request, timeoutMs) {
  return promisify(client.Recall.bind(client))(request, { deadline: Date.now() + timeoutMs });
}

/** The server's stable word for what went wrong, such as TOP_K_OUT_OF_RANGE; empty if no server answered. */
export function reason(error) {
  return error.metadata?.get("error-reason")[0] ?? "";
}

/** Awaits `ask(client)` with a client of the target; a failure becomes a line on stderr and exit code 1. */
export async function run(target, ask) {
  const client = new RecallService(target, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  });
  try {
    await ask(client);
  } catch (error) {
    console.error(`${grpc.status[error.code]} ${reason(error)}: ${error.details}`);
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

async function main(client, timeoutMs, topK, histories) {
  const fields = idFields(await serverInfo(client, timeoutMs));
  const users = histories.map((ids) => ({ [fields.history]: ids.split(",").filter(Boolean) }));
  const answer = await recall(client, { users, top_k: topK }, timeoutMs);
  answer.results.forEach(({ status, detail, scores, interest, ...candidates }, user) => {
    console.log(`user ${user}: ${status} ${detail}`.trimEnd());
    candidates[fields.items].forEach((id, i) =>
      console.log(`  ${id}  score ${scores[i].toFixed(4)}  interest ${interest[i]}`),
    );
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [target, timeoutMs, topK, ...histories] = process.argv.slice(2);
  await run(target, (client) => main(client, Number(timeoutMs), Number(topK), histories));
}
