"""Which trials there are, and which file belongs to which: decided by names, the database and the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar, cast

from ptydask.analysis.export import ptyrad_names
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.importers.ptyrad import names
from ptydask.importers.ptyrad.database import StoredStudy, StoredTrial
from ptydask.importers.ptyrad.listing import FolderListing, SavedModel, modified_time
from ptydask.importers.ptyrad.log import LoggedTrial
from ptydask.importers.ptyrad.names import TrialName
from ptydask.model import Reason, Scalar, TrialState
from ptydask.space import ranges
from ptydask.space.tunables import LEGACY, PARAMETERS

DATABASE, LOG, NAMES, FILE = "database", "log", "names", "model file"
"""Where a trial's values come from."""
_BROKEN_OFF = "its job ended before it did, or is still at work: it was RUNNING when it was imported"


@dataclass(frozen=True)
class ImportedTrial:
    """A trial of the folder. Errors and parameters are PtyRAD's own: minimised, under its perhaps old names."""

    number: int
    source: str
    state: TrialState | None = None
    """None where only its file can tell whether it ran to its end."""
    reason: Reason = Reason.NONE
    message: str = ""
    value: float | None = None
    params: Mapping[str, Scalar] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    """Parameters whose value is known as far as a name goes."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Parameters as the name spells them, where there is nothing better."""
    error_text: str = ""
    """The same of the error."""
    reported: Mapping[int, float] = field(default_factory=dict)
    started: datetime | None = None
    seconds: float = 0.0
    model: Path | None = None
    iteration: int | None = None
    """By the name of its files."""
    saved: tuple[SavedModel, ...] = ()
    pictures: tuple[tuple[TrialName, Path], ...] = ()
    original: int | None = None
    """The number that its files have, where another trial has it too."""


# --- with a database ------------------------------------------------------------------------------------


def match_by_database(
    study: StoredStudy, listing: FolderListing, logged: Sequence[LoggedTrial]
) -> tuple[list[ImportedTrial], dict[Path, str]]:
    """The study's trials with their files, and the files that are of none of them, with the reason.

    Trials that wait to be run are left out.
    """
    why = {line.number: line.why for line in logged if line.state == "FAIL"}
    stored = {trial.number: trial for trial in study.trials if trial.state != "WAITING"}
    unused: dict[Path, str] = {}
    models = _assign_files(listing.models, stored, unused)
    pictures = _assign_files(listing.pictures, stored, unused)
    saved: dict[int, list[SavedModel]] = {}
    for model in listing.saved:
        if model.number in stored:
            saved.setdefault(model.number, []).append(model)
        else:
            unused[model.path] = f"the database has no trial {model.number}"
    trials = []
    for number, trial in sorted(stored.items()):
        files = sorted(models.get(number, []), key=_latest_key, reverse=True)
        unused |= {path: f"another file of trial {number} was written later" for _, path in files[1:]}
        trials.append(
            replace(
                _convert_stored_trial(trial, why.get(number, "")),
                model=files[0][1] if files else None,
                iteration=files[0][0].iteration if files else None,
                saved=tuple(saved.get(number, ())),
                pictures=tuple(pictures.get(number, ())),
            )
        )
    return trials, unused


_Named = tuple[TrialName, Path]


def _latest_key(named: _Named) -> tuple[int, float]:
    return named[0].iteration or 0, modified_time(named[1])


def _assign_files(
    files: Iterable[_Named], stored: Mapping[int, StoredTrial], unused: dict[Path, str]
) -> dict[int, list[_Named]]:
    assigned: dict[int, list[_Named]] = {}
    for name, path in files:
        trial = stored.get(name.number)
        why = f"the database has no trial {name.number}" if trial is None else _contradiction(name, trial)
        if why:
            unused[path] = why
        else:
            assigned.setdefault(name.number, []).append((name, path))
    return assigned


def _contradiction(name: TrialName, trial: StoredTrial) -> str:
    """Why a file cannot be this trial's; "" where it can."""
    value = _final_value(trial)
    error = name.error if value is None else ptyrad_names.error_text(value)
    if error != name.error:
        return f"its name says error {name.error}, trial {trial.number} of the database has {error}"
    for parameter, text in name.params.items():
        if parameter in trial.params and ptyrad_names.value_text(parameter, trial.params[parameter]) != text:
            return f"its name says {parameter} {text}, trial {trial.number} has {trial.params[parameter]!r}"
    return ""


def _final_value(trial: StoredTrial) -> float | None:
    """Its value; of a trial that has none, what it reported last."""
    if trial.value is None and trial.reported:
        return trial.reported[max(trial.reported)]
    return trial.value


