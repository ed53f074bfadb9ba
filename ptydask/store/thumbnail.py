"""Small grey pictures: 128 x 128, as stored for the overview of a whole study."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

SIDE = 128


def make(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(128, 128) uint8 of a (y, x) image: aspect kept, darkest 1 and brightest 255, 0 around it."""
    data = np.asarray(image, dtype=np.float64)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    if data.ndim != 2 or 0 in data.shape or not np.isfinite(data).any():
        return picture
    low, high = data[np.isfinite(data)].min(), data[np.isfinite(data)].max()
    data = np.nan_to_num(data, nan=low, posinf=high, neginf=low)
    scale = SIDE / max(data.shape)
    rows, columns = (max(1, round(size * scale)) for size in data.shape)
    small = _resize(_resize(data, rows).T, columns).T
    low, high = small.min(), small.max()
    grey = (small - low) / (high - low) if high > low else np.zeros_like(small)
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    picture[top : top + rows, left : left + columns] = np.round(1 + 254 * grey).astype(np.uint8)
    return picture


def _resize(data: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """``data`` with ``rows`` rows: means of neighbours, or neighbours repeated."""
    size = data.shape[0]
    edges = np.arange(rows) * size // rows
    if size < rows:
        return data[edges]
    counts = np.diff([*edges, size])
    return np.asarray(np.add.reduceat(data, edges, axis=0) / counts[:, None])


def create_stack(group: h5py.Group, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """An empty stack of thumbnails. One tile each, all alike, so that tiles are copied as they lie."""
    if 0 in shape:  # HDF5 has no chunks of nothing
        return group.create_dataset(name, shape=shape, dtype=np.uint8)
    tile = (*[1] * (len(shape) - 2), SIDE, SIDE)
    return group.create_dataset(
        name, shape=shape, dtype=np.uint8, chunks=tile, compression="gzip", compression_opts=1, fletcher32=True
    )


def read_tile(dataset: h5py.Dataset) -> bytes | None:
    """A trial's own thumbnail as it lies in the file, compressed; None where there is none, or it is damaged."""
    return _read_chunk(dataset, ()) if _has_tiles(dataset) else None


def read_tiles(stack: h5py.Dataset) -> list[bytes | None]:
    """The same of every row of a stack."""
    if not _has_tiles(stack):
        return [None] * len(stack)
    tiles: list[bytes | None] = []
    for start in range(0, len(stack), _BLOCK):
        end = min(start + _BLOCK, len(stack))
        sound = _is_readable(stack, slice(start, end))
        tiles += [_read_chunk(stack, (row,), sound=sound) for row in range(start, end)]
    return tiles


_BLOCK = 64
"""Tiles that are looked at together."""


def _has_tiles(dataset: h5py.Dataset) -> bool:
    """Whether any tile was. (HDF5 counts them one by one: ask once for all rows.)"""
    return 0 not in dataset.shape and dataset.id.get_num_chunks() > 0


def _read_chunk(dataset: h5py.Dataset, row: tuple[int, ...], *, sound: bool = False) -> bytes | None:
    """One tile, unless its checksum is wrong: it would spoil the stack that it is copied to. ``sound``: it is not."""
    try:
        tile = bytes(dataset.id.read_direct_chunk((*row, 0, 0))[1])
    except _NO_TILE:
        return None
    return tile if sound or _is_readable(dataset, row) else None


def _is_readable(dataset: h5py.Dataset, part: Any) -> bool:
    """Whether the checksums of all tiles in ``part`` are right."""
    try:
        dataset[part]
    except _NO_TILE:
        return False
    return True


_NO_TILE = (OSError, RuntimeError, ValueError)
"""HDF5 has no other word for "this tile was never written"."""
