// What is known of items: titles and other attributes, as the server or the gateway's file of titles tells them.

import * as api from "./api.js";
import { h } from "./dom.js";
import { toItemHash } from "./state.js";

const TITLE = "title";
const OURS = "vector_source"; // the attribute that every release has
const SHOWN = 2;

const values = new Map(); // of each item: attributes by name
const fileTitles = new Map();
const releases = new Map(); // of each server: what it told of itself
let hasFile = false;

/** Whether there is a file of titles, whose titles count before those of the release. */
export const useFile = (given) => { hasFile = given; };

/** Takes what a server tells of its release; what was known of another release's items is forgotten. */
export function useRelease(server, info) {
  if (server === "main" && releases.get(server)?.collection !== info.collection) values.clear();
  releases.set(server, info);
}

const attributesOf = (server) => Object.values(releases.get(server)?.attributes ?? {});
const namesOf = (server) => attributesOf(server).map(({ name }) => name);

/** The attributes to ask a server for: all, or as many as it allows. */
export const wanted = (server) => namesOf(server).slice(0, releases.get(server)?.limits?.max_return_attributes ?? 16);

/** The attributes of the release beside the title. */
export const attributes = () => attributesOf("main").filter(({ name }) => name !== TITLE);

/** The attributes to show if nobody chose. */
export const usual = () => attributes().map(({ name }) => name).filter((name) => name !== OURS).slice(0, SHOWN);

/** The attributes that filters can use. */
export const filterable = () => attributesOf("main");

/** The attributes that may group items: texts beside the title. */
export const groups = () => attributes().filter(({ name, type }) => name !== OURS && /VARCHAR/.test(type)).map(({ name }) => name);

/** The limits of the server; none while it has not told. */
export const limits = () => releases.get("main")?.limits ?? {};

/** Known items whose title has a text. */
export function titled(text, most) {
  const wanted = text.toLowerCase();
  const found = [];
  for (const [itemId, { [TITLE]: title }] of values) {
    if (title?.toLowerCase().includes(wanted)) found.push({ item_id: itemId, title });
    if (found.length === most) break;
  }
  return found;
}

/** Whether items can be found by their titles. */
export const hasTitles = () => hasFile || namesOf("main").includes(TITLE);

export const titleOf = (itemId) => fileTitles.get(itemId) ?? values.get(itemId)?.[TITLE] ?? `item ${itemId}`;

/** The title of an item, which leads to its page; `place` is where on this page it is, to keep the focus there. */
export const link = (itemId, place = "") =>
  h("a", { class: "item", href: `/items${toItemHash(itemId)}`, "data-focus": `${place} item ${itemId}` }, titleOf(itemId));
export const valueOf = (itemId, name) => values.get(itemId)?.[name] ?? null;
export const isKnown = (itemId) => values.has(itemId);

/** A value as text; empty if there is none. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

/** Keeps titles by item id. */
export function keepTitles(titles) {
  for (const [itemId, title] of Object.entries(titles)) fileTitles.set(itemId, title);
}

/** Keeps the attributes of items: lists of values that are parallel to the ids. */
export function keep(itemIds, lists) {
  if (!Object.keys(lists).length) return;
  itemIds.forEach((itemId, place) => {
    const own = values.get(itemId) ?? {};
    for (const [name, list] of Object.entries(lists)) own[name] = list[place];
    values.set(itemId, own);
  });
}

/** Asks for the items of which nothing is known yet; whether any was asked for. */
export async function learn(itemIds, server = "main") {
  const unique = [...new Set(itemIds)];
  const untitled = hasFile ? unique.filter((itemId) => !fileTitles.has(itemId)) : [];
  const unknown = wanted(server).length ? unique.filter((itemId) => !values.has(itemId)) : [];
  const size = releases.get(server)?.limits?.max_users ?? 256;
  const parts = [];
  for (let start = 0; start < unknown.length; start += size) parts.push(unknown.slice(start, start + size));
  const asked = parts.map(async (part) => keep(part, (await api.items(part, wanted(server), server)).attributes));
  if (untitled.length) asked.push(api.titles(untitled).then(keepTitles));
  await Promise.all(asked);
  return asked.length > 0;
}
