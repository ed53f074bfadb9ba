"""What this process may use of its machine: cores and memory, as affinity mask, cgroups and the kernel allow them.

In a container, a job or a slice of systemd the kernel shows all cores and the whole memory, and slows or kills whoever
takes more than its cgroups allow (cgroups(7); ``cpu.max`` and ``memory.max`` of version 2, ``cpu.cfs_quota_us`` and
``memory.limit_in_bytes`` of version 1).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_CONTROLS = {
    "cpu": ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "memory": ("memory.max", "memory.current", "memory.stat", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
_ROOT, _MEMBERSHIP, _MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def return_freed_memory() -> None:
    """Give the machine back what this process's allocator keeps of freed memory, also amid what is in use.

    It takes milliseconds. glibc keeps what lies below the last block in use, whoever freed it. Nothing happens where
    there is no glibc.
    """
    import ctypes  # few processes need it

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def usable_cores() -> int:
    """As many as this process can keep busy at once, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS: all
    return count_cores(allowed, _read_controls("cpu"))


def free_memory() -> float:
    """Bytes that this process and its children may still take; infinity where the system does not say."""
    return count_memory(_read(_MEMORY), _read_controls("memory"))


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The most that may be in use at a time."""

    size: int
    """Bytes, swap space included."""
    reason: str
    """In words what sets it."""


def memory_limit() -> MemoryLimit | None:
    """The least of what the kernel holds this process to; None where it does not say (Linux alone does)."""
    return least_limit(_read(_MEMORY), _read_controls("memory"))


def least_limit(meminfo: str, groups: Iterable[Mapping[str, str]]) -> MemoryLimit | None:
    """That of the machine, or less where one of ``groups`` (see :func:`count_cores`) is held to less."""
    total, swap = _size(meminfo, "MemTotal"), _size(meminfo, "SwapTotal") or 0
    if total is None:
        return None
    held = min(map(_limit, groups), default=math.inf)
    if held >= total:
        return MemoryLimit(total + swap, "this machine has")
    return MemoryLimit(int(held) + swap, "the job or container of this process may use")


def count_cores(allowed: int, groups: Iterable[Mapping[str, str]]) -> int:
    """``allowed`` cores of the affinity mask, or the part of them that the quotas of all ``groups`` leave, rounded up.

    Each group is the text of its control files by name.
    """
    return max(1, math.ceil(min([allowed, *map(_quota, groups)])))


def _quota(group: Mapping[str, str]) -> float:
    """Cores' worth of time, infinity without a limit (``max``; -1 in version 1)."""
    words = group.get("cpu.max", "").split() or [group.get(f"cpu.cfs_{name}_us", "") for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def count_memory(meminfo: str, groups: Iterable[Mapping[str, str]]) -> float:
    """Bytes that the machine and all ``groups`` have left; what they only cache counts as free."""
    free = _size(meminfo, "MemAvailable")
    return max(0.0, min([math.inf if free is None else free, *map(_memory_left, groups)]))


def _size(meminfo: str, name: str) -> int | None:
    match = re.search(rf"^{name}: *(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _limit(group: Mapping[str, str]) -> float:
    """Bytes, infinity without a limit (``max``)."""
    try:
        return int(group.get("memory.max") or group["memory.limit_in_bytes"])
    except (KeyError, ValueError):
        return math.inf


def _memory_left(group: Mapping[str, str]) -> float:
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", group.get("memory.stat", ""), re.MULTILINE)
    try:
        used = int(group.get("memory.current") or group["memory.usage_in_bytes"])
    except (KeyError, ValueError):
        return math.inf
    return _limit(group) - used + (int(cached[1]) if cached else 0)


def group_folders(membership: str, controller: str) -> Iterator[PurePosixPath]:
    """Where the control files of a process may be, below the mount of the cgroups: its groups and all above them.

    ``membership`` is its ``/proc/PID/cgroup``. A container's groups are often mounted in place of the root, so that
    the path that the kernel names is not there: what is there counts.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = {controllers, controller} if controllers else {"", "unified"}
        for mount in sorted(mounts):
            own = PurePosixPath(path)
            yield from (PurePosixPath(mount) / group.relative_to("/") for group in (own, *own.parents))


def _read_controls(controller: str) -> list[dict[str, str]]:
    folders = [_ROOT / folder for folder in group_folders(_read(_MEMBERSHIP), controller)]
    return [{name: _read(folder / name) for name in _CONTROLS[controller]} for folder in folders if folder.is_dir()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
