"""Files that guesses cannot be made from: one line, exit code 2. And odd ones that they can be made from."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from ptydask import demo
from ptydask.cli import main

pytestmark = pytest.mark.usefixtures("without_parallax")


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """The demo's params file as plain values, and its patterns."""
    path = demo.write(tmp_path_factory.mktemp("demo"))
    with h5py.File(path.parent / demo.DATA) as file:
        return yaml.safe_load(path.read_text()), file["patterns"][()]


@pytest.fixture
def guess(tmp_path, params, capsys):
    """Exit code, stdout and stderr of ``ptydask guess`` of the demo with this data file and other ``init_params``."""

    def run(data=None, key="patterns", **init):
        given, stack = params
        if data is None or isinstance(data, np.ndarray):
            stack, data = stack if data is None else data, tmp_path / "data.h5"
            with h5py.File(data, "w") as file:
                file["patterns"] = stack
        where = {"path": str(data), "key": key} if data.suffix == ".h5" else {"path": str(data)}
        section = {**given["init_params"], "meas_params": where, **init}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({**given, "init_params": section}, sort_keys=False))
        code = main(["guess", str(tmp_path / "params.yaml")])
        return code, *capsys.readouterr()

    return run


def refused(answer, *words):
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert all(word in err for word in words), err


BROKEN = {
    "two axes": lambda stack: stack[0],
    "too few": lambda stack: stack[:100],
    "none": lambda stack: stack[:0],
    "complex": lambda stack: stack.astype(complex),
    "truth": lambda stack: stack > 3,
    "texts": lambda stack: np.array([b"a"] * 576),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_other_arrays_are_refused(guess, params, change):
    refused(guess(change(params[1])), "meas_params.path", "24 x 24 of 48 x 48 numbers")


def with_value(stack, value, where):
    stack = stack.astype(np.float64)
    stack[where] = value
    return stack


USELESS = {
    "one NaN": (lambda stack: with_value(stack, np.nan, (5, 3, 3)), "NaN"),
    "a pattern of NaN": (lambda stack: with_value(stack, np.nan, 300), "NaN"),
    "NaN alone": (lambda stack: with_value(stack, np.nan, ...), "NaN"),
    "infinity": (lambda stack: with_value(stack, np.inf, (0, 0, 0)), "infinity"),
    "beyond float32": (lambda stack: stack * 1e300, "float32"),
    "zeros": (lambda stack: stack * 0, "above 0"),
    "negative": (lambda stack: -stack.astype(np.float32), "above 0"),
}


@pytest.mark.parametrize(("change", "word"), USELESS.values(), ids=USELESS)
def test_values_without_meaning_are_refused(guess, params, change, word):
    refused(guess(change(params[1])), "meas_params.path", word)


def test_a_name_that_is_not_there_is_refused(guess, tmp_path):
    refused(guess(key="other"), "other", "meas_params.key")
    refused(guess(tmp_path / "gone.h5"), "no such file")
    refused(guess(tmp_path), "folder")


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.mat", "a.npy", "a.tif", "a.raw", "a.dm4", "a.zarr"])
@pytest.mark.parametrize("content", [b"", b"hello, world" * 50])
def test_files_of_another_kind_are_refused(guess, tmp_path, name, content):
    pytest.importorskip("tifffile")
    (tmp_path / name).write_bytes(content)
    refused(guess(tmp_path / name), name.partition(".")[2])


def test_files_cut_off_are_refused(guess, tmp_path, params):
    for name, write in {
        "whole.h5": lambda path: h5py.File(path, "w").create_dataset("patterns", data=params[1]).file.close(),
        "whole.npy": lambda path: np.save(path, params[1]),
        "whole.raw": lambda path: params[1].astype(np.float32).tofile(path),
    }.items():
        write(tmp_path / name)
        cut = tmp_path / f"cut{Path(name).suffix}"
        cut.write_bytes((tmp_path / name).read_bytes()[:5000])
        refused(guess(cut), "meas_params.path")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probe_kv", None),
        ("pos_scan_step_size", -1),
        ("pos_scan_step_size", float("inf")),
        ("meas_Npix", "48"),
        ("meas_Npix", 48.5),
        ("pos_N_scan_slow", 0),
        ("pos_N_scan_fast", True),
        ("probe_conv_angle", 0),
        ("probe_conv_angle", "wide"),
        ("meas_flipT", [0, 2, 0]),
        ("meas_flipT", "ud"),
        ("meas_flipT", 1),
        ("pos_scan_flipT", [1]),
        ("meas_permute", [0, 0, 1]),
        ("meas_permute", "yx"),
        ("meas_permute", [0, 1, 2, 3]),
        ("meas_permute", ["0", "1", "2"]),
        ("meas_permute", [0.0, 1.0, 2.0]),
        ("meas_permute", [[0], 1, 2]),
        ("meas_crop", [[0, 24, 2], None, None, None]),
        ("meas_crop", [[0], None, None, None]),
        ("meas_crop", [[0, "10"], None, None, None]),
        ("meas_crop", [[5, 2], None, None, None]),
        ("meas_crop", "middle"),
        ("meas_crop", [[0, 2]]),
        ("pos_scan_affine", [1, 0]),
        ("pos_scan_affine", "turned"),
        ("pos_scan_affine", [0, 0, 1, 0]),
        ("meas_calibration", {"mode": "ruler", "value": 1}),
        ("meas_calibration", {"mode": "dx"}),
        ("meas_calibration", {"mode": "dx", "value": 0}),
        ("meas_calibration", "dx"),
        ("meas_params", None),
        ("meas_params", "data.h5"),
        ("meas_params", {"path": None}),
        ("meas_params", {"path": "data.h5", "key": 5}),
        ("meas_params", {"path": "data.h5", "key": ["patterns"]}),
        ("meas_params", {"path": "data.raw", "shape": 576}),
        ("meas_params", {"path": "data.raw", "shape": [576, 48]}),
        ("meas_params", {"path": "data.raw", "gap": "none"}),
        ("meas_params", {"path": "data.raw", "offset": -1}),
        ("meas_params", {"path": "data.zarr", "zarr_kwargs": "path"}),
        ("probe_illum_type", "xray"),
    ],
)
def test_settings_that_say_nothing_are_refused(guess, key, value):
    refused(guess(**{key: value}), f"init_params.{key}")


