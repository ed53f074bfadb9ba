"""Metrics of the user's own: functions of a finished trial's arrays, called on the worker."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from keyword import iskeyword
from pathlib import Path
from typing import Any

from ptydask.engines import TrialFailure, function_target, hash_file
from ptydask.engines.callable import printed
from ptydask.engines.callable.session import as_float
from ptydask.engines.function_target import FunctionTarget
from ptydask.errors import ConfigError, one_line
from ptydask.model import StudyPlan, TrialInput, TrialOutput, TrialRecord, TrialState
from ptydask.reconstructed_trial import ReconstructedTrial, assemble
from ptydask.space.metrics import METRICS

_KEY = "ptydask.metrics"
_TAKES = ("trial",)
"""What a function is called with."""
_TAKEN = frozenset(
    {
        *METRICS,
        *(field.name for field in fields(TrialRecord)),
        *("trial", "time", "step", "rank", "confirmed", "confirmed_mean", "confirmed_sd", "confirmed_n"),
        *("best", "median", "trials", *(state.word for state in TrialState)),  # of trials that are grouped
        *("true", "false", "null", "none"),  # what conditions know
    }
)
"""Names that a table, or a condition on its columns, has already."""


def check(plan: StudyPlan) -> StudyPlan:
    """The plan with the folders in which its metrics are looked for, after those it has, and a line for each of them.

    The functions are found without being imported. One that is tuned is known at a trial's end only, so no pruner is
    left. Raises ConfigError, which names the key.
    """
    if not plan.own_metrics:
        return plan
    sources = [plan.source.path, *([plan.own_file.path] if plan.own_file is not None else [])]
    beside = [path.absolute().parent for path in reversed(sources)]
    folders = [*plan.function_folders, Path.cwd(), *beside]
    plan = replace(plan, function_folders=tuple(dict.fromkeys(map(str, folders))))
    details = []
    for name, target in _targets(plan).items():
        _check_name(name, target.text, plan.space)
        source = function_target.locate(target)
        if source is not None:
            function_target.check(target, source)
        shown = target.text if source is None else f"{target.function} in {source}"
        details.append(("metric", f"{name}: {shown}"))
    plan = replace(plan, details=(*plan.details, *details))
    if plan.metric not in plan.own_metrics or plan.pruner is None:
        return plan
    notice = f"{plan.pruner.name}: nothing is pruned, as {plan.metric} is known at the end of a trial only"
    return replace(plan, pruner=None, notices=(*plan.notices, notice))


def _check_name(name: str, text: str, tuned: Collection[str]) -> None:
    key = f"{_KEY}.{name}"
    if not name.isidentifier() or iskeyword(name):
        raise ConfigError("is no name for a metric", key=key, value=text, hint="use letters, digits and _")
    if name in tuned or name in _TAKEN:
        what = "a parameter that is tuned" if name in tuned else "ptydask's own tables"
        raise ConfigError(f"that name is taken, by {what}", key=key, value=text, hint=f"for example my_{name}")


def _targets(plan: StudyPlan) -> dict[str, FunctionTarget]:
    """Metric -> its function. Raises ConfigError for what names none."""
    folders = plan.function_folders or (str(Path.cwd()), str(plan.source.path.absolute().parent))
    return {
        name: function_target.parse(text, f"{_KEY}.{name}", _TAKES, list(map(Path, folders)))
        for name, text in plan.own_metrics.items()
    }


@dataclass(frozen=True, slots=True)
class _OwnMetric:
    name: str
    target: FunctionTarget
    function: Callable[[ReconstructedTrial], Any]
    source: Path | None
    tuned: bool

    def value(self, trial: ReconstructedTrial) -> float:
        """The function's number. Raises _MetricFailed for whatever else it does."""
        named = f"metric {self.name}: {self.target.text}"
        try:
            value = self.function(trial)
        except SystemExit as error:
            raise _MetricFailed(f"{named} called sys.exit({error.code!r})") from error
        except Exception as error:
            what = one_line(f"{type(error).__name__}: {error}")[:400]
            raise _MetricFailed(f"{named} raised {what}{function_target.raised_at(error)}") from error
        try:
            number = as_float(value)
        except TypeError:
            raise _MetricFailed(f"{named} returned a {type(value).__name__}; it must be a number") from None
        if self.tuned and not math.isfinite(number):
            raise _MetricFailed(f"{named} returned {number}; a metric that is tuned must be finite")
        return number


class _MetricFailed(Exception):  # noqa: N818 - the function did
    """One line that names the function; its cause has the traceback."""


class OwnMetrics:
    """The functions of one study, imported in this process. Raises ConfigError where one cannot be."""

    def __init__(self, plan: StudyPlan) -> None:
        targets = _targets(plan)
        self._directory = next((target.directories[0] for target in targets.values()), None)
        self._folders = dict.fromkeys(folder for target in targets.values() for folder in target.folders)
        self._modules_before = frozenset(sys.modules)
        try:
            self._metrics: Sequence[_OwnMetric] = [
                _OwnMetric(name, target, function, source, tuned=name == plan.metric)
                for name, target in targets.items()
                for function, _, source in [function_target.load(target)]
            ]
        except BaseException:
            self.close()
            raise

    def add_to(self, output: TrialOutput, trial: TrialInput) -> TrialOutput:
        """The trial with these metrics, what the functions printed at the end of its log, and how long they took.

        Random numbers are seeded with the trial's seed, so that a metric that draws some is the same in every attempt.
        Raises TrialFailure, which keeps the trial's output, where a function does not give a number.
        """
        if not self._metrics:
            return output
        from ptydask.engines.ptyrad.reconstruction import seeded  # PyTorch, which the check of a plan need not wait for

        arrays = {name: quantity.data for name, quantity in output.arrays.items()}
        reconstructed = assemble(
            trial.number, dict(trial.params), arrays, output.image, dict(output.metrics), dict(output.attributes)
        )
        metrics, failure, begin = dict(output.metrics), None, time.perf_counter()
        with printed.capture_output() as log, seeded(trial.seed), _working_directory(self._directory):
            for metric in self._metrics:
                try:
                    metrics[metric.name] = metric.value(reconstructed)
                except _MetricFailed as error:
                    failure = error
                    break
        seconds = time.perf_counter() - begin
        attributes = {**output.attributes, "own_metrics_seconds": seconds}
        output = replace(output, metrics=metrics, attributes=attributes, log=output.log + log.text())
        if failure is not None:
            cause = failure.__cause__
            raise TrialFailure(str(failure), "".join(traceback.format_exception(cause)) if cause else "", output)
        return output

    def provenance(self) -> Mapping[str, str]:
        """Which source each function came from."""
        facts = {}
        for metric in self._metrics:
            facts[f"metric {metric.name}"] = metric.target.text
            if metric.source is not None and metric.source.is_file():
                facts[f"metric {metric.name} file"] = str(metric.source)
                facts[f"metric {metric.name} sha256"] = hash_file(metric.source)
        return facts

    def close(self) -> None:
        """Take the study's folders from where modules are looked for, and forget what came from there."""
        function_target.forget_modules(self._folders.keys(), self._modules_before)


@contextlib.contextmanager
def _working_directory(directory: Path | None) -> Iterator[None]:
    """Where the run was started, if this machine has that folder."""
    with contextlib.chdir(directory) if directory is not None and directory.is_dir() else contextlib.nullcontext():
        yield
