"""``ptydask rebuild``: the index of a study made again, or a new file of what is whole in a damaged one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.errors import NoResults, StoreError, UnusableResults, one_line
from ptydask.model import Direction, StudyMeta
from ptydask.store import contents, files, index, layout, names, refused, trialgroup
from ptydask.store.study import unwritable_error
from ptydask.store.upkeep import packing, salvage
from ptydask.store.upkeep.salvage import Found


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What rebuilding found and did."""

    path: Path
    """The file that was written; the file itself where nothing was damaged."""
    written: bool
    packed: bool
    trials: int
    """Trials that are whole."""
    numbers_only: tuple[int, ...]
    """Damaged trials of which the numbers could be kept."""
    lost: tuple[int, ...]
    """Damaged trials of which nothing could."""
    trouble: tuple[str, ...]
    """What was damaged, one line each."""
    aside: tuple[Path, ...]
    """Where damaged files are now."""
    described: bool
    """Whether the study's own description was found; else its settings are unknown."""


def rebuild(path: Path, out: Path | None = None) -> RebuildReport:
    """Make the results usable again, from whatever is left of ``path`` and of the trials' own files beside it.

    With trials' own files, ``path`` becomes their index, as if the study had been stopped; damaged files are moved
    to ``NAME.trials/damaged``. Without them, or with ``out``, what is whole goes into a new packed file (``out``, or
    ``NAME-rebuilt.h5``), and nothing else is touched. Raises StoreError where a driver has the study, or nothing
    can be read.
    """
    path = path.absolute()
    folder = names.folder_of(path)
    parts = _trial_files(path, folder)
    if not parts:
        raise NoResults(f"{path}: there is no such results file, and no folder {folder.name} with its trials")
    beside = [part for part in parts if part != path]
    if not beside:
        refused.other_kinds(path)
    if out is None and beside:
        with packing.hold_lock(path):
            files.remove_leftovers(folder)
            files.remove_leftovers(path.parent, path.name)
            try:
                return _index_again(path, folder, _examine_files(path, _trial_files(path, folder)))
            except OSError as error:
                raise UnusableResults(str(unwritable_error(path, error))) from error
    return _rebuild_elsewhere(path, out, _examine_files(path, parts))


def _rebuild_elsewhere(path: Path, out: Path | None, found: Sequence[Found]) -> RebuildReport:
    """Write what is whole into a new file, where something is damaged or ``out`` is asked for."""
    if out is None and found[0].intact:
        return _make_report(path, _gather_trials(found), found, written=False, packed=found[0].kind == layout.PACKED)
    target = (out if out is not None else path.with_name(f"{path.stem}-rebuilt{path.suffix}")).absolute()
    packing.refuse_existing(target)
    return _new_file(target, found)


def _trial_files(path: Path, folder: Path) -> list[Path]:
    """Every file that holds trials: the older first, so that what is newer counts."""
    packs = sorted(folder.glob("packed-*.h5"))
    own = sorted(file for file in folder.glob("*.h5") if names.shard_number(file) is not None)
    return [*packs, *([path] if path.is_file() else []), *own]


def _examine_files(path: Path, parts: Sequence[Path]) -> list[Found]:
    found = salvage.examine(parts)
    if any(one.foreign and one.path == path for one in found):
        raise refused.foreign(path)
    return found


@dataclass(frozen=True, slots=True)
class _GatheredTrials:
    """The trials of all files together."""

    rows: Mapping[int, index.TrialRow]
    damaged: Mapping[int, str]
    """Trials that are whole nowhere, of which the numbers are known; their rows are there too."""
    lost: tuple[int, ...]
    meta: StudyMeta | None
    store_id: str


def _gather_trials(found: Sequence[Found], card: tuple[str, StudyMeta] | None = None) -> _GatheredTrials:
    whole = {row.record.number: row for one in found for row in one.whole}
    damaged = {number: (one, why) for one in found for number, why in one.damaged.items() if number not in whole}
    known = {n: record for one in found for n, record in one.table.items() if n not in whole}
    rows = dict(whole)
    for number, record in known.items():
        at = damaged[number][0].path if number in damaged else Path()
        rows[number] = index.TrialRow(record, at, f"/{layout.TRIAL}", None)
    reasons = {number: f"{damaged[number][0].path.name}: {damaged[number][1]}" for number in known if number in damaged}
    reasons |= {number: "its own file is not there any more" for number in known if number not in damaged}
    said = next(((one.store_id, one.meta) for one in reversed(found) if one.meta is not None), None)
    store_id, meta = card if card is not None else said if said is not None else ("", None)
    return _GatheredTrials(rows, reasons, tuple(sorted(damaged.keys() - rows.keys())), meta, store_id)


