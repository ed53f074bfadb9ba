"""Where patterns are kept: in a worker's own memory, in one copy of its machine's, in a file. Pure, no PtyRAD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptydask.formatting import size_text
from ptydask.machine import MemoryLimit

_SINGLE = 4
"""Bytes of a value in single precision, which PtyRAD computes with."""
SHARED_FROM = 2**26
"""Bytes of patterns from which on the workers of a machine have one copy: fewer are read sooner than found."""


@dataclass(frozen=True, slots=True)
class LoadingMemory:
    """Bytes of host memory that a worker needs at least to read the patterns and process them as PtyRAD does."""

    patterns: int
    """In single precision."""
    besides: int
    """At the same time: the values as the file has them, or a mask of a byte a value."""
    besides_is: str
    mask: int
    """Of those bytes, what is needed even if the patterns are in a file."""
    shape: tuple[int, int]
    """Number of patterns, pixels along a side."""

    @property
    def total(self) -> int:
        """Of all at once."""
        return self.patterns + self.besides

    @property
    def text(self) -> str:
        """The sum in words."""
        count, pixels = self.shape
        return (
            f"{size_text(self.total)} ({count} patterns of {pixels} x {pixels} in single precision, "
            f"{size_text(self.patterns)}, and {size_text(self.besides)} {self.besides_is})"
        )


def count_values(init: Mapping[str, Any]) -> int:
    """Values of all patterns as PtyRAD reads them, before it crops or pads."""
    return int(init["pos_N_scan_slow"]) * int(init["pos_N_scan_fast"]) * int(init["meas_Npix"]) ** 2


def are_shared(init: Mapping[str, Any]) -> bool:
    """Whether the workers of a machine that have the patterns in its memory have one copy of them."""
    return _SINGLE * count_values(init) >= SHARED_FROM


def estimate_loading(init: Mapping[str, Any], itemsize: int, *, counts_held_out: bool) -> LoadingMemory:
    """What PtyRAD's ``_load_meas`` and ``_process_meas`` have in memory at a time, at least.

    ``itemsize`` is that of a value in the file, 0 where nobody knows: such as are in single precision there are not
    copied. Held-out electrons are a byte a value, or more.
    """
    count, pixels = int(init["pos_N_scan_slow"]) * int(init["pos_N_scan_fast"]), int(init["meas_Npix"])
    values = count_values(init)
    stored = 0 if itemsize in (0, _SINGLE) else itemsize * values
    mask = values * (2 if counts_held_out else 1)
    besides, what = max((stored, "as the file has them"), (mask, "while they are processed"))
    return LoadingMemory(_SINGLE * values, besides, what, mask, (count, pixels))


@dataclass(frozen=True, slots=True)
class ScratchSpace:
    """A folder of this machine for files that nobody else needs."""

    folder: Path
    free: int
    """Bytes."""
    in_memory: bool
    """Its files are in memory, too."""


def choose_place(
    need: LoadingMemory, limit: MemoryLimit | None, preload: bool, in_part: bool, scratch: ScratchSpace
) -> Path | None:
    """The folder of the file that the patterns are kept in; None for memory. Raises DoesNotFit.

    Patterns that do not fit ``limit`` go to ``scratch`` where ``preload_data`` is false and the data file can be read
    in part. There they are twice for a while: as they are processed, and as all workers of the machine have them.
    """
    if limit is None or need.total <= limit.size:
        return None
    lack = f"they need {need.text} of memory, but {limit.reason} {size_text(limit.size)}"
    more = "give the job more (memory in the cluster's profile), or bin or crop the patterns in their file"
    room = f"{size_text(2 * need.patterns)} in {scratch.folder} ($TMPDIR)"
    if preload:
        raise DoesNotFit(lack, f"set model_params.preload_data: false, which keeps them in a file, {room}; or {more}")
    if not in_part:
        raise DoesNotFit(lack, f"save them as .h5 or .npy, which can be read in part; or {more}")
    if need.mask > limit.size:
        raise DoesNotFit(f"{lack}; in a file they still need {size_text(need.mask)}", more)
    if scratch.in_memory or scratch.free < 2 * need.patterns:
        have = "whose files are in memory, too" if scratch.in_memory else f"which has {size_text(scratch.free)}"
        raise DoesNotFit(
            f"{lack}; in a file they need {room}, {have}", f"set TMPDIR to a disk of that machine; or {more}"
        )
    return scratch.folder


class DoesNotFit(Exception):  # noqa: N818 - becomes a DataError
    """There is no room for the patterns: the sum, and what to do."""

    def __init__(self, rule: str, hint: str) -> None:
        super().__init__(rule)
        self.rule, self.hint = rule, hint