def _convert_stored_trial(trial: StoredTrial, why: str) -> ImportedTrial:
    state, reason, message = TrialState.FAIL, Reason.FAILED, why
    if trial.state == "COMPLETE":
        state, reason, message = TrialState.COMPLETE, Reason.NONE, ""
    elif trial.state == "PRUNED":
        state, reason, message = TrialState.PRUNED, Reason.PRUNED, ""
    elif trial.state == "RUNNING":
        reason, message = Reason.INTERRUPTED, _BROKEN_OFF
    elif not why:
        message = "failed in PtyRAD's hypertune; its database does not say why"
    return ImportedTrial(
        number=trial.number,
        source=DATABASE,
        state=state,
        reason=reason,
        message=message,
        value=_final_value(trial),
        params=trial.params,
        reported=trial.reported,
        started=trial.started,
        seconds=(trial.ended - trial.started).total_seconds() if trial.ended and trial.started else 0.0,
    )


# --- without --------------------------------------------------------------------------------------------


def match_by_names(listing: FolderListing, logged: Sequence[LoggedTrial]) -> list[ImportedTrial]:
    """The trials that the files' names tell of, with the exact values of those that the log has.

    Several processes without a common database count from 0 each: trials with another error or other parameters are
    other trials, and of two with one number the later file gets a new one.
    """
    lines, saved = _group_by_number(logged), _group_by_number(listing.saved)
    named = _trials_from_files(listing)
    trials = [_complete_from_log(trial, lines.get(trial.number, ())) for trial in named]
    trials += _trials_without_files(named, logged)
    # A trial's own folder has nothing but the number in its name: where two have that number, it is nobody's.
    count = Counter(trial.number for trial in trials)
    for index, trial in enumerate(trials):
        if count[trial.number] == 1:
            trials[index] = replace(trial, saved=tuple(saved.get(trial.number, ())))
    for number, files in saved.items():
        if number not in count:
            trials.append(ImportedTrial(number, FILE, saved=tuple(files)))
    return _renumber_trials(trials)


_Numbered = TypeVar("_Numbered", LoggedTrial, ImportedTrial, SavedModel)


def _group_by_number(items: Iterable[_Numbered]) -> dict[int, list[_Numbered]]:
    groups: dict[int, list[_Numbered]] = {}
    for item in items:
        groups.setdefault(item.number, []).append(item)
    return groups


def _trials_from_files(listing: FolderListing) -> list[ImportedTrial]:
    groups: dict[tuple[object, ...], list[_Named]] = {}
    first: dict[tuple[object, ...], tuple[object, ...]] = {}
    # Whole names first: one that was cut joins the first group that has its number and error.
    for name, path in sorted([*listing.models, *listing.pictures], key=lambda named: named[0].cut):
        trial = (path.parent, name.number, name.error)
        if name.cut:
            key = first.setdefault(trial, trial)
        else:
            key = (*trial, *name.params.items())
            first.setdefault(trial, key)
        groups.setdefault(key, []).append((name, path))
    return [_merge_files(files) for files in groups.values()]


def _merge_files(files: Sequence[_Named]) -> ImportedTrial:
    whole = max((name for name, _ in files), key=lambda name: len(name.params))
    models = sorted(((n, p) for n, p in files if n.kind == "model"), key=_latest_key)
    return ImportedTrial(
        number=whole.number,
        source=NAMES,
        value=float(whole.error),
        params={name: names.parse_name_value(text) for name, text in whole.params.items()},
        rounded=frozenset(whole.params),
        texts=whole.params,
        error_text=whole.error,
        model=models[-1][1] if models else None,
        iteration=max((n.iteration for n, _ in files if n.iteration is not None), default=None),
        pictures=tuple((n, p) for n, p in files if n.kind != "model"),
    )


def _is_same_trial(line: LoggedTrial, trial: ImportedTrial) -> bool:
    """Whether a line of the log and the files with a name tell of the same trial."""
    if line.params is None or line.value is None or line.number != trial.number:
        return False
    same = all(
        n in line.params and ptyrad_names.value_text(n, line.params[n]) == text for n, text in trial.texts.items()
    )
    return same and ptyrad_names.error_text(line.value) == trial.error_text


def _complete_from_log(trial: ImportedTrial, lines: Sequence[LoggedTrial]) -> ImportedTrial:
    line = next((line for line in lines if _is_same_trial(line, trial)), None)
    if line is not None:
        return replace(
            trial,
            source=LOG,
            state=TrialState.COMPLETE,
            value=line.value,
            params=line.params or {},
            rounded=frozenset(),
            texts={},
            error_text="",
        )
    if any(line.state == "PRUNED" for line in lines):
        return replace(trial, state=TrialState.PRUNED, reason=Reason.PRUNED)
    return trial


