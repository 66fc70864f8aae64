// The map: all items as faint points, and on them what the user clicked, the interests and the candidates of each.

import { badge } from "./candidates.js";
import { colouring } from "./colours.js";
import { h, s } from "./dom.js";
import { attributes, titleOf, valueOf } from "./items.js";

const MARGIN = 22;
const REACH = 14;
const ASPECT = 0.78;
const NARROW = 480;
const OUTLIERS = 0.004;
const LABELS_PER_INTEREST = 2;
const CENTRE = 11;

/** Whether the map shows the user's surroundings alone; stays when the next answer comes. */
let near = false;

/** The card with the map; it is drawn anew whenever its width changes. */
export function drawMap(view) {
  const { answer, map, anyMap, question, onColour } = view;
  const coloured = attributes().find(({ name }) => name === question.colour);
  const colours = coloured ? colouring(anyMap.item_ids, coloured.type, (itemId) => valueOf(itemId, coloured.name)) : null;
  const frame = h("div", { class: "map-frame" });
  const remark = map ? null : h("p", { class: "hint" }, `This is the map of model ${anyMap.model_version}: items of ${answer.model_version} are where that model sees them, and its interests have no place on it.`);
  const places = placesOf(anyMap);
  const closer = h("button", { type: "button", class: "quiet", "aria-pressed": String(near), click: () => {
    near = !near;
    closer.setAttribute("aria-pressed", String(near));
    paint(frame, Math.floor(frame.clientWidth), view, places, colours);
  } }, "Zoom in");
  const card = h("div", { class: "card map" },
    h("div", { class: "row spread" }, h("h3", {}, "Map of the items"), colourChoice(question.colour, onColour), closer),
    h("p", { class: "hint" }, "Items near each other are alike to the model. Click a point to add it to the clicks."),
    legend(answer, Boolean(map), colours),
    frame,
    h("p", { class: "hint" }, `${anyMap.item_ids.length.toLocaleString("en")} items. The plane shows ${(anyMap.explained * 100).toFixed(0)} % of their variance.`),
    remark);
  let painted = 0;
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.floor(contentRect.width);
    if (!width || width === painted) return; // its height follows from the drawing
    painted = width;
    paint(frame, width, view, places, colours);
  }).observe(frame);
  return card;
}

function colourChoice(colour, onColour) {
  const options = attributes().map(({ name }) => h("option", { value: name, selected: name === colour }, name));
  if (!options.length) return null;
  return h("label", { class: "colour" }, "Colour by ",
    h("select", { "data-focus": "colour", change: ({ target }) => onColour(target.value) }, h("option", { value: "" }, "nothing"), options));
}

function legend({ interests, candidates }, hasInterests, colours) {
  const [number] = candidates.interest;
  const colour = number >= 0 ? `interest-${number % 4}` : "";
  return h("ul", { class: "legend" },
    h("li", {}, h("span", { class: "mark clicked" }), "clicked"),
    hasInterests && interests.length > 0 && h("li", {}, badge(Math.max(number ?? 0, 0)), "an interest"),
    h("li", {}, h("span", { class: `mark candidate ${colour}` }), number >= 0 ? "candidate, in the colour of its interest" : "candidate"),
    ...(colours ? colours.legend.map(({ label, number: value }) => h("li", {}, h("span", { class: `mark value-${value}` }), label))
      : [h("li", {}, h("span", { class: "mark other" }), "another item")]));
}

const placesOf = (map) => new Map(map.item_ids.map((itemId, index) => [itemId, [map.x[index], map.y[index]]]));

/** Where a vector lies on the grid: the arithmetic that mind.item_map describes. Null for a vector of zeros. */
export function project(map, vector) {
  const length = Math.hypot(...vector);
  if (!length) return null;
  const direction = vector.map((value, index) => value / length - map.mean[index]);
  return [0, 1].map((axis) => (direction.reduce((sum, value, index) => sum + value * map.axes[index][axis], 0) - map.low[axis]) * map.scale);
}

