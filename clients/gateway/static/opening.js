// Which example user the page opens with: one whose interests differ, because such a user shows what the model does.

import * as api from "./api.js";
import { likeness } from "./words.js";

const TOP_K = 20;
const FINALISTS = 6;

/** Of the candidates, how evenly the interests found them: 0 for one interest, more for several (entropy). */
function evenness({ interest }) {
  const parts = new Map();
  for (const number of interest) if (number >= 0) parts.set(number, (parts.get(number) ?? 0) + 1);
  return -[...parts.values()].reduce((sum, count) => sum + (count / interest.length) * Math.log(count / interest.length), 0);
}

/** The user whose interests are least alike, among those whose lists draw on several most evenly. */
export async function differing(users, { max_users = 200, max_top_k = TOP_K }) {
  const some = users.slice(0, max_users);
  if (some.length < 2 || some[0].made) return users[0];
  const results = await api.recall(some.map(({ hist_item }) => ({ hist_item })), Math.min(TOP_K, max_top_k));
  const finalists = some
    .map((user, place) => ({ user, even: evenness(results[place]) }))
    .sort((one, two) => two.even - one.even)
    .filter(({ even }, place) => place < FINALISTS && even > 0);
  const judged = await Promise.all(finalists.map(async ({ user }) => {
    const { interests } = await api.explain({ user: { hist_item: user.hist_item }, top_k: 1 }, "main");
    return { user, alike: likeness(interests) };
  }));
  return judged.sort((one, two) => one.alike - two.alike)[0]?.user ?? users[0];
}
