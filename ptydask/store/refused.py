"""Why a file is not one with results: the errors, each in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from ptydask.errors import NoResults, StoreError, nearest_files
from ptydask.store import files, layout, names, nexus


def missing_error(path: Path) -> NoResults:
    """The error for a file that is not there, with the nearest name beside it."""
    neighbours = [other.name for other in path.parent.glob("*.h5")]
    folder = names.folder_of(path)
    if any(folder.glob("*.h5")):
        return NoResults(
            f"{path}: there is no such results file, but its trials are in {folder.name}; "
            f"`ptydask run` goes on with them, `ptydask pack {path.name}` makes the file of what is there"
        )
    close = nearest_files(path.name, neighbours)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return NoResults(f"{path}: there is no such results file{hint}")


def foreign_error(path: Path) -> NoResults:
    """The error for somebody else's HDF5 file."""
    return NoResults(f"{path}: an HDF5 file, but not one with the results of ptydask; it is left as it is")


def not_hdf5_error(path: Path) -> NoResults:
    """The error for a file that is no HDF5; of what is run, a params or sweep file, with its results' name."""
    if path.suffix.lower() not in (".yaml", ".yml", ".json", ".toml"):
        return NoResults(f"{path}: not an HDF5 file; it is left as it is")
    near = _results_of(path)
    more = f"did you mean {str(near)!r}?" if near else "`ptydask run` says where it writes the results, NAME.h5"
    return NoResults(f"{path}: a params or sweep file, not its results; {more}")


def _results_of(path: Path) -> Path | None:
    """The results file, here or beside it, of the name that ``path`` has or gives; else the only one beside it."""
    try:
        study_names = re.findall(r"""^name\s*[:=]\s*["']?([^"'#\n]+)""", path.read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        study_names = []
    names = [f"{name.strip()}.h5" for name in (*study_names, path.stem) if "/" not in name]
    places = [Path(name) for name in names] + [path.with_name(name) for name in names]
    for place in places:
        if _has_results(place):
            return place
    neighbours = [other for other in sorted(path.parent.glob("*.h5"))[:20] if _has_results(other)]
    return neighbours[0] if len(neighbours) == 1 else None


def _has_results(path: Path) -> bool:
    """Whether the file says so; measurements, which often lie beside a params file, do not."""
    try:
        with files.open_read_only(path) as file:
            return nexus.read_attribute(file, "format") == layout.FORMAT
    except files.BROKEN:
        return False


def unreadable_error(path: Path, error: BaseException) -> StoreError:
    """The error for a file that HDF5 cannot read, or that lacks what a results file has."""
    if isinstance(error, PermissionError):
        return StoreError(f"{path}: no permission to read it")
    if isinstance(error, OSError) and error.errno:
        return StoreError(f"{path}: not readable: {error.strerror or error}; it is left as it is")
    writer = describe_writer(path)
    if writer:
        return StoreError(f"{path}: {writer}, and it cannot be read before that is closed; it is left as it is")
    reason = files.hdf5_reason(error)
    if reason.startswith("cut off"):
        return StoreError(f"{path}: {reason}; it is left as it is, copy it again from where it is whole")
    try:
        is_hdf5 = h5py.is_hdf5(path)
    except OSError:
        return StoreError(f"{path}: not readable; it is left as it is")
    if not is_hdf5:
        return not_hdf5_error(path)
    return StoreError(f"{path}: a damaged HDF5 file; it is left as it is, and 'ptydask verify' says more")


def describe_writer(path: Path) -> str:
    """Who has the HDF5 file open for writing, where what is read of it may be half of a change; "" where nobody has.

    HDF5 says in the superblock that somebody has, and a lock of the system says who. A program that was killed leaves
    the first; one on another host, or that opened the file without a lock, does not have the second.
    """
    try:
        with path.open("rb") as file:
            start, status = file.read(_STATUS_AT + 1), os.fstat(file.fileno())
        locks = _LOCKS.read_text() if _LOCKS.exists() else ""
    except OSError:
        return ""
    if not (start.startswith(_SIGNATURE) and len(start) > _STATUS_AT and start[_STATUS_AT] & _OPEN_FOR_WRITING):
        return ""
    # "1: FLOCK  ADVISORY  WRITE 4711 fe:00:2318337 0 EOF", see proc(5). What device is said depends on the file system.
    holders = re.findall(rf"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+\w+:\w+:{status.st_ino}\s", locks)
    if not holders:
        return "another program has it open for writing, or had it when it was killed"
    if int(holders[0]) == os.getpid():
        return "this process has it open for writing"
    with suppress(OSError):
        return f"process {holders[0]} ({Path(f'/proc/{holders[0]}/comm').read_text().strip()}) has it open for writing"
    return f"process {holders[0]} has it open for writing"


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """``path`` opened; what cannot be read of it is a StoreError."""
    try:
        with files.open_read_only(path) as file:
            yield file
    except files.BROKEN as error:
        raise unreadable_error(path, error) from error


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_STATUS_AT = 11
"""Where a superblock of version 3 has the file's consistency flags; HDF5's format specification, II.A."""
_OPEN_FOR_WRITING = 0b101
"""By one program, or by one that lets others read (SWMR)."""
_LOCKS = Path("/proc/locks")


def refuse_other_kinds(path: Path) -> None:
    """Raise NoResults for what no damage explains: no file, or one that does not begin as HDF5 does."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise missing_error(path) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    if start[1:4] != b"HDF" and start[4:8] != b"\r\n\x1a\n":
        raise not_hdf5_error(path)
