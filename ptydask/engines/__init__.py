"""Ways to run a trial. An engine is one package and one entry point in ``ptydask.engines``.

The driver calls :meth:`Engine.validate` once, before any worker starts. Each worker process calls
:meth:`Engine.open` once and then :meth:`Session.run` for one trial after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from ptydask import registry
from ptydask.errors import ConfigError
from ptydask.model import Slot, StudyPlan, TrialInput, TrialOutput
from ptydask.trial.metric_history import MetricHistory


class TrialFailure(Exception):  # noqa: N818 - the trial failed, not the engine
    """A trial failed in a way that its engine can tell in full. Its text, one line, is the record's message as it is.

    ``detail`` takes the place of a traceback: what the program wrote last, and the command. ``output`` is kept as that
    of a trial that ran to its end: curve, log, command, artifacts; its metrics may lack the tuned one.
    """

    def __init__(self, message: str, detail: str = "", output: TrialOutput | None = None) -> None:
        super().__init__(message)
        self.detail, self.output = detail, output


class Report(Protocol):
    """Called by a session after every step."""

    def __call__(self, step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        """Record the metrics of ``step`` (counted from 1). True asks the session to end the trial now.

        ``gradient`` is the derivative of the tuned metric in those tuned parameters that have one, per unit of each.
        """


class Checkpoint(Protocol):
    """Where a trial keeps what another worker needs to go on from, should this one be lost.

    After each step that is not the last, and after its report, a session asks :meth:`due` and then saves. What it
    saves must bring the trial to the very result, bit for bit, that it would have had without the interruption.
    """

    def load(self) -> bytes | None:
        """What an earlier attempt saved last; None where there is nothing. Ask once, at the start.

        Steps up to the saved one are not reported again. A session that cannot use the bytes starts from the beginning.
        """

    def due(self) -> bool:
        """Whether to save now."""

    def save(self, step: int, state: bytes) -> None:
        """Keep ``state``, from which the trial goes on after ``step``.

        Raises :class:`ptydask.trial.eviction.Evicted` where the worker has to go: let it pass.
        """


class Session(Protocol):
    """An engine on one worker, with what is worth keeping between trials (the measurements)."""

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        """Run one trial; what came before on this worker has no influence on the result.

        Whatever it raises is recorded as a failed trial; the next trial runs in the same session.
        """

    def provenance(self) -> Mapping[str, str]:
        """What a reader of the results must know: device, package versions, the data's sha256."""

    def close(self) -> None:
        """Give back memory and devices.

        One that has a method ``close_for(successor)`` is closed by that where the process opens a session for the plan
        ``successor`` next: what that one would load again may stay.
        """


class Engine(Protocol):
    """A way to run trials.

    One that heeds :attr:`ptydask.model.TrialInput.half` has an attribute ``halves`` that is true, one that heeds
    :attr:`ptydask.model.StudyPlan.start` an attribute ``starts_from``. One whose sessions take long to import may name
    modules in :attr:`ptydask.model.StudyPlan.imports`: without GPUs workers are forks of one process that has them.
    One that can tell without a worker that this machine has no room for a plan may have a method ``check_machine``.
    """

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Check the plan without a device and without reading the measurements.

        Returns the plan completed: defaults filled in, starting point and notices added.
        Raises ConfigError, DataError or MissingDependency.
        """

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of a configuration that decides a trial's result: trials with another one are not comparable."""

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Make a worker ready for trials of this plan. Raises DataError where the data are unusable."""


def validate(plan: StudyPlan) -> StudyPlan:
    """The plan completed by its engine, see :meth:`Engine.validate`; refused where that cannot do what is asked."""
    engine = get(plan.engine)
    if starts_from_reconstruction(plan) and not getattr(engine, "starts_from", False):
        rule = f"the engine {plan.engine} cannot start a trial from the result of another"
        error = ConfigError(rule, key="ptydask.stages", value="start_from", hint="leave start_from out")
        raise error.in_file(plan.source.path)
    return engine.validate(plan)


def check_machine(plan: StudyPlan) -> None:
    """Raises DataError where this machine has no room for the plan's data, as far as its engine knows beforehand."""
    if (check := getattr(get(plan.engine), "check_machine", None)) is not None:
        check(plan)


def starts_from_reconstruction(plan: StudyPlan) -> bool:
    """Whether its trials start, or will once an earlier stage is done, from a reconstruction."""
    return plan.start is not None or (plan.lineage is not None and bool(plan.lineage.start_stage))


@contextmanager
def naming_file(plan: StudyPlan) -> Iterator[None]:
    """Within it a ConfigError names the plan's file, unless it names another."""
    try:
        yield
    except ConfigError as error:
        raise error.in_file(plan.source.path) from None


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_history(plan: StudyPlan) -> MetricHistory:
    """An empty history of the study's metric, for an engine that has the setting ``objective``."""
    return MetricHistory(plan.metric, plan.config["engine"]["objective"], plan.direction)


def deciding_steps(plan: StudyPlan) -> frozenset[int]:
    """The steps at which the study's pruner decides: Optuna hears of each of them."""
    return frozenset(plan.pruner.configs.get("bands", ()) if plan.pruner is not None else ())


def final_value(history: MetricHistory) -> float | None:
    """What a trial is judged by: its objective; the last value where no value was finite, and so none the best."""
    return history.last if history.value is None else history.value


def get(name: str) -> Engine:
    """The engine registered as ``name``. Raises UsageError where there is none."""
    return cast(Engine, registry.load("engines", name)())