function paint(frame, width, view, places, colours) {
  const { answer, map, anyMap, question } = view;
  const height = Math.round(width * (width < NARROW ? 1 : ASPECT));
  const centres = map ? answer.interests.map(({ vector }) => project(map, vector)) : [];
  const own = [...answer.candidates.item_ids, ...(near ? [] : question.history)].map((itemId) => places.get(itemId));
  const shown = [...own, ...centres].filter(Boolean);
  const at = onScreen(near && shown.length > 1 ? shown : [...shown, ...most([...places.values()])], width, height);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spoken(answer, places) });
  const dots = new Map(); // by colour
  for (const [itemId, place] of places) {
    const colour = colours ? `dots value-${colours.of(itemId)}` : "dots";
    dots.set(colour, `${dots.get(colour) ?? ""}M${at(place).map((value) => value.toFixed(1)).join(" ")}h0`);
  }
  for (const [colour, d] of [...dots].sort(([one], [two]) => (one < two ? 1 : -1))) svg.append(s("path", { class: colour, d }));

  const centreAt = apart(centres.map((centre) => centre && at(centre)));
  const boxes = [];
  const rays = s("g", { class: "rays" });
  const marks = s("g");
  const labels = s("g", { class: "labels" });
  const { item_ids, interest } = answer.candidates;
  const clicked = new Set(question.history);
  const candidates = new Set(item_ids);
  for (const itemId of clicked) {
    if (places.has(itemId) && !candidates.has(itemId)) marks.append(diamond(itemId, at(places.get(itemId)), "clicked"));
  }
  item_ids.forEach((itemId, rank) => {
    const place = places.get(itemId);
    if (!place) return;
    const [x, y] = at(place);
    boxes.push([x - 5, y - 5, x + 5, y + 5]);
    const centre = centreAt[interest[rank]];
    const colour = interest[rank] < 0 ? "popular" : `interest-${interest[rank] % 4}`;
    if (centre) rays.append(s("line", { class: colour, x1: centre[0], y1: centre[1], x2: x, y2: y }));
    const size = 6.5 - 2.5 * (rank / item_ids.length);
    marks.append(clicked.has(itemId)
      ? diamond(itemId, [x, y], `clicked candidate ${colour}`)
      : s("circle", { class: `candidate ${colour}`, "data-item": itemId, cx: x, cy: y, r: size }));
  });
  centreAt.forEach((centre, number) => {
    if (!centre) return;
    const [x, y] = centre;
    boxes.push([x - CENTRE, y - CENTRE, x + CENTRE, y + CENTRE]);
    marks.append(s("g", { class: `centre interest-${number % 4}` }, s("circle", { cx: x, cy: y, r: CENTRE }), s("text", { x, y }, String(number))));
  });
  const labelled = new Map();
  item_ids.forEach((itemId, rank) => {
    const number = interest[rank];
    if (!places.has(itemId) || (labelled.get(number) ?? 0) >= LABELS_PER_INTEREST) return;
    if (label(labels, boxes, at(places.get(itemId)), titleOf(itemId), width, height, number)) labelled.set(number, (labelled.get(number) ?? 0) + 1);
  });
  svg.append(rays, marks, labels);
  frame.replaceChildren(svg, pointing(svg, view, places, at));
}

/** Interests that would cover each other, moved apart until all can be seen. */
function apart(centres) {
  const moved = centres.map((centre) => centre && [...centre]);
  for (let round = 0; round < 30; round += 1) {
    moved.forEach((one, number) => moved.slice(number + 1).forEach((two) => {
      if (!one || !two) return;
      const [dx, dy] = [two[0] - one[0] || 0.1, two[1] - one[1]];
      const distance = Math.hypot(dx, dy);
      const push = Math.max(0, 2 * CENTRE - distance) / 2 / distance;
      one[0] -= dx * push; one[1] -= dy * push; two[0] += dx * push; two[1] += dy * push;
    }));
  }
  return moved;
}

