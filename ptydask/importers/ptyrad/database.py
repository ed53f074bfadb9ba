"""PtyRAD's study in its Optuna storage, read and never written, whatever version of Optuna made it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import StorageError, UsageError, hide_password, one_line, redact
from ptydask.model import Scalar
from ptydask.storage import urls

Rows = Callable[..., list[dict[str, Any]]]
_INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}
_MIRRORED = "ptydask"
"""The attribute of a trial that a run of ptydask copied into the database."""
_OTHERS = ("-wal", "-journal")
"""Files beside an SQLite database that hold what is not in it yet."""


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as the storage has it."""

    number: int
    state: str
    """COMPLETE, PRUNED, FAIL, RUNNING or WAITING."""
    value: float | None
    params: Mapping[str, Scalar]
    distributions: Mapping[str, Distribution]
    """What each parameter was drawn from."""
    reported: Mapping[int, float]
    """Iteration -> the error that was reported to the pruner."""
    started: datetime | None
    ended: datetime | None
    mirrored: bool = False
    """Whether ptydask put it there: its arrays are in the results file of that run."""


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as the storage has it."""

    name: str
    direction: str
    """``minimize`` in every study that PtyRAD makes."""
    trials: tuple[StoredTrial, ...]
    place: str
    """For messages: no password in it."""


def read(storage: str, study: str | None, wanted: str | None, *, near: Sequence[Path] = ()) -> StoredStudy:
    """The study ``study``; else the one called ``wanted``; else the only one there.

    ``storage`` is a URL of Optuna's, or the path of an SQLite file; a relative one is looked for in the folders
    ``near`` too. Raises UsageError where there is no such file or study, listing those that are there; StorageError
    where it cannot be read; MissingDependency.
    """
    url = storage if "://" in storage else f"sqlite:///{storage}"
    hide_password(url)
    spec = urls.parse(url, Path("none.h5"))
    if spec.mirror is not None:
        path = find_sqlite_file(url, near)
        if path is None:
            raise UsageError(f"{redact(url)}: there is no such file; give the database of the study with --storage")
        with _open_sqlite(path) as rows:
            return _read_tables(rows, str(path), study, wanted)
    if spec.kind == "server":
        with _connect_server(spec.url) as rows:
            return _read_tables(rows, redact(url), study, wanted)
    return _read_journal(spec, study, wanted)


def find_sqlite_file(url: str, near: Sequence[Path]) -> Path | None:
    """The SQLite file that ``url`` names: where it says, else of the same name in one of the folders ``near``."""
    import sqlalchemy

    named = Path(sqlalchemy.make_url(url).database or "")
    for candidate in (named, *(folder / named for folder in near), *(folder / named.name for folder in near)):
        if os.path.isfile(candidate):  # noqa: PTH113 - False also for one in a folder that is closed to us
            return Path(os.path.abspath(candidate))  # noqa: PTH100 - a link keeps its name, ".." does not
    return None


# --- connections --------------------------------------------------------------------------------------


@contextmanager
def _open_sqlite(path: Path) -> Iterator[Rows]:
    """Rows of an SQLite file; nothing is written to it nor beside it: where SQLite would, a copy is read."""
    with tempfile.TemporaryDirectory(prefix="ptydask-") as folder:
        try:
            connection = _open_in_place(path) or _open_copy(path, Path(folder))
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{path}: not readable as an SQLite database: {one_line(str(error))}") from error
        try:
            yield lambda query, **values: _rows_as_dicts(connection.execute(query, values))
        finally:
            connection.rollback()
            connection.close()


def _begin_transaction(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection in a transaction, so that it reads one moment of a study that may be running."""
    try:
        connection.execute("BEGIN")
        # A lock is taken with the first reading only.
        connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _open_in_place(path: Path) -> sqlite3.Connection | None:
    """None where it cannot be read so, or SQLite would write: take in a log, or make shared memory."""
    if any(_companion_file(path, other).exists() for other in _OTHERS):
        return None
    try:
        with path.open("rb") as file:
            # Byte 18 of the header is 2 in a database with a write-ahead log, for which SQLite makes shared memory.
            logged = file.read(19)[18:] == b"\x02"
        mode = "immutable=1" if logged else "mode=ro"
        return _begin_transaction(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=5))
    except (sqlite3.Error, OSError):
        return None


