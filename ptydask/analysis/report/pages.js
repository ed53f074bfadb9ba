// --- a trial's page ----------------------------------------------------------------------------------------------

const at = (list, k) => (k >= 0 && k < list.length ? list[k] : null);

function neighbours(number) {
  const place = study.ranks.indexOf(number);
  const row = rowOf.get(number);
  return { better: place < 0 ? null : at(study.ranks, place - 1), worse: place < 0 ? null : at(study.ranks, place + 1),
    before: at(numbers, row - 1), after: at(numbers, row + 1) };
}

function trialLinks(number) {
  const to = neighbours(number);
  const one = (target, text, key, rel) =>
    target === null ? el("span", { class: "button off" }, text) : el("a", { class: "button", href: `#trial-${target}`, rel, title: `Trial ${target} (key ${key})` }, text);
  return el("nav", { class: "steps", "aria-label": "Other trials" },
    study.ranks.includes(number) && [one(to.better, "‹ better", "←", null), one(to.worse, "worse ›", "→", null)],
    one(to.before, "‹ before", "p", "prev"), one(to.after, "after ›", "n", "next"),
    best !== null && best !== number && el("a", { class: "button", href: `#compare-${best}-${number}` }, "Compare with the best"),
    study.own !== null && study.own !== number && study.own !== best && el("a", { class: "button", href: `#compare-${study.own}-${number}` }, `Compare with the ${study.own_word}`),
    el("a", { class: "button", href: "#trials" }, "All trials"));
}

const stepText = (steps) => (study.step === "step" ? `step ${steps.toLocaleString("en")}` : count(steps, study.step));

function headline(number) {
  const place = value("rank", number);
  const error = value("error", number);
  const steps = value("steps", number);
  const early = stateOf(number) !== "complete" && error !== null ? `${steps === null ? "" : ` after ${stepText(steps)}`}: not ranked` : "";
  return [el("h1", {}, `Trial ${number} `, badge(stateOf(number))),
    el("p", { class: "figure" }, error === null ? `No ${study.metric}` : [el("b", {}, errorText(error)), ` ${study.metric}${early}`],
      place !== null && el("span", { class: "note" }, ` ${ordinal(place)} of ${study.ranks.length.toLocaleString("en")}`))];
}

function probeFigure(number) {
  const p = probes()[number];
  if (!p) return null;
  if (more()[number]?.modes) return null;
  const of = p.modes > 1 ? `, strongest of ${p.modes} modes (${(100 * p.share).toFixed(0)} % of the power)` : "";
  return el("figure", {}, el("div", { class: "probe" }, drawing(p, { size: 200, label: `Probe of trial ${number}` }),
    wheel()), el("figcaption", {}, `Probe${of}. ${HUES}.`));
}

function trialImage(number, again) {
  if (!study.images) return null;
  const p = pictures()[number];
  const size = room(560);
  return el("figure", { class: "hero" }, imageOf(number, { size, axes: true }), p && greyBar(p, greyOf(), size),
    p && el("figcaption", {}, `${p.title || "Image"}. ${greyText(p)}. `, greySwitch(again)));
}

const SHOWN_ELSEWHERE = new Set(["rank", "number", "state", "error", "message"]);

function trialFacts(number) {
  const rows = columns.filter((column) => column.group === "fact" && !SHOWN_ELSEWHERE.has(column.key))
    .map((column) => [column.label, textOf(column, number)]);
  const again = value("retry_of", number) !== null || value("attempt", number) > 1;
  const shown = rows.filter(([label, said]) => said !== "" && (again || label !== "attempt"));
  return pairs(shown, "Run");
}

function trialTexts(number) {
  const kept = facts()[number] ?? {};
  const message = value("message", number);
  return [
    message && el("p", { class: stateOf(number) === "failed" ? "banner bad" : "banner" }, message),
    kept.reason && kept.reason !== "failed" && el("p", { class: "note" }, `Why it ended: ${kept.reason}.`),
    kept.lost && el("p", { class: "banner bad" }, `Not kept: ${kept.lost}`),
    kept.left_out && kept.left_out.map((said) => el("p", { class: "note" }, `Not kept: ${said}`)),
    kept.traceback && folded(study.engine === "command" ? "What went wrong" : "Traceback", kept.traceback, true),
  ];
}

function attributeText(name, v) {
  const unit = study.attribute_units[name];
  if (unit === "byte" && isNumber(v)) return sizeText(v);
  return unit && v !== null ? `${valueText(v)} ${unitText(unit)}` : valueText(v);
}

const fileTable = (number, files, more) => files && [pairs(files.map(([path, size]) => [path, sizeText(size)]), "Files of its program"),
  more && el("p", { class: "note" }, `and ${count(more, "more", "more")}`),
  el("p", { class: "note" }, `ptydask export ${about.paste} artifacts --trial ${number} DIR`)];

