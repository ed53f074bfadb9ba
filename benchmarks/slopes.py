"""Slopes of the tuned loss beside central differences of whole trials, and what slopes cost.

    python benchmarks/slopes.py check demo                            the file as it is
    python benchmarks/slopes.py check demo --variants slow,fast,sparse
    python benchmarks/slopes.py check affine4 --points half,truth --names scale,rotation --step 0.5
    python benchmarks/slopes.py cost demo                             an iteration with and without, a trial's end

A point is ``start`` (the file's own values), ``half`` (half-way to the truth) or ``truth``. A difference is taken
between two whole trials, one grid step (times ``--step``) to either side. The columns: ``fall``, by which share of
itself the loss fell in the iteration, as a measure of rest; ``ratio``, slope / difference; ``off``, (slope -
difference) / curvature in grid steps: by how far the slope alone would misplace the optimum, and the better measure
near it. ``(after)`` marks slopes of one more iteration, where tensors are fixed. Trials are kept in the cache: a table
is printed anew at no cost.

What keeps a slope from its difference, by experiment: not the difference's step (halved, it moves by 1 to 4 %), not
the grouping, not what PtyRAD adds to the loss, but modes of the object that are slow to settle, after ``fall`` has
become small: where positions do not move (``still``), the ratio in scale is 0.82, 0.89, 0.97 and 0.98 at 10, 20, 50 and
200 iterations of the demo, and 0.43, 0.71 and 0.93 at 20, 50 and 200 of affine4, whose noise is fitted ever better.
Several slices: Adam swings, object against tilt, with a period of some twenty batches; over an iteration of 18 batches
that does not quite average out. ``fixed``: the loss itself is that of positions at whole pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest import mock

import torch
from processes import NeverSaved
from search_courses import Course, Reconstructions
from search_problems import PROBLEMS, Problem

from ptydask import demo, engines
from ptydask.demo.microscope import Experiment, scan_positions, simulate_patterns
from ptydask.distributions import FloatRange
from ptydask.engines.ptyrad import reconstruction
from ptydask.engines.ptyrad.geometry_gradient import GeometryGradient
from ptydask.model import Scalar, Slot, StudyPlan, TrialInput
from ptydask.store.foreign import demo_data
from ptydask.trial.slopes import relative_decrease

ITERATIONS = (10, 20, 50)
LARGE = "large"


def _rates(amplitude: float, phase: float, probe: float, positions: float) -> dict[str, Any]:
    rates = {"obja": amplitude, "objp": phase, "probe": probe, "probe_pos_shifts": positions}
    return {f"model_params.update_params.{name}": {"start_iter": 1, "lr": rate} for name, rate in rates.items()}


_MODES = {"init_params.obj_omode_max": 2}
_SIMILAR = {"state": True, "weight": 0.1, "obj_type": "both", "scale_factor": [1, 1, 1], "blur_std": 1.0}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "slow": _rates(5e-4, 5e-4, 1e-4, 5e-4),  # PtyRAD's defaults
    "fast": _rates(3e-3, 1.5e-2, 3e-3, 1.5e-3),  # three times the demo's
    "sparse": {"loss_params.loss_sparse": {"state": True, "weight": 0.1, "ln_order": 1}},
    "pacbed": {"loss_params.loss_pacbed": {"state": True, "weight": 0.5, "dp_pow": 0.2}},
    "poisson": {
        "loss_params.loss_single": {"state": False},
        "loss_params.loss_poissn": {"state": True, "weight": 1.0, "dp_pow": 1.0, "eps": 1e-6},
    },
    "omodes": _MODES,
    "similar": {**_MODES, "loss_params.loss_simlar": _SIMILAR},
    "pmodes": {"init_params.probe_pmode_max": 3},
    "sub": {"recon_params.INDICES_MODE": {"mode": "sub"}},
    "center": {"recon_params.INDICES_MODE": {"mode": "center"}},
    "disk": {"model_params.preload_data": False},
    "accumulated": {"recon_params.BATCH_SIZE": {"size": 32, "grad_accumulation": 2}},
    "jitter": {"init_params.pos_scan_rand_std": 0.15},
    "blur": {"constraint_params.obj_rblur": {"start_iter": 1, "step": 1, "std": 0.4, "kernel_size": 5}},
    "groups": {"recon_params.GROUP_MODE": "fps"},
    "fixed": {"model_params.update_params.probe_pos_shifts": {"start_iter": None, "lr": 0}},
    "still": {"model_params.update_params.probe_pos_shifts.lr": 1e-30},  # in the graph, and not moved
    "free": {
        f"model_params.update_params.{name}": {"start_iter": 1, "lr": 1e-30}
        for name in ("obj_tilts", "slice_thickness")
    },
    "unblurred": {"constraint_params.obj_zblur": {"start_iter": None}},
    "lbfgs": {"model_params.optimizer_params": {"name": "LBFGS", "configs": {"max_iter": 4}}},
    "contrast": {"hypertune_params.error_metric": "contrast"},
}
"""What differs from a problem's params file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One slope beside its difference."""

    iteration: int
    name: str
    slope: float
    difference: float
    curvature: float
    step: float
    fall: float
    after: bool
    """The slope is that of one more iteration."""

    @property
    def ratio(self) -> float:
        return self.slope / self.difference if self.difference else math.nan

    @property
    def off(self) -> float:
        """In grid steps."""
        return (self.slope - self.difference) / self.curvature / self.step if self.curvature else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="slopes beside differences")
    check.add_argument("problem", choices=PROBLEMS)
    check.add_argument("--variants", default="plain", metavar="A,B", help=f"of {', '.join(VARIANTS)}")
    check.add_argument("--points", default="half", metavar="A,B", help="of start, half, truth (half)")
    check.add_argument("--names", default="", metavar="A,B", help="of the parameters with slopes (all)")
    check.add_argument("--iterations", default=",".join(map(str, ITERATIONS)), metavar="N,N", help="(10,20,50)")
    check.add_argument("--step", type=float, default=1.0, metavar="X", help="of the difference, in grid steps (1)")
    cost = commands.add_parser("cost", help="an iteration with and without slopes")
    cost.add_argument("problem", choices=[*PROBLEMS, LARGE])
    cost.add_argument("--scan", type=int, default=64, metavar="N", help=f"of {LARGE}: positions along a side (64)")
    cost.add_argument("--variants", default="plain", metavar="A,B")
    cost.add_argument("--trials", type=int, default=10, metavar="N", help="(10)")
    args = parser.parse_args()
    for variant in args.variants.split(","):
        if args.command == "check":
            print_check(PROBLEMS[args.problem], variant, args)
        else:
            problem = large_problem(args.scan) if args.problem == LARGE else PROBLEMS[args.problem]
            print_cost(with_variant(problem, variant), variant, args.trials)


