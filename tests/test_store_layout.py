"""The layout of a packed results file, read with h5py alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_cases import failed, meta, output, packed, phase, put, record

from ptydask.model import KeepOptions, Quantity, Reason, Scalar, TrialState
from ptydask.ranking import ranked
from ptydask.store import Store, reader

RECORDS = [
    record(0, 0.5),
    record(1, 0.25),
    failed(2),
    record(3, 0.1, state=TrialState.PRUNED, reason=Reason.PRUNED),
    record(12, 0.01234),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[h5py.File]:
    path = packed(tmp_path_factory.mktemp("layout") / "results.h5", RECORDS)
    with h5py.File(path) as opened:
        yield opened


def follow(group: h5py.Group) -> h5py.Group:
    """Where NeXus's ``default`` leads, as viewers go."""
    while "default" in group.attrs:
        group = group[group.attrs["default"]]
    return group


def test_default_chain_ends_at_the_best_image(file: h5py.File) -> None:
    """Root, study, best trial, image, signal: a viewer that opens the file shows the best phase."""
    assert file.attrs["NX_class"] == b"NXroot"
    study = file[file.attrs["default"]]
    assert study.attrs["NX_class"] == b"NXentry"
    assert study.attrs["default"] == b"best"
    best = study["best"]
    assert (best.attrs["NX_class"], best.attrs["number"]) == (b"NXprocess", 12)
    image = follow(file)
    assert image.attrs["NX_class"] == b"NXdata"
    signal = image[image.attrs["signal"]]
    np.testing.assert_array_equal(signal, phase(12).sum((0, 1)))
    assert signal.attrs["interpretation"] == b"image"
    assert signal.attrs["units"] == b"rad"
    assert list(image.attrs["axes"]) == [b"y", b"x"]
    for axis, size in zip(image.attrs["axes"], signal.shape, strict=True):
        assert image[axis].shape == (size,)
        assert image[axis].attrs["units"] == b"angstrom"


def test_root_says_what_it_is(file: h5py.File) -> None:
    """Format, version and creator are on the root."""
    assert file.attrs["format"] == b"ptydask"
    assert file.attrs["format_version"] == 2
    assert file.attrs["creator"].startswith(b"ptydask ")
    assert file.attrs["kind"] == b"packed"


def test_study_group(file: h5py.File) -> None:
    """The study carries its file, its search space and where it ran."""
    study = file["tBL_WSe2"]
    assert study.attrs["direction"] == "minimize"
    assert study.attrs["error_metric"] == "loss"
    assert study["config"].asstr()[()] == meta().config_text
    assert list(json.loads(study["search_space"][()])) == ["scale", "rotation"]
    assert study["provenance/data sha256"].asstr()[()] == "ab/cd"


def test_by_error_ranks_completed_trials(file: h5py.File) -> None:
    """Completed trials by error; the pruned and the failed one have no rank; links lead to the trials."""
    by_error = file["tBL_WSe2/by_error"]
    assert list(by_error) == [
        "000001 error=0.01234 trial=000012 rotation=10.5 scale=0.98",
        "000002 error=0.25 trial=000001 rotation=-0.5 scale=0.98",
        "000003 error=0.5 trial=000000 rotation=-1.5 scale=0.98",
    ]
    assert [group.attrs["number"] for group in by_error.values()] == [12, 1, 0]
    assert by_error.get(next(iter(by_error)), getlink=True).path == "/tBL_WSe2/trials/000012"


def test_by_params_nests_every_trial(file: h5py.File) -> None:
    """One level a parameter, in the order of the search space, and every trial at the end of its path."""
    below = file["tBL_WSe2/by_params/scale=0.98"]
    assert below["rotation=10.5/trial=000012"] == file["tBL_WSe2/trials/000012"]
    assert below["rotation=0.5/trial=000002"].attrs["state"] == "FAIL"
    assert len(below) == 5


def test_table_columns(file: h5py.File) -> None:
    """One column a field, a row a trial, full precision, missing numbers NaN."""
    table = file["tBL_WSe2/table"]
    assert table["number"][()].tolist() == [0, 1, 2, 3, 12]
    assert table["state"].asstr()[()].tolist() == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    np.testing.assert_array_equal(table["error"], [0.5, 0.25, np.nan, 0.1, 0.01234])
    np.testing.assert_array_equal(table["params/rotation"], [-1.5, -0.5, 0.5, 1.5, 10.5])
    np.testing.assert_array_equal(table["metrics/loss"], [0.5, 0.25, np.nan, 0.1, 0.01234])
    assert table["seconds"][0] == 0.1 + 0.2
    assert table["seconds"].attrs["units"] == b"s"
    assert table["retry_of"][()].tolist() == [-1] * 5
    for column in ("reason", "message", "attempt", "origin", "started", "worker", "host", "job", "device", "seed"):
        assert table[column].shape == (5,), column


