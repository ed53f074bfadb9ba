"""``ptydask export``: tables, pictures and params files, and what is never overwritten."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import store_cases
import tifffile
import yaml

from ptydask.analysis.export import params as params_file
from ptydask.analysis.export import place, ptyrad_names, tiff
from ptydask.cli import main
from ptydask.errors import UsageError
from ptydask.model import Image, Quantity, TrialState
from ptydask.store import Store, reader

SPACE = {"scale": {"name": "FloatDistribution", "attributes": {"low": 0.9, "high": 1.1, "step": None, "log": False}}}


def config(folder: Path) -> dict[str, Any]:
    """As much of a PtyRAD configuration as an export reads; the data's path is relative."""
    return {
        "init_params": {"meas_params": {"path": "data/patterns.h5", "key": None}, "random_seed": 1},
        "hypertune_params": {"if_hypertune": True},
        "recon_params": {"NITER": 20, "SAVE_ITERS": None, "output_dir": str(folder)},
    }


def study(folder: Path, **changes: Any) -> Path:
    """Four trials: two completed ones, a failed one, and one that was pruned with an error that is NaN."""
    said = {"search_space_json": json.dumps(SPACE), "config_json": json.dumps(config(folder))}
    provenance = {"working_directory": str(folder), "ptyrad": "0.1.0b13.post3"}
    store = Store.open(folder / "study.h5", store_cases.meta(**({**said, "provenance": provenance} | changes)))
    store_cases.put(store, store_cases.record(0, 0.5), store_cases.output(0))
    store_cases.put(store, store_cases.record(1, 0.25, params={"rotation": 2, "scale": 1.5}), picture(1))
    store_cases.put(store, store_cases.failed(2, params={"rotation": 1.0, "optimizer": "Adam"}))
    pruned = store_cases.record(3, math.nan, state=TrialState.PRUNED, metrics={"loss": math.nan})
    store_cases.put(store, pruned, store_cases.output(3, arrays={}, image=None))
    return store.finish()


