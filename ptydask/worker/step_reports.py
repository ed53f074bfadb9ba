"""A trial's steps: told to Optuna, judged by the pruner, saved in checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from optuna.trial import Trial

from ptydask.errors import StoreError
from ptydask.model import Scalar, StudyPlan, TrialOutput
from ptydask.trial import checkpoint, eviction
from ptydask.worker import transfer

SHARE = 0.05
"""Of a trial's time, at most this share goes into writing checkpoints, however often they are asked for."""


class OptunaFailed(BaseException):
    """Optuna did not take what the trial had to say: no fault of the trial, so no engine may catch it."""


class ProgressReporter:
    """Hears of every step: tells Optuna, and says when the pruner wants the trial to end."""

    def __init__(self, trial: Trial, plan: StudyPlan) -> None:
        self._trial, self._plan = trial, plan
        self.pruned = False
        self.reports: list[tuple[int, Mapping[str, float]]] = []
        self.began_again = False
        self._reported: set[int] = set()

    @property
    def last(self) -> Mapping[str, float]:
        """The latest metrics."""
        return self.reports[-1][1] if self.reports else {}

    def so_far(self) -> TrialOutput | None:
        """What is known of a trial that fails now: its metrics at each step that all of them were reported at."""
        if not self.reports:
            return None
        names = [name for name in self.last if all(name in metrics for _, metrics in self.reports)]
        curve: dict[str, Sequence[float]] = {"step": [step for step, _ in self.reports]}
        curve |= {name: [metrics[name] for _, metrics in self.reports] for name in names}
        return TrialOutput(metrics=dict(self.last), curve=curve)

    def report(self, step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        """See :class:`ptydask.engines.Report`."""
        last = self._plan.iterations is not None and step >= self._plan.iterations
        with catch_optuna_errors():
            self._tell_optuna(step, metrics)
            self.pruned = self._plan.pruner is not None and not last and self._trial.should_prune()
        return self.pruned

    def go_on_from(self, reports: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Report again what an earlier attempt had reported; the pruner let it pass then."""
        with catch_optuna_errors():
            for step, metrics in reports:
                self._tell_optuna(step, metrics)

    def _tell_optuna(self, step: int, metrics: Mapping[str, float]) -> None:
        if step in self._reported:  # an engine that could not use its checkpoint begins again: the values are the same
            self.began_again = True
            self.reports = [report for report in self.reports if report[0] < step]
            self.reports.append((step, dict(metrics)))
            return
        self.reports.append((step, dict(metrics)))
        self._reported.add(step)
        self._trial.report(float(metrics[self._plan.metric]), step)


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
