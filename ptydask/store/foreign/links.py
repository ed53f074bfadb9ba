"""Links of an HDF5 file, into itself and into other files, followed; one that leads nowhere is named.

HDF5 itself says of such a link no more than of a name that there is not.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from ptydask.errors import one_line

_MOST_LINKS = 16
"""Links one behind the other that HDF5 follows, too."""


class MissingPart(Exception):  # noqa: N818 - becomes a DataError
    """A part of the data that cannot be read: what is missing in one line, and what to do."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.rule, self.hint = rule, hint


def opened(path: Path) -> h5py.File:
    """The file as HDF5 itself opens it, so that it finds its other files; without a lock, if it may be."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "lock" not in str(error):
            raise
    # This process has it open already, and HDF5 wants all of one file opened alike.
    try:
        return h5py.File(path, "r")
    except OSError:
        return h5py.File(path, "r", locking=True)


def walk(start: h5py.Group, key: str, links: int = 0) -> h5py.Group | h5py.Dataset | None:
    """What is at ``key``, a path below ``start``; None where it names nothing. Raises MissingPart for a broken link.

    ``links`` counts those that were followed before.
    """
    item = start.file if key.startswith("/") else start
    for name in filter(None, key.split("/")):
        if not isinstance(item, h5py.Group) or item.get(name, getlink=True) is None:
            return None
        item = follow(item, name, links)
    return item


def follow(group: h5py.Group, name: str, links: int = 0) -> h5py.Group | h5py.Dataset:
    """What a name in a group is, or leads to. Raises MissingPart, which says where a link ends."""
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError) as error:
        link = group.get(name, getlink=True)
        here = f"{(group.name or '').rstrip('/')}/{name} in {group.file.filename}"
        if links >= _MOST_LINKS:
            raise MissingPart(f"{here} leads in a circle of links") from None
        if isinstance(link, h5py.SoftLink):
            walk(group, link.path, links + 1)  # a link further on knows more
            raise MissingPart(f"{here} is a link to {link.path}, which is not there") from None
        if isinstance(link, h5py.ExternalLink):
            raise _behind_external_link(Path(group.file.filename), here, link, links) from None
        raise MissingPart(f"{here} cannot be read: {one_line(str(error))}") from None


def _behind_external_link(holder: Path, here: str, link: h5py.ExternalLink, links: int) -> MissingPart:
    target = find_referenced(link.filename, holder, "HDF5_EXT_PREFIX")
    if target is None:
        rule = f"{here} is a link to {link.path} in the file {link.filename}, which is not there"
        return MissingPart(rule, where_to_put(link.filename, holder))
    try:
        with opened(target) as other:
            walk(other, link.path, links + 1)
    except MissingPart as missing:
        return missing
    except OSError as error:
        return MissingPart(f"{here} is a link to {target}, which cannot be read: {one_line(str(error))}")
    return MissingPart(f"{here} is a link to {link.path} in {target}, where there is no such thing")


def find_referenced(name: str, holder: Path, prefixes: str) -> Path | None:
    """The file that the file ``holder`` names by ``name``, where HDF5 looks for it; None where it is nowhere.

    ``prefixes`` is the environment variable of further folders. The order is that of H5F_prefix_open_file: an absolute
    name, then its last part or a relative name in these folders, beside the holder, in the working directory, and
    beside the file that a symbolic link of the holder's leads to.
    """
    if Path(name).is_absolute():
        if Path(name).exists():
            return Path(name)
        name = Path(name).name
    folders = [Path(folder) for folder in os.environ.get(prefixes, "").split(os.pathsep) if folder]
    folders += [holder.absolute().parent, Path(), holder.resolve().parent]
    return next((path for folder in folders if (path := folder / name).exists()), None)


def where_to_put(name: str, holder: Path) -> str:
    """What to do about a file that is not there."""
    if Path(name).is_absolute():
        return f"copy {Path(name).name} to {holder.absolute().parent}, beside the file that names it"
    return f"copy it to {(holder.absolute().parent / name).parent}, where {holder.name} looks for it"
