"""A command of the user's that is told when a run ends, stops, fails or gets stuck."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptydask.errors import one_line, redact
from ptydask.formatting import error_text, params_text
from ptydask.model import TrialRecord

Event = Literal["finished", "stopped", "failed", "stuck"]
SECONDS = 20.0
"""What the command has: a batch system that ends the driver gives it half a minute in all."""

_MOST_OUTPUT = 10_000
"""Bytes of its output, the last ones, that are looked at where it fails."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is told of a run."""

    event: Event
    study: str
    results: Path
    recorded: int
    total: int
    failed: int
    metric: str
    best: TrialRecord | None
    reason: str = ""
    """Why it stopped, failed or is stuck, in one line; empty for one that finished."""
    noun: str = "trial"
    """What is recorded: trials, of a confirmation repeats."""


def make_environment(facts: RunFacts) -> dict[str, str]:
    """The variables of the command; those of the best trial are empty where no trial has completed."""
    best = facts.best
    return {
        "PTYDASK_EVENT": facts.event,
        "PTYDASK_STUDY": facts.study,
        "PTYDASK_RESULTS": str(facts.results),
        "PTYDASK_RECORDED": str(facts.recorded),
        "PTYDASK_TOTAL": str(facts.total),
        "PTYDASK_FAILED": str(facts.failed),
        "PTYDASK_METRIC": facts.metric,
        "PTYDASK_BEST": "" if best is None else repr(best.error),
        "PTYDASK_BEST_TRIAL": "" if best is None else str(best.number),
        "PTYDASK_BEST_PARAMS": "" if best is None else params_text(best.params),
        "PTYDASK_REASON": redact(one_line(facts.reason)),
        "PTYDASK_LINE": make_line(facts),
    }


def make_line(facts: RunFacts) -> str:
    """``ptydask: WSe2 finished: 200 of 200 trials, 3 failed, best loss 0.0831 (trial 12); /data/WSe2.h5``."""
    event = "is stuck" if facts.event == "stuck" else facts.event
    parts = [f"{facts.recorded} of {facts.total} {facts.noun}s"]
    if facts.failed:
        parts.append(f"{facts.failed} failed")
    if facts.best is not None:
        parts.append(f"best {facts.metric} {error_text(facts.best.error)} (trial {facts.best.number})")
    why = f" ({redact(one_line(facts.reason))})" if facts.reason else ""
    return f"ptydask: {facts.study} {event}{why}: {', '.join(parts)}; {facts.results}"


def notify(command: str, facts: RunFacts, environ: Mapping[str, str] = os.environ) -> str:
    """Run the command in a shell, the facts in its environment and one line on its stdin; why it failed, if it did.

    It hears no Ctrl-C, and is ended after :data:`SECONDS`.
    """
    # Its output goes into a file: a pipe would have no end before what the command leaves behind with & has ended.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, **make_environment(facts)},
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"the notify command did not start: {one_line(str(error))}"
        try:
            process.communicate(make_line(facts) + "\n", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            _end_group(process)
            return f"the notify command did not end within {SECONDS:.0f} s, and was ended"
        except OSError as error:
            _end_group(process)
            return f"the notify command: {error.strerror}"
        if not process.returncode:
            return ""
        output.seek(max(0, output.seek(0, os.SEEK_END) - _MOST_OUTPUT))
        last = redact(one_line(output.read().decode(errors="replace")))[-200:]
        return f"the notify command ended with exit code {process.returncode}" + (f": {last}" if last else "")


def _end_group(process: subprocess.Popen[str]) -> None:
    """End the command and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.wait()
