"""A packed results file written at once: of trials that ended long ago, elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from ptydask.errors import UnusableResults, one_line
from ptydask.model import StudyMeta, TrialOutput, TrialRecord
from ptydask.store import contents, index, layout, names


def refuse_existing(path: Path) -> None:
    """Raise UnusableResults where ``path`` is there, or trials of a study that would be written to it."""
    folder = names.folder_of(path)
    if path.exists():
        raise UnusableResults(f"{path}: is there already, and is left as it is; give another name with --results")
    if (folder / contents.CARD).exists():
        raise UnusableResults(f"{folder}: holds trials of a study called so; give another name with --results")
    if not path.parent.is_dir():
        raise UnusableResults(f"{path}: there is no folder {path.parent}")


def write(path: Path, meta: StudyMeta, trials: Iterable[tuple[TrialRecord, TrialOutput | None]]) -> None:
    """Make ``path``, which must not be there, the packed results file of ``trials``, in rising order of number.

    One trial is held in memory at a time. Raises UnusableResults where it cannot be written, StoreError where it does
    not read back, and what ``trials`` raises; nothing is then left behind.
    """
    refuse_existing(path)
    head = index.Head(layout.PACKED, secrets.token_hex(8), secrets.token_hex(8), meta)
    try:
        index.write_new(path, head, trials)
    except OSError as error:
        why = one_line(error.strerror or str(error))
        raise UnusableResults(f"{path}: the results cannot be written there: {why}") from error
