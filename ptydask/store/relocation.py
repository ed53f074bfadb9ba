"""Results whose file was renamed or copied without the folder of its trials, or the reverse.

``NAME.h5`` of an unfinished study is an index, its trials are in ``NAME.trials`` beside it. Both say whose they are.
"""

from __future__ import annotations

from pathlib import Path

from ptydask.errors import StoreError, UnusableResults
from ptydask.formatting import shell_path
from ptydask.model import RESULT_SUFFIXES
from ptydask.store import contents, index, layout, lock, names


def find_folder(path: Path) -> Path:
    """Where the trials of the unfinished study ``path`` are: ``NAME.trials``, or another folder of its beside it.

    The first where there is no such folder, and for everything else than an index.
    """
    own, store_id = names.folder_of(path), _index_id(path)
    if store_id and not (own / contents.CARD).exists():
        for folder in sorted(path.parent.glob("*.trials")):
            if _card_id(folder) == store_id:
                return folder
    return own


def adopt_folder(path: Path) -> str:
    """Give the folder with the trials of ``path`` the name that belongs to it; a notice where it had another.

    Raises UnusableResults where there is none, or it is another file's too; OSError where it cannot be renamed.
    """
    own, folder = names.folder_of(path), find_folder(path)
    if folder == own:
        if not (own / contents.CARD).exists() and _index_id(path):
            _refuse_lone_index(path, own)
        return ""
    owner = lock.owner_of(folder)
    if owner is not None:
        raise UnusableResults(f"{path}: its trials are in {folder}, where the study is being run by {owner}")
    for suffix in RESULT_SUFFIXES:
        other = folder.with_suffix(suffix)
        if _index_id(other) == _card_id(folder):
            copying = f"cp -r {shell_path(folder)} {shell_path(own)}"
            raise UnusableResults(
                f"{path}: a copy of {other.name}, whose trials are in {folder.name}; give {other.name} as the results, "
                f"or go on with the copy after: {copying}"
            )
    folder.rename(own)
    return f"{folder.name} is now called {own.name}: the trials of {path.name} are in it"


def _refuse_lone_index(path: Path, folder: Path) -> None:
    """Raise UnusableResults where an index has trials: without their files all but their numbers would be lost."""
    count = len(index.read_numbers(path))
    if count:
        raise UnusableResults(
            f"{path}: of an unfinished study, whose {count} trials are in a folder {folder.name}, which is not there; "
            f"copy it here, too, under this name, or keep their numbers alone: ptydask rebuild {shell_path(path)}"
        )
    lineage = index.read_head(path).meta.lineage
    if lineage is not None and lineage.number > 1:
        raise UnusableResults(
            f"{path}: the stages before {lineage.name} are in a folder {folder.name}, which is not there; "
            "copy it here, too, under this name"
        )


def _index_id(path: Path) -> str:
    """The id of the study whose index ``path`` is; "" for everything else."""
    try:
        head = index.read_head(path)
    except StoreError:
        return ""
    return head.store_id if head.kind == layout.INDEX else ""


def _card_id(folder: Path) -> str:
    try:
        card = contents.read_card(folder)
    except (OSError, StoreError):
        return ""
    return "" if card is None else card[0]
