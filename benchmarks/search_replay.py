"""Studies replayed: what a run with W workers would do, trial by trial and iteration by iteration, on known courses.

Sampler, pruner, points to begin with and what Optuna is told are those of a run; time is counted in iterations. Each
iteration takes a worker about as long as any other (5 % more or less, by the trial), so that workers do not march in
step.
"""

from __future__ import annotations

import heapq
import math
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from search_courses import Course
from search_problems import Problem

from ptydask import proposals, sampling
from ptydask.distributions import FloatRange
from ptydask.model import OWN_VALUES, Point, Scalar, StudyPlan, TrialRecord, TrialState
from ptydask.space import ranges
from ptydask.trial import slopes
from ptydask.worker.trial import mix_seed

JITTER = 0.05


class Courses(Protocol):
    """What a trial would do at any point."""

    def course(self, params: Mapping[str, Scalar]) -> Course:
        """Its losses and slopes."""


@dataclass(frozen=True, slots=True)
class Search:
    """A way to choose points and to end trials early."""

    name: str
    what: str
    sampler: Callable[[StudyPlan, int, int], BaseSampler]
    """Of the plan, the seed of one trial and the number of trials."""
    pruner: Callable[[StudyPlan], BasePruner]


def _file_sampler(informed: bool) -> Callable[[StudyPlan, int, int], BaseSampler]:
    def build(plan: StudyPlan, seed: int, trials: int) -> BaseSampler:
        return sampling.build_sampler(plan.sampler, seed=seed, space=plan.space, trials=trials, informed=informed)

    return build


def _file_pruner(plan: StudyPlan) -> BasePruner:
    return sampling.build_pruner(plan.pruner, iterations=plan.iterations)


def _informed_pruner(plan: StudyPlan) -> BasePruner:
    return sampling.build_pruner(plan.pruner, iterations=plan.iterations, informed_by=(plan.sampler, plan.space))


def _no_pruner(_: StudyPlan) -> BasePruner:
    return optuna.pruners.NopPruner()


def _optuna_tpe(_: StudyPlan, seed: int, __: int) -> BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _optuna_hyperband(plan: StudyPlan) -> BasePruner:
    configs = {} if plan.pruner is None else plan.pruner.configs
    most = plan.iterations or 1
    least = min(int(configs.get("min_resource", 1)), most)
    factor = int(configs.get("reduction_factor", 3))
    return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=factor)


SEARCHES: Mapping[str, Search] = {
    search.name: search
    for search in (
        Search("optuna", "Optuna's TPE with Hyperband, as PtyRAD sets them", _optuna_tpe, _optuna_hyperband),
        Search("tpe", "Optuna's TPE alone", _optuna_tpe, _no_pruner),
        Search("random", "random", lambda _, seed, __: optuna.samplers.RandomSampler(seed=seed), _no_pruner),
        Search("gp", "Optuna's GPSampler", lambda _, seed, __: optuna.samplers.GPSampler(seed=seed), _no_pruner),
        Search("file", "the file's TPE and Hyperband through ptydask", _file_sampler(False), _file_pruner),
        Search("auto", "slopes lead, with Hyperband", _file_sampler(True), _informed_pruner),
        Search("auto-whole", "slopes lead, no trial is cut short", _file_sampler(True), _no_pruner),
    )
}


@dataclass(frozen=True, slots=True)
class Best:
    """A trial that completed with the lowest loss so far."""

    spent: float
    """Iterations of the whole study when it did."""
    trials: int
    """That had begun by then."""
    loss: float
    params: Mapping[str, Scalar]


@dataclass(slots=True)
class Study:
    """What a replayed, or live, study came to."""

    improvements: list[Best] = field(default_factory=list)
    spent: float = 0.0
    points: list[str] = field(default_factory=list)
    """Of the trials in the order in which they began, as text."""
    records: list[TrialRecord] = field(default_factory=list)
    """Of the trials in the order in which they ended."""

    def found(self, problem: Problem, plan: StudyPlan) -> Best | None:
        """The first best trial at the truth."""
        return next((best for best in self.improvements if problem.is_found(plan.space, best.params)), None)

    def reached(self, loss: float) -> Best | None:
        """The first whose loss is not above ``loss``."""
        return next((best for best in self.improvements if best.loss <= loss), None)


def start_anywhere(plan: StudyPlan, seed: int) -> StudyPlan:
    """The plan as if the file's own values were others, drawn at random."""
    rng, values = random.Random(f"start {seed}"), dict[str, Scalar]()
    for name, dist in plan.space.items():
        grid = ranges.grid(dist)
        if grid is not None:
            values[name] = rng.choice(grid)
        elif isinstance(dist, FloatRange):
            low, high = (math.log(dist.low), math.log(dist.high)) if dist.log else (dist.low, dist.high)
            drawn = rng.uniform(low, high)
            values[name] = math.exp(drawn) if dist.log else drawn
    return replace(plan, points=(Point(values, OWN_VALUES),))


