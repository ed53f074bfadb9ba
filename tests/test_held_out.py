"""What is held out: which positions, which electrons, and how far a model is from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptydask.engines.ptyrad.counted_patterns import check_counted
from ptydask.engines.ptyrad.counts import CountSplit, explain_uncounted, nearest_gain, split_counts
from ptydask.engines.ptyrad.held_out import LEAST_POSITIONS, check_plan, divide_scan, hidden_positions
from ptydask.errors import ConfigError, DataError
from ptydask.model import HeldOut
from ptydask.store.foreign.measurement_sample import read_sample

POSITIONS, COUNTS = HeldOut("positions", 0.03), HeldOut("counts", 0.03)


def crossings(columns: int, rows: np.ndarray[Any, Any], cols: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (rows[:, None] * columns + cols).reshape(-1)


SCANS = {
    "16 x 16": (np.arange(256), 16),
    "narrow": (np.arange(6 * 40), 40),
    "the centre": (crossings(20, np.arange(4, 16), np.arange(5, 17)), 20),
    "every third": (crossings(36, np.arange(0, 36, 3), np.arange(1, 36, 3)), 36),
}


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("scan", SCANS)
def test_no_two_neighbours_and_none_at_the_border(scan: str, share: float, seed: int) -> None:
    """Each held-out position has eight reconstructed neighbours among the chosen ones."""
    chosen, columns = SCANS[scan]
    hidden = hidden_positions(chosen, columns, share, seed)
    assert len(hidden) == max(LEAST_POSITIONS, round(share * len(chosen)))
    rows, cols = np.unique(chosen // columns), np.unique(chosen % columns)
    places = {(int(np.searchsorted(rows, n // columns)), int(np.searchsorted(cols, n % columns))) for n in hidden}
    assert len(places) == len(hidden)
    for row, col in places:
        assert 0 < row < len(rows) - 1
        assert 0 < col < len(cols) - 1
        around = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(row, col)}
        assert not around & places


def test_the_seed_decides_and_there_is_no_lattice() -> None:
    """The same seed gives the same positions, another one others; they are not evenly spaced."""
    first, again, other = (hidden_positions(np.arange(4096), 64, 0.03, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(np.intersect1d(first, other)) < len(first) / 4
    assert len(np.unique(np.diff(first))) > len(first) / 4
    assert len(np.unique(first // 64)) > 40
    assert len(np.unique(first % 64)) > 40


@pytest.mark.parametrize(
    ("grid", "share"), [((1, 64), 0.05), ((2, 40), 0.05), ((4, 4), 0.2), ((16, 16), 0.3), ((3, 5), 0.1)], ids=str
)
def test_positions_that_do_not_fit_are_refused(grid: tuple[int, int], share: float) -> None:
    """One line with the key, how many fit, and what to do."""
    with pytest.raises(ConfigError, match=r"can be held out") as caught:
        hidden_positions(np.arange(grid[0] * grid[1]), grid[1], share, 0)
    assert caught.value.key == "ptydask.held_out.share"
    assert "counts" in caught.value.hint


@pytest.mark.parametrize("grid", [(24, 24), (16, 16), (3, 200), (9, 40)], ids=str)
def test_a_share_that_fits_is_named(grid: tuple[int, int]) -> None:
    """It does with any seed, too."""
    chosen = np.arange(grid[0] * grid[1])
    with pytest.raises(ConfigError) as caught:
        hidden_positions(chosen, grid[1], 0.3, 0)
    share = float(caught.value.hint.split()[3])
    for seed in range(8):
        assert len(hidden_positions(chosen, grid[1], share, seed)) == round(share * len(chosen))


def test_nothing_held_out_is_the_scan_as_it_is() -> None:
    """Without a held-out metric the very indices come back, also where PtyRAD chooses some twice."""
    chosen = np.array([0, 1, 1, 5, 4])
    division = divide_scan(chosen, 3, None, 0, 7)
    np.testing.assert_array_equal(division.reconstructed, chosen)
    assert not len(division.held_out)
    np.testing.assert_array_equal(divide_scan(chosen, 3, COUNTS, 1, 7).reconstructed, chosen)


@pytest.mark.parametrize("held_out", [None, POSITIONS], ids=repr)
def test_halves_have_nothing_in_common(held_out: HeldOut | None) -> None:
    """A checkerboard: together all positions but those held out, which are the same for both and for the whole."""
    chosen = np.arange(12 * 15)
    whole, first, second = (divide_scan(chosen, 15, held_out, half, 7) for half in (0, 1, 2))
    both = np.concatenate([first.reconstructed, second.reconstructed])
    np.testing.assert_array_equal(np.sort(both), whole.reconstructed)
    for half in (first, second):
        np.testing.assert_array_equal(half.held_out, whole.held_out)
        assert len({(n // 15 + n % 15) % 2 for n in half.reconstructed.tolist()}) == 1


@pytest.mark.parametrize("step", [2, 3, 4])
def test_halves_of_every_second_position_are_halves(step: int) -> None:
    """``INDICES_MODE: sub``: a checkerboard of the chosen ones; of the scan's one half may have all."""
    chosen = crossings(17, np.arange(0, 17, step), np.arange(0, 17, step))
    first, second = (divide_scan(chosen, 17, None, half, 7).reconstructed for half in (1, 2))
    assert abs(len(first) - len(second)) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), chosen)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("meas_resample", {"mode": "precompute", "scale_factors": [2, 2]}),
        ("meas_resample", {"mode": "on_the_fly", "scale_factors": [0.5, 0.5]}),
        ("meas_add_source_size", 0.5),
        ("meas_add_detector_blur", 1.0),
        ("meas_add_poisson_noise", {"unit": "total_e_per_pattern", "value": 1000}),
        ("meas_remove_neg_values", {"mode": "subtract_value", "value": 2, "force": True}),
    ],
    ids=str,
)
def test_what_ends_counting_is_refused(name: str, entry: Any) -> None:
    """Values that are no counts any more cannot be split; whole positions can be held out all the same."""
    config = {"init_params": {name: entry}}
    with pytest.raises(ConfigError, match="counted electrons") as caught:
        check_plan(COUNTS, config, (16, 16), 7)
    assert caught.value.key == f"init_params.{name}"
    assert "heldout" in caught.value.hint
    assert check_plan(POSITIONS, config, (16, 16), 7) == 8


