"""A group before it is written: composed in memory, its digest taken there, then written in one go.

A trial's group is dozens of attributes and arrays of a few numbers, where h5py's own objects cost several times what
HDF5 does. Here they are as much like h5py's as those who write need: ``nexus`` writes into either. ``digest`` takes
the digest of a draft as it takes that of the group which :func:`save` makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.store import stored

Value = str | NDArray[Any]
"""Of an attribute; a ``str`` is a text of varying length, all else is an array, of no axis where it is a scalar."""
_MANY = 256
"""Attributes that a group keeps in its header; beyond that HDF5 looks them up in a tree, which costs more to write."""


class Attributes(dict[str, Value]):
    """The attributes of a draft, by their names."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value if isinstance(value, str) else np.asarray(value, order="C"))

    def create(self, name: str, data: NDArray[Any], dtype: np.dtype[Any] | None = None) -> None:
        """Set an attribute; as h5py has it."""
        self[name] = np.asarray(data, dtype)


@dataclass(slots=True)
class Dataset:
    """An array to be written."""

    data: NDArray[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """What h5py's ``create_dataset`` is told besides."""
    attrs: Attributes = field(default_factory=Attributes)

    def __setitem__(self, part: Any, value: Any) -> None:
        self.data[part] = value


@dataclass(slots=True)
class Group:
    """A group to be written, with all below it."""

    attrs: Attributes = field(default_factory=Attributes)
    members: dict[str, Group | Dataset | h5py.SoftLink] = field(default_factory=dict)

    def create_group(self, name: str) -> Group:
        """A new, empty group in this one. Raises ValueError where there is one of that name."""
        group = Group()
        self[name] = group
        return group

    def create_dataset(
        self, name: str, shape: tuple[int, ...] = (), dtype: Any = None, data: Any = None, **options: Any
    ) -> Dataset:
        """A new array in this group, of zeros where no ``data`` is given. Raises ValueError as above."""
        values = np.zeros(shape, dtype) if data is None else np.asarray(data, dtype, order="C")
        dataset = Dataset(values, options)
        self[name] = dataset
        return dataset

    def __setitem__(self, name: str, member: Group | Dataset | h5py.SoftLink) -> None:
        if name in self.members:
            raise ValueError(f"name already exists: {name!r}")
        self.members[name] = member

    def walk(self) -> Iterator[Group | Dataset]:
        """This group and all groups and arrays below it."""
        yield self
        for member in self.members.values():
            if isinstance(member, Group):
                yield from member.walk()
            elif isinstance(member, Dataset):
                yield member

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(item.data.nbytes for item in self.walk() if isinstance(item, Dataset))

    @property
    def exact(self) -> bool:
        """Whether all values are of types that HDF5 gives back bit by bit: those of a few have bytes of no meaning."""
        return all(
            is_exact(value.dtype)
            for item in self.walk()
            for value in (*item.attrs.values(), *([item.data] if isinstance(item, Dataset) else []))
            if not isinstance(value, str)
        )


def is_exact(dtype: np.dtype[Any]) -> bool:
    """Whether a type of numbers, or of texts of fixed length, is one of the plain ones."""
    kind = dtype.kind
    if kind == "S":
        return dtype.itemsize > 0
    return dtype.metadata is None and kind in "biufc" and dtype.itemsize <= (16 if kind == "c" else 8)


def load_attributes(owner: h5py.h5o.ObjectID) -> Attributes:
    """The attributes of a group or an array in a file. Raises TypeError for one that no draft of ours would have."""
    attributes = Attributes()
    for encoded in stored.attribute_names(owner):
        attribute = h5py.h5a.open(owner, encoded)
        kind, shape, name = stored.type_of(attribute), stored.shape_of(attribute), encoded.decode()
        text = h5py.check_string_dtype(kind.dtype)
        is_text = text is not None and text.length is None and shape == ()
        if shape is None or not (is_text or is_exact(kind.dtype)):
            raise TypeError(f"attribute {name!r} is of a type that ptydask does not write")
        value = stored.read_value(attribute, kind, shape)
        attributes[name] = value.item().decode() if is_text else value
    return attributes


# --- writing ------------------------------------------------------------------------------------------


def save(group: h5py.Group, draft: Group) -> None:
    """Write the attributes and members of ``draft`` into ``group``, which has none of these. Raises what h5py does."""
    _save_attributes(group.id, draft.attrs)
    _save_members(group.id, draft)


def _save_members(group: h5py.h5g.GroupID, draft: Group) -> None:
    for name, member in draft.members.items():
        if isinstance(member, Group):
            created = create_group(group, name)
            _save_attributes(created, member.attrs)
            _save_members(created, member)
        elif isinstance(member, Dataset):
            _save_attributes(_save_dataset(group, name, member), member.attrs)
        else:
            group.links.create_soft(name.encode(), member.path.encode(), lcpl=_link_properties(name))


def create_group(parent: h5py.h5g.GroupID, name: str) -> h5py.h5g.GroupID:
    """A new, empty group whose attributes stay in its header, be they a few or many."""
    return h5py.h5g.create(parent, name.encode(), lcpl=_link_properties(name), gcpl=_group_properties())


def _save_dataset(group: h5py.h5g.GroupID, name: str, dataset: Dataset) -> h5py.h5d.DatasetID:
    data, options = dataset.data, dataset.options
    if options.keys() - {"dcpl"} or not is_exact(data.dtype):
        return h5py.Group(group).create_dataset(name, data=data, **options).id
    kind = _type_of(data.dtype)
    created = h5py.h5d.create(
        group, name.encode(), kind, _space_of(data.shape), options.get("dcpl"), lcpl=_link_properties(name)
    )
    if data.size:
        created.write(h5py.h5s.ALL, h5py.h5s.ALL, data, kind)
    return created


def _save_attributes(owner: h5py.h5o.ObjectID, attributes: Attributes) -> None:
    for name, value in attributes.items():
        if isinstance(value, str):
            stored, in_memory = _text_types()
            created = h5py.h5a.create(owner, name.encode(), stored, _space_of(()))
            created.write(np.array(value, _TEXT), mtype=in_memory)
        else:
            kind = _type_of(value.dtype) if is_exact(value.dtype) else h5py.h5t.py_create(value.dtype, logical=True)
            created = h5py.h5a.create(owner, name.encode(), kind, _space_of(value.shape))
            created.write(value, mtype=kind)


_TEXT = h5py.string_dtype()


@lru_cache(maxsize=1)
def _text_types() -> tuple[h5py.h5t.TypeID, h5py.h5t.TypeID]:
    return h5py.h5t.py_create(_TEXT, logical=True), h5py.h5t.py_create(_TEXT)


def _type_of(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    """The HDF5 type of an exact type."""
    # NumPy takes types that differ in their metadata alone for the same, and whether a text is UTF-8 is said there.
    return _cached_type(dtype.str, None if dtype.metadata is None else h5py.check_string_dtype(dtype).encoding)


@lru_cache(maxsize=1024)
def _cached_type(kind: str, encoding: str | None) -> h5py.h5t.TypeID:
    dtype = np.dtype(kind) if encoding is None else h5py.string_dtype(encoding, np.dtype(kind).itemsize)
    return h5py.h5t.py_create(dtype, logical=True)


@lru_cache(maxsize=256)
def _space_of(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


@lru_cache(maxsize=1)
def _group_properties() -> h5py.h5p.PropGCID:
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_attr_phase_change(_MANY, _MANY - 1)
    return properties


def _link_properties(name: str) -> h5py.h5p.PropLCID | None:
    return None if name.isascii() else _unicode_link_properties()


@lru_cache(maxsize=1)
def _unicode_link_properties() -> h5py.h5p.PropLCID:
    properties = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    properties.set_char_encoding(h5py.h5t.CSET_UTF8)
    return properties
