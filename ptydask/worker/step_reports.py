"""A trial's steps: told to Optuna, judged by the pruner, saved in checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from optuna.trial import Trial

from ptydask.errors import StoreError
from ptydask.model import Scalar, StudyPlan, TrialOutput
from ptydask.proposals import judged_after
from ptydask.trial import checkpoint, eviction, slopes
from ptydask.trial.checkpoint import StepReport
from ptydask.trial.search_choice import choose_search
from ptydask.worker import transfer

SHARE = 0.05
"""Of a trial's time, at most this share goes into writing checkpoints, however often they are asked for."""


class OptunaFailed(BaseException):
    """Optuna did not take what the trial had to say: no fault of the trial, so no engine may catch it."""


class ProgressReporter:
    """Hears of every step: tells Optuna, and says when the pruner wants the trial to end."""

    def __init__(self, trial: Trial, plan: StudyPlan) -> None:
        self._trial, self._plan = trial, plan
        self._judged = judged_after(plan.iterations) if choose_search(plan).informed else None
        self.pruned = False
        self.reports: list[StepReport] = []
        self.began_again = False
        self._reported: set[int] = set()

    @property
    def last(self) -> Mapping[str, float]:
        """The latest metrics."""
        return self.reports[-1].metrics if self.reports else {}

    def gradient_of(self, error: float | None) -> Mapping[str, float]:
        """The slopes at the latest step; empty where it was reported without, or with a value that is not ``error``."""
        return self.reports[-1].gradient if self.reports and self.last.get(self._plan.metric) == error else {}

    @property
    def last_step(self) -> int | None:
        """The latest step; None before the first."""
        return self.reports[-1].step if self.reports else None

    @property
    def relative_decrease(self) -> float | None:
        """By which share of itself the tuned metric got better from the last step but one to the last."""
        values = [report.metrics.get(self._plan.metric) for report in self.reports[-2:]]
        return slopes.relative_decrease(values[0], values[1], self._plan.direction) if len(values) == 2 else None

    def so_far(self) -> TrialOutput | None:
        """What is known of a trial that fails now: its metrics at each step that all of them were reported at.

        Slopes that a step was reported without are NaN in the curve.
        """
        if not self.reports:
            return None
        names = [name for name in self.last if all(name in report.metrics for report in self.reports)]
        curve: dict[str, Sequence[float]] = {"step": [report.step for report in self.reports]}
        curve |= {name: [report.metrics[name] for report in self.reports] for name in names}
        for name in dict.fromkeys(name for report in self.reports for name in report.gradient):
            curve[slopes.COLUMN + name] = [report.gradient.get(name, math.nan) for report in self.reports]
        return TrialOutput(metrics=dict(self.last), curve=curve)

    def report(self, step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        """See :class:`ptydask.engines.Report`. Raises ValueError or TypeError for a gradient that is none."""
        slope = slopes.check_gradient(gradient or {}, self._plan.space)
        last = self._plan.iterations is not None and step >= self._plan.iterations
        with catch_optuna_errors():
            self._tell_optuna(StepReport(step, dict(metrics), slope))
            if step == self._judged:
                for name, value in slopes.attribute_after(step, slope, self.relative_decrease).items():
                    self._trial.set_user_attr(name, value)
            self.pruned = self._plan.pruner is not None and not last and self._trial.should_prune()
        return self.pruned

    def go_on_from(self, reports: Sequence[StepReport]) -> None:
        """Report again what an earlier attempt had reported; the pruner let it pass then."""
        with catch_optuna_errors():
            for report in reports:
                self._tell_optuna(report)

    def _tell_optuna(self, report: StepReport) -> None:
        step = report.step
        if step in self._reported:  # an engine that could not use its checkpoint begins again: the values are the same
            self.began_again = True
            self.reports = [earlier for earlier in self.reports if earlier.step < step]
            self.reports.append(report)
            return
        self.reports.append(report)
        self._reported.add(step)
        value = report.metrics.get(self._plan.metric)
        if value is not None:  # else it is known at the end only
            self._trial.report(float(value), step)


class TrialCheckpoint:
    """The trial's checkpoint; see :class:`ptydask.engines.Checkpoint`."""

    def __init__(
        self,
        trial: Trial,
        params: Mapping[str, Scalar],
        watch: ProgressReporter,
        shelf: transfer.SharedFolder,
        number: int,
        every: float,
    ) -> None:
        self._trial, self._params, self._watch = trial, params, watch
        self._shelf, self._number, self._every = shelf, number, every
        self._began = self._saved = time.monotonic()
        self._before = self._cost = 0.0
        self.resumed = 0
        """The step after which this attempt went on; 0 where it began at the beginning."""

    @property
    def seconds(self) -> float:
        """Spent on the steps so far, in all attempts."""
        return self._before + time.monotonic() - self._began

    def load(self) -> bytes | None:
        """See :class:`ptydask.engines.Checkpoint`."""
        if self._trial.number == self._number:
            return None
        try:
            data = self._shelf.load(self._number)
            saved = checkpoint.unpack(data) if data is not None else None
        except (OSError, ValueError, StoreError):
            return None
        if saved is None or dict(saved.params) != dict(self._params):
            return None
        self.resumed, self._before = saved.step, saved.seconds
        self._watch.go_on_from(saved.reports)
        with catch_optuna_errors():
            self._trial.set_user_attr("resumed", saved.step)
        return saved.state

    def due(self) -> bool:
        """See :class:`ptydask.engines.Checkpoint`."""
        since = time.monotonic() - self._saved
        return eviction.asked.is_set() or since >= max(self._every, self._cost / SHARE)

    def save(self, step: int, state: bytes) -> None:
        """See :class:`ptydask.engines.Checkpoint`."""
        began = time.monotonic()
        saved = checkpoint.CheckpointData(step, self._params, tuple(self._watch.reports), self.seconds, state)
        with suppress(OSError, StoreError):  # a full disk: the trial goes on, and would begin again if it were lost
            self._shelf.save(self._number, checkpoint.pack(saved))
        self._saved = time.monotonic()
        self._cost = self._saved - began
        if eviction.asked.is_set():
            raise eviction.Evicted


@contextmanager
def catch_optuna_errors() -> Iterator[None]:
    """What Optuna raises in here is :class:`OptunaFailed`."""
    try:
        yield
    except Exception as error:
        raise OptunaFailed from error
