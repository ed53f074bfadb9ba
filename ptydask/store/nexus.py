"""How one thing is written into HDF5: a text, an attribute, an array, a plot that NeXus viewers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.model import Quantity
from ptydask.store import codec

TEXT = h5py.string_dtype("utf-8")
_CHUNK = 512
INT64 = range(-(2**63), 2**63)


def group(parent: h5py.Group, name: str, nx_class: str, default: str | None = None) -> h5py.Group:
    """A new group with its NeXus class, and what a viewer shows of it."""
    made = parent.create_group(name)
    made.attrs["NX_class"] = nx_class
    if default is not None:
        made.attrs["default"] = default
    return made


def clean(text: str) -> str:
    """``text`` as HDF5 can hold it: NUL and lone surrogates spelled out, the rest as it is."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def text(parent: h5py.Group, name: str, value: str) -> None:
    """A text of any length. (Attributes end at 64 kB.)"""
    parent.create_dataset(name, data=clean(value), dtype=TEXT)


def attribute(parent: h5py.HLObject, name: str, value: Any) -> None:
    """An attribute of the value's own type; JSON text where HDF5 has none (None, huge integers)."""
    value = codec.scalar(value)
    if isinstance(value, str):
        parent.attrs[name] = clean(value)
    elif isinstance(value, bool | float) or (isinstance(value, int) and value in INT64):
        parent.attrs[name] = value
    else:
        parent.attrs[name] = codec.dumps(value)


def array(parent: h5py.Group, name: str, quantity: Quantity) -> h5py.Dataset:
    """An array with units; compressed and check-summed in tiles of at most 512 x 512."""
    data = np.asarray(quantity.data)
    made = numbers(parent, name, data)
    if quantity.units:
        made.attrs["units"] = quantity.units
    if quantity.long_name:
        made.attrs["long_name"] = clean(quantity.long_name)
    if data.ndim >= 2 and min(data.shape[-2:]) > 2:
        made.attrs["interpretation"] = "image"
    return made


def numbers(parent: h5py.Group, name: str, data: NDArray[Any]) -> h5py.Dataset:
    """An array of numbers or texts, compressed where it has a size to speak of."""
    if data.dtype.kind in "UO":
        return parent.create_dataset(name, data=[clean(str(item)) for item in data.flat], dtype=TEXT)
    if data.nbytes < 1024:
        return parent.create_dataset(name, data=data)
    return parent.create_dataset(
        name,
        data=data,
        chunks=tuple([1] * (data.ndim - 2) + _tile(data.shape[-2:])),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
    )


def _tile(shape: Sequence[int]) -> list[int]:
    if len(shape) == 1:
        return [min(shape[0], _CHUNK * _CHUNK)]
    width = min(shape[1], _CHUNK)
    return [min(shape[0], _CHUNK * _CHUNK // width) if shape[1] < 8 else min(shape[0], _CHUNK), width]


def plot(
    parent: h5py.Group,
    name: str,
    *,
    signal: str,
    axes: Sequence[str],
    title: str,
    beside: Sequence[str] = (),
) -> h5py.Group:
    """A new, still empty NXdata group: ``signal`` over ``axes``, with the signals ``beside`` it."""
    made = group(parent, name, "NXdata")
    made.attrs["signal"] = signal
    made.attrs["axes"] = np.array(list(axes), dtype=TEXT)
    if beside:
        made.attrs["auxiliary_signals"] = np.array(list(beside), dtype=TEXT)
    text(made, "title", title)
    return made


def attributes(owner: h5py.HLObject, values: Mapping[str, Any]) -> None:
    """Several attributes at once."""
    for name, value in values.items():
        attribute(owner, name, value)


def read_text(parent: h5py.Group, name: str) -> str:
    """A text, "" where there is none."""
    return str(parent[name].asstr()[()]) if name in parent else ""
