"""What an HDF5 file of measurements holds, from its headers alone: nothing of the data is read."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from ptydask.store.foreign import links, stored_parts
from ptydask.store.foreign.links import MissingPart

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """A dataset all of whose data can be read."""

    shape: Shape
    notices: tuple[str, ...] = ()
    """What of it reads as the fill value, as nobody has written it; one line each."""


@dataclass(slots=True)
class FileContents:
    """All datasets of a file, and of those that its links lead to."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    """Of every dataset by its path inside (``entry/data``); once each, by its own name where it has links, too."""
    plain: bool = True
    """Whether every dataset has one path, and none is behind a link."""
    broken: list[MissingPart] = field(default_factory=list)
    """The links that lead nowhere."""


def list_datasets(path: Path) -> FileContents:
    """Every dataset in the file. Raises OSError for a file that is no HDF5 or is cut off."""
    listing = _Listing()
    with links.opened(path) as file:
        listing.groups.append(("", file))
        # The file's own names come first: a dataset that is linked, too, is listed by its own.
        while listing.groups or listing.linked:
            if listing.groups:
                listing.read_group(*listing.groups.popleft())
            else:
                listing.add(*listing.linked.popleft())
    return listing.contents


class _Listing:
    def __init__(self) -> None:
        self.contents = FileContents()
        self.groups: deque[tuple[str, h5py.Group]] = deque()
        self.linked: deque[tuple[str, h5py.Group, str]] = deque()
        self._seen: set[tuple[str, int]] = set()

    def read_group(self, above: str, group: h5py.Group) -> None:
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                self.add(above, group, name)
            else:
                self.contents.plain = False
                self.linked.append((above, group, name))

    def add(self, above: str, group: h5py.Group, name: str) -> None:
        try:
            item = links.follow(group, name)
        except MissingPart as missing:
            self.contents.broken.append(missing)
            return
        if not isinstance(item, h5py.Group | h5py.Dataset):
            return
        identity = (item.file.filename, h5py.h5o.get_info(item.id).addr)
        if identity in self._seen:
            self.contents.plain = False
            return
        self._seen.add(identity)
        if isinstance(item, h5py.Group):
            self.groups.append((f"{above}{name}/", item))
        else:
            self.contents.shapes[f"{above}{name}"] = tuple(item.shape or ())


def read_header(path: Path, key: str) -> ArrayHeader | None:
    """The dataset at ``key``; None where there is none, or a group.

    Raises OSError for a file that cannot be read, and MissingPart where a part of the data is in a file that is not
    there or too short, or behind a filter that this process does not have.
    """
    with links.opened(path) as file:
        item = links.walk(file, key)
        if not isinstance(item, h5py.Dataset):
            return None
        return ArrayHeader(tuple(item.shape or ()), stored_parts.require_whole(item))


def linked_files(path: Path, key: str) -> list[Path]:
    """The files besides ``path`` that the data of the dataset at ``key`` lie in, each once, as they are named.

    Raises OSError and MissingPart as :func:`read_header` does.
    """
    with links.opened(path) as file:
        item = links.walk(file, key)
        named = stored_parts.referenced_files(item) if isinstance(item, h5py.Dataset) else ()
        return [other for other in dict.fromkeys(named) if not other.samefile(path)]
