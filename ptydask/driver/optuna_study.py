"""The study in Optuna, as the driver reads and corrects it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as State

from ptydask import sampling
from ptydask.distributions import Distribution
from ptydask.errors import ConfigError, StorageError, caught_warnings
from ptydask.model import UNRANKED_VALUE, Direction, Point, Reason, Scalar, StudyPlan, TrialRecord, TrialState
from ptydask.run_snapshot import RunningTrial
from ptydask.space.nearest_point import count_points, point_key
from ptydask.space.ranges import contains, describe
from ptydask.storage import transport
from ptydask.trial import reconcile, slopes
from ptydask.trial.reconcile import BegunTrial


def open_study(storage: optuna.storages.BaseStorage, name: str, direction: Direction) -> optuna.Study:
    """The study of that name, new or as it is there. Raises StorageError where it looks the other way."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
    existing = study.direction.name.lower()
    if existing != direction:
        raise StorageError(
            f"study {name!r} exists already and was made to {existing} its error, this one is to {direction} it; "
            "give the study another name"
        )
    return study


@dataclass(frozen=True, slots=True)
class OptunaStudy:
    """One study and the trials of one store in it."""

    study: optuna.Study
    store: str
    plan: StudyPlan
    _read: dict[int, tuple[FrozenTrial, BegunTrial]] = field(default_factory=dict, repr=False, compare=False)
    """What :meth:`begun` made of each trial: Optuna gives another object for one that has changed."""

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.study._storage

    @property
    def position(self) -> int | None:
        """How many entries of the journal are known here; None where it is no journal."""
        return transport.position(self._storage)

    def trials(self) -> list[FrozenTrial]:
        """Every trial, in order; not copies."""
        return self.study.get_trials(deepcopy=False)

    def begun(self) -> list[BegunTrial]:
        """Every trial, as :mod:`ptydask.trial.reconcile` reads it."""
        return [self._as_begun(trial) for trial in self.trials()]

    def _as_begun(self, trial: FrozenTrial) -> BegunTrial:
        read = self._read.get(trial.number)
        if read is None or read[0] is not trial:
            read = self._read[trial.number] = trial, _to_begun_trial(trial)
        return read[1]

    def running(self, now: datetime) -> tuple[RunningTrial, ...]:
        """Trials of this store under way."""
        running = self.study.get_trials(deepcopy=False, states=(State.RUNNING,))
        # Not :meth:`_as_begun`, which would keep each of them as it is now, beside what it becomes.
        own = [trial for trial in running if _to_begun_trial(trial).store == self.store]
        return tuple(_to_running_trial(trial, self._values(trial), now) for trial in own)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        """The parameters of a trial as engines and records have them."""
        return sampling.from_optuna_params(self.plan.space, trial.params, trial.user_attrs)

    def check_space(self) -> None:
        """Raise ConfigError where Optuna would refuse the plan's parameters beside those of earlier trials."""
        for trial in self.trials():
            incompatible = _incompatible_param(trial, self.plan.space)
            name = incompatible if incompatible is not None else sampling.find_stale_param(self.plan.space, trial)
            if name is None:
                continue
            origin = "another distribution; what Optuna has of it is another value in this one"
            if incompatible is not None:
                origin = f"{trial.distributions[incompatible]}, which Optuna does not let stand beside it"
            raise ConfigError(
                f"trial {trial.number} of study {self.plan.name!r} was drawn from {origin}",
                file=self.plan.source.path,
                key=name,
                value=describe(self.plan.space[name]),
                hint="put it back, or give the study another name",
            )

    def restore(self, records: Iterable[TrialRecord]) -> int:
        """Bring back trials that the store has and Optuna does not. Numbers stay; returns how many there were."""
        count = len(self.trials())
        missing = {record.number: record for record in records if record.number >= count}
        for number in range(count, max(missing, default=-1) + 1):
            trial = create_trial(state=State.FAIL)  # Optuna numbers trials by their order: a gap has to be filled
            if number in missing:
                trial = _to_frozen_trial(missing[number], self.plan, self.store)
            self.study.add_trial(trial)
        return len(missing)

    def adopt_foreign(self, trials: Iterable[FrozenTrial]) -> int:
        """Let finished trials from elsewhere inform the sampler; returns how many were new."""
        imported = {trial.user_attrs.get("imported") for trial in self.trials()}
        space = self.plan.space
        new = [trial for trial in trials if trial.number not in imported and trial.params.keys() == space.keys()]
        # All are read before the first is added: what cannot be read changes nothing.
        copies = [copy for copy in [_copy_foreign_trial(trial, space) for trial in new] if copy is not None]
        for copy in copies:
            self.study.add_trial(copy)
        return len(copies)

    def enqueue(self, points: Iterable[Point]) -> None:
        """Put points before whatever the sampler chooses; one that is there already, whoever chose it, is not put.

        Nor is a part of a point, whose other values the sampler is to choose, where it is there itself, or all points
        that have its values are.
        """
        space = self.plan.space
        parts, wholes = set[frozenset[object]](), set[frozenset[object]]()
        for trial in self.trials():
            if _to_begun_trial(trial).store == self.store:
                fixed = trial.system_attrs.get("fixed_params", {})
                for params in (fixed, {**fixed, **trial.params}):  # a trial that waits has only the former
                    values = sampling.from_optuna_params(space, params, trial.user_attrs)
                    (wholes if space.keys() <= values.keys() else parts).add(point_key(space, values))
        for point in points:
            key, is_whole = point_key(space, point.params), space.keys() <= point.params.keys()
            if key in (wholes if is_whole else parts):
                continue
            if not is_whole and sum(key <= other for other in wholes) == count_points(space, point.params):
                continue
            attrs = {"store": self.store, "origin": point.origin, **sampling.value_attributes(space, point.params)}
            self.study.enqueue_trial(sampling.to_optuna_params(space, point.params), user_attrs=attrs)
            (wholes if is_whole else parts).add(key)

    def tell(self, record: TrialRecord) -> None:
        """Close a trial as its record says."""
        state, value = _optuna_end(record, self.plan.metric)
        values = None if value is None else [value]
        attributes = {"reason": record.reason.value} if state is State.FAIL else slopes.to_attribute(record)
        self._finish_trial(record.number, state, values, attributes)

    def close(self, trial: BegunTrial, reason: Reason) -> None:
        """Close a trial that nobody works on any more."""
        self._finish_trial(trial.number, State.FAIL, None, {"reason": reason.value})

    def _finish_trial(
        self, number: int, state: State, values: list[float] | None, attributes: Mapping[str, Any]
    ) -> None:
        trial_id = self.trials()[number]._trial_id
        try:
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            self._storage.set_trial_state_values(trial_id, state, values)
        except (UpdateFinishedTrialError, AssertionError, ValueError):
            # Somebody was faster: Optuna's heartbeat on a server, or the worker itself after all.
            return

    def retry(self, trial: BegunTrial) -> None:
        """Enqueue the parameters of a closed trial again."""
        lost = self.trials()[trial.number]
        attrs = {
            **sampling.kept_attributes(lost.user_attrs),
            "store": self.store,
            "origin": trial.origin,
            "retry_of": trial.number,
            "attempt": trial.attempt + 1,
            "losses": trial.spent,
            "resumed": trial.progress,  # the worker may die before it can say that it went on from there
            "first": trial.first,
        }
        fixed = lost.system_attrs.get("fixed_params", {})
        self.study.enqueue_trial({**fixed, **trial.params}, user_attrs=attrs)

    def record_of(self, trial: BegunTrial, *, state: TrialState, reason: Reason, message: str) -> TrialRecord:
        """A record from what Optuna knows, for a trial whose own is missing."""
        frozen = self.trials()[trial.number]
        error = frozen.value if frozen.value is not None else _last_reported_value(frozen)
        error = error if self.plan.metric else None
        params = self._values(frozen)
        return TrialRecord(
            number=trial.number,
            state=state,
            error=error,
            params=params,
            metrics={} if error is None else {self.plan.metric: error},
            gradient=slopes.from_attribute(frozen.user_attrs),
            relative_decrease=_relative_decrease(frozen, self.plan.direction),
            iterations=frozen.last_step,
            last_step=frozen.last_step,
            reason=reason,
            message=message,
            attempt=trial.attempt,
            retry_of=trial.retry_of,
            origin=trial.origin,
            started=frozen.datetime_start.astimezone().isoformat() if frozen.datetime_start else "",
            seconds=frozen.duration.total_seconds() if frozen.duration else 0.0,
            seed=self.plan.trial_seed(params),
        )


