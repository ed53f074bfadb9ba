"""What goes wrong in PtyRAD's own hypertune, shown on its own functions, and that it does not happen here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from engine_cases import ALPHA, DX, NEVER, SLOT, assert_same, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import TrialOutput

pytestmark = [
    pytest.mark.ptyrad,
    pytest.mark.filterwarnings("ignore"),  # PtyRAD's own hypertune warns
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@dataclass
class TheirJob:
    """One job of PtyRAD's hypertune: an Initializer that all its trials share."""

    config: Mapping[str, Any]
    init: Any
    loss: Any
    constraint: Any

    @classmethod
    def start(cls, config: dict[str, Any], tuned: Sequence[str], seed: int | None = 7) -> TheirJob:
        from ptyrad.core import CombinedConstraint, CombinedLoss
        from ptyrad.init import Initializer

        for name in tuned:
            config["hypertune_params"]["tune_params"][name]["state"] = True
        config["hypertune_params"] |= {"collate_results": False, "pruner_params": None}
        init = Initializer(config["init_params"], seed=seed).init_all()
        loss = CombinedLoss(config["loss_params"], device="cpu")
        return cls(config, init, loss, CombinedConstraint(config["constraint_params"], device="cpu"))

    def error(self, values: Mapping[str, Any]) -> float:
        """The next trial's error."""
        return self.objective(optuna.trial.FixedTrial(dict(values)))  # type: ignore[arg-type]

    def objective(self, their_trial: optuna.Trial) -> float:
        from ptyrad.solver.hypertune import optuna_objective

        return float(optuna_objective(their_trial, self.config, self.init, self.loss, self.constraint, "cpu"))


def ours(config: Mapping[str, Any], *trials: Mapping[str, Any], seed: int = 7) -> list[TrialOutput]:
    """Our results of several trials on one worker."""
    session = PtyradSession(plan(config), SLOT)
    return [session.run(trial(values, n, seed), go_on, NEVER) for n, values in enumerate(trials)]


@pytest.mark.slow
def test_dx_is_tuned(data: Path) -> None:
    """1. Theirs writes a key that nothing reads, so dx stays; here it is the object's pixel size."""
    job = TheirJob.start(params(data), ["dx"])
    assert job.error({"dx": 0.2}) == job.error({"dx": 0.3})
    assert job.init.init_variables["dx"] == DX
    a, b = ours(params(data), {"dx": 0.2}, {"dx": 0.3})
    assert (a.attributes["pixel_size"], b.attributes["pixel_size"]) == (0.2, 0.3)
    assert a.metrics != b.metrics


def test_the_identity_affine_is_not_the_last_trials(data: Path) -> None:
    """2. Theirs scores a suggestion of the identity with the affine of the trial before."""
    job = TheirJob.start(params(data), ["scale"])
    identity = job.error({"scale": 1.0})
    assert job.error({"scale": 1.1}) == job.error({"scale": 1.0}) != identity
    first, _, again = ours(params(data), {"scale": 1.0}, {"scale": 1.1}, {"scale": 1.0})
    assert_same(first, again)


def test_no_tilt_is_not_the_last_trials(data: Path) -> None:
    """3. Theirs scores a suggestion of no tilt with the tilt of the trial before."""
    config = {"init_params.obj_Nlayer": 2}
    job = TheirJob.start(params(data, config), ["tilt_y", "tilt_x"])
    job.error({"tilt_y": 8.0, "tilt_x": 0.0})
    job.error({"tilt_y": 0.0, "tilt_x": 0.0})
    assert job.init.init_variables["obj_tilts"] == [[8.0, 0.0]]
    _, none = ours(params(data, config), {"tilt_y": 8.0, "tilt_x": 0.0}, {"tilt_y": 0.0, "tilt_x": 0.0})
    assert none.arrays["object_tilts"].data.tolist() == [[0.0, 0.0]]


