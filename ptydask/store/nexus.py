"""How one thing is written into HDF5: a text, an attribute, an array, a plot that NeXus viewers show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.model import Quantity
from ptydask.store import codec, stored

_CHUNK = 512
COMPACT = 4096
"""Bytes of an array that lies in its own header, under the header's checksum."""
_COMPACT_TEXT = 60_000
"""The same of a text. HDF5 ends at 64 kB."""
_LONGEST = 16_000
"""Bytes of a text in an attribute; what is longer is cut there, and whole in a dataset of JSON."""
INT64 = range(-(2**63), 2**63)


def create_group(parent: h5py.Group, name: str, nx_class: str, default: str | None = None) -> h5py.Group:
    """A new group with its NeXus class, and what a viewer shows of it."""
    group = parent.create_group(name)
    write_attribute(group, "NX_class", nx_class)
    if default is not None:
        write_attribute(group, "default", default)
    return group


def clean(text: str) -> str:
    """``text`` as HDF5 can hold it: NUL and lone surrogates spelled out, the rest as it is."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def write_text(parent: h5py.Group, name: str, value: str) -> None:
    """A text of any length. (Attributes end at 64 kB.)"""
    data = encode_texts([value])
    parent.create_dataset(name, data=data[0], dtype=data.dtype, dcpl=_in_header(data, _COMPACT_TEXT))


def encode_texts(values: Sequence[str], longest: int | None = None) -> NDArray[np.bytes_]:
    """The texts in UTF-8, all of one length; those beyond ``longest`` bytes are cut.

    HDF5 keeps texts of varying length aside, without a checksum, and may never return from reading them where they
    are damaged. So nothing that ptydask itself has to read is one; see :func:`write_fact`.
    """
    data = [_cut_text(value, longest).encode() for value in values]
    return np.array(data, h5py.string_dtype("utf-8", max([1, *map(len, data)])))


def _cut_text(value: str, longest: int | None) -> str:
    data = clean(value).encode()
    return (data if longest is None else data[:longest]).decode("utf-8", "ignore")


def _in_header(data: NDArray[Any], limit: int) -> h5py.h5p.PropDCID | None:
    """How to keep small data within its own header; None for other data."""
    if not 0 < data.nbytes <= limit:
        return None
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    return properties


def write_attribute(owner: h5py.HLObject, name: str, value: Any) -> None:
    """An attribute that programs read, of the value's own type; JSON text where HDF5 has none (None, huge integers).

    A text is of fixed length: h5py gives it back as bytes.
    """
    value = _storable_value(value)
    if isinstance(value, str):
        data = encode_texts([value], _LONGEST)
        owner.attrs.create(name, data[0], dtype=data.dtype)
    else:
        owner.attrs[name] = value


def write_fact(owner: h5py.HLObject, name: str, value: Any) -> None:
    """An attribute for people: the same, but h5py gives a text back as one.

    ptydask has it elsewhere. It reads facts, or copies them, only where another process came to an end with them.
    """
    value = _storable_value(value)
    owner.attrs[name] = _cut_text(value, _LONGEST) if isinstance(value, str) else value


def _storable_value(value: Any) -> bool | int | float | str:
    value = codec.scalar(value)
    plain = isinstance(value, bool | float | str) or (isinstance(value, int) and value in INT64)
    return value if plain else codec.dumps(value)


def attribute_equals(owner: h5py.HLObject, name: str, value: Any) -> bool:
    """Whether :func:`write_attribute` or :func:`write_fact` has written ``value`` there."""
    if not h5py.h5a.exists(owner.id, name.encode()):
        return False
    kept, value = stored.read_attribute(owner.id, name), _storable_value(value)
    if isinstance(value, str):
        return _as_text(kept) == _cut_text(value, _LONGEST)
    return type(kept) is type(value) and (kept == value or (kept != kept and value != value))


def read_attribute(owner: h5py.HLObject, name: str) -> str:
    """The text of an attribute, "" where there is none."""
    try:
        return _as_text(stored.read_attribute(owner.id, name))
    except KeyError:
        return ""


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def write_array(parent: h5py.Group, name: str, quantity: Quantity) -> h5py.Dataset:
    """An array with units; compressed and check-summed in tiles of at most 512 x 512."""
    data = np.asarray(quantity.data)
    dataset = write_numbers(parent, name, data)
    if quantity.units:
        write_attribute(dataset, "units", quantity.units)
    if quantity.long_name:
        write_attribute(dataset, "long_name", quantity.long_name)
    if data.ndim >= 2 and min(data.shape[-2:]) > 2:
        write_attribute(dataset, "interpretation", "image")
    return dataset


def write_numbers(parent: h5py.Group, name: str, data: NDArray[Any]) -> h5py.Dataset:
    """An array of numbers or texts, compressed and check-summed where it has a size to speak of."""
    if data.dtype.kind in "UO":
        data = encode_texts([str(item) for item in data.flat]).reshape(data.shape)
    if data.nbytes <= COMPACT or data.ndim == 0:
        return parent.create_dataset(name, data=data, dcpl=_in_header(data, COMPACT))
    return parent.create_dataset(
        name,
        data=data,
        chunks=_chunk_shape(data.shape),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
    )


def _chunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 1:
        return (min(shape[0], _CHUNK * _CHUNK),)
    rows, columns = shape[-2:]
    width = min(columns, _CHUNK)
    # A few long columns, a curve or positions, are no image: their chunks are as large, but longer.
    height = _CHUNK * _CHUNK // width if columns < 8 else _CHUNK
    return (*[1] * (len(shape) - 2), min(rows, height), width)


def create_plot(
    parent: h5py.Group,
    name: str,
    *,
    signal: str,
    axes: Sequence[str],
    title: str,
    beside: Sequence[str] = (),
) -> h5py.Group:
    """A new, still empty NXdata group: ``signal`` over ``axes``, with the signals ``beside`` it."""
    group = create_group(parent, name, "NXdata")
    write_attribute(group, "signal", signal)
    group.attrs["axes"] = encode_texts(axes)
    if beside:
        group.attrs["auxiliary_signals"] = encode_texts(beside)
    write_text(group, "title", title)
    return group


def write_dimension_scale(scale: h5py.Dataset, along: Iterable[h5py.Dataset]) -> None:
    """Make ``scale`` the dimension scale of the 1-D datasets ``along`` it: xarray has names and coordinates by that.

    HDF5's own call would write a list of references into the scale, too, which no digest of ours can hold. And HDF5
    copies references as they are, to lead nowhere in another file: so nothing that is ever copied has any.
    """
    write_attributes(scale, {"CLASS": "DIMENSION_SCALE", "NAME": scale.name.rpartition("/")[2]})
    for dataset in along:
        reference = np.empty(1, object)
        reference[0] = np.array([scale.ref], h5py.ref_dtype)
        dataset.attrs.create("DIMENSION_LIST", reference, dtype=h5py.vlen_dtype(h5py.ref_dtype))


def write_attributes(owner: h5py.HLObject, values: Mapping[str, Any]) -> None:
    """Each of ``values`` as an attribute."""
    for name, value in values.items():
        write_attribute(owner, name, value)


def write_facts(owner: h5py.HLObject, values: Mapping[str, Any]) -> None:
    """Each of ``values`` as a fact."""
    for name, value in values.items():
        write_fact(owner, name, value)


def copy_attributes(source: h5py.HLObject, target: h5py.HLObject, names: Iterable[str] | None = None) -> None:
    """The attributes ``names``, as far as they are there, else all, in the type that they have in the file."""
    there = stored.attribute_names(source.id)
    for name in there if names is None else [name for name in map(str.encode, names) if name in there]:
        old = h5py.h5a.open(source.id, name)  # thousands of trials at a time: h5py's own ways are slow
        space = old.get_space()
        new = h5py.h5a.create(target.id, name, old.get_type(), space)
        if space.get_simple_extent_type() != h5py.h5s.NULL:
            kind = stored.type_of(old)
            new.write(stored.read_value(old, kind, space.shape), mtype=kind.in_memory)


def read_text(parent: h5py.Group, name: str) -> str:
    """A text, "" where there is none."""
    if name not in parent:
        return ""
    data = h5py.h5d.open(parent.id, name.encode())
    kind = stored.type_of(data)
    if kind.dtype.kind == "S" and stored.shape_of(data) == ():
        text: bytes = stored.read_dataset(data, kind, ()).item()
        return text.decode()
    return str(parent[name].asstr()[()])  # of varying length, as others write it; h5py says what is wrong with the rest
