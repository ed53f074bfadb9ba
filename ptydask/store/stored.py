"""What a dataset or an attribute holds, read with no more calls than HDF5 needs: thousands of trials have dozens each.

h5py asks for type and shape anew at every step, and makes an object of each answer. Here a type is looked at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StoredType:
    """A type in a file."""

    dtype: np.dtype[Any]
    """What h5py reads it as."""
    in_memory: h5py.h5t.TypeID
    """HDF5's own word for ``dtype``."""


_types: dict[bytes, StoredType] = {}
_MOST = 1024
"""Types that are remembered."""


def type_of(item: h5py.h5d.DatasetID | h5py.h5a.AttrID) -> StoredType:
    """The type of what ``item`` holds. Raises what h5py does for one that it cannot read."""
    file_type = item.get_type()
    key = file_type.encode()  # all of it: class, size, byte order, names of fields, character set
    known = _types.get(key)
    if known is None:
        dtype = file_type.dtype
        known = StoredType(dtype, h5py.h5t.py_create(dtype))
        if len(_types) >= _MOST:
            _types.clear()
        _types[key] = known
    return known


def shape_of(item: h5py.h5d.DatasetID | h5py.h5a.AttrID) -> tuple[int, ...] | None:
    """The shape; None where there is no value."""
    space = item.get_space()
    # The shape of what is of no size, and of what is no array, is () alike.
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return None
    shape: tuple[int, ...] = space.shape
    return shape


def attribute_names(item: h5py.h5o.ObjectID) -> list[bytes]:
    """The names of all attributes."""
    listed: list[bytes] = []
    # iterate() stops where its function returns something, and append returns None.
    h5py.h5a.iterate(item, lambda name: listed.append(bytes(name)))
    return listed


def read_value(attribute: h5py.h5a.AttrID, kind: StoredType, shape: tuple[int, ...]) -> NDArray[Any]:
    """The value of an attribute that has one; a text of varying length as an array of bytes objects."""
    value = np.empty(shape, kind.dtype)
    attribute.read(value, mtype=kind.in_memory)
    return value


def read_dataset(data: h5py.h5d.DatasetID, kind: StoredType, shape: tuple[int, ...]) -> NDArray[Any]:
    """The same of a dataset."""
    value = np.empty(shape, kind.dtype)
    data.read(h5py.h5s.ALL, h5py.h5s.ALL, value, mtype=kind.in_memory)
    return value


def read_attribute(owner: h5py.h5o.ObjectID, name: str) -> Any:
    """The value of an attribute, a scalar as Python has it and a text as bytes; None where there is no value.

    Raises KeyError where there is no such attribute.
    """
    attribute = h5py.h5a.open(owner, name.encode())
    shape = shape_of(attribute)
    if shape is None:
        return None
    value = read_value(attribute, type_of(attribute), shape)
    return value if shape else value.item()
