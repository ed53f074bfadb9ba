"""Whether results are as they were written: every byte that matters is read, by another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptydask.errors import StoreError
from ptydask.formatting import shell_path
from ptydask.store import byte_seal, contents, files, layout, lock, names, refused, relocation
from ptydask.store.isolated import PATIENCE, Answer, ChildReader

Progress = Callable[[int, int], None]
"""Is told how many trials were read, and of how many."""
_TRIES = 10
"""A study may go on meanwhile: what looks wrong, while the file is replaced, is looked at again."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. Its text is one line."""

    file: Path
    trial: int | None
    """None for what is not of one trial."""
    where: str
    """The path within the trial's group, or within the file; "" for the whole of it."""
    what: str

    def __str__(self) -> str:
        places = [] if self.trial is None else [f"trial {self.trial}"]
        places += [self.where] if self.where else []
        where = f"{': '.join(places)} " if places else ""
        return f"{self.file.name}: {where}{self.what}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :func:`verify` found."""

    path: Path
    kind: str
    """"packed", "index", or "trial" for a trial's own file; "" where not even that can be read."""
    trials: int
    """How many trials were read."""
    files: int
    problems: tuple[Problem, ...]
    instead: str = ""
    """What helps where ``ptydask rebuild`` would not, in one line."""

    @property
    def intact(self) -> bool:
        """Whether all is as it was written."""
        return not self.problems

    @property
    def damaged(self) -> tuple[int, ...]:
        """The numbers of the trials that are concerned."""
        return tuple(sorted({p.trial for p in self.problems if p.trial is not None}))

    @property
    def advice(self) -> str:
        """What to do about it, in one line; "" where nothing is wrong."""
        if self.intact:
            return ""
        if self.instead:
            return self.instead
        if self.kind == layout.TRIAL:
            return "put back a copy of the file, or move it away: the trial is then run again"
        rest = "" if self.kind else "where there is one, "
        return f"put back a copy of the file, {rest}or keep what is whole: ptydask rebuild {shell_path(self.path)}"


