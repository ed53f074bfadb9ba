"""``ptydask merge``: several files of one study into one, trial by trial. See ``merge_plan`` for which and how."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import h5py

from ptydask.errors import StoreError
from ptydask.formatting import shell_path
from ptydask.model import StudyMeta, TrialRecord
from ptydask.store import (
    checkpoints,
    codec,
    contents,
    digest,
    embedded,
    index,
    layout,
    lock,
    names,
    nexus,
    packed_study,
    relocation,
)
from ptydask.store.embedded import EmbeddedStage, EmbeddedStudies, StudyPlace
from ptydask.store.isolated import ChildReader
from ptydask.store.study import error_reason
from ptydask.store.upkeep import packing, salvage, sizes
from ptydask.store.upkeep.merge_plan import DAMAGED, MergePlan, MergeSource, MergeTrial, PlacedTrial


def read(paths: Sequence[Path]) -> list[MergeSource]:
    """Read each of the files, of a running study too. Raises StoreError."""
    with ChildReader() as child:
        return [_read_source(child, path.absolute()) for path in paths]


def _read_source(child: ChildReader, path: Path) -> MergeSource:
    folder = relocation.find_folder(path)
    study = contents.read_contents(path, folder)
    if study.damaged or study.previous is None:
        trouble = study.damaged[0] if study.damaged else path
        raise StoreError(f"{trouble}; `ptydask rebuild {shell_path(path)}` first")
    owner = lock.owner_of(folder)
    return MergeSource(
        path,
        study.store_id,
        study.previous,
        tuple(_read_trial(child, path, row, study.store_id) for row in index.sort_rows(study.rows)),
        checkpoints.count(folder),
        "" if owner is None else str(owner),
    )


def _read_trial(child: ChildReader, path: Path, row: index.TrialRow, store_id: str) -> MergeTrial:
    number = row.record.number
    whole, answer = salvage.read_trial(child, row.file, row.group, number)
    if whole is None:
        if not row.file.exists():
            raise StoreError(f"{path}: a trial cannot be read: {answer['trouble']}; `ptydask verify` says more")
        damage = f"{row.file.name}: {answer['trouble']}"
        return MergeTrial(row, (store_id, number), codec.record_to_json(row.record), DAMAGED, damage)
    store, first_number = answer["origin"] or (store_id, number)
    record = replace(
        row.record, number=first_number, retry_of=_shift_number(row.record.retry_of, first_number - number)
    )
    missing = 0
    if answer["lost"]:
        missing = 2
    elif answer["dropped"]:
        missing = 1
    row = replace(row, sha256=whole.sha256)
    return MergeTrial(row, (store, first_number), codec.record_to_json(record), missing)


def _shift_number(number: int | None, by: int) -> int | None:
    return None if number is None else number + by


# --- doing it ---------------------------------------------------------------------------------------


def write(out: Path, arrangement: MergePlan) -> dict[int, str]:
    """Make ``out`` the packed file of all trials. It goes on as the store of the first file.

    Returns why, for each trial whose own file turned out damaged: it has its numbers only. Raises StoreError.
    """
    out = out.absolute()
    packing.refuse_existing(out)
    first = arrangement.parts[0].source
    meta = _merged_meta([part.source for part in arrangement.parts], arrangement)
    head = index.ResultsHeader(layout.PACKED, first.store_id, secrets.token_hex(8), meta)
    by_number = {placed.number: placed for placed in arrangement.trials}

    def copy(trials: h5py.Group, row: index.TrialRow, group: h5py.Group) -> None:
        # The other process has read and checked all of it: what counts here is that it is still the same trial.
        if digest.read_digest(group) != row.sha256:
            raise ValueError(digest.CHANGED)
        packed_study.copy_trial(trials, row, group)
        placed = by_number[row.record.number]
        if placed.moved or placed.trial.identity != (head.store_id, placed.number):
            _write_origin(trials[names.trial_name(placed.number)], placed, row.record)

    damaged: dict[int, str] = {}
    for placed in arrangement.trials:
        bad = placed.trial.row
        if placed.trial.missing != DAMAGED:
            continue
        if not bad.alone:
            raise StoreError(
                f"{bad.file}: trial {bad.record.number} is damaged, and no other file has it whole; "
                f"`ptydask rebuild {shell_path(bad.file)}` keeps what is whole, merge that"
            )
        damaged[placed.number] = placed.trial.damage
    try:
        rows = [_merged_row(placed) for placed in arrangement.trials]
        add = embedded.keep(_other_studies(arrangement), _copy_checked)
        return packed_study.pack(out, head, rows, damaged, copy=copy, add=add)
    except (OSError, StoreError) as error:
        raise StoreError(f"{out}: is not made: {error_reason(error)}") from error


def _other_studies(arrangement: MergePlan) -> EmbeddedStudies:
    """The stages before the first file's study, in whichever copy of it has most of them, and the confirmations.

    Those of the study itself, of all files that keep their numbers; trials of earlier stages keep theirs in any copy.
    """
    own = [part.source.path for part in arrangement.parts if keeps_numbers(part.source, arrangement)]
    packs = [pack for path in own for pack in contents.pack_files(relocation.find_folder(path))]
    numbered = embedded.find_in([*packs, *own])
    first = arrangement.parts[0].source.store_id
    copies: dict[str, list[EmbeddedStage]] = {}
    for source in (part.source for part in arrangement.parts if part.source.store_id == first):
        for stage in embedded.find(source.path, relocation.find_folder(source.path)).stages:
            copies.setdefault(stage.store_id, []).append(stage)
    stages = (
        EmbeddedStage(
            max((stage.place for stage in same), key=_measure_contents),
            store_id,
            embedded.find_fullest(stage.confirmation for stage in same),
        )
        for store_id, same in copies.items()
    )
    return replace(numbered, stages=tuple(stages))


def _measure_contents(place: StudyPlace) -> tuple[int, int]:
    """How many trials a study has, and how many bytes of arrays."""
    held = sizes.measure_trials(index.read_rows(place.file, place.group, with_tiles=False))
    return len(held), sum(holding.bulk for holding in held.values())


def _copy_checked(head: index.ResultsHeader) -> packed_study.Copy:
    """Each trial as it is, held against its digest."""
    return packed_study.copy_checked()


def keeps_numbers(source: MergeSource, arrangement: MergePlan) -> bool:
    """Whether all trials of a file have the same numbers in the merged one, by which repeats name them.

    Those of the first file have, and those of a copy of it whose trials are no others. One of another store never has:
    its repeats name that store.
    """
    placed = {(one.trial.identity, one.trial.content): one.number for one in arrangement.trials}
    numbers = ((placed.get((trial.identity, trial.content)), trial.row.record.number) for trial in source.trials)
    same_store = source.store_id == arrangement.parts[0].source.store_id
    return same_store and all(new == old for new, old in numbers)


def has_confirmation(source: MergeSource) -> bool:
    """Whether trials of a file were repeated."""
    return embedded.find(source.path, relocation.find_folder(source.path)).confirmation is not None


def has_earlier_stages(source: MergeSource) -> bool:
    """Whether there are stages before the study of a file."""
    return bool(embedded.find(source.path, relocation.find_folder(source.path)).stages)


def _merged_row(placed: PlacedTrial) -> index.TrialRow:
    record = placed.trial.row.record
    if not placed.moved:
        return placed.trial.row
    moved = replace(record, number=placed.number, retry_of=_shift_number(record.retry_of, placed.moved))
    return replace(placed.trial.row, record=moved, json="")


def _write_origin(group: h5py.Group, placed: PlacedTrial, record: TrialRecord) -> None:
    """Give a copied trial its new number, remember the old one, and seal it again."""
    store, number = placed.trial.identity
    nexus.write_attributes(group, {layout.MERGED_STORE: store, layout.MERGED_NUMBER: number})
    if placed.moved:
        old, new = f"trial {placed.trial.row.record.number}", f"trial {record.number}"
        nexus.write_attribute(group, "number", record.number)
        if record.retry_of is not None:
            nexus.write_attribute(group, "retry_of", record.retry_of)
        _replace_text(group, layout.RECORD_JSON, codec.record_to_json(record))
        for name in (layout.CURVE, layout.IMAGE):
            if name in group:
                title = nexus.read_text(group[name], "title")
                _replace_text(group[name], "title", title.replace(old, new, 1))
        if "lost" in group.attrs:
            lost = nexus.read_attribute(group, "lost")
            nexus.write_attribute(group, "lost", lost.replace(f"of {old} ", f"of {new} ", 1))
    digest.seal(group)


def _replace_text(group: h5py.Group, name: str, text: str) -> None:
    del group[name]
    nexus.write_text(group, name, text)


def _merged_meta(sources: Sequence[MergeSource], arrangement: MergePlan) -> StudyMeta:
    """The first file's description, begun when the first of them was, and what was merged into it."""
    first = sources[0].meta
    facts: dict[str, str] = {}
    for part in arrangement.parts[1:]:
        if not part.new:
            continue
        fact = f"{part.new} trials of store {part.source.store_id}"
        if part.moved:
            old, new = part.moved[0]
            fact += f", moved up by {new - old}"
        facts[_unused_name(f"merged {part.source.path.name}", {**first.provenance, **facts})] = fact
    created = min((source.meta.created for source in sources if source.meta.created), default="")
    return replace(first, created=created, provenance={**first.provenance, **facts})


def _unused_name(name: str, taken: Mapping[str, str]) -> str:
    """``name``, numbered where something else has it."""
    unused, copies = name, count(2)
    while unused in taken:
        unused = f"{name} ({next(copies)})"
    return unused
