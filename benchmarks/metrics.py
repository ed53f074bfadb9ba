"""What value each metric chooses on planted data, and how much worse the object is there than at the best value.

    python benchmarks/metrics.py list                           the problems
    python benchmarks/metrics.py run --minutes 30               reconstruct what the cache does not have, seed by seed
    python benchmarks/metrics.py run regulariser --seeds 2
    python benchmarks/metrics.py table                          regrets from the cache: Markdown
    python benchmarks/metrics.py table --group apart            those of the problems that are held apart
    python benchmarks/metrics.py values modes                   every value of a problem: error, metrics, medians

For each value and seed there are two reconstructions: one with held-out positions, which has all metrics but
``counts``, and one with held-out electrons. The error is that of the first one's object against the specimen (see
``metric_problems.DataSet.object_error``). A metric's regret is the error at the value that it chooses over the least
error of all values: 1.00 is a perfect choice. Medians are over seeds, each of which has its own specimen and noise.
Every result is one line of the cache, so that a run may be stopped at any moment and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

from metric_problems import CACHE, GROUPS, PROBLEMS, Problem
from processes import NeverSaved

from ptydask import engines
from ptydask.model import Scalar, Slot, TrialInput
from ptydask.space.metrics import METRICS

FORMAT = 1
"""Raised where a change of the code changes what is in the cache."""
KINDS = ("heldout", "counts")
SEEDS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reconstruction."""

    error: float
    """Of the object, over the standard deviation of the truth; NaN where it diverged."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a metric chose from the values of a problem."""

    value: Scalar
    regret: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the problems, and the values to choose from")
    run = commands.add_parser("run", help="reconstruct what is not in the cache")
    table = commands.add_parser("table", help="the table of regrets")
    values = commands.add_parser("values", help="what the table was made from")
    for command in (run, table, values):
        command.add_argument("problems", nargs="*", metavar="PROBLEM", help="(all)")
        command.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"({SEEDS})")
    run.add_argument("--first", type=int, default=1, metavar="N", help="seed to begin with, for a second process (1)")
    run.add_argument("--minutes", type=float, default=math.inf, metavar="X", help="begin no reconstruction after these")
    table.add_argument("--group", choices=GROUPS, default="open", help="of problems, where none is named (open)")
    args = parser.parse_args()
    if args.command == "list":
        for problem in PROBLEMS.values():
            print(f"{problem.name:<18}{problem.group:<8}{problem.what}: {problem.values}")
    elif args.command == "run":
        fill_cache(_chosen(args.problems), range(args.first, args.seeds + 1), time.monotonic() + 60 * args.minutes)
    elif args.command == "table":
        chosen = [one for one in _chosen(args.problems) if args.problems or one.group == args.group]
        print("\n".join(regret_table(chosen, args.seeds)))
    else:
        for problem in _chosen(args.problems):
            print("\n".join(value_table(problem, args.seeds)))


def _chosen(names: Collection[str]) -> list[Problem]:
    for name in names:
        if name not in PROBLEMS:
            raise SystemExit(f"{name} is no problem; there are {', '.join(PROBLEMS)}")
    return [problem for problem in PROBLEMS.values() if not names or problem.name in names]


# --- reconstructions ---------------------------------------------------------------------------------------------


def fill_cache(problems: Collection[Problem], seeds: Iterable[int], until: float) -> None:
    """Reconstruct whatever is missing, one seed of all problems after the other, until that moment."""
    for seed in seeds:
        for problem in problems:
            for kind in KINDS:
                known = read_cache(problem)
                session: engines.Session | None = None
                for value in problem.values:
                    if (seed, value, kind) in known:
                        continue
                    if time.monotonic() > until:
                        return
                    began = time.process_time()
                    if session is None or problem.is_setting:
                        plan = problem.plan(value, seed, kind)
                        session = engines.get(plan.engine).open(plan, Slot(threads=1))
                    outcome = reconstruct(problem, value, seed, session)
                    _note(problem, seed, value, kind, outcome)
                    print(f"{problem.name} seed {seed} {value} {kind}: error {outcome.error:.4f}"
                          f" ({time.process_time() - began:.1f} s)", flush=True)  # fmt: skip


