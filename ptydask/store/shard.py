"""One trial, one file: written once by the worker that ran it, never changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from ptydask import __version__
from ptydask.errors import StoreError, one_line
from ptydask.model import Direction, KeepOptions, TrialOutput, TrialRecord
from ptydask.store import codec, digest, draft, files, layout, names, nexus, trialgroup


@dataclass(frozen=True, slots=True)
class Shard:
    """A trial's file as it was written."""

    path: Path
    sha256: str
    """Of the file's bytes."""
    seal: str
    """The digest of the trial's group."""
    tile: bytes | None
    """The thumbnail, compressed as in the file; None where there is none."""
    json: str
    """The record, as the file has it."""
    lost: str = ""
    """What could not be kept, and why, in one sentence; "" where everything was."""


def write(
    folder: Path,
    record: TrialRecord,
    output: TrialOutput | None,
    keep: KeepOptions,
    *,
    direction: Direction,
    metric: str,
) -> Shard:
    """Write a trial's file into ``folder``, whole and durable before this returns.

    Where its arrays cannot be written (a full disk, a quota), its numbers, curves and log still are, and
    :attr:`Shard.lost` says so. Raises StoreError when not even those can be kept.
    """
    path = names.shard_path(folder, record.number)
    text, seal, tile = "", "", None
    failure: Exception | None = None
    for kept in _shrinking_outputs(output):
        lost = _describe_loss(record, output, kept, keep, failure) if failure is not None else ""
        try:
            text = codec.record_to_json(record)
            content = trialgroup.compose(
                layout.TRIAL, record, kept, keep, direction=direction, metric=metric, lost=lost, text=text
            )
            nexus.write_attributes(content, _ROOT)

            def build(file: h5py.File, content: draft.Group = content) -> str:
                nonlocal seal, tile
                seal = digest.save_sealed(file, content, layout.TRIAL, itself=True)
                tile = trialgroup.read_tile(file[layout.TRIAL])
                return seal

            if content.nbytes <= _IN_MEMORY:
                sha256 = files.write_image(path, build)
            else:
                files.write_whole(path, build)
                sha256 = files.sha256(path)
        except Exception as error:  # whatever it was, the trial's numbers are worth keeping
            failure = error
        else:
            return Shard(path, sha256, seal, tile, text, lost)
    assert failure is not None
    raise StoreError(f"{path}: trial {record.number} cannot be written: {_error_reason(failure)}") from failure


_IN_MEMORY = 1 << 23
"""Bytes of arrays, at most, whose file is made in memory: larger ones are not to be there twice."""
_ROOT = {
    "NX_class": "NXroot",
    "default": layout.TRIAL,
    "format": layout.FORMAT,
    "format_version": layout.FORMAT_VERSION,
    "creator": f"ptydask {__version__}",
}


def _shrinking_outputs(output: TrialOutput | None) -> Iterator[TrialOutput | None]:
    """What to try to keep: everything, then no artifacts, then numbers and curves, then the numbers alone."""
    if output is not None:
        yield output
        if output.artifacts:
            yield replace(output, artifacts={})
        if not output.artifacts or _has_bulk(output):
            yield replace(output, arrays={}, image=None, snapshots={}, artifacts={})
    yield None


def _has_bulk(output: TrialOutput) -> bool:
    return bool(output.arrays or output.image is not None or output.snapshots)


def _describe_loss(
    record: TrialRecord, output: TrialOutput | None, kept: TrialOutput | None, keep: KeepOptions, why: Exception
) -> str:
    """What a reader misses, and why, in one sentence; "" where it is nothing."""
    if output is None:
        return ""
    parts = []
    if kept is None:
        parts.append("the curve")
        parts += ["the log"] if output.log else []
        parts += ["the command"] if output.command else []
    if keep.arrays:
        parts += _lost_parts(output, kept)
    if not parts:
        return ""
    lost = f"{', '.join(parts)}: {_error_reason(why)}"
    if kept is not None and _has_bulk(kept):
        return f"of trial {record.number} all was kept but {lost}"
    rest = "numbers and curves" if kept is not None else "numbers"
    return f"of trial {record.number} only {rest} were kept, not {lost}"


def _lost_parts(output: TrialOutput, kept: TrialOutput | None) -> list[str]:
    """What of arrays, images, snapshots and artifacts is in ``output`` alone."""
    parts = []
    if kept is None or not _has_bulk(kept):
        parts += [*output.arrays, *(["the image"] if output.image is not None else [])]
        parts += [f"{len(output.snapshots)} snapshots"] if output.snapshots else []
    if output.artifacts:
        mb = sum(map(len, output.artifacts.values())) / 1e6
        parts.append(f"{len(output.artifacts)} artifact{'' if len(output.artifacts) == 1 else 's'} ({mb:.3g} MB)")
    return parts


def read_record(path: Path) -> TrialRecord:
    """The row of the trial whose file this is. Raises StoreError where the file is damaged or another's."""
    with closing(files.RecentFile()) as recent:
        return read_record_in(recent, path)


def read_record_in(recent: files.RecentFile, path: Path) -> TrialRecord:
    """The same; the file stays open."""
    try:
        record = trialgroup.read_record(recent.open(path)[layout.TRIAL])
    except files.BROKEN as error:
        raise StoreError(f"{path}: not a readable trial file: {_error_reason(error)}") from error
    if names.shard_number(path) not in (None, record.number):
        raise StoreError(f"{path}: holds trial {record.number}, which its name does not say")
    return record


def _error_reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(f"{type(error).__name__}: {error}")
