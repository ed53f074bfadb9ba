"""From one stage to the next: the results file becomes that of the next stage, with those before it in it."""

from __future__ import annotations

import secrets
from pathlib import Path

from ptydask.errors import StoreError
from ptydask.model import StudyMeta
from ptydask.store import contents, embedded, index, layout, names, packed_study, refused, root
from ptydask.store.embedded import EmbeddedStage, EmbeddedStudies, StudyPlace
from ptydask.store.study import error_reason
from ptydask.store.upkeep import packing


def begin_stage(path: Path, meta: StudyMeta) -> None:
    """Make ``path``, the packed file of a stage, that of the stage ``meta``, which has no trials so far.

    The stage that it was of, and all before it, stay in it, each with its ids and its confirmation; arrays are copied
    as they lie. Raises StoreError where a driver has the file, it is not packed, has a study of that name already, or
    there is no room: all is then as it was.
    """
    path = path.absolute()
    folder = names.folder_of(path)
    if not path.exists():
        raise refused.missing_error(path)
    contents.refuse_foreign(path, folder)
    with packing.hold_lock(path):
        study = contents.load_and_tidy(path, folder)
        if contents.whole_files(path, folder, study.pack) != [path] or any(r.file != path for r in study.rows.values()):
            raise StoreError(f"{path}: is not in one file yet; `ptydask pack` makes it one")
        _refuse_name(path, meta)
        earlier = embedded.find_in([path], strict=True)
        last = EmbeddedStage(StudyPlace(path), study.store_id, earlier.confirmation)
        head = index.ResultsHeader(layout.PACKED, secrets.token_hex(8), secrets.token_hex(8), meta)
        try:
            packed_study.pack(path, head, [], {}, add=embedded.keep(EmbeddedStudies(None, (*earlier.stages, last))))
        except (OSError, StoreError) as error:
            reason = f"the next stage cannot begin: {error_reason(error)}"
            raise StoreError(f"{path}: {reason}; everything is as it was") from error
        contents.clear_finished(folder)


def _refuse_name(path: Path, meta: StudyMeta) -> None:
    """Raise StoreError where a study of the next stage's name is in the file."""
    name = names.encode(meta.name)
    if name in root.further_groups(path) or meta.name == index.read_head(path).meta.name:
        raise StoreError(f"{path}: has a study {meta.name!r} already; give the stage another name")
