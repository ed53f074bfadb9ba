// --- the overview ----------------------------------------------------------------------------------------------

const ordinal = (n) => `${n.toLocaleString("en")}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th"}`;
const atEdge = (one, v) => isNumber(v) && isNumber(one.low) && isNumber(one.high) && one.high > one.low &&
  Math.min(Math.abs(v - one.low), Math.abs(v - one.high)) <= 1e-9 * (one.high - one.low);

/** Where values lie in their range: a ring for the start's, a dot for this trial's. */
function rangeMark(one, own, v) {
  if (!isNumber(one.low) || !isNumber(one.high) || one.high <= one.low) return null;
  const f = one.log && one.low > 0 ? Math.log : (x) => x;
  const at = (x) => 6 + (108 * (f(x) - f(one.low))) / (f(one.high) - f(one.low));
  const inside = (x) => isNumber(x) && x >= one.low && x <= one.high;
  return svg("svg", { class: "range", viewBox: "0 0 120 14", width: 120, height: 14, "aria-hidden": "true" },
    svg("path", { d: "M6 7H114M6 3v8M114 3v8" }),
    inside(own) && svg("circle", { class: "own", r: 4, cx: at(own), cy: 7 }),
    inside(v) && svg("circle", { class: "here", r: 4, cx: at(v), cy: 7 }));
}

/** A trial's parameters with their ranges, and those of the start beside them. */
function parameterTable(shown, { ranges = true } = {}) {
  const own = study.own !== null && !shown.includes(study.own) ? study.own : null;
  const rows = study.tuned.map((one) => {
    const key = `params.${one.name}`;
    const values = shown.map((number) => value(key, number));
    const differ = shown.length > 1 && values.some((v) => v !== values[0]);
    return el("tr", { class: differ ? "differs" : null },
      el("th", { scope: "row", title: one.meaning || null }, one.name, one.unit && el("small", {}, ` ${unitText(one.unit)}`)),
      values.map((v) => el("td", { class: "number strong" }, paramText(columnOf.get(key), v))),
      own !== null && el("td", { class: "number" }, paramText(columnOf.get(key), value(key, own))),
      ranges && el("td", {}, rangeMark(one, value(key, study.own ?? -1), values[0]), el("small", { class: "words" }, one.range),
        shown.length === 1 && atEdge(one, values[0]) && el("small", { class: "warning" }, "at the edge of its range")));
  });
  if (!rows.length) return study.stages ? null : el("p", { class: "empty" }, "This study has no parameters.");
  return el("div", { class: "wide" }, el("table", { class: "params" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "parameter"),
      shown.map((number) => el("th", { scope: "col", class: "number" }, `trial ${number}`)),
      own !== null && el("th", { scope: "col", class: "number" }, link(own, study.own_word)),
      ranges && el("th", { scope: "col" }, "range"))),
    el("tbody", {}, rows)));
}

/** What every trial was given besides, where the file says it. */
const constantTable = () => (study.constants.length ? folded("Constants", study.constants.map(([name, said]) => `${name}: ${said}`).join("\n")) : null);

function counted() {
  const parts = Object.entries(study.counts).filter(([, n]) => n > 0).map(([word, n]) => `${n.toLocaleString("en")} ${word}`);
  return `${count(numbers.length, "trial")}${parts.length ? `: ${parts.join(", ")}` : ""}`;
}

function studyFacts() {
  const listed = (items) => (items.length > 4 ? `${items.slice(0, 3).join(", ")} and ${items.length - 3} more` : items.join(", "));
  const rows = [
    ["Trials", counted()],
    ["Tuned", `${study.ranked ? `${study.metric}, ${study.direction === "minimize" ? "minimised" : "maximised"},` : "no metric: ranked by nothing,"} over ${count(study.tuned.length, "parameter")}`],
    ...study.search,
    ["First start to last end", study.wall === null ? "" : duration(study.wall)],
    ["Iterations computed", study.computed ? valueText(study.computed) : ""],
    ["Time in trials", numbers.length ? duration(study.worked) : ""],
    ["Workers", study.workers ? `${count(study.workers, "worker")}${study.hosts.length ? ` on ${listed(study.hosts)}` : ""}` : ""],
    ["Device", listed(study.devices)],
    ["Tried again", study.retried ? count(study.retried, "trial") : ""],
    ["Engine", study.engine],
    ["Study begun", moment(study.created)],
  ];
  return pairs(rows.filter(([, said]) => said), null);
}

