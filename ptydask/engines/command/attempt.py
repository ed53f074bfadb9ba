"""One run of the program: watched while it is under way, and what comes of it."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ptydask.engines import Report, TrialFailure, deciding_steps, final_value, new_history
from ptydask.engines.command import folder, limits, log, messages, process, rows, wandb_offline
from ptydask.engines.command.limits import ExceededLimit, TimeLimits
from ptydask.engines.command.process import ProgramExit, ProgramProcess
from ptydask.engines.command.rows import MetricsTail
from ptydask.model import UNRANKED_VALUE, Scalar, StudyPlan, TrialOutput
from ptydask.trial import eviction
from ptydask.trial.metric_history import LoggedRow, should_report

PATIENCE = 15.0
"""Seconds that a program has, once asked to stop, before it is made to."""
SHORT_PATIENCE = 5.0
"""The same, where the worker has to go."""
SHORT_PAUSE, LONG_PAUSE = 0.05, 0.2
"""Seconds between two looks at the program's values: at first and while they come, and after a while without."""
_RECENT = 2.0
"""Seconds for which a sign of life counts as one that just came."""
_LONGEST_PAUSE = 5.0
"""Seconds between two looks that count, at most: for longer this process was halted, as is its program where a batch
system suspends a job."""
HISTORY = "history.jsonl"
"""Name of the artifact that has every row that was logged."""


@dataclass(frozen=True, slots=True)
class PreparedProgram:
    """A program ready to be started."""

    name: str
    argv: tuple[str, ...]
    command: str
    """For people: quoted for a shell."""
    directory: Path
    environ: Mapping[str, str]
    folder: Path
    metrics: Path
    """Where the program's values come in."""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "program.log"


