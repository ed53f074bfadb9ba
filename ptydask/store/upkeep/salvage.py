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
    foreign: bool = False
    """Whether it is somebody else's HDF5 file."""

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with it."""
        return not (self.trouble or self.damaged)


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
    whole, damaged = _salvage_trials(child, path, {number: f"/{layout.TRIAL}"})
    return SalvagedFile(path, whole=whole, damaged=damaged)


def _salvage_study(child: ChildReader, path: Path) -> SalvagedFile:
    # Each part is a question of its own, so that one that is damaged beyond reading does not cost the others.
    answers = {part: child.ask(what=part, path=str(path)) for part in _PARTS}
    if answers["head"].get("kind") == layout.TRIAL:  # under a name that does not tell its number
        answers["head"] = {"trouble": str(refused.foreign_error(path))}
    records = [codec.record_from_json(text) for text in answers["records"].get("records", ())]
    # What a damaged head does not say may be in the study's group; trials that the table lacks may be in the file.
    head = {**answers["described"], **answers["head"]}
    numbers = {record.number for record in records}.union(answers["names"].get("numbers", ()))
    study = answers["names"].get("study", head.get("study"))
    groups: dict[int, str] = {}
    if study and head.get("kind") != layout.INDEX:  # in an index trials are links to their own files
        groups = {number: f"{study}/{layout.TRIALS}/{names.trial_name(number)}" for number in sorted(numbers)}
    whole, damaged = _salvage_trials(child, path, groups)
    troubles = [answer["trouble"] for answer in answers.values() if "trouble" in answer]
    return SalvagedFile(
        path,
        kind=head.get("kind", ""),
        store_id=head.get("id", ""),
        meta=codec.meta_from_json(head["meta"]) if "meta" in head else None,
        whole=whole,
        damaged=damaged,
        table={record.number: record for record in records},
        trouble=troubles[0] if troubles else "",
        confirmed=bool(answers["confirmation"].get("group")) and "trouble" not in answers["confirmation"],
        foreign=bool(head.get("foreign")),
    )


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