function diamond(itemId, [x, y], kind) {
  return s("rect", { class: kind, "data-item": itemId, x: x - 4, y: y - 4, width: 8, height: 8, transform: `rotate(45 ${x} ${y})` });
}

/** The points without the few that lie far out. */
function most(points) {
  const cut = Math.floor(points.length * OUTLIERS);
  const inner = [0, 1].map((axis) => points.map((point) => point[axis]).sort((one, two) => one - two).slice(cut, points.length - cut));
  const [[left, top], [right, bottom]] = [inner.map((values) => values[0]), inner.map((values) => values.at(-1))];
  return points.filter(([x, y]) => x >= left && x <= right && y >= top && y <= bottom);
}

/** From the grid to pixels, everything inside the margin, the same scale both ways. */
function onScreen(points, width, height) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [xs.reduce(min), xs.reduce(max), ys.reduce(min), ys.reduce(max)];
  const scale = Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (bottom - top || 1));
  const dx = (width - (right - left) * scale) / 2;
  const dy = (height - (bottom - top) * scale) / 2;
  return ([x, y]) => [dx + (x - left) * scale, dy + (y - top) * scale];
}

const min = (one, two) => Math.min(one, two);
const max = (one, two) => Math.max(one, two);

/** Writes a title beside a point where it covers nothing else; false if there is no room. */
function label(group, boxes, [x, y], title, width, height, number) {
  const text = title.length > 26 ? `${title.slice(0, 25)}…` : title;
  const size = text.length * 6.1 + 4;
  for (const [left, top] of [[x + 9, y - 7], [x - 9 - size, y - 7], [x - size / 2, y - 22], [x - size / 2, y + 9]]) {
    const box = [left, top, left + size, top + 14];
    const fits = box[0] > 2 && box[1] > 2 && box[2] < width - 2 && box[3] < height - 2;
    if (!fits || boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
    boxes.push(box);
    group.append(s("text", { class: number < 0 ? null : `interest-${number % 4}`, x: left + 2, y: top + 11 }, text));
    return true;
  }
  return false;
}

/** A note with the title of the point under the pointer; a click adds the item. */
function pointing(svg, { answer, question, learn, onAdd }, places, at) {
  const note = h("p", { class: "note", hidden: true });
  const marked = new Set([...answer.candidates.item_ids, ...question.history]);
  const screen = [...places].map(([itemId, place]) => [itemId, ...at(place)]);
  let nearest = null;
  const find = ({ clientX, clientY }) => {
    const { left, top } = svg.getBoundingClientRect();
    let best = REACH ** 2;
    nearest = null;
    for (const [itemId, x, y] of screen) {
      const distance = ((x + left - clientX) ** 2 + (y + top - clientY) ** 2) * (marked.has(itemId) ? 0.3 : 1);
      if (distance < best) [best, nearest] = [distance, [itemId, x, y]];
    }
  };
  const tell = () => {
    if (!nearest) return;
    const [itemId, x, y] = nearest;
    note.textContent = titleOf(itemId);
    note.style.left = `${Math.min(Math.max(x, 80), svg.clientWidth - 80)}px`;
    note.style.top = `${y > 60 ? y - 14 : y + 44}px`;
  };
  svg.addEventListener("pointermove", async (event) => {
    find(event);
    note.hidden = nearest === null;
    svg.classList.toggle("on-item", nearest !== null);
    tell();
    if (!nearest) return;
    await learn([nearest[0]]).catch(() => {});
    tell();
  });
  svg.addEventListener("pointerleave", () => { note.hidden = true; });
  svg.addEventListener("click", (event) => { find(event); if (nearest) onAdd(nearest[0]); });
  return note;
}

function spoken(answer, places) {
  const { item_ids, interest } = answer.candidates;
  const parts = answer.interests.map((_, number) => `${interest.filter((found) => found === number).length} of interest ${number}`);
  const missing = item_ids.filter((itemId) => !places.has(itemId)).length;
  return `Map with the candidates: ${parts.join(", ") || "popular items"}${missing ? `; ${missing} are not on the map` : ""}. The lists beside it say the same.`;
}
