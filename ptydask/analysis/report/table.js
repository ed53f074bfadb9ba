// --- the table: its state, what follows from it, and the rows that are in sight --------------------------------

const ROW = 34;
const PRINTED = 100;
const state = {
  sort: best === null ? "number" : "rank", down: false, search: parseSearch(""), filters: new Map(), wrong: new Map(), printing: false,
  states: new Set(Object.keys(study.counts)), shown: new Set(columns.filter((c) => c.shown).map((c) => c.key)), picked: [],
};
let order = [];
let kept = new Map();
const sight = {};

const rank = (v) => (isNumber(v) ? v : v === null || v === "" || v === "NaN" ? null : v === "Infinity" ? Infinity : v === "-Infinity" ? -Infinity : v);

const KINDS = ["number", "boolean", "string"];
/** Rising, numbers before words; what has no value comes last either way. */
function compared(a, b, down) {
  const [x, y] = [rank(a), rank(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  if (typeof x !== typeof y) return KINDS.indexOf(typeof x) - KINDS.indexOf(typeof y);
  const sign = x < y ? -1 : x > y ? 1 : 0;
  return down ? -sign : sign;
}

function matches(row) {
  if (!state.states.has(columnOf.get("state").values[row])) return false;
  for (const [column, test] of state.filters.values()) if (!test(column.values[row])) return false;
  return state.search.tests.every(({ test }) => test(row));
}
const rowTexts = [];
const rowText = (row) =>
  (rowTexts[row] ??= columns.map((c) => textOf(c, numbers[row])).join("\n").toLowerCase());

function arrange() {
  const sorted = columnOf.get(state.sort);
  order = numbers.map((_, row) => row).filter((row) => matches(row));
  order.sort((a, b) => compared(sorted.values[a], sorted.values[b], state.down) || a - b);
}

/** Sort by a column: the best error first, anything else rising; the same column again turns it round. */
function sortBy(key) {
  const bestFirst = ["error", "confirmed.mean"].includes(key) && study.direction === "maximize";
  state.down = state.sort === key ? !state.down : bestFirst;
  state.sort = key;
  heads();
  refresh();
}

function refresh() {
  arrange();
  sight.scroll.scrollTop = 0;
  paint();
  const all = numbers.length;
  sight.said.textContent = order.length === all ? count(all, "trial") : `${order.length.toLocaleString("en")} of ${count(all, "trial")}`;
  sight.none.hidden = order.length > 0;
  if (numbers.length && !order.length) show(sight.none, ["No trial fits these filters.", ...emptyReasons()].join(" "));
  const wrong = [...state.search.wrong, ...state.wrong.values()];
  sight.wrong.hidden = !wrong.length;
  // Said once: a live region that gets the same words again would be read again.
  if (sight.wrong.textContent !== wrong.join(" ")) sight.wrong.textContent = wrong.join(" ");
}

/** As if it had been typed into the search box. */
function searchFor(text) {
  sight.search.value = text;
  search(text);
}

function search(text) {
  state.search = parseSearch(text);
  refresh();
}

const shownColumns = () => columns.filter((column) => state.shown.has(column.key));

/** Room for the longest text of a column, so that nothing moves while one scrolls. */
function widthOf(column) {
  const longest = numbers.reduce((most, number) => Math.max(most, textOf(column, number).length), 0);
  const head = column.label.length + (column.unit ? unitText(column.unit).length + 2 : 0) + 2;
  return Math.min(34, Math.max(7, longest + 2, head));
}

function rowElement(row) {
  const number = numbers[row];
  const small = thumbnails()[number];
  const pick = el("input", { type: "checkbox", tabindex: "-1", "aria-label": `Compare trial ${number}`, onchange: () => choose(number) });
  pick.checked = state.picked.includes(number);
  const cells = shownColumns().map((column) => {
    const v = column.values[row];
    if (column.key === "number") return el("th", { scope: "row" }, link(number, String(number), { tabindex: "0" }));
    if (column.key === "state") return el("td", {}, badge(v));
    const text = textOf(column, number);
    return el("td", { class: column.kind, title: text.length > 30 ? text : null }, text);
  });
  return el("tr", { class: number === best ? "best" : null, "data-number": number },
    el("td", { class: "pick" }, pick), sight.thumbs && el("td", { class: "thumb" }, small && el("img", { src: small, alt: "" })), cells);
}

/** Put the rows that are in sight into the document, and only those. */
function paint() {
  // An empty table is low, and nothing tells when it grows again.
  const high = Math.max(sight.scroll.clientHeight, innerHeight);
  const first = state.printing ? 0 : Math.max(0, Math.floor(sight.scroll.scrollTop / ROW) - 8);
  const last = Math.min(order.length, state.printing ? PRINTED : first + Math.ceil(high / ROW) + 16);
  const focused = document.activeElement?.closest?.("tr[data-number]")?.dataset.number;
  const rows = order.slice(first, last).map((row, k) => {
    if (!kept.has(row)) kept.set(row, rowElement(row));
    return fill(kept.get(row), { "aria-rowindex": first + k + 3 }, []);
  });
  const gap = (count) => el("tr", { class: "gap", "aria-hidden": "true" }, el("td", { colspan: sight.widths.children.length, style: `height:${count * ROW}px` }));
  sight.body.replaceChildren(gap(first), ...rows, gap(state.printing ? 0 : order.length - last));
  sight.table.setAttribute("aria-rowcount", order.length + 2);
  if (kept.size > 600) kept = new Map(order.slice(first, last).map((row) => [row, kept.get(row)]));
  if (focused !== undefined && !sight.body.contains(document.activeElement)) focusRow(focused);
}
const focusRow = (number) => sight.body.querySelector(`tr[data-number="${number}"] a`)?.focus({ preventScroll: true });

/** Arrow keys, Page Up and Down, Home and End go from row to row; the space bar picks a row for the comparison. */
function moveRow(event) {
  const here = event.target.closest("tr[data-number]");
  if (here && event.key === " " && event.target.matches("a")) {
    event.preventDefault();
    choose(Number(here.dataset.number));
    return;
  }
  const page = Math.max(1, Math.floor(sight.scroll.clientHeight / ROW) - 3);
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (!here || by === undefined) return;
  event.preventDefault();
  const at = order.indexOf(rowOf.get(Number(here.dataset.number)));
  const to = Math.min(order.length - 1, Math.max(0, at + by));
  const top = to * ROW;
  const room = sight.scroll.clientHeight - sight.head.offsetHeight - ROW;
  if (top < sight.scroll.scrollTop) sight.scroll.scrollTop = top;
  else if (top > sight.scroll.scrollTop + room) sight.scroll.scrollTop = top - room;
  paint();
  focusRow(numbers[order[to]]);
}

/** Pick a trial for the comparison, or put it back; of three the first goes. */
function choose(number) {
  state.picked = state.picked.includes(number) ? state.picked.filter((n) => n !== number) : [...state.picked, number].slice(-2);
  kept.clear();
  paint();
  const [a, b] = state.picked;
  sight.compare.replaceChildren(...(b !== undefined
    ? [el("a", { class: "button", href: `#compare-${a}-${b}` }, `Compare trials ${a} and ${b}`)]
    : a !== undefined ? [`Trial ${a} is picked: pick another to compare them`] : []));
}

// --- the table's frame -----------------------------------------------------------------------------------------

function filterInput(column) {
  if (column.key === "state") return null;
  const hint = column.kind === "number" ? "< >" : "text";
  const input = el("input", { type: "search", placeholder: hint, "aria-label": `Filter ${column.label}`, spellcheck: "false", autocomplete: "off" });
  input.value = state.filters.get(column.key)?.[2] ?? "";
  input.addEventListener("input", () => {
    const test = input.value.trim() ? cellTest(column, input.value) : null;
    const wrong = Boolean(input.value.trim()) && test === null;
    input.setAttribute("aria-invalid", String(wrong));
    if (wrong) state.wrong.set(column.key, `${quoted(input.value.trim())} is not used: ${filterHint(column)}.`);
    else state.wrong.delete(column.key);
    if (test) state.filters.set(column.key, [column, test, input.value]);
    else state.filters.delete(column.key);
    refresh();
  });
  return input;
}

function headCell(column) {
  const sorted = state.sort === column.key;
  const direction = state.down ? "descending" : "ascending";
  return el("th", { scope: "col", class: column.kind, "aria-sort": sorted ? direction : "none" },
    el("button", { type: "button", "data-key": column.key, onclick: () => sortBy(column.key) },
      column.label, column.unit && el("small", {}, ` ${unitText(column.unit)}`), el("span", { class: "mark", "aria-hidden": "true" }, sorted ? (state.down ? "▼" : "▲") : "")));
}

function heads() {
  const shown = shownColumns();
  const focused = document.activeElement?.dataset?.key;
  const thumb = sight.thumbs;
  sight.head.replaceChildren(
    el("tr", { "aria-rowindex": 1 }, el("td", { class: "pick", title: "Pick two to compare" }, "⇄"), thumb && el("td", {}), shown.map(headCell)),
    el("tr", { class: "filters", "aria-rowindex": 2 }, el("td", {}), thumb && el("td", {}), shown.map((column) => el("td", {}, filterInput(column)))));
  sight.widths.replaceChildren(el("col", { style: "width:2.2rem" }), ...(thumb ? [el("col", { style: "width:2.6rem" })] : []),
    ...shown.map((column) => el("col", { style: `width:calc(${widthOf(column)}ch + 1rem)` })));
  if (focused) sight.head.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function stateChips() {
  const chips = Object.entries(study.counts).filter(([, n]) => n > 0).map(([word, n]) => {
    const box = el("input", { type: "checkbox", onchange: () => { state.states[box.checked ? "add" : "delete"](word); refresh(); } });
    box.checked = true;
    return el("label", { class: `chip ${word}` }, box, ` ${word} `, el("b", {}, n.toLocaleString("en")));
  });
  return el("span", { role: "group", "aria-label": "States", class: "chips" }, chips);
}

function columnChoice() {
  const boxes = columns.filter((column) => column.key !== "number").map((column) => {
    const box = el("input", { type: "checkbox", onchange: () => {
      state.shown[box.checked ? "add" : "delete"](column.key);
      kept.clear();
      // A filter that nobody sees would hide trials without a word.
      const filtered = !box.checked && [state.filters, state.wrong].map((asked) => asked.delete(column.key)).some(Boolean);
      heads();
      if (filtered) refresh();
      else paint();
    } });
    box.checked = state.shown.has(column.key);
    return el("label", {}, box, ` ${column.label}`);
  });
  return el("details", { class: "choice" }, el("summary", {}, "Columns"), el("div", {}, boxes));
}

function clearFilters(section) {
  state.filters.clear();
  state.wrong.clear();
  state.search = parseSearch("");
  state.states = new Set(Object.keys(study.counts));
  section.querySelectorAll(".tools .chip input").forEach((box) => { box.checked = true; });
  sight.search.value = "";
  heads();
  refresh();
}

/** Build the section of the table and show it for the first time. */
function buildTable(section) {
  sight.thumbs = Object.keys(thumbnails()).length > 0;
  sight.widths = el("colgroup");
  sight.head = el("thead");
  sight.body = el("tbody", { onkeydown: moveRow });
  sight.table = el("table", { class: "trials" }, el("caption", { class: "unseen" }, "All trials of the study; the headings sort, the fields below them filter"), sight.widths, sight.head, sight.body);
  sight.scroll = el("div", { class: "scroll", onscroll: () => requestAnimationFrame(paint) }, sight.table);
  sight.said = el("span", { role: "status", class: "said" });
  sight.none = el("p", { class: "empty", role: "status", hidden: true }, numbers.length ? "" : "No trial has ended so far.");
  sight.compare = el("span", { class: "compare", role: "status" });
  sight.search = el("input", { type: "search", placeholder: "Search all columns", "aria-label": "Search all columns", oninput: () => search(sight.search.value) });
  sight.wrong = el("p", { class: "banner", role: "status", hidden: true });
  sight.body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-number]");
    if (row && !event.target.closest("a, input, .pick") && !String(getSelection())) location.hash = `trial-${row.dataset.number}`;
  });
  section.append(el("h2", { id: "trials-title" }, "Trials"),
    el("div", { class: "tools" }, sight.search, stateChips(), columnChoice(),
      el("button", { type: "button", onclick: () => clearFilters(section) }, "Clear filters"), sight.said, sight.compare),
    sight.wrong, sight.scroll, sight.none,
    el("p", { class: "note" }, "The headings sort. The fields below them filter: ",
      ["<0.02", ">=1", "0.9..1.1", "!=3", "none"].map((example) => [el("code", {}, example), " "]), "in columns of numbers, words in the others; the search takes ", el("code", {}, "trial 12"), " and ", el("code", {}, "scale>1"), ", too. Arrow keys walk the rows, the space bar picks one to compare."));
  heads();
  refresh();
  addEventListener("resize", () => requestAnimationFrame(paint));
  addEventListener("beforeprint", () => { state.printing = true; paint(); });
  addEventListener("afterprint", () => { state.printing = false; paint(); });
}
