"""Studies and trials for the tests of the results store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptydask.model import Image, KeepOptions, Quantity, Reason, Scalar, StudyMeta, TrialOutput, TrialRecord, TrialState
from ptydask.store import Shard, Store, files, shard
from ptydask.store.upkeep import packing, rebuild

KEEP = KeepOptions()


def meta(name: str = "tBL_WSe2", **changes: Any) -> StudyMeta:
    """A study of two parameters."""
    said: dict[str, Any] = {
        "name": name,
        "direction": "minimize",
        "metric": "loss",
        "engine": "ptyrad",
        "config_text": "init_params: {}\n",
        "config_format": "ptyrad",
        "config_json": "{}",
        "search_space_json": '{"scale": {}, "rotation": {}}',
        "provenance": {"host": "node1", "data sha256": "ab/cd"},
        "created": "2025-01-01T00:00:00+00:00",
    }
    return StudyMeta(**(said | changes))


def record(number: int, error: float | None = None, **changes: Any) -> TrialRecord:
    """A completed trial, its error falling with its number."""
    error = 1 / (number + 3) if error is None else error
    params: dict[str, Scalar] = {"rotation": -1.5 + number, "scale": 0.98}
    said: dict[str, Any] = {
        "state": TrialState.COMPLETE,
        "error": error,
        "params": params,
        "metrics": {"loss": error, "contrast": 0.1 + 1e-17 * number},
        "started": "2025-01-01T00:00:01+00:00",
        "seconds": 0.1 + 0.2,
        "worker": "worker-1",
        "host": "node1",
        "job": "17",
        "device": "cpu",
        "seed": number,
    }
    return TrialRecord(number=number, **(said | changes))


def failed(number: int, **changes: Any) -> TrialRecord:
    """A trial that raised."""
    said: dict[str, Any] = {
        "state": TrialState.FAIL,
        "reason": Reason.FAILED,
        "message": "RuntimeError: out of memory",
        "traceback": "Traceback ...\nRuntimeError: out of memory\n",
        "metrics": {},
    }
    return TrialRecord(**{**_fields(record(number)), "error": None, **said, **changes})


def _fields(made: TrialRecord) -> dict[str, Any]:
    return {name: getattr(made, name) for name in made.__slots__}


def phase(number: int, shape: tuple[int, ...] = (1, 2, 24, 16)) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An object phase that tells its trial's number."""
    return np.random.default_rng(number).normal(size=shape).astype(np.float32)


def output(number: int = 0, **changes: Any) -> TrialOutput:
    """Everything that an engine can give."""
    data = phase(number)
    said: dict[str, Any] = {
        "metrics": {"loss": 0.5, "contrast": 0.1},
        "curve": {"step": [1, 2, 3], "loss": [0.9, 0.7, 0.5], "contrast": [0.3, 0.2, 0.1]},
        "arrays": {
            "object_phase": Quantity(data, "rad", "phase of the object"),
            "probe": Quantity(np.full((2, 8, 8), 1 + 2j, np.complex64)),
            "positions": Quantity(np.arange(600.0).reshape(300, 2), "angstrom"),
            "slice_thickness": Quantity(np.float32(6.5), "angstrom"),
        },
        "image": Image(
            data.sum((0, 1)), 0.15 * np.arange(24), 0.15 * np.arange(16), "rad", "angstrom", "phase, summed over depth"
        ),
        "snapshots": {20: {"object_phase": Quantity(data * 2, "rad")}},
        "attributes": {"pixel_size": 0.15, "affine": None},
        "log": "one line\nanother\n",
    }
    return TrialOutput(**(said | changes))


def put(
    store: Store, made: TrialRecord, given: TrialOutput | None = None, keep: KeepOptions = KEEP, *, check: bool = True
) -> Shard:
    """What a worker and the driver do with a trial that ended."""
    written = shard.write(store.folder, made, given, keep, direction=store.meta.direction, metric=store.meta.metric)
    store.add(made, written if check else None)
    return written


def stopped(path: Path, numbers: range | list[int], **changes: Any) -> Path:
    """A study that was stopped: an index, and the trials' own files."""
    store = Store.open(path, meta(**changes))
    for number in numbers:
        put(store, record(number), output(number))
    store.close()
    return path


def packed(path: Path, records: list[TrialRecord], **changes: Any) -> Path:
    """A finished study with arrays in its completed trials."""
    store = Store.open(path, meta(**changes))
    for made in records:
        put(store, made, output(made.number) if made.state is TrialState.COMPLETE else None)
    return store.finish()


def damage(path: Path, dataset: str) -> None:
    """Flip a byte of a dataset's data."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(data)


def pack_copy(path: Path) -> Path:
    packing.pack(path, out=path.with_name("copy.h5"))
    return path.with_name("copy.h5")


def rebuild_elsewhere(path: Path) -> Path:
    rebuild.rebuild(path, path.with_name("rebuilt.h5"))
    return path.with_name("rebuilt.h5")


@contextmanager
def full_disk(writes: int) -> Iterator[None]:
    """Within it the disk has no room for a file written aside after so many ``writes`` to it."""
    count, put_data = 0, files.AsideFile.put

    def put_first(aside: files.AsideFile, data: memoryview, offset: int) -> None:
        nonlocal count
        count += 1
        if count > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put_data(aside, data, offset)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files.AsideFile, "put", put_first)
        yield
