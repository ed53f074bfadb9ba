// --- what microscopists look at first: spectrum, slices, probe modes, refined positions ------------------------------

const percent = (share) => `${share >= 0.001 ? Number((100 * share).toPrecision(3)) : (100 * share).toPrecision(1)}\u00a0%`;

function spectrumFigure(number) {
  const p = more()[number]?.spectrum;
  if (!p) return null;
  const size = room(440);
  return el("figure", { class: "spectrum" }, el("h2", {}, "Power spectrum"),
    drawing(p, { size, axes: true, label: `Power spectrum of the phase of trial ${number}, log10; rings at ${p.rings.map(([, text]) => text).join(", ")}` }),
    greyBar(p, null, size), el("figcaption", {}, "Of the phase, summed over depth, under a Hann window. The rings say frequency and, in brackets, spacing."));
}

/** All slices as a strip, and one of them large: the slider or the strip says which. */
function sliceFigure(number) {
  const s = more()[number]?.slices;
  if (!s) return null;
  const last = s.pictures.length - 1;
  const size = room(440);
  const nameOf = (k) => `slice ${s.numbers[k]} of ${s.count}${s.depths ? `, at a depth of ${rounded(s.depths[k])} Å` : ""}`;
  const label = (k) => `Phase of ${nameOf(k)}, trial ${number}`;
  const [large, name] = [el("div", {}), el("output", {})];
  const slider = el("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "Slice", oninput: () => choose(Number(slider.value)) });
  const strip = s.pictures.map((p, k) =>
    el("button", { type: "button", tabindex: "-1", "aria-label": nameOf(k), onclick: () => choose(k) }, drawing(p, { size: 64, grey: s.grey, bar: false })));
  const choose = (k) => {
    slider.value = k;
    slider.setAttribute("aria-valuetext", nameOf(k));
    name.textContent = ` ${nameOf(k)}`;
    show(large, drawing(s.pictures[k], { size, axes: true, grey: s.grey, label: label(k) }));
    strip.forEach((button, n) => button.setAttribute("aria-pressed", String(n === k)));
  };
  choose(Math.floor(last / 2));
  const left = s.count - s.pictures.length;
  return el("figure", { class: "slices" }, el("h2", {}, "Slices"), large, greyBar(s.pictures[0], s.grey, size),
    el("p", { class: "slide" }, el("label", {}, slider), name), el("div", { class: "strip", role: "group", "aria-label": "All slices" }, strip),
    el("figcaption", {}, `Phase of each slice, from its median, all on one grey scale; the beam enters at slice 1.${left ? ` ${s.pictures.length} of ${s.count} slices are on this page.` : ""}`));
}

const wheel = () => el("span", { class: "wheel", role: "img", "aria-label": "Colour wheel of the phase: red is 0, green a third of a turn, blue two thirds" });
const HUES = "Hue is phase, as the wheel has it: red 0, going counter-clockwise to 2π; brightness is amplitude, of each picture to its own highest";

function modesFigure(number) {
  const m = more()[number]?.modes;
  if (!m) return null;
  const size = Math.min(190, (room(400) - 12) / 2);
  const left = m.count - m.shown.length;
  const label = (mode, where) => `Probe mode ${mode.number} of trial ${number} in ${where} space, ${percent(mode.share)} of the power`;
  const rows = m.shown.map((mode) => el("tr", {},
    el("th", { scope: "row" }, `${mode.number}`, el("small", {}, percent(mode.share))),
    [["real", "real"], ["reciprocal", "reciprocal"]].map(([key, where]) => el("td", {}, drawing(mode[key], { size, label: label(mode, where) })))));
  return el("figure", { class: "modes" }, el("h2", {}, m.count === 1 ? "Probe" : "Probe modes"),
    el("table", {}, el("caption", { class: "unseen" }, "Modes of the probe, their shares of the power, in real and reciprocal space"),
      el("thead", {}, el("tr", {}, ["mode", "in real space", "in reciprocal space"].map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows)),
    el("div", { class: "probe" }, wheel(), colourBar(0, 1, "amplitude, of its highest", { size: Math.min(230, room(230)), left: 14 })),
    el("figcaption", {}, `${HUES}. The share is that of the power.${left ? ` The strongest ${m.shown.length} of ${m.count} modes are on this page.` : ""}`));
}

/** Dark to light, and all of it seen on white. */
const DISTANCES = ["#0d0887", "#6a00a8", "#b12a90", "#e16462", "#f89540"];
const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);

/** Lines from the nominal positions in the direction of the refined ones, longer than they are by a round factor. */
function positionsFigure(number) {
  const m = more()[number]?.positions;
  if (!m) return null;
  const [places, shifts] = [floats(m.places), floats(m.shifts)];
  const some = Array.from({ length: places.length / 2 }, (_, k) => ({ y: places[2 * k], x: places[2 * k + 1], dy: shifts[2 * k], dx: shifts[2 * k + 1] }));
  const least = (key) => some.reduce((low, one) => Math.min(low, one[key]), Infinity);
  const most = (key) => some.reduce((high, one) => Math.max(high, one[key]), -Infinity);
  const [top, left] = [least("y"), least("x")];
  const across = Math.max(most("y") - top, most("x") - left) || 1;
  const far = some.reduce((high, one) => Math.max(high, Math.hypot(one.dy, one.dx)), 0);
  const between = across / Math.sqrt(some.length);
  const factor = far > 0 ? Math.max(1, round125((2 * between) / far)) : 1;
  const pad = Math.max(between, far * factor);
  const size = room(440);
  const p = { left: left - pad, top: top - pad, dx: 1, dy: 1, width: most("x") - left + 2 * pad, height: most("y") - top + 2 * pad, unit: "angstrom" };
  const scale = size / extent(p);
  const box = { left: 46, top: 6, right: 46 + p.width * scale, bottom: 6 + p.height * scale };
  const [px, py] = [(x) => (box.left + (x - p.left) * scale).toFixed(1), (y) => (box.top + (y - p.top) * scale).toFixed(1)];
  const classes = DISTANCES.map(() => []);
  for (const one of some) classes[Math.min(4, Math.floor((5 * Math.hypot(one.dy, one.dx)) / (far || 1)))].push(one);
  const lines = classes.map((group, k) => group.length && svg("path", { stroke: DISTANCES[k], d: group.map((one) => `M${px(one.x)} ${py(one.y)}L${px(one.x + factor * one.dx)} ${py(one.y + factor * one.dy)}`).join("") }));
  const dots = svg("path", { class: "nominal", d: some.map((one) => `M${px(one.x)} ${py(one.y)}h0`).join("") });
  const [width, height] = [box.right + 10, box.bottom + 38];
  const summary = `${count(m.count, "position")}: moved by ${rounded(m.rms)} Å (rms), half of them by less than ${rounded(m.median)} Å, at most ${rounded(m.largest)} Å`;
  return el("figure", { class: "positions" }, el("h2", {}, "Refined positions"),
    svg("svg", { class: "picture", role: "img", "aria-label": `Refined over nominal positions of trial ${number}. ${summary}`, viewBox: `0 0 ${width} ${height}`, width, height },
      svg("rect", { class: "sheet", x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }), svg("g", { class: "shifts" }, dots, lines), imageAxes(p, scale, box)),
    far > 0 && colourBar(0, far, "Å moved", { colours: DISTANCES.flatMap((colour) => [colour, colour]), size }),
    el("figcaption", {}, far > 0 ? `${summary}. Dots are nominal positions; lines lead to the refined ones${factor > 1 ? `, ${factor} times as far` : ""}. ` : "The positions are the nominal ones. ",
      some.length < m.count && `Neighbours are drawn together, ${some.length.toLocaleString("en")} lines. `,
      far > 0 && `All moved by (y, x) = (${m.mean.map((v) => rounded(v)).join(", ")}) Å, which is taken off. `,
      !m.exact && "Nominal positions are known to a pixel only."));
}

/** All of them, for the trials that have them on this page. */
function microscopyFigures(number) {
  if (!more()[number]) return pictures()[number] ? el("p", { class: "note" }, microscopyNote()) : null;
  return [spectrumFigure(number), sliceFigure(number), modesFigure(number), positionsFigure(number)];
}

const namedPictures = (number) => [["spectrum", "power spectrum"], ["slices", "slices"], ["modes", "probe modes"], ["positions", "refined positions"]]
  .filter(([key]) => more()[number]?.[key]).map(([, name]) => name).join(", ");

/** Which trials have these pictures. */
function microscopyNote() {
  const shown = study.montage.concat(study.own ?? []).filter((number, k, all) => more()[number] && all.indexOf(number) === k);
  if (!shown.length) return null;
  return [`${shown.length === 1 ? "One trial has" : `${shown.length} trials have`} more pictures on this page (${namedPictures(shown[0])}): `,
    shown.map((number, k) => [k ? ", " : "", link(number, String(number))]), ". Of the others: ", el("code", {}, `ptydask montage ${about.paste}${ofStage} --what spectrum`), "."];
}
