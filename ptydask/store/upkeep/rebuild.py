"""``ptydask rebuild``: the index of a study made again, or a new file of what is whole in a damaged one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.errors import NoResults, StoreError
from ptydask.model import Direction, StudyMeta
from ptydask.store import contents, embedded, files, index, layout, names, packed_study, refused, relocation, trialgroup
from ptydask.store.embedded import Embedding, StudyContents, StudyPlace
from ptydask.store.study import error_reason, refuse_unwritable
from ptydask.store.upkeep import packing, salvage
from ptydask.store.upkeep.salvage import SalvagedFile, SalvagedStage


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
    folder = relocation.find_folder(path)
    if folder != names.folder_of(path) and out is None:
        with refuse_unwritable(path):
            relocation.adopt_folder(path)
        folder = names.folder_of(path)
    parts = _trial_files(path, folder)
    if not parts:
        raise NoResults(f"{path}: there is no such results file, and no folder {folder.name} with its trials")
    beside = [part for part in parts if part != path]
    if not beside:
        refused.refuse_other_kinds(path)
    if out is None and beside:
        with packing.hold_lock(path):
            files.remove_leftovers(folder)
            files.remove_leftovers(path.parent, path.name)
            with refuse_unwritable(path):
                return _index_again(path, folder, _examine_files(path, _trial_files(path, folder)))
    return _rebuild_elsewhere(path, out, _examine_files(path, parts))


def _rebuild_elsewhere(path: Path, out: Path | None, examined: Sequence[SalvagedFile]) -> RebuildReport:
    """Write what is whole into a new file, where something is damaged or ``out`` is asked for."""
    first = examined[0]
    gathered = _gather_trials(first.path, examined)
    if out is None and first.intact:
        return _make_report(path, gathered, examined, written=False, packed=first.kind == layout.PACKED)
    out = (path.with_name(f"{path.stem}-rebuilt{path.suffix}") if out is None else out).absolute()
    packing.refuse_existing(out)
    if not (gathered.rows or any(file.stages for file in examined)):
        trouble = next((f": {file.trouble}" for file in examined if file.trouble), "")
        raise StoreError(f"{first.path}: no trial in it can be read{trouble}; it is left as it is")
    head = index.ResultsHeader(layout.PACKED, gathered.store_id, secrets.token_hex(8), gathered.meta)
    try:
        add = _keep_others(examined)
        packed_study.pack(out, head, index.sort_rows(gathered.rows), gathered.damaged, add=add)
    except (OSError, StoreError) as error:
        raise StoreError(f"{out}: cannot be written: {error_reason(error)}") from error
    return _make_report(out, gathered, examined, written=True, packed=True)


def _keep_others(examined: Sequence[SalvagedFile]) -> Embedding:
    """What takes over earlier stages, as far as they are whole, and confirmations.

    Of a damaged confirmation nothing is kept: it can be run again.
    """
    confirmed = embedded.find_in(file.path for file in examined if file.confirmed).confirmation
    # The newest file, of those with most stages, tells their order.
    by_id: dict[str, list[tuple[Path, SalvagedStage]]] = {}
    newest_first = examined[::-1]
    for file in sorted(newest_first, key=lambda file: -len(file.stages)):
        for stage in file.stages:
            by_id.setdefault(stage.store_id or stage.group, []).append((file.path, stage))
    stages = tuple(_join_stage(copies) for copies in by_id.values())
    return Embedding(None if confirmed is None else embedded.load(confirmed), stages)


def _join_stage(copies: Sequence[tuple[Path, SalvagedStage]]) -> StudyContents:
    """A stage by what is whole of it in any file."""
    whole = {row.record.number: row for _, stage in reversed(copies) for row in stage.whole}
    table = {number: record for _, stage in reversed(copies) for number, record in stage.table.items()}
    damaged = {
        number: f"{file.name}: {why}"
        for file, stage in copies
        for number, why in stage.damaged.items()
        if number in table and number not in whole
    }
    rows = whole | {number: index.TrialRow(table[number], copies[0][0]) for number in damaged}
    file, stage = next((copy for copy in copies if copy[1].meta is not None), copies[0])
    meta = stage.meta or replace(_guess_meta(file, list(whole.values())), name=names.decode(stage.group))
    confirmed = [StudyPlace(file, stage.confirmation) for file, stage in copies if stage.confirmation]
    return StudyContents(
        index.ResultsHeader(layout.PACKED, stage.store_id or secrets.token_hex(8), stage.pack_id, meta),
        index.sort_rows(rows),
        damaged,
        confirmation=embedded.load(max(confirmed, key=embedded.count_trials)) if confirmed else None,
    )


def _trial_files(path: Path, folder: Path) -> list[Path]:
    """Every file that holds trials: the older first, so that what is newer counts."""
    results = [path] if path.is_file() else []
    return [*contents.pack_files(folder), *results, *contents.shard_files(folder).values()]


def _examine_files(path: Path, parts: Sequence[Path]) -> list[SalvagedFile]:
    examined = salvage.examine(parts)
    if any(file.foreign and file.path == path for file in examined):
        raise refused.foreign_error(path)
    return examined


@dataclass(frozen=True, slots=True)
class _GatheredTrials:
    """The trials of all files together."""

    rows: Mapping[int, index.TrialRow]
    damaged: Mapping[int, str]
    """Trials that are whole nowhere, of which the numbers are known; their rows are there too."""
    lost: tuple[int, ...]
    meta: StudyMeta
    described: bool
    """Whether that is the study's own; else it is what a trial knows."""
    store_id: str