def test_a_tilt_that_is_not_tuned_stays(data: Path) -> None:
    """3. Theirs sets the component that is not tuned to zero, whatever the params file says."""
    config = {"init_params.tilt_params": {"tilt_type": "all", "init_tilts": [[3.0, -2.0]]}}
    job = TheirJob.start(params(data, config), ["tilt_y"])
    job.error({"tilt_y": 5.0})
    assert job.init.init_variables["obj_tilts"] == [[5.0, 0]]
    (result,) = ours(params(data, config), {"tilt_y": 5.0})
    assert result.arrays["object_tilts"].data.tolist() == [[5.0, -2.0]]


def test_the_optimizer_can_be_tuned(data: Path) -> None:
    """4. Theirs hands ``optim_configs`` to Optuna, which does not know it."""
    with pytest.raises(TypeError, match="optim_configs"):
        TheirJob.start(params(data), ["optimizer"]).error({"optimizer": "SGD"})
    adam, sgd = ours(params(data), {"optimizer": "Adam"}, {"optimizer": "SGD"})
    assert adam.metrics != sgd.metrics


@pytest.mark.slow
def test_padding_and_resampling_in_depth_do_not_compound(data: Path) -> None:
    """5. Theirs pads and resamples what it padded and resampled in the trial before."""
    pad = {"init_params.obj_z_pad": {"pad_layers": [1, 1], "pad_types": ["vacuum", "vacuum"]}}
    job = TheirJob.start(params(data, pad), ["Nlayer"])
    dz = {"init_params.obj_Nlayer": 2, "init_params.obj_z_resample": {"mode": "scale_Nlayer", "value": 2}}
    resampled = TheirJob.start(params(data, dz), ["rotation"])
    layers, thickness = [], []
    for rotation in (1.0, 2.0):
        resampled.error({"rotation": rotation})
        thickness.append(resampled.init.init_variables["slice_thickness"])
        job.init.init_obj()
        layers.append(job.init.init_variables["obj"].shape[1])
    assert layers == [5, 7]
    assert thickness[0] != thickness[1]
    for result in ours(params(data, pad), {"rotation": 1.0}, {"rotation": 2.0}):
        assert result.arrays["object_phase"].data.shape[1] == 3
    for result in ours(params(data, dz), {"rotation": 1.0}, {"rotation": 2.0}):
        assert result.arrays["object_phase"].data.shape[1] == 4
        assert float(result.arrays["slice_thickness"].data) == 2.5


def test_a_fitted_calibration_follows_the_convergence_angle(data: Path) -> None:
    """9. Theirs keeps the dx that was fitted with the file's convergence angle."""
    config = {"init_params.meas_calibration": {"mode": "fitRBF", "value": None}}
    job = TheirJob.start(params(data, config), ["conv_angle"])
    before = job.init.init_variables["dx"]
    job.error({"conv_angle": 30.0})
    assert job.init.init_variables["dx"] == before
    a, b = ours(params(data, config), {"conv_angle": ALPHA}, {"conv_angle": 30.0})
    assert a.attributes["pixel_size"] == pytest.approx(before)
    assert b.attributes["pixel_size"] == pytest.approx(before * ALPHA / 30.0)


def test_contrast_with_several_object_modes(data: Path) -> None:
    """10. Theirs crops the mode axis instead of the rows and raises; here the modes are weighted."""
    config = {
        "init_params.obj_omode_max": 2,
        "init_params.obj_omode_init_occu": {"occu_type": "custom", "init_occu": [0.75, 0.25]},
    }
    their = params(data, {**config, "hypertune_params.error_metric": "contrast"})
    with pytest.raises(RuntimeError):
        TheirJob.start(their, ["plr"]).error({"plr": 1e-4})
    (result,) = ours(params(data, config), {})
    phase = result.arrays["object_phase"].data.sum(1)
    assert result.image is not None
    top, left = round(result.image.y[0] / DX), round(result.image.x[0] / DX)
    bottom, right = top + len(result.image.y), left + len(result.image.x)
    seen = (0.75 * phase[0] + 0.25 * phase[1])[top - 1 : bottom - 1, left - 1 : right - 1]
    seen = seen - seen.min()
    assert result.metrics["contrast"] == pytest.approx(seen.std(ddof=1) / seen.mean(), rel=1e-4)


