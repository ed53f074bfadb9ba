"""Trials of a finished study once more: each with other seeds, and from halves of its data. See docs/confirm.md.

Its plan's configuration has ``study`` (the id of the store that the trials are from), ``engine``, ``config`` and
``space`` of that study (the last as Optuna's JSON), and ``trials``: number, as text -> the trial's parameters. What is
tuned is which trial, which seed and which half; the points are all there is to try.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ptydask import engines
from ptydask.distributions import Distribution, IntRange
from ptydask.engines import Session
from ptydask.errors import UsageError
from ptydask.model import Point, Slot, StudyPlan
from ptydask.space import ranges

NAME = "repeat"
TRIAL, SEED, HALF = "trial", "seed", "half"
"""What a repeat's parameters are called."""
SPACE: Mapping[str, Distribution] = {
    TRIAL: IntRange(0, 10**9),
    SEED: IntRange(0, 2**32 - 1),
    HALF: IntRange(0, 2),
}
"""The same for every study, so that repeats of more trials, or with more seeds, may be added to it."""


_HALVES: Mapping[object, str] = {1: "first half of ", 2: "second half of "}


def describe(params: Mapping[str, object]) -> str:
    """A repeat in words, by its parameters: ``trial 5, seed 8``, ``first half of trial 5, seed 8``."""
    half = params.get(HALF)
    return f"{_HALVES.get(half, '')}trial {params.get(TRIAL)}, seed {params.get(SEED)}"


class RepeatEngine:
    """Runs trials of another engine again; see :class:`ptydask.engines.Engine`."""

    starts_from = True  # where the engine of the study does

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Check the study's own plan by its engine, as before a run. Raises what that raises, and UsageError."""
        if "trials" not in plan.config:
            raise UsageError(f"the engine {NAME} runs trials of a study again: ptydask confirm FILE.h5")
        inner = repeated_plan(plan)
        engine = engines.get(inner.engine)
        if any(point.params.get(HALF) for point in plan.points) and not getattr(engine, "halves", False):
            raise UsageError(
                "--frc: only reconstructions by PtyRAD can be made from half of the data, and these trials are of a "
                "program or function; leave --frc out"
            )
        checked = engines.validate(inner)
        config = {**plan.config, "config": checked.config}
        # What its engine has to say of the study was said when that was run.
        return replace(
            plan,
            config=config,
            trial_bytes=checked.trial_bytes,
            worker_memory=checked.worker_memory,
            imports=checked.imports,
            function_folders=checked.function_folders,
        )

    def check_machine(self, plan: StudyPlan) -> None:
        """As the engine of the study does."""
        engines.check_machine(repeated_plan(plan))

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is essential in the study's own configuration, and whose trials they are; not which of them."""
        essential = engines.get(config["engine"]).essential(config["config"])
        return {**essential, "study": config["study"], "engine of the study": config["engine"]}

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Make a worker ready for trials of the study."""
        from ptydask.engines.repeat.session import RepeatSession

        inner = repeated_plan(plan)
        return RepeatSession(plan.config["trials"], engines.get(inner.engine).open(inner, slot))


def repeated_plan(plan: StudyPlan) -> StudyPlan:
    """The plan of the study whose trials are repeated, without its search."""
    config, trials = plan.config, plan.config["trials"]
    return replace(
        plan,
        engine=config["engine"],
        config=config["config"],
        space={name: ranges.from_json(entry) for name, entry in json.loads(config["space"] or "{}").items()},
        seed_parameter="",
        points=tuple(Point(params, "repeat") for params in trials.values())[:1],
        exhaustive=False,
    )
