"""PtyRAD on one worker: the measurements stay, everything else is made anew for each trial."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from ptydask import tunables
from ptydask.engines import Report
from ptydask.engines.ptyrad import measurements, provenance, reconstruction, release, results, trial_log
from ptydask.engines.ptyrad.reconstruction import Course, Reconstruction, WorkerState
from ptydask.model import Scalar, Slot, StudyPlan, TrialInput, TrialOutput


class PtyradSession:
    """Runs trials of one study; see :class:`ptydask.engines.Session`.

    Opening raises DataError where the measurements are unusable, MissingDependency where PtyRAD is missing.
    """

    def __init__(self, plan: StudyPlan, slot: Slot) -> None:
        release.installed()
        torch.set_num_threads(slot.threads)
        self._plan, self._slot = plan, slot
        self._worker = WorkerState("cuda" if slot.cuda is not None and torch.cuda.is_available() else "cpu")
        self._measurements = self._load(plan.config, plan.seed)
        gc.collect()
        gc.freeze()  # what is there now stays; after a trial only that trial's objects are looked at

    def run(self, trial: TrialInput, report: Report) -> TrialOutput:
        """Reconstruct with the trial's values. Raises NonFiniteLoss, or whatever PtyRAD or torch raises."""
        torch.set_num_threads(self._slot.threads)  # trials may run in another thread than the one that opened
        if self._worker.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            return self._reconstruct(trial, report)
        except BaseException as error:
            _let_go(error)
            raise
        finally:
            self._free()

    def _reconstruct(self, trial: TrialInput, report: Report) -> TrialOutput:
        begin = time.perf_counter()
        params = tunables.apply(self._plan.config, trial.params)
        level = trial_log.level_of(self._plan.config)
        with trial_log.captured(level) as log, reconstruction.seeded(trial.seed):
            try:
                patterns = self._measurements_for(params, trial.seed)
                recon = reconstruction.prepare(params, trial.seed, patterns, self._worker)
                started = time.perf_counter()
                course = reconstruction.iterate(recon, params["recon_params"], self._plan.keep, report)
            except Exception as error:
                if log.getvalue():
                    error.add_note(f"PtyRAD's log ended with:\n{trial_log.tail(log.getvalue())}")
                raise
        times: dict[str, Scalar] = {
            "initialisation_seconds": started - begin,
            "recon_seconds": sum(course.seconds),
            "wall_seconds": time.perf_counter() - begin,
        }
        return self._output(recon, course, times, log.getvalue())

    def provenance(self) -> Mapping[str, str]:
        """Device, package versions, threads, the data file and its SHA-256."""
        return provenance.describe(self._plan.config, self._worker.device, self._slot.threads)

    def close(self) -> None:
        """Give back the measurements' memory."""
        del self._measurements
        gc.unfreeze()
        self._free()

    def _load(self, config: Mapping[str, Any], seed: int) -> measurements.Measurements:
        with trial_log.captured():
            return measurements.load(config, seed, self._worker.device, self._plan.source.path)

    def _measurements_for(self, params: Mapping[str, Any], seed: int) -> measurements.Measurements:
        """The resident patterns, or others where this trial processes them differently."""
        if self._measurements.key != measurements.key_of(params["init_params"], seed):
            self._measurements = self._load(params, seed)
        return self._measurements

    def _output(self, recon: Reconstruction, course: Course, times: Mapping[str, Scalar], log: str) -> TrialOutput:
        dx, arrays = float(recon.variables["dx"]), self._plan.keep.arrays
        facts: dict[str, Scalar] = {"iterations": len(course.step), **times}
        if self._worker.device == "cuda":
            facts["peak_gpu_memory"] = torch.cuda.max_memory_allocated()
        return TrialOutput(
            metrics={"loss": course.loss[-1], "contrast": course.contrast[-1]},
            curve={
                "step": course.step,
                "loss": course.loss,
                "contrast": course.contrast,
                "seconds": course.seconds,
            },
            arrays=results.arrays(recon.model, dx) if arrays else {},
            image=results.phase_image(recon.model, recon.region, dx) if arrays else None,
            snapshots=course.snapshots,
            attributes={**facts, **results.geometry(recon.model, recon.variables)},
            log=log,
        )

    def _free(self) -> None:
        gc.collect()
        if self._worker.device == "cuda":
            torch.cuda.empty_cache()


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an exception still refers to: they would hold model and gradients in memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
