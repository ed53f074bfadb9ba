// --- filters: "<0.02", ">=1 <2", "0.9..1.1", "=3", "!=0", "none"; anything else is part of a text -------------

const COMPARE = {
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  "=": (a, b) => near(a, b), "==": (a, b) => near(a, b), "!=": (a, b) => !near(a, b),
};
/** Equal as far as the table shows it: six significant digits. */
const near = (a, b) => a === b || Math.abs(a - b) <= 5e-6 * Math.max(Math.abs(a), Math.abs(b));

/** The test of a number that an expression asks for; null where it is none. All of its parts must hold. */
function numberTest(text) {
  const part = /\s*(?:(<=|>=|!=|==|<|>|=)?\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\s*\.\.\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?))?)\s*(?:,|&&|and\b)?\s*/giy;
  const tests = [];
  while (part.lastIndex < text.length) {
    const match = part.exec(text);
    if (!match) return null;
    const [, sign, first, last] = match;
    if (last !== undefined) tests.push((v) => v >= Number(first) && v <= Number(last));
    else tests.push((v) => COMPARE[sign ?? "="](v, Number(first)));
  }
  return (v) => v !== null && tests.every((test) => test(Number(v)));
}

/** The test of a cell that a filter asks for; null where a column of numbers cannot be asked that. */
function cellTest(column, text) {
  const asked = text.trim();
  if (/^(none|-|–)$/i.test(asked)) return (v) => v === null || v === "";
  if (/^nan$/i.test(asked)) return (v) => v === "NaN";
  if (column.kind === "number") return numberTest(asked.replace(/(\d)\.\.(?=\.?\d|[-+])/g, "$1 .. "));
  if (asked.startsWith("=")) return (v) => String(v ?? "") === asked.slice(1).trim();
  const [not, word] = asked.startsWith("!") ? [true, asked.slice(1)] : [false, asked];
  return (v) => cellText(column, v).toLowerCase().includes(word.trim().toLowerCase()) !== not;
}

// --- the search box: words in any column, trials by number, and comparisons such as scale>1 ---------------------

const COMPARISON = /^([^<>=!]+)(<=|>=|!=|==|=|<|>)(.*)$/;
const quoted = (text) => `“${text}”`;
const columnNamed = (name) => columns.find((c) => [c.label, c.key].some((known) => known.toLowerCase() === name.toLowerCase()));

/** What a search asks for: `tests` of a row, each with the words that it came from, and `wrong`: sentences. */
function parseSearch(text) {
  const [tests, wrong] = [[], []];
  const whole = text.replace(/\btrials?[ #=-]*(?=\d+(?:\s|$))/gi, "trial=").replace(/\s*(<=|>=|!=|==|=|<|>)\s*/g, "$1");
  for (const word of whole.split(/\s+/).filter(Boolean)) {
    const [, name, sign, asked] = COMPARISON.exec(word) ?? [];
    const column = name && columnNamed(name);
    const test = column && asked && searchTest(column, sign, asked);
    if (test) tests.push({ word, test: (row) => test(column.values[row]) });
    else if (column) wrong.push(`${quoted(word)} is not used: ${filterHint(column)}.`);
    else tests.push({ word, name, test: (row) => rowText(row).includes(word.toLowerCase()) });
  }
  return { tests, wrong };
}

function searchTest(column, sign, asked) {
  if (column.kind === "number") return cellTest(column, sign + asked);
  return /[<>]/.test(sign) ? null : cellTest(column, sign === "!=" ? `!${asked}` : asked);
}

const filterHint = (column) =>
  `${column.label} is a column of ${column.kind === "number" ? "numbers and takes <0.02, >=1, 0.9..1.1, =3, !=0, none" : "words and takes =SGD, !=SGD"}`;

/** Why nothing fits, as far as one part of what was asked is the reason. */
function emptyReasons() {
  const none = (test) => !numbers.some((_, row) => test(row));
  const searched = state.search.tests.filter(({ test }) => none(test)).map(({ word, name }) =>
    word.startsWith("trial=") ? missingTrial(word.slice(6))
      : name ? `There is no column ${quoted(name)}, and ${quoted(word)} stands in none.` : `No trial has ${quoted(word)} in any column.`);
  const filtered = [...state.filters.values()].filter(([column, test]) => none((row) => test(column.values[row])))
    .map(([column, , text]) => `No trial has ${column.label} ${text.trim()}.`);
  return [...searched, ...filtered];
}

/** That there is no such trial, and which there are. */
function missingTrial(number) {
  if (!numbers.length) return `There is no trial ${number}: none has ended so far.`;
  const last = numbers.at(-1);
  const which = numbers.length === 1 ? `the only one is ${last}` : `the page has ${count(numbers.length, "trial")}, numbers ${numbers[0]} to ${last}`;
  return `There is no trial ${number}: ${which}.`;
}