def with_variant(problem: Problem, variant: str, **changes: Any) -> Problem:
    """The problem with other settings."""
    return dataclasses.replace(problem, settings={**problem.settings, **VARIANTS[variant]}, **changes)


# --- slopes beside differences ----------------------------------------------------------------------------------


def print_check(problem: Problem, variant: str, args: argparse.Namespace) -> None:
    iterations = tuple(map(int, args.iterations.split(",")))
    changed = with_variant(problem, variant, iterations=max(iterations))
    plan = changed.plan()
    if not plan.differentiable:
        print(f"| {problem.name} | {variant} | no slopes: the tuned metric is {plan.metric} |", flush=True)
        return
    print(
        "| problem | variant | at | iteration | fall % | parameter | slope | difference | ratio | off |\n"
        + 10 * "|---"
        + "|"
    )
    for point in args.points.split(","):
        names = sorted(args.names.split(",") if args.names else plan.differentiable)
        for row in check(changed, plan, point_at(problem, plan, point), iterations, names, args.step):
            print(f"| {problem.name} | {variant} | {point} | {row.iteration} | {100 * row.fall:.2f} | {row.name} |"
                  f" {row.slope:.4g}{' (after)' if row.after else ''} | {row.difference:.4g} | {row.ratio:.2f} |"
                  f" {row.off:+.2f} |", flush=True)  # fmt: skip


def point_at(problem: Problem, plan: StudyPlan, name: str) -> dict[str, Scalar]:
    """``start``, ``half`` or ``truth``."""
    share = {"start": 0.0, "half": 0.5, "truth": 1.0}[name]
    start = dict(plan.points[0].params)
    return start | {
        p: float(start[p] or 0) + share * (true - float(start[p] or 0)) for p, true in problem.truth.items()
    }


def check(
    problem: Problem,
    plan: StudyPlan,
    point: Mapping[str, Scalar],
    iterations: tuple[int, ...],
    names: list[str],
    factor: float,
) -> Iterator[Row]:
    """Slopes at ``point`` beside differences over ``factor`` grid steps to either side."""
    source = Reconstructions(problem, plan)
    centre, sides = source.course(point), {}
    for name in names:
        step = factor * grid_step(plan, name)
        below, above = (source.course({**point, name: float(point[name] or 0) + sign * step}) for sign in (-1, 1))
        sides[name] = step, below, above
    for iteration in iterations:
        slopes = slopes_at(problem, plan, point, centre, iteration)
        fall = relative_decrease(centre.losses[iteration - 2], centre.losses[iteration - 1], plan.direction)
        for name, (step, below, above) in sides.items():
            low, middle, high = (course.losses[iteration - 1] for course in (below, centre, above))
            yield Row(
                iteration, name, slopes[name], (high - low) / (2 * step), (high - 2 * middle + low) / step**2,
                grid_step(plan, name), fall or 0.0, after=name not in centre.slopes or _only_at_end(centre, name),
            )  # fmt: skip