# --- odd, and told of --------------------------------------------------------------------------------


def table_of(answer):
    code, out, _ = answer
    assert code == 0
    return out


@pytest.mark.parametrize("scan", [(1, 1), (1, 24), (3, 3)])
def test_a_few_positions_have_a_disk_and_no_turn(guess, params, scan):
    slow, fast = scan
    out = table_of(guess(params[1][: slow * fast], pos_N_scan_slow=slow, pos_N_scan_fast=fast))
    assert "24.5" in next(line for line in out.splitlines() if line.startswith("conv_angle"))
    assert "4 x 4 positions" in out


@pytest.mark.parametrize("where", [(2, 40), (24, 24), (0, 0)])
def test_a_hot_pixel_hides_nothing(guess, params, where):
    out = table_of(guess(with_value(params[1], 1e6, (slice(None), *where))))
    assert "24.5" in next(line for line in out.splitlines() if line.startswith("conv_angle"))
    assert "hot" in out


def test_a_shifted_disk_is_told_of(guess, params):
    assert "off the detector's middle" in table_of(guess(np.roll(params[1], 5, axis=2)))


def test_a_disk_over_the_edge_is_told_of(guess, params):
    out = table_of(guess(np.where(np.arange(48) < 31, np.roll(params[1], 10, axis=2), 0)))
    assert "warning: the disk" in out


@pytest.mark.parametrize(("shift", "told"), [((0, 0), False), ((1, 0), True), ((-1, -1), True)])
def test_a_beam_beside_the_middle_pixel_is_told_of(guess, params, shift, told):
    """By one pixel it costs a reconstruction most of its iterations."""
    assert ("off the detector's middle" in guess(np.roll(params[1], shift, (1, 2)))[1]) is told


def test_a_clipped_detector_is_told_of(guess, params):
    assert "clipped" in table_of(guess(params[1][:, 12:36, 12:36], meas_Npix=24))


def test_a_uniform_detector_has_neither(guess, params):
    out = table_of(guess(np.ones_like(params[1])))
    assert "there is none" in out
    assert "good" not in out.partition("MEASURED")[0]
