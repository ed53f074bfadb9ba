"""Trials of a study, repeated on one worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ptydask.engines import Checkpoint, Report, Session
from ptydask.engines.repeat import HALF, TRIAL
from ptydask.model import TrialInput, TrialOutput
from ptydask.trial import slopes

_HALVES: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class RepeatSession:
    """See :class:`ptydask.engines.Session`; what a trial's parameters name is run in the session of its own engine."""

    trials: Mapping[str, Mapping[str, Any]]
    """A trial's number -> its parameters."""
    inner: Session

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        """Run the trial with the seed. Its slopes are in parameters that are not tuned here: they are left out."""
        number, half = trial.params[TRIAL], _HALVES[int(str(trial.params[HALF]))]

        def report_value(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
            return report(step, metrics)

        repeated = replace(trial, params=self.trials[str(number)], half=half)
        output = self.inner.run(repeated, report_value, checkpoint)
        curve = {name: column for name, column in output.curve.items() if not name.startswith(slopes.COLUMN)}
        return replace(output, gradient={}, curve=curve)

    def provenance(self) -> Mapping[str, str]:
        """What the engine of the trials says."""
        return self.inner.provenance()

    def close(self) -> None:
        """Close the engine's own session."""
        self.inner.close()