class RunsOut:
    """``recon_step`` on a device whose memory ends in one iteration of one trial."""

    def __init__(self, step: Any, at_call: int) -> None:
        self.step, self.at_call, self.calls = step, at_call, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.at_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.step(*args, **kwargs)


def test_out_of_memory_ends_one_trial_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11. Theirs ends the job with the first exception; here the next trial runs, with the same result."""
    from ptyrad.solver import hypertune, reconstruction

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    job = TheirJob.start(params(data), ["plr"])
    monkeypatch.setattr(hypertune, "recon_step", RunsOut(hypertune.recon_step, at_call=2))
    study = optuna.create_study()
    with pytest.raises(torch.OutOfMemoryError):
        study.optimize(job.objective, n_trials=3)
    assert len(study.trials) == 1
    with pytest.raises(ValueError, match="No trials are completed"):
        _ = study.best_params

    session = PtyradSession(plan(params(data)), SLOT)
    undisturbed = session.run(trial(), go_on, NEVER)
    monkeypatch.setattr(reconstruction, "recon_step", RunsOut(reconstruction.recon_step, at_call=2))
    with pytest.raises(torch.OutOfMemoryError):
        session.run(trial(), go_on, NEVER)
    assert_same(session.run(trial(), go_on, NEVER), undisturbed)


def test_the_seed_of_the_trial_counts(data: Path) -> None:
    """12. Theirs takes ``random_seed`` from the command line's code alone and jitters positions anew each time."""
    from ptyrad.init import Initializer

    config = params(data, {"init_params.random_seed": 7})
    jittered = [Initializer(config["init_params"]).init_all().init_variables["probe_pos_shifts"] for _ in "ab"]
    assert not np.array_equal(*jittered)
    a, again, b = (*ours(config, {}, {}, seed=7), *ours(config, {}, seed=8))
    assert_same(a, again)
    assert not np.array_equal(a.arrays["positions"].data, b.arrays["positions"].data)


def test_a_normal_run_reproduces_the_trial(data: Path) -> None:
    """13. Theirs shuffles the batches in hypertune only, so a normal run does not give a trial's result."""
    from ptyrad.solver import PtyRADSolver

    config = params(data, {"model_params.update_params.objp": {"start_iter": 1, "lr": 1e-3}})
    normal = PtyRADSolver(
        {**config, "hypertune_params": {**config["hypertune_params"], "if_hypertune": False}}, "cpu", 7
    )
    normal.reconstruct()
    expected = float(normal.reconstruct_results.loss_iters[-1][1])
    assert TheirJob.start(params(data), ["oplr"]).error({"oplr": 1e-3}) != expected
    assert ours(params(data), {"oplr": 1e-3})[0].metrics["loss"] == expected


@pytest.mark.slow
def test_equal_shapes_are_compiled_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16. Theirs empties the compiler's cache in every trial; here a second trial compiles nothing."""
    from torch._dynamo.utils import counters

    resets = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    job = TheirJob.start(params(data), ["oplr"])
    for _ in range(2):
        job.error({"oplr": 1e-3})
    assert len(resets) == 2
    monkeypatch.undo()

    config = params(data)
    config["recon_params"]["compiler_configs"] |= {"enable": True, "backend": "eager"}
    torch._dynamo.reset()
    session = PtyradSession(plan(config), SLOT)
    counters.clear()
    first = session.run(trial({"oplr": 1e-3}), go_on, NEVER)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    session.run(trial({"oplr": 2e-3, "C10": -40.0, "rotation": 0.0}), go_on, NEVER)
    assert counters["stats"]["unique_graphs"] == compiled
    assert_same(session.run(trial({"oplr": 1e-3}), go_on, NEVER), first)


def test_contrast_is_reported_as_it_is(data: Path) -> None:
    """17. Theirs reports the contrast with its sign turned."""
    their = params(data, {"hypertune_params.error_metric": "contrast"})
    assert TheirJob.start(their, ["plr"]).error({"plr": 1e-4}) < 0
    assert ours(params(data), {"plr": 1e-4})[0].metrics["contrast"] > 0
