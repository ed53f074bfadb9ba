"""Arrays that the processes of one user on one machine have in common: one copy in memory, gone with the last of them.

The copy is a file in memory that no folder has (Linux: ``memfd_create``). Whoever needs it finds it by its name among
the files that other processes of this user have open (``/proc/PID/fd``), and maps it. The kernel frees the memory when
the last process that maps it has ended, however it ended, so that nothing is left to be removed; and while there is
one, whoever comes later finds it. Once it is written it is sealed, so that no process can write into it, and gets the
mode by which others know that it is complete. It is mapped privately: a process that writes into its arrays changes a
page of its own. Where there are no such files (macOS, Windows), or /proc shows none, every process has its own copy.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_SLAB = 2**26
"""Bytes that are copied at a time, and freed where they were."""
_COMPLETE = stat.S_IRUSR
"""The mode of a copy that is written; before it has others."""
_UNRESERVED = 0x4000
"""Linux's MAP_NORESERVE, which ``mmap`` has since Python 3.13: a file may be larger than memory, although a process
could ask for a page of its own for each of the file's."""
_LENGTH = 8
"""Bytes at the end of a copy: the length of the table in front of them."""


def one_copy(identity: str, make: Callable[[], tuple[Arrays, Any]], folder: Path | None = None) -> tuple[Arrays, Any]:
    """Arrays and whatever else belongs to them, as some process with this ``identity`` got them from its ``make``.

    While one makes them, others wait. What ``make`` returns is given up: the memory of its arrays is freed as they are
    copied, so that there is never more than one copy. What is beside the arrays is pickled. With ``folder`` the copy is
    a file on the disk that it is on, which is removed as soon as it is open. Raises whatever ``make`` raises, and
    MemoryError.
    """
    if sys.platform != "linux":
        return make()
    name = f"ptydask-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
    link = f"/memfd:{name} (deleted)" if folder is None else f"{folder.resolve() / name} (deleted)"
    copy = _find(link)
    if copy is None:
        with _while_others_wait(name):
            copy = _find(link)
            if copy is None:
                made = make()
                try:
                    copy = _empty_copy(name, folder, made[0])
                except OSError:  # none may be made here: a limit on files, a sandbox
                    return made
                _fill(copy, *made, in_memory=folder is None)
    try:
        return _map(copy)
    finally:
        os.close(copy)  # the mapping has the file open, too


def _find(link: str) -> int | None:
    """A descriptor of the complete copy that a process of this user has open, by its name in /proc."""
    own = os.geteuid()
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended, or is somebody else's
            if not process.name.isdigit() or process.stat().st_uid != own:
                continue
            for file in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(file.readlink()) == link and (copy := _open_complete(file, own)) is not None:
                        return copy
    return None


def _open_complete(path: Path, owner: int) -> int | None:
    copy = os.open(path, os.O_RDONLY)
    status = os.fstat(copy)
    if (status.st_uid, stat.S_IMODE(status.st_mode)) == (owner, _COMPLETE):
        return copy
    os.close(copy)
    return None


@contextmanager
def _while_others_wait(name: str) -> Iterator[None]:
    """Within it no other process of this user on this machine is. The kernel lets the next one in if this one dies.

    All names share one empty file, each has a byte of it. Where it cannot be locked nobody waits, and there may be
    several copies.
    """
    folder = Path("/dev/shm")
    path = (folder if folder.is_dir() else Path(tempfile.gettempdir())) / f"ptydask-{os.geteuid()}.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, int(hashlib.sha256(name.encode()).hexdigest()[:15], 16))
        yield
    finally:
        os.close(file)


def _empty_copy(name: str, folder: Path | None, arrays: Arrays) -> int:
    """Raises OSError where there can be none."""
    if folder is None:
        copy = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        (folder / name).unlink(missing_ok=True)  # of one that was killed right here
        copy = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        (folder / name).unlink()
    size = sum(map(_padded_size, arrays.values()))
    try:
        if folder is None:
            os.truncate(copy, size)
        else:
            os.posix_fallocate(copy, 0, max(1, size))  # what lacks room fails here
    except OSError:
        os.close(copy)
        raise
    return copy


def _padded_size(array: NDArray[Any]) -> int:
    return -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _fill(copy: int, arrays: Arrays, rest: Any, in_memory: bool) -> None:
    """The arrays, each from a page's start; behind them a table of what is where, and the table's length."""
    places, offset = [], 0
    try:
        for name, array in arrays.items():
            places.append((name, array.dtype, array.shape, offset))
            _move(copy, offset, array)
            offset += _padded_size(array)
        table = pickle.dumps((places, rest), protocol=pickle.HIGHEST_PROTOCOL)
        _write(copy, offset, table + len(table).to_bytes(_LENGTH, "little"))
        if in_memory:
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        os.fchmod(copy, _COMPLETE)
    except OSError as error:
        os.close(copy)
        raise MemoryError(str(error)) from error


def _move(copy: int, offset: int, array: NDArray[Any]) -> None:
    step = max(1, _SLAB * len(array) // max(1, array.nbytes))
    for first in range(0, len(array), step):
        slab = array[first : first + step]
        _write(copy, offset, np.ascontiguousarray(slab).data.cast("B"))
        _free_pages(slab)
        offset += slab.nbytes


def _write(copy: int, offset: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(copy, rest, offset)
        rest, offset = rest[written:], offset + written


def _free_pages(slab: NDArray[Any]) -> None:
    """Give the machine back the pages that lie within ``slab``, a part of an array that nobody reads again.

    Only of memory that NumPy itself has allocated, and where slabs do not lie within each other.
    """
    owner: Any = slab
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    axes = list(zip(slab.shape[1:], slab.strides[1:], strict=True))
    extent = slab.itemsize + sum((length - 1) * abs(stride) for length, stride in axes)
    if owner.base is not None or not owner.flags.owndata or slab.strides[0] < extent:
        return
    low = slab.ctypes.data + sum(min(0, (length - 1) * stride) for length, stride in axes)
    start = -(-low // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (low + (len(slab) - 1) * slab.strides[0] + extent) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def _map(copy: int) -> tuple[Arrays, Any]:
    try:
        mapped = mmap.mmap(copy, 0, mmap.MAP_PRIVATE | _UNRESERVED, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise MemoryError(str(error)) from error
    length = int.from_bytes(mapped[-_LENGTH:], "little")
    places, rest = pickle.loads(mapped[-_LENGTH - length : -_LENGTH])  # written by a process of this user
    return {name: np.ndarray(shape, dtype, mapped, offset) for name, dtype, shape, offset in places}, rest
