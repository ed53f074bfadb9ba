"""Trials of PtyRAD that do not see all data: what they saw, what scores them, and that nothing else is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import NEVER, SCAN, SLOT, assert_same, go_on, params, plan, write_patterns

import ptydask
from ptydask.engines.ptyrad import checkpoint, held_out_score, measurements, release
from ptydask.engines.ptyrad.counts import CountSplit
from ptydask.engines.ptyrad.measurements import Measurements
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import ConfigError, DataError
from ptydask.model import HeldOut, KeepOptions, TrialInput, TrialOutput

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]

POSITIONS, COUNTS = HeldOut("positions", 0.06), HeldOut("counts", 0.1)
METRIC = {"positions": "heldout", "counts": "counts"}
EXACT = {"init_params.meas_normalization": {"mode": "divide_const", "value": 512.0}}
"""Sums of a pattern's values do not depend on their order: the scale of the rest is the same to the last bit."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


def opened(data: Path, held_out: HeldOut | None, changes: Mapping[str, Any] | None = None) -> PtyradSession:
    metric = "loss" if held_out is None else METRIC[held_out.kind]
    return PtyradSession(plan(params(data, changes), held_out=held_out, metric=metric), SLOT)


def run(
    data: Path, held_out: HeldOut | None, changes: Mapping[str, Any] | None = None, seed: int = 7, half: Any = 0
) -> TrialOutput:
    return opened(data, held_out, changes).run(TrialInput(0, {}, seed, half), go_on, NEVER)


def test_positions_are_in_the_result(data: Path) -> None:
    """Which they are, how many, by which seed; their misfit after every iteration."""
    out = run(data, POSITIONS)
    hidden = out.arrays["heldout_indices"].data
    assert hidden.dtype == np.int32
    np.testing.assert_array_equal(np.union1d(hidden, out.arrays["scan_indices"].data), np.arange(SCAN * SCAN))
    facts = {name: out.attributes[f"heldout_{name}"] for name in ("share", "positions", "seed")}
    assert facts == {"share": 4 / 64, "positions": 4, "seed": 7}
    for name in ("heldout", "heldout_amplitude"):
        assert len(out.curve[name]) == len(out.curve["step"])
        assert out.metrics[name] == out.curve[name][-1]
        assert 0 < out.curve[name][-1] < out.curve[name][0]


def test_counts_are_in_the_result(data: Path) -> None:
    """Share and gain; the deviance after every iteration; all positions are reconstructed."""
    out = run(data, COUNTS)
    assert (out.attributes["counts_share"], out.attributes["counts_gain"]) == (0.1, 1.0)
    assert not {"scan_indices", "heldout_indices"} & out.arrays.keys()
    assert len(out.curve["counts"]) == len(out.curve["step"])
    assert out.metrics["counts"] == out.curve["counts"][-1]
    assert out.curve["counts"][1] < out.curve["counts"][0]


def test_without_a_held_out_metric_nothing_is_said_of_it(data: Path) -> None:
    """No attribute, no array, no column."""
    out = run(data, None)
    names = {*out.attributes, *out.arrays, *out.curve, *out.metrics}
    assert not [name for name in names if name.startswith(("heldout", "counts", "half"))]


def test_hidden_patterns_have_no_part_in_the_result(data: Path, tmp_path: Path) -> None:
    """With other patterns at the held-out positions the reconstruction is the same to the last bit, not the score."""
    out = run(data, POSITIONS, EXACT)
    patterns = np.load(data)
    hidden = out.arrays["heldout_indices"].data
    patterns[hidden] = np.random.default_rng(5).permuted(patterns[hidden], axis=1)
    np.save(tmp_path / "other.npy", patterns)
    other = run(tmp_path / "other.npy", POSITIONS, EXACT)
    for name in out.arrays:
        np.testing.assert_array_equal(out.arrays[name].data, other.arrays[name].data, err_msg=name)
    assert list(out.curve["loss"]) == list(other.curve["loss"])
    assert other.metrics["heldout"] > 1.5 * out.metrics["heldout"]


