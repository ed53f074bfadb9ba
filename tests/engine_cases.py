"""A tiny 4D-STEM data set, its params, and plans to run it: shared by the tests of the engine ``ptyrad``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from ptydask.model import Budget, ComponentSpec, KeepOptions, Slot, SourceFile, StudyPlan, TrialInput

SCAN, PIXELS, DX, STEP, KV, ALPHA = 8, 32, 0.25, 0.5, 80.0, 24.9
"""Scan 8 x 8, patterns 32 x 32, object pixels of 0.25 and scan steps of 0.5 angstrom."""

SLOT = Slot(threads=1)

VARIANTS: dict[str, dict[str, Any]] = {
    "as PtyRAD's defaults": {},
    "three slices": {"init_params.obj_Nlayer": 3, "model_params.update_params.slice_thickness.lr": 1e-2},
    "two object modes": {"init_params.obj_omode_max": 2},
    "no jitter of positions": {"init_params.pos_scan_rand_std": None},
    "tilts that are refined": {
        "init_params.obj_Nlayer": 2,
        "init_params.tilt_params": {"tilt_type": "each", "init_tilts": [[3.0, -2.0]]},
        "model_params.update_params.obj_tilts": {"start_iter": 2, "lr": 1e-2},
    },
    "compact groups": {"recon_params.GROUP_MODE": "compact"},
    "sparse groups": {"recon_params.GROUP_MODE": "sparse"},
    "accumulated gradients": {"recon_params.BATCH_SIZE": {"size": 8, "grad_accumulation": 3}},
    "scan affine": {"init_params.pos_scan_affine": [1.03, 0.01, 4.0, -1.0]},
    "calibration by fit": {"init_params.meas_calibration": {"mode": "fitRBF", "value": None}},
    "cropped patterns": {"init_params.meas_crop": [[0, 6], None, [4, 28], [4, 28]]},
    "padded on the fly": {"init_params.meas_pad": {"mode": "on_the_fly", "padding_type": "power", "target_Npix": 40}},
    "Poisson noise": {"init_params.meas_add_poisson_noise": {"unit": "total_e_per_pattern", "value": 500}},
    "patterns stay on the host": {"model_params.preload_data": False},
    "centre of the scan": {"recon_params.INDICES_MODE": {"mode": "center"}},
    "LBFGS": {"model_params.optimizer_params": {"name": "LBFGS", "configs": {"max_iter": 2}}},
    "every loss": {
        "init_params.obj_Nlayer": 3,
        "init_params.probe_pmode_max": 3,
        "init_params.obj_omode_max": 2,
        "loss_params.loss_single": {"state": True, "weight": 0.7, "dp_pow": 0.4},
        "loss_params.loss_poissn": {"state": True, "weight": 0.3},
        "loss_params.loss_pacbed": {"state": True, "weight": 0.5},
        "loss_params.loss_sparse": {"state": True, "weight": 0.1, "ln_order": 1},
        "loss_params.loss_simlar": {"state": True, "weight": 0.1, "obj_type": "both", "blur_std": 1.0},
    },
    "Poisson loss alone": {
        "loss_params.loss_single.state": False,
        "loss_params.loss_sparse.state": False,
        "loss_params.loss_poissn": {"state": True, "weight": 1.0},
    },
    "one mode": {"init_params.probe_pmode_max": 1},
    "odd patterns": {"init_params.meas_crop": [None, None, [4, 27], [4, 27]]},
    "odd patterns, slices and modes": {
        "init_params.meas_crop": [None, None, [4, 27], [4, 27]],
        "init_params.obj_Nlayer": 3,
        "init_params.obj_omode_max": 2,
    },
    "blurred detector": {"model_params.detector_blur_std": 0.6},
    "one tilt that stays": {
        "init_params.obj_Nlayer": 2,
        "init_params.tilt_params": {"tilt_type": "all", "init_tilts": [[3.0, -2.0]]},
    },
    "tilts that stay": {
        "init_params.obj_Nlayer": 2,
        "init_params.tilt_params": {"tilt_type": "each", "init_tilts": [[3.0, -2.0]]},
    },
    "positions that stay": {"model_params.update_params.probe_pos_shifts.lr": 0},
    "padded object": {"init_params.obj_z_pad": {"pad_layers": [1, 1], "pad_types": ["vacuum", "vacuum"]}},
}

SINCE_1: dict[str, dict[str, Any]] = {
    "learning rates on a schedule": {
        "model_params.scheduler_params": {"name": "ExponentialLR", "configs": {"gamma": 0.5}}
    },
    "a schedule by the batch": {
        "model_params.scheduler_params": {
            "name": "OneCycleLR",
            "configs": {"max_lr": 1e-3, "total_steps": 12},
            "step_unit": "batch",
        }
    },
    "a schedule that LBFGS ignores": {
        "model_params.optimizer_params": {"name": "LBFGS", "configs": {"max_iter": 2}},
        "model_params.scheduler_params": {"name": "StepLR", "configs": {"step_size": 1}},
    },
    "a finer simulation": {"init_params.simu_Npix": 48, "init_params.simu_match_mode": "crop"},
}
"""What PtyRAD 1.0 brought."""


def write_patterns(folder: Path) -> Path:
    """Noisy patterns of a square lattice, (64, 32, 32) float32."""
    rng = np.random.default_rng(3)
    k = np.fft.fftfreq(PIXELS, DX)
    ky, kx = np.meshgrid(k, k, indexing="ij")
    wavelength, defocus = 0.04176, 60.0
    aperture = np.hypot(ky, kx) * wavelength < ALPHA * 1e-3
    probe = np.fft.ifft2(aperture * np.exp(-1j * np.pi * wavelength * defocus * (ky**2 + kx**2)))
    canvas = PIXELS + int(SCAN * STEP / DX) + 2
    y, x = np.meshgrid(np.arange(canvas) * DX, np.arange(canvas) * DX, indexing="ij")
    potential = np.exp(1j * 0.5 * (1 + np.cos(2 * np.pi * y / 2.0) * np.cos(2 * np.pi * x / 2.0)))
    patterns = np.empty((SCAN * SCAN, PIXELS, PIXELS), np.float32)
    for n in range(SCAN * SCAN):
        top, left = (round(i * STEP / DX) for i in divmod(n, SCAN))
        exit_wave = np.fft.fftshift(probe) * potential[top : top + PIXELS, left : left + PIXELS]
        intensity = np.abs(np.fft.fftshift(np.fft.fft2(exit_wave))) ** 2
        patterns[n] = rng.poisson(1e4 * intensity / intensity.sum())
    path = folder / "patterns.npy"
    np.save(path, patterns)
    return path


def params(data: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """PtyRAD's complete params dict; ``changes`` has dotted keys, for example ``recon_params.NITER``."""
    from ptyrad.params import PtyRADParams

    given: dict[str, Any] = {
        "init_params": {
            "probe_kv": KV,
            "probe_conv_angle": ALPHA,
            "probe_aberrations": {"C10": -60.0},
            "meas_Npix": PIXELS,
            "pos_N_scans": SCAN * SCAN,
            "pos_N_scan_slow": SCAN,
            "pos_N_scan_fast": SCAN,
            "pos_scan_step_size": STEP,
            "meas_calibration": {"mode": "dx", "value": DX},
            "meas_params": {"path": str(data)},
            "probe_pmode_max": 2,
            "obj_Nlayer": 1,
            "obj_slice_thickness": 5.0,
        },
        "recon_params": {
            "NITER": 3,
            "BATCH_SIZE": {"size": 16, "grad_accumulation": 1},
            "SAVE_ITERS": None,
            "copy_params": False,
        },
        "hypertune_params": {"if_hypertune": True},
    }
    for dotted, value in (changes or {}).items():
        _put(given, dotted, value)
    complete = PtyRADParams(**given).model_dump()
    plain: dict[str, Any] = json.loads(json.dumps(complete, default=str))  # as a plan has them
    return plain


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, name = dotted.split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[name] = deepcopy(value)


