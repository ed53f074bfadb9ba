"""A file of measurements as an array that is read by slices: no more of it comes into memory than is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptydask.errors import import_optional
from ptydask.formatting import size_text
from ptydask.store.foreign import links, measurement_headers

HDF5_SUFFIXES = (".h5", ".hdf5", ".mat")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*HDF5_SUFFIXES, ".npy", ".raw", *TIFF_SUFFIXES, ".zarr")
MOST_WHOLE = 2**32
"""Bytes of an array that is read whole, as a compressed .tif and a .mat file from before version 7.3 are."""


class NoSuchArray(Exception):  # noqa: N818 - becomes a DataError
    """The file has no array of patterns under that name, or several without one: why, in one line, and what to do."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.rule, self.hint = rule, hint


@contextmanager
def opened_array(path: Path, params: Mapping[str, Any], expected: tuple[int, int, int]) -> Iterator[Any]:
    """Anything with a shape, a dtype and slices: a dataset of an HDF5 file or of zarr, a mapped file, or an array.

    ``params`` are PtyRAD's ``meas_params``; ``expected`` is the (N, Npix, Npix) of a .raw file without a shape, and
    tells the patterns of a file without a key from other stacks. Raises OSError and ValueError for a file that cannot
    be read, NoSuchArray, MissingPart for a broken link, and MissingDependency where a file needs another package.
    """
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ".zarr":
        raise NoSuchArray("is a folder, not a file")
    if suffix == ".npy":
        yield _MappedAnew(lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    elif suffix == ".raw":
        yield _MappedAnew(lambda: _map_raw(path, params, expected))
    elif suffix in TIFF_SUFFIXES:
        yield _read_tiff(path)
    elif suffix == ".zarr":
        yield _open_zarr(path, params, math.prod(expected))
    elif suffix == ".mat" and not h5py.is_hdf5(path):
        yield _read_old_matlab(path, params.get("key"), math.prod(expected))
    elif suffix in HDF5_SUFFIXES:
        shapes = {} if params.get("key") else measurement_headers.list_datasets(path).shapes
        name = params.get("key") or _find_stack(path, shapes, math.prod(expected))
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
    size, needed = path.stat().st_size, (params.get("offset") or 0) + count * pattern.itemsize
    if size != needed:
        rule = f"has {size} bytes, but {count} patterns of {' x '.join(map(str, shape))} with gap {gap} are {needed}"
        raise NoSuchArray(rule, "see pos_N_scan_slow, pos_N_scan_fast, meas_Npix and meas_params.gap")
    return np.memmap(path, pattern, "r", params.get("offset") or 0, (count,))["values"]


def _read_tiff(path: Path) -> Any:
    """The first series, as PtyRAD's ``imread`` has it."""
    tifffile = import_optional("tifffile", "a .tif file needs", "analysis")
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.dataoffset is not None:
            return tifffile.memmap(path, series=0, mode="r")
        _check_size(path, series.nbytes, "a compressed .tif")
        return series.asarray()


def _read_old_matlab(path: Path, key: str | None, values: int) -> Any:
    scipy_io = import_optional("scipy.io", "a .mat file from before version 7.3 needs", "guess")
    try:
        shapes = {name: tuple(n for n in shape if n != 1) for name, shape, _ in scipy_io.whosmat(path)}
        name = key or _find_stack(path, shapes, values)
        if name not in shapes:
            hint = f"set init_params.meas_params.key to one of {', '.join(shapes)}, or save the patterns as version 7.3"
            raise NoSuchArray(f"no variable {name!r} in {path}", hint)
        _check_size(path, 8 * math.prod(shapes[name]), "a .mat file from before version 7.3")
        return np.asarray(scipy_io.loadmat(path, variable_names=[name], squeeze_me=True)[name])
    except scipy_io.matlab.MatReadError as error:
        raise ValueError(str(error)) from None


def _check_size(path: Path, size: int, what: str) -> None:
    if size > MOST_WHOLE:
        rule = f"{what} of {size_text(size)} is too large to be read whole: {path}"
        raise NoSuchArray(rule, "save the patterns as .h5, of which a part can be read")


def _open_zarr(path: Path, params: Mapping[str, Any], values: int) -> Any:
    zarr = import_optional("zarr", "a .zarr folder needs", "ptyrad")
    root = zarr.open(str(path), mode="r", **(params.get("zarr_kwargs") or {}))
    if hasattr(root, "shape"):
        return root
    arrays = {name: item for name, item in root.members(max_depth=None) if hasattr(item, "shape")}
    name = (params.get("key") or "").strip("/") or _find_stack(path, {n: a.shape for n, a in arrays.items()}, values)
    if name not in arrays:
        hint = f"set init_params.meas_params.key to one of {', '.join(arrays)}"
        raise NoSuchArray(f"no array {name!r} in {path}", hint)
    return arrays[name]


def _find_stack(path: Path, shapes: Mapping[str, tuple[int, ...]], values: int) -> str:
    """The only array of 3 or 4 dimensions, or the only one of so many values."""
    stacks = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    fitting = stacks if len(stacks) == 1 else [name for name in stacks if math.prod(shapes[name]) == values]
    if len(fitting) != 1:
        which = f"{len(stacks)} datasets of 3 or 4 dimensions in {path}" if stacks else f"no patterns in {path}"
        raise NoSuchArray(which, f"set init_params.meas_params.key to one of {', '.join(stacks or shapes)}")
    return fitting[0]
