"""What is on the disk of a study: ``NAME.h5``, the folder ``NAME.trials``, and what a kill leaves of them."""

from __future__ import annotations

import glob
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ptydask.errors import StoreError
from ptydask.model import StudyMeta
from ptydask.store import checkpoints, codec, digest, files, index, layout, lock, names, root, shard

CARD = "store.json"
"""Whose folder it is: the store's id, and the study's description."""
STATUS = "status.json"
DAMAGED = "damaged"
JOBS = "jobs"
"""Logs of batch jobs."""
_GONE = ".gone"


@dataclass(frozen=True, slots=True)
class StoreContents:
    """A study as it was found."""

    store_id: str
    previous: StudyMeta | None
    """What the store said of its study; None for a new one."""
    pack: str | None
    """The pack id of ``NAME.h5``; None where it is an index, or not there."""
    rows: Mapping[int, index.TrialRow]
    damaged: tuple[str, ...]


def pack_path(folder: Path, pack_id: str) -> Path:
    """The second name of a packed file that more trials are added to."""
    return folder / f"packed-{pack_id}.h5"


def pack_files(folder: Path) -> list[Path]:
    """The older packed files in ``NAME.trials``."""
    return _list_files(folder, "packed-*.h5")


def whole_files(path: Path, folder: Path, pack: str | None) -> list[Path]:
    """The packed files of a study, the older first; ``pack`` is the pack id of ``path``, None where it is an index."""
    return [*pack_files(folder), *([] if pack is None else [path])]


def shard_files(folder: Path) -> dict[int, Path]:
    """The trials' own files in ``NAME.trials``, by the trials' numbers."""
    numbered = [(names.shard_number(path), path) for path in _list_files(folder, "*.h5")]
    return {number: path for number, path in numbered if number is not None}


def _list_files(folder: Path, pattern: str) -> list[Path]:
    """In their order; none where the folder is gone, as it is once a run has packed its trials."""
    with suppress(FileNotFoundError):
        return sorted(folder.glob(pattern))
    return []


def refuse_foreign(path: Path, folder: Path) -> None:
    """Raise StoreError where ``path`` or ``folder`` is somebody else's, before anything is written."""
    if path.is_dir():
        raise StoreError(f"{path}: a folder; the results are one file, give its name")
    if path.exists():
        try:
            index.read_head(path)
        except StoreError as error:
            if (folder / CARD).exists():
                raise StoreError(f"{error}; move it away to go on with the trials in {folder}") from error
            raise
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: a file; a folder of this name is needed while the study runs")
    if folder.is_dir() and not (folder / CARD).exists():
        foreign = [p.name for p in folder.iterdir() if p.name not in (lock.NAME, DAMAGED, JOBS) and p.name[0] != "."]
        if foreign:
            raise StoreError(
                f"{folder}: a folder that ptydask did not make (it holds {foreign[0]!r}); "
                "move it, or give another name for the results"
            )


def load_and_tidy(path: Path, folder: Path) -> StoreContents:
    """Read what is there, and tidy up after a driver that was killed. The lock must be held."""
    files.remove_leftovers(folder)
    files.remove_leftovers(path.parent, path.name)
    for leftover in path.parent.glob(f".{glob.escape(folder.name)}.*{_GONE}"):
        shutil.rmtree(leftover, ignore_errors=True)
    card = read_card(folder)
    head = index.read_head(path) if path.exists() else None
    if card is not None and head is not None and card[0] != head.store_id:
        if not _is_left_by_earlier_stage(card[0], path, folder):
            raise StoreError(f"{folder}: holds trials of another study than {path.name}; move one of them away")
        clear_finished(folder)
        card = None
    packed = _packed_rows(path, head)
    # A driver that was killed after it packed, before it removed the folder, left the parts beside the whole. Those
    # that the packed file holds go away now; what it does not hold was recorded since, and stays.
    rows: dict[int, index.TrialRow] = {}
    for pack in pack_files(folder):
        held: Mapping[int, index.TrialRow] = _rows_by_number(pack)
        # An older pack without any trial may have the stages before: it goes once the packed file has all of these.
        if head is not None and head.kind == layout.PACKED and root.further_groups(pack) <= root.further_groups(path):
            held = _drop_if_packed(pack, held, packed)
        rows.update(held)
    # A trial may be in an older pack and in the packed file: the rows that come later replace the earlier ones.
    rows |= packed
    damaged: list[str] = []
    for file in shard_files(folder).values():
        try:
            row = read_shard(file)
        except StoreError as error:
            set_aside(file)
            damaged.append(str(error))
            continue
        # The only copy of the arrays, however damaged, is not removed as one that the packed file holds.
        if _lost_more(row, packed.get(row.record.number)):
            set_aside(file)
            damaged.append(f"{file}: damaged; of trial {row.record.number} only the numbers were packed")
            continue
        rows |= _drop_if_packed(file, {row.record.number: row}, packed)
    if head is not None and head.kind == layout.INDEX:
        for row in _rows_without_file(path, folder, rows):
            rows[row.record.number] = row
            damaged.append(f"{row.file}: is not there; of trial {row.record.number} only the numbers are left")
    return _make_contents(card, head, rows, damaged)


