"""Which trials of damaged files are whole: read by another process, since HDF5 may crash or hang on a damaged file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord
from ptydask.store import codec, contents, digest, files, index, isolated, layout, names, nexus, table, trialgroup

Answer = Mapping[str, Any]
_DEAD = {"trouble": "HDF5 crashes or hangs on it"}
_PARTS = ("head", "seal", "rows", "names", "described")


@dataclass(frozen=True, slots=True)
class Found:
    """What can be read of one file, a packed one, an index, or a trial's own."""

    path: Path
    kind: str = ""
    """"packed" or "index"; "" for a trial's own file, and where the file cannot say."""
    store_id: str = ""
    meta: StudyMeta | None = None
    whole: tuple[index.Row, ...] = ()
    """Trials that are as they were written."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Trials that are not, and why."""
    table: Mapping[int, TrialRecord] = field(default_factory=dict)
    """The rows of the file's table."""
    trouble: str = ""
    """What is wrong with the file as a whole, "" where nothing is."""
    foreign: bool = False
    """Whether it is somebody else's HDF5 file."""

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with it."""
        return not (self.trouble or self.damaged)


def examine(paths: Sequence[Path], *, patience: float = isolated.PATIENCE) -> list[Found]:
    """Read everything in each of ``paths``, and say which trials are whole. Raises nothing for any damage."""
    of_studies = [path for path in paths if names.shard_number(path) is None]
    answers = iter(_ask([{"what": part, "path": str(path)} for path in of_studies for part in _PARTS], patience))
    said = {path: dict(zip(_PARTS, answers, strict=False)) for path in of_studies}
    groups = {path: _groups(said.get(path)) for path in paths}
    tasks = [{"what": "trial", "path": str(path), "group": group} for path in paths for group in groups[path].values()]
    trials = iter(_ask(tasks, patience))
    return [_found(path, said.get(path, {}), {n: (g, next(trials)) for n, g in groups[path].items()}) for path in paths]


def deadly(rows: Sequence[index.Row], patience: float = isolated.PATIENCE) -> dict[int, str]:
    """Why, for each trial whose facts HDF5 crashes or hangs on: it is not to be copied by the process that asks.

    Raises StoreError for one in a packed file. Data of fixed size have checksums, and do no such harm.
    """
    tasks = [{"what": "facts", "path": str(row.file), "group": row.group} for row in rows]
    dead = [row for row, answer in zip(rows, _ask(tasks, patience), strict=True) if answer is _DEAD]
    for row in dead:
        if not row.alone:
            raise StoreError(f"{row.file}: trial {row.record.number} cannot be read from it: {_DEAD['trouble']}")
    return {row.record.number: f"{row.file.name}: {_DEAD['trouble']}" for row in dead}


def _ask(tasks: Sequence[Mapping[str, Any]], patience: float) -> list[Answer]:
    return [_DEAD if a is None else a for a in isolated.run("ptydask.store.salvage", tasks, patience=patience)]


def _groups(said: Mapping[str, Answer] | None) -> dict[int | None, str]:
    """The trials of a file by number, and where each lies; a trial's own file has one, whose name says its number."""
    if said is None:
        return {None: f"/{layout.TRIAL}"}
    if said["head"].get("kind") == layout.INDEX:
        return {}
    numbers = {*said["names"].get("numbers", ()), *_table(said["rows"])}
    study = said["names"].get("study", said["head"].get("study"))
    return {n: f"{study}/{layout.TRIALS}/{names.trial_name(n)}" for n in sorted(numbers)} if study else {}


def _table(rows: Answer) -> dict[int, TrialRecord]:
    return {record.number: record for record in map(codec.record_from_json, rows.get("rows", ()))}


