// --- scales ----------------------------------------------------------------------------------------------

/** The largest of 1, 2, 5 times a power of ten that is not above `most`. */
function round125(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return power * ([5, 2].find((factor) => factor * power <= most * (1 + 1e-9)) ?? 1);
}

function ticks(low, high, about) {
  if (!(high > low)) return [low];
  const step = round125((2 * (high - low)) / about);
  const marks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) marks.push(k * step);
  return marks;
}

const tickText = (v) => String(Number(v.toPrecision(4)));

// --- pictures ----------------------------------------------------------------------------------------------

let filters = 0;

/** Grey values of an image, which has black and white of its own, as those of `grey` [black, white]. */
function greyFilter(p, grey) {
  const span = grey[1] - grey[0] || 1;
  const slope = (p.high - p.low) / span;
  const intercept = (p.low - p.middle - grey[0]) / span;
  const id = `grey-${(filters += 1)}`;
  const channel = (name) => svg(name, { type: "linear", slope, intercept });
  return svg("filter", { id, "color-interpolation-filters": "sRGB", x: 0, y: 0, width: 1, height: 1 },
    svg("feComponentTransfer", {}, channel("feFuncR"), channel("feFuncG"), channel("feFuncB")));
}

function scaleBar(p, scale, left, bottom, width) {
  const length = round125(0.3 * p.dx * p.width);
  const text = `${tickText(length)} ${unitText(p.unit)}`;
  return svg("g", { class: "bar" },
    svg("rect", { x: left + 10, y: bottom - 16, width: length * scale, height: Math.max(3, width / 120) }),
    svg("text", { x: left + 10 + (length * scale) / 2, y: bottom - 23, "text-anchor": "middle" }, text));
}

/** Circles around the middle of a picture in reciprocal space, and what they are beside them. */
function ringMarks(p, scale, box) {
  const [x, y] = [box.left - p.left * scale, box.top - p.top * scale];
  const circles = p.rings.map(([radius]) => svg("circle", { cx: x, cy: y, r: radius * scale }));
  // Words above each circle where they have room, and where not, above every other or third.
  const some = Math.ceil(15 / Math.max(1, (p.rings[0]?.[0] ?? 1) * scale));
  const apart = some * (p.rings[0]?.[0] ?? 1) * scale;
  const words = p.rings.filter((_, k) => (k + 1) % some === 0).map(([radius, text]) => {
    const top = y - radius * scale;
    const below = top - 16 < box.top;
    return below && apart < 32 ? null : svg("text", { x, y: below ? top + 13 : top - 4, "text-anchor": "middle" }, text);
  });
  return svg("g", { class: "rings" }, circles, words);
}

