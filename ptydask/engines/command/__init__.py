"""Any program, as a subprocess of the worker.

``validation``  the program is there: before any worker starts
``session``     what a worker does for a trial: folder, environment, command
``attempt``     the program watched, and judged by what it logged
``process``     a program and all that it started; ``guard`` is its other side, a process of its own
``rows``        the values that it logged, from a file of JSON lines, or afterwards by ``wandb_offline``
``hook``        what has programs write that file: imported by every Python program of a trial
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptydask.engines import Session
from ptydask.model import Slot, StudyPlan

_NO_RESULT = frozenset({"outputs", "outputs_limit", "start_timeout", "idle_timeout", "trial_timeout"})
"""Settings of the engine that change no trial's result."""


class CommandEngine:
    """Runs a program for each trial, with W&B's command line, configuration and log calls, but without its server."""

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Look for the program, and show the command of a trial. Raises ConfigError."""
        from ptydask.engines.command.validation import complete

        return complete(plan)

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """All but where it is run, how long it may take, and which of its files are kept."""
        essential = {section: value for section, value in config.items() if section != "directory"}
        essential["engine"] = {name: value for name, value in config["engine"].items() if name not in _NO_RESULT}
        return essential

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """A worker that is ready for trials; nothing is loaded."""
        from ptydask.engines.command.session import CommandSession

        return CommandSession(plan, slot)
