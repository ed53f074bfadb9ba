"""Patterns that are too large for memory, in a file of this machine: read by parts, then processed by PtyRAD there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.engines.ptyrad import hdf5_patterns, loading_place
from ptydask.engines.ptyrad.loading_place import ScratchSpace
from ptydask.errors import DataError, MissingDependency
from ptydask.machine import memory_limit
from ptydask.store.foreign.links import MissingPart
from ptydask.store.foreign.measurement_array import NoSuchArray, opened_array

_SLAB = 2**26
"""Bytes, in single precision, that are read at a time."""
_IN_PART = (".h5", ".hdf5", ".npy", ".raw", ".zarr")
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, NoSuchArray, MissingPart, MissingDependency)


def choose_folder(config: Mapping[str, Any], file: Path | None, *, counts_held_out: bool) -> Path | None:
    """Of the file that the patterns are read into on this machine; None for memory.

    Raises DataError, which names ``file``, where they fit neither.
    """
    init, preload = config["init_params"], bool(config["model_params"].get("preload_data", True))
    itemsize = stored_itemsize(init)
    need = loading_place.estimate_loading(init, itemsize, counts_held_out=counts_held_out)
    try:
        return loading_place.choose_place(need, memory_limit(), preload, itemsize > 0, scratch_space())
    except loading_place.DoesNotFit as error:
        path = str((init.get("meas_params") or {}).get("path", ""))
        raise DataError(error.rule, file=file, key=hdf5_patterns.PATH, value=path, hint=error.hint) from None


def scratch_space() -> ScratchSpace:
    """The folder for temporary files (``TMPDIR``); one without any room where none can be written to."""
    try:
        folder = Path(tempfile.gettempdir()).resolve()
        return ScratchSpace(folder, shutil.disk_usage(folder).free, _is_in_memory(folder))
    except OSError:
        return ScratchSpace(Path("/tmp"), 0, in_memory=False)


def _is_in_memory(folder: Path) -> bool:
    """Whether it is in a tmpfs, as Linux says it."""
    kinds = dict[Path, str]()
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, point, kind, *_ = line.split()
            kinds[Path(point)] = kind
    return next((kinds[at] for at in (folder, *folder.parents) if at in kinds), "") in ("tmpfs", "ramfs")


def stored_itemsize(init: Mapping[str, Any]) -> int:
    """Bytes of a value in the data file; 0 where that cannot be read in part, or not at all: others say why."""
    params = init.get("meas_params") or {}
    path = Path(str(params.get("path", "")))
    if params.get("selection") is not None or path.suffix.lower() not in _IN_PART:
        return 0
    with suppress(*_UNREADABLE), _opened(path, params, init) as stored:
        if path.suffix.lower() != ".npy" or np.load(path, mmap_mode="r").flags.c_contiguous:
            return int(stored.dtype.itemsize)
    return 0


def _opened(path: Path, params: Mapping[str, Any], init: Mapping[str, Any]) -> Any:
    pixels = int(init["meas_Npix"])
    return opened_array(path, params, (int(init["pos_N_scan_slow"]) * int(init["pos_N_scan_fast"]), pixels, pixels))


@contextmanager
def reading_into(folder: Path | None, init: Mapping[str, Any]) -> Iterator[None]:
    """Within it PtyRAD's Initializer reads the patterns into a file of ``folder``, which goes when they go.

    The array is as PtyRAD reads it, its gaps included: all that PtyRAD then does to it is done in the same order, which
    sums in single precision depend on.
    """
    if folder is None:
        yield
        return
    from ptydask.engines.ptyrad import release  # PyTorch, which whoever only asks for the place need not wait for

    module = release.initializer()
    load = module.load_array_from_file

    def load_into_file(path: str, **params: Any) -> NDArray[np.float32]:
        gap = 1024 if params.get("gap") is None else params["gap"]
        with _opened(Path(path), params, init) as stored:
            return _copy_into(folder, stored, gap if Path(path).suffix.lower() == ".raw" else 0)

    module.load_array_from_file = load_into_file
    try:
        yield
    finally:
        module.load_array_from_file = load


def _copy_into(folder: Path, stored: Any, gap: int) -> NDArray[np.float32]:
    """The stored values in single precision, with as many bytes behind each pattern."""
    count, *shape = stored.shape
    size = 4 * int(np.prod(shape)) + gap
    pattern = np.dtype({"names": ["values"], "formats": [(np.float32, shape)], "itemsize": size})
    with tempfile.TemporaryFile(dir=folder, prefix="ptydask-") as file:
        os.posix_fallocate(file.fileno(), 0, count * size)  # what lacks room fails here
        array = np.memmap(file, pattern, "r+", shape=(count,)).view(np.ndarray)["values"]
    step = max(1, _SLAB // size)
    for first in range(0, count, step):
        array[first : first + step] = stored[first : first + step]
    return array
