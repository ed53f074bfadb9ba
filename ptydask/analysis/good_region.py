"""Which trials of a study are as good as its best within luck, and how wide they lie in each parameter. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from ptydask.analysis import significance
from ptydask.analysis.data import json_object
from ptydask.analysis.next_ranges import where_idle
from ptydask.analysis.optimum import read_space
from ptydask.errors import import_optional
from ptydask.formatting import value_text
from ptydask.model import Scalar, TrialRecord
from ptydask.ranking import is_better, parameter_names, ranked
from ptydask.space import ranges

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation

LEVEL = 0.01
"""Probability that a trial which is as good as the best one is left out."""


@dataclass(frozen=True)
class ParameterRegion:
    """How wide the good trials lie in one parameter."""

    values: tuple[Scalar, ...]
    """What the good trials have, each once; numbers rise, others are in the order of the trials."""
    tried: tuple[Scalar, ...]
    """The same of all completed trials."""

    @property
    def is_number(self) -> bool:
        """Whether :attr:`low` and :attr:`high` mean something."""
        return all(map(ranges.is_number, self.tried))

    @property
    def low(self) -> float:
        """The least value; NaN of what is no number."""
        return float(self.values[0] or 0) if self.is_number else math.nan

    @property
    def high(self) -> float:
        """The greatest value; NaN of what is no number."""
        return float(self.values[-1] or 0) if self.is_number else math.nan

    @property
    def is_all(self) -> bool:
        """Whether it reaches over everything that was tried."""
        if self.is_number:
            return (self.values[0], self.values[-1]) == (self.tried[0], self.tried[-1])
        return set(self.values) == set(self.tried)

    def describe(self) -> str:
        """``4 to 6 (tried: 1 to 8)``."""
        good, tried = (_span(values, number=self.is_number) for values in (self.values, self.tried))
        return f"{good}, all that was tried" if self.is_all else f"{good} (tried: {tried})"


@dataclass(frozen=True)
class GoodRegion:
    """The trials of a study that are as good as the best confirmed one within luck."""

    trial: int
    """The confirmed trial with the best mean."""
    luck: float
    """Standard deviation that other seeds give."""
    bound: float
    """An error of the study as good as this is as good as the best within luck."""
    trials: tuple[int, ...]
    """The best error first."""
    parameters: Mapping[str, ParameterRegion]

    def describe(self) -> list[str]:
        """One line each: how many trials, and how wide they lie in every parameter."""
        if len(self.trials) < 2:
            why = "the best region is narrower than the steps between the trials"
            return [f"no trial of the study but {self.trial} is as good within luck: {why}"]
        head = f"{len(self.trials)} trials of the study are as good as trial {self.trial} within luck; they have"
        width = max(map(len, self.parameters), default=0)
        return [head, *(f"  {name.ljust(width)}  {region.describe()}" for name, region in self.parameters.items())]


def find_good_region(confirmation: Confirmation) -> GoodRegion | None:
    """The trials of the study, most of them with one run each, that are as good as the best confirmed one within luck.

    All trials of a study have one seed, whose effect is the mean difference between the confirmed trials' errors in
    the study and their means over other seeds. A trial's error, that of the best trial's mean plus this difference,
    and the difference itself are each known to luck; a trial is as good where it is worse by no more than the
    one-sided t quantile of that. A confirmed trial is judged by its repeats instead. None where luck is not known, and
    of a study of one trial.
    Raises MissingDependency without SciPy.
    """
    study = ranked(confirmation.records, confirmation.direction)
    values = confirmation.values_by_trial()
    best = confirmation.best
    if best is None or len(study) < 2:
        return None
    errors = {record.number: record.error or 0.0 for record in study}
    if significance.is_deterministic(values):
        return None
    compared = confirmation.compare()
    means = significance.adjusted_means(values)
    shift, share = 0.0, 0.0
    if compared is None:  # nothing takes the seeds' common effect out, so that it is part of luck
        luck, freedom = significance.pooled_deviation(values)
    else:
        luck, freedom = compared.luck, compared.freedom
        shift, share = _effect_of_seed(means, errors)
    if not freedom:
        return None
    special = import_optional("scipy.special", "a verdict on trials needs", "analysis", "scipy")
    quantile = float(special.stdtrit(freedom, 1 - LEVEL))
    reach = quantile * luck * math.sqrt(1 + 1 / len(values[best]) + share)
    worse = 1 if confirmation.direction == "minimize" else -1
    center = means[best] + shift
    bound = center + worse * max(reach, 1e-12 * abs(center))  # which equal numbers may differ by

    def is_good(record: TrialRecord) -> bool:
        if compared is not None and record.number in compared.trials:
            return (best, record.number) not in compared.beyond_luck
        return record.number == best or not is_better(bound, errors[record.number], confirmation.direction)

    good = [record for record in study if is_good(record)]
    numbers = tuple(record.number for record in good)
    return GoodRegion(best, luck, bound, numbers, _regions(confirmation, good, study))


def _effect_of_seed(means: Mapping[int, float], errors: Mapping[int, float]) -> tuple[float, float]:
    """What the study's own seed does to all trials alike, and the variance of that for errors of variance 1."""
    shifts = [errors[trial] - mean for trial, mean in means.items() if trial in errors]
    return (fmean(shifts), 1 / len(shifts)) if shifts else (0.0, 1.0)


def _regions(
    confirmation: Confirmation, good: Sequence[TrialRecord], study: Sequence[TrialRecord]
) -> dict[str, ParameterRegion]:
    """Parameter -> its region, without the trials in which it did nothing."""
    meta = confirmation.meta
    space = read_space(meta) if meta is not None else {}
    config = json_object(meta.config_json) if meta is not None and meta.engine == "ptyrad" else {}
    regions = {}
    for name in parameter_names(study):
        idle = where_idle(name, space, config)
        values, tried = (
            _distinct([record.params[name] for record in records if name in record.params and not idle(record)])
            for records in (good, study)
        )
        if values and len(tried) > 1:
            regions[name] = ParameterRegion(values, tried)
    return regions


def _distinct(values: Sequence[Scalar]) -> tuple[Scalar, ...]:
    once = list(dict.fromkeys(values))
    numbers = [value for value in once if ranges.is_number(value)]
    return tuple(sorted(numbers)) if len(numbers) == len(once) else tuple(once)


def _span(values: Sequence[Scalar], *, number: bool) -> str:
    if not number:
        return " or ".join(map(value_text, values))
    ends = dict.fromkeys((value_text(values[0]), value_text(values[-1])))
    return " to ".join(ends)
