"""Patterns that are too large for memory are processed in a file, with the same results to the last bit."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from engine_cases import NEVER, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns

from ptydask.clusters import ClusterRequest, get
from ptydask.config import Overrides
from ptydask.driver.prepare import ChosenSite, RunRequest, prepare_plan, with_machine_notice
from ptydask.engines.ptyrad import loading_place, measurements, release, scratch_patterns
from ptydask.engines.ptyrad.loading_place import ScratchSpace
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import DataError
from ptydask.machine import MemoryLimit
from ptydask.model import HeldOut

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]

ON_HOST = {"model_params.preload_data": False}
FITS_NOT = MemoryLimit(4 * 64 * 32**2 + 1, "this machine has")
"""Room for the patterns of the tests, and not for what is needed besides."""
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder on a disk, as far as anybody is told."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(scratch_patterns, "scratch_space", lambda: ScratchSpace(folder, 10**12, in_memory=False))
    monkeypatch.setattr(scratch_patterns, "_SLAB", 50_000)
    return folder


def results(config: Mapping[str, Any], held_out: HeldOut | None = None) -> Any:
    session = PtyradSession(plan(config, held_out=held_out), SLOT)
    try:
        return session.run(trial(), go_on, NEVER)
    finally:
        session.close()


def patterns_of(session: Any) -> Any:
    array = session._measurements.variables["measurements"]
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("there", ["local", "a batch system"])
def test_a_run_here_is_refused_before_anything_starts(data: Path, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    """By the sum that a worker makes; jobs may have more memory. A check of the file says it."""
    asked, request = plan(params(data)), RunRequest(Path("params.yaml"), Overrides(), cluster="local")
    place = get("local")
    monkeypatch.setattr(place, "here", there == "local", raising=False)
    site = ChosenSite(place, ClusterRequest(1, 1), "")
    assert prepare_plan(asked, request, site=site).trials_left
    assert with_machine_notice(asked) == asked
    monkeypatch.setattr(scratch_patterns, "memory_limit", lambda: FITS_NOT)
    (notice,) = set(with_machine_notice(asked).notices) - set(asked.notices)
    assert "preload_data: false" in notice
    if there == "local":
        with pytest.raises(DataError, match=r"this machine has .*preload_data: false"):
            prepare_plan(asked, request, site=site)
    else:
        assert prepare_plan(asked, request, site=site).trials_left
    # In a file of this machine there is room.
    assert prepare_plan(plan(params(data, ON_HOST)), request, site=site).trials_left


PROCESSED: dict[str, tuple[Mapping[str, Any], HeldOut | None]] = {
    "as it is": ({}, None),
    "cropped": (VARIANTS["cropped patterns"], None),
    "turned": ({"init_params.meas_flipT": [1, 0, 1]}, None),
    "padded": ({"init_params.meas_pad": {"mode": "precompute", "padding_type": "power", "target_Npix": 40}}, None),
    "noisy": (VARIANTS["Poisson noise"], None),
    "electrons held out": ({}, HeldOut("counts", 0.1)),
}


@pytest.mark.parametrize("processed", PROCESSED.values(), ids=PROCESSED)
def test_results_are_those_of_patterns_in_memory(
    data: Path, processed: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is in no folder any more; other workers of the machine have the same one."""
    changes, held_out = processed
    config = params(data, {**changes, **ON_HOST})
    expected = results(config, held_out)
    monkeypatch.setattr(scratch_patterns, "memory_limit", lambda: FITS_NOT)
    assert_same(results(config, held_out), expected)
    monkeypatch.setattr(loading_place, "SHARED_FROM", 0)
    first = PtyradSession(plan(config, held_out=held_out), SLOT)
    assert any(re.match(rf"{scratch}/ptydask-\w+ \(deleted\)", str(link)) for link in open_files())
    assert_same(results(config, held_out), expected)
    first.close()
    assert list(scratch.iterdir()) == []
    assert not any(str(scratch) in str(link) for link in open_files())


def open_files() -> list[Path]:
    links = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            links.append(file.readlink())
        except OSError:
            continue
    return links


