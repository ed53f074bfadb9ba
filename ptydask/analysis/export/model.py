"""A trial as PtyRAD's own model file, which its analysis and its resume load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask import __version__
from ptydask.analysis.export.params import with_values
from ptydask.config.ptyrad import paths
from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialState
from ptydask.space import tunables
from ptydask.store.foreign import ptyrad_model
from ptydask.store.foreign.ptyrad_model import PtyradModel
from ptydask.store.reader import StoredArray, TrialData

TENSORS = {
    "object_amplitude": "obja",
    "object_phase": "objp",
    "object_tilts": "obj_tilts",
    "slice_thickness": "slice_thickness",
    "probe": "probe",
}
"""Arrays of a trial that PtyRAD keeps as they are, and its names of them."""


@dataclass(frozen=True)
class ModelOfTrial:
    """A trial as PtyRAD has it."""

    model: PtyradModel
    derived: tuple[str, ...]
    """One line each: what the trial does not say, and what was taken instead."""


def write(path: Path, meta: StudyMeta, trial: TrialData) -> tuple[str, ...]:
    """Write the trial's model file; returns what had to be derived. Raises StoreError, OSError."""
    exported = of_trial(meta, trial)
    ptyrad_model.write(path, exported.model, creator=f"ptydask {__version__}")
    return exported.derived


def of_trial(meta: StudyMeta, trial: TrialData) -> ModelOfTrial:
    """What PtyRAD would have saved at the iteration that the trial's arrays are of, its last.

    The optimizer's state, the losses of single batches, and the courses of learning rates, mean tilts and convergence,
    which PtyRAD 1.0 saves, are not kept. Raises StoreError where the trial's arrays
    are not there, or the study is of another engine.
    """
    check_exportable(meta, trial)
    facts = _TrialValues(trial, with_values(meta, trial.record))
    crop, shifts = _split_positions(facts)
    tensors = {theirs: trial.arrays[ours].read() for ours, theirs in TENSORS.items()}
    kept = kept_iteration(trial)
    steps = np.asarray(trial.curve.get("step", ()), float)
    until = steps <= kept
    steps, losses, seconds = (
        np.asarray(trial.curve[name], float)[until] if name in trial.curve else np.empty(0)
        for name in ("step", "loss", "seconds")
    )
    version = str(meta.provenance.get("ptyrad", ""))
    model = PtyradModel(
        version=version,
        tensors={**tensors, "probe_pos_shifts": shifts},
        attributes=_model_attributes(facts, crop, version),
        params=facts.params,
        losses=np.column_stack([steps, losses]) if len(losses) else np.empty((0, 2)),
        seconds=seconds,
        iteration=kept,
        seed=trial.record.seed,
        indices=facts.array("scan_indices", np.arange(len(crop))).astype(np.int64),
        provenance=_provenance(meta, trial, facts.params),
        others={
            "optim_state_dict": None,
            "scheduler_state_dict": None,
            "dz_iters": _thickness_by_iteration(facts, steps),
            "avg_iter_t": float(seconds.mean()) if len(seconds) else None,
            "batch_losses": {},
            "avg_losses": {},
        },
    )
    return ModelOfTrial(model, tuple(facts.derived))


def check_exportable(meta: StudyMeta, trial: TrialData) -> None:
    """Raises StoreError where no model file can be made of the trial."""
    number = trial.record.number
    if meta.engine != "ptyrad":
        raise StoreError(f"trial {number}: a model file is PtyRAD's, and this study is of the engine {meta.engine!r}")
    missing = [name for name in (*TENSORS, "positions") if name not in trial.arrays]
    if missing:
        raise missing_data_error(trial, missing)
    if not trial.attributes.get("pixel_size"):
        raise StoreError(f"trial {number} does not say its pixel_size")
    if not trial.attributes.get("wavelength") and not with_values(meta, trial.record)["init_params"].get("probe_kv"):
        raise StoreError(f"trial {number} does not say its wavelength, nor the params file its probe_kv")


def missing_data_error(trial: TrialData, names: Sequence[str], between: str = ", ") -> StoreError:
    """The error for a trial without ``names``, which says what became of them."""
    not_imported = trial.attributes.get("not_imported")
    if trial.record.state is TrialState.FAIL:
        why = "it failed"
    elif trial.lost or trial.dropped:
        why = trial.lost or trial.dropped
    else:
        why = f"not imported: {not_imported}" if not_imported else "its arrays were not kept"
    return StoreError(f"trial {trial.record.number} has no {between.join(names)}: {why}")