@pytest.mark.parametrize(
    "init",
    [
        {"meas_resample": {"mode": None, "scale_factors": [2, 2]}, "meas_add_source_size": 0},
        {"meas_remove_neg_values": {"mode": "clip_neg", "force": True}, "meas_add_detector_blur": None},
        {"meas_pad": {"mode": "on_the_fly", "target_Npix": 64}, "meas_crop": [None, None, [0, 8], [0, 8]]},
        {"meas_remove_neg_values": {"mode": "subtract_value", "value": 2}},
    ],
    ids=str,
)
def test_what_leaves_counts_is_taken(init: dict[str, Any]) -> None:
    """Entries that are switched off, that counts never come to, or that only move pixels."""
    assert check_plan(COUNTS, {"init_params": init}, (16, 16), 7) == 0


# --- electrons --------------------------------------------------------------------------------------


def poisson(mean: float, shape: tuple[int, ...] = (200, 16, 16), gain: float = 1.0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(3).poisson(mean, shape) * gain).astype(np.float32)


@pytest.mark.parametrize("gain", [1.0, 0.37, 17.0, 112.5])
@pytest.mark.parametrize("mean", [0.05, 3.0, 4000.0])
def test_every_electron_is_in_one_part(mean: float, gain: float) -> None:
    """What is held out and what is left make up the file's values."""
    raw = poisson(mean, gain=gain)
    left = raw.copy()
    hidden = split_counts(left, CountSplit(0.1, gain, 7))
    np.testing.assert_allclose(left + hidden * np.float32(gain), raw, rtol=1e-5)
    assert min(hidden.min(), left.min()) >= 0
    assert hidden.sum() == pytest.approx(0.1 * raw.sum() / gain, rel=0.05)


def test_the_parts_are_independent() -> None:
    """Of Poisson counts: no correlation, each as wide as a Poisson variable of its mean; halves likewise."""
    raw = poisson(20.0, (500, 16, 16))
    parts = {}
    for half in (1, 2):
        left = raw.copy()
        hidden = split_counts(left, CountSplit(0.2, 1.0, 7, half))
        parts[f"half {half}"], parts["held out"] = left, hidden.astype(float)
    np.testing.assert_array_equal(sum(parts.values()), raw)
    for part, mean in (("half 1", 8.0), ("half 2", 8.0), ("held out", 4.0)):
        assert parts[part].mean() == pytest.approx(mean, rel=0.01)
        assert parts[part].var() == pytest.approx(mean, rel=0.03)
    assert np.abs(np.corrcoef([part.ravel() for part in parts.values()]) - np.eye(3)).max() < 0.01