def _is_left_by_earlier_stage(store_id: str, path: Path, folder: Path) -> bool:
    """Whether a folder, which is of another store than ``path``, has no trials, and is of a stage that is in ``path``.

    The driver was killed after it began the next stage, before the folder of the last one was gone.
    """
    return not (shard_files(folder) or pack_files(folder)) and store_id in root.stage_ids(path)


def clear_finished(folder: Path) -> None:
    """Remove what only a study under way needs, and the card last: without one the folder would be nobody's."""
    spared = (lock.NAME, DAMAGED, JOBS)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == CARD):
        if entry.name not in spared:
            entry.unlink()


def _rows_without_file(path: Path, folder: Path, rows: Mapping[int, index.TrialRow]) -> list[index.TrialRow]:
    """The rows of an index whose trials are in no file, as where a folder was copied in part.

    Those whose files were damaged, and were set aside, are not among them: they are run again.
    """
    if not set(index.read_numbers(path)).difference(rows):
        return []
    missing = [row for row in index.read_rows(path) if row.record.number not in rows]
    own = [(row, names.shard_path(folder, row.record.number)) for row in missing]
    return [
        replace(row, file=file, group=layout.OWN_GROUP)
        for row, file in own
        if not (folder / DAMAGED / file.name).exists()
    ]


def read_contents(path: Path, folder: Path, *, with_tiles: bool = True) -> StoreContents:
    """What is there, read without touching anything, also while a driver has it. Raises StoreError.

    Rows of trials in files of their own come without digest, too, where they come without their tiles.
    """
    card = read_card(folder)
    head = index.read_head(path) if path.exists() or card is None else None
    packed = _packed_rows(path, head, with_tiles=with_tiles)
    # A folder of another study is none of this file's: the file alone counts.
    if head is not None and (card is None or card[0] != head.store_id):
        return _make_contents(None, head, packed, ())
    rows: dict[int, index.TrialRow] = {}
    for pack in pack_files(folder):
        rows |= _rows_by_number(pack, with_tiles=with_tiles)
    rows |= packed  # the last one counts where several have a trial
    damaged: list[str] = []
    for number, file in shard_files(folder).items():
        # What a pack has already is about to be removed by its driver, perhaps before it could be read here.
        if number in rows:
            continue
        try:
            rows[number] = read_shard(file) if with_tiles else index.TrialRow(shard.read_record(file), file)
        except StoreError as error:
            damaged.append(str(error))
    return _make_contents(card, head, rows, damaged)


def _packed_rows(path: Path, head: index.ResultsHeader | None, *, with_tiles: bool = True) -> dict[int, index.TrialRow]:
    """The trials that the results file itself holds: none where it is an index, or not there."""
    return _rows_by_number(path, with_tiles=with_tiles) if head is not None and head.kind == layout.PACKED else {}


def _rows_by_number(pack: Path, *, with_tiles: bool = True) -> dict[int, index.TrialRow]:
    return {row.record.number: row for row in index.read_rows(pack, with_tiles=with_tiles)}


def _make_contents(
    card: tuple[str, StudyMeta] | None,
    head: index.ResultsHeader | None,
    rows: Mapping[int, index.TrialRow],
    damaged: Sequence[str],
) -> StoreContents:
    """The study by what its file says of it, else by its folder's card, else a new one."""
    if head is not None:
        pack_id = head.pack_id if head.kind == layout.PACKED else None
        return StoreContents(head.store_id, head.meta, pack_id, rows, tuple(damaged))
    # Without a file, but with a card, the driver ended before its first index, or somebody removed that.
    store_id, previous = card if card is not None else (secrets.token_hex(8), None)
    return StoreContents(store_id, previous, None, rows, tuple(damaged))


