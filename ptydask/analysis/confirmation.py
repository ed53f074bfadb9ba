"""The best trials of a study, reconstructed once more with other seeds: what these repeats say of each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from ptydask.model import Direction, StudyMeta, TrialRecord, TrialState

if TYPE_CHECKING:
    from ptydask.analysis.fourier_ring import FourierRing
    from ptydask.store.reader import Results


@dataclass(frozen=True)
class Repeat:
    """One reconstruction with the parameters of a trial of the study, and with a seed that the study has not used."""

    trial: int
    """The trial of the study."""
    seed: int
    half: int
    """1 or 2: of this half of the data alone; 0: of all."""
    record: TrialRecord

    def value(self, metric: str, error: str) -> float | None:
        """The repeat's ``metric``, where ``error`` is the tuned one; None where it has none, or failed."""
        value = self.record.error if metric == error else self.record.metrics.get(metric)
        ended_well = self.record.state is TrialState.COMPLETE
        return value if ended_well and value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Confirmation:
    """All repeats of a study's best trials, halves included."""

    metric: str
    """The tuned metric: the error."""
    direction: Direction
    repeats: tuple[Repeat, ...]
    frc: Mapping[int, FourierRing] = field(default_factory=dict)
    """Trial -> Fourier ring correlation of its two half reconstructions."""
    records: tuple[TrialRecord, ...] = ()
    """The trials of the study itself."""
    meta: StudyMeta | None = None
    """What the file says about that study."""

    @classmethod
    def of(cls, results: Results) -> Confirmation | None:
        """The confirmation of a study, as far as it has got; None where none was begun. Raises StoreError."""
        confirmed = results.confirmation()
        if confirmed is None:
            return None
        with confirmed:
            repeats = tuple(read_repeats(confirmed.records()))
        return cls(results.meta.metric, results.meta.direction, repeats, {}, tuple(results.records()), results.meta)

    @cached_property
    def trials(self) -> tuple[int, ...]:
        """The confirmed trials, the best mean first, the earlier one on a tie; those without a value last."""
        sign = 1 if self.direction == "minimize" else -1
        means = {trial: self.mean_sd(trial) for trial in {repeat.trial for repeat in self.repeats}}
        key = {n: (0, sign * known[0]) if known else (1, 0.0) for n, known in means.items()}
        return tuple(sorted(means, key=lambda trial: (key[trial], trial)))

    @property
    def best(self) -> int | None:
        """The trial with the best mean; None where no repeat has a value."""
        return next((trial for trial in self.trials if self.mean_sd(trial)), None)

    @property
    def failed(self) -> tuple[Repeat, ...]:
        """The repeats that ended without a value, halves included."""
        return tuple(repeat for repeat in self.repeats if repeat.value(self.metric, self.metric) is None)

    def values(self, trial: int, metric: str | None = None) -> dict[int, float]:
        """Seed -> value of ``metric``, the tuned one by default, over the trial's whole repeats that have one."""
        name = metric or self.metric
        own = {r.seed: r.value(name, self.metric) for r in self.repeats if r.trial == trial and not r.half}
        return {seed: value for seed, value in sorted(own.items()) if value is not None}

    def mean_sd(self, trial: int, metric: str | None = None) -> tuple[float, float, int] | None:
        """Mean, standard deviation (n - 1; NaN of one repeat) and number of the trial's repeats; None without any."""
        values = list(self.values(trial, metric).values())
        if not values:
            return None
        return fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values)


def read_repeats(records: Iterable[TrialRecord]) -> Iterable[Repeat]:
    """The repeats that the trials of a confirmation's own study are: their parameters say which."""
    for record in records:
        trial, seed, half = (record.params.get(name, 0) for name in ("trial", "seed", "half"))
        yield Repeat(int(trial or 0), int(seed or 0), int(half or 0), record)