def _to_begun_trial(trial: FrozenTrial) -> BegunTrial:
    return reconcile.begun_from_attrs(trial.number, trial.state.name, trial.params, trial.user_attrs)


def _last_reported_value(trial: FrozenTrial) -> float | None:
    step = trial.last_step
    return None if step is None else trial.intermediate_values[step]


def _relative_decrease(trial: FrozenTrial, direction: Direction) -> float | None:
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)[-2:]]
    return slopes.relative_decrease(values[0], values[1], direction) if len(values) == 2 else None


def _to_running_trial(trial: FrozenTrial, params: Mapping[str, Scalar], now: datetime) -> RunningTrial:
    lease: Mapping[str, Any] = trial.user_attrs.get("lease", {})
    began = trial.datetime_start
    return RunningTrial(
        number=trial.number,
        params=params,
        step=trial.last_step or 0,
        error=_last_reported_value(trial),
        worker=str(lease.get("worker", "")),
        seconds=(now - began).total_seconds() if began else 0.0,
    )


def _to_frozen_trial(record: TrialRecord, plan: StudyPlan, store: str) -> FrozenTrial:
    space = plan.space
    attrs = {
        "lease": reconcile.lease(store, "", record.worker, record.host, record.job),
        "origin": record.origin,
        "attempt": record.attempt,
        **({"retry_of": record.retry_of} if record.retry_of is not None else {}),
        **({"reason": record.reason.value} if record.reason else {}),
    }
    state, value = _optuna_end(record, plan.metric)
    if state is not State.FAIL:
        attrs |= slopes.to_attribute(record)
    values = {n: value for n, value in record.params.items() if n in space and _optuna_accepts(space[n], value)}
    params = sampling.to_optuna_params(space, values)
    with caught_warnings():  # of a range that was narrowed since
        return create_trial(
            state=state,
            value=value,
            params=params,
            distributions={name: sampling.to_optuna(space[name]) for name in params},
            user_attrs={**attrs, **sampling.value_attributes(space, values)},
        )


