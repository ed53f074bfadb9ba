"""Trials of a function, one after the other, in the worker's own process."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptydask import Pruned
from ptydask.engines import (
    Checkpoint,
    Report,
    TrialFailure,
    deciding_steps,
    final_value,
    function_target,
    hash_file,
    new_history,
)
from ptydask.engines.callable import KEY, TAKES, printed
from ptydask.errors import one_line
from ptydask.model import StudyPlan, TrialInput, TrialOutput
from ptydask.space import sweep_values
from ptydask.trial import eviction, slopes
from ptydask.trial.metric_history import LoggedRow, MetricHistory, never_logged, should_report

_MOST_SENTENCES = 20
"""Of values that are no numbers, whatever names the function gives them."""


class CallableSession:
    """See :class:`ptydask.engines.Session`. A trial that loses its worker begins again."""

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        directory = Path(plan.config["directory"])
        self._target = function_target.parse(plan.config["engine"]["callable"], KEY, TAKES, [directory])
        self._modules_before = frozenset(sys.modules)
        try:
            self._function, self._call_style, self._source = function_target.load(self._target)
        except BaseException:
            self.close()
            raise

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        """Call the function. Raises TrialFailure where it raises, or ends without a finite value of the metric."""
        plan = self._plan
        history = new_history(plan)
        reporter = TrialReporter(report, history, deciding_steps(plan))
        params = copy.deepcopy(sweep_values.values(plan.config, trial.params))
        with printed.capture_output() as log:
            returned, error = self._call_function(params, trial.seed, reporter)
        if reporter.stopped is not None and not isinstance(reporter.stopped, Pruned):
            raise reporter.stopped
        if reporter.stopped is None and error is None:
            error = self._record_returned(returned, reporter)
        text = log.text()
        if error is not None and reporter.stopped is not None:
            text += f"\nraised after it was pruned: {type(error).__name__}: {error}\n"
            error = None
        output = TrialOutput(
            reporter.metrics(), history.curve(), reporter.gradient(), log=text, left_out=tuple(reporter.left_out)
        )
        problem = self._failure_text(error, history)
        if problem:
            raise TrialFailure(problem, _failure_detail(error, text), output)
        return output

    def _call_function(
        self, params: dict[str, Any], seed: int, reporter: TrialReporter
    ) -> tuple[Any, BaseException | None]:
        """What the function returned, or what it raised; what was raised to stop it is in ``reporter``."""
        with _working_directory(self._plan.config), _seed_in_environment(seed):
            try:
                if self._call_style == "second":
                    return self._function(params, reporter), None
                if self._call_style == "keyword":
                    return self._function(params, report=reporter), None
                return self._function(params), None
            except (Exception, SystemExit) as error:
                return None, error
            except BaseException as error:
                if error is not reporter.stopped:
                    raise
                return None, None

    def _record_returned(self, returned: Any, reporter: TrialReporter) -> BaseException | None:
        """The return value: a number, a mapping of metrics, or None. Returns what is wrong with it."""
        if returned is None:
            return None
        try:
            is_mapping = isinstance(returned, Mapping)
            returned, gradient = split_gradient(returned) if is_mapping else (returned, {})
            metrics = reporter.numbers(returned) if is_mapping else {self._plan.metric: as_float(returned)}
        except NotANumber as error:
            return error
        except TypeError:
            what = f"{self._target.function} returned a {type(returned).__name__}"
            return TypeError(f"{what}; it must be a number, a mapping of metrics, or None")
        reporter.add(LoggedRow(None, metrics, final=True), gradient)
        return None

    def _failure_text(self, error: BaseException | None, history: MetricHistory) -> str:
        """Why the trial failed, in one line; empty where it did not."""
        name, metric = self._target.function, history.metric
        if isinstance(error, SystemExit):
            return f"{name} called sys.exit({error.code!r})"
        if error is not None:
            return one_line(f"{type(error).__name__}: {error}")[:500]
        value = final_value(history)
        if value is None:
            return f"{name} returned but {never_logged(metric, history.seen)}"
        if math.isfinite(value):
            return ""
        return f"{name} returned but the last value of {metric!r} is {'NaN' if math.isnan(value) else value}"

    def provenance(self) -> Mapping[str, str]:
        """Which source the function came from."""
        source = self._source
        digest = hash_file(source) if source is not None and source.is_file() else ""
        return {"callable": self._target.text, "callable_file": str(source or ""), "callable_sha256": digest}

    def close(self) -> None:
        """Take the study's folders from where modules are looked for, and forget what came from there."""
        function_target.forget_modules(self._target.folders, self._modules_before)


