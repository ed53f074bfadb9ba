"""The Optuna study back from a results file: everything that Optuna draws, ranks and serves works on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from ptydask import model
from ptydask.analysis.data import StudyData, search_space
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.sampling.factory import quiet_optuna
from ptydask.space import quantiles, ranges
from ptydask.trial import slopes

_LONG_AGO = datetime(1970, 1, 1)  # noqa: DTZ001 - Optuna's times are naive


def to_optuna_study(data: StudyData) -> optuna.Study:
    """A study in memory with every recorded trial under its own number.

    Optuna counts trials without gaps. A number that the results do not have (an attempt that was lost and tried
    again, a trial that is under way) is a failed trial whose attribute ``reason`` says so. See :func:`frozen_trials`.
    """
    study = create_empty_study(data.meta, InMemoryStorage())
    for trial in frozen_trials(data):
        study.add_trial(trial)
    return study


def create_empty_study(meta: StudyMeta, storage: BaseStorage) -> optuna.Study:
    """The study without trials, in ``storage``; Optuna's plots name its metric."""
    with quiet_optuna():
        study = optuna.create_study(study_name=meta.name, direction=meta.direction, storage=storage)
        if meta.metric:
            study.set_metric_names([meta.metric])
    return study


def frozen_trials(data: StudyData, *, gaps: TrialState = TrialState.FAIL) -> list[FrozenTrial]:
    """Optuna's trials, one for each number from 0 to the last; numbers without a record are in state ``gaps``.

    State, value, parameters and the tuned metric's curve (``intermediate_values``) are the recorded ones; a completed
    trial without a value, which Optuna does not know, becomes a failed one. All trials share one distribution per
    parameter, see :func:`distributions`. Times are local, as Optuna's are. ``user_attrs`` hold the rest of the record:
    reason, message, attempt, retry_of, origin, worker, host, job, device, iterations, ``metrics.NAME``, the slopes as
    :func:`ptydask.trial.slopes.to_attribute` has them, and for a failed trial the last ``error``.
    """
    dists = distributions(data.meta, data.records)
    rows = {record.number: record for record in data.records}
    retried = {record.retry_of: record for record in data.records if record.retry_of is not None}
    last = max(rows, default=-1)
    return [
        _recorded_trial(rows[number], data, dists)
        if number in rows
        else _placeholder_trial(number, retried.get(number), data.meta, dists, gaps)
        for number in range(last + 1)
    ]


# --- trials ------------------------------------------------------------------------------------------


def _recorded_trial(record: TrialRecord, data: StudyData, dists: Mapping[str, BaseDistribution]) -> FrozenTrial:
    params = _external_params(record.params, dists)
    state = TrialState[record.state.value]
    value = record.error if record.error is None or not math.isnan(record.error) else None
    if state is TrialState.COMPLETE and value is None:
        state, value = (TrialState.FAIL, None) if data.meta.metric else (state, model.UNRANKED_VALUE)
    begun = _local_time(record.started) or _local_time(data.meta.created) or _LONG_AGO
    seconds = record.seconds if math.isfinite(record.seconds) else 0.0
    trial = _frozen_trial(record.number, state, begun, params, dists)
    trial.value = None if state is TrialState.FAIL else value
    trial.datetime_complete = begun + timedelta(seconds=max(0.0, seconds))
    trial.user_attrs = _user_attrs(record, params)
    trial.intermediate_values = _intermediate_values(data, record.number)
    return trial


