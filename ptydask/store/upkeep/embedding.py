"""A study's confirmation into the study's own file, and out of it again to grow. See ``store/confirmation.py``.

At every moment one of the two files has all repeats: the companion goes away only once ``NAME.h5`` has been replaced
by one that holds them, and what is in ``NAME.h5`` stays there while a copy of it grows.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ptydask.errors import StoreError
from ptydask.model import path_beside
from ptydask.ring_correlation import FourierRing
from ptydask.store import (
    byte_seal,
    confirmation,
    contents,
    digest,
    embedded,
    files,
    index,
    isolated,
    layout,
    names,
    packed_study,
)
from ptydask.store.embedded import Embedding, StudyContents, StudyPlace
from ptydask.store.study import error_reason
from ptydask.store.upkeep import packing


def embed(path: Path, curves: Mapping[int, FourierRing]) -> None:
    """Move the confirmation beside ``path`` into it, with the curves of these trials; those of others stay.

    Raises StoreError where a driver has either of them, ``path`` is not packed, or there is no room: all is then as it
    was.
    """
    path = path.absolute()
    companion = confirmation.companion_of(path)
    with packing.hold_lock(path), packing.hold_lock(companion):
        study = contents.load_and_tidy(path, names.folder_of(path))
        repeats = contents.load_and_tidy(companion, names.folder_of(companion))
        for file, loaded in ((path, study), (companion, repeats)):
            if loaded.pack is None or any(row.file != file for row in loaded.rows.values()):
                raise StoreError(f"{file}: is not in one file yet; `ptydask pack` makes it one")
        head, of = index.read_head(path), confirmation.study_of(index.read_head(companion).meta)
        earlier = embedded.find_in([path], strict=True)
        known = _curves_of(earlier.confirmation_of(of))
        confirmed = replace(embedded.load(StudyPlace(companion)), curves={**known, **curves})
        add = _add_confirmation(embedded.keep(earlier), of, confirmed)
        _pack_checked(path, head, index.sort_rows(study.rows), add)
        with files.open_read_only(path) as file:
            digest.check(file[names.encode(confirmed.head.meta.name)])
        companion.unlink()
        path_beside(companion, ".journal").unlink(missing_ok=True)


def _curves_of(place: StudyPlace | None) -> Mapping[int, FourierRing]:
    return {} if place is None else confirmation.read_curves(place.file, place.group)


def _add_confirmation(kept: Embedding, of: str, confirmed: StudyContents) -> Embedding:
    """``kept`` with ``confirmed`` as the confirmation of the stage ``of``, else of the study that the file is of."""
    stages = [replace(s, confirmation=confirmed) if s.head.store_id == of else s for s in kept.stages]
    own = kept.confirmation if of in {stage.head.store_id for stage in stages} else confirmed
    return replace(kept, confirmation=own, stages=tuple(stages))


def take_out(path: Path, store_id: str = "") -> None:
    """Copy the confirmation in ``path`` into its own file beside it, to go on with; nothing where that is there.

    It is that of the earlier stage ``store_id``, or of the study that the file is of. Raises StoreError where it cannot
    be written; all is then as it was.
    """
    path = path.absolute()
    companion = confirmation.companion_of(path)
    with packing.hold_lock(companion):
        place = embedded.find(path, names.folder_of(path)).confirmation_of(store_id)
        if place is None or companion.exists():
            return
        head = index.read_head(place.file, place.group)
        rows = index.read_rows(place.file, place.group)
        _pack_checked(companion, replace(head, kind=layout.PACKED), rows)


def _pack_checked(
    path: Path, head: index.ResultsHeader, rows: Sequence[index.TrialRow], add: packed_study.Addition | None = None
) -> None:
    """Make ``path`` the packed file of ``rows``, each copy held against its seal."""
    intact = byte_seal.IntactFiles()
    try:
        isolated.find_deadly(rows, intact)
        new = replace(head, pack_id=secrets.token_hex(8))
        packed_study.pack(path, new, rows, {}, copy=packed_study.copy_checked(intact), add=add)
    except (OSError, StoreError) as error:
        raise StoreError(f"{path}: cannot be written: {error_reason(error)}; everything is as it was") from error