def _trials_without_files(named: Sequence[ImportedTrial], logged: Sequence[LoggedTrial]) -> list[ImportedTrial]:
    """Trials of which the log tells alone."""
    files = _group_by_number(named)
    new = []
    for line in logged:
        with_files = any(_is_same_trial(line, trial) for trial in files.get(line.number, ()))
        if line.params is not None and not with_files:
            new.append(ImportedTrial(line.number, LOG, TrialState.COMPLETE, value=line.value, params=line.params))
        elif line.state == "FAIL":
            why = line.why or "failed in PtyRAD's hypertune"
            new.append(ImportedTrial(line.number, LOG, TrialState.FAIL, Reason.FAILED, why))
    return new


def _renumber_trials(trials: Sequence[ImportedTrial]) -> list[ImportedTrial]:
    """The first trial with a number keeps it; the others follow after the last."""
    numbered: dict[int, ImportedTrial] = {}
    again: list[ImportedTrial] = []
    for trial in sorted(trials, key=lambda trial: (trial.number, _trial_file_time(trial))):
        if trial.number in numbered:
            again.append(trial)
        else:
            numbered[trial.number] = trial
    following = max(numbered, default=-1) + 1
    for number, trial in enumerate(again, start=following):
        numbered[number] = replace(trial, number=number, original=trial.number)
    return [numbered[number] for number in sorted(numbered)]


def _trial_file_time(trial: ImportedTrial) -> float:
    path = trial.model or (trial.pictures[0][1] if trial.pictures else None)
    return modified_time(path) if path is not None else float("inf")


# --- what a rounded value can have been -----------------------------------------------------------------


def translate_names(trial: ImportedTrial) -> ImportedTrial:
    """The same trial with PtyRAD's old parameter names in today's: ``defocus`` is ``C10`` with the sign turned."""
    if not any(name in LEGACY for name in trial.params):
        return trial
    params: dict[str, Scalar] = {}
    today = {name: LEGACY.get(name, (name, 1)) for name in trial.params}
    for name, value in trial.params.items():
        new, sign = today[name]
        params[new] = 0 - value if sign < 0 and ranges.is_number(value) else value
    texts = {today[name][0]: _flip_sign(text) if today[name][1] < 0 else text for name, text in trial.texts.items()}
    return replace(trial, params=params, texts=texts, rounded=frozenset(today[name][0] for name in trial.rounded))


def _flip_sign(text: str) -> str:
    if text.startswith("-"):
        return text[1:]
    return f"-{text}" if float(text) else text


def recover_exact_values(
    trial: ImportedTrial, space: Mapping[str, Distribution], exact: Mapping[str, Scalar], close: Mapping[str, Scalar]
) -> ImportedTrial:
    """The trial with values that its name leaves no doubt about: those in its model file, and points of a grid.

    ``exact`` are values that the model file has in full, ``close`` those in single precision, which stay rounded ones.
    A value counts if it is spelled as the name has it; of a grid or of choices, if it is the only one.
    """
    params, rounded = dict(trial.params), set(trial.rounded)
    for name in trial.rounded:
        text, dist = trial.texts[name], space.get(name)
        if _is_never_rounded(name, text):
            rounded.discard(name)
        elif name in exact and ptyrad_names.value_text(name, exact[name]) == text:
            params[name] = exact[name]
            rounded.discard(name)
        elif dist is not None:
            near = _nearby_values(dist, params[name])
            values = [value for value in near if ptyrad_names.value_text(name, value) == text]
            if values:
                params[name] = values[0]
            if name in close and ptyrad_names.value_text(name, close[name]) == text and ranges.grid_size(dist) is None:
                params[name] = close[name]
            if len(values) == 1 and ranges.grid_size(dist) is not None:
                rounded.discard(name)
    return replace(trial, params=params, rounded=frozenset(rounded))


def _is_never_rounded(name: str, text: str) -> bool:
    """Whether a name cannot round a value: that of an optimizer, or a number of modes below 1000."""
    kind = PARAMETERS[name].kind if name in PARAMETERS else "real"
    return kind == "name" or (kind == "integer" and text.isdecimal())


def _nearby_values(dist: Distribution, value: Scalar) -> Sequence[Scalar]:
    """The choices, or the nearest value that is allowed and the two beside it on its grid."""
    if isinstance(dist, Choice):
        return dist.choices
    try:
        middle = cast(float, ranges.nearest_value(dist, value))
    except ValueError:
        return ()
    step = dist.step if isinstance(dist, FloatRange | IntRange) else None
    beside = [] if step is None else [middle - step, middle + step]
    return tuple(dict.fromkeys([middle, *(ranges.nearest_value(dist, v) for v in beside)]))
