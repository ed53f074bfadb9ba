"""What a trial would do at any point of a problem: its losses and slopes, iteration by iteration, by the real engine.

A table has all points of a grid, in one small file. Elsewhere a point is computed when a study first asks for it, and
kept in the cache, so that the next study that comes there need not wait.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from processes import NeverSaved
from search_problems import Problem

from ptydask import engines
from ptydask.engines import hash_file
from ptydask.model import Scalar, Slot, StudyPlan, TrialInput
from ptydask.space import ranges
from ptydask.trial.slopes import COLUMN

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True)
class Course:
    """One trial to its end; shorter than the others where it diverged."""

    losses: tuple[float, ...]
    slopes: Mapping[str, tuple[float, ...]]
    """Parameter to one slope an iteration, NaN where there was none."""

    @property
    def slope_iterations(self) -> int:
        """One more iteration, where a slope is of a tensor that the file keeps fixed."""
        last = self.slopes_at(len(self.losses)) if self.losses else {}
        return int(any(not math.isfinite(values[0]) for name, values in self.slopes.items() if name in last))

    def slopes_at(self, iteration: int) -> dict[str, float]:
        """Those after ``iteration`` (counted from 1) that there are."""
        known = {name: values[iteration - 1] for name, values in self.slopes.items()}
        return {name: value for name, value in known.items() if math.isfinite(value)}


class Reconstructions:
    """Courses of one problem: out of its table, else out of the cache, else computed."""

    def __init__(self, problem: Problem, plan: StudyPlan, threads: int = 1) -> None:
        self._plan, self._threads = plan, threads
        self._session: engines.Session | None = None
        self._courses = {point_key(params): course for params, course in _read_table(problem, plan)}
        self._cache = problem.folder / f"courses-{_identity(plan)}.jsonl"
        if self._cache.exists():
            for line in self._cache.read_text().splitlines():
                kept = json.loads(line)
                self._courses[kept["point"]] = Course(tuple(kept["losses"]), kept["slopes"])
        self.computed = 0

    def course(self, params: Mapping[str, Scalar]) -> Course:
        """The course of the trial at ``params``."""
        key = point_key(params)
        if key not in self._courses:
            self._courses[key] = course = self.compute(params)
            self.computed += 1
            with self._cache.open("a") as file:
                entry = {"point": key, "losses": course.losses, "slopes": dict(course.slopes)}
                file.write(json.dumps(entry) + "\n")
        return self._courses[key]

    def best_loss(self) -> float:
        """The lowest of the final losses that are known."""
        whole = [course.losses[-1] for course in self._courses.values() if len(course.losses) == self._plan.iterations]
        return min(whole)

    def compute(self, params: Mapping[str, Scalar]) -> Course:
        """Reconstruct."""
        if self._session is None:
            self._session = engines.get(self._plan.engine).open(self._plan, Slot(threads=self._threads))
        losses: list[float] = []

        def report(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
            losses.append(metrics[self._plan.metric])
            return False

        try:
            output = self._session.run(TrialInput(0, params, self._plan.seed), report, NeverSaved())
        except ArithmeticError:  # it diverged
            return Course(tuple(losses), {})
        curve = output.curve
        slopes = {n.removeprefix(COLUMN): list(map(float, curve[n])) for n in curve if n.startswith(COLUMN)}
        for name, value in output.gradient.items():  # one that is taken after the last iteration only
            slopes.setdefault(name, [math.nan] * len(losses))[-1] = float(value)
        return Course(tuple(losses), {name: tuple(values) for name, values in slopes.items()})


def point_key(params: Mapping[str, Scalar]) -> str:
    """A point as text, the same for equal values."""
    return json.dumps({name: params[name] for name in sorted(params)})


def _identity(plan: StudyPlan) -> str:
    """Of all that decides what a reconstruction computes."""
    config = engines.get(plan.engine).essential(plan.config)
    data = hash_file(Path(plan.config["init_params"]["meas_params"]["path"]))
    text = json.dumps([config, plan.iterations, plan.seed, sorted(plan.space), data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# --- tables -------------------------------------------------------------------------------------------------


def table_path(problem: Problem) -> Path:
    """Where the table of a problem is, if it has one."""
    return TABLES / f"{problem.name}.npz"


def write_table(problem: Problem, plan: StudyPlan) -> Path:
    """Compute every point of the grid, in rising order of the values; those in the cache are not computed again.

    The file has the axes, by name; ``losses``, one axis more for the iterations; and ``slope/NAME`` of the same shape.
    """
    axes = {name: ranges.grid(dist) or () for name, dist in plan.space.items()}
    shape = (*(len(axis) for axis in axes.values()), plan.iterations or 0)
    losses, slopes = np.full(shape, np.nan), {name: np.full(shape, np.nan) for name in plan.differentiable}
    source = Reconstructions(problem, plan)
    for index in np.ndindex(shape[:-1]):
        params = {name: axis[i] for (name, axis), i in zip(axes.items(), index, strict=True)}
        course = source.course(params)
        losses[index][: len(course.losses)] = course.losses
        for name, values in course.slopes.items():
            slopes[name][index][: len(values)] = values
    path = table_path(problem)
    arrays = {name: np.array(axis, dtype=float) for name, axis in axes.items()}
    arrays |= {"losses": losses, **{f"slope/{name}": values for name, values in slopes.items()}}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def _read_table(problem: Problem, plan: StudyPlan) -> Iterator[tuple[dict[str, Scalar], Course]]:
    if not table_path(problem).exists():
        return
    with np.load(table_path(problem)) as file:
        arrays: dict[str, NDArray[np.float64]] = dict(file)
    slopes = {name.removeprefix("slope/"): values for name, values in arrays.items() if name.startswith("slope/")}
    axes = {name: [float(value) for value in arrays[name]] for name in plan.space}
    for name, dist in plan.space.items():
        assert [float(value) for value in ranges.grid(dist) or ()] == axes[name], f"{name}: the table has another grid"
    sizes = (range(len(axis)) for axis in axes.values())
    for index in itertools.product(*sizes):
        whole = np.isfinite(arrays["losses"][index])
        course = Course(
            tuple(map(float, arrays["losses"][index][whole])),
            {name: tuple(map(float, values[index][whole])) for name, values in slopes.items()},
        )
        yield {name: axis[i] for (name, axis), i in zip(axes.items(), index, strict=True)}, course
