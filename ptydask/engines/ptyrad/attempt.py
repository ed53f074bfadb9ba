"""One attempt at a trial: where an earlier one left it, where this one is, and that no checkpoint fails a trial."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ptydask.engines import Checkpoint
from ptydask.engines.ptyrad import checkpoint as saved_state
from ptydask.engines.ptyrad.checkpoint import TrialProgress
from ptydask.engines.ptyrad.reconstruction import IterationHistory, Reconstruction
from ptydask.errors import one_line


class ResumableTrial:
    """Loads and saves the state of one trial; what is wrong with a checkpoint becomes a line of the trial's log."""

    def __init__(self, checkpoint: Checkpoint, trial_identity: Mapping[str, Any], log: io.StringIO) -> None:
        self._checkpoint, self._trial_identity, self._log = checkpoint, trial_identity, log
        self._begin = time.perf_counter()
        self._before = TrialProgress()

    @property
    def course(self) -> IterationHistory:
        """What happened so far, for the iterations to add to."""
        return self._before.course

    def saved(self) -> dict[str, Any] | None:
        """What an earlier attempt saved of this very trial; None where there is nothing that can be used."""
        try:
            state = self._checkpoint.load()
            return None if state is None else saved_state.unpack(state, self._trial_identity)
        except Exception as error:
            self._log_unusable(error)
            return None

    def resume(self, saved: Mapping[str, Any], recon: Reconstruction) -> bool:
        """Bring a freshly prepared reconstruction to where ``saved`` is. False: it must be prepared once more."""
        try:
            self._before = saved_state.restore(saved, recon)
        except Exception as error:
            self._log_unusable(error)
            return False
        self._log.seek(0)
        self._log.truncate()
        self._log.write(self._before.log)
        self._log_line(f"goes on in another attempt, after iteration {len(self.course.step)}")
        return True

    def prepared(self) -> None:
        """The iterations start now."""
        self._before.initialisation += time.perf_counter() - self._begin

    def save(self, niter: int, recon: Reconstruction) -> None:
        """Save the state after ``niter``, if it is time to. Raises Evicted where the worker has to go."""
        if not self._checkpoint.due():
            return
        try:
            state = saved_state.pack(self._trial_identity, recon, self.progress())
        except Exception as error:
            self._log_line(f"could not be saved after iteration {niter}: {_error_text(error)}")
            return
        self._checkpoint.save(niter, state)

    def progress(self) -> TrialProgress:
        """The trial so far, the attempts before this one included."""
        before = self._before
        peak = torch.cuda.max_memory_allocated() if self._trial_identity["device"] == "cuda" else 0
        return replace(
            before,
            wall=before.wall + time.perf_counter() - self._begin,
            peak_gpu_memory=max(before.peak_gpu_memory, peak),
            log=self._log.getvalue(),
        )

    def _log_unusable(self, error: Exception) -> None:
        self._log_line(f"starts from the beginning: its checkpoint could not be used, {_error_text(error)}")

    def _log_line(self, what: str) -> None:
        self._log.write(f"ptydask: the trial {what}\n")


def _error_text(error: Exception) -> str:
    text = str(error) if isinstance(error, saved_state.UnusableCheckpoint) else f"{type(error).__name__}: {error}"
    return one_line(text)[:300]
