"""The driver's copy of a study in SQLite, so that PtyRAD's own study goes on and Optuna Dashboard shows the run live.

Workers never touch the file: SQLite locks on network disks, and hands one waiting trial to two workers.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ptydask.errors import StorageError, one_line
from ptydask.model import Direction

_MARK = "ptydask"
"""The attribute of a mirrored trial: the store's id and the trial's number in it."""


class SqliteMirror:
    """A study in SQLite that follows the one that runs.

    PtyRAD minimises the negated contrast; where its study exists already, values change sign on the way in and out.
    """

    def __init__(self, url: str, name: str, direction: Direction, store: str) -> None:
        """Open or create the study. Raises StorageError where the file cannot be used."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 5}})
            self._study = optuna.create_study(
                study_name=name, storage=self._storage, direction=direction, load_if_exists=True
            )
            self._sign = 1 if self._study.direction.name.lower() == direction else -1
            trials = self._study.get_trials(deepcopy=False)
        except Exception as error:  # sqlite3, SQLAlchemy and Optuna each raise their own
            raise StorageError(f"{url}: the SQLite study cannot be opened: {one_line(str(error))[:200]}") from error
        self._store = store
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
            for trial in trials:
                if "imported" not in trial.user_attrs and trial.number not in self._ended:
                    self._copy_trial(trial)
        except Exception as error:
            raise StorageError(f"the SQLite study is behind: {one_line(str(error))[:200]}") from error

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