function runningBanner() {
  const run = study.running;
  if (!run) return null;
  const of = isNumber(run.total) ? ` of ${run.total.toLocaleString("en")}` : "";
  const left = isNumber(run.remaining) ? `, about ${duration(run.remaining)} to go` : "";
  return el("p", { class: "banner", role: "status" }, el("b", {}, "This study was running when the page was written. "),
    `${count(numbers.length, "trial")}${of} had ended, ${run.under_way} under way${left} (${moment(run.updated || about.made)}). Write the page again for the rest.`);
}

/** Where the optimum lies between the points, beside the best trial that it belongs to. */
function optimumText() {
  const { trial, values, about } = study.optimum ?? {};
  if (trial !== best || trial === undefined) return null;
  const said = Object.entries(values).map(([name, text]) => `${name} ${text}`).join(", ");
  return [el("p", {}, `Optimum by the slopes: ${said}`), el("p", { class: "note" }, about)];
}

function bestPanel() {
  if (best === null) {
    return el("div", { class: "panel" }, el("h2", {}, "Best trial"), el("p", { class: "empty" },
      numbers.length ? "No trial has completed with an error that can be ranked." : "No trial has ended so far."), parameterTable([]));
  }
  const mean = columnOf.get("confirmed.mean");
  const other = mean && study.best_confirmed !== best && rowOf.has(study.best_confirmed) ? study.best_confirmed : null;
  return el("div", { class: "panel" },
    el("h2", {}, "Best: ", link(best)),
    el("p", { class: "figure" }, el("b", {}, errorText(value("error", best))), ` ${study.metric}`),
    mean && textOf(mean, best) && el("p", {}, `With other seeds ${textOf(mean, best)}.`),
    other !== null && el("p", {}, "The best mean with other seeds has ", link(other, `trial ${other}`), `: ${textOf(mean, other)}.`),
    (study.inherited ?? []).map((line) => el("p", {}, line)),
    el("p", {}, gainText()), parameterTable([best]), optimumText(), constantTable(),
    metrics.length && !study.images ? pairs(metrics.map((column) => [column.label, errorText(value(column.key, best))]), "Metrics") : null);
}

function drawSummary() {
  const parts = [el(study.stages ? "h2" : "h1", {}, study.name), runningBanner()];
  const p = best === null ? null : pictures()[best];
  const image = p && el("figure", { class: "hero" },
    el("a", { href: `#trial-${best}` }, drawing(p, { size: room(620), axes: true, label: imageLabel(best, p) })),
    greyBar(p, null, room(620)),
    el("figcaption", {}, `${p.title || "Image"} of trial ${best}. `, namedPictures(best) && link(best, `Also its ${namedPictures(best)}.`)));
  const panel = bestPanel();
  // Beside the image where there is room for it, below where there are many parameters.
  (image && study.tuned.length > 6 ? image : panel).append(studyFacts());
  show(document.getElementById("summary"), parts, el("div", { class: image ? "lead" : "lead alone" }, image, panel));
}