@pytest.mark.parametrize("held_out", [POSITIONS, COUNTS], ids=repr)
def test_scoring_changes_nothing(data: Path, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconstruction is the same with the score and without."""
    out = run(data, held_out)
    monkeypatch.setattr(held_out_score.PositionScore, "metrics", lambda *_: {})
    monkeypatch.setattr(held_out_score.CountScore, "metrics", lambda *_: {})
    blind = run(data, held_out)
    assert METRIC[held_out.kind] not in blind.metrics
    for name in out.arrays:
        np.testing.assert_array_equal(out.arrays[name].data, blind.arrays[name].data, err_msg=name)


REFINEMENTS: dict[str, dict[str, Any]] = {
    "as PtyRAD's defaults": {},
    "positions that drift": {"model_params.update_params.probe_pos_shifts": {"start_iter": 1, "lr": 0.5}},
    "recentred": {
        "model_params.update_params.probe_pos_shifts": {"start_iter": 1, "lr": 0.5},
        "constraint_params.pos_recenter": {"start_iter": 1, "step": 1, "relax": 0},
    },
    "weights that decay": {
        "model_params.update_params.probe_pos_shifts": {"start_iter": 1, "lr": 0.1},
        "model_params.optimizer_params": {"name": "AdamW", "configs": {"weight_decay": 0.5}},
    },
    "LBFGS": {"model_params.optimizer_params": {"name": "LBFGS", "configs": {"max_iter": 2}}},
}


@pytest.mark.parametrize("variant", REFINEMENTS)
def test_hidden_positions_go_with_the_others(data: Path, variant: str) -> None:
    """No optimizer and no constraint moves them but as all others move in the mean, from where the scan has them."""
    changes = {"init_params.obj_Nlayer": 1} | REFINEMENTS[variant]
    quiet = {"init_params.pos_scan_rand_std": None}
    still = {
        "model_params.update_params.probe_pos_shifts.lr": 0,
        "constraint_params.pos_recenter.start_iter": None,
        "recon_params.NITER": 1,
    }
    nominal = run(data, None, quiet | still).arrays["positions"].data
    begun = run(data, None, still).arrays["positions"].data  # with PtyRAD's displacement
    out = run(data, POSITIONS, changes)
    hidden, seen = out.arrays["heldout_indices"].data, out.arrays["scan_indices"].data
    now = out.arrays["positions"].data
    drift = (now[seen] - begun[seen]).mean(0)
    moved = now[hidden] - nominal[hidden]
    np.testing.assert_allclose(moved, np.broadcast_to(drift, moved.shape), atol=2e-5)
    assert variant == "LBFGS" or np.ptp(now[seen] - begun[seen], axis=0).min() > 1e-4


def test_hidden_tilts_go_with_the_others(data: Path) -> None:
    """Where each position has a tilt of its own, also after PtyRAD has smoothed them."""
    tilts = {
        "init_params.obj_Nlayer": 2,
        "init_params.tilt_params": {"tilt_type": "each", "init_tilts": [[3.0, -2.0]]},
        "model_params.update_params.obj_tilts": {"start_iter": 1, "lr": 0.5},
        "constraint_params.tilt_smooth": {"start_iter": 1, "step": 1, "std": 1.0},
    }
    out = run(data, POSITIONS, tilts)
    now = out.arrays["object_tilts"].data
    hidden, seen = out.arrays["heldout_indices"].data, out.arrays["scan_indices"].data
    expected = np.broadcast_to(now[seen].mean(0), (len(hidden), 2))
    np.testing.assert_allclose(now[hidden], expected, atol=1e-4)
    assert np.ptp(now[seen], axis=0).min() > 1e-4


# --- electrons --------------------------------------------------------------------------------------


def loaded(data: Path, changes: Mapping[str, Any], split: CountSplit | None) -> Measurements:
    return measurements.load(params(data, changes), 7, "cpu", None, split)


MOVES: dict[str, dict[str, Any]] = {
    "as they come": {},
    "flipped and turned": {"init_params.meas_flipT": [1, 0, 1]},
    "cropped": {"init_params.meas_crop": [[1, 7], [0, 5], [4, 28], [2, 26]]},
    "cropped and flipped": {
        "init_params.meas_crop": [None, [2, 8], [0, 20], [5, 25]],
        "init_params.meas_flipT": [0, 1, 1],
    },
    "a constant": {"init_params.meas_normalization": {"mode": "divide_const", "value": 321.0}},
    "padded": {"init_params.meas_pad": {"mode": "precompute", "padding_type": "power", "target_Npix": 41}},
    "padded on the fly": {"init_params.meas_pad": {"mode": "on_the_fly", "padding_type": "power", "target_Npix": 40}},
    "on the host": {"model_params.preload_data": False},
}


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("variant", MOVES)
def test_hidden_electrons_follow_their_patterns(data: Path, variant: str, half: int) -> None:
    """Wherever pixels go, what is held out and what is left are one detector pixel's; the scale is that of the rest."""
    changes = MOVES[variant]
    whole, split = loaded(data, changes, None), loaded(data, changes, CountSplit(0.1, 1.0, 7, half))
    assert split.held_out is not None
    rows = split.detector
    left, everything = split.variables["measurements"], whole.variables["measurements"]
    hidden = split.held_out.counts.numpy()
    if left.shape[-1] != hidden.shape[-1]:
        left, everything = left[:, rows, rows], everything[:, rows, rows]
    assert left.shape == hidden.shape
    expected = split.held_out.expected
    assert hidden.sum() == pytest.approx(expected * left.sum(), rel=0.02)
    electrons = expected / CountSplit(0.1, 1.0, 7, half).exposure
    if half == 0:
        unit = (left * electrons + hidden).sum() / everything.sum()
        np.testing.assert_allclose(left * electrons + hidden, everything * unit, rtol=1e-4, atol=1e-3)


def test_files_of_four_dimensions_are_split_too(data: Path, tmp_path: Path) -> None:
    """Before they are turned into a list of patterns, in whatever order the file has its axes."""
    patterns = np.load(data)
    np.save(tmp_path / "turned.npy", patterns.transpose(1, 2, 0).reshape(32, 32, 8, 8))
    order = {"init_params.meas_permute": [2, 3, 0, 1], "init_params.meas_reshape": [64, 32, 32]}
    split = loaded(tmp_path / "turned.npy", order, CountSplit(0.1, 1.0, 7))
    assert split.held_out is not None
    electrons = split.held_out.expected / CountSplit(0.1, 1.0, 7).exposure
    both = split.variables["measurements"] * electrons + split.held_out.counts.numpy()
    np.testing.assert_allclose(both, patterns, atol=1e-2)


def test_a_gain_is_taken_off(data: Path, tmp_path: Path) -> None:
    """Counts times a gain are refused with that gain, and with it give what the counts themselves give."""
    np.save(tmp_path / "gain.npy", np.load(data) * 4)
    with pytest.raises(DataError, match=r"gain: 4") as caught:
        run(tmp_path / "gain.npy", COUNTS)
    assert caught.value.key == "init_params.meas_params.path"
    out = run(tmp_path / "gain.npy", HeldOut("counts", 0.1, gain=4.0))
    assert out.attributes["counts_gain"] == 4
    assert out.metrics["counts"] == pytest.approx(run(data, COUNTS).metrics["counts"], rel=1e-6)


@pytest.mark.parametrize("change", [lambda p: p + 0.25, lambda p: p - 1, lambda p: p * np.float32(1.37) + 0.4])
def test_what_is_not_counted_is_refused(data: Path, tmp_path: Path, change: Any) -> None:
    """One line that names the file and the metric."""
    np.save(tmp_path / "other.npy", change(np.load(data)))
    with pytest.raises(DataError, match="counts needs"):
        run(tmp_path / "other.npy", COUNTS)


# --- halves, seeds, other trials --------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [None, POSITIONS, COUNTS], ids=repr)
def test_halves_of_the_data(data: Path, held_out: HeldOut | None) -> None:
    """Each is reconstructed, also with batches larger than it, over the same region; they differ."""
    session = opened(data, held_out, {"recon_params.BATCH_SIZE.size": 48})
    first, second = (session.run(TrialInput(0, {}, 7, half), go_on, NEVER) for half in (1, 2))
    assert (first.attributes["half"], second.attributes["half"]) == (1, 2)
    assert first.image is not None
    assert second.image is not None
    assert first.image.data.shape == second.image.data.shape
    assert (first.arrays["object_phase"].data != second.arrays["object_phase"].data).any()
    if held_out is COUNTS:
        assert "scan_indices" not in first.arrays
    else:
        seen = [out.arrays["scan_indices"].data for out in (first, second)]
        assert not np.intersect1d(*seen).size
        assert sum(map(len, seen)) == 64 - (4 if held_out else 0)


@pytest.mark.parametrize("held_out", [POSITIONS, COUNTS], ids=repr)
def test_other_trials_on_the_worker_have_no_influence(data: Path, held_out: HeldOut) -> None:
    """A seed hides its own part of the data, whatever the worker had in memory before."""
    session = opened(data, held_out)
    first, _, other, again = (
        session.run(TrialInput(0, {}, seed, half), go_on, NEVER) for seed, half in ((7, 0), (7, 1), (8, 0), (7, 0))
    )
    assert_same(first, again)
    assert first.metrics[METRIC[held_out.kind]] != other.metrics[METRIC[held_out.kind]]
    if held_out is POSITIONS:
        assert first.arrays["heldout_indices"].data.tolist() != other.arrays["heldout_indices"].data.tolist()


def test_padding_is_not_scored(data: Path) -> None:
    """The misfit is that of the detector's own pixels, whether the rest is filled in before the run or on the fly."""
    pad = {"padding_type": "power", "target_Npix": 40}
    before, live = (
        run(data, POSITIONS, {"init_params.meas_pad": pad | {"mode": mode}}) for mode in ("precompute", "on_the_fly")
    )
    # The deviance divides by what a pixel is expected to have: on some processors rounding makes 1.2e-4 of it there.
    for name, bound in {"heldout": 1e-3, "heldout_amplitude": 1e-4}.items():
        assert before.metrics[name] == pytest.approx(live.metrics[name], rel=bound)


@pytest.mark.parametrize("held_out", [POSITIONS, COUNTS], ids=repr)
def test_a_compiled_trial_is_scored(data: Path, held_out: HeldOut) -> None:
    """With ``torch.compile`` the score is the same but for rounding."""
    name, config = METRIC[held_out.kind], params(data)
    plain = run(data, held_out).metrics[name]
    config["recon_params"]["compiler_configs"] |= {"enable": True, "backend": "eager"}
    session = PtyradSession(plan(config, held_out=held_out, metric=name), SLOT)
    assert session.run(TrialInput(0, {}, 7), go_on, NEVER).metrics[name] == pytest.approx(plain, rel=1e-4)


def test_the_last_iterations_counts_are_of_all_positions(data: Path) -> None:
    """In between they come from a twentieth of them, close to that."""
    short = run(data, COUNTS, {"recon_params.NITER": 3})
    longer = run(data, COUNTS, {"recon_params.NITER": 4})
    assert list(short.curve["counts"][:2]) == list(longer.curve["counts"][:2])
    assert short.curve["counts"][2] != longer.curve["counts"][2]
    assert short.curve["counts"][2] == pytest.approx(longer.curve["counts"][2], rel=0.1)


def test_a_checkpoint_is_of_one_part_of_the_data(data: Path) -> None:
    """What another half, or a trial with something else held out, left behind is not gone on from."""
    cases = [(0, None), (1, None), (2, None), (0, POSITIONS), (1, POSITIONS), (0, HeldOut("positions", 0.07))]
    cases += [(0, COUNTS), (2, COUNTS), (0, HeldOut("counts", 0.1, 2.0))]
    identities = [
        checkpoint.identity(params(data), TrialInput(0, {}, 7, half), KeepOptions(), "cpu", held_out)["params"]
        for half, held_out in cases
    ]
    assert len(set(identities)) == len(cases)


# --- before the run ---------------------------------------------------------------------------------


def written(folder: Path, data: Path, section: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Path:
    """A params file for one reconstruction, with the section ``ptydask``."""
    path = folder / "params.json"
    settings = {"hypertune_params.if_hypertune": False, "recon_params.output_dir": str(folder)}
    path.write_text(json.dumps(params(data, settings | dict(changes or {})) | {"ptydask": section}))
    return path


def test_a_file_asks_for_it(data: Path, tmp_path: Path) -> None:
    """The section ``ptydask`` says what is held out; a batch may hold what is left."""
    section = {"error_metric": "heldout", "held_out": {"share": 0.08}}
    full = {"recon_params.BATCH_SIZE.size": 59}
    checked = ptydask.validate(written(tmp_path, data, section, full))
    assert checked.held_out == HeldOut("positions", 0.08)
    with pytest.raises(ConfigError, match="59 patterns"):
        ptydask.validate(written(tmp_path, data, section, {"recon_params.BATCH_SIZE.size": 60}))
    assert ptydask.validate(written(tmp_path, data, section, full), metric="loss").held_out is None


@pytest.mark.parametrize(
    ("section", "changes", "key"),
    [
        ({"error_metric": "heldout", "held_out": {"share": 0.6}}, {}, "ptydask.held_out.share"),
        ({"error_metric": "heldout", "held_out": {"share": 0.2}}, {}, "ptydask.held_out.share"),
        ({"error_metric": "heldout"}, {"recon_params.INDICES_MODE": {"mode": "center"}}, "ptydask.held_out.share"),
        ({"error_metric": "counts", "held_out": {"share": 0.004}}, {}, "ptydask.held_out.share"),
        ({"error_metric": "counts", "held_out": {"gain": 0}}, {}, "ptydask.held_out.gain"),
        ({"error_metric": "counts", "held_out": {"gain": 2}}, {}, "init_params.meas_params.path"),
        ({"error_metric": "counts", "held_out": {"gain": 0.5}}, {}, "init_params.meas_params.path"),
        ({"error_metric": "counts"}, {"init_params.meas_add_source_size": 0.2}, "init_params.meas_add_source_size"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_the_run(
    data: Path, tmp_path: Path, section: dict[str, Any], changes: dict[str, Any], key: str
) -> None:
    """With the file and the key."""
    path = written(tmp_path, data, section, changes)
    with pytest.raises(ConfigError) as caught:
        ptydask.validate(path)
    assert caught.value.key == key
    assert str(path) in str(caught.value)