def _copy_foreign_trial(trial: FrozenTrial, space: Mapping[str, Distribution]) -> FrozenTrial | None:
    """A trial from elsewhere, with the parameters of ``space``, as one of this study; None where it cannot be."""
    values = sampling.foreign_values(space, trial.params, trial.user_attrs)
    if values is None:
        return None
    ours = {name: sampling.to_optuna(space[name]) for name in sampling.unit_parameters(space)}
    copy = create_trial(
        state=trial.state,
        value=trial.value,
        params=sampling.to_optuna_params(space, values),
        distributions={**trial.distributions, **ours},
        user_attrs={
            "imported": trial.number,
            **sampling.value_attributes(space, values),
            **{name: value for name, value in trial.user_attrs.items() if name == slopes.ATTRIBUTE},
        },
        intermediate_values=trial.intermediate_values,
    )
    return copy if _incompatible_param(copy, space) is None else None


def _optuna_end(record: TrialRecord, metric: str) -> tuple[State, float | None]:
    """How the trial ended for Optuna, and its value: it has no place for an error that is not finite, or for none."""
    if not metric and record.state is TrialState.COMPLETE:
        return State.COMPLETE, UNRANKED_VALUE
    if record.error is None or not math.isfinite(record.error):
        return State.FAIL, None
    state = State[record.state.value]
    return state, None if state is State.FAIL else record.error


def _incompatible_param(trial: FrozenTrial, space: Mapping[str, Distribution]) -> str | None:
    """The first parameter of ``space`` that Optuna does not let stand beside the trial's of that name."""
    for name, distribution in space.items():
        if name in trial.distributions:
            try:
                check_distribution_compatibility(trial.distributions[name], sampling.to_optuna(distribution))
            except ValueError:
                return name
    return None


def _optuna_accepts(distribution: Distribution, value: Scalar) -> bool:
    """Whether Optuna takes the value; for a distribution that it does not have, whether that has it."""
    if sampling.unit_parameters({"": distribution}):
        return contains(distribution, value)
    of_optuna = sampling.to_optuna(distribution)
    try:
        return of_optuna._contains(of_optuna.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
