// Says in words what an interest is about: what its items have more often than the items of the catalogue.

const SHORTEST = 4;
const MOST_WORDS = 3;
const MOST_VALUES = 2;
const LEAST = 2; // items that have it
const MUCH = 0.1; // by which its share is larger than in the catalogue
const REPEATS = 2; // an attribute tells groups apart if its values repeat so often on average

/** The share of items that have each text: [{ text, share }]. `textsOf` gives the texts of an item. */
function shares(itemIds, textsOf) {
  const counts = new Map();
  for (const itemId of itemIds) for (const text of new Set(textsOf(itemId))) counts.set(text, (counts.get(text) ?? 0) + 1);
  return new Map([...counts].map(([text, count]) => [text, { count, share: count / itemIds.length }]));
}

/** What a larger share of some items has than of the catalogue, the greatest difference first. */
function typical(itemIds, catalogue, textsOf) {
  const usual = shares(catalogue, textsOf);
  return [...shares(itemIds, textsOf)]
    .filter(([text, { count, share }]) => count >= LEAST && share >= (usual.get(text)?.share ?? 0) + MUCH)
    .map(([text, { share }]) => ({ text, share, usual: usual.get(text)?.share ?? 0 }))
    .sort((one, two) => two.share - two.usual - (one.share - one.usual) || (one.text < two.text ? -1 : 1));
}

const wordsOf = (title) => (title.toLowerCase().match(/\p{L}+/gu) ?? []).filter((word) => word.length >= SHORTEST);
const textsIn = (value) => (value === null || value === undefined ? [] : [value].flat().map(String));

/** The names of attributes whose values repeat, such as a category: `valueOf(itemId, name)` gives a value. */
export function grouping(names, catalogue, valueOf) {
  return names.filter((name) => {
    const texts = catalogue.flatMap((itemId) => textsIn(valueOf(itemId, name)));
    return texts.length >= REPEATS * new Set(texts).size && new Set(texts).size > 1;
  });
}

/** The typical values and title words of items, compared with the catalogue's: { values, words }. */
export function about(itemIds, catalogue, names, { titleOf, valueOf }) {
  if (!catalogue.length) return { values: [], words: [] };
  const values = names.flatMap((name) =>
    typical(itemIds, catalogue, (itemId) => textsIn(valueOf(itemId, name))).slice(0, 1).map((found) => ({ name, ...found })));
  values.sort((one, two) => two.share - two.usual - (one.share - one.usual));
  const words = typical(itemIds, catalogue, (itemId) => wordsOf(titleOf(itemId)));
  return { values: values.slice(0, MOST_VALUES), words: words.slice(0, MOST_WORDS).map(({ text }) => text) };
}

/** The cosine of two vectors; 0 with one of zeros. */
export function cosine(one, two) {
  const product = one.reduce((sum, value, index) => sum + value * two[index], 0);
  return product / (Math.hypot(...one) * Math.hypot(...two) || 1);
}

/** The mean cosine between the interests that a user has; 1 for a user with one. */
export function likeness(interests) {
  const vectors = interests.map(({ vector }) => vector).filter((vector) => vector.some(Boolean));
  const pairs = vectors.flatMap((one, number) => vectors.slice(number + 1).map((two) => cosine(one, two)));
  return pairs.length ? pairs.reduce((sum, value) => sum + value, 0) / pairs.length : 1;
}
