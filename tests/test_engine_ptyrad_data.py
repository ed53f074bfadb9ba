"""Measurements that cannot be used are refused when a session opens, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from engine_cases import SLOT, params, plan, write_patterns

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import DataError

pytestmark = pytest.mark.ptyrad


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


def _with(value: float) -> Callable[[Path, np.ndarray[Any, Any]], Path]:
    def write(folder: Path, patterns: np.ndarray[Any, Any]) -> Path:
        patterns[3, 4, 5] = value
        np.save(folder / "bad.npy", patterns)
        return folder / "bad.npy"

    return write


def _saved(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Any:
    def write(folder: Path, patterns: np.ndarray[Any, Any]) -> Path:
        np.save(folder / "bad.npy", change(patterns))
        return folder / "bad.npy"

    return write


def _truncated_npy(folder: Path, patterns: np.ndarray[Any, Any]) -> Path:
    path = folder / "bad.npy"
    np.save(path, patterns)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _truncated_hdf5(folder: Path, patterns: np.ndarray[Any, Any]) -> Path:
    path = folder / "bad.h5"
    with h5py.File(path, "w") as file:
        file["data"] = patterns
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _hdf5_without_patterns(folder: Path, patterns: np.ndarray[Any, Any]) -> Path:
    path = folder / "bad.h5"
    with h5py.File(path, "w") as file:
        file["title"] = "no patterns here"
    return path


BAD = {
    "NaN": (_with(float("nan")), "1 of 65536 values are NaN or infinite, the first at index (3, 4, 5)"),
    "infinity": (_with(float("inf")), "must be finite"),
    "zero": (_saved(lambda p: p * 0), "must have positive intensity, but they sum to 0"),
    "negative": (_saved(lambda p: -p), "must have positive intensity, but they sum to -"),
    "empty": (_saved(lambda p: p[:0]), "are empty"),
    "too few": (
        _saved(lambda p: p[:10]),
        "must have the shape (N_scans=64, Npix=32, Npix=32), but have (10, 32, 32)",
    ),
    "four axes": (_saved(lambda p: p.reshape(8, 8, 32, 32)), "see init_params.meas_permute and meas_reshape"),
    "text": (_saved(lambda p: np.full(p.shape, "x")), "ValueError"),
    "truncated npy": (_truncated_npy, "ValueError"),
    "truncated HDF5": (_truncated_hdf5, "is cut short: 5 kB of 264 kB"),
    "HDF5 without patterns": (_hdf5_without_patterns, "cannot be used as measurements"),
}


@pytest.mark.parametrize("what", BAD)
def test_unusable_measurements_are_refused_in_one_line(data: Path, tmp_path: Path, what: str) -> None:
    """Opening raises DataError whose one line names the params file, the key, the data file and the reason."""
    write, reason = BAD[what]
    path = write(tmp_path, np.load(data))
    with pytest.raises(DataError) as caught:
        PtyradSession(plan(params(path)), SLOT)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("tiny.yaml: init_params.meas_params.path = ")
    assert path.name in text
    assert reason in text.replace("meas_Npix", "Npix")


def test_a_file_that_went_away_is_refused(data: Path, tmp_path: Path) -> None:
    """A data file that was there when the params were checked and is not on the worker is named."""
    path = tmp_path / "gone.npy"
    path.write_bytes(data.read_bytes())
    config = params(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        PtyradSession(plan(config), SLOT)


def test_processing_that_leaves_nothing_is_refused(data: Path) -> None:
    """Settings under which no intensity is left are named, before the first trial."""
    config = params(
        data,
        {"init_params.meas_remove_neg_values": {"mode": "subtract_value", "value": 1e9, "force": True}},
    )
    with pytest.raises(DataError, match="no positive intensity is left after processing"):
        PtyradSession(plan(config), SLOT)