@dataclass(slots=True)
class TrialReporter:
    """What the function gets as ``report``: ``report(step, loss=0.5)``, ``report(step, 0.5)``, ``report(loss=0.5)``.

    ``gradient={"lr": -0.1}`` beside the metrics are the slopes of the tuned one.
    Returns nothing. Raises :class:`ptydask.Pruned` once the pruner wants the trial to end.
    """

    _report: Report
    history: MetricHistory
    _bands: frozenset[int]
    stopped: BaseException | None = None
    left_out: dict[str, None] = field(default_factory=dict)
    _reported: int = 0
    _gradient: Mapping[str, float] = field(default_factory=dict)
    _gradient_of: float | None = None
    """The value of the tuned metric that the slopes came with."""
    _slope_columns: set[str] = field(default_factory=set)

    def __call__(self, step: Any = None, value: Any = None, /, **metrics: Any) -> None:
        """Report metrics of a step. Raises TypeError where they are no numbers."""
        if self.stopped is not None:
            raise self.stopped
        if eviction.asked.is_set():
            self.stopped = eviction.Evicted()
            raise self.stopped
        number = None if step is None else as_float(step)
        if number is not None and not math.isfinite(number):
            raise ValueError(f"report: the step is {number}")
        numbers, gradient = self._parse_arguments(value, metrics)
        added, count = self.add(LoggedRow(number, numbers), gradient), self.history.count
        if added and should_report(count, self._reported, self._bands):
            self._report_value(count, numbers[self.history.metric], gradient)

    def add(self, row: LoggedRow, gradient: Mapping[str, float]) -> bool:
        """Take in a row and its slopes, which are columns of the curve. Returns whether it has a further value."""
        columns = {slopes.COLUMN + name: slope for name, slope in gradient.items()}
        self._slope_columns.update(columns)
        added = self.history.add(replace(row, metrics={**row.metrics, **columns}))
        value = row.metrics.get(self.history.metric)
        if gradient and value == self.history.value:
            self._gradient, self._gradient_of = gradient, value
        return added

    def metrics(self) -> dict[str, float]:
        """The trial's final values, without slopes."""
        return {name: value for name, value in self.history.metrics().items() if name not in self._slope_columns}

    def gradient(self) -> Mapping[str, float]:
        """The slopes that came with the value that the trial is judged by; empty where that came without."""
        return self._gradient if self._gradient_of == self.history.value else {}

    def _report_value(self, count: int, value: float, gradient: Mapping[str, float]) -> None:
        self._reported = count
        try:
            stop = self._report(count, {self.history.metric: value}, gradient)
        except BaseException as error:  # the worker cannot go on: whatever the function catches, it is raised again
            self.stopped = error
            raise
        if stop:
            self.stopped = Pruned("the pruner ended this trial")
            raise self.stopped

    def _parse_arguments(self, value: Any, keywords: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics and slopes."""
        metric = self.history.metric
        if value is None:
            value = {}
        elif not isinstance(value, Mapping):
            value = {metric: value}
        metrics, gradient = split_gradient({**value, **keywords})
        if not metrics:
            raise TypeError("report: no metric; write report(step, loss=0.5) or report(step, 0.5)")
        numbers = self.numbers(metrics)
        if metric in metrics and metric not in numbers:
            raise TypeError(f"report: {metric} is a {type(metrics[metric]).__name__}, not a number")
        return numbers, gradient

    def numbers(self, metrics: Mapping[Any, Any]) -> dict[str, float]:
        """The values that are numbers; a sentence for each of the others."""
        numbers = {}
        for name, value in metrics.items():
            try:
                numbers[str(name)] = as_float(value)
            except TypeError:
                if len(self.left_out) < _MOST_SENTENCES:
                    self.left_out[f"{name}: a {type(value).__name__}, not a number"] = None
        return numbers


class NotANumber(TypeError):  # noqa: N818 - the name says it
    """A slope that is none."""


def split_gradient(metrics: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, float]]:
    """The metrics alone, and the slopes: what is named ``gradient`` and is a mapping. Raises NotANumber."""
    gradient = metrics.get("gradient")
    if not isinstance(gradient, Mapping):
        return dict(metrics), {}
    numbers = {}
    for name, slope in gradient.items():
        try:
            numbers[str(name)] = as_float(slope)
        except TypeError:
            raise NotANumber(f"the gradient in {name} is a {type(slope).__name__}, not a number") from None
    return {name: value for name, value in metrics.items() if name != "gradient"}, numbers


def as_float(value: Any) -> float:
    """A number of Python, NumPy, torch and others, one element at most. Raises TypeError for anything else."""
    if isinstance(value, str | bytes | bytearray) or value is None:
        raise TypeError(f"{value!r} is not a number")
    item = getattr(value, "item", None)
    try:
        return float(item() if callable(item) else value)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(str(error)) from None


def _failure_detail(error: BaseException | None, log: str) -> str:
    """The traceback from the function on; else the end of the log."""
    if error is None:
        return "\n".join(log.splitlines()[-20:])
    lines = traceback.TracebackException.from_exception(error).format()
    return "".join(line for line in lines if f'"{__file__}"' not in line)


@contextlib.contextmanager
def _seed_in_environment(seed: int) -> Iterator[None]:
    """Within it the function finds the trial's seed where a program does."""
    before = os.environ.get("PTYDASK_SEED")
    os.environ["PTYDASK_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PTYDASK_SEED", None)
        else:
            os.environ["PTYDASK_SEED"] = before


@contextlib.contextmanager
def _working_directory(config: Mapping[str, Any]) -> Iterator[None]:
    """The working directory that the file asks for: where the run was started, the trial's own, or another one."""
    directory = config["engine"]["directory"]
    before = os.getcwd()  # noqa: PTH109 - what os.chdir goes back to
    own = tempfile.mkdtemp(prefix="ptydask-trial-") if directory == "trial" else None
    try:
        os.chdir(own or Path(config["directory"]) / Path(directory).expanduser())
        yield
    finally:
        os.chdir(before)
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