def verify(path: Path | str, *, patience: float = PATIENCE, progress: Progress | None = None) -> VerifyReport:
    """Read all of the results file ``path``, with its folder where it has one, or of one trial's own file.

    Checksums of HDF5 and our own, table, history, attributes and links are compared with each other. Damage of any
    kind ends up in the report; ``patience`` is how many seconds one trial may take to read. Raises StoreError where
    there is no such file, or it is not one of ptydask, or of a later format.
    """
    path = Path(path).absolute()
    with ChildReader(patience=patience) as child:
        for _ in range(_TRIES // 3):
            refused.refuse_other_kinds(path)
            work = _Verification(path, child, progress or (lambda done, total: None))
            head = work.check_study(path)
            _verify_file(work, path, head)
            if all(problem.file.exists() for problem in work.problems) or files.stamp(path) == head.stamp:
                break  # else trials moved into the packed file meanwhile, as they do when a study ends
        instead = _instead_of_rebuild(work, path, head) if work.problems else ""
    return VerifyReport(path, head.kind, work.read, len(work.files), tuple(work.problems), instead)


def _instead_of_rebuild(work: _Verification, path: Path, head: _FileHead) -> str:
    """What helps where nothing is damaged, or nothing is left to be rebuilt from; "" elsewhere."""
    for file in dict.fromkeys(problem.file for problem in work.problems):
        writer = refused.describe_writer(file)
        if writer:
            return f"{file.name}: {writer}: close it there, and verify again"
    if any("Permission denied" in problem.what for problem in work.problems):
        return "get the permission to read the files named above; nothing says that they are damaged"
    folder = relocation.find_folder(path)
    owner = lock.owner_of(folder)
    if owner is not None:
        return f"the study is being run by {owner}; verify again when the run has ended"
    if head.kind == layout.INDEX and not any(folder.glob("*.h5")):
        return (
            f"copy the folder {folder.name} to {path.parent}, beside the file: of the trials the file has numbers alone"
        )
    if head.kind == layout.INDEX and _folder_store_id(work, folder, head) not in ("", head.store_id):
        return f"move {folder.name} away, and put the folder of this study in its place"
    if not (head.kind or any(folder.glob("*.h5")) or _anything_left(work, path)):
        return "put back a copy of the file: nothing in it can be read, and so nothing rebuilt"
    return ""


def _anything_left(work: _Verification, path: Path) -> bool:
    """Whether a file that cannot say what it is has a table, or trials, that can be read."""
    return bool(work.ask("records", path).get("records") or work.ask("names", path).get("numbers"))


def _verify_file(work: _Verification, path: Path, head: _FileHead) -> None:
    if head.kind == layout.TRIAL:
        work.check_trials([_TrialPlace(names.shard_number(path), path, layout.OWN_GROUP)])
    elif head.kind == layout.INDEX:
        _verify_index(work, path, head)
    elif head.kind == layout.PACKED:
        work.check_trials([*work.trials_within(path, head), *_trials_since(work, path, head)])


@dataclass(frozen=True, slots=True)
class _TrialPlace:
    """A trial, where it lies, and what the table knows of it."""

    number: int | None
    file: Path
    group: str
    row: Mapping[str, Any] = field(default_factory=dict)
    """``seal``, ``text`` and ``image`` of it; nothing where it has no row."""
    stage: str = ""
    """The group of the earlier stage that it is of; "" for a trial of the study that the file is of."""

    @property
    def within(self) -> str:
        """Where a trial of an earlier stage lies: its number alone would name another one."""
        return self.group.lstrip("/") if self.stage else ""


@dataclass(frozen=True, slots=True)
class _FileHead:
    """What a file says of itself."""

    kind: str = ""
    store_id: str = ""
    study: str = ""
    """The path of the study's group."""
    rows: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    stamp: tuple[int, ...] = ()
    earlier: tuple[_FileHead, ...] = ()
    """The stages before its study."""


@dataclass
class _Verification:
    """What has been found so far."""

    path: Path
    child: ChildReader
    progress: Progress
    problems: list[Problem] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    read: int = 0
    intact: byte_seal.IntactFiles = field(default_factory=byte_seal.IntactFiles)

    def ask(self, what: str, file: Path, **more: Any) -> Answer:
        """What the other process answers."""
        return self.child.ask(what=what, path=str(file), **more)

    def add_problems(self, file: Path, trial: int | None, answer: Answer, label: str = "", within: str = "") -> None:
        for where, what in answer["problems"]:
            place = (where or label).removeprefix(within).lstrip("/")
            problem = Problem(file, None if within else trial, "/".join(filter(None, (within, place))), what)
            if problem not in self.problems:
                self.problems.append(problem)

    def check_study(self, file: Path) -> _FileHead:
        """Check all of ``file`` but its trials. Raises StoreError where it is none of ours."""
        self.files.add(file)
        before = list(self.problems)
        for _ in range(_TRIES):
            self.problems, stamp = list(before), files.stamp(file)
            head = replace(self._check_parts(file), stamp=stamp)
            if files.stamp(file) == stamp or (self.problems == before and file not in self.intact):
                break  # else its parts are of two files, one after the other
        return head

    def _check_parts(self, file: Path) -> _FileHead:
        head = self.ask("head", file)
        if "refused" in head:
            raise StoreError(head["refused"])
        if "foreign" in head:
            raise StoreError(str(refused.foreign_error(file)))
        self.add_problems(file, None, head)
        kind = head.get("kind", "")
        if kind not in (layout.PACKED, layout.INDEX):
            return _FileHead(kind)
        self.intact.forget(file)
        rows_of_study = self._check_study_parts(file)
        stages = self.ask("stages", file)
        self.add_problems(file, None, stages, layout.STAGES)
        earlier = [
            _FileHead(kind, study=f"/{name}", rows=self._check_study_parts(file, name))
            for name in stages.get("groups", ())
        ]
        return _FileHead(kind, head["id"], head["study"], rows_of_study, earlier=tuple(earlier))

    def _check_study_parts(self, file: Path, stage: str = "") -> Mapping[int, Mapping[str, Any]]:
        """Check all of the study, or of an earlier stage, but its trials; returns the rows of its table."""
        if file in self.intact:
            rows = self.ask("rows", file, study=stage, intact=True)
            return {number: {"seal": sha256, "text": text} for number, sha256, text in rows.get("rows", [])}
        within = {"within": stage}
        titles, seal, rows, images = (
            self.ask(what, file, study=stage) for what in ("titles", "seal", "rows", "images")
        )
        self.add_problems(file, None, seal, "" if stage else "all but the trials", **within)
        self.add_problems(file, None, self.ask("confirmation", file, study=stage), "confirmation")
        for answer, label in ((titles, ""), (rows, layout.TABLE), (images, layout.THUMBNAILS)):
            # What cannot be read at all was met when the digest was made, which names the very path.
            if not (answer.get("unread") and seal["problems"]):
                self.add_problems(file, None, answer, label, **within)
        tiles = images.get("images", [])
        table_rows = {
            number: {"seal": sha256, "text": text, "image": tiles[row] if row < len(tiles) else None}
            for row, (number, sha256, text) in enumerate(rows.get("rows", []))
        }
        if table_rows:
            links = self.ask("links", file, numbers=list(table_rows), study=stage)
            self.add_problems(file, None, links, "links", **within)
        return table_rows

    def trials_within(self, file: Path, head: _FileHead) -> list[_TrialPlace]:
        """The trials of a packed file: those of its table, or those that can be seen in it."""
        places = []
        for study, stage in ((head, ""), *((one, one.study.lstrip("/")) for one in head.earlier)):
            numbers = sorted(study.rows) or sorted(self.ask("names", file, study=stage).get("numbers", []))
            groups = [f"{study.study}/{layout.TRIALS}/{names.trial_name(number)}" for number in numbers]
            places += [
                _TrialPlace(number, file, group, study.rows.get(number, {}), stage)
                for number, group in zip(numbers, groups, strict=True)
            ]
        return places

    def check_trials(self, places: Sequence[_TrialPlace]) -> None:
        """Check trials, one by one, wherever they lie."""
        self.progress(0, len(places))
        self.files.update(place.file for place in places)
        doubtful = []
        for place in places:
            if self._is_intact(place):
                self._count_trial(len(places))
            else:
                doubtful.append(place)
        questions = [
            {"what": "compared", "path": str(place.file), "group": place.group, "number": place.number, **place.row}
            for place in doubtful
        ]
        with closing(self.child.ask_each(questions)) as answers:
            for place, answer in zip(doubtful, answers, strict=True):
                self.add_problems(place.file, place.number, answer, within=place.within)
                self._count_trial(len(places))

    def _count_trial(self, total: int) -> None:
        self.read += 1
        self.progress(self.read, total)

    def _is_intact(self, place: _TrialPlace) -> bool:
        """Whether the bytes of its file are those that were written, and it is the trial that the table knows."""
        if not place.row.get("seal"):
            return False
        if place.group == layout.OWN_GROUP:
            return self.intact.content_of(place.file) == place.row["seal"]
        return place.file in self.intact


def _folder_store_id(work: _Verification, folder: Path, head: _FileHead) -> str:
    """The id of the store whose folder it is; "" where there is none. One that cannot say it counts as the file's."""
    try:
        card = contents.read_card(folder) if folder.is_dir() else None
    except StoreError:
        work.problems.append(Problem(folder / contents.CARD, None, "", "is damaged"))
        return head.store_id
    return "" if card is None else card[0]


def _trials_since(work: _Verification, path: Path, head: _FileHead) -> list[_TrialPlace]:
    """Trials that a packed file does not have yet: of a study that goes on, or whose driver was killed."""
    folder = names.folder_of(path)
    if _folder_store_id(work, folder, head) != head.store_id:
        return []
    shards = contents.shard_files(folder)
    numbers = sorted(shards.keys() - head.rows.keys())
    return [_TrialPlace(number, shards[number], layout.OWN_GROUP) for number in numbers]


def _verify_index(work: _Verification, path: Path, head: _FileHead) -> None:
    """Check every trial's own file, and every older pack, in the folder beside an index."""
    folder = relocation.find_folder(path)
    store_id = _folder_store_id(work, folder, head)
    if store_id != head.store_id:
        what = "holds trials of another study" if store_id else "is not there: the trials are in it"
        work.problems.append(Problem(folder, None, "", what))
        return
    packed: dict[int, _TrialPlace] = {}
    places: list[_TrialPlace] = []
    for pack in contents.pack_files(folder):
        for place in work.trials_within(pack, work.check_study(pack)):
            if place.stage:
                places.append(place)
            elif place.number is not None:
                packed[place.number] = place
    alone = contents.shard_files(folder)
    for number in sorted({*head.rows, *alone, *packed}):
        file = names.shard_path(folder, number)
        if number in alone:
            places.append(_TrialPlace(number, file, layout.OWN_GROUP, head.rows.get(number, {})))
        elif number in packed:
            places.append(packed[number])
        else:
            work.problems.append(Problem(file, number, "", "is in the table, but its file is not there"))
    work.check_trials(places)
