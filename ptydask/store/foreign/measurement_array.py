"""A file of measurements as an array that is read by slices: no more of it comes into memory than is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptydask.store.foreign import links, measurement_headers

HDF5_SUFFIXES = (".h5", ".hdf5", ".mat")
SUFFIXES = (*HDF5_SUFFIXES, ".npy", ".raw")
"""Of the files that can be read in part; a .mat file from version 7.3 on."""


class NoSuchArray(Exception):  # noqa: N818 - becomes a DataError
    """The file has no array of patterns under that name, or several without one: why, in one line, and what to do."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.rule, self.hint = rule, hint


@contextmanager
def opened_array(path: Path, params: Mapping[str, Any], expected: tuple[int, int, int]) -> Iterator[Any]:
    """Anything with a shape, a dtype and slices: the dataset of an HDF5 file, or a file that is mapped.

    ``params`` are PtyRAD's ``meas_params``; ``expected`` is the (N, Npix, Npix) of a .raw file without a shape, and
    tells the patterns of an HDF5 file without a key from other stacks. Raises OSError and ValueError for a file that
    cannot be read, NoSuchArray, and MissingPart for a broken link.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        yield _MappedAnew(lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    elif suffix == ".raw":
        yield _MappedAnew(lambda: _map_raw(path, params, expected))
    elif suffix in HDF5_SUFFIXES:
        name = params.get("key") or _find_stack(path, math.prod(expected))
        with links.opened(path) as file:
            item = links.walk(file, name)
            if not isinstance(item, h5py.Dataset):
                item = links.walk(file, name.replace(".", "/"))
            if not isinstance(item, h5py.Dataset):
                raise NoSuchArray(f"no dataset {name!r} in {path}", "see init_params.meas_params.key")
            yield item
    else:
        rule = f"{suffix or 'a file without a suffix'} cannot be read in part"
        raise NoSuchArray(rule, f"of {', '.join(SUFFIXES)} it can")


class _MappedAnew:
    """A file that is mapped for each slice alone: pages of a map that stays count as the process's memory."""

    def __init__(self, open_map: Callable[[], Any]) -> None:
        self._open_map = open_map
        mapped = open_map()
        self.shape, self.dtype = mapped.shape, mapped.dtype

    def __getitem__(self, where: Any) -> Any:
        return np.array(self._open_map()[where])


def _map_raw(path: Path, params: Mapping[str, Any], expected: tuple[int, int, int]) -> Any:
    """EMPAD's format: an offset, then each pattern as 32-bit floats followed by a gap of bytes."""
    count, *shape = params.get("shape") or expected
    gap = 1024 if params.get("gap") is None else params["gap"]
    pattern = np.dtype([("values", np.float32, tuple(shape)), ("gap", np.void, gap)])
    return np.memmap(path, pattern, "r", params.get("offset") or 0, (count,))["values"]


def _find_stack(path: Path, values: int) -> str:
    shapes = measurement_headers.list_datasets(path).shapes
    stacks = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    fitting = stacks if len(stacks) == 1 else [name for name in stacks if math.prod(shapes[name]) == values]
    if len(fitting) != 1:
        which = f"{len(stacks)} datasets of 3 or 4 dimensions in {path}" if stacks else f"no patterns in {path}"
        raise NoSuchArray(which, f"set init_params.meas_params.key to one of {', '.join(stacks or shapes)}")
    return fitting[0]