def _frozen_trial(
    number: int, state: TrialState, begun: datetime, params: dict[str, Any], dists: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    """A trial without a value that ended as it began."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        datetime_start=begun,
        datetime_complete=begun if state.is_finished() else None,
        params=params,
        distributions={name: dists[name] for name in params},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _placeholder_trial(
    number: int,
    again: TrialRecord | None,
    meta: StudyMeta,
    dists: Mapping[str, BaseDistribution],
    state: TrialState,
) -> FrozenTrial:
    """A number without a record; where its parameters were tried ``again``, it has those."""
    if again is None:
        trial = _frozen_trial(number, state, _local_time(meta.created) or _LONG_AGO, {}, dists)
        trial.user_attrs = {"reason": "not recorded"}
        return trial
    begun = _local_time(again.started) or _LONG_AGO
    trial = _frozen_trial(number, TrialState.FAIL, begun, _external_params(again.params, dists), dists)
    trial.user_attrs = {"reason": model.Reason.LOST.value, "retried_as": again.number}
    return trial


def _external_params(params: Mapping[str, Scalar], dists: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The values as Optuna gives them back: the type of the distribution, the choice itself."""
    return {
        name: dists[name].to_external_repr(dists[name].to_internal_repr(value))
        for name, value in params.items()
        if _is_representable(value)
    }


def _user_attrs(record: TrialRecord, params: Mapping[str, Any]) -> dict[str, Any]:
    names = ("reason", "message", "attempt", "retry_of", "origin", "worker", "host", "job", "device", "seed")
    facts = {name: getattr(record, name) for name in (*names, "iterations")}
    attributes = {name: getattr(value, "value", value) for name, value in facts.items() if value not in ("", None)}
    if record.state is model.TrialState.FAIL and record.error is not None:
        attributes["error"] = record.error
    attributes |= {f"metrics.{name}": value for name, value in record.metrics.items()}
    attributes |= slopes.to_attribute(record)
    # What Optuna does not know, or has as the nearest float.
    odd = {name: value for name, value in record.params.items() if name not in params or params[name] != value}
    return attributes | {f"params.{name}": _value_text(value) for name, value in odd.items()}


def _value_text(value: Scalar) -> str:
    """A value as text; Python writes no integer of more than a few thousand digits."""
    try:
        return str(value)
    except ValueError:
        return "an integer too large to be written"


def _intermediate_values(data: StudyData, number: int) -> dict[int, float]:
    curve = data.curves.get(number, {})
    if "step" not in curve or data.meta.metric not in curve:
        return {}
    return {int(s): float(v) for s, v in zip(curve["step"].tolist(), curve[data.meta.metric].tolist(), strict=True)}


def _local_time(iso: str) -> datetime | None:
    """A time as Optuna has it, local and without its zone; None where there is none."""
    try:
        return datetime.fromisoformat(iso).astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


# --- distributions -----------------------------------------------------------------------------------


def distributions(meta: StudyMeta, records: Iterable[TrialRecord]) -> dict[str, BaseDistribution]:
    """One distribution for each parameter, which holds every recorded value.

    The study's own where it does; widened where a person's guess, an import or an earlier run with another range lies
    outside; made from the values where the study does not say.
    """
    declared = _declared_distributions(meta)
    values: dict[str, list[Scalar]] = {name: [] for name in declared}
    for record in records:
        for name, value in record.params.items():
            if _is_representable(value):
                values.setdefault(name, []).append(value)
    tried = {name: _unique_values(values) for name, values in values.items() if values}
    return {name: widen_distribution(declared.get(name), values) for name, values in tried.items()}


def widen_distribution(dist: BaseDistribution | None, values: Sequence[Scalar]) -> BaseDistribution:
    """``dist`` where it holds all ``values``, of which there is at least one, else the nearest to it that does."""
    if dist is not None and all(_distribution_contains(dist, value) for value in values):
        return dist
    numeric = dist is None or isinstance(dist, FloatDistribution | IntDistribution)
    if numeric and all(map(ranges.is_number, values)):
        return _numeric_distribution(
            cast("FloatDistribution | IntDistribution | None", dist), cast("list[int | float]", values)
        )
    choices = dist.choices if isinstance(dist, CategoricalDistribution) else ()
    return CategoricalDistribution(tuple(_unique_values([*choices, *values])))


def _numeric_distribution(
    dist: FloatDistribution | IntDistribution | None, values: Sequence[int | float]
) -> BaseDistribution:
    """The range from the least to the largest; of the kind, scale and grid of ``dist`` as far as all values allow."""
    ends = list(values) if dist is None else [*values, dist.low, dist.high]
    low, high = min(ends), max(ends)
    log = dist is not None and dist.log and low > 0
    step = 1
    if isinstance(dist, IntDistribution):
        # 3.0 fits a range of integers, since a value of another run may come back as a float.
        whole = all(float(end).is_integer() for end in ends)
        on_grid = whole and all((int(end) - int(low)) % dist.step == 0 for end in ends)
        step = dist.step if on_grid else 1
    else:
        whole = dist is None and all(isinstance(end, int) for end in ends)
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=step)
    if isinstance(dist, FloatDistribution) and dist.step is not None and low < high:
        grid = FloatDistribution(float(low), float(high), step=dist.step)
        # Optuna moves an end that is beside the grid: then the range would not hold it.
        if grid.high == high and all(_distribution_contains(grid, end) for end in ends):
            return grid
    return FloatDistribution(float(low), float(high), log=log)


def _declared_distributions(meta: StudyMeta) -> dict[str, BaseDistribution]:
    """What the file says; a parameter of which it says nothing that Optuna can read is left out."""
    declared: dict[str, BaseDistribution] = {}
    for name, entry in search_space(meta).items():
        with suppress(ValueError, KeyError, TypeError):
            declared[name] = json_to_distribution(json.dumps(entry))
    return declared


def _distribution_contains(dist: BaseDistribution, value: Scalar) -> bool:
    if isinstance(dist, CategoricalDistribution):
        return quantiles.find_choice(dist.choices, value) is not None
    if not ranges.is_number(value):
        return False
    if isinstance(dist, IntDistribution) and not float(value).is_integer():
        return False
    # Asked before Optuna, whose logarithm of a value below 0 raises.
    if isinstance(dist, FloatDistribution | IntDistribution) and not dist.low <= value <= dist.high:
        return False
    return bool(dist._contains(dist.to_internal_repr(value)))


def _is_representable(value: Scalar) -> bool:
    """Whether Optuna knows such values: it has no infinities, and no integers beyond its floats."""
    try:
        return not ranges.is_number(value) or math.isfinite(value)
    except OverflowError:
        return False


def _unique_values(values: Iterable[Any]) -> list[Any]:
    """Each value once, where it first appears; True is not 1."""
    first: dict[tuple[bool, Any], Any] = {}
    for value in values:
        first.setdefault((isinstance(value, bool), value), value)
    return list(first.values())
