"""The last line of a file that was made in memory: the SHA-256 of all bytes before it, taken before any met a disk.

A file that still has it holds what was written, from its first byte to its last, which takes a thousandth of the time
that it takes to read thousands of trials and the digest of each. HDF5 looks at no byte beyond its own, whose number its
superblock says; whoever opens the file to change it cuts the line off. Without it nothing is said of the file, and
each of its digests is to be computed.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_UNKNOWN = "-" * 64
_LINE = re.compile(rb"\nptydask ([0-9a-f]{64}|-{64}) ([0-9a-f]{64})\n")
SIZE = len("\nptydask \n") + 2 * 64 + 1
"""Bytes of the line."""
_BLOCK = 1 << 20


def compose(image: bytes, content: str = "") -> tuple[bytes, str]:
    """The line that follows ``image``, and the hex SHA-256 of both together.

    ``content`` is the digest of the one trial that the image is of.
    """
    sha = hashlib.sha256(image)
    begin = f"\nptydask {content or _UNKNOWN} ".encode()
    sha.update(begin)
    end = f"{sha.hexdigest()}\n".encode()
    sha.update(end)
    return begin + end, sha.hexdigest()


def read_content(path: Path) -> str | None:
    """The digest of the trial in a file whose bytes are those that were written; "" where it holds others.

    None where they are not, where that cannot be told, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - SIZE
            if left < 0:
                return None
            file.seek(left)
            line = _LINE.fullmatch(file.read())
            if line is None:
                return None
            file.seek(0)
            sha = hashlib.sha256()
            left += line.start(2)
            while left and (block := file.read(min(left, _BLOCK))):
                sha.update(block)
                left -= len(block)
    except OSError:
        return None
    content, expected = (part.decode() for part in line.groups())
    return content.strip("-") if sha.hexdigest() == expected else None


class IntactFiles:
    """Which files are as they were written, each read once: for one piece of work, in which they stay as they are."""

    def __init__(self) -> None:
        self._contents: dict[Path, str | None] = {}

    def __contains__(self, path: Path) -> bool:
        return self.content_of(path) is not None

    def content_of(self, path: Path) -> str | None:
        """As :func:`read_content`."""
        if path not in self._contents:
            self._contents[path] = read_content(path)
        return self._contents[path]

    def forget(self, path: Path) -> None:
        """Read ``path`` anew where it is asked for again: it may be another file by then."""
        self._contents.pop(path, None)