def test_history_plots_completed_trials(file: h5py.File) -> None:
    """Error and best so far over number; a pruned trial's low error does not count."""
    history = file["tBL_WSe2/history"]
    assert history.attrs["NX_class"] == b"NXdata"
    assert history.attrs["signal"] == b"error"
    assert list(history.attrs["axes"]) == [b"number"]
    assert list(history.attrs["auxiliary_signals"]) == [b"best_so_far"]
    np.testing.assert_array_equal(history["number"], [0, 1, 2, 3, 12])
    np.testing.assert_array_equal(history["error"], [0.5, 0.25, np.nan, np.nan, 0.01234])
    np.testing.assert_array_equal(history["best_so_far"], [0.5, 0.25, 0.25, 0.25, 0.01234])


def test_thumbnails(file: h5py.File) -> None:
    """One grey picture a row: aspect kept, the full range used, zeros where no image was."""
    stack = file["tBL_WSe2/thumbnails"]
    assert (stack.shape, stack.dtype) == ((5, 128, 128), np.uint8)
    assert not stack[2].any()
    assert (stack[0].max(), stack[0][stack[0] > 0].min()) == (255, 1)
    rows, columns = np.nonzero(stack[0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (128, 85)  # 24 x 16 pixels
    np.testing.assert_array_equal(stack[4], file["tBL_WSe2/trials/000012/thumbnail"])


def test_trial_group(file: h5py.File) -> None:
    """Arrays with units, curve, snapshots, log and the engine's facts are in the trial's group."""
    trial = file["tBL_WSe2/trials/000012"]
    np.testing.assert_array_equal(trial["object_phase"], phase(12))
    assert trial["object_phase"].attrs["units"] == b"rad"
    assert trial["object_phase"].attrs["long_name"] == b"phase of the object"
    assert trial["probe"].dtype == np.complex64
    np.testing.assert_array_equal(trial["positions"], np.arange(600.0).reshape(300, 2))
    assert trial["slice_thickness"][()] == 6.5
    np.testing.assert_array_equal(trial["snapshots/iter_0000020/object_phase"], phase(12) * 2)
    assert trial["log"].asstr()[()] == "one line\nanother\n"
    assert trial.attrs["pixel_size"] == 0.15
    assert trial.attrs["error"] == 0.01234
    assert trial.attrs["direction"] == "minimize"
    curve = trial["curve"]
    assert curve.attrs["signal"] == b"loss"
    assert list(curve.attrs["axes"]) == [b"step"]
    assert list(curve.attrs["auxiliary_signals"]) == [b"contrast"]
    np.testing.assert_array_equal(curve["error"], [0.9, 0.7, 0.5])
    np.testing.assert_array_equal(curve["loss"], [0.9, 0.7, 0.5])
    assert trial["params"].attrs["rotation"] == 10.5


def test_failed_trial_has_its_traceback(file: h5py.File) -> None:
    """A failed trial is there too, with the reason, and without arrays."""
    trial = file["tBL_WSe2/trials/000002"]
    assert trial.attrs["reason"] == "failed"
    assert math.isnan(trial.attrs["error"])
    assert "out of memory" in trial["traceback"].asstr()[()]
    assert "object_phase" not in trial


def test_every_array_is_checksummed(tmp_path: Path) -> None:
    """Large arrays are compressed, shuffled, check-summed, in tiles of at most 512 x 512."""
    store = Store.open(tmp_path / "r.h5", meta())
    arrays = {
        "object_phase": Quantity(np.zeros((1, 2, 700, 600), np.float32)),
        "positions": Quantity(np.zeros((70000, 2))),
        "line": Quantity(np.zeros(300000)),
    }
    put(store, record(0), output(0, arrays=arrays))
    with h5py.File(store.finish()) as file:
        trial = file["tBL_WSe2/trials/000000"]
        for name in arrays:
            data = trial[name]
            assert (data.compression, data.compression_opts, data.shuffle, data.fletcher32) == ("gzip", 1, True, True)
            assert math.prod(data.chunks) <= 512 * 512
        assert trial["object_phase"].chunks == (1, 1, 512, 512)


def test_contrast_is_maximised(tmp_path: Path) -> None:
    """Where the metric is maximised, the greatest is best, in links and history."""
    path = tmp_path / "r.h5"
    store = Store.open(path, meta(direction="maximize", metric="contrast"))
    for number, error in enumerate([0.2, 0.9, 0.5, math.nan]):
        put(store, record(number, error), output(number))
    with h5py.File(store.finish()) as file:
        study = file["tBL_WSe2"]
        assert study["best"].attrs["number"] == 1
        assert [name.split()[2] for name in study["by_error"]] == ["trial=000001", "trial=000002", "trial=000000"]
        np.testing.assert_array_equal(study["history/best_so_far"], [0.2, 0.9, 0.9, 0.9])


def test_names_without_parameters(tmp_path: Path) -> None:
    """``append_params: false`` leaves error and trial in the names, and nothing else."""
    path = packed(tmp_path / "r.h5", [record(0, 0.5)], keep=KeepOptions(params_in_names=False))
    with h5py.File(path) as file:
        assert list(file["tBL_WSe2/by_error"]) == ["000001 error=0.5 trial=000000"]


def test_numbers_only(tmp_path: Path) -> None:
    """``collate_results: false`` keeps numbers, curve and log; the curve is then what a viewer shows."""
    store = Store.open(tmp_path / "r.h5", meta())
    put(store, record(0), output(0), KeepOptions(arrays=False))
    with h5py.File(store.finish()) as file:
        trial = file["tBL_WSe2/trials/000000"]
        assert {"object_phase", "image", "snapshots", "thumbnail"}.isdisjoint(trial)
        assert trial["log"].asstr()[()]
        assert follow(file).name == "/tBL_WSe2/best/curve"


@pytest.mark.parametrize("records", [[], [failed(0), failed(1)]], ids=["none", "all failed"])
def test_nothing_completed(tmp_path: Path, records: list) -> None:
    """Without a completed trial there is no best, and a viewer is shown the history."""
    with h5py.File(packed(tmp_path / "r.h5", records)) as file:
        study = file["tBL_WSe2"]
        assert "best" not in study
        assert len(study["by_error"]) == 0
        assert follow(file).name == "/tBL_WSe2/history"
        assert study["thumbnails"].shape == (len(records), 128, 128)
        assert len(study["by_params"]) == min(1, len(records))
    with reader.open(tmp_path / "r.h5") as results:
        assert results.best() is None
        assert [r.number for r in results.records()] == [r.number for r in records]


def test_hostile_names_everywhere(tmp_path: Path) -> None:
    """Slashes, points, blanks and any script in study, parameter, metric, array and fact names."""
    names = ["a/b", ".", "..", "", "ä λ", "100%"]
    made = record(0, params=dict.fromkeys(names, "x/y"), metrics=dict.fromkeys(names, 0.5))
    given = output(
        0,
        arrays={name: Quantity(np.arange(3.0)) for name in [*names, "image", "log"]},
        attributes=dict.fromkeys([*names, "state"], 1),
        curve={"step": [1], **{name: [0.5] for name in names}},
    )
    store = Store.open(tmp_path / "r.h5", meta("stüdy/1 ."))
    put(store, made, given)
    path = store.finish()
    with h5py.File(path) as file:
        assert list(file) == ["stüdy%2F1 ."]
        assert file["stüdy%2F1 ./best/params"].attrs["a%2Fb"] == "x/y"
    with reader.open(path) as results:
        trial = results.trial(0)
        assert results.records() == [made]
        assert trial.record == made
        assert set(trial.arrays) == {*names, "image", "log"}
        assert trial.arrays["image"].read().tolist() == [0, 1, 2]
        assert trial.attributes == given.attributes
        assert set(trial.curve) == {"step", *names}


def test_parameters_of_every_type(tmp_path: Path) -> None:
    """Each parameter has the column type that all of its values share; the exact values come back from any."""
    rows = [
        {"f": 0.1, "i": 1, "b": True, "s": "Adam", "mixed": "a", "huge": 2**70, "some": 1.5, "null": None},
        {"f": math.nan, "i": -(2**60) - 1, "b": False, "s": "ä\0", "mixed": 3, "huge": 1, "some": None, "null": None},
        {"f": -math.inf, "i": 2**53 + 1, "b": True, "s": "", "mixed": None, "huge": 2, "null": None},
    ]
    made = [record(n, params=params) for n, params in enumerate(rows)]
    path = packed(tmp_path / "r.h5", made)
    with h5py.File(path) as file:
        params = file["tBL_WSe2/table/params"]
        np.testing.assert_array_equal(params["f"], [0.1, np.nan, -np.inf])
        assert params["i"][()].tolist() == [1, -(2**60) - 1, 2**53 + 1]
        assert params["b"][()].tolist() == [True, False, True]
        assert params["s"].asstr()[()].tolist() == ["Adam", "ä\\x00", ""]
        np.testing.assert_array_equal(params["some"], [1.5, np.nan, np.nan])
        for name, texts in (("mixed", ['"a"', "3", "null"]), ("huge", [str(2**70), "1", "2"])):
            assert params[name].attrs["encoding"] == b"json"
            assert params[name].asstr()[()].tolist() == texts
        own = file["tBL_WSe2/trials/000000/params"]
        assert (own.attrs["f"], own.attrs["i"], bool(own.attrs["b"]), own.attrs["s"]) == (0.1, 1, True, "Adam")
        assert own.attrs["huge"] == str(2**70)
        assert own.attrs["null"] == "null"
        assert json.loads(own["params_json"][()])["huge"] == 2**70
    with reader.open(path) as results:
        assert [repr(r.params) for r in results.records()] == [repr(row) for row in rows]
        assert repr(results.trial(1).record) == repr(made[1])


def test_large_texts(tmp_path: Path) -> None:
    """Texts past the 64 kB that an attribute may have: config, log, traceback, a message, a parameter."""
    long = "x" * 200_000
    store = Store.open(tmp_path / "r.h5", meta(config_text=long, search_space_json=json.dumps({"p": long})))
    made = failed(0, message=long, traceback=long, params={"p": long})
    put(store, made, output(0, log=long))
    with reader.open(store.finish()) as results:
        assert results.meta.config_text == long
        assert results.trial(0).record == made
        assert results.trial(0).log == long
        assert results.records() == [replace(made, traceback="")]


def test_ranking_is_by_error_then_number() -> None:
    """Ties go to the earlier trial; NaN and missing errors have no rank, infinity is last."""
    made = [record(0, math.inf), record(1, math.nan), record(2, 0.5), record(3, 0.5), record(4, -1.0), failed(5)]
    assert [r.number for r in ranked(reversed(made), "minimize")] == [4, 2, 3, 0]
    assert [r.number for r in ranked(made, "maximize")] == [0, 2, 3, 4]


def test_no_rounding_of_arrays(tmp_path: Path) -> None:
    """Every kind of array comes back bit for bit, with its type."""
    rng = np.random.default_rng(5)
    arrays = {
        "f8": rng.normal(size=(3, 40, 30)),
        "f2": rng.normal(size=7).astype(np.float16),
        "c16": rng.normal(size=(20, 20)) + 1j,
        "i8": np.array([2**62 + 1]),
        "u2": np.arange(2000, dtype=np.uint16),
        "bool": rng.normal(size=(50, 50)) > 0,
        "empty": np.zeros((0, 4)),
        "scalar": np.float64(1 / 3),
        "nan": np.array([np.nan, np.inf]),
    }
    store = Store.open(tmp_path / "r.h5", meta())
    put(store, record(0), output(0, arrays={name: Quantity(data) for name, data in arrays.items()}))
    with reader.open(store.finish()) as results:
        found = results.trial(0).arrays
        for name, data in arrays.items():
            back = found[name].read()
            assert back.dtype == np.asarray(data).dtype, name
            np.testing.assert_array_equal(back, data)
        np.testing.assert_array_equal(found["f8"][1, ::2], arrays["f8"][1, ::2])


@pytest.mark.timeout(20)
def test_parameters_with_the_names_of_columns(tmp_path: Path) -> None:
    """They are columns like any other, also where not every trial has one."""
    rows: list[dict[str, Scalar]] = [
        {"number": 0.5, "attempt": "a", "error": "none", "seconds": None},
        {"retry_of": 2, "error": "some", "seconds": 3},
    ]
    path = packed(tmp_path / "r.h5", [record(n, params=row) for n, row in enumerate(rows)])
    with reader.open(path) as results:
        assert [r.params for r in results.records()] == rows
        columns = results.columns()
    assert columns["number"].tolist() == [0, 1]
    assert columns["params/number"][0] == 0.5
    assert columns["params/error"].tolist() == ["none", "some"]
    np.testing.assert_array_equal(columns["params/seconds"], [np.nan, 3.0])