def _hdf5(change: Callable[[Any], Any], **options: Any) -> Callable[[Path, Any], tuple[Path, dict[str, Any]]]:
    def write(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
        with h5py.File(folder / "patterns.h5", "w") as file:
            file.create_dataset("entry/data", data=change(patterns), **options)
        return folder / "patterns.h5", {"init_params.meas_params.key": "entry/data"}

    return write


def _four_axes(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    path, changes = _hdf5(lambda p: p.reshape(8, 8, 32, 32))(folder, patterns)
    return path, {**changes, "init_params.meas_reshape": [-1, 32, 32]}


def _detector_first(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    path, changes = _hdf5(lambda p: p.reshape(8, 8, 32, 32).transpose(2, 3, 0, 1))(folder, patterns)
    return path, {**changes, "init_params.meas_permute": [2, 3, 0, 1], "init_params.meas_reshape": [-1, 32, 32]}


def _matlab(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    path, _ = _hdf5(lambda p: p)(folder, patterns)
    return path.rename(folder / "patterns.mat"), {}


def _truncated(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    path, _ = _npy(lambda p: p)(folder, patterns)
    path.write_bytes(path.read_bytes()[:100])
    return path, {}


def _without_key(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    return _hdf5(lambda p: p)(folder, patterns)[0], {}


def _raw(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    path = folder / "patterns.raw"
    with path.open("wb") as file:
        for pattern in patterns:
            file.write(pattern.astype(np.float32).tobytes() + b"\1" * 1024)
    return path, {}


def _raw_with_noise(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
    """PtyRAD sums all values in single precision, which depends on how they lie in memory."""
    return _raw(folder, patterns)[0], dict(VARIANTS["Poisson noise"])


def _npy(change: Callable[[Any], Any]) -> Callable[[Path, Any], tuple[Path, dict[str, Any]]]:
    def write(folder: Path, patterns: Any) -> tuple[Path, dict[str, Any]]:
        np.save(folder / "patterns.npy", change(patterns))
        return folder / "patterns.npy", {}

    return write


FORMATS: dict[str, Callable[[Path, Any], tuple[Path, dict[str, Any]]]] = {
    "npy": _npy(lambda p: p),
    "npy of doubles, with negative values": _npy(lambda p: p.astype(np.float64) - 3.3),
    "HDF5 of 16-bit counts, compressed": _hdf5(lambda p: p.astype(np.uint16), chunks=(5, 32, 32), compression="gzip"),
    "HDF5, big-endian": _hdf5(lambda p: p.astype(">f4")),
    "HDF5 of half precision": _hdf5(lambda p: (p / 8).astype(np.float16)),
    "HDF5 of four axes": _four_axes,
    "HDF5, the detector first": _detector_first,
    "HDF5 without a key": _without_key,
    "raw": _raw,
    "raw, with noise": _raw_with_noise,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_the_file_is_read_as_ptyrad_reads_it(
    data: Path, tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, changes = write(tmp_path, np.load(data))
    config = params(path, {**changes, **ON_HOST})
    expected = measurements.load(config, 7, "cpu", None)
    itemsize = scratch_patterns.stored_itemsize(config["init_params"])
    assert itemsize > 0
    monkeypatch.setattr(scratch_patterns, "memory_limit", lambda: FITS_NOT)
    in_file = measurements.load(config, 7, "cpu", None)
    assert in_file.shape_params == expected.shape_params
    assert in_file.variables.keys() == expected.variables.keys()
    for name, value in expected.variables.items():
        np.testing.assert_array_equal(in_file.variables[name], value, err_msg=name)


WHOLE: dict[str, Callable[[Path, Any], tuple[Path, dict[str, Any]]]] = {
    "npy in Fortran's order": _npy(np.asfortranarray),
    "MATLAB": _matlab,
    "truncated": _truncated,
    "a selection": lambda folder, patterns: (_hdf5(lambda p: p)(folder, patterns)[0], {"selection": 1}),
}


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_what_ptyrad_alone_can_read_is_read_whole(data: Path, tmp_path: Path, write: Any) -> None:
    path, more = write(tmp_path, np.load(data))
    init = {**params(data)["init_params"], "meas_params": {"path": str(path), **more}}
    assert scratch_patterns.stored_itemsize(init) == 0


REFUSED: dict[str, tuple[Mapping[str, Any], int, str]] = {
    "preloaded": ({}, 4 * 64 * 32**2 + 1, "preload_data: false"),
    "for a byte a value there is no room": (ON_HOST, 60_000, "in a file they still need 65.5 kB"),
}


@pytest.mark.parametrize(("changes", "size", "words"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_room_is_refused_before_it_is_read(
    data: Path, changes: Mapping[str, Any], size: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_patterns, "memory_limit", lambda: MemoryLimit(size, "the job may use"))
    monkeypatch.setattr(measurements, "_read_patterns", None)
    with pytest.raises(DataError) as caught:
        PtyradSession(plan(params(data, changes)), SLOT)
    text = str(caught.value)
    for word in ("328 kB", "64 patterns of 32 x 32", "262 kB", "the job may use", words):
        assert word in text
    assert caught.value.key == "init_params.meas_params.path"


@pytest.mark.slow
def test_no_more_memory_is_needed_than_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of files are the machine's to take back: what is the worker's own stays far below the patterns."""
    count, pixels = 64, 128
    size = 4 * count**2 * pixels**2
    patterns = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint16, (count**2, pixels, pixels))
    patterns[::97, 60:68, 60:68] = 9  # the rest is a hole in the file
    del patterns
    changes = {
        **ON_HOST,
        "init_params.meas_Npix": pixels,
        "init_params.pos_N_scans": count**2,
        "init_params.pos_N_scan_slow": count,
        "init_params.pos_N_scan_fast": count,
    }
    config = params(tmp_path / "large.npy", changes)
    monkeypatch.setattr(scratch_patterns, "memory_limit", lambda: MemoryLimit(size // 2, "this machine has"))
    monkeypatch.setattr(scratch_patterns, "_SLAB", 2**24)
    here, there = FORK.Pipe()

    def measure() -> None:
        before, most = own_memory(), []
        for name in ("_check_raw", "_check_processed"):
            check = getattr(measurements, name)
            vars(measurements)[name] = lambda *a, check=check: (most.append(own_memory()), check(*a))
        loaded = measurements.load(config, 7, "cpu", None, contents="these")
        most.append(own_memory())
        there.send((max(most) - before, float(loaded.variables["measurements"].max())))

    process = FORK.Process(target=measure)
    process.start()
    there.close()
    more, largest = here.recv()
    process.join()
    assert largest > 0
    assert more < size / 4 + 32 * 2**20


def own_memory() -> int:
    """Bytes that no file holds."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]