@dataclass(slots=True)
class _Running:
    trial: optuna.Trial
    course: Course
    params: Mapping[str, Scalar]
    pace: float
    number: int
    step: int = 0


def replay_study(
    problem: Problem,
    plan: StudyPlan,
    source: Courses,
    search: Search,
    *,
    seed: int,
    workers: int = 1,
    trials: int = 60,
    most: float = math.inf,
    goal: float | None = None,
    over: Callable[[Study], bool] | None = None,
) -> Study:
    """One study, until its best completed trial is at the truth, or ``most`` iterations were computed.

    With ``goal`` it goes on until a trial completes with a loss that is not above it. ``trials`` is what the sampler is
    told of the study's length. With ``over`` it goes on until all of its ``trials`` have ended, wherever the truth is,
    or that says so: nothing more is begun then, unless what is under way changes it.
    """
    rng, study = random.Random(seed), Study()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = optuna.storages.InMemoryStorage()
        # Hyperband draws the bracket of a trial from the study's name and the trial's number.
        name = f"{problem.name} {seed}"
        ours = optuna.create_study(study_name=name, storage=storage, direction=plan.direction)
        for point in plan.points:
            attributes = {"origin": point.origin, **sampling.value_attributes(plan.space, point.params)}
            ours.enqueue_trial(sampling.to_optuna_params(plan.space, point.params), user_attrs=attributes)
        pruner = search.pruner(plan)

        def begin() -> _Running:
            number = len(study.points)
            sampler = search.sampler(plan, mix_seed(seed, number), trials)
            asked = optuna.Study(name, storage, sampler=sampler, pruner=pruner).ask()
            params = sampling.suggest(asked, plan.space, plan.sampler)
            study.points.append(str(sorted(params.items())))
            return _Running(asked, source.course(params), params, rng.uniform(1 - JITTER, 1 + JITTER), number)

        queue: list[tuple[float, int, _Running]] = []
        idle, now = list(range(workers)), 0.0
        while True:
            while idle and (over is None or (len(study.points) < trials and not over(study))):
                running = begin()
                heapq.heappush(queue, (now + running.pace, idle.pop(0), running))
            if not queue:
                return study
            now, worker, running = heapq.heappop(queue)
            study.spent += 1
            if _iterate(running, plan):
                study.spent += running.course.slope_iterations
                _record_end(running, plan, ours, study)
                if study.spent >= most or (over is None and _is_over(study, problem, plan, goal)):
                    return study
                idle.append(worker)
            else:
                heapq.heappush(queue, (now + running.pace, worker, running))


def _iterate(running: _Running, plan: StudyPlan) -> bool:
    """One more iteration, and whether the trial ends with it."""
    running.step += 1
    if running.step > len(running.course.losses):  # it diverged
        return True
    running.trial.report(running.course.losses[running.step - 1], running.step)
    if running.step == proposals.judged_after(plan.iterations):
        _tell_slopes(running, plan)
    pruned = running.trial.should_prune()
    return running.step == plan.iterations or pruned


def _tell_slopes(running: _Running, plan: StudyPlan) -> None:
    """The slopes after the latest step, as a worker tells them."""
    losses, step = running.course.losses, running.step
    decrease = slopes.relative_decrease(losses[step - 2], losses[step - 1], plan.direction) if step > 1 else None
    for name, value in slopes.attribute_after(step, running.course.slopes_at(step), decrease).items():
        running.trial.set_user_attr(name, value)


def _record_end(running: _Running, plan: StudyPlan, ours: optuna.Study, study: Study) -> None:
    """Tell Optuna as a worker does: the slopes first."""
    losses, step = running.course.losses, running.step
    if step > len(losses):
        ours.tell(running.trial, state=optuna.trial.TrialState.FAIL)
        return
    _tell_slopes(running, plan)
    whole = step >= (plan.iterations or 0)
    study.records.append(
        TrialRecord(
            running.number,
            TrialState.COMPLETE if whole else TrialState.PRUNED,
            losses[step - 1],
            running.params,
            gradient=running.course.slopes_at(step),
            relative_decrease=slopes.relative_decrease(*losses[step - 2 : step], plan.direction) if step > 1 else None,
        )
    )
    if not whole:
        ours.tell(running.trial, state=optuna.trial.TrialState.PRUNED)
        return
    ours.tell(running.trial, losses[-1])
    if not study.improvements or losses[-1] < study.improvements[-1].loss:
        study.improvements.append(Best(study.spent, len(study.points), losses[-1], running.params))


def _is_over(study: Study, problem: Problem, plan: StudyPlan, goal: float | None) -> bool:
    if not study.improvements:
        return False
    best = study.improvements[-1]
    return best.loss <= goal if goal is not None else problem.is_found(plan.space, best.params)
