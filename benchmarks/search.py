"""The ruler: reconstruction iterations until a study's best completed trial is at the planted truth.

    python benchmarks/search.py list                                  the problems
    python benchmarks/search.py table demo                            compute a grid, once, into benchmarks/tables
    python benchmarks/search.py replay demo --seeds 40                studies on the table, or on what they ask for
    python benchmarks/search.py replay demo --anywhere --goal 0       from random points to the very best one
    python benchmarks/search.py replay affine4 --searches optuna,auto --seeds 5 --workers 8
    python benchmarks/search.py live demo --searches file,auto --trials 60
    python benchmarks/search.py guess demo affine2                    what --guess knows of them, beside the truth
    python benchmarks/search.py replay affine4 --searches auto --guess none,point,ranges

At the truth is within one step of the grid (where there is none, 1 % of the range) in every parameter that has a truth.
All iterations count that any worker had computed by then, of pruned and of unfinished trials too.

A replay has the sampler, the pruner and the first points of a run, and what a reconstruction gives is looked up (see
search_replay.py); a live study is a run, counted from its results file. The columns are the quartiles over seeds; a
study that was not there when it was cut off counts as the number where it was, and ``cut off`` says how many were.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

from search_courses import Reconstructions, write_table
from search_problems import PROBLEMS, Problem
from search_replay import SEARCHES, Best, Study, replay_study, start_anywhere

import ptydask
from ptydask.guess.measuring import guess_params, has_parallax
from ptydask.model import TrialRecord, TrialState

BASELINE = "optuna"
GUESSES: Mapping[str, Literal["point", "ranges"] | None] = {"none": None, "point": "point", "ranges": "ranges"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the problems, and what their truth is")
    table = commands.add_parser("table", help="compute all points of a problem's grid")
    table.add_argument("problem", choices=PROBLEMS)
    told = commands.add_parser("guess", help="what the patterns tell of a problem's truth")
    told.add_argument("problems", nargs="+", choices=PROBLEMS)
    for name, seeds, does in (("replay", 20, "on known courses"), ("live", 1, "real runs")):
        command = commands.add_parser(name, help=f"studies: {does}")
        command.add_argument("problem", choices=PROBLEMS)
        command.add_argument("--searches", default="", metavar="A,B", help=f"of {', '.join(SEARCHES)}")
        command.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"studies of each ({seeds})")
        command.add_argument("--workers", type=int, default=2, metavar="N", help="(2)")
        command.add_argument("--trials", type=int, default=60, metavar="N", help="the study's length (60)")
        command.add_argument("--most", type=float, default=0, metavar="N", help="iterations to cut off at (3 lengths)")
        command.add_argument("--guess", default="none", metavar="A,B", help=f"with run's --guess: {', '.join(GUESSES)}")
        command.add_argument("--anywhere", action="store_true", help="begin at a random point (replay only)")
        command.add_argument("--goal", type=float, default=None, metavar="X", help="this share above the best known "
                             "loss, instead of the truth: 0 is the very best point of a table")  # fmt: skip
    args = parser.parse_args()
    if args.command == "list":
        for problem in PROBLEMS.values():
            print(
                f"{problem.name:<10}{problem.what}{'  (held out)' if problem.held_out else ''}: {dict(problem.truth)}"
            )
        return
    if args.command == "guess":
        for name in args.problems:
            print_guesses(PROBLEMS[name])
        return
    problem = PROBLEMS[args.problem]
    if args.command == "table":
        print(write_table(problem, problem.plan()))
        return
    studies = replay_all if args.command == "replay" else run_all
    print_table(problem, args, studies(problem, args))


Results = Iterator[tuple[str, list[tuple[Study, Best | None]], float]]
"""A search, its studies and when each was there, and the seconds it all took."""


def replay_all(problem: Problem, args: argparse.Namespace) -> Results:
    plan = problem.plan()
    source = Reconstructions(problem, plan)
    most = args.most or 3 * args.trials * problem.iterations
    goal = None if args.goal is None else source.best_loss() * (1 + args.goal)
    searches = args.searches.split(",") if args.searches else SEARCHES
    for name, guess in itertools.product(searches, args.guess.split(",")):
        guessed = problem.plan(GUESSES[guess])
        began, studies = time.monotonic(), []
        for seed in range(args.seeds):
            options = {"seed": seed, "workers": args.workers, "trials": args.trials, "most": most, "goal": goal}
            begin = start_anywhere(guessed, seed) if args.anywhere else guessed
            study = replay_study(problem, begin, source, SEARCHES[name], **options)
            studies.append((study, study.found(problem, plan) if goal is None else study.reached(goal)))
        yield _row_name(name, guess), studies, time.monotonic() - began


def run_all(problem: Problem, args: argparse.Namespace) -> Results:
    plan = problem.plan()
    searches = (args.searches or "file,auto").split(",")
    for name, guess in itertools.product(searches, args.guess.split(",")):
        began, studies = time.monotonic(), []
        for seed in range(args.seeds):
            results = problem.folder / f"live-{_row_name(name, guess)}-{args.workers}-{args.trials}-{seed}.h5"
            ptydask.run(
                problem.params(),
                workers=args.workers,
                trials=args.trials,
                set={**problem.overrides(), "hypertune_params.study_name": f"{problem.name} {seed}"},
                search="auto" if name.startswith("auto") else "file",
                seed=seed,
                guess=GUESSES[guess],
                results=results,
                progress=False,
            )
            study = count_run(results)
            studies.append((study, study.found(problem, plan)))
        yield _row_name(name, guess), studies, time.monotonic() - began


def _row_name(search: str, guess: str) -> str:
    return search if guess == "none" else f"{search}+{guess}"


def count_run(results: Path) -> Study:
    """The study of a results file, in the order in which its trials ended.

    A trial that was under way when another ended counts with the share of its time that had passed.
    """
    with ptydask.open(results) as opened:
        records = sorted(opened.results.records(), key=_ended)
    study = Study(points=[str(sorted(record.params.items())) for record in records])
    for record in records:
        worse = study.improvements and (record.error or 0.0) >= study.improvements[-1].loss
        if record.state is TrialState.COMPLETE and record.error is not None and not worse:
            ended = _ended(record)
            begun, spent = sum(_began(other) <= ended for other in records), sum(_spent_by(r, ended) for r in records)
            study.improvements.append(Best(spent, begun, record.error, record.params))
    study.spent = sum(record.iterations or 0.0 for record in records)
    return study


def _ended(record: TrialRecord) -> float:
    return _began(record) + record.seconds


def _began(record: TrialRecord) -> float:
    assert isinstance(record.began, datetime)
    return record.began.timestamp()


def _spent_by(record: TrialRecord, moment: float) -> float:
    share = (moment - _began(record)) / record.seconds if record.seconds else 1.0
    return (record.iterations or 0.0) * min(max(share, 0.0), 1.0)


def print_guesses(problem: Problem) -> None:
    """Of each tuned parameter every guess beside the truth, and those that nothing is known of."""
    plan = problem.plan()
    report = guess_params(plan.config["init_params"], parallax=has_parallax()).report
    for name, dist in plan.space.items():
        guesses = [guess for guess in report.guesses if guess.parameter == name]
        for guess in guesses:
            told = f"{guess.value:.4g} +- {guess.deviation or 0:.2g}" if isinstance(guess.value, float) else "-"
            step = getattr(dist, "step", None)
            print(f"{problem.name:<12}{name:<11}{problem.truth.get(name, '-'):>7}{step or '-':>7}{told:>18}  "
                  f"{guess.trust:<6}{guess.method:<16}{guess.why}")  # fmt: skip
        if not guesses:
            print(f"{problem.name:<12}{name:<11}{problem.truth.get(name, '-'):>7}{'':>25}  the patterns do not tell")


# --- the table -----------------------------------------------------------------------------------------------


def print_table(problem: Problem, args: argparse.Namespace, results: Results) -> None:
    what = f"{problem.name}: {problem.what}; {problem.iterations} iterations a trial"
    print(f"{what}, {args.command} with {args.workers} workers, {args.seeds} seeds", flush=True)
    print(f"{'search':<12}{'iterations':>11}{'quartiles':>14}{'worst':>7}{'trials':>8}{'twice':>7}{'cut off':>9}"
          f"{'ratio':>7}{'s':>7}")  # fmt: skip
    baseline = 0.0
    for name, studies, seconds in results:
        spent = [study.spent if best is None else best.spent for study, best in studies]
        trials = [len(study.points) if best is None else best.trials for study, best in studies]
        low, _, high = quantiles(spent, n=4) if len(spent) > 1 else spent * 3
        twice = sum(len(study.points) - len(set(study.points)) for study, _ in studies)
        late = sum(best is None for _, best in studies)
        baseline = median(spent) if name == BASELINE else baseline
        ratio = f"{median(spent) / baseline:.2f}" if baseline else ""
        print(f"{name:<12}{median(spent):>11.0f}{f'{low:.0f}-{high:.0f}':>14}{max(spent):>7.0f}{median(trials):>8.0f}"
              f"{twice:>7}{late:>9}{ratio:>7}{seconds:>7.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
