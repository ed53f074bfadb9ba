"""The driver's copy of a study in SQLite, so that PtyRAD's own study goes on and Optuna Dashboard shows the run live.

Workers never touch the file: SQLite locks on network disks, and hands one waiting trial to two workers.

Others may hold it: a dashboard, a database browser with a transaction open, a second run. At the beginning and at the
end of a run it is waited for; in between it falls behind.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ptydask.errors import StorageError, one_line, redact
from ptydask.model import Direction

T = TypeVar("T")
_MARK = "ptydask"
"""The attribute of a mirrored trial: the store's id and the trial's number in it."""
PATIENCE = 60.0
"""Seconds that a file is waited for that others hold, where there is nothing else to do."""
_BUSY = 1.0
"""Seconds that one attempt waits."""
_TROUBLE = (
    ("locked", "it is locked by another program: a dashboard, a database browser or another run"),
    ("readonly", "it is read-only"),
    ("full", "its disk is full"),
    ("disk i/o error", "its disk does not take it"),
    ("unable to open", "it cannot be opened: are there its folder, and the right to write into it?"),
    ("not a database", "it is no SQLite database"),
    ("malformed", "it is damaged"),
)


class SqliteMirror:
    """A study in SQLite that follows the one that runs.

    PtyRAD minimises the negated contrast; where its study exists already, values change sign on the way in and out.
    """

    def __init__(
        self, url: str, name: str, direction: Direction, store: str, waiting: Callable[[str], None] = lambda _: None
    ) -> None:
        """Open or create the study; wait for others who hold the file, and tell ``waiting`` why, once a second.

        Raises StorageError where the file cannot be used: read, and written.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.url, self._store = redact(url), store
        try:
            self._storage, self._study = _patiently(lambda: _open_study(url, name, direction), waiting)
            self._sign = 1 if self._study.direction.name.lower() == direction else -1
            trials = self._study.get_trials(deepcopy=False)
        except Exception as error:  # sqlite3, SQLAlchemy and Optuna each raise their own
            raise StorageError(f"{self.url}: the SQLite study cannot be used: {_trouble_of(error)}") from error
        ours = {t.user_attrs[_MARK][1]: t for t in trials if t.user_attrs.get(_MARK, ("",))[0] == store}
        self._ids = {number: t._trial_id for number, t in ours.items()}
        self._ended = {number for number, t in ours.items() if t.state.is_finished()}
        self._steps: dict[int, int] = {}
        self._foreign = [t for t in trials if t.user_attrs.get(_MARK, ("",))[0] != store]

    def foreign(self) -> list[FrozenTrial]:
        """Finished trials that others put there, signs turned as this study has them."""
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        return [create_copy(trial, self._sign) for trial in self._foreign if trial.state in finished]

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Bring the copy up to date: running trials with their parameters and curves, ended ones with their values.

        Raises StorageError where SQLite refuses; the next call does what was missed.
        """
        try:
            self._copy_trials(trials)
        except Exception as error:
            raise self._error_of(error) from error

    def complete(self, trials: Sequence[FrozenTrial], waiting: Callable[[str], None] = lambda _: None) -> None:
        """As :meth:`update`, and wait for others who hold the file; ``waiting`` is told why, once a second."""
        try:
            _patiently(lambda: self._copy_trials(trials), waiting)
        except Exception as error:
            raise self._error_of(error) from error

    def _error_of(self, error: Exception) -> StorageError:
        return StorageError(f"{self.url}: the SQLite study is behind: {_trouble_of(error)}")

    def _copy_trials(self, trials: Sequence[FrozenTrial]) -> None:
        new = [trial for trial in trials if "imported" not in trial.user_attrs and trial.number not in self._ended]
        if new:
            _check_writable(self._storage)
        for trial in new:
            self._copy_trial(trial)

    def _copy_trial(self, trial: FrozenTrial) -> None:
        number, state = trial.number, trial.state
        if state is TrialState.WAITING or (state is TrialState.RUNNING and not trial.intermediate_values):
            return  # a running trial has all its parameters once it has reported
        if number not in self._ids:
            copy = create_copy(trial, self._sign)
            copy.user_attrs = {**copy.user_attrs, _MARK: [self._store, number]}
            self._ids[number] = self._storage.create_new_trial(self._study._study_id, template_trial=copy)
        else:
            self._append_progress(trial, self._ids[number])
        self._steps[number] = trial.last_step or 0
        if state.is_finished():
            self._ended.add(number)

    def _append_progress(self, trial: FrozenTrial, trial_id: int) -> None:
        last_step = self._steps.get(trial.number, 0)
        for step, value in trial.intermediate_values.items():
            if step > last_step:
                self._storage.set_trial_intermediate_value(trial_id, step, self._sign * value)
        if trial.state.is_finished():
            values = None if trial.values is None else [self._sign * v for v in trial.values]
            self._storage.set_trial_state_values(trial_id, trial.state, values)

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()


def mirrored_trials(url: str, store: str) -> set[int] | None:
    """The numbers of the store's trials that have ended in the SQLite file, as far as it can be read now.

    None where the URL names no file, or one that is no database. Writes nothing.
    """
    from sqlalchemy.engine import make_url

    path = make_url(url).database
    if path is None or path == ":memory:" or path.startswith("file:"):
        return None
    if not Path(path).exists():
        return set()
    asked = (
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
        "WHERE key = ? AND state NOT IN ('RUNNING', 'WAITING')"
    )
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY)) as connection:
            marks = [json.loads(value) for (value,) in connection.execute(asked, (_MARK,))]
    except (sqlite3.Error, ValueError) as error:
        return set() if re.search("locked|no such table", str(error)) else None
    return {mark[1] for mark in marks if mark[0] == store}


def _open_study(url: str, name: str, direction: Direction) -> tuple[RDBStorage, optuna.Study]:
    """A file that can be written and the study in it. Raises what SQLite, SQLAlchemy or Optuna raise."""
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY}})
    try:
        _check_writable(storage)
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        study.get_trials(deepcopy=False)
    except Exception:
        storage.remove_session()
        storage.engine.dispose()
        raise
    return storage, study


def _check_writable(storage: RDBStorage) -> None:
    """Raises where SQLite would not take a change now. Optuna itself tries five times, for up to half a minute."""
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.rollback()


def _patiently(action: Callable[[], T], waiting: Callable[[str], None]) -> T:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except Exception as error:
            trouble = _trouble_of(error)
            if "locked" not in trouble or time.monotonic() > deadline:
                raise
            waiting(trouble)


def _trouble_of(error: BaseException | None) -> str:
    """What SQLite said, in plain words; Optuna puts words of its own over it."""
    own = str(error)
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    message = str(error or own)
    plain = next((words for phrase, words in _TROUBLE if phrase in message.lower()), "")
    return plain or redact(one_line(message))[:200]


def create_copy(trial: FrozenTrial, sign: int) -> FrozenTrial:
    """A trial with its values multiplied by ``sign``, its number and times kept."""
    copy = create_trial(
        state=trial.state,
        value=None if trial.values is None else sign * trial.values[0],
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=dict(trial.user_attrs),
        intermediate_values={k: sign * v for k, v in trial.intermediate_values.items()},
    )
    copy.number = trial.number
    copy.datetime_start, copy.datetime_complete = trial.datetime_start, trial.datetime_complete
    return copy
