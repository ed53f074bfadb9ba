"""PtyRAD on one worker: the measurements stay, everything else is made anew for each trial."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from ptydask.engines import Checkpoint, Report
from ptydask.engines.ptyrad import checkpoint as saved_state
from ptydask.engines.ptyrad import kept_arrays, measurements, provenance, reconstruction, release, trial_log
from ptydask.engines.ptyrad.attempt import ResumableTrial
from ptydask.engines.ptyrad.checkpoint import TrialProgress
from ptydask.engines.ptyrad.counts import CountSplit
from ptydask.engines.ptyrad.measurements import Measurements, RestingMeasurements
from ptydask.engines.ptyrad.own_metrics import OwnMetrics
from ptydask.engines.ptyrad.reconstruction import Reconstruction, WorkerState
from ptydask.errors import clear_frames
from ptydask.model import Quantity, Scalar, Slot, StudyPlan, TrialInput, TrialOutput
from ptydask.space import tunables
from ptydask.space.metrics import metric_unit


class PtyradSession:
    """Runs trials of one study; see :class:`ptydask.engines.Session`.

    Opening raises DataError where the measurements are unusable, MissingDependency where PtyRAD is missing, ConfigError
    where a metric of the user's own cannot be imported.
    """

    def __init__(self, plan: StudyPlan, slot: Slot) -> None:
        release.installed()
        torch.set_num_threads(slot.threads)
        self._plan, self._slot = plan, slot
        self._own_metrics = OwnMetrics(plan)
        self._worker = WorkerState("cuda" if slot.cuda is not None and torch.cuda.is_available() else "cpu")
        self._checksums: Mapping[str, str] = {}
        with suppress(OSError):  # loading says what cannot be read
            self._checksums = provenance.checksums(plan.config)
        self._measurements: Measurements | None = self._first_measurements()
        gc.collect()
        gc.freeze()  # what is there now stays; after a trial only that trial's objects are looked at

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        """Reconstruct with the trial's values. Raises NonFiniteLoss, or whatever PtyRAD or torch raises.

        Raises TrialFailure where a metric of the user's own fails.
        """
        torch.set_num_threads(self._slot.threads)  # trials may run in another thread than the one that opened
        if self._worker.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            return self._own_metrics.add_to(self._reconstruct(trial, report, checkpoint), trial)
        except BaseException as error:
            clear_frames(error)
            raise
        finally:
            self._free_memory()

    def _reconstruct(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        plan, device = self._plan, self._worker.device
        params, keep = tunables.apply(plan.config, trial.params), plan.keep
        trial_identity = saved_state.identity(params, trial, keep, device, plan.held_out, plan.start)
        with trial_log.capture_log(trial_log.level_of(params)) as log, reconstruction.seeded(trial.seed):
            try:
                attempt = ResumableTrial(checkpoint, trial_identity, log)
                recon = self._begin_trial(trial, attempt)
                steps = params["recon_params"]
                reconstruction.iterate(recon, steps, keep, report, attempt.course, attempt.save)
            except Exception as error:
                if log.getvalue():
                    error.add_note(f"PtyRAD's log ended with:\n{trial_log.tail(log.getvalue())}")
                raise
            return self._trial_output(recon, trial, steps, attempt.progress())

    def _begin_trial(self, trial: TrialInput, attempt: ResumableTrial) -> Reconstruction:
        """A reconstruction that is at its start, or where an earlier attempt left it."""
        saved = attempt.saved()
        recon = self._prepare_trial(trial)
        if saved is not None and not attempt.resume(saved, recon):
            reconstruction.start_random(trial.seed)
            recon = self._prepare_trial(trial)
        attempt.prepared()
        return recon

    def _prepare_trial(self, trial: TrialInput) -> Reconstruction:
        params = tunables.apply(self._plan.config, trial.params)
        split = self._split(trial.seed, trial.half)
        key = measurements.key_of(params["init_params"], trial.seed, split)
        if self._measurements is None or self._measurements.key != key:
            # This trial processes the patterns differently: they take the place of the resident ones.
            self._measurements = None  # first: there may be no room for both
            self._free_memory()
            self._measurements = self._load_measurements(params, trial.seed, split)
        return reconstruction.prepare(params, trial, self._measurements, self._worker, self._plan)

    def _split(self, seed: int, half: int = 0) -> CountSplit | None:
        return CountSplit.of(self._plan.held_out, half, seed)

    def provenance(self) -> Mapping[str, str]:
        """Device, package versions, threads, the data file and its SHA-256, and where own metrics come from."""
        facts = provenance.describe(self._plan.config, self._worker.device, self._slot.threads)
        return {**facts, **self._own_metrics.provenance()}

    def close_for(self, successor: StudyPlan) -> None:
        """Close before a session for ``successor`` is opened in this process; patterns that it needs, too, stay."""
        own = self._measurements
        if successor.engine == self._plan.engine and own is not None and own.key == _first_key(successor):
            measurements.rest(RestingMeasurements(own, self._worker.device, self._checksums))
        self.close()

    def close(self) -> None:
        """Give back the measurements' memory."""
        self._measurements = None
        self._own_metrics.close()
        gc.unfreeze()
        self._free_memory()

    def _first_measurements(self) -> Measurements:
        """Those that the session before this one left, if they are the same, or what is loaded now."""
        resting = measurements.take_resting()
        if resting is not None and self._checksums and self._checksums == resting.checksums:
            kept = resting.measurements
            if (kept.key, resting.device) == (_first_key(self._plan), self._worker.device):
                return kept
            del kept
        resting = None  # first: there may be no room for both
        return self._load_measurements(self._plan.config, self._plan.seed, self._split(self._plan.seed))

    def _load_measurements(self, config: Mapping[str, Any], seed: int, split: CountSplit | None) -> Measurements:
        key = measurements.key_of(config["init_params"], seed, split)
        contents = json.dumps(self._checksums) if self._checksums and key == _first_key(self._plan) else ""
        with trial_log.capture_log():
            return measurements.load(config, seed, self._worker.device, self._plan.source.path, split, contents)

    def _trial_output(
        self, recon: Reconstruction, trial: TrialInput, steps: Mapping[str, Any], progress: TrialProgress
    ) -> TrialOutput:
        model, dx, course = recon.model, float(recon.variables["dx"]), progress.course
        facts: dict[str, Scalar] = {
            "iterations": len(course.step),
            "initialisation_seconds": progress.initialisation,
            "recon_seconds": sum(course.seconds),
            "wall_seconds": progress.wall,
        }
        share = sum(map(len, recon.batches)) / len(model.crop_pos)
        if share < 1:
            facts["scan_share"] = share
        if trial.half:
            facts["half"] = trial.half
        if recon.score is not None:
            facts |= recon.score.facts()
        if recon.gradient.is_incomplete:
            facts["slope_iterations"] = 1
        if self._worker.device == "cuda":
            facts["peak_gpu_memory"] = progress.peak_gpu_memory
        arrays, image = dict[str, Quantity](), None
        if self._plan.keep.arrays or self._plan.own_metrics:
            arrays = {**kept_arrays.arrays(model, dx), **kept_arrays.scan_arrays(model, recon.batches, recon.held_out)}
            image = kept_arrays.phase_image(model, recon.region, dx)
        return TrialOutput(
            metrics=reconstruction.final_metrics(course, recon),
            curve=course.columns(),
            units={"seconds": "s"} | {name: unit for name in course.metrics if (unit := metric_unit(name, "ptyrad"))},
            arrays=arrays,
            image=image,
            snapshots=course.snapshots,
            attributes={**facts, **kept_arrays.geometry(model, recon.variables)},
            log=progress.log,
            gradient=reconstruction.complete_gradient(recon, steps),  # last: it goes on from here
        )

    def _free_memory(self) -> None:
        gc.collect()
        if self._worker.device == "cuda":
            torch.cuda.empty_cache()


def _first_key(plan: StudyPlan) -> str:
    """That of the patterns which a session for ``plan`` begins with."""
    split = CountSplit.of(plan.held_out, 0, plan.seed)
    return measurements.key_of(plan.config["init_params"], plan.seed, split)
