"""The SHA-256 by which data are known, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ptydask.engines import hash_file


def sha256(path: Path) -> str:
    """The file's SHA-256, computed again only when its size or its time of change did change.

    Of a folder (``.zarr``), which may hold millions of chunks: that of its files' names, sizes and times of change.
    Raises OSError.
    """
    if path.is_dir():
        return _sha256_of_folder(path)
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def sha256_of_all(paths: Iterable[Path]) -> str:
    """One for files that belong together, in their order: the SHA-256 of theirs. Raises OSError."""
    return hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()


def _sha256_of_folder(path: Path) -> str:
    digest = hashlib.sha256()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    for name in names:
        stat = (path / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)