function drawTrial(number) {
  const kept = facts()[number] ?? {};
  const again = () => drawTrial(number);
  const said = metrics.map((column) => [labelOf(column), errorText(value(column.key, number))]);
  const repeated = (column) => (column.key === "confirmed.mean" ? study.metric : column.label.replace(/ with other seeds$/, ""));
  const confirmed = repeats.map((column) => [labelOf(column, repeated(column)), textOf(column, number)]).filter(([, text]) => text);
  const attributes = Object.entries(kept.attributes ?? {}).map(([name, v]) => [name, attributeText(name, v)]);
  show(document.getElementById("detail"), 
    trialLinks(number), headline(number), trialTexts(number),
    kept.command && !kept.traceback?.includes(kept.command) && folded("Command", kept.command, true),
    el("div", { class: study.images ? "lead" : "lead alone" },
      el("div", { class: "first" }, trialImage(number, again)),
      el("div", { class: "panel" }, el("h2", {}, "Parameters"), parameterTable([number]), constantTable(),
        el("h2", {}, "Curve"), curvePlots([number]), thinned(number),
        said.length ? pairs(said, "Metrics") : null,
        confirmed.length ? pairs(confirmed, "Once more with other seeds") : null),
      study.images && el("div", { class: "more" }, probeFigure(number), microscopyFigures(number)),
      el("div", { class: "facts" }, trialFacts(number), attributes.length ? pairs(attributes, "Attributes") : null, fileTable(number, kept.artifacts, kept.more_files))),
    kept.log ? folded("End of the log", kept.log) : el("p", { class: "note" }, `Its log, if it wrote one: ptydask show ${about.paste} ${number} --log${ofStage}`));
}

function thinned(number) {
  const whole = curves().whole[number];
  return whole === undefined ? null : el("p", { class: "note" }, `${curveOf(number).step.length} of ${count(whole, study.step === "step" ? "value" : study.step)} are drawn.`);
}

// --- two trials beside each other ----------------------------------------------------------------------------------

/** Both images in one place, one after the other: what differs moves, and the eye sees it. */
function blinker(pair) {
  if (!pair.every((number) => pictures()[number])) return null;
  const shown = pair.map((number) => pictures()[number]);
  // Lengths, not pixels, are the same in both.
  const widest = Math.max(...shown.map(extent));
  const layers = shown.map((p, k) => el("div", { class: "layer" },
    drawing(p, { size: (room(560) * extent(p)) / widest, axes: true, grey: study.grey, label: imageLabel(pair[k], p) })));
  const said = el("b", { role: "status" });
  let front = 0;
  let timer = null;
  const flip = (k) => {
    front = k;
    layers.forEach((layer, n) => layer.classList.toggle("behind", n !== k));
    said.textContent = `Trial ${pair[k]}`;
  };
  const blink = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    const on = timer === null;
    if (on) timer = setInterval(() => (blink.isConnected ? flip(1 - front) : clearInterval(timer)), 600);
    else { clearInterval(timer); timer = null; }
    blink.setAttribute("aria-pressed", String(on));
  } }, "Blink");
  flip(0);
  return el("figure", { class: "hero blink" }, el("p", {}, el("button", { type: "button", id: "flip", title: "Key: space", onclick: () => flip(1 - front) }, "Flip"), " ", blink, " ", said),
    el("div", { class: "layers" }, layers), study.grey && greyBar(shown[0], study.grey, room(560)), el("figcaption", {}, "Both on the same grey scale, at the same scale, centre on centre. The space bar flips."));
}

function drawComparison(a, b) {
  const pair = [a, b];
  const again = () => drawComparison(a, b);
  const confirmed = repeats.filter((column) => pair.some((n) => value(column.key, n) !== null));
  const said = [{ key: "error", label: study.metric }, ...metrics, ...confirmed, columnOf.get("seconds"), columnOf.get("steps")].map((column) =>
    el("tr", {}, el("th", { scope: "row" }, column.label), pair.map((n) => el("td", { class: "number" }, textOf(column, n) || NOTHING))));
  show(document.getElementById("detail"), 
    el("nav", { class: "steps", "aria-label": "Other pages" }, el("a", { class: "button", href: `#compare-${b}-${a}` }, "Swap"), el("a", { class: "button", href: "#trials" }, "All trials")),
    el("h1", {}, "Trials ", link(a, String(a)), " and ", link(b, String(b))),
    study.images && el("p", { class: "tools" }, pairChoice(pair), greySwitch(again)),
    el("div", { class: "two" }, pair.map((number, k) => el("figure", {},
      el("figcaption", { class: `line-${k}` }, el("b", {}, link(number)), ` ${study.metric} ${errorText(value("error", number))} `, badge(stateOf(number))),
      study.images && imageOf(number, { size: room(480), axes: true }), study.images && pictures()[number] && greyBar(pictures()[number], greyOf(), room(480))))),
    el("div", { class: "lead" }, el("div", { class: "first" }, differenceFigure(pair), blinker(pair)),
      el("div", { class: "panel" }, el("h2", {}, "Parameters"), parameterTable(pair, { ranges: false }),
        el("h2", {}, "Outcome"), el("table", { class: "params" }, el("thead", {}, el("tr", {}, el("td", {}), pair.map((n) => el("th", { scope: "col", class: "number" }, `trial ${n}`)))), el("tbody", {}, said)),
        el("h2", {}, "Curves"), curvePlots(pair))));
}

