"""Files that are there whole or not at all: written aside, made durable, then renamed. And read beside anybody.

HDF5 never meets a failed write: :class:`AsideFile` takes it in, remembers it, and :func:`write_whole` raises
it once the file is closed. (HDF5 cannot close a file it cannot write, and fails again when Python ends.)

Nor does it meet other readers and writers of the file that it reads: see :class:`ReadFile`.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py

from ptydask.errors import one_line
from ptydask.store import byte_seal

# Checksums on every header, link and chunk index, and readable by every HDF5 since 1.10 (2016).
LIBVER = ("v110", "v110")
BROKEN = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)
"""What h5py raises for a file that is damaged, or holds something else than is looked for."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with where it is one more that the disk, the quota or the file system has no room for."""
_ASIDE = ".aside"
_LONG_NAME = 230
"""Bytes; file systems have 255."""


class AsideFile(io.FileIO):
    """A new file that HDF5 writes through; the first write that fails is kept in :attr:`failure`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+b")
        self.failure: OSError | None = None

    def put(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``: the one place where results reach a disk."""
        while data:
            count = os.pwrite(self.fileno(), data, offset)
            data, offset = data[count:], offset + count

    def write(self, data: Any) -> int:
        """Write at the position, or only move on once a write has failed."""
        view = memoryview(data).cast("B")
        if self.failure is None:
            try:
                self.put(view, self.tell())
            except OSError as error:
                self.failure = error
        self.seek(len(view), io.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Give the file its length."""
        size = self.tell() if size is None else size
        if self.failure is None:
            try:
                os.ftruncate(self.fileno(), size)
            except OSError as error:
                self.failure = error
        return size

    def sync(self) -> None:
        """Return when the disk has it. Raises the write that failed, if one did."""
        if self.failure is not None:
            raise self.failure
        os.fsync(self.fileno())


class ReadFile(io.FileIO):
    """A file that HDF5 reads through; what else has it open, here or in another process, does not concern the two.

    HDF5's own access to a file locks it, refuses what another process has open for writing, and within one process
    wants everybody to open a file alike: the same locking, the same mode. None of that is done for Python's files.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._position = 0

    def __del__(self) -> None:
        self.close()  # HDF5 lets go of it, and nobody else has it

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position: one of this object, where a file's own would be shared with a forked process."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self.fileno()).st_size if start is None else start)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill all of ``buffer`` from the position on, with zeros beyond the file's end as HDF5's own access does."""
        size = len(buffer)
        done = os.preadv(self.fileno(), [buffer], self._position)
        while done < size:  # the end of the file, or more than Linux reads at once
            rest = memoryview(buffer)[done:]
            count = os.preadv(self.fileno(), [rest], self._position + done)
            if count == 0:
                rest[:] = bytes(len(rest))
            done += count or len(rest)
        self._position += size
        return size


def aside_of(path: Path, token: str = "") -> Path:
    """A name of its own, hidden, beside ``path``; ``token`` makes it the same again."""
    name = path.name if len(os.fsencode(path.name)) <= _LONG_NAME else ""
    return path.with_name(f".{name}.{token or secrets.token_hex(6)}{_ASIDE}")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A hidden file to write, which then takes the place of ``path``, or goes away; an OSError of it is of ``path``."""
    hidden = aside_of(path)
    try:
        yield hidden
        hidden.replace(path)
    except BaseException as error:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        # A disk that is full is told of by a write, which knows no name.
        if isinstance(error, OSError) and (str(error.filename) == str(hidden) or error.errno in NO_ROOM):
            error.filename = str(path)
        raise


def write_whole(
    path: Path, build: Callable[[h5py.File], str | None], check: Callable[[Path], None] = lambda aside: None
) -> None:
    """Make ``path`` the HDF5 file that ``build`` fills, atomically and durably.

    ``check`` reads the finished file before it takes the place of the old one. Raises what ``build`` and
    ``check`` raise, or the OSError of the disk; ``path`` is then as it was before.
    """
    with _aside(path) as hidden:
        with AsideFile(hidden) as out:
            try:
                with h5py.File(out, "w", libver=LIBVER) as file:
                    build(file)
            except Exception:
                if out.failure is not None:
                    raise out.failure from None
                raise
            out.sync()
        check(hidden)
    sync_folder(path.parent)


def write_image(
    path: Path, build: Callable[[h5py.File], str | None], check: Callable[[Path], None] = lambda aside: None
) -> str:
    """The same for a file that fits into memory, with room to spare: HDF5 makes it there, and it is written in one go.

    Its last line is its :mod:`byte_seal`; where it holds one trial, ``build`` returns the digest of that. Returns the
    hex SHA-256 of its bytes.
    """
    with _aside(path) as hidden:
        # A name of its own, as HDF5 tells open files from each other by that; no file of this name is made.
        with h5py.File(h5py.h5f.create(os.fsencode(hidden), h5py.h5f.ACC_TRUNC, fapl=_memory_access())) as file:
            content = build(file)
            file.flush()
            image = file.id.get_file_image()
        line, sha = byte_seal.compose(image, content or "")
        with AsideFile(hidden) as out:
            out.put(memoryview(image), 0)
            out.put(memoryview(line), len(image))
            out.sync()
        del image
        check(hidden)
    sync_folder(path.parent)
    return sha


@cache
def _memory_access() -> h5py.h5p.PropFAID:
    """File access in memory alone, growing by 64 kB at a time."""
    properties = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    properties.set_fapl_core(1 << 16, False)
    properties.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    properties.set_meta_block_size(512)
    properties.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    return properties


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Make ``path`` hold ``text``, atomically. Raises OSError."""
    write_bytes(path, text.encode(), durable=durable)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Make ``path`` hold ``data``, atomically. Raises OSError."""
    write_blocks(path, [data], durable=durable)


def write_blocks(path: Path, blocks: Iterable[bytes], *, durable: bool = True) -> None:
    """Make ``path`` hold ``blocks`` one after the other, atomically. Raises OSError, or what ``blocks`` raises."""
    with _aside(path) as hidden, hidden.open("xb") as out:
        out.writelines(blocks)
        if durable:
            out.flush()
            os.fsync(out.fileno())
    if durable:
        sync_folder(path.parent)


def add_second_name(path: Path, name: Path) -> None:
    """Give the file ``path`` the second name ``name``: a hard link, or a copy where there are none."""
    path = path.resolve()  # a second name of a symbolic link would lead elsewhere
    try:
        with _aside(name) as hidden:
            os.link(path, hidden)
    except OSError:
        with path.open("rb") as source:
            write_blocks(name, iter(lambda: source.read(1 << 22), b""))
        return
    # A rename onto another link of the same file does nothing, and leaves the first name.
    hidden.unlink(missing_ok=True)
    sync_folder(name.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable, where the file system can."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:  # some network file systems refuse it on folders; their renames are durable
        pass
    finally:
        os.close(fd)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what a killed process left half-written in ``folder`` (for the file ``name``, where given)."""
    for leftover in folder.glob(f".{glob.escape(name)}*{_ASIDE}"):
        leftover.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[int, ...]:
    """Another one where the file was replaced; () where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def hdf5_reason(error: BaseException) -> str:
    """What HDF5 says of a file that it cannot read, in one line."""
    # A KeyError puts quotes around the reason.
    text = one_line(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    if cut := find_cut(error):
        return f"cut off: of {cut[1]} bytes {cut[0]} are there"
    return text or type(error).__name__


def find_cut(error: BaseException) -> tuple[int, int] | None:
    """Of a file that HDF5 finds cut off: how many bytes are there, and how many it had."""
    cut = re.search(r"truncated file: eof = (\d+), .* stored_eof = (\d+)", one_line(str(error)))
    return (int(cut[1]), int(cut[2])) if cut else None


def open_read_only(path: Path) -> h5py.File:
    """``path`` opened for reading, without regard for who else has it open. Raises OSError.

    External links and virtual datasets are not to be followed from there: HDF5 would look for them in the same file.
    """
    return h5py.File(ReadFile(path), "r")


def open_at_once(path: Path) -> h5py.File:
    """The same; a small file is read in one go, and HDF5 asks for no part of it."""
    if path.stat().st_size <= _SMALL:
        with suppress(*BROKEN):  # what is wrong with a file, HDF5 says where it opens that itself
            return h5py.File(h5py.h5f.open_file_image(path.read_bytes()))
    return open_read_only(path)


_SMALL = 1 << 20
"""Bytes, at most, of a file that is read in one go."""


class RecentFile:
    """One file open for reading, for as long as trials are read from it one after the other.

    HDF5 keeps up to 100 kB in memory of each trial that it copied from an open file, so that it is opened anew now and
    then; and where it was replaced, at once.
    """

    _MOST = 64
    """Trials."""

    def __init__(self) -> None:
        self._file: h5py.File | None = None
        self._stamp: tuple[int, ...] = ()
        self._left = 0

    def open(self, path: Path) -> h5py.File:
        """``path`` open for reading, until the next call or :meth:`close`. Raises OSError."""
        now = stamp(path)
        if self._file is None or not self._left or not now or now != self._stamp:
            self.close()
            self._file, self._stamp, self._left = open_at_once(path), now, self._MOST
        self._left -= 1
        return self._file

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            self._file.close()
            self._file = None
