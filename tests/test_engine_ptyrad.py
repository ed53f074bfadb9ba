"""The engine ``ptyrad``: what a trial gives back, what it leaves behind, and which data it refuses."""

from __future__ import annotations

import gc
import hashlib
import logging
import random
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import DX, NEVER, PIXELS, SLOT, assert_same, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import image_metrics, release
from ptydask.engines.ptyrad.reconstruction import NonFiniteLoss
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import KeepOptions, Slot

pytestmark = pytest.mark.ptyrad


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@pytest.fixture
def session(data: Path) -> PtyradSession:
    return PtyradSession(plan(params(data)), SLOT)


# --- what a trial gives back -----------------------------------------------------------------------


CHEAP = ["loss", "data_loss", "contrast", "position_drift"]


def test_result_has_the_cheap_metrics_and_every_array(session: PtyradSession) -> None:
    """The metrics, at every iteration or at the last; object, probe and positions with shapes and units."""
    result = session.run(trial(), go_on, NEVER)
    assert list(result.curve) == ["step", *CHEAP, "seconds"]
    assert list(result.curve["step"]) == [1, 2, 3]
    assert all(len(column) == 3 for column in result.curve.values())
    assert {name: result.curve[name][-1] for name in CHEAP}.items() <= result.metrics.items()
    assert result.metrics.keys() == {*CHEAP, *image_metrics.NAMES}
    assert result.curve["loss"][2] < result.curve["loss"][0]
    kinds = {name: (q.data.shape, str(q.data.dtype), q.units) for name, q in result.arrays.items()}
    side = kinds["object_phase"][0][-1]
    assert kinds == {
        "object_phase": ((1, 1, side, side), "float32", "rad"),
        "object_amplitude": ((1, 1, side, side), "float32", "1"),
        "probe": ((2, PIXELS, PIXELS), "complex64", "1"),
        "positions": ((64, 2), "float64", "angstrom"),
        "crop_positions": ((64, 2), "int32", "pixel"),
        "slice_thickness": ((), "float32", "angstrom"),
        "object_tilts": ((1, 2), "float32", "mrad"),
    }


def test_attributes_say_sizes_and_times(session: PtyradSession) -> None:
    """Lengths of the reconstruction, its scan affine, and where the time went."""
    facts = session.run(trial({"rotation": 2.0}), go_on, NEVER).attributes
    assert (facts["pixel_size"], facts["length_unit"], facts["iterations"]) == (DX, "angstrom", 3)
    assert facts["wavelength"] == pytest.approx(0.04176, rel=1e-3)
    assert (facts["scan_scale"], facts["scan_rotation"]) == (1.0, 2.0)
    recon, wall = facts["recon_seconds"], facts["wall_seconds"]
    assert isinstance(recon, float)
    assert isinstance(wall, float)
    assert 0 < recon < wall


def test_a_part_of_the_scan_is_said_to_be_one(data: Path, session: PtyradSession) -> None:
    """Every second position each way: what the share of an iteration is; of the whole scan nothing is said."""
    config = params(data, {"recon_params.INDICES_MODE": {"mode": "sub"}})
    part = PtyradSession(plan(config), SLOT).run(trial(), go_on, NEVER)
    chosen = part.arrays["scan_indices"].data
    assert (part.attributes["iterations"], part.attributes["scan_share"]) == (3, len(chosen) / 64)
    assert len(chosen) == 16
    assert "scan_share" not in session.run(trial(), go_on, NEVER).attributes


def test_image_is_the_scanned_region_on_the_axes_of_the_positions(data: Path) -> None:
    """The image shows the object under the probe's centres; its axes and the positions share their origin."""
    config = params(data, {"init_params.obj_Nlayer": 2, "init_params.pos_scan_rand_std": None})
    result = PtyradSession(plan(config), SLOT).run(trial(), go_on, NEVER)
    image, corner = result.image, result.arrays["positions"].data
    assert image is not None
    assert image.data.shape == (len(image.y), len(image.x))
    assert (image.units, image.axis_units) == ("rad", "angstrom")
    centre = corner + PIXELS // 2 * DX
    for axis, along in ((image.y, 0), (image.x, 1)):
        assert np.allclose(np.diff(axis), DX)
        assert axis[0] == pytest.approx(centre[:, along].min(), abs=DX)
        assert axis[-1] == pytest.approx(centre[:, along].max(), abs=DX)
    top, left = round(image.y[0] / DX), round(image.x[0] / DX)
    summed = result.arrays["object_phase"].data[0].sum(0)
    np.testing.assert_array_equal(image.data, summed[top : top + len(image.y), left : left + len(image.x)])