def _open_copy(path: Path, folder: Path) -> sqlite3.Connection:
    target = folder / "copy.sqlite3"
    shutil.copyfile(path, target)
    for other in _OTHERS:
        with suppress(FileNotFoundError):
            shutil.copyfile(_companion_file(path, other), _companion_file(target, other))
    return _begin_transaction(sqlite3.connect(target, timeout=5))


def _companion_file(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _rows_as_dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


@contextmanager
def _connect_server(url: str) -> Iterator[Rows]:
    import sqlalchemy

    engine = None
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            yield lambda query, **values: [
                dict(row) for row in connection.execute(sqlalchemy.text(query), values).mappings()
            ]
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StorageError(f"{redact(url)}: {one_line(redact(str(error)))[:300]}") from None
    finally:
        if engine is not None:
            engine.dispose()


# --- the tables of Optuna's RDBStorage ------------------------------------------------------------------


def _read_tables(rows: Rows, place: str, study: str | None, wanted: str | None) -> StoredStudy:
    try:
        studies = {row["study_name"]: row["study_id"] for row in rows("SELECT study_id, study_name FROM studies")}
        name = choose_study(list(studies), place, study, wanted)
        directions = rows("SELECT * FROM study_directions WHERE study_id = :id", id=studies[name])
        trials = _read_trials(rows, studies[name])
    except (sqlite3.Error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{place}: not a database of Optuna's: {one_line(str(error))}") from error
    if len(directions) != 1:
        raise UsageError(f"{place}: study {name!r} has {len(directions)} objectives; PtyRAD's have one")
    return StoredStudy(name, directions[0]["direction"].lower(), trials, place)


def choose_study(names: Sequence[str], place: str, study: str | None, wanted: str | None) -> str:
    """The study to read. Raises UsageError, listing the ``names``, where that is not clear."""
    listed = ", ".join(map(repr, sorted(names)[:20])) + (" ..." if len(names) > 20 else "")
    if study is not None:
        if study not in names:
            raise UsageError(f"{place}: there is no study {study!r}; there are {listed or 'none at all'}")
        return study
    if wanted in names:
        assert wanted is not None
        return wanted
    if len(names) == 1:
        return names[0]
    problem = "no study name is known" if wanted is None else f"there is no study {wanted!r}"
    raise UsageError(f"{place}: {problem}; choose one with --study: {listed or 'there is none at all'}")


def _read_trials(rows: Rows, study_id: int) -> tuple[StoredTrial, ...]:
    params = _read_params(rows, study_id)
    values = {
        row["trial_id"]: _stored_number(row["value"], row.get("value_type"))
        for row in _select_rows(rows, "trial_values", study_id)
    }
    reported: dict[int, dict[int, float]] = {}
    for row in _select_rows(rows, "trial_intermediate_values", study_id):
        value = _stored_number(row["intermediate_value"], row.get("intermediate_value_type"))
        if value is not None:
            reported.setdefault(row["trial_id"], {})[int(row["step"])] = value
    ours = {row["trial_id"] for row in _select_rows(rows, "trial_user_attributes", study_id) if row["key"] == _MIRRORED}
    trials = rows("SELECT * FROM trials WHERE study_id = :id ORDER BY trial_id", id=study_id)
    return tuple(
        StoredTrial(
            number=row["number"] if row.get("number") is not None else index,
            state=row["state"],
            value=values.get(row["trial_id"]),
            params=params.get(row["trial_id"], ({}, {}))[0],
            distributions=params.get(row["trial_id"], ({}, {}))[1],
            reported=dict(sorted(reported.get(row["trial_id"], {}).items())),
            started=_parse_time(row.get("datetime_start")),
            ended=_parse_time(row.get("datetime_complete")),
            mirrored=row["trial_id"] in ours,
        )
        for index, row in enumerate(trials)
    )


def _select_rows(rows: Rows, table: str, study_id: int) -> list[dict[str, Any]]:
    return rows(
        f"SELECT t.* FROM {table} t JOIN trials ON trials.trial_id = t.trial_id WHERE trials.study_id = :id",
        id=study_id,
    )


def _read_params(rows: Rows, study_id: int) -> dict[int, tuple[dict[str, Scalar], dict[str, Distribution]]]:
    kinds: dict[str, Distribution] = {}
    params: dict[int, tuple[dict[str, Scalar], dict[str, Distribution]]] = {}
    for row in sorted(_select_rows(rows, "trial_params", study_id), key=lambda row: row["param_id"]):
        text = row["distribution_json"]
        if text not in kinds:
            kinds[text] = parse_distribution(text)
        values, distributions = params.setdefault(row["trial_id"], ({}, {}))
        values[row["param_name"]] = _external_value(kinds[text], row["param_value"])
        distributions[row["param_name"]] = kinds[text]
    return params


def parse_distribution(text: str) -> Distribution:
    """What Optuna's JSON of a distribution says, that of versions before 3.0 too. Raises ValueError or KeyError."""
    parsed = json.loads(text)
    name, attributes = parsed["name"], parsed["attributes"]
    if name == "CategoricalDistribution":
        return Choice(tuple(attributes["choices"]))
    log = bool(attributes.get("log")) or "Log" in name
    if name.startswith("Int"):
        return IntRange(int(attributes["low"]), int(attributes["high"]), int(attributes.get("step") or 1), log)
    if name not in _REAL:
        raise ValueError(f"a distribution of an unknown kind, {name}")
    step = attributes.get("step", attributes.get("q"))
    return FloatRange(float(attributes["low"]), float(attributes["high"]), None if step is None else float(step), log)


_REAL = ("FloatDistribution", "UniformDistribution", "LogUniformDistribution", "DiscreteUniformDistribution")


def _external_value(kind: Distribution, value: float) -> Scalar:
    """A parameter's value of the number that stands for it in the table."""
    if isinstance(kind, Choice):
        return kind.choices[int(value)]
    return int(value) if isinstance(kind, IntRange) else float(value)


def _stored_number(value: Any, kind: str | None) -> float | None:
    """SQL has no NaN and no infinity; before Optuna 3 they were NULL."""
    if kind in _INFINITE:
        return _INFINITE[kind]
    return None if value is None else float(value)


def _parse_time(value: Any) -> datetime | None:
    """A time without zone is that of the machine that wrote it, taken for this one's."""
    if value is None:
        return None
    return (value if isinstance(value, datetime) else datetime.fromisoformat(str(value))).astimezone()


# --- storages of another kind ---------------------------------------------------------------------------


def _read_journal(spec: urls.StorageSpec, study: str | None, wanted: str | None) -> StoredStudy:
    """A journal file, or one in Redis, through Optuna."""
    import optuna
    from optuna.distributions import distribution_to_json
    from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

    if spec.kind == "journal" and not (spec.journal is not None and spec.journal.is_file()):
        raise UsageError(f"{spec.journal}: there is no such file; give the storage of the study with --storage")
    try:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            backend = JournalRedisBackend(spec.url) if spec.kind == "redis" else JournalFileBackend(str(spec.journal))
        storage = optuna.storages.JournalStorage(backend)
        studies = {summary.study_name: summary for summary in storage.get_all_studies()}
        name = choose_study(list(studies), spec.shown, study, wanted)
        trials = storage.get_all_trials(studies[name]._study_id, deepcopy=False)
    except UsageError:
        raise
    except Exception as error:  # a database driver, a torn file
        raise StorageError(f"{spec.shown}: {one_line(redact(str(error)))[:300]}") from None
    return StoredStudy(
        name,
        studies[name].directions[0].name.lower(),
        tuple(
            StoredTrial(
                number=trial.number,
                state=trial.state.name,
                value=trial.value,
                params=dict(trial.params),
                distributions={n: parse_distribution(distribution_to_json(d)) for n, d in trial.distributions.items()},
                reported=dict(sorted(trial.intermediate_values.items())),
                started=trial.datetime_start.astimezone() if trial.datetime_start else None,
                ended=trial.datetime_complete.astimezone() if trial.datetime_complete else None,
            )
            for trial in trials
        ),
        spec.shown,
    )