def slopes_at(
    problem: Problem, plan: StudyPlan, point: Mapping[str, Scalar], course: Course, iteration: int
) -> dict[str, float]:
    """Those of the course, and of a trial that ends at ``iteration`` where they are taken at the end only."""
    known = course.slopes_at(iteration)
    if plan.differentiable <= known.keys():
        return known
    shorter = dataclasses.replace(problem, iterations=iteration).plan()
    return Reconstructions(problem, shorter).course(point).slopes_at(iteration)


def _only_at_end(course: Course, name: str) -> bool:
    return not any(math.isfinite(slope) for slope in course.slopes[name][:-1])


def grid_step(plan: StudyPlan, name: str) -> float:
    dist = plan.space[name]
    assert isinstance(dist, FloatRange)
    return dist.step or (dist.high - dist.low) / 100


# --- what slopes cost --------------------------------------------------------------------------------------------


class Alternating(GeometryGradient):
    """Listens to the iterations 1, 4, 5, 8, 9, 12 and so on: in every pair from (3, 4) on to one, first or second."""

    number = 0
    own = 0.0
    """Seconds of processor time in its own code during iterations, and how many of them it heard."""
    heard = 0
    end = 0.0
    """Seconds that the end of the last trial took."""

    @contextmanager
    def listen(self, batches: int, grad_accumulation: int, by_steps: bool) -> Iterator[None]:
        self.number += 1
        if self._listens():
            with super().listen(batches, grad_accumulation, by_steps):
                yield
        else:
            self._sums = {}
            yield

    def slopes(self) -> dict[str, float]:
        if not self._listens():
            return {}
        began = time.process_time()
        slopes = super().slopes()
        Alternating.own += time.process_time() - began
        Alternating.heard += 1
        return slopes

    def _adder(self, part: str, weight: float) -> Any:
        add = super()._adder(part, weight)

        def timed(gradient: torch.Tensor) -> None:
            began = time.process_time()
            add(gradient)
            Alternating.own += time.process_time() - began

        return timed

    def complete(self, *arguments: Any) -> dict[str, float]:
        began = time.process_time()
        slopes = super().complete(*arguments)
        Alternating.end = time.process_time() - began
        return slopes

    def _listens(self) -> bool:
        return self.number % 4 < 2


def print_cost(problem: Problem, variant: str, trials: int) -> None:
    """Iterations with slopes beside ones without, pair by pair within trials, and the end of a trial in iterations."""
    plan = problem.plan()
    session = engines.get(plan.engine).open(plan, Slot(threads=1))
    ratios, ends, without = [], [], []
    Alternating.own, Alternating.heard = 0.0, 0
    for _ in range(trials):
        marks: list[float] = []
        with mock.patch.object(reconstruction, "GeometryGradient", Alternating):
            session.run(TrialInput(0, dict(plan.points[0].params), plan.seed), _noting(marks), NeverSaved())
        seconds = [after - before for before, after in itertools.pairwise(marks)][1:]  # from the third iteration on
        for index, (first, second) in enumerate(zip(seconds[::2], seconds[1::2], strict=False)):
            silent, heard = (first, second) if index % 2 == 0 else (second, first)
            ratios.append(heard / silent)
            without.append(silent)
        ends.append(Alternating.end / median(without))
    own = Alternating.own / max(Alternating.heard, 1) / median(without)
    low, middle, high = (f"{100 * (ratio - 1):+.2f} %" for ratio in quantiles(ratios, n=4))
    print(
        f"{problem.name}, {variant}: an iteration takes {median(without):.3f} s, with slopes {middle} (quartiles {low}"
        f" to {high}, {len(ratios)} pairs), of it in hooks and sums {100 * own:.3f} %; the end of a trial"
        f" {median(ends):.2f} iterations",
        flush=True,
    )


def _noting(marks: list[float]) -> engines.Report:
    def report(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        marks.append(time.process_time())
        return False

    return report


def large_problem(scan: int) -> Problem:
    """The demo's specimen and geometry on patterns of 128 x 128."""
    experiment = Experiment(scan=scan, pixels=128)

    def write(folder: Path) -> Path:
        data, params = folder / demo.DATA, folder / demo.PARAMS
        if not data.exists():
            folder.mkdir(parents=True, exist_ok=True)
            demo_data.write(data, experiment, simulate_patterns(experiment), scan_positions(experiment))
            params.write_text(demo.params_text(data))
        return params

    sizes = {"meas_Npix": 128, "pos_N_scan_slow": scan, "pos_N_scan_fast": scan}
    settings = {f"init_params.{key}": size for key, size in sizes.items()}
    return Problem(f"{LARGE}{scan}", "128 x 128 pixels", {}, 8, write, settings)


if __name__ == "__main__":
    main()