def reconstruct(problem: Problem, value: Scalar, seed: int, session: engines.Session) -> Outcome:
    """One reconstruction by PtyRAD, with its part of the data held out."""
    trial = TrialInput(0, problem.params(value), seed)
    try:
        output = session.run(trial, lambda step, metrics, gradient=None: False, NeverSaved())
    except ArithmeticError:
        return Outcome(math.nan, {})
    assert output.image is not None
    return Outcome(problem.data.object_error(output.image, seed), dict(output.metrics))


def _cache_file(problem: Problem) -> Path:
    return CACHE / f"{problem.name}-{problem.identity(FORMAT)}.jsonl"


def _note(problem: Problem, seed: int, value: Scalar, kind: str, outcome: Outcome) -> None:
    entry = {"seed": seed, "value": value, "kind": kind, "error": outcome.error, "metrics": dict(outcome.metrics)}
    with _cache_file(problem).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def read_cache(problem: Problem) -> dict[tuple[int, Scalar, str], Outcome]:
    """What is known of a problem: seed, value and kind to its outcome."""
    path = _cache_file(problem)
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return {(one["seed"], one["value"], one["kind"]): Outcome(one["error"], one["metrics"]) for one in entries}


# --- tables ------------------------------------------------------------------------------------------------------


def choices(problem: Problem, seed: int) -> dict[str, Choice] | None:
    """What each metric chooses with the data of one seed; None where a reconstruction is missing."""
    known = read_cache(problem)
    if any((seed, value, kind) not in known for value in problem.values for kind in KINDS):
        return None
    errors = {value: known[seed, value, "heldout"].error for value in problem.values}
    least = min(error for error in errors.values() if math.isfinite(error))
    chosen = {}
    for metric in METRICS:
        kind = "counts" if metric == "counts" else "heldout"
        given = {v: known[seed, v, kind].metrics.get(metric, math.nan) for v in problem.values}
        given = {value: number for value, number in given.items() if math.isfinite(number)}
        if given:
            best = (min if METRICS[metric].direction == "minimize" else max)(given, key=lambda v: given[v])
            chosen[metric] = Choice(best, errors[best] / least)
    return chosen


def regret_table(problems: Collection[Problem], seeds: int) -> Iterator[str]:
    """Markdown: a row for each problem, the median regret of each metric; the least of a row is bold. The last two rows
    are the geometric mean of those above, and the largest."""
    yield f"| problem | seeds | best value | {' | '.join(METRICS)} |"
    yield "|---|---|---|" + "---|" * len(METRICS)
    rows = []
    for problem in problems:
        known = read_cache(problem)
        all_chosen = {seed: chosen for seed in range(1, seeds + 1) if (chosen := choices(problem, seed))}
        if not all_chosen:
            continue
        regrets = {m: median(c[m].regret if m in c else math.inf for c in all_chosen.values()) for m in METRICS}
        rows.append(regrets)
        best = median(
            problem.values.index(min(problem.values, key=lambda v: known[seed, v, "heldout"].error))
            for seed in all_chosen
        )
        yield f"| {problem.what} | {len(all_chosen)} | {problem.values[round(best)]} | {_cells(regrets)} |"
    if rows:
        yield f"| geometric mean | | | {_cells({m: geometric_mean(row[m] for row in rows) for m in METRICS})} |"
        yield f"| largest | | | {_cells({m: max(row[m] for row in rows) for m in METRICS})} |"


def _cells(numbers: Mapping[str, float]) -> str:
    least = min(numbers.values()) + 0.005
    return " | ".join(f"**{number:.2f}**" if number <= least else f"{number:.2f}" for number in numbers.values())


def value_table(problem: Problem, seeds: int) -> Iterator[str]:
    """Markdown: a row for each value, medians over the seeds."""
    known = read_cache(problem)
    yield f"{problem.name}: {problem.what}"
    yield f"| value | seeds | error | {' | '.join(METRICS)} |"
    yield "|---|---|---|" + "---|" * len(METRICS)
    for value in problem.values:
        both = [[known.get((seed, value, kind)) for kind in KINDS] for seed in range(1, seeds + 1)]
        pairs = [(first, second) for first, second in both if first and second]
        if pairs:
            merged = [{**second.metrics, **first.metrics} for first, second in pairs]
            cells = [f"{median(one.get(metric, math.nan) for one in merged):.5g}" for metric in METRICS]
            error = median(first.error for first, _ in pairs)
            yield f"| {value} | {len(pairs)} | {error:.4f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