def _gather_trials(
    path: Path, examined: Sequence[SalvagedFile], card: tuple[str, StudyMeta] | None = None
) -> _GatheredTrials:
    whole = {row.record.number: row for file in examined for row in file.whole}
    damaged = {number: (file, why) for file in examined for number, why in file.damaged.items() if number not in whole}
    table = {number: record for file in examined for number, record in file.table.items()}
    rows = dict(whole)
    reasons = {}
    # Of trials that are whole nowhere the numbers are in a table, if any file with one can be read.
    for number in table.keys() - whole.keys():
        if number in damaged:
            file, why = damaged[number]
            place, reasons[number] = file.path, f"{file.path.name}: {why}"
        else:
            place, reasons[number] = Path(), "its own file is not there any more"
        rows[number] = index.TrialRow(table[number], place)
    # The card is the folder's own. Else the newest file counts that knows its study.
    descriptions = [(file.store_id, file.meta) for file in examined if file.meta is not None]
    if card is not None:
        descriptions.append(card)
    lost = tuple(sorted(damaged.keys() - rows.keys()))
    if descriptions:
        store_id, meta = descriptions[-1]
    else:
        store_id, meta = "", _guess_meta(path, list(whole.values()))
    return _GatheredTrials(rows, reasons, lost, meta, bool(descriptions), store_id or secrets.token_hex(8))


def _index_again(path: Path, folder: Path, examined: Sequence[SalvagedFile]) -> RebuildReport:
    """Set damaged files aside, and write the index of the others. The lock is held."""
    try:
        card = contents.read_card(folder)
    except StoreError:
        card = None
    gathered = _gather_trials(path, examined, card)
    if not (gathered.rows or any(file.stages for file in examined)):
        raise StoreError(f"{folder}: no trial in it can be read; it is left as it is")
    if card is not None and path.is_file() and all(file.intact for file in examined) and not gathered.damaged:
        return _make_report(
            path, gathered, examined, written=False, packed=any(file.kind == layout.PACKED for file in examined)
        )
    meta, store_id = gathered.meta, gathered.store_id
    keep = [file for file in examined if file.intact]
    rows = {row.record.number: row for file in keep for row in file.whole}
    # What the files that stay do not have goes into one more pack: whole trials of damaged files, and bare numbers.
    unindexed = {number: row for number, row in gathered.rows.items() if number not in rows}
    kept = {stage.store_id for file in keep for stage in file.stages}
    if unindexed or {stage.store_id for file in examined for stage in file.stages} - kept:
        pack_id = secrets.token_hex(8)
        pack = contents.pack_path(folder, pack_id)
        head = index.ResultsHeader(layout.PACKED, store_id, pack_id, meta)
        add = _keep_others(examined)
        packed_study.pack(pack, head, index.sort_rows(unindexed), gathered.damaged, add=add)
        rows |= {row.record.number: row for row in index.read_rows(pack)}
    # Only now, when every trial is in a file that is whole, may the damaged ones go.
    aside = [contents.set_aside(file.path, folder) for file in examined if not file.intact]
    # A packed file whose name the index is about to take stays under a second one.
    if any(file.path == path and file.kind == layout.PACKED for file in keep):
        second = contents.pack_path(folder, index.read_head(path).pack_id)
        files.add_second_name(path, second)
        rows = {n: replace(row, file=second) if row.file == path else row for n, row in rows.items()}
    contents.write_card(folder, store_id, meta)
    index.write(path, index.ResultsHeader(layout.INDEX, store_id, "", meta), index.sort_rows(rows))
    return replace(_make_report(path, gathered, examined, written=True, packed=False), aside=tuple(aside))


def _guess_meta(path: Path, whole: Sequence[index.TrialRow]) -> StudyMeta:
    """What a trial that is whole says of its study; settings and ranges are not known any more."""
    direction: Direction = "minimize"
    metric = ""
    if whole:
        with files.open_read_only(whole[0].file) as file:
            direction, metric = trialgroup.read_objective(file[whole[0].group])
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
    path: Path, gathered: _GatheredTrials, examined: Sequence[SalvagedFile], *, written: bool, packed: bool
) -> RebuildReport:
    lines = [f"{file.path.name}: {file.trouble}" for file in examined if file.trouble]
    lines += [f"{file.path.name}: trial {number}: {why}" for file in examined for number, why in file.damaged.items()]
    for file in examined:
        for stage in file.stages:
            at = f"{file.path.name}: {stage.group}"
            lines += [f"{at}: {stage.trouble}"] if stage.trouble else []
            lines += [f"{at}: trial {number}: {why}" for number, why in stage.damaged.items()]
    return RebuildReport(
        path=path,
        written=written,
        packed=packed,
        trials=len(gathered.rows) - len(gathered.damaged),
        numbers_only=tuple(sorted(gathered.damaged)),
        lost=gathered.lost,
        trouble=tuple(lines),
        aside=(),
        described=gathered.described,
    )
