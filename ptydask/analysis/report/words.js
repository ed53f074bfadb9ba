"use strict";

// --- data: one element for each part; what is large is read when it is first looked at -----------------

const read = (name) => JSON.parse(document.getElementById(`data-${name}`).textContent);
const lazily = (name) => {
  let kept;
  return () => (kept ??= read(name));
};

const about = read("about");
const study = read("study");
const columns = read("columns");
const facts = lazily("trials");
const curves = lazily("curves");
const pictures = lazily("pictures");
const probes = lazily("probes");
const thumbnails = lazily("thumbnails");
const more = lazily("more");

/** What a command about this page's trials is told besides, in a study with stages. */
const ofStage = study.option ?? "";

const columnOf = new Map(columns.map((column) => [column.key, column]));
const numbers = columnOf.get("number").values;
const rowOf = new Map(numbers.map((number, row) => [number, row]));
const parameters = columns.filter((column) => column.group === "param");
const metrics = columns.filter((column) => column.group === "metric");
/** Means over other seeds, of the trials that were confirmed. */
const repeats = columns.filter((column) => column.group === "confirmed");
const value = (key, number) => columnOf.get(key)?.values[rowOf.get(number)] ?? null;
const stateOf = (number) => value("state", number);
const best = study.ranks.length ? study.ranks[0] : null;

// --- words ---------------------------------------------------------------------------------------------

const NOTHING = "–";
const isNumber = (v) => typeof v === "number";
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const unitText = (unit) => ({ angstrom: "Å", "1/angstrom": "Å⁻¹", "1/m": "m⁻¹", degree: "°" })[unit] ?? unit;

/** A measured value with six significant digits, trailing zeros kept so that columns line up. */
const errorText = (v) => (v === null ? NOTHING : isNumber(v) ? v.toPrecision(6) : String(v));

/** A chosen value in its shortest form of at most six significant digits. */
const valueText = (v) => (v === null ? NOTHING : isNumber(v) ? String(Number(v.toPrecision(6))) : String(v));

const paramText = (column, v) => (v === null && column?.null ? "null" : valueText(v));
const sizeText = (v) => {
  const power = v < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(v) / 3));
  return `${Number((v / 1000 ** power).toPrecision(3))} ${["B", "kB", "MB", "GB", "TB"][power]}`;
};

function duration(v) {
  if (!isNumber(v)) return NOTHING;
  const two = (n) => String(n).padStart(2, "0");
  const s = Math.max(0, v);
  if (s < 59.95) return `${s.toFixed(1)} s`;
  if (Math.round(s) < 3600) return `${Math.floor(Math.round(s) / 60)} min ${two(Math.round(s) % 60)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(s / 3600);
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** A moment as its file has it, without the fraction of its second. */
const moment = (text) => String(text).replace("T", " ").replace(/\.\d+/, "").replace("+00:00", " UTC");

function cellText(column, v) {
  if (v === null && column.null) return "null";
  if (v === null || v === "") return "";
  if (column.key === "error" || column.group === "metric") return errorText(v);
  if (column.key === "seconds") return duration(v);
  if (column.key === "started") return moment(v);
  return valueText(v);
}

const labelOf = (column, label = column.label) => (column.unit ? `${label} (${unitText(column.unit)})` : label);

/** What a trial's cell says: of a mean also its deviation and of how many repeats it is. */
const textOf = (column, number) => column.texts?.[rowOf.get(number)] ?? cellText(column, value(column.key, number));

function gainText() {
  const gain = study.gain;
  if (!gain) return "";
  if (gain.own === best) return `These are ${gain.values}: nothing that was tried is better.`;
  const after = gain.step === null ? "" : `, both after ${study.step} ${gain.step}`;
  const theirs = `${gain.values} (${study.metric} ${errorText(value("error", gain.own))}${after})`;
  if (gain.difference === 0) return `No better than ${theirs}.`;
  const by = gain.share === null ? errorText(Math.abs(gain.difference)) : `${(100 * gain.share).toFixed(1)} %`;
  return `${by} ${gain.difference > 0 ? "better" : "worse"} than ${theirs}.`;
}

// --- elements: text is always text, never markup ---------------------------------------------------------

function fill(node, attributes, children) {
  for (const [name, given] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), given);
    else if (given === true) node.setAttribute(name, "");
    else if (given !== false && given !== null && given !== undefined) node.setAttribute(name, given);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
/** Put these children in the place of all that a node had. */
function show(node, ...children) {
  node.replaceChildren();
  return fill(node, {}, children);
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const link = (number, text = `Trial ${number}`, more = {}) => el("a", { href: `#trial-${number}`, ...more }, text);
const badge = (state) => el("span", { class: `badge ${state}` }, state);

/** Pairs as a table of two columns; a value may be text or nodes. */
const pairs = (rows, caption) =>
  el("table", { class: "pairs" }, caption && el("caption", {}, caption),
    el("tbody", {}, rows.map(([name, said]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, said)))));

const folded = (title, text, open = false) =>
  el("details", { open }, el("summary", {}, title), el("pre", { tabindex: "0" }, text));

