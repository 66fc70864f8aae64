// The operations view: health, release, load, latency, refused calls and sampled recall of each server, read again
// every few seconds while it is open.

import { operations } from "./api.js";
import { byId, h, s } from "./dom.js";

const EVERY_MS = 5000;
const KEPT = 60; // readings that a line shows
const LINE = { width: 220, height: 44 };

const readings = []; // [{ at, servers }], the newest last
let timer = 0;

/** Opens or closes the view. */
export function showOperations(isOpen) {
  clearTimeout(timer);
  byId("operations").hidden = !isOpen;
  if (isOpen) read();
}

async function read() {
  clearTimeout(timer);
  try {
    if (!document.hidden) {
      readings.push({ at: performance.now() / 1000, servers: (await operations()).servers });
      if (readings.length > KEPT) readings.shift();
      byId("operations-list").replaceChildren(...readings.at(-1).servers.map(renderServer));
      byId("operations-problem").hidden = true;
    }
  } catch (error) {
    byId("operations-problem").textContent = error.detail ?? String(error);
    byId("operations-problem").hidden = false;
  }
  if (!byId("operations").hidden) timer = setTimeout(read, EVERY_MS);
}

/** What a server counted between two readings; all since its start if there is one reading, or it was started anew. */
function since(before, now, valueOf) {
  const [old, value] = [before && !before.error ? valueOf(before) : 0, valueOf(now)];
  return value < old ? value : value - old;
}

/** The value below which a share of a histogram's counts lie, between bucket bounds; null without counts. */
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const [le, count] of buckets) {
    const high = Number(le);
    if (count >= share * total) return Number.isFinite(high) ? low + ((high - low) * (share * total - below)) / (count - below) : low;
    [low, below] = [high, count];
  }
  return low;
}

/** The buckets of what was counted between two readings. */
function bucketsSince(before, now, name) {
  return now[name].buckets.map(([le], place) => [le, since(before, now, (one) => one[name].buckets[place]?.[1] ?? 0)]);
}

const inTime = (seconds) => (seconds === null ? "no calls" : seconds < 0.9995 ? `${(seconds * 1000).toPrecision(3)} ms` : `${seconds.toFixed(2)} s`);
const whole = (count) => count.toLocaleString("en");

function renderServer(now, place) {
  if (now.error) {
    return h("section", { class: "card server", "aria-label": now.server }, h("h3", {}, now.server),
      h("p", { class: "problem" }, `Its metrics cannot be read: ${now.error}`));
  }
  const own = readings.map(({ at, servers }) => ({ at, one: servers[place] })).filter(({ one }) => one && !one.error);
  const [before, last] = [own.at(-2), own.at(-1)];
  const seconds = before ? last.at - before.at : 0;
  const latency = bucketsSince(before?.one, now, "latency");
  const idle = !latency.at(-1)?.[1];
  const shown = idle ? now.latency.buckets : latency;
  const rates = own.slice(1).map(({ at, one }, index) => since(own[index].one, one, (each) => each.requests) / (at - own[index].at));
  return h("section", { class: "card server", "aria-label": now.server },
    h("h3", {}, now.server),
    h("dl", { class: "tiles" },
      tile("Health", h("span", { class: now.serving ? "good" : "bad" }, now.serving ? "serving" : "not serving"),
        now.refused && "the newest release is refused", now.miscounted && "the collection has rows too many or too few"),
      tile("Release", now.model_version || "none", now.collection, now.taken_over_at > 0 && `since ${new Date(now.taken_over_at * 1000).toLocaleString()}`),
      tile("Requests", seconds ? `${(rates.at(-1) ?? 0).toFixed(1)} a second` : whole(now.requests), `${whole(now.requests)} since the start`, line(rates)),
      tile("Latency of Recall", `${inTime(quantile(shown, 0.5))} median`, `${inTime(quantile(shown, 0.99))} 99th percentile${idle || !seconds ? ", since the start" : ""}`),
      tile("In progress", whole(now.in_progress), `${whole(now.queued_users)} users wait for a batch`),
      tile("Refused for load", h("span", { class: since(before?.one, now, (one) => one.shed) && seconds ? "bad" : "" }, whole(now.shed)), "calls since the start, RESOURCE_EXHAUSTED"),
      tile("Sampled recall", now.sampled_recall.count ? (now.sampled_recall.sum / now.sampled_recall.count).toFixed(4) : "no samples", `${whole(now.sampled_recall.count)} users compared with an exact search`),
      tile("Errors of Milvus", h("span", { class: now.milvus_errors ? "bad" : "" }, whole(now.milvus_errors)), "since the start")),
    table("Calls that failed, since the start", ["call", "status", "reason", "calls"], now.failures.filter(({ count }) => count).slice(0, 8)
      .map(({ method, status, reason, count }) => [method, status, reason, whole(count)])),
    table("Users answered, since the start", ["status", "users"], Object.entries(now.users).filter(([, count]) => count)
      .sort((one, two) => two[1] - one[1]).map(([status, count]) => [status.toLowerCase().replaceAll("_", " "), whole(count)])),
    table("Shadow channels against the default channel, since the start",
      ["channel", "compared", "overlap", "by rank", "time"], now.shadows.map(renderShadow)));
}

/** A shadow channel as a row: requests, the means of overlap and rank-biased overlap, the median time as a multiple. */
function renderShadow({ channel, outcomes, overlap, rbo, latency_ratio: ratio }) {
  const drawn = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
  const mean = ({ count, sum }) => (count ? (sum / count).toFixed(2) : "–");
  const median = quantile(ratio.buckets, 0.5);
  return [channel, `${whole(outcomes.compared ?? 0)} of ${whole(drawn)}`, mean(overlap), mean(rbo), median === null ? "–" : `×${median.toFixed(2)}`];
}

function tile(name, value, ...notes) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value), ...notes.filter(Boolean).map((note) => h("dd", { class: "hint" }, note)));
}

/** A line of the last values, from 0 to the largest. */
function line(values) {
  if (values.length < 2) return null;
  const { width, height } = LINE;
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, place) => `${((place / (values.length - 1)) * width).toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
  return s("svg", { class: "line", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Requests a second, the last ${values.length} readings, at most ${most.toFixed(1)}` },
    s("polyline", { points: points.join(" ") }));
}

function table(caption, headings, rows) {
  if (!rows.length) return null;
  return h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, headings.map((heading) => h("th", { scope: "col" }, heading)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))));
}