def _drop_if_packed(
    file: Path, rows: Mapping[int, index.TrialRow], packed: Mapping[int, index.TrialRow]
) -> Mapping[int, index.TrialRow]:
    """``rows``, or nothing where the packed file holds all of them: ``file`` is then removed."""
    for number, row in rows.items():
        if number not in packed or not _same_record(row, packed[number]):
            return rows
    file.unlink()
    return {}


def _lost_more(row: index.TrialRow, packed: index.TrialRow | None) -> bool:
    """Whether the packed file lacks what this trial's own file had: a kill came before it was moved aside."""
    if packed is None or not _same_record(row, packed):
        return False
    lost = index.read_loss(packed)
    if lost is None:
        return True
    # What a worker could not keep is missing in both, in the same words: then packing lost nothing.
    return lost != "" and lost != index.read_loss(row)


def _same_record(a: index.TrialRow, b: index.TrialRow) -> bool:
    return codec.record_to_json(a.record) == codec.record_to_json(b.record)


def read_shard(path: Path) -> index.TrialRow:
    """A trial's file as a row. Raises StoreError where it is damaged."""
    with closing(files.RecentFile()) as recent:
        return _with_tile_in(recent, index.TrialRow(shard.read_record_in(recent, path), path))


def with_tile(row: index.TrialRow) -> index.TrialRow:
    """``row`` with the thumbnail and the digest in the trial's own file; as it is where that cannot be read."""
    with closing(files.RecentFile()) as recent:
        return _with_tile_in(recent, row)


def _with_tile_in(recent: files.RecentFile, row: index.TrialRow) -> index.TrialRow:
    try:
        file = recent.open(row.file)
        return replace(row, tile=index.read_own_tile(file, row.group), sha256=digest.read_digest(file[row.group]))
    except files.BROKEN:
        return row


def set_aside(path: Path, folder: Path | None = None) -> Path:
    """Move a damaged file out of the way, into ``NAME.trials/damaged``; earlier ones of that name stay.

    ``folder`` is ``NAME.trials``, where the file is not in it. Returns where the file is now.
    """
    folder = (path.parent if folder is None else folder) / DAMAGED
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    copies = count(2)
    while target.exists():
        target = folder / f"{path.stem}-{next(copies)}{path.suffix}"
    path.replace(target)
    return target


def write_card(folder: Path, store_id: str, meta: StudyMeta) -> None:
    """Say whose folder it is."""
    card = {"format": layout.FORMAT, "id": store_id, "meta": codec.meta_to_json(meta)}
    files.write_text(folder / CARD, json.dumps(card))


def read_card(folder: Path) -> tuple[str, StudyMeta] | None:
    """The store's id and description; None where the folder has none. Raises StoreError on damage."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return card["id"], codec.meta_from_json(card["meta"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / CARD}: damaged; remove it to go on with the trials beside it") from error


def trials_begun(folder: Path) -> bool:
    """Whether any trial left its file or a checkpoint."""
    return bool(shard_files(folder)) or checkpoints.count(folder) > 0


def read_status(folder: Path) -> dict[str, Any] | None:
    """What a driver said last in the folder of its trials; None where nothing can be read of it."""
    try:
        status = codec.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def study_begun(folder: Path) -> bool:
    """Whether a driver has ever begun with trials there, or there are some: where a kill came before, nothing was."""
    return (folder / STATUS).exists() or bool(pack_files(folder)) or trials_begun(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no trial was ever kept."""
    entries = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if entries and entries <= {lock.NAME}:
        remove(folder)


def remove(folder: Path, keep: Sequence[str] = (DAMAGED,)) -> None:
    """Remove the folder at once: it loses its name first. Subfolders to ``keep`` stay, unless empty."""
    gone = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{_GONE}")
    try:
        folder.rename(gone)
        for name in keep:
            if (gone / name).is_dir() and any((gone / name).iterdir()):
                folder.mkdir(exist_ok=True)
                (gone / name).rename(folder / name)
    except OSError:
        return  # it is tidied up when the study is opened the next time
    files.sync_folder(folder.parent)
    shutil.rmtree(gone, ignore_errors=True)
