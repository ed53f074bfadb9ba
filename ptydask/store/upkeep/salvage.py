"""Which trials of damaged files are whole: read by another process, since HDF5 may crash or hang on a damaged file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptydask.model import StudyMeta, TrialRecord
from ptydask.store import codec, contents, index, layout, names, refused
from ptydask.store.isolated import Answer, ChildReader

_PARTS = ("head", "seal", "records", "names", "described", "confirmation")


@dataclass(frozen=True, slots=True)
class SalvagedStage:
    """What can be read of a stage before the study that a file is of."""

    group: str
    store_id: str
    pack_id: str
    meta: StudyMeta | None
    whole: tuple[index.TrialRow, ...]
    """Trials that are as they were written."""
    damaged: Mapping[int, str]
    """Trials that are not, and why."""
    table: Mapping[int, TrialRecord]
    confirmation: str
    """The group of its confirmation, where that is as it was written; else ""."""
    trouble: str
    """What is wrong with it as a whole, "" where nothing is."""


@dataclass(frozen=True, slots=True)
class SalvagedFile:
    """What can be read of one file, a packed one, an index, or a trial's own."""

    path: Path
    kind: str = ""
    """"packed" or "index"; "" for a trial's own file, and where the file cannot say."""
    store_id: str = ""
    meta: StudyMeta | None = None
    whole: tuple[index.TrialRow, ...] = ()
    """Trials that are as they were written."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Trials that are not, and why."""
    table: Mapping[int, TrialRecord] = field(default_factory=dict)
    """The rows of the file's table."""
    trouble: str = ""
    """What is wrong with the file as a whole, "" where nothing is."""
    confirmed: bool = False
    """Whether it holds a confirmation, as it was written."""
    stages: tuple[SalvagedStage, ...] = ()
    foreign: bool = False
    """Whether it is somebody else's HDF5 file."""

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with it."""
        damaged = (
            self.trouble,
            self.damaged,
            *(part for stage in self.stages for part in (stage.trouble, stage.damaged)),
        )
        return not any(damaged)


def examine(paths: Sequence[Path]) -> list[SalvagedFile]:
    """Read everything in each of ``paths``, and say which trials are whole. Raises nothing for any damage."""
    with ChildReader() as child:
        return [_salvage_file(child, path) for path in paths]


def read_trial(child: ChildReader, file: Path, group: str, number: int) -> tuple[index.TrialRow | None, Answer]:
    """A trial as a row, where it is whole and has the ``number`` that its place says; and all that ``child`` answered.

    Where it is not whole the answer's ``trouble`` says why.
    """
    answer = child.ask(what="trial", path=str(file), group=group)
    if "trouble" in answer:
        return None, answer
    record = codec.record_from_json(answer["record"])
    if record.number != number:
        return None, {**answer, "trouble": f"it says that it is trial {record.number}"}
    return index.TrialRow(record, file, group, None, answer["sha256"], answer["record"]), answer


def _salvage_file(child: ChildReader, path: Path) -> SalvagedFile:
    """What can be read of the file."""
    number = names.shard_number(path)
    if number is None:
        return _salvage_study(child, path)
    whole, damaged = _salvage_trials(child, path, {number: layout.OWN_GROUP})
    return SalvagedFile(path, whole=whole, damaged=damaged)


def _salvage_study(child: ChildReader, path: Path) -> SalvagedFile:
    # Each part is a question of its own, so that one that is damaged beyond reading does not cost the others.
    answers = {part: child.ask(what=part, path=str(path)) for part in (*_PARTS, "stages")}
    if answers["head"].get("kind") == layout.TRIAL:  # under a name that does not tell its number
        answers["head"] = {"trouble": str(refused.foreign_error(path))}
    # What a damaged head does not say may be in the study's group; trials that the table lacks may be in the file.
    head = {**answers["described"], **answers["head"]}
    table = _read_table(answers)
    study = answers["names"].get("study", head.get("study"))
    groups: dict[int, str] = {}
    if study and head.get("kind") != layout.INDEX:  # in an index trials are links to their own files
        groups = _trial_groups(study, answers, table)
    whole, damaged = _salvage_trials(child, path, groups)
    return SalvagedFile(
        path,
        kind=head.get("kind", ""),
        store_id=head.get("id", ""),
        meta=codec.meta_from_json(head["meta"]) if "meta" in head else None,
        whole=whole,
        damaged=damaged,
        table=table,
        trouble=_first_trouble(answers),
        confirmed=bool(answers["confirmation"].get("group")) and "trouble" not in answers["confirmation"],
        stages=tuple(_salvage_stage(child, path, group) for group in answers["stages"].get("groups", ())),
        foreign=bool(head.get("foreign")),
    )


def _salvage_stage(child: ChildReader, path: Path, group: str) -> SalvagedStage:
    answers = {part: child.ask(what=part, path=str(path), study=group) for part in _PARTS if part != "head"}
    described, confirmed = answers["described"], answers["confirmation"]
    table = _read_table(answers)
    whole, damaged = _salvage_trials(child, path, _trial_groups(f"/{group}", answers, table))
    return SalvagedStage(
        group=group,
        store_id=described.get("id", ""),
        pack_id=described.get("pack", ""),
        meta=codec.meta_from_json(described["meta"]) if "meta" in described else None,
        whole=whole,
        damaged=damaged,
        table=table,
        confirmation="" if "trouble" in confirmed else confirmed.get("group", ""),
        trouble=_first_trouble(answers),
    )


def _read_table(answers: Mapping[str, Answer]) -> dict[int, TrialRecord]:
    records = [codec.record_from_json(text) for text in answers["records"].get("records", ())]
    return {record.number: record for record in records}


def _trial_groups(study: str, answers: Mapping[str, Answer], table: Mapping[int, TrialRecord]) -> dict[int, str]:
    """Where the trials of the table, and those that can be seen, lie."""
    numbers = {*table, *answers["names"].get("numbers", ())}
    return {number: f"{study}/{layout.TRIALS}/{names.trial_name(number)}" for number in sorted(numbers)}


def _first_trouble(answers: Mapping[str, Answer]) -> str:
    return next((answer["trouble"] for answer in answers.values() if "trouble" in answer), "")


def _salvage_trials(
    child: ChildReader, path: Path, groups: Mapping[int, str]
) -> tuple[tuple[index.TrialRow, ...], Mapping[int, str]]:
    """Those that are whole; and of the others, by number, why they are not."""
    whole: list[index.TrialRow] = []
    damaged: dict[int, str] = {}
    for number, group in groups.items():
        row, answer = read_trial(child, path, group, number)
        if row is not None:
            whole.append(contents.with_tile(row))
        else:
            damaged[number] = answer["trouble"]
    return tuple(whole), damaged