// --- from address to page --------------------------------------------------------------------------------------------

const SECTIONS = [["stages", "Stages"], ["summary", "Summary"], ["confirmation", "Confirmation"], ["next", "What next"], ["trials", "Trials"], ["plots", "Plots"], ["images", "Images"], ["provenance", "Provenance"]]
  .filter(([id]) => (id !== "images" || study.images) && (id !== "next" || numbers.length) && (id !== "confirmation" || study.verdict.length) && (id !== "stages" || study.stages));
const pageState = { scroll: 0, chosen: false, title: `${study.name} – ptydask` };

function pageOf(hash) {
  const match = /^#(?:trial-(\d+)|compare-(\d+)-(\d+))$/.exec(hash);
  const asked = match ? match.slice(1).filter(Boolean).map(Number) : [];
  return asked.length && asked.every((number) => rowOf.has(number)) ? asked : null;
}

/** Why an address within the page leads nowhere; null where it leads somewhere. */
function missingAddress(hash) {
  const [, trials] = /^#(?:trial|compare)-(\d+(?:-\d+)*)$/.exec(hash) ?? [];
  const missing = (trials ?? "").split("-").filter((number) => number && !rowOf.has(Number(number)));
  if (missing.length) return missing.map(missingTrial).join(" ");
  if (!hash || hash === "#" || SECTIONS.some(([id]) => hash === `#${id}` || (id === "trials" && hash.startsWith("#trials?")))) return null;
  const addresses = [...SECTIONS.map(([id]) => `#${id}`), "#trials?scale>1", "#trial-12", "#compare-3-12"];
  return `This page has no ${hash}: its addresses are ${addresses.join(", ")}.`;
}

const decoded = (text) => {
  try { return decodeURIComponent(text); } catch { return text; }
};

function showOverview(hash) {
  const [overview, detail] = [document.getElementById("overview"), document.getElementById("detail")];
  const back = overview.hidden;
  overview.hidden = false;
  detail.hidden = true;
  detail.replaceChildren();
  document.title = pageState.title;
  const missing = missingAddress(decoded(hash));
  const notice = document.getElementById("notice");
  show(notice, missing);
  notice.hidden = missing === null;
  const [address, asked] = hash.split(/\?(.*)/s);
  if (address === "#trials" && asked !== undefined) searchFor(decoded(asked));
  paint();
  const section = SECTIONS.some(([id]) => `#${id}` === address) ? document.querySelector(address) : null;
  if (missing !== null) return scrollTo(0, 0);
  if (section && (pageState.chosen || !back)) section.scrollIntoView();
  else if (back) scrollTo(0, pageState.scroll);
}

function showDetail(asked) {
  const [overview, detail] = [document.getElementById("overview"), document.getElementById("detail")];
  if (asked.length === 1) drawTrial(asked[0]);
  else drawComparison(...asked);
  overview.hidden = true;
  detail.hidden = false;
  document.title = `${asked.length === 1 ? "Trial" : "Trials"} ${asked.join(" and ")}, ${pageState.title}`;
  detail.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function route() {
  const asked = pageOf(location.hash);
  if (asked) showDetail(asked);
  else showOverview(location.hash);
  pageState.chosen = false;
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, pre")) return;
  const asked = pageOf(location.hash);
  if (asked?.length === 2 && event.key === " " && !event.target.closest("button, a, summary")) {
    event.preventDefault();
    document.getElementById("flip")?.click();
  }
  if (asked?.length !== 1) return;
  const to = neighbours(asked[0]);
  const target = { ArrowLeft: to.better, ArrowRight: to.worse, p: to.before, n: to.after }[event.key];
  if (target !== undefined && target !== null) location.hash = `trial-${target}`;
}

function start() {
  document.getElementById("home").textContent = study.name;
  document.getElementById("sections").append(...SECTIONS.map(([id, text]) => el("a", { href: `#${id}`, onclick: () => { pageState.chosen = true; } }, text)));
  document.getElementById("footer").append(`Written by ptydask ${about.version} from ${about.source}, ${moment(about.made)}.`);
  addEventListener("click", (event) => {
    if (!document.getElementById("overview").hidden && event.target.closest?.("a, .drawing, tr[data-number]")) pageState.scroll = scrollY;
  }, true);
  window.history.scrollRestoration = "manual";
  addEventListener("hashchange", route);
  addEventListener("keydown", keys);
  drawStages();
  drawSummary();
  drawVerdict();
  drawAdvice();
  buildTable(document.getElementById("trials"));
  drawMontage();
  drawProvenance();
  preparePlots();
  route();
}

start();
