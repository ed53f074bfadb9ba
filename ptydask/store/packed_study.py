"""A whole study in one file with everything: made of trials that lie elsewhere, and read back before it counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

import h5py

from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord
from ptydask.store import byte_seal, digest, files, index, layout, names, trialgroup
from ptydask.store.index import ResultsHeader, TrialRow

Copy = Callable[[h5py.Group, TrialRow, h5py.Group], None]
"""Makes in the group of all trials what a row stands for, from the group where it lies."""


class Addition(Protocol):
    """What belongs into a study's file beside its trials."""

    @property
    def sources(self) -> Collection[Path]:
        """The files that it is read from."""

    def write(self, file: h5py.File, /) -> None:
        """Add it to a file that has the trials."""

    def check(self, path: Path, /) -> None:
        """Raise StoreError where the finished file lacks any of it."""


_IN_MEMORY = 1 << 28
"""Bytes, at most, of a packed file that is made in memory. For a moment it is there twice."""


def copy_trial(trials: h5py.Group, row: TrialRow, group: h5py.Group) -> None:
    """Copy a trial's group into ``trials`` without unpacking its arrays."""
    trials.copy(group, names.trial_name(row.record.number))


def copy_checked(intact: byte_seal.IntactFiles | None = None) -> Copy:
    """The same, each copy held against its digest where it is not of a file that is known to be as it was written."""

    def copy(trials: h5py.Group, row: TrialRow, group: h5py.Group) -> None:
        copy_trial(trials, row, group)
        if intact is None or row.file not in intact:
            digest.check(trials[names.trial_name(row.record.number)])

    return copy


def pack(
    path: Path,
    head: ResultsHeader,
    rows: Sequence[TrialRow],
    damaged: Mapping[int, str],
    *,
    copy: Copy = copy_trial,
    add: Addition | None = None,
) -> dict[int, str]:
    """Make ``path`` the one file that holds all of ``rows`` (sorted by number), read back before it counts.

    ``copy`` takes one trial over; what it raises of :data:`files.BROKEN` says that the trial is damaged. ``add`` takes
    over what belongs to the study besides.
    Returns why, for each trial whose own file is ``damaged`` or turned out to be: it has its numbers only.
    An older pack that cannot be read is no such case: it holds many trials, and goes away after this one.
    Raises OSError or StoreError; ``path`` is then unchanged.
    """
    failed = dict(damaged)

    def place(trials: h5py.Group, row: TrialRow) -> None:
        number, name = row.record.number, names.trial_name(row.record.number)
        # What is known to be damaged is not even opened: HDF5 might crash or hang on it.
        if number not in failed:
            try:
                copy(trials, row, source.open(row.file)[row.group])
                return
            except files.BROKEN as error:
                source.close()
                if not row.alone:
                    raise StoreError(f"{row.file}: trial {number} cannot be read from it: {error}") from error
                failed[number] = f"{row.file.name}: {error}"
                # Copying may have come half the way, or all of it before the copy's digest turned out wrong.
                if name in trials:
                    del trials[name]
        write_numbers_only(trials, name, row.record, head.meta)

    everything = {row.record.number for row in rows}

    def check(aside: Path) -> None:
        check_whole(aside, everything)
        if add is not None:
            add.check(aside)

    with closing(files.RecentFile()) as source:
        sources = {row.file for row in rows} | (set() if add is None else set(add.sources))
        write = files.write_image if _may_be_sealed(sources) else files.write_whole
        add_others = (lambda file: None) if add is None else add.write
        write(path, lambda file: index.build_study(file, head, rows, everything, place, add_others), check)
    return failed


def _may_be_sealed(sources: Collection[Path]) -> bool:
    """Whether a file made of these fits into memory, and all of them are as they were written.

    Its byte seal vouches for all that is in it: where a trial or a table had changed before, that is to be found still.
    """
    intact = byte_seal.IntactFiles()
    return _total_size(sources) <= _IN_MEMORY and all(path in intact for path in sources)


def _total_size(paths: Iterable[Path]) -> int:
    """Bytes of the files; what is not there has none."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def check_whole(path: Path, numbers: set[int], group: str = "") -> None:
    """Read a study in a pack that is about to replace its parts. Raises StoreError where a trial is not in it."""
    rows = index.read_rows(path, group)
    with files.open_read_only(path) as file:
        missing = {names.trial_name(number) for number in numbers} - set(index.study_of(file, group)[layout.TRIALS])
    if missing:
        raise StoreError(f"{path}: the packed file lacks {', '.join(sorted(missing))}")
    if {row.record.number for row in rows} != numbers:
        raise StoreError(f"{path}: the packed file lacks rows of its table")


def write_numbers_only(trials: h5py.Group, name: str, record: TrialRecord, meta: StudyMeta) -> None:
    """Write a trial whose own group cannot be read."""
    lost = f"of trial {record.number} only the numbers were kept: its own file was damaged"
    trial = trialgroup.compose(name, record, None, meta.keep, direction=meta.direction, metric=meta.metric, lost=lost)
    digest.save_sealed(trials, trial, name)