def _found(path: Path, said: Mapping[str, Answer], trials: Mapping[int | None, tuple[str, Answer]]) -> Found:
    """What the other process answered, as trials."""
    whole, damaged = [], {}
    for number, (group, answer) in trials.items():
        named = names.shard_number(path) if number is None else number
        record = codec.record_from_json(answer["record"]) if "record" in answer else None
        if record is not None and record.number == named:
            row = index.Row(record, path, group, None, answer["sha256"], answer["record"])
            whole.append(contents.with_tile(row))
        elif named is not None:
            wrong = f"it says that it is trial {record.number}" if record is not None else ""
            damaged[named] = answer.get("trouble") or wrong
    head = {**said.get("described", {}), **said.get("head", {})}
    return Found(
        path,
        kind=head.get("kind", ""),
        store_id=head.get("id", ""),
        meta=codec.meta_from_json(head["meta"]) if "meta" in head else None,
        whole=tuple(whole),
        damaged=damaged,
        table=_table(said.get("rows", {})),
        trouble=next((said[part]["trouble"] for part in _PARTS if "trouble" in said.get(part, {})), ""),
        foreign=bool(head.get("foreign")),
    )


# --- in the other process -----------------------------------------------------------------------------


def _answer(task: Mapping[str, Any]) -> Answer:
    more = {key: value for key, value in task.items() if key not in ("what", "path")}
    try:
        with files.read(Path(task["path"])) as file:
            return _ANSWERS[task["what"]](file, **more)
    except (*files.BROKEN, StoreError) as error:
        return {"trouble": files.why(error)}


def _head(file: h5py.File) -> Answer:
    """What the file is."""
    if "format" not in list(file.attrs) or nexus.said(file, "format") != layout.FORMAT:
        return {"foreign": True, "trouble": "not a results file of ptydask"}
    head = index.head_of(file, Path(file.filename))
    meta = codec.meta_to_json(head.meta)
    return {"kind": head.kind, "id": head.store_id, "meta": meta, "study": index.study_of(file).name}


def _seal(file: h5py.File) -> Answer:
    """Whether all that is no trial's is as it was written."""
    digest.check(file["/"], index.apart(index.study_of(file)), isolated.Sha256)
    return {}


def _rows(file: h5py.File) -> Answer:
    """The rows of the table, as JSON."""
    return {"rows": table.read_texts(_study(file)[layout.TABLE])}


def _names(file: h5py.File) -> Answer:
    """The numbers of the trials that the file itself holds."""
    study = _study(file)
    trials = study[layout.TRIALS]
    here = [int(n) for n in trials if n.isdecimal() and isinstance(trials.get(n, getlink=True), h5py.HardLink)]
    return {"study": study.name, "numbers": here}


def _described(file: h5py.File) -> Answer:
    """The study's description, also where the file cannot say what it is."""
    said = nexus.read_text(_study(file), layout.STUDY_JSON)
    return {"meta": codec.meta_to_json(codec.meta_from_json(said))}


def _study(file: h5py.File) -> h5py.Group:
    """The study's group, by what is in it where the file's own attributes are damaged. Raises KeyError."""
    with suppress(*files.BROKEN):
        return index.study_of(file)
    return next((file[name] for name in file if layout.TRIALS in file[name]), None) or file[layout.TRIALS]


def _trial(file: h5py.File, *, group: str) -> Answer:
    """One trial, where it is as it was written."""
    trial = file[group]
    digest.check(trial, begin=isolated.Sha256)
    return {"record": codec.record_to_json(trialgroup.read_record(trial)), "sha256": digest.sealed(trial)}


def _facts(file: h5py.File, *, group: str) -> Answer:
    """Whether reading what is said of a trial comes to an end."""
    for path in (group, f"{group}/{layout.PARAMS}", f"{group}/{layout.METRICS}"):
        with suppress(*files.BROKEN):
            dict(file[path].attrs)
    return {}


_ANSWERS: Mapping[str, Callable[..., Answer]] = {
    "head": _head,
    "seal": _seal,
    "rows": _rows,
    "names": _names,
    "described": _described,
    "trial": _trial,
    "facts": _facts,
}


if __name__ == "__main__":
    isolated.serve(_answer)