def test_exposure_is_what_the_model_is_scaled_by() -> None:
    """Expected electrons held out for each that is reconstructed from."""
    assert CountSplit(0.2, 1.0, 7).exposure == pytest.approx(0.25)
    assert CountSplit(0.2, 1.0, 7, half=1).exposure == pytest.approx(0.5)
    assert CountSplit.of(POSITIONS, 1, 7) is None
    assert CountSplit.of(None, 0, 7) is None


def test_a_split_is_the_seeds() -> None:
    """The same electrons for the same seed, others for another; the file's layout does not matter to the type."""
    raw = poisson(5.0)
    first, again, other = (split_counts(raw.copy(), CountSplit(0.1, 1.0, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.dtype == np.int8
    assert split_counts(poisson(500.0), CountSplit(0.1, 1.0, 1)).dtype == np.int16
    assert split_counts(raw.reshape(10, 20, 16, 16).copy(), CountSplit(0.1, 1.0, 1)).shape == (10, 20, 16, 16)


@pytest.mark.parametrize("gain", [1.0, 0.37, 17.0, 112.5])
def test_counts_are_recognised(gain: float) -> None:
    """Whole electrons times the gain, in single precision."""
    assert explain_uncounted(poisson(3.0, gain=gain), gain) is None
    assert explain_uncounted(poisson(4000.0, gain=gain), gain) is None


@pytest.mark.parametrize("gain", [0.37, 2.5, 17.0, 112.5, 1 / 3, 4.0])
def test_the_gain_that_fits_is_named(gain: float) -> None:
    """Counts times a gain that the file does not say: refused with the gain, also where they are whole numbers."""
    raw = poisson(3.0, gain=gain)
    assert nearest_gain(raw) == pytest.approx(gain, rel=1e-5)
    uncounted = explain_uncounted(raw, 1.0)
    assert uncounted is not None
    assert f"ptydask.held_out.gain: {gain:g}" in uncounted[1]


@pytest.mark.parametrize("change", ["noise", "offset", "negative", "normalised"])
def test_what_is_not_counted_is_refused(change: str) -> None:
    """Read-out noise, a background taken off, values below zero."""
    raw = poisson(30.0)
    noise = np.random.default_rng(1).normal(0, 0.2, raw.shape)
    changed = {
        "noise": raw + noise,
        "offset": raw + 0.31 * np.arange(len(raw))[:, None, None],
        "negative": raw - 25,
        "normalised": raw / raw.sum((1, 2))[:, None, None],
    }[change]
    uncounted = explain_uncounted(changed.astype(np.float32), 1.0)
    assert uncounted is not None
    rule, hint = uncounted
    assert "counts needs" in rule
    assert "heldout" in hint


FILES = ("counts.npy", "counts.raw", "stack.h5", "scan.h5", "detector.h5", "group.h5", "only.h5")


def write_counts(folder: Path, name: str, patterns: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The part of ``init_params`` that says where the patterns (N, k, k) of a 20 x 10 scan are."""
    path, key, stem = folder / name, None, name.partition(".")[0]
    scan = patterns.reshape(20, 10, *patterns.shape[1:])
    if name == "counts.npy":
        np.save(path, patterns)
    elif name == "counts.raw":
        path.write_bytes(b"head" + b"".join(pattern.tobytes() + bytes(16) for pattern in patterns))
    else:
        key = {"group": "entry.data", "only": None}.get(stem, "data")
        with h5py.File(path, "w") as file:
            stored = {"scan": scan, "detector": scan.transpose(2, 3, 0, 1)}.get(stem, patterns)
            file.create_dataset((key or "data").replace(".", "/"), data=stored, chunks=True, compression="gzip")
    meas = {"path": str(path), "key": key, **({"offset": 4, "gap": 16} if name.endswith(".raw") else {})}
    return {"meas_params": meas, "pos_N_scan_slow": 20, "pos_N_scan_fast": 10, "meas_Npix": patterns.shape[-1]}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_gain_is_noticed_before_the_run(name: str, tmp_path: Path) -> None:
    """From a sample of the file, which is named with the gain that fits."""
    init = write_counts(tmp_path, name, poisson(3.0, gain=2.5))
    check_counted(init, 2.5)
    for wrong in (1.0, 5.0, 1.25):
        with pytest.raises(DataError, match=r"counts needs.*gain: 2\.5") as caught:
            check_counted(init, wrong)
        assert (caught.value.key, caught.value.value) == ("init_params.meas_params.path", init["meas_params"]["path"])


def test_where_it_is_not_counted_is_said_as_the_file_has_it(tmp_path: Path) -> None:
    """The index of the pattern is that in the file, not in the sample."""
    patterns = poisson(3.0)
    patterns[-1, 3, 5] = 0.5
    with pytest.raises(DataError, match=r"index \(199, 3, 5\)"):
        check_counted(write_counts(tmp_path, "stack.h5", patterns), 1.0)


def test_what_a_sample_cannot_tell_is_left_to_the_workers(tmp_path: Path) -> None:
    """Few electrons, values that are no numbers, a selection, a chunk that is dear to read, a file that is gone."""
    few = np.zeros((200, 16, 16), np.float32)
    few[:, 0, 0] = 2
    check_counted(write_counts(tmp_path, "few.h5", few), 1.0)
    check_counted(write_counts(tmp_path, "nan.h5", np.full((200, 16, 16), np.nan, np.float32)), 1.0)
    wrong = write_counts(tmp_path, "counts.npy", poisson(3.0, gain=2.5))
    check_counted({**wrong, "meas_params": {**wrong["meas_params"], "selection": "[0]"}}, 1.0)
    check_counted({**wrong, "meas_params": {"path": str(tmp_path / "nowhere.npy")}}, 1.0)
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("data", (200, 512, 512), "f4", chunks=(200, 512, 512), compression="gzip", fillvalue=0.5)
    assert read_sample(tmp_path / "large.h5", "data") is None


def test_a_sample_is_small(tmp_path: Path) -> None:
    """However large the patterns and the scan are."""
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("data", (10**4, 512, 512), "u2", chunks=(1, 512, 512), fillvalue=3)
    sample = read_sample(tmp_path / "large.h5", "data")
    assert sample is not None
    assert (sample.indices[0], sample.indices[-1]) == (0, 10**4 - 1)
    assert sample.values.nbytes < 2**24


# --- scores -----------------------------------------------------------------------------------------


def test_misfits_are_the_formulas() -> None:
    """Worked by hand; zero where the model is right; in proportion to the unit; no number of electrons is 0 ln 0."""
    torch = pytest.importorskip("torch")
    from ptydask.engines.ptyrad.misfit import amplitude_misfit, poisson_deviance

    n, m = torch.tensor([4.0, 0.0, 9.0]), torch.tensor([1.0, 2.0, 9.0])
    assert amplitude_misfit(n, m) == pytest.approx(1 + 2 + 0)
    assert poisson_deviance(n, m) == pytest.approx(2 * (4 * np.log(4) - 3 + 2))
    assert amplitude_misfit(n, n) == 0
    assert poisson_deviance(n, n) == pytest.approx(0, abs=1e-4)  # some is expected of every pixel
    assert poisson_deviance(10 * n, 10 * m) == pytest.approx(10 * poisson_deviance(n, m))
    assert np.isfinite(poisson_deviance(n, torch.tensor([0.0, 0.0, 9.0])))


def test_deviance_of_the_truth_is_about_one() -> None:
    """Per pixel, for large means; and four times the amplitude misfit. Any other model has more."""
    torch = pytest.importorskip("torch")
    from ptydask.engines.ptyrad.misfit import amplitude_misfit, poisson_deviance

    mean = torch.from_numpy(np.random.default_rng(1).uniform(50, 100, (100, 32, 32)))
    n = torch.from_numpy(np.random.default_rng(2).poisson(mean.numpy()).astype(float))
    assert poisson_deviance(n, mean) / n.numel() == pytest.approx(1, abs=0.02)
    assert 4 * amplitude_misfit(n, mean) / n.numel() == pytest.approx(1, abs=0.02)
    assert poisson_deviance(n, mean * 1.05) > poisson_deviance(n, mean)
    assert poisson_deviance(n, mean.flip(0)) > poisson_deviance(n, mean)


@pytest.mark.parametrize("mean", [0.05, 0.5, 3.0])
def test_with_few_electrons_the_deviance_is_least_for_the_truth(mean: float) -> None:
    """Whatever the dose, and for other noise of the same mean; the misfit of amplitudes prefers a weaker model."""
    torch = pytest.importorskip("torch")
    from ptydask.engines.ptyrad.misfit import amplitude_misfit, poisson_deviance

    truth = torch.full((200, 500), mean, dtype=torch.float64)
    random = np.random.default_rng(3)
    counted, other = (torch.from_numpy(x) for x in (random.poisson(truth).astype(float), random.exponential(truth)))
    for n in (counted, other):
        deviances = {scale: poisson_deviance(n, truth * scale) for scale in (0.7, 1.0, 1.4)}
        assert min(deviances, key=lambda scale: deviances[scale]) == 1.0
    assert amplitude_misfit(counted, truth * 0.9) < amplitude_misfit(counted, truth)
