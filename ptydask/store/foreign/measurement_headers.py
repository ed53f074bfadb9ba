"""What an HDF5 file of measurements holds, from its headers alone: nothing of the data is read."""

from __future__ import annotations

from pathlib import Path

import h5py

from ptydask.store import files


def dataset_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every dataset in the file by its path inside (``entry/data``).

    Raises OSError for a file that is no HDF5 or is cut off.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            shapes[name] = tuple(item.shape or ())

    with files.open_read_only(path) as file:
        file.visititems(visit)
    return shapes


def dataset_shape(path: Path, key: str) -> tuple[int, ...] | None:
    """The shape of the dataset at ``key``; None where there is none, or a group. Raises OSError."""
    with files.open_read_only(path) as file:
        item = file.get(key)
        return tuple(item.shape or ()) if isinstance(item, h5py.Dataset) else None
