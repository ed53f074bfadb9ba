"""What ``--from`` is worth: iterations to the truth of a first data set, and of a second one of the same settings.

    python benchmarks/earlier.py demo affine2 --seeds 3
    python benchmarks/earlier.py geometry7 --specimen other       tilts and slice thickness of the second are others

The first study is run until it is settled and was at the truth, or has ``--trials`` trials. The second data set is of
the same scan, aberrations and dose, with other vacancies and other noise (``--specimen other``: tilts and thickness as
well). Of it there are two studies, with the first one's results and without; both end at the truth, or are cut off. A
study's seed decides what the sampler draws.

At the truth, iterations, and what a replay is: see search.py. Whatever was reconstructed once is kept in the cache.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from search_courses import Reconstructions
from search_problems import CACHE, PROBLEMS, Problem
from search_replay import SEARCHES, Courses, Study, replay_study

from ptydask import demo
from ptydask.demo import geometry
from ptydask.driver import provenance
from ptydask.driver.earlier import EarlierStudy
from ptydask.driver.earlier_points import start_from
from ptydask.driver.settlement import settled_optimum
from ptydask.model import StudyPlan
from ptydask.ranking import ranked

ELECTRONS = {"affine2": 50_000, "affine4": 50_000, "noisy6": 10_000}
"""In a pattern; of other problems the demo's own dose."""
SPECIMENS: Mapping[str, Mapping[str, float]] = {
    "same": {},
    "other": {"tilt_y": -2.0, "tilt_x": 4.0, "dz": 10.0},
}
"""What of the second specimen is otherwise, where the problem has it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One seed: iterations until at the truth. Of a study that was cut off, None."""

    first: float | None
    following: float | None
    """With the first one's results."""
    alone: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", choices=PROBLEMS)
    parser.add_argument("--specimen", choices=SPECIMENS, default="same", help="of the second data set (same)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="studies of each (3)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="(2)")
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="of a study at most (30)")
    args = parser.parse_args()
    print(f"{'data':<12}{'specimen':<10}{'first':>7}{'--from':>8}{'alone':>7}{'of first':>10}{'of alone':>10}  each")
    for name in args.problems:
        rows = list(measure_problem(PROBLEMS[name], args.specimen, args.seeds, args.workers, args.trials))
        columns = ([row.first for row in rows], [row.following for row in rows], [row.alone for row in rows])
        middle = [median(math.inf if value is None else value for value in column) for column in columns]
        each = "; ".join(f"{row.first} {row.following} {row.alone}" for row in rows)
        print(f"{name:<12}{args.specimen:<10}{middle[0]:>7.0f}{middle[1]:>8.0f}{middle[2]:>7.0f}"
              f"{middle[1] / middle[0]:>10.2f}{middle[1] / middle[2]:>10.2f}  {each}", flush=True)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set, the plan of its study, and what reconstructions of it give."""

    problem: Problem
    plan: StudyPlan
    courses: Courses

    def iterations(self, study: Study) -> float | None:
        """Until the study's best trial was at the truth."""
        best = study.found(self.problem, self.plan)
        return None if best is None else best.spent


def measure_problem(problem: Problem, specimen: str, seeds: int, workers: int, trials: int) -> Iterator[Row]:
    """One row a seed."""
    problems = problem, second_problem(problem, specimen)
    first, second = (DataSet(each, plan := each.plan(), Reconstructions(each, plan)) for each in problems)
    for seed in range(seeds):
        yield measure_seed(first, second, seed=seed, workers=workers, trials=trials)


def measure_seed(first: DataSet, second: DataSet, **options: Any) -> Row:
    """The first study, and the two of the second data set."""
    settling = replace(first.plan, until_settled=True)

    def is_over(study: Study) -> bool:
        return first.iterations(study) is not None and settled_optimum(study.records, settling) is not None

    search, most = SEARCHES["auto"], float(options["trials"] * second.problem.iterations)
    before = replay_study(first.problem, first.plan, first.courses, search, over=is_over, **options)
    plans = start_from(second.plan, [earlier_study(first.plan, before)]), second.plan
    after = (replay_study(second.problem, plan, second.courses, search, most=most, **options) for plan in plans)
    return Row(first.iterations(before), *map(second.iterations, after))


def second_problem(problem: Problem, specimen: str) -> Problem:
    """The same settings, another data set."""
    changed = SPECIMENS[specimen]
    truth = {name: changed.get(name, value) for name, value in problem.truth.items()}

    def write(folder: Path) -> Path:
        if (folder / demo.PARAMS).exists():
            return folder / demo.PARAMS
        if problem.name == "demo":
            return demo.write(folder, 101)
        slices = geometry.MULTISLICE if any(name in truth for name in ("dz", "tilt_y")) else None
        return demo.write(folder, 101, truth, slices, ELECTRONS.get(problem.name))

    return replace(problem, name=f"{problem.name}-{specimen}", truth=truth, write=write)


def earlier_study(plan: StudyPlan, study: Study) -> EarlierStudy:
    """A replayed study as ``--from`` reads it from its file."""
    records = ranked(study.records, plan.direction)
    return EarlierStudy(CACHE / "first.h5", "first.h5", provenance.study_meta(plan), tuple(records), {})


if __name__ == "__main__":
    main()