def plan(config: Mapping[str, Any], **fields: Any) -> StudyPlan:
    """A plan around a params dict, with nothing tuned."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "source": SourceFile(Path("tiny.yaml"), "", "yaml"),
        "engine": "ptyrad",
        "config": config,
        "space": {},
        "metric": "loss",
        "direction": "minimize",
        "sampler": ComponentSpec("TPESampler"),
        "pruner": None,
        "budget": Budget(1, total=True),
        "storage": None,
        "results": Path("tiny.h5"),
        "seed": 7,
        "keep": KeepOptions(),
    }
    return StudyPlan(**(settings | fields))


def trial(values: Mapping[str, Any] | None = None, number: int = 0, seed: int = 7) -> TrialInput:
    """One trial with these values."""
    return TrialInput(number, dict(values or {}), seed)


def go_on(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
    """A report that never stops a trial."""
    return False


class Never:
    """A checkpoint that there is none of and that is never due."""

    def load(self) -> bytes | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, step: int, state: bytes) -> None:
        raise AssertionError("saved without being due")


NEVER = Never()


def assert_same(a: Any, b: Any) -> None:
    """Two trial outputs are equal to the last bit: metrics, curves but for the seconds, every array."""
    assert a.metrics == b.metrics
    assert a.curve.keys() == b.curve.keys()
    for column in a.curve.keys() - {"seconds"}:
        np.testing.assert_array_equal(a.curve[column], b.curve[column], err_msg=column)
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name].data, b.arrays[name].data, err_msg=name)