def _index_again(path: Path, folder: Path, found: Sequence[Found]) -> RebuildReport:
    """Set damaged files aside, and write the index of the others. The lock is held."""
    try:
        card = contents.read_card(folder)
    except StoreError:
        card = None
    got = _gather_trials(found, card)
    if not got.rows:
        raise StoreError(f"{folder}: no trial in it can be read; it is left as it is")
    if card is not None and path.is_file() and all(one.intact for one in found) and not got.damaged:
        return _make_report(path, got, found, written=False, packed=any(one.kind == layout.PACKED for one in found))
    meta = got.meta if got.meta is not None else _guess_meta(path, got)
    store_id = got.store_id or secrets.token_hex(8)
    keep = [one for one in found if one.intact]
    rows = {row.record.number: row for one in keep for row in one.whole}
    rest = {number: row for number, row in got.rows.items() if number not in rows}
    if rest:
        new = contents.pack_path(folder, secrets.token_hex(8))
        head = index.ResultsHeader(layout.PACKED, store_id, new.stem.removeprefix("packed-"), meta)
        index.pack(new, head, packing.in_order(rest), got.damaged)
        rows |= {row.record.number: row for row in index.read_rows(new)}
    aside = [contents.set_aside(one.path, folder) for one in found if not one.intact]
    if any(one.path == path and one.kind == layout.PACKED for one in keep):
        second = contents.pack_path(folder, index.read_head(path).pack_id)
        files.second_name(path, second)
        rows = {n: replace(row, file=second) if row.file == path else row for n, row in rows.items()}
    contents.write_card(folder, store_id, meta)
    index.write(path, index.ResultsHeader(layout.INDEX, store_id, "", meta), packing.in_order(rows))
    return replace(_make_report(path, got, found, written=True, packed=False), aside=tuple(aside))


def _new_file(out: Path, found: Sequence[Found]) -> RebuildReport:
    got = _gather_trials(found)
    if not got.rows:
        trouble = next((f": {one.trouble}" for one in found if one.trouble), "")
        raise StoreError(f"{found[0].path}: no trial in it can be read{trouble}; it is left as it is")
    meta = got.meta if got.meta is not None else _guess_meta(found[0].path, got)
    head = index.ResultsHeader(layout.PACKED, got.store_id or secrets.token_hex(8), secrets.token_hex(8), meta)
    try:
        index.pack(out, head, packing.in_order(got.rows), got.damaged)
    except (OSError, StoreError) as error:
        raise StoreError(f"{out}: cannot be written: {one_line(str(error))}") from error
    return _make_report(out, got, found, written=True, packed=True)


def _guess_meta(path: Path, got: _GatheredTrials) -> StudyMeta:
    """What a trial that is whole says of its study; settings and ranges are not known any more."""
    direction: Direction = "minimize"
    metric = ""
    if row := next((row for number, row in got.rows.items() if number not in got.damaged), None):
        with files.open_read_only(row.file) as file:
            direction, metric = trialgroup.read_aim(file[row.group])
    return StudyMeta(
        name=path.stem,
        direction=direction,
        metric=metric,
        engine="",
        config_text="",
        config_format="",
        config_json="",
        search_space_json="{}",
    )


def _make_report(
    path: Path, got: _GatheredTrials, found: Sequence[Found], *, written: bool, packed: bool
) -> RebuildReport:
    lines = [f"{one.path.name}: {one.trouble}" for one in found if one.trouble]
    lines += [f"{one.path.name}: trial {number}: {why}" for one in found for number, why in one.damaged.items()]
    return RebuildReport(
        path=path,
        written=written,
        packed=packed,
        trials=len(got.rows) - len(got.damaged),
        numbers_only=tuple(sorted(got.damaged)),
        lost=got.lost,
        trouble=tuple(lines),
        aside=(),
        described=got.meta is not None,
    )