def picture(number: int) -> Any:
    """Object (1, 2, 24, 16) with its amplitude, an image of rows 3 to 12 and columns 2 to 9."""
    data = store_cases.phase(number)
    arrays = store_cases.output(number).arrays
    shown = Image(data.sum((0, 1))[3:13, 2:10], 0.15 * np.arange(3, 13), 0.15 * np.arange(2, 10), "rad", "angstrom", "")
    amplitude = Quantity(1 + data / 100, "1")
    return store_cases.output(number, arrays={**arrays, "object_amplitude": amplitude}, image=shown)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return study(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of ``ptydask export``, whose exit code has to be ``code``."""
    capsys.readouterr()
    assert main(["export", *map(str, args)]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


# --- tables ---------------------------------------------------------------------------------------


def test_csv_is_what_ls_prints(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same columns, rows and digits as ``ptydask ls --format csv``, on stdout or in a file."""
    out, _ = run(capsys, results, "csv", "-")
    assert main(["ls", str(results), "--format", "csv"]) == 0
    assert out == capsys.readouterr().out
    said, _ = run(capsys, results, "csv")
    assert said == f"{results.with_name('study.csv')}\n"
    assert results.with_name("study.csv").read_text() == out


def test_trials_are_chosen_by_number_and_by_rank(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--trial may be given several times, --top ranks the completed ones, all are the default."""

    def numbers(*args: str) -> list[str]:
        return [row["number"] for row in csv.DictReader(io.StringIO(run(capsys, results, "csv", "-", *args)[0]))]

    assert numbers() == numbers("--all") == ["0", "1", "2", "3"]
    assert numbers("--top", "5") == ["1", "0"]
    assert numbers("--trial", "3", "--trial", "best") == ["3", "1"]


def test_curves_are_in_long_form(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row a trial and step, in csv and in Parquet; a trial without a curve has none."""
    rows = list(csv.DictReader(io.StringIO(run(capsys, results, "csv", "-", "--curves")[0])))
    assert list(rows[0]) == ["trial", "step", "loss", "contrast"]
    assert [(row["trial"], row["step"], row["loss"]) for row in rows[2:4]] == [("0", "3", "0.5"), ("1", "1", "0.9")]
    assert {row["trial"] for row in rows} == {"0", "1", "3"}
    run(capsys, results, "parquet", tmp_path / "curves.parquet", "--curves")
    table = pyarrow.parquet.read_table(tmp_path / "curves.parquet")
    assert table.num_rows == len(rows) == 9
    assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "double", "double"]


def test_parquet_columns_have_types(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, texts and times as such; null where a trial has no value, NaN where that is the value."""
    run(capsys, results, "parquet", tmp_path / "table.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "table.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["params.rotation"] == kinds["error"] == "double"
    assert kinds["params.optimizer"] == "string"
    assert kinds["started"] == "timestamp[us, tz=UTC]"
    columns = table.to_pydict()
    assert columns["params.optimizer"] == [None, None, "Adam", None]
    assert columns["error"][2] is None
    assert math.isnan(columns["error"][3])
    assert columns["params.rotation"] == [-1.5, 2.0, 1.0, 1.5]


def test_parquet_says_what_the_study_was(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Study, metric, direction and search space are in the schema, units with the parameters."""
    run(capsys, results, "parquet", tmp_path / "table.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "table.parquet")
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert (about["study"], about["metric"], about["direction"]) == ("tBL_WSe2", "loss", "minimize")
    assert json.loads(about["search_space"]) == SPACE
    assert schema.field("params.rotation").metadata[b"unit"] == b"degree"


def test_mixed_parameters_are_json_in_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values without a common type, and integers beyond 64 bits, are JSON texts, and the column says so."""
    records = [
        store_cases.record(0, params={"a": "x", "b": 2**70, "c": True, "d": None}),
        store_cases.record(1, params={"a": 1, "b": 1, "c": False, "d": 3}),
    ]
    path = store_cases.packed(tmp_path / "mixed.h5", records)
    run(capsys, path, "parquet", tmp_path / "mixed.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "mixed.parquet")
    assert [json.loads(value) for value in table["params.a"].to_pylist()] == ["x", 1]
    assert [json.loads(value) for value in table["params.b"].to_pylist()] == [2**70, 1]
    assert table.schema.field("params.a").metadata[b"encoding"] == b"json"
    assert table["params.c"].to_pylist() == [True, False]
    assert (str(table.schema.field("params.d").type), table["params.d"].to_pylist()) == ("int64", [None, 3])


# --- pictures -------------------------------------------------------------------------------------


def test_tiff_is_calibrated_for_imagej(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pixel size, unit, slice spacing and the place on the object are where ImageJ looks for them."""
    run(capsys, results, "tiff", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "trial_000001_image.tif") as file:
        told = file.imagej_metadata
        pixels, per = file.pages[0].tags["XResolution"].value
        assert per / pixels == pytest.approx(0.15)
        assert (told["unit"], told["xorigin"], told["yorigin"]) == ("angstrom", -2, -3)
    with tifffile.TiffFile(tmp_path / "out" / "trial_000001_phase.tif") as file:
        assert (file.imagej_metadata["slices"], file.imagej_metadata["spacing"]) == (2, 6.5)
        np.testing.assert_array_equal(file.asarray(), store_cases.phase(1)[0])
    with tifffile.TiffFile(tmp_path / "out" / "trial_000001_probe.tif") as file:
        assert file.asarray().shape == (2, 8, 8)


def test_tiff_says_which_trial_it_is(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters and error are in the ImageDescription, and in what ImageJ shows as its info."""
    run(capsys, results, "tiff", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "trial_000001_image_8bit.tif") as file:
        line = next(part for part in file.pages[0].description.splitlines() if part.startswith("ptydask="))
        facts = json.loads(line.removeprefix("ptydask="))
        assert json.loads(file.imagej_metadata["Info"]) == facts
    assert (facts["trial"], facts["error"], facts["params"]) == (1, 0.25, {"rotation": 2, "scale": 1.5})


def test_greys_of_8_bits_stand_for_radians(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """c0 + c1 * grey, which ImageJ shows, is the phase again, to half a grey; only extreme pixels are clipped."""
    run(capsys, results, "tiff", tmp_path / "out")
    raw = tifffile.imread(tmp_path / "out" / "trial_000001_image.tif")
    with tifffile.TiffFile(tmp_path / "out" / "trial_000001_image_8bit.tif") as file:
        told, grey = file.imagej_metadata, file.asarray()
    assert (grey.dtype, told["cf"], told["vunit"]) == (np.uint8, 0, "rad")
    back = told["c0"] + told["c1"] * grey.astype(float)
    inside = (raw > told["c0"]) & (raw < told["c0"] + 255 * told["c1"])
    assert inside.mean() > 0.95
    np.testing.assert_allclose(back[inside], raw[inside], atol=0.51 * told["c1"])
    assert (grey.min(), grey.max()) == (0, 255)


def test_parts_and_trials_without_pictures(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--parts and --bits choose; a trial without arrays is named on stderr, and the others are written."""
    out, err = run(capsys, results, "tiff", "--parts", "image", "--bits", "raw", tmp_path / "out", "--all")
    assert out.split() == [str(tmp_path / "out" / f"trial_{n:06d}_image.tif") for n in (0, 1)]
    assert "trial 2 has no image" in err
    assert "trial 3 has no image" in err
    _, err = run(capsys, results, "tiff", tmp_path / "none", "--trial", 2, code=1)
    assert err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_flat_picture_is_black(tmp_path: Path) -> None:
    """Constant data have no contrast: no division by zero, and every grey is 0."""
    grey, low, high = tiff.clip_to_depth(np.full((4, 4), 2.5), "8")
    assert (grey.max(), low, high) == (0, 2.5, 2.5)
    assert ptyrad_names.scale_to_depth(np.full((4, 4), 2.5), "16")[0].max() == 0


def test_xrays_are_in_nanometres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths in metres would be lost in a TIFF's resolution: they are told in nm."""
    store = Store.open(tmp_path / "x.h5", store_cases.meta())
    attributes = {"pixel_size": 2e-8, "length_unit": "m"}
    store_cases.put(store, store_cases.record(0), store_cases.output(0, attributes=attributes, image=None))
    run(capsys, store.finish(), "tiff", tmp_path / "out", "--parts", "phase")
    with tifffile.TiffFile(tmp_path / "out" / "trial_000000_phase.tif") as file:
        pixels, per = file.pages[0].tags["XResolution"].value
        assert (file.imagej_metadata["unit"], per / pixels) == ("nm", pytest.approx(20))


# --- params files ---------------------------------------------------------------------------------


def test_params_of_any_trial(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trial's values and seed in place, hypertune off, a comment that says which trial it is."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "patterns.h5").touch()
    out, err = run(capsys, results, "params", tmp_path / "trial.yaml", "--trial", 3)
    text = Path(out.strip()).read_text()
    assert text.startswith("# tBL_WSe2, trial 3 (pruned): loss nan\n")
    made = yaml.safe_load(text)
    assert made["init_params"]["pos_scan_affine"] == [0.98, 0.0, 1.5, 0.0]
    assert made["init_params"]["random_seed"] == 3
    assert made["hypertune_params"] == {"if_hypertune": False}
    assert err == ""


def test_params_iterations(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NITER is the study's, a number, or what the trial did; at the end PtyRAD saves, where the study saved nothing."""

    def steps(*args: object) -> tuple[int, int]:
        recon = yaml.safe_load(run(capsys, results, "params", "-", *args)[0])["recon_params"]
        return recon["NITER"], recon["SAVE_ITERS"]

    assert steps() == (20, 20)
    assert steps("--iterations", 50) == (50, 50)
    assert steps("--iterations", "own", "--trial", 3) == (3, 3)
    _, err = run(capsys, results, "params", "-", "--iterations", "own", "--trial", 2, code=2)
    assert "trial 2 did no iteration" in err


def test_data_that_moved_with_the_results_are_found(results: Path, tmp_path: Path) -> None:
    """A relative path is looked for where the run was, then beside the results; what is nowhere is said."""
    with reader.open(results) as opened:
        meta, record = opened.meta, opened.best()
        assert record is not None

    def path(near: Path) -> tuple[str, tuple[str, ...]]:
        made = params_file.of_trial(meta, record, near=near)
        return yaml.safe_load(made.text)["init_params"]["meas_params"]["path"], made.notes

    here, elsewhere = tmp_path / "data" / "patterns.h5", tmp_path / "moved" / "data" / "patterns.h5"
    found, notes = path(tmp_path / "study.h5")
    assert found == str(here)
    assert notes == (f"init_params.meas_params.path: {here} is not on this machine",)
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    assert path(tmp_path / "moved" / "study.h5") == (str(elsewhere), ())
    here.parent.mkdir()
    here.touch()
    assert path(tmp_path / "moved" / "study.h5") == (str(here), ())


def test_other_engines_have_parameters_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study that was not PtyRAD's has its parameters exported, and no model file."""
    path = study(tmp_path, engine="toy")
    out, _ = run(capsys, path, "params", "-")
    assert yaml.safe_load(out) == {"rotation": 2, "scale": 1.5}
    assert out.startswith("# tBL_WSe2, trial 1")
    for kind in ("model", "resume"):
        _, err = run(capsys, path, kind, code=1)
        assert "'toy'" in err
    _, err = run(capsys, path, "params", "--iterations", 3, code=2)
    assert "--iterations" in err


def test_results_without_a_params_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results that do not hold a params file, or tuned what PtyRAD does not know, say so in one line."""
    path = study(tmp_path, config_json="{}")
    _, err = run(capsys, path, "params", "-", code=1)
    assert "do not hold the params file" in err
    known = json.dumps(config(tmp_path))
    strange = store_cases.packed(tmp_path / "s.h5", [store_cases.record(0, params={"zoom": 1.0})], config_json=known)
    _, err = run(capsys, strange, "params", "-", code=1)
    assert "zoom is no parameter of PtyRAD" in err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 1, None), (1, None)),  # from the first iteration on, for ever
        ((30, 1, None), (20, None)),  # not begun yet
        ((5, 4, 40), (3, 30)),  # acts at 5, 9, 13 = 10 + 3 ...
        ((1, 1, 10), (None, None)),  # over
        ((1, 1, 11), (None, None)),  # its last iteration was the 10th
        ((1, 1, 12), (1, 2)),  # one is left, the 11th
    ],
)
def test_the_schedule_goes_on(given: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """After 10 iterations, an entry acts at those iterations at which it would have acted in one run."""
    start, step, end = given
    moved = params_file.shift_iterations({"start_iter": start, "step": step, "end_iter": end}, 10)
    assert (moved["start_iter"], moved["end_iter"]) == expected

    def acts(at: int, start: Any, end: Any) -> bool:
        return start is not None and at >= start and (end is None or at < end) and (at - start) % step == 0

    for at in range(11, 60):
        assert acts(at, start, end) == acts(at - 10, moved["start_iter"], moved["end_iter"])


# --- PtyRAD's names -------------------------------------------------------------------------------


def test_names_of_trials_that_are_maximised(tmp_path: Path) -> None:
    """PtyRAD minimises the negative contrast, and says so in the name."""
    record = store_cases.record(12, 1.25, params={"rotation": -1.5, "scale": 0.98, "plr": 1e-4, "optimizer": "Adam"})
    assert (
        ptyrad_names.trial_text(record, "maximize")
        == "_error_-1.25000_t0012_optimizer_Adam_plr_1.0e-04_scale_0.98_rotation_-1.5"
    )
    assert ptyrad_names.trial_text(record, "minimize", with_params=False) == "_error_1.25000_t0012"


def test_long_names_are_cut_before_the_suffix() -> None:
    """At 255 characters, as PtyRAD does."""
    name = ptyrad_names.truncate_name("a" * 300 + ".tif")
    assert (len(name), name[-5:]) == (255, "a.tif")
    assert ptyrad_names.truncate_name("b.tif") == "b.tif"


# --- what is not done -----------------------------------------------------------------------------


def test_what_is_there_is_not_replaced(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file under a given name needs --force, our own names of tables do not, and half a file is never left."""
    mine = tmp_path / "mine.csv"
    mine.write_text("precious")
    _, err = run(capsys, results, "csv", mine, code=2)
    assert err.count("\n") == 1
    assert "--force" in err
    assert mine.read_text() == "precious"
    run(capsys, results, "csv", mine, "--force")
    assert mine.read_text().startswith("number,")
    run(capsys, results, "csv")
    run(capsys, results, "csv")
    run(capsys, results, "params")
    run(capsys, results, "params", code=2)  # a person edits those
    assert not list(tmp_path.glob(".*aside"))


def test_a_results_file_is_never_replaced(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even with --force."""
    before = results.read_bytes()
    for kind in ("csv", "parquet", "params"):
        _, err = run(capsys, results, kind, results, "--force", code=2)
        assert "results file" in err
    assert results.read_bytes() == before


def test_pictures_replace_only_pictures_of_ours(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same export twice is fine; somebody else's file of the same name stays."""
    folder = tmp_path / "out"
    run(capsys, results, "tiff", folder)
    run(capsys, results, "tiff", folder)
    (folder / "trial_000001_image.tif").write_text("somebody's")
    _, err = run(capsys, results, "tiff", folder, code=2)
    assert "trial_000001_image.tif: is there already" in err
    assert (folder / "trial_000001_image.tif").read_text() == "somebody's"


def test_places_that_cannot_be(tmp_path: Path) -> None:
    """A folder in place of a file, a file in place of a folder, and a folder that is not there."""
    (tmp_path / "file").touch()
    for call in (
        lambda: place.check_output_path(tmp_path, replace=True),
        lambda: place.check_output_path(tmp_path / "no" / "a.csv", replace=True),
        lambda: place.ensure_folder(tmp_path / "file"),
        lambda: place.ensure_folder(tmp_path / "file" / "below"),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["cvs"], "invalid choice: 'cvs'"),
        (["csv", "--trial", "9"], "there is no trial 9; the nearest is 3"),
        (["csv", "--trial", "bets"], "neither a trial's number nor 'best'"),
        (["csv", "--trial", "1", "--top", "2"], "not allowed with"),
        (["tiff", "--parts", "imag"], "did you mean 'image'?"),
        (["tiff", "--bits", "16"], "--ptyrad-names"),
        (["tiff", "--ptyrad-names", "--parts", "probe"], "save_result"),
        (["parquet", "-"], "no text"),
    ],
)
def test_bad_usage_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    """Exit code 2, one line that says what to change, nothing written."""
    monkeypatch.chdir(results.parent)
    before = set(results.parent.rglob("*"))
    _, err = run(capsys, results, *args, code=2)
    assert err.count("\n") == 1
    assert said in err
    assert set(results.parent.rglob("*")) == before


def test_nothing_completed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``best`` of a study in which nothing completed is an error, the table is not."""
    path = store_cases.packed(tmp_path / "none.h5", [store_cases.failed(0)])
    _, err = run(capsys, path, "params", code=1)
    assert "no trial has completed so far (1 recorded)" in err
    assert run(capsys, path, "csv", "-")[0].count("\n") == 2


def test_a_model_needs_its_arrays(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed trial has no model file: the error says what is missing and why."""
    _, err = run(capsys, results, "model", tmp_path / "m.hdf5", "--trial", 2, code=1)
    assert "trial 2 has no object_amplitude, object_phase" in err
    assert not (tmp_path / "m.hdf5").exists()


def test_the_folder_of_a_running_study_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in NAME.trials are results, too: not even --force writes there; nor into a closed folder."""
    store = Store.open(tmp_path / "on.h5", store_cases.meta())
    store_cases.put(store, store_cases.record(0), store_cases.output(0))
    (own,) = (tmp_path / "on.trials").glob("0*.h5")
    before = own.read_bytes()
    for target in (own, own.with_name("new.csv")):
        _, err = run(capsys, tmp_path / "on.h5", "csv", target, "--force", code=2)
        assert "holds the trials of a study" in err
    assert own.read_bytes() == before
    monkeypatch.setattr("os.access", lambda path, mode: False)
    _, err = run(capsys, tmp_path / "on.h5", "csv", tmp_path / "table.csv", code=2)
    assert f"{tmp_path / 'table.csv'}: no permission" in err


def test_a_trial_named_twice_comes_once(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--trial 1 --trial best is one row where the best is trial 1."""
    out, _ = run(capsys, results, "csv", "-", "--trial", "1", "--trial", "best", "--trial", "1")
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("axes", "units", "expected"),
    [("angstrom", "1", ("angstrom", 0.15, "gray")), ("pixel", "rad", ("pixel", 1.0, "rad"))],
)
def test_an_imported_picture_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], axes: str, units: str, expected: tuple[str, float, str]
) -> None:
    """A trial that was imported from a TIFF has its pixel size in the picture alone, and perhaps mere greys."""
    step = expected[1]
    image = Image(np.arange(12.0).reshape(3, 4), step * np.arange(3), step * np.arange(4), units, axes, "")
    store = Store.open(tmp_path / "i.h5", store_cases.meta())
    store_cases.put(store, store_cases.record(0), store_cases.output(0, arrays={}, attributes={}, image=image))
    run(capsys, store.finish(), "tiff", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "trial_000000_image_8bit.tif") as file:
        pixels, per = file.pages[0].tags["XResolution"].value
        told = file.imagej_metadata
        assert (told["unit"], per / pixels, told["vunit"]) == (expected[0], pytest.approx(step), expected[2])


def test_pixels_of_a_diverged_trial(tmp_path: Path) -> None:
    """NaN is black in PtyRAD's bit depths, and nothing is said of a cast."""
    for bit in ("8", "16"):
        assert ptyrad_names.scale_to_depth(np.full((2, 2), np.nan), bit)[0].max() == 0


def test_a_damaged_tiff_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one, tifffile raises anything; it stays where it is."""

    def torn(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tifffile, "TiffFile", torn)
    assert not tiff.is_ours(tmp_path / "torn.tif")


@pytest.mark.parametrize(
    ("changes", "attributes", "why"),
    [
        ({}, {}, "its arrays were not kept"),
        ({"state": TrialState.FAIL}, {}, "it failed"),
        ({}, {"not_imported": "model.hdf5: not readable"}, "not imported: model.hdf5: not readable"),
    ],
)
def test_why_there_is_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], attributes: dict[str, Any], why: str
) -> None:
    """A trial without arrays says what became of them."""
    store = Store.open(tmp_path / "a.h5", store_cases.meta())
    output = store_cases.output(0, arrays={}, image=None, attributes=attributes)
    store_cases.put(store, store_cases.record(0, **changes), output)
    _, err = run(capsys, store.finish(), "model", "--trial", 0, code=1)
    assert err.endswith(f"positions: {why}\n")