class ProgramRun:
    """Starts a prepared program and stays with it until nothing of it is left."""

    def __init__(self, plan: StudyPlan, prepared: PreparedProgram, report: Report) -> None:
        self._plan, self._prepared, self._report = plan, prepared, report
        engine = plan.config["engine"]
        self._engine = engine
        self._limits = TimeLimits(engine["start_timeout"], engine["idle_timeout"], engine["trial_timeout"])
        self._bands = deciding_steps(plan)
        self._history = new_history(plan)
        self._tail = MetricsTail(prepared.metrics)
        self._reported = 0
        """Number of the value that Optuna was told of last, or would have been."""
        self._value = math.nan
        """That value."""
        self._unwanted = False
        """The pruner's word: stop."""
        self._held: list[tuple[int, float]] = []
        """What came after that word: Optuna hears of it if the program ended by itself nevertheless."""
        self._exceeded: ExceededLimit | None = None
        self._over = False
        """The program has ended: the pruner's word comes too late."""

    def run(self) -> TrialOutput:
        """The trial's result. Raises TrialFailure; Evicted where the worker has to go."""
        prepared = self._prepared
        try:
            running = process.start(prepared.argv, prepared.directory, prepared.environ, prepared.log)
        except (OSError, ValueError) as error:
            message = messages.not_started(prepared.name, str(error), socket.gethostname())
            self._raise_failure(message, TrialOutput({}, {}, command=prepared.command))
        try:
            ended = self._watch_program(running)
        except BaseException:
            running.stop(SHORT_PATIENCE)
            raise
        pruned = ended.stopped and self._unwanted
        recorded, finished = self._reconcile(pruned)
        output = self._trial_output(ended, recorded, finished, pruned)
        return output if pruned else self._judge_output(ended, output)

    # --- while it runs --------------------------------------------------------------------------

    def _watch_program(self, running: ProgramProcess) -> ProgramExit:
        """Stay with the program until nothing of it is left; stop it where it is unwanted or beyond a limit."""
        last_look = time.monotonic()
        last_sign: float | None = None
        seconds, log_size = 0.0, 0
        while True:
            pause = SHORT_PAUSE if last_sign is None or seconds - last_sign < _RECENT else LONG_PAUSE
            ended = running.wait(pause)
            new_rows = self._tail.new()
            self._take_in(new_rows)
            size = log.size(self._prepared.log)
            now = time.monotonic()
            seconds += min(now - last_look, _LONGEST_PAUSE)
            last_look = now
            if new_rows or size != log_size:
                last_sign, log_size = seconds, size
            if ended is not None:
                return ended
            if eviction.asked.is_set():
                raise eviction.Evicted
            if self._unwanted:
                return running.stop(PATIENCE)
            if running.ended:  # what it left running is ended by its guard, in bounded time
                continue
            limit = limits.find_exceeded(self._limits, seconds, last_sign)
            if limit is None:
                continue
            if limit.setting == "start_timeout" and wandb_offline.run_files(self._prepared.folder):
                last_sign = seconds  # silent, but W&B's start is behind it
                continue
            self._exceeded = limit
            return running.stop(PATIENCE)

    def _take_in(self, new_rows: Iterable[LoggedRow]) -> None:
        """Add rows to the history and tell Optuna."""
        for row in new_rows:
            added, count = self._history.add(row), self._history.count
            # A history that is made anew counts again what Optuna has heard of.
            if added and count > self._reported and should_report(count, self._reported, self._bands):
                self._report_value(count, row.metrics.get(self._plan.metric, UNRANKED_VALUE))

    def _report_value(self, count: int, value: float) -> None:
        self._reported, self._value = count, value
        if self._unwanted:
            self._held.append((count, value))
            return
        stop = self._report(count, {self._plan.metric: value})
        self._unwanted = stop and not self._over

    # --- afterwards -----------------------------------------------------------------------------

    def _reconcile(self, pruned: bool) -> tuple[list[LoggedRow], frozenset[str]]:
        """Take in what was not seen while the program ran: the end of its file, and what W&B's own file says.

        Returns the rows of the latter, and which of its runs were finished. Of a trial that was not pruned Optuna
        hears all there is.
        """
        self._over, self._unwanted = True, pruned
        if not pruned:
            for count, value in self._held:
                self._report_value(count, value)
        while new_rows := self._tail.new():
            self._take_in(new_rows)
        self._take_in(self._tail.rest())
        recorded, finished = wandb_offline.read_history(self._prepared.folder)
        if recorded:
            # W&B's file is right where the live rows may lack some, or have steps that W&B counts in another way.
            self._history = new_history(self._plan)
            self._take_in(rows.reconcile_rows(rows.read_rows(self._prepared.metrics), recorded, finished))
        last = self._history.last
        if not pruned and self._history.count > self._reported and last is not None and math.isfinite(last):
            self._report_value(self._history.count, last)
        return recorded, finished

    def _trial_output(
        self, ended: ProgramExit, recorded: list[LoggedRow], finished: frozenset[str], pruned: bool
    ) -> TrialOutput:
        prepared, limit = self._prepared, self._engine["outputs_limit"]
        ours = (prepared.log.name, prepared.metrics.name, wandb_offline.PARAMETERS)
        kept = folder.collect_files(prepared.folder, self._engine["outputs"], limit, ours)
        lines, size = rows.whole_history(prepared.metrics, recorded, finished, limit - kept.size)
        if lines:
            kept.add(HISTORY if HISTORY not in kept.artifacts else f"ptydask-{HISTORY}", lines, limit)
        elif size:
            kept.left_out.append(f"{HISTORY}: the {size:,} bytes of all logged values are beyond the outputs_limit")
        if self._tail.rubbish:
            kept.left_out.append(f"{self._tail.rubbish:,} lines of the metrics file that hold no JSON object")
        metrics = self._history.metrics()
        if pruned and not math.isfinite(metrics.get(self._plan.metric, math.nan)):
            metrics[self._plan.metric] = self._value  # while it was being stopped it came to log NaN
        attributes: dict[str, Scalar] = {"program_seconds": ended.seconds}
        if ended.code is not None:
            attributes["exit_code"] = ended.code
        return TrialOutput(
            metrics=metrics,
            curve=self._history.curve(),
            attributes=attributes,
            log=log.read_text(prepared.log),
            command=prepared.command,
            artifacts=kept.artifacts,
            left_out=kept.sentences(),
            ended_itself=not pruned,
        )

    def _judge_output(self, ended: ProgramExit, output: TrialOutput) -> TrialOutput:
        """The result of a program that did what it should. Raises TrialFailure or Evicted."""
        name, metric, value = self._prepared.name, self._plan.metric, final_value(self._history)
        if ended.stopped and self._exceeded is not None:
            self._raise_failure(messages.too_long(name, self._exceeded), output)
        if _ended_by_request(ended) and eviction.asked.wait(1.0):
            raise eviction.Evicted  # a batch system signals all processes of a job, this one a moment later
        if ended.code != 0:
            self._raise_failure(messages.ended_badly(name, ended, output.log), output)
        if not metric:
            return output
        if value is None:
            self._raise_failure(messages.no_metric(name, metric, self._history.seen), output)
        if not math.isfinite(value):
            self._raise_failure(messages.not_finite(name, metric, value, self._engine["objective"]), output)
        return output

    def _raise_failure(self, message: str, output: TrialOutput) -> NoReturn:
        detail = messages.failure_detail(output.log, self._prepared.command, str(self._prepared.directory))
        raise TrialFailure(message, detail, output) from None


def _ended_by_request(ended: ProgramExit) -> bool:
    """Whether SIGTERM or SIGINT ended it; a shell says so by 128 and the signal's number."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    return ended.signal in numbers or ended.code in [128 + number for number in numbers]
