"""A few values of a file of measurements, from all over it: enough to see what kind of numbers they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.store.foreign import links

_PLACES, _VALUES = 8, 2**17
"""So many places along the first axis, and so many values at each."""
_LARGEST_CHUNK = 2**25
"""Bytes of a chunk of the file that may be read, and unpacked, for the few values of it."""


@dataclass(frozen=True, slots=True)
class MeasurementSample:
    """Values as the file has them."""

    indices: tuple[int, ...]
    """Where along the first axis they are from; along the others they are the first ones."""
    values: NDArray[np.float32]
    """(len(indices), ...)"""


def read_sample(path: Path, key: str) -> MeasurementSample | None:
    """Of the dataset at ``key``, in which a dot may part groups; None where it is none, or not cheap to read.

    Raises OSError and MissingPart for what cannot be read.
    """
    with links.opened(path) as file:
        item = links.walk(file, key)
        if not isinstance(item, h5py.Dataset):
            item = links.walk(file, key.replace(".", "/"))
        if not isinstance(item, h5py.Dataset) or math.prod(item.chunks or ()) * item.dtype.itemsize > _LARGEST_CHUNK:
            return None
        return sample_array(item)


def sample_array(array: Any) -> MeasurementSample | None:
    """Of anything with a shape, a dtype and slices; None where it holds no real numbers, or fewer than two axes."""
    if array.dtype.kind not in "iuf" or len(array.shape) < 2 or 0 in array.shape:
        return None
    indices = tuple(dict.fromkeys(np.linspace(0, array.shape[0] - 1, _PLACES).astype(int).tolist()))
    rows = max(1, _VALUES // math.prod(array.shape[2:]))
    return MeasurementSample(indices, np.stack([np.asarray(array[i, :rows], np.float32) for i in indices]))
