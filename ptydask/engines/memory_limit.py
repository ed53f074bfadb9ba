"""How much memory this process may have: the machine's, or less where a batch job or a container is held to less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The most that may be in use at a time."""

    size: int
    """Bytes, swap space included."""
    reason: str
    """In words what sets it."""


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The least of what the kernel holds this process to; None where it does not say (Linux alone does).

    A control group is held to its own limit and to those of all groups above it: memory.max of version 2,
    memory.limit_in_bytes of version 1. ``root`` is where /proc and /sys are.
    """
    try:
        sizes = _read_sizes((root / "proc/meminfo").read_text())
        total, swap = sizes["MemTotal"], sizes["SwapTotal"]
    except (OSError, KeyError):
        return None
    limits = [MemoryLimit(total + swap, "this machine has")]
    for file in _limit_files(root):
        with suppress(OSError, ValueError):  # not in this container, or "max"
            limits.append(MemoryLimit(int(file.read_text()) + swap, "the job or container of this process may use"))
    return min(limits, key=lambda limit: limit.size)


def _read_sizes(meminfo: str) -> dict[str, int]:
    lines = (line.split() for line in meminfo.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1:] == ["kB"]}


def _limit_files(root: Path) -> Iterator[Path]:
    groups = root / "sys/fs/cgroup"
    file = root / "proc/self/cgroup"
    for line in file.read_text().splitlines() if file.exists() else ():
        _, controllers, path = line.split(":", 2)
        folders = [PurePosixPath(path), *PurePosixPath(path).parents]
        for folder in (str(folder).strip("/") for folder in folders):
            if controllers == "":
                yield groups / folder / "memory.max"
            elif "memory" in controllers.split(","):
                yield groups / "memory" / folder / "memory.limit_in_bytes"
