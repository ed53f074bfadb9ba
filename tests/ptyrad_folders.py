"""Folders as PtyRAD's hypertune leaves them: made by hand, in no time, or by PtyRAD itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from ptydask.analysis.export import ptyrad_names
from ptydask.store.foreign import ptyrad_model
from ptydask.store.foreign.ptyrad_model import PtyradModel

SPACE: dict[str, BaseDistribution] = {
    "scale": FloatDistribution(0.9, 1.1),
    "rotation": FloatDistribution(-4, 4, step=0.5),
    "tilt_y": FloatDistribution(-3, 3),
    "oplr": FloatDistribution(1e-4, 1e-2, log=True),
    "batch_size": CategoricalDistribution((8, 16, 1024)),
}
ITERATIONS = 4


@dataclass
class Made:
    """One trial to put into a folder. The value is PtyRAD's own: a contrast is negative."""

    number: int
    value: float | None
    params: Mapping[str, Any]
    state: TrialState = TrialState.COMPLETE
    reported: Mapping[int, float] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """The last one."""
        return max(self.reported, default=ITERATIONS)

    @property
    def ending(self) -> str:
        """What follows the kind in the names of its files."""
        said = self.value if self.value is not None else self.reported.get(self.iteration, math.nan)
        values = "".join(f"_{n}_{ptyrad_names.value_text(n, v)}" for n, v in self.params.items())
        return f"_error_{ptyrad_names.error_text(said)}_t{self.number:04d}{values}_iter{self.iteration:04d}"


def trials(count: int, sign: int = 1) -> list[Made]:
    """So many trials with values of many digits; every third was pruned after two iterations."""
    rng = np.random.default_rng(11)
    made = []
    for number in range(count):
        params = {
            "scale": float(rng.uniform(0.9, 1.1)),
            "rotation": float(rng.integers(-8, 9) / 2),
            "tilt_y": float(rng.uniform(-3, 3)),
            "oplr": float(10 ** rng.uniform(-4, -2)),
            "batch_size": (8, 16, 1024)[number % 3],
        }
        pruned = number % 3 == 2
        values = {step: sign * float(rng.uniform(0.4, 0.6)) for step in range(1, (2 if pruned else ITERATIONS) + 1)}
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        made.append(Made(number, values[max(values)], params, state, values))
    return made


def model(one: Made, *, metric: str = "loss", iteration: int | None = None) -> PtyradModel:
    """A tiny reconstruction: two slices of 12 x 13 pixels, four positions."""
    last = iteration or one.iteration
    rng = np.random.default_rng(one.number * 100 + last)
    losses = one.reported if metric == "loss" and one.reported else {s: 0.5 / s for s in range(1, last + 1)}
    affine = np.array([one.params.get("scale", 1.0), 0.0, one.params.get("rotation", 0.0), 0.0])
    return PtyradModel(
        version="0.1.0b13.post3",
        tensors={
            "objp": rng.normal(size=(1, 2, 12, 13)).astype(np.float32),
            "obja": rng.normal(size=(1, 2, 12, 13)).astype(np.float32),
            "probe": (rng.normal(size=(1, 4, 4)) + 1j).astype(np.complex64),
            "probe_pos_shifts": rng.normal(size=(4, 2)).astype(np.float32),
            "obj_tilts": np.array([[one.params.get("tilt_y", 0.0), 0.0]], np.float32),
            "slice_thickness": np.array(5.0, np.float32),
        },
        attributes={
            "crop_pos": np.array([[1, 1], [1, 7], [6, 1], [6, 7]], np.int32),
            "dx": np.float32(0.25),
            "dk": np.float32(0.125),
            "scan_affine": affine,
            "omode_occu": np.ones(1, np.float32),
            "lr_params": {"objp": one.params.get("oplr", 5e-4), "obj_tilts": 0.0},
            "slice_thickness": np.float32(5.0),
        },
        params={},
        losses=np.array([[step, loss] for step, loss in losses.items() if step <= last], float),
        seconds=np.full(last, 0.5),
        iteration=last,
        seed=3,
        indices=np.arange(4),
    )


def params_text(name: str, metric: str = "loss", storage: str | None = None, **hyper: Any) -> str:
    """The params file of the study; its data are long gone."""

    def entry(dist: BaseDistribution) -> dict[str, Any]:
        if isinstance(dist, CategoricalDistribution):
            return {"state": True, "suggest": "cat", "kwargs": {"choices": list(dist.choices)}}
        assert isinstance(dist, FloatDistribution)
        said = {"low": dist.low, "high": dist.high, "step": dist.step, "log": dist.log}
        return {"state": True, "suggest": "float", "kwargs": {k: v for k, v in said.items() if v}}

    return yaml.safe_dump(
        {
            "init_params": {
                "probe_kv": 80,
                "probe_conv_angle": 24.9,
                "meas_Npix": 4,
                "pos_N_scan_slow": 2,
                "pos_N_scan_fast": 2,
                "pos_scan_step_size": 1.5,
                "meas_calibration": {"mode": "dx", "value": 0.25},
                "meas_params": {"path": "/gone/patterns.h5", "key": "patterns"},
                "obj_Nlayer": 2,
            },
            "hypertune_params": {
                "if_hypertune": True,
                "study_name": name,
                "storage_path": storage,
                "error_metric": metric,
                "tune_params": {n: entry(d) for n, d in SPACE.items()},
                **hyper,
            },
            "recon_params": {"NITER": ITERATIONS},
        },
        sort_keys=False,
    )


def write(
    folder: Path, made: Sequence[Made], *, metric: str = "loss", storage: str | None = None, name: str = "tBL_WSe2"
) -> Path:
    """The hypertune folder of ``made``: a model file of each trial that ended, and the params file."""
    home = folder / f"20250606_hypertune_TPESampler_HyperbandPruner_{metric}"
    home.mkdir(parents=True)
    for one in made:
        if one.state in (TrialState.COMPLETE, TrialState.PRUNED):
            ptyrad_model.write(home / f"model{one.ending}.hdf5", model(one, metric=metric))
    (home / "params.yaml").write_text(params_text(name, metric, storage))
    return home


def database(path: Path, made: Sequence[Made], name: str = "tBL_WSe2") -> str:
    """A study of ``made`` in the SQLite file ``path``; returns its URL."""
    url = f"sqlite:///{path}"
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name=name, storage=storage)
    for one in made:
        ended = one.state in (TrialState.COMPLETE, TrialState.PRUNED)
        trial = create_trial(
            state=one.state,
            value=one.value if ended else None,
            params=dict(one.params),
            distributions={n: SPACE[n] for n in one.params},
            intermediate_values=dict(one.reported),
        )
        study.add_trial(trial)
    storage.remove_session()
    storage.engine.dispose()
    optuna.logging.set_verbosity(before)
    return url