function imageAxes(p, scale, box) {
  const unit = unitText(p.unit);
  const [horizontal, vertical] = p.unit === "mrad" ? ["θx", "θy"] : p.unit === "1/angstrom" ? ["kx", "ky"] : ["x", "y"];
  const across = ticks(p.left, p.left + p.dx * p.width, 6).map((v) => {
    const x = box.left + (v - p.left) * scale;
    return [svg("path", { d: `M${x} ${box.bottom}v5` }),
      svg("text", { x, y: box.bottom + 17, "text-anchor": "middle" }, tickText(v))];
  });
  const down = ticks(p.top, p.top + p.dy * p.height, 6).map((v) => {
    const y = box.top + (v - p.top) * scale;
    return [svg("path", { d: `M${box.left} ${y}h-5` }),
      svg("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, tickText(v))];
  });
  return svg("g", { class: "axes" }, across, down,
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 33, "text-anchor": "middle" }, `${horizontal} (${unit})`),
    svg("text", { transform: `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${vertical} (${unit})`));
}

/** The longer side of an image in its unit of length. */
const extent = (p) => Math.max(p.dx * p.width, p.dy * p.height);

/** A drawing of `most` pixels where the window has them: letters then keep their size on a small screen. */
const room = (most) => Math.max(200, Math.min(most, document.documentElement.clientWidth - 90));

/** An image at its scale. `grey`: [black, white] of a common scale; without it the image's own. */
function drawing(p, { size = 560, axes = false, grey = null, label = "", bar = !p.rings } = {}) {
  const [wide, high] = [p.dx * p.width, p.dy * p.height];
  const scale = size / extent(p);
  const box = { left: axes ? 46 : 0, top: axes ? 6 : 0 };
  box.right = box.left + wide * scale;
  box.bottom = box.top + high * scale;
  const [width, height] = [box.right + (axes ? 10 : 0), box.bottom + (axes ? 38 : 0)];
  const filter = grey ? greyFilter(p, grey) : null;
  const shown = svg("image", {
    href: p.src, x: box.left, y: box.top, width: wide * scale, height: high * scale, preserveAspectRatio: "none",
    filter: filter && `url(#${filter.id})`,
    class: scale * p.dx > 3 ? "pixels" : null,
  });
  const named = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return svg("svg", { class: "picture", ...named, viewBox: `0 0 ${width} ${height}`, width, height },
    filter, shown, p.rings && ringMarks(p, scale, box), axes && imageAxes(p, scale, box), bar && scaleBar(p, scale, box.left, box.bottom, size));
}

let bars = 0;
const GREYS = ["#000", "#fff"];

/** What colours mean, from `low` to `high`: as wide as the picture of `size` above it, and as far from the left. */
function colourBar(low, high, unit, { colours = GREYS, size = room(560), left = 46 } = {}) {
  const id = `bar-${(bars += 1)}`;
  const [first, last, width] = [left, left + size, left + size + 24];
  const at = (v) => first + ((v - low) / (high - low || 1)) * (last - first);
  const stops = colours.map((colour, k) => svg("stop", { offset: k / (colours.length - 1), "stop-color": colour }));
  const marks = ticks(low, high, (last - first) / 45).map((v) => [svg("path", { d: `M${at(v)} 14v4` }),
    svg("text", { x: at(v), y: 30, "text-anchor": "middle" }, tickText(v))]);
  return svg("svg", { class: "picture colours", role: "img", "aria-label": `Colour bar from ${rounded(low)} to ${rounded(high)} ${unit}`, viewBox: `0 0 ${width} 50`, width, height: 50 },
    svg("linearGradient", { id }, stops), svg("rect", { x: first, y: 2, width: Math.max(1, last - first), height: 12, fill: `url(#${id})` }),
    svg("g", { class: "axes" }, marks, svg("text", { x: (first + last) / 2, y: 46, "text-anchor": "middle" }, unit)));
}

/** The bar of an image's greys: its own, or those of `grey`, which begin at the image's median. */
function greyBar(p, grey, size) {
  const [low, high] = grey ?? [p.low, p.high];
  const unit = unitText(p.values) + (grey && p.middle ? ", from the median" : "");
  return high > low ? colourBar(low, high, unit, { size }) : null;
}

let commonGrey = true;
const greyOf = () => (commonGrey ? study.grey : null);

const rounded = (v) => valueText(Number(v.toPrecision(3)));

function greyText(p) {
  const [low, high] = greyOf() ?? [p.low, p.high];
  const from = commonGrey && study.grey && p.middle ? " from its median" : "";
  return `Black ${rounded(low)}, white ${rounded(high)} ${p.values}${from}`;
}

/** Two buttons that choose the grey scale of all images, and draw again. */
function greySwitch(again) {
  const button = (text, common) =>
    el("button", { type: "button", "aria-pressed": String(commonGrey === common),
      onclick: () => { commonGrey = common; again(); } }, text);
  return study.grey && el("span", { class: "switch", role: "group", "aria-label": "Grey scale" },
    button("Common grey scale", true), button("Own", false));
}

const imageLabel = (number, p) => `${p.title || "image"} of trial ${number}, ${study.metric} ${errorText(value("error", number))}`;

/** A trial's image, large or as a thumbnail; words where it has none. */
function imageOf(number, options = {}) {
  const p = pictures()[number];
  if (p) return drawing(p, { grey: greyOf(), label: imageLabel(number, p), ...options });
  const small = thumbnails()[number];
  if (small) {
    return el("div", { class: "small" }, el("img", { src: small, alt: `Thumbnail of the image of trial ${number}` }),
      el("p", { class: "note" }, `A thumbnail: this page holds large images of the best ${Object.keys(pictures()).length} trials. `,
        `The image itself is in ${about.source}.`));
  }
  return el("p", { class: "empty" }, "There is no image of this trial.");
}

// --- curves --------------------------------------------------------------------------------------------------

/** A trial's curve: an array for each name of `curves().names`; null for a trial that never reported. */
function curveOf(number) {
  const packed = curves().data[number];
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const all = new Float32Array(bytes.buffer);
  const names = curves().names;
  const points = all.length / names.length;
  return Object.fromEntries(names.map((name, k) => [name, all.slice(k * points, (k + 1) * points)]));
}

function yScale(values) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high / low > 50;
  const pad = log ? 0 : (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const f = log ? Math.log10 : (v) => v;
  const marks = log
    ? ticks(Math.ceil(f(low)), Math.floor(f(high)), 4).filter(Number.isInteger).map((k) => 10 ** k)
    : ticks(low, high, 6);
  return { at: (v) => (f(v) - f(low)) / (f(high) - f(low) || 1), marks: marks.length ? marks : [low, high] };
}

/** One metric over the iterations or steps, a line for each of `series` [{number, curve}]. */
function plot(series, name, { width = room(520) + 40, height = 240 } = {}) {
  const points = series.map(({ curve }) =>
    [...(curve[name] ?? [])].map((y, k) => [curve.step[k], y]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y)));
  const all = points.flat();
  if (!all.length) return null;
  const [first, last] = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  const y = yScale(all.map((p) => p[1]));
  const box = { left: 66, right: width - 14, top: 10, bottom: height - 38 };
  const px = (v) => box.left + ((v - first) / (last - first || 1)) * (box.right - box.left);
  const py = (v) => box.bottom - y.at(v) * (box.bottom - box.top);
  const lines = points.map((line, k) => line.length && [
    svg("path", { class: `line line-${k}`, d: `M${line.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L")}` }),
    svg("circle", { class: `dot line-${k}`, r: 3.5, cx: px(line.at(-1)[0]), cy: py(line.at(-1)[1]) })]);
  const grid = y.marks.map((v) => [svg("path", { class: "grid", d: `M${box.left} ${py(v)}H${box.right}` }),
    svg("text", { x: box.left - 7, y: py(v) + 4, "text-anchor": "end" }, tickText(v))]);
  const under = ticks(first, last, width / 70).filter(Number.isInteger).map((v) =>
    svg("text", { x: px(v), y: box.bottom + 16, "text-anchor": "middle" }, tickText(v)));
  const said = series.map(({ number }, k) => `trial ${number} ends at ${errorText(points[k].at(-1)?.[1] ?? null)}`).join(", ");
  return el("figure", { class: "curve" }, el("figcaption", {}, name),
    svg("svg", { class: "picture", role: "img", "aria-label": `${name} over the ${study.step}s: ${said}`, viewBox: `0 0 ${width} ${height}`, width, height },
      grid, under, lines, svg("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, study.step)));
}

function curvePlots(shown) {
  const series = shown.map((number) => ({ number, curve: curveOf(number) })).filter((one) => one.curve);
  if (!series.length) return el("p", { class: "empty" }, `No ${study.step} was reported.`);
  return curves().names.slice(1).map((name) => plot(series, name));
}
