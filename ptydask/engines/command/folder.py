"""What is kept of the folder of one trial on its worker."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

MOST_FILES = 10_000
"""Files of one trial that are kept."""
_MOST_SENTENCES = 20


@dataclass
class KeptFiles:
    """Files that a trial wrote, and a sentence for each that is not among them though it was asked for."""

    artifacts: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    size: int = 0
    """Bytes of all files together."""

    def add(self, name: str, data: bytes, limit: int) -> None:
        """Keep a file if there is room for it."""
        if self.size + len(data) > limit:
            self.left_out.append(_too_large(name, len(data), limit))
            return
        self.artifacts[name] = data
        self.size += len(data)

    def sentences(self) -> tuple[str, ...]:
        """What was left out; a few sentences, however many files."""
        sentences, more = self.left_out[:_MOST_SENTENCES], len(self.left_out) - _MOST_SENTENCES
        if more > 0:
            sentences.append(f"{more:,} more files were left out")
        return tuple(sentences)


def collect_files(folder: Path, globs: Sequence[str], limit: int, ours: Collection[str] = ()) -> KeptFiles:
    """The files in ``folder`` that one of ``globs`` matches, small ones first, as long as they fit in ``limit`` bytes.

    Nothing outside of the folder is read: of links only those to files in it count, and they become files. ``ours``
    are names of files that the program did not write. Nobody may be writing in there any more.
    """
    kept, home = KeptFiles(), os.path.realpath(folder)
    candidates: list[tuple[int, str, str]] = []
    for name, entry in _matching_entries(folder, globs):
        if name in ours:
            continue
        try:
            path = _link_target(entry.path, home) if entry.is_symlink() else entry.path
            status = os.lstat(path)
        except OSError as error:
            kept.left_out.append(f"{name}: {error.strerror or error}")
            continue
        if stat.S_ISREG(status.st_mode):
            candidates.append((status.st_size, name, path))
        else:
            kept.left_out.append(f"{name}: is neither a file nor a folder")
    for number, (size, name, path) in enumerate(sorted(candidates)):
        if number >= MOST_FILES:
            kept.left_out.append(f"{name}: more than {MOST_FILES:,} files")
        elif kept.size + size > limit:
            kept.left_out.append(_too_large(name, size, limit))
        else:
            _read_file(kept, name, path, limit)
    return kept


def _matching_entries(folder: Path, globs: Sequence[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All but folders, with the path from ``folder``, that one of the patterns matches."""
    patterns = [glob.split("/") for glob in globs]
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parents = waiting.pop()
        try:
            with os.scandir(folder.joinpath(*parents)) as iterator:
                entries = list(iterator)
        except OSError:
            continue
        for entry in entries:
            parts = (*parents, entry.name)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(parts)
            elif any(matches(parts, pattern) for pattern in patterns):
                yield "/".join(parts), entry


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, part by part; ``**`` stands for any number of parts."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return matches(path, pattern[1:]) or (bool(path) and matches(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def _link_target(link: str, home: str) -> str:
    """The file in ``home`` that a link leads to. Raises OSError where it leads elsewhere."""
    target = os.path.realpath(link)
    if os.path.commonpath([target, home]) != home:
        raise OSError(f"is a link to {target}, which is not in the trial's own folder")
    if Path(target).is_dir():
        raise OSError("is a link to a folder")
    return target


def _read_file(kept: KeptFiles, name: str, path: str, limit: int) -> None:
    try:
        # The program is gone, but what it left need not be: neither a link nor a pipe may have taken the file's place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit - kept.size + 1)
    except OSError as error:
        kept.left_out.append(f"{name}: {error.strerror or error}")
        return
    kept.add(name, data, limit)


def _too_large(name: str, size: int, limit: int) -> str:
    return f"{name}: its {size:,} bytes are beyond the outputs_limit of {limit:,} bytes for all files of a trial"