/** Which stages the study has, and from which trial each has its values. */
function drawStages() {
  const section = document.getElementById("stages");
  if (!study.stages) return section.remove();
  const [heading, ...rows] = study.stages;
  return show(section, el("h1", {}, study.whole), el("h2", { id: "stages-title" }, "Stages"),
    el("div", { class: "wide" }, el("table", { class: "params" },
      el("thead", {}, el("tr", {}, heading.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map(([name, ...cells]) => el("tr", { "aria-current": name === study.stage ? "true" : null },
        el("th", { scope: "row" }, name), cells.map((said) => el("td", {}, said))))))),
    study.to_come.length > 0 && el("p", { class: "note" }, `Still to come: ${study.to_come.join(", ")}.`),
    el("p", { class: "note" }, `This page is of ${study.stage_text}. Another one: `, el("code", {}, `ptydask report ${about.paste} --stage NAME`)));
}

/** Whether the best trial is luck: what `ptydask confirm` said. */
function drawVerdict() {
  const section = document.getElementById("confirmation");
  if (!study.verdict.length) return section.remove();
  return show(section, el("h2", { id: "confirmation-title" }, "Confirmation"), el("pre", { class: "verdict", tabindex: "0" }, study.verdict.join("\n")));
}

/** What the results advise, in the words of `ptydask next`. */
function drawAdvice() {
  const section = document.getElementById("next");
  if (!numbers.length) return section.remove();
  const given = read("advice");
  const looked = (one) => one.trials.filter((number) => rowOf.has(number)).slice(0, 6).map((number) => [" ", link(number)]);
  const pair = (one) => one.trials.length === 2 && one.trials.every((number) => rowOf.has(number)) &&
    [", ", el("a", { href: `#compare-${one.trials[0]}-${one.trials[1]}` }, "side by side")];
  return show(section, el("h2", { id: "next-title" }, "What next"),
    given.length ? el("ul", { class: "advice" }, given.map((one) => el("li", {}, el("b", {}, one.kind), `: ${one.text}.`, looked(one), pair(one))))
      : el("p", { class: "empty" }, "Nothing in the results asks for a change."),
    study.engine === "ptyrad" && given.length > 0 && el("p", { class: "note" }, "The params file that follows: ", el("code", {}, `ptydask next ${about.paste}${study.advised_option ?? ""} -o next.yaml`)));
}

function drawMontage() {
  if (!study.images) return document.getElementById("images").remove();
  const shown = study.montage.filter((number) => pictures()[number] || thumbnails()[number]);
  const caption = (number) => study.tuned.map((one) => `${one.name} ${valueText(value(`params.${one.name}`, number))}`).join(", ");
  const tiles = shown.map((number) => {
    const p = pictures()[number];
    return el("a", { class: "tile", href: `#trial-${number}`, "aria-label": p ? null : `Trial ${number}` },
      p ? drawing(p, { size: 240, grey: greyOf(), label: imageLabel(number, p) }) : el("img", { src: thumbnails()[number], alt: `Trial ${number}` }),
      el("span", {}, el("b", {}, `${ordinal(value("rank", number))}, trial ${number}`)),
      el("span", {}, `${study.metric} ${errorText(value("error", number))}`), el("span", { class: "words" }, caption(number)));
  });
  const section = document.getElementById("images");
  show(section, el("h2", { id: "images-title" }, "Best images"),
    shown.length
      ? el("p", { class: "note" }, `The best ${count(shown.length, "trial")}, best first. `, greySwitch(drawMontage), " ", microscopyNote())
      : el("p", { class: "empty" }, "No completed trial has an image."),
    greyOf() && shown.some((number) => pictures()[number]) && greyBar(pictures()[shown.find((number) => pictures()[number])], greyOf(), room(360)),
    el("div", { class: "montage" }, tiles));
}

const REACH = 14;
const targetOf = (a) => Number(/^#trial-(\d+)$/.exec(a.getAttribute("xlink:href") ?? "")?.[1] ?? NaN);

/** The trial whose mark in a plot is nearest to a click, within reach of a finger. */
function nearestMark(drawn, event) {
  let [nearest, least] = [null, REACH];
  for (const a of drawn.querySelectorAll("a")) {
    const box = a.getBoundingClientRect();
    if (box.width > 3 * REACH || box.height > 3 * REACH) continue;
    const distance = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    if (distance < least) [nearest, least] = [targetOf(a), distance];
  }
  return nearest;
}

/** Marks in plots say which trial they are, and need not be hit exactly. */
function preparePlots() {
  for (const drawn of document.querySelectorAll(".drawing")) {
    const figure = drawn.closest(".plot");
    const enlarge = el("button", { type: "button", class: "enlarge", "aria-pressed": "false", "aria-label": `Enlarge ${drawn.getAttribute("aria-label")}`,
      onclick: () => enlarge.setAttribute("aria-pressed", String(figure.classList.toggle("large"))) }, "Enlarge");
    figure.querySelector("figcaption").append(" ", enlarge);
    drawn.addEventListener("mouseover", (event) => {
      const a = event.target.closest("a");
      const number = a && targetOf(a);
      if (!rowOf.has(number) || a.querySelector("title")) return;
      a.append(svg("title", {}, `Trial ${number}, ${stateOf(number)}, ${study.metric} ${errorText(value("error", number))}`));
    });
    drawn.addEventListener("click", (event) => {
      const number = event.target.closest("a") ? null : nearestMark(drawn, event);
      if (rowOf.has(number)) location.hash = `trial-${number}`;
    });
  }
}

const FACTS = {
  data: "Data", data_sha256: "SHA-256 of the data", config_path: study.step === "step" ? "Sweep file" : "Params file", command: "Command", working_directory: "Working directory",
  host: "Worker host", driver_host: "Driver host", gpu: "GPU", platform: "Platform", driver_pid: "Driver process",
};

function drawProvenance() {
  const from = read("provenance");
  show(document.getElementById("provenance"), el("h2", { id: "provenance-title" }, "Provenance"),
    pairs(from.facts.map(([name, said]) => [FACTS[name] ?? name.replace(/^version_(.*)/, "$1 (driver)"), said])),
    from.keep_arrays ? null : el("p", { class: "note" }, "The study kept numbers and curves only, no arrays."),
    from.config_text && folded("The file as it was given", from.config_text),
    folded("The whole configuration that ran", from.config),
    folded("The search space", from.search_space));
}