def count_iterations(trial: TrialData) -> int:
    """How many iterations the trial did."""
    steps = list(trial.curve.get("step", ()))
    return int(steps[-1]) if steps else int(trial.attributes.get("iterations") or 0)


def kept_iteration(trial: TrialData) -> int:
    """Which iteration the trial's arrays are of: its last, but for imported trials of which no later one was saved."""
    return int(trial.attributes.get("arrays_iteration") or count_iterations(trial))


# --- what the file keeps beside the tensors ----------------------------------------------------------


class _TrialValues:
    """What a trial says, and a note of everything that it does not."""

    def __init__(self, trial: TrialData, params: dict[str, Any]) -> None:
        self.params, self.derived = params, list[str]()
        self._trial = trial

    def number(self, name: str, other: Any, how: str = "") -> Any:
        """The trial's fact ``name``, else ``other``, which comes from ``how``."""
        value = self._trial.attributes.get(name)
        if value is None and how:
            self.derived.append(f"{name}: {how}")
        return other if value is None else value

    def array(self, name: str, other: NDArray[Any], how: str = "") -> NDArray[Any]:
        """The same of an array."""
        stored: StoredArray | None = self._trial.arrays.get(name)
        if stored is None and how:
            self.derived.append(f"{name}: {how}")
        return other if stored is None else stored.read()

    def read(self, name: str) -> NDArray[Any]:
        """An array that is there."""
        return self._trial.arrays[name].read()

    def section(self, *way: str) -> dict[str, Any]:
        """A part of the params; empty where there is none."""
        return paths.find_section(self.params, way)

    @property
    def pixel_size(self) -> float:
        return float(self._trial.attributes["pixel_size"] or 0)


def _split_positions(facts: _TrialValues) -> tuple[NDArray[Any], NDArray[Any]]:
    """``crop_pos`` (N, 2) int32 and ``probe_pos_shifts`` (N, 2) float32, in pixels."""
    pixels = facts.read("positions") / facts.pixel_size
    crop = facts.array("crop_positions", np.round(pixels), "rounded from the positions")
    return crop.astype(np.int32), (pixels - crop).astype(np.float32)


def _model_attributes(facts: _TrialValues, crop: NDArray[Any], version: str) -> dict[str, Any]:
    """PtyRAD's ``model_attributes`` as its ``version``, 0.1.0b13 or 1.0, has them."""
    init, model = facts.section("init_params"), facts.section("model_params")
    update = {name: settings for name, settings in facts.section("model_params", "update_params").items() if settings}
    rates = {name: settings.get("lr", 0.0) for name, settings in update.items()}
    probe, dx = facts.read("probe"), facts.pixel_size
    thickness = float(
        facts.number("initial_slice_thickness", facts.read("slice_thickness"), "that of the last iteration")
    )
    wavelength = float(facts.number("wavelength", 0.0) or tunables.wavelength(init.get("probe_kv") or 0.0))
    power = np.sum(np.abs(probe) ** 2, dtype=np.float32)
    slow, fast = _scan_shape(facts, len(crop))
    half_bin = not version or version.startswith("0.")
    return {
        "detector_blur_std": model.get("detector_blur_std"),
        "start_iter": {name: settings.get("start_iter") for name, settings in update.items()},
        "lr_params": rates,
        "omode_occu": _mode_occupancy(init, facts.read("object_phase").shape[0]),
        "H": propagator(probe.shape[-2:], dx, thickness, wavelength, half_bin=half_bin),
        "N_scan_slow": np.int32(slow),
        "N_scan_fast": np.int32(fast),
        "crop_pos": crop,
        "slice_thickness": np.float32(thickness),
        "dx": np.float32(dx),
        "dk": np.float32(facts.number("reciprocal_pixel_size", 1 / (dx * probe.shape[-1]))),
        "lambd": np.float32(wavelength),
        "meas_Npix": int(facts.number("pattern_window", probe.shape[-1])),
        "simu_Npix": int(probe.shape[-1]),
        "simu_match_mode": init.get("simu_match_mode"),
        "scan_affine": init.get("pos_scan_affine"),
        "tilt_obj": bool(rates.get("obj_tilts") or np.any(facts.read("object_tilts"))),
        "shift_probes": bool(rates.get("probe_pos_shifts")),
        "probe_int_sum": np.float32(facts.number("initial_probe_intensity", power, "that of the last iteration")),
    }