def test_a_report_can_stop_the_trial(session: PtyradSession) -> None:
    """The trial ends after the iteration whose report answers True, with what it has."""
    heard: list[tuple[int, Mapping[str, float]]] = []

    def stop_at_two(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        heard.append((step, metrics))
        return step == 2

    result = session.run(trial(), stop_at_two, NEVER)
    assert list(result.curve["step"]) == [1, 2]
    assert [step for step, _ in heard] == [1, 2]
    assert heard[-1][1].items() <= result.metrics.items()
    assert result.attributes["iterations"] == 2


def test_snapshots_are_what_a_shorter_trial_gives(data: Path) -> None:
    """The snapshot at iteration 2 of 3 holds the arrays that a trial of 2 iterations ends with."""
    keep = KeepOptions(snapshot_every=2)
    long = PtyradSession(plan(params(data), keep=keep), SLOT).run(trial(), go_on, NEVER)
    short = PtyradSession(plan(params(data, {"recon_params.NITER": 2})), SLOT).run(trial(), go_on, NEVER)
    assert list(long.snapshots) == [2]
    assert short.arrays.keys() - long.snapshots[2].keys() == {"crop_positions"}  # which no iteration changes
    for name, quantity in long.snapshots[2].items():
        np.testing.assert_array_equal(short.arrays[name].data, quantity.data, err_msg=name)


def test_numbers_alone_where_arrays_are_not_kept(data: Path) -> None:
    """Without arrays the curves are there all the same, and no array or image is."""
    result = PtyradSession(plan(params(data), keep=KeepOptions(arrays=False)), SLOT).run(trial(), go_on, NEVER)
    assert len(result.curve["loss"]) == 3
    assert (result.arrays, result.image, result.snapshots) == ({}, None, {})


def test_one_reconstruction_is_a_trial_without_values(data: Path, session: PtyradSession) -> None:
    """``if_hypertune: false`` runs like a trial that changes nothing."""
    single = PtyradSession(plan(params(data, {"hypertune_params.if_hypertune": False})), SLOT)
    assert_same(single.run(trial(), go_on, NEVER), session.run(trial(), go_on, NEVER))


def test_ptyrads_log_is_in_the_result_and_nowhere_else(
    session: PtyradSession, capfd: pytest.CaptureFixture[str]
) -> None:
    """PtyRAD's log of the trial is text in the result; the terminal stays silent and loggers as they were."""
    logger = logging.getLogger("ptyrad")
    before = (logger.handlers[:], logger.level, logger.propagate)
    result = session.run(trial(), go_on, NEVER)
    assert "Iter: 3" in result.log
    assert capfd.readouterr() == ("", "")
    assert (logger.handlers[:], logger.level, logger.propagate) == before


def test_no_figure_is_drawn(session: PtyradSession) -> None:
    """A trial leaves no matplotlib figure, and the backend needs no display."""
    import matplotlib.pyplot as plt

    session.run(trial(), go_on, NEVER)
    assert plt.get_fignums() == []
    assert plt.get_backend().lower() == "agg"


# --- what a trial leaves behind --------------------------------------------------------------------


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Weak references to every model that is built."""
    alive: list[weakref.ref[Any]] = []
    build = release.core().PtychoModel

    def remember(*args: Any, **kwargs: Any) -> Any:
        model = build(*args, **kwargs)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(release.core(), "PtychoModel", remember)
    return alive


def test_the_model_is_gone_after_a_trial(session: PtyradSession, models: list[weakref.ref[Any]]) -> None:
    """Nothing in the result keeps the model, and so its memory, alive."""
    result = session.run(trial(), go_on, NEVER)
    assert [model() for model in models] == [None]
    assert result.arrays


def test_the_model_is_gone_while_its_exception_lives(session: PtyradSession, models: list[weakref.ref[Any]]) -> None:
    """Who holds the exception of a failed trial does not hold its memory; the traceback still has its lines."""

    def fail(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        session.run(trial(), fail, NEVER)
    gc.collect()
    assert [model() for model in models] == [None]
    assert "in iterate" in str(caught.getrepr(style="native"))
    assert any("Iter: 1" in note for note in caught.value.__notes__)


def test_the_processs_own_random_numbers_go_on(session: PtyradSession) -> None:
    """A trial seeds the global generators and puts them back as they were."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    session.run(trial(), go_on, NEVER)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_measurements_are_read_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that tune anything but the patterns' processing read no file."""
    reads: list[str] = []
    load = release.initializer().load_array_from_file

    def count(**where: Any) -> Any:
        reads.append(where["path"])
        return load(**where)

    monkeypatch.setattr(release.initializer(), "load_array_from_file", count)
    session = PtyradSession(plan(params(data)), SLOT)
    for values in ({"rotation": 1.0}, {"dx": 0.2}, {"conv_angle": 22.0}):
        session.run(trial(values), go_on, NEVER)
    assert reads == [str(data)]


def test_noise_follows_the_seed_of_the_trial(data: Path) -> None:
    """Poisson noise that the params add belongs to the seed, whichever seed came before."""
    noisy = {"init_params.meas_add_poisson_noise": {"unit": "total_e_per_pattern", "value": 200}}
    session = PtyradSession(plan(params(data, noisy)), SLOT)
    a, b, again = (session.run(trial(seed=seed), go_on, NEVER) for seed in (7, 8, 7))
    assert_same(a, again)
    assert a.metrics != b.metrics


def test_grouping_is_computed_once_for_equal_positions(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial with the positions, batch size and seed of an earlier one takes its groups."""
    calls: list[int] = []
    make = release.solver().make_batches

    def count(indices: Any, positions: Any, size: int, **how: Any) -> Any:
        calls.append(size)
        return make(indices, positions, size, **how)

    monkeypatch.setattr(release.solver(), "make_batches", count)
    session = PtyradSession(plan(params(data, {"recon_params.GROUP_MODE": "sparse"})), SLOT)
    for values in ({"oplr": 1e-3}, {"C10": -40.0}, {"rotation": 5.0}, {"oplr": 1e-2}, {"batch_size": 8}):
        session.run(trial(values), go_on, NEVER)
    assert calls == [16, 16, 8]


def test_without_a_gpu_the_trial_runs_on_the_cpu(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that names a GPU on a machine without one computes on the CPU; torch's default device stays."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    session = PtyradSession(plan(params(data)), Slot(threads=1, cuda="0"))
    assert session.provenance()["device"] == "cpu"
    assert torch.get_default_device() == torch.device("cpu")


def test_a_loss_that_is_not_finite_fails_the_trial(session: PtyradSession) -> None:
    """A diverging trial raises with the iteration in its message."""
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan at iteration \d"):
        session.run(trial({"optimizer": "SGD", "oplr": 1e38, "oalr": 1e38}), go_on, NEVER)


def test_provenance_has_versions_and_the_datas_checksum(session: PtyradSession, data: Path) -> None:
    """Who reads the results can tell the versions, the device, and whether the data file is the same."""
    facts = session.provenance()
    assert facts["data"] == str(data)
    assert facts["data_sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert (facts["device"], facts["threads"]) == ("cpu", "1")
    assert facts["ptyrad"] == release.installed().version
    assert torch.__version__.startswith(facts["torch"])  # a package's version may leave out the build, "+cu130"


def test_the_checksum_follows_the_file(tmp_path: Path) -> None:
    """A file that changed is summed again."""
    from ptydask.engines.fingerprint import sha256

    path = tmp_path / "data.raw"
    path.write_bytes(b"a")
    first = sha256(path)
    path.write_bytes(b"bb")
    assert sha256(path) == hashlib.sha256(b"bb").hexdigest() != first


def test_a_folder_has_a_checksum_too(tmp_path: Path) -> None:
    """Measurements in ``.zarr`` are a folder: a chunk that is new or changed changes the sum."""
    from ptydask.engines.fingerprint import sha256

    folder = tmp_path / "data.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "0").write_bytes(b"a")
    sums = [sha256(folder), sha256(folder)]
    (folder / "c" / "1").write_bytes(b"a")
    sums.append(sha256(folder))
    (folder / "c" / "1").write_bytes(b"bb")
    sums.append(sha256(folder))
    assert sums[0] == sums[1]
    assert len(set(sums)) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_trial_gives_its_memory_back(data: Path) -> None:
    """The patterns stay on the GPU, the trial's own memory does not, and its peak is in the result."""
    session = PtyradSession(plan(params(data)), Slot(threads=1, cuda="0"))
    held = torch.cuda.memory_allocated()
    first = session.run(trial(), go_on, NEVER)
    assert torch.cuda.memory_allocated() == held
    peak = first.attributes["peak_gpu_memory"]
    assert isinstance(peak, int)
    assert peak > held
    assert_same(session.run(trial(), go_on, NEVER), first)


# --- the metrics that cost next to nothing -----------------------------------------------------------

REGULARISED = {
    "loss_params.loss_sparse": {"state": True, "weight": 0.5, "ln_order": 1},
    "loss_params.loss_pacbed": {"state": True, "weight": 0.5, "dp_pow": 0.2},
}


def test_data_loss_leaves_out_regularisation(data: Path, session: PtyradSession) -> None:
    """Without regularisation it is the loss; with it the loss has a term more, PACBED's being one of the data."""
    plain = session.run(trial(), go_on, NEVER)
    assert plain.curve["data_loss"] == plain.curve["loss"]
    term = REGULARISED["loss_params.loss_sparse"]
    curve = PtyradSession(plan(params(data, {"loss_params.loss_sparse": term})), SLOT).run(trial(), go_on, NEVER).curve
    assert all(whole > part for whole, part in zip(curve["loss"], curve["data_loss"], strict=True))
    pacbed = {"loss_params.loss_pacbed": REGULARISED["loss_params.loss_pacbed"]}
    curve = PtyradSession(plan(params(data, pacbed)), SLOT).run(trial(), go_on, NEVER).curve
    assert curve["data_loss"] == curve["loss"]


def test_data_loss_does_not_depend_on_the_order_of_the_terms(data: Path) -> None:
    """PtyRAD names its terms in the order of the params file; the same file in another order has the same metrics."""
    config = params(data, REGULARISED)
    turned = {**config, "loss_params": dict(reversed(config["loss_params"].items()))}
    one, other = (PtyradSession(plan(c), SLOT).run(trial(), go_on, NEVER) for c in (config, turned))
    assert one.metrics == other.metrics
    assert one.metrics["data_loss"] < one.metrics["loss"]


def test_metrics_are_those_of_the_image_and_the_positions(data: Path) -> None:
    """What the results file keeps gives the numbers again; positions start where a trial of no learning rate stays."""
    moving = {"model_params.update_params.probe_pos_shifts": {"start_iter": 1, "lr": 1e-2}}
    result = PtyradSession(plan(params(data, moving)), SLOT).run(trial(), go_on, NEVER)
    assert result.image is not None
    assert image_metrics.measure_image(result.image.data, DX).items() <= result.metrics.items()
    still = {"model_params.update_params.probe_pos_shifts": {"start_iter": None, "lr": 0.0}}
    start = PtyradSession(plan(params(data, still)), SLOT).run(trial(), go_on, NEVER)
    assert max(start.curve["position_drift"]) < 1e-6  # PtyRAD centres them anew after each iteration
    moved = result.arrays["positions"].data - start.arrays["positions"].data
    drift = np.sqrt(((moved - moved.mean(0)) ** 2).sum(1).mean())
    assert result.metrics["position_drift"] == pytest.approx(drift, rel=1e-4)
    assert drift > 0


def test_what_costs_too_much_is_measured_at_the_end_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No curve then, and the same number at the end; what is tuned has its curve all the same."""
    monkeypatch.setattr(image_metrics, "is_cheap", lambda *_: True)
    always = PtyradSession(plan(params(data)), SLOT).run(trial(), go_on, NEVER)
    monkeypatch.setattr(image_metrics, "is_cheap", lambda *_: False)
    last = PtyradSession(plan(params(data)), SLOT).run(trial(), go_on, NEVER)
    assert last.metrics == always.metrics
    assert always.curve.keys() - last.curve.keys() == set(image_metrics.NAMES)
    tuned = replace(plan(params(data)), metric="entropy", direction="minimize")
    assert "entropy" in PtyradSession(tuned, SLOT).run(trial(), go_on, NEVER).curve
