"""The SHA-256 of what a group holds: however it is laid out, compressed or copied, and whatever file it is in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.store import draft, files, layout, nexus, stored

Told = Callable[[str, BaseException], None]
"""Is told the path of what cannot be read, and why."""

CHANGED = "its content is not what was written: its SHA-256 differs"
_BLOCK = 1 << 24
"""Bytes of an array that are read at a time, about."""
_DEEP = 64
"""Groups within groups, at most: a damaged file may hold one that is within itself."""


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


class _WholeHash(_Hash, Protocol):
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Scope:
    """What of a group is read."""

    apart: frozenset[bytes] = frozenset()
    on_error: Told | None = None
    known: Mapping[bytes, draft.Group] = field(default_factory=dict)


_NOTHING: Mapping[str, draft.Group] = {}


def seal(
    group: h5py.Group | draft.Group, apart: Collection[str] = (), known: Mapping[str, draft.Group] = _NOTHING
) -> str:
    """Write the digest of ``group``, complete by now, into its attribute ``sha256``; returns it.

    ``known`` are groups below it, by their paths, as they were written: these are not read for that.
    """
    if isinstance(group, draft.Group):
        computed = draft_digest(group, apart)
    else:
        computed = _digest(group, _Scope(_encode(apart), known={path.encode(): part for path, part in known.items()}))
    nexus.write_attribute(group, layout.SHA256, computed)
    return computed


def save_sealed(group: h5py.Group, content: draft.Group, name: str, *, itself: bool = False) -> str:
    """Write ``content`` into ``group``, its member ``name`` sealed; with ``itself``, all but that member, too.

    Returns the digest of the member. It is taken of what is written, and of what is read back where the two may differ.
    """
    exact = content.exact
    if not exact:
        draft.save(group, content)
    target = content if exact else group
    sealed = seal(target.members[name] if exact else group[name])
    if itself:
        seal(target, {name})
    if exact:
        draft.save(group, content)
    return sealed


def seal_copy(
    copy: h5py.Group,
    source: h5py.Group,
    without: Collection[str],
    changed: Mapping[str, str | None],
    *,
    intact: bool = False,
) -> None:
    """Complete and seal ``copy``, which has the members of ``source`` except ``without``, and no attributes so far.

    It gets those of ``source``; those that are ``changed`` have these texts, or are not there. Each member is read
    once, for both digests. Raises ValueError where ``source`` is not what was sealed; where it is known to be
    ``intact``, only what is copied is read.
    """
    kept, group, left_out = hashlib.sha256(), h5py.h5g.open(source.id, b"."), {name.encode() for name in without}
    content = draft.Group(draft.load_attributes(source.id))
    for name, text in changed.items():
        content.attrs.pop(name, None)
        if text is not None:
            nexus.write_attribute(content, name, text)
    _hash_draft_attributes(kept, content.attrs, layout.SHA256)
    if intact:
        for name in sorted(set(group) - left_out):
            _hash_member(kept, group, name)
    else:
        whole = hashlib.sha256()
        _hash_attributes(whole, source.id, layout.SHA256.encode())
        for name in sorted(group):
            _hash_member(whole if name in left_out else _TwoHashes(whole, kept), group, name)
        if read_digest(source) != whole.hexdigest():
            raise ValueError(CHANGED)
    nexus.write_attribute(content, layout.SHA256, kept.hexdigest())
    draft.save(copy, content)


@dataclass(frozen=True, slots=True)
class _TwoHashes:
    """Two that take in the same."""

    one: _Hash
    other: _Hash

    def update(self, data: Any, /) -> None:
        self.one.update(data)
        self.other.update(data)


def group_digest(
    group: h5py.Group,
    apart: Collection[str] = (),
    on_error: Told | None = None,
    begin: Callable[[], _WholeHash] = hashlib.sha256,
) -> str:
    """The hex SHA-256 of everything below ``group``: path, type, shape and bytes of each attribute and dataset.

    Links count by their targets, which are not followed. Of the groups and datasets that ``apart`` names by their
    path below ``group`` only attributes count, and the names of members: the rest has checksums of its own.
    Raises what h5py raises for data that cannot be read; with ``on_error``, that is told instead, and the rest is read.
    """
    return _digest(group, _Scope(_encode(apart), on_error), begin)


def _encode(paths: Collection[str]) -> frozenset[bytes]:
    return frozenset(path.encode() for path in paths)


def _digest(group: h5py.Group, scope: _Scope, begin: Callable[[], _WholeHash] = hashlib.sha256) -> str:
    sha = begin()
    try:
        # The attribute that holds the digest does not count itself.
        _hash_attributes(sha, group.id, layout.SHA256.encode())
        _hash_members(sha, h5py.h5g.open(group.id, b"."), b"", scope)
    except files.BROKEN as error:
        if scope.on_error is None:
            raise
        scope.on_error("", error)
    return sha.hexdigest()


def draft_digest(group: draft.Group, apart: Collection[str] = ()) -> str:
    """What :func:`group_digest` will say of an exact draft once it is written; nothing is read back for that."""
    sha = hashlib.sha256()
    _hash_draft_attributes(sha, group.attrs, layout.SHA256)
    _hash_draft_members(sha, group, "", apart)
    return sha.hexdigest()


def _hash_draft_members(sha: _Hash, group: draft.Group, above: str, apart: Collection[str]) -> None:
    # In the order of the encoded names, which is that of their characters.
    for name, member in sorted(group.members.items(), key=itemgetter(0)):
        path = above + name
        if isinstance(member, h5py.SoftLink):
            _hash_parts(sha, b"soft link", path.encode(), member.path.encode())
        elif above and above[:-1] in apart:
            _hash_parts(sha, b"apart", path.encode())
        else:
            _hash_draft_member(sha, member, path, apart)


def _hash_draft_member(sha: _Hash, member: draft.Group | draft.Dataset, path: str, apart: Collection[str]) -> None:
    _hash_parts(sha, b"GroupID" if isinstance(member, draft.Group) else b"DatasetID", path.encode())
    _hash_draft_attributes(sha, member.attrs)
    if isinstance(member, draft.Group):
        _hash_draft_members(sha, member, path + "/", apart)
    elif path not in apart:
        _hash_draft_value(sha, member.data)


def _hash_draft_attributes(sha: _Hash, attributes: draft.Attributes, without: str = "") -> None:
    for name, value in sorted(attributes.items(), key=itemgetter(0)):
        if name != without:
            _hash_parts(sha, b"attribute", name.encode())
            _hash_draft_value(sha, value)


def _hash_draft_value(sha: _Hash, value: draft.Value) -> None:
    if isinstance(value, str):
        _hash_parts(sha, b"text")
        _hash_parts(sha, value.encode())
        return
    _hash_parts(sha, value.dtype.str.encode(), *(b"%d" % size for size in value.shape))
    _hash_values(sha, value)


def read_digest(group: h5py.Group) -> str:
    """The digest that was written into ``group``; "" where none was."""
    return nexus.read_attribute(group, layout.SHA256)


def check(group: h5py.Group) -> None:
    """Raise ValueError where a group is not what was sealed, or what h5py raises for data that cannot be read."""
    if read_digest(group) != group_digest(group):
        raise ValueError(CHANGED)


def _hash_parts(sha: _Hash, *parts: bytes) -> None:
    """Each part with its length, so that no two lists of parts look alike."""
    sha.update(b"".join([len(part).to_bytes(8, "little") + part for part in parts]))


def _hash_members(sha: _Hash, group: h5py.h5g.GroupID, above: bytes, scope: _Scope, deep: int = 0) -> None:
    if deep > _DEEP:
        raise ValueError(f"groups within groups, more than {_DEEP} deep")
    # By name, whatever order a file keeps them in: a copy may have another.
    for name in sorted(group):
        try:
            _hash_member(sha, group, name, above, scope, deep)
        except files.BROKEN as error:
            if scope.on_error is None:
                raise
            scope.on_error((above + name).decode(errors="replace"), error)


def _hash_member(
    sha: _Hash, group: h5py.h5g.GroupID, name: bytes, above: bytes = b"", scope: _Scope = _Scope(), deep: int = 0
) -> None:
    path, kind = above + name, group.links.get_info(name).type
    if kind == h5py.h5l.TYPE_SOFT:
        _hash_parts(sha, b"soft link", path, group.links.get_val(name))
    elif kind == h5py.h5l.TYPE_EXTERNAL:
        _hash_parts(sha, b"external link", path, *group.links.get_val(name))
    elif above and above[:-1] in scope.apart:  # a member of a group that is left out: only that it is there
        _hash_parts(sha, b"apart", path)
    elif path in scope.known:
        _hash_draft_member(sha, scope.known[path], path.decode(), ())
    else:
        # Low-level calls, here and below: h5py's own objects are slow where there are thousands of small ones.
        item = h5py.h5o.open(group, name)
        _hash_parts(sha, type(item).__name__.encode(), path)
        _hash_attributes(sha, item)
        if isinstance(item, h5py.h5g.GroupID):
            _hash_members(sha, item, path + b"/", scope, deep + 1)
        elif isinstance(item, h5py.h5d.DatasetID) and path not in scope.apart:
            _hash_dataset(sha, item)


def _hash_attributes(sha: _Hash, item: h5py.h5o.ObjectID, without: bytes = b"") -> None:
    for name in sorted(stored.attribute_names(item)):
        if name == without:
            continue
        _hash_parts(sha, b"attribute", name)
        attribute = h5py.h5a.open(item, name)
        kind, shape = _hash_header(sha, attribute)
        if shape is not None:
            _hash_values(sha, stored.read_value(attribute, kind, shape))


def _hash_dataset(sha: _Hash, data: h5py.h5d.DatasetID) -> None:
    kind, shape = _hash_header(sha, data)
    if shape is None:
        return
    dtype = kind.dtype
    # Small arrays at once; texts of varying length, whose size nobody knows beforehand, and large ones in parts. The
    # digest is the same: all bytes come in C order either way.
    if dtype.kind != "O" and dtype.itemsize * math.prod(shape) <= _BLOCK:
        _hash_values(sha, stored.read_dataset(data, kind, shape))
        return
    array = h5py.Dataset(data)
    for part in _block_indices(shape, dtype.itemsize):
        _hash_values(sha, np.asarray(array[part]))


def _hash_header(
    sha: _Hash, item: h5py.h5d.DatasetID | h5py.h5a.AttrID
) -> tuple[stored.StoredType, tuple[int, ...] | None]:
    """Type and shape, which HDF5 takes its time to tell, so that it is asked once; no shape where there is no value."""
    kind, shape = stored.type_of(item), stored.shape_of(item)
    dtype = kind.dtype
    if shape is None:
        _hash_parts(sha, b"nothing", dtype.str.encode())
        return kind, None
    if dtype.kind == "O":
        text = "text"
    elif dtype.names is None:
        text = dtype.str
    else:
        text = repr(dtype.descr)  # a compound type's ``str`` tells its size alone
    _hash_parts(sha, text.encode(), *(b"%d" % size for size in shape))
    return kind, shape


def _hash_values(sha: _Hash, value: NDArray[Any]) -> None:
    if value.dtype.kind == "O":
        _hash_parts(sha, *(item if isinstance(item, bytes) else str(item).encode() for item in value.flat))
    elif value.size:
        sha.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)


def _block_indices(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[Any, ...]]:
    """Indices that together read an array of ``shape`` once, in C order, in blocks of about :data:`_BLOCK` bytes."""
    if 0 in shape:
        return
    # ``axis`` is the first axis along which one index holds no more than a block, ``below`` the bytes of one index. It
    # is cut into slices of as many as fit; the axes before it are walked through index by index, in C order.
    axis, below = 0, itemsize * int(np.prod(shape[1:], dtype=np.int64))
    while axis < len(shape) - 1 and below > _BLOCK:
        axis += 1
        below //= shape[axis]
    if not shape:
        yield ()
        return
    step = max(1, _BLOCK // max(1, below))
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            yield (*outer, slice(start, start + step))