def _scan_shape(facts: _TrialValues, positions: int) -> tuple[int, int]:
    """Scan positions along the slow and the fast direction."""
    init = facts.section("init_params")
    crop = init.get("meas_crop") or [None, None]
    slow, fast = (
        len(range(int(init.get(f"pos_N_scan_{way}") or 0))[slice(*(bounds or (None,)))])
        for way, bounds in zip(("slow", "fast"), crop[:2], strict=True)
    )
    how = "from the params file"
    if slow * fast != positions:
        slow, fast, how = positions, 1, "not known, all positions in one line"
    return int(facts.number("scan_positions_slow", slow, how)), int(facts.number("scan_positions_fast", fast, how))


def _mode_occupancy(init: Mapping[str, Any], modes: int) -> NDArray[np.float32]:
    """The fixed weight of every object mode, as ``Initializer.init_omode_occu`` sets it."""
    asked = init.get("obj_omode_init_occu") or {}
    if asked.get("occu_type") == "custom" and asked.get("init_occu") is not None:
        return np.array(asked["init_occu"]).astype(np.float32)
    return (np.ones(modes) / modes).astype(np.float32)


def propagator(
    shape: tuple[int, ...], pixel_size: float, thickness: float, wavelength: float, *, half_bin: bool
) -> NDArray[np.complex64]:
    """Free-space propagation over one slice, (ky, kx), zero frequency at the corner; lengths in one unit.

    exp(i dz sqrt(k^2 - kx^2 - ky^2)), with ``half_bin`` on a grid shifted by half a bin, as PtyRAD had it before 1.0:
    ``ptyrad.optics.propagator``, in its order of operations, so that the values are the same.
    """
    bins: list[NDArray[Any]] = [np.fft.fftfreq(n) for n in shape]
    if half_bin:
        bins = [np.fft.ifftshift((np.arange(-n // 2, n // 2) + 0.5) / n) for n in shape]
    ky, kx = (2 * np.pi * places / pixel_size for places in bins)
    k = 2 * np.pi / wavelength
    grid_y, grid_x = np.meshgrid(ky, kx, indexing="ij")
    return np.exp(1j * thickness * np.sqrt(k**2 - grid_x**2 - grid_y**2)).astype(np.complex64)


def _thickness_by_iteration(facts: _TrialValues, steps: NDArray[Any]) -> NDArray[Any]:
    """(n, 2): iteration and slice thickness; the last iteration alone where the thickness was refined."""
    rate = (facts.section("model_params", "update_params").get("slice_thickness") or {}).get("lr")
    iterations = steps[-1:] if rate else steps
    return np.column_stack([iterations, np.full(len(iterations), float(facts.read("slice_thickness")))])


def _provenance(meta: StudyMeta, trial: TrialData, params: Mapping[str, Any]) -> str:
    """PtyRAD's history of each component: where it began, and this trial."""
    record, init = trial.record, params.get("init_params") or {}
    mark = hashlib.sha256(f"{meta.name}/{meta.created}/{record.number}".encode()).hexdigest()[:8]
    run = {
        "uid": mark,
        "timestamp": record.started,
        "ptyrad_version": meta.provenance.get("ptyrad", ""),
        "run_name": f"{meta.name}, trial {record.number}",
        "note": f"ptydask {__version__}",
        "params": params,
    }

    def start(name: str) -> dict[str, Any]:
        source, settings = init.get(f"{name}_source"), init.get(f"{name}_params")
        simulated = source in (None, "simu")
        return {
            "uid": mark,
            "timestamp": record.started,
            "run_name": "<Simulation>" if simulated else str(settings),
            "action": "Simulated" if simulated else f"Imported {source}",
            "metadata": {"sim_params": settings} if simulated else {"original_path": str(settings)},
        }

    return json.dumps({name: [start(name), run] for name in ("probe", "pos", "obj", "tilt")}, indent=2, default=str)
