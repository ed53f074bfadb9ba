"""The best trials of a study, reconstructed once more with other seeds: what these repeats say of each of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from ptydask.analysis import significance
from ptydask.analysis.significance import Comparison
from ptydask.errors import MissingDependency, StoreError, nearest_number
from ptydask.formatting import NOTHING, counted, error_text, printable_text, uncertain_text
from ptydask.model import Direction, StudyMeta, TrialRecord, TrialState
from ptydask.ranking import best_of, metric_names
from ptydask.space.metrics import metric_unit

if TYPE_CHECKING:
    from ptydask.ring_correlation import FourierRing
    from ptydask.store.reader import Results


_MANY = 10
"""Of so many trials and one more it is not said of every two whether they are told apart."""
_COMMON = 1.5
"""Trials' own standard deviations above so many times luck want the explanation that they differ alike."""
_FREEDOM = 3
"""With fewer degrees of freedom two means differ by more than luck only where they are 8 to 64 times luck apart."""
_LARGEST = 1e150
"""An error from here on is a program's that diverged, as an infinite one is: there are no variances of such numbers."""


class MeanSd(NamedTuple):
    """What is known of a metric of a confirmed trial."""

    mean: float
    sd: float
    """Standard deviation (n - 1); NaN of one repeat."""
    n: int
    """Repeats."""


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
        return value if ended_well and value is not None and abs(value) < _LARGEST else None


@dataclass(frozen=True, repr=False)
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
            repeats, frc = tuple(read_repeats(confirmed.records())), confirmed.ring_curves()
        return cls(results.meta.metric, results.meta.direction, repeats, frc, tuple(results.records()), results.meta)

    def __repr__(self) -> str:
        counts = f"{counted(len(self.trials), 'trial')}, {counted(len(self.repeats), 'repeat')}"
        best = "" if self.best is None else f"; best trial {self.best}: {self.metric} {self.mean_text(self.best)}"
        return printable_text(f"<Confirmation {counts}{best}>")

    def by_metric(self, meta: StudyMeta, records: tuple[TrialRecord, ...]) -> Confirmation:
        """The same repeats, as if the study had tuned another metric; ``meta`` and ``records`` are its own by that."""
        repeats = tuple(
            replace(repeat, record=replace(repeat.record, error=repeat.record.metrics.get(meta.metric)))
            for repeat in self.repeats
        )
        return Confirmation(meta.metric, meta.direction, repeats, self.frc, records, meta)

    @cached_property
    def trials(self) -> tuple[int, ...]:
        """The confirmed trials, the best mean first, the earlier one on a tie; those without a value last.

        Where a repeat failed, a mean counts as what it would be with every seed.
        """
        numbers = sorted({repeat.trial for repeat in self.repeats})
        means = significance.adjusted_means({trial: self.values(trial) for trial in numbers})
        sign = 1 if self.direction == "minimize" else -1
        return tuple(sorted(numbers, key=lambda trial: (trial not in means, sign * means.get(trial, 0.0), trial)))

    @cached_property
    def _whole(self) -> dict[int, list[Repeat]]:
        """Trial -> its repeats from all of the data."""
        whole: dict[int, list[Repeat]] = {}
        for repeat in self.repeats:
            if not repeat.half:
                whole.setdefault(repeat.trial, []).append(repeat)
        return whole

    @cached_property
    def _numbers(self) -> frozenset[int]:
        """The trials of the study and those of the repeats; empty where the study's are not known."""
        numbers = frozenset(record.number for record in self.records)
        return numbers | {repeat.trial for repeat in self.repeats} if numbers else numbers

    @property
    def best(self) -> int | None:
        """The trial with the best mean; None where no repeat has a value."""
        return next((trial for trial in self.trials if self.mean_sd(trial)), None)

    @property
    def failed(self) -> tuple[Repeat, ...]:
        """The repeats that did not complete, halves included, and whole ones without the tuned metric."""
        return tuple(repeat for repeat in self.repeats if self._has_failed(repeat))

    def _has_failed(self, repeat: Repeat) -> bool:
        if repeat.half or not self.metric:
            return repeat.record.state is not TrialState.COMPLETE
        return repeat.value(self.metric, self.metric) is None

    def values(self, trial: int, metric: str | None = None) -> dict[int, float]:
        """Seed -> value of ``metric``, the tuned one by default, over the trial's whole repeats that have one.

        {} of a trial that was not repeated. Raises StoreError, naming the nearest, where the study has no such one.
        """
        if trial not in self._whole and self._numbers and trial not in self._numbers:
            raise StoreError(f"there is no trial {trial}; {nearest_number(trial, sorted(self._numbers))}")
        name = metric or self.metric
        own = {repeat.seed: repeat.value(name, self.metric) for repeat in self._whole.get(trial, ())}
        return {seed: value for seed, value in sorted(own.items()) if value is not None}

    def values_by_trial(self, metric: str | None = None) -> dict[int, dict[int, float]]:
        """Those of all trials, the best mean first."""
        return {trial: self.values(trial, metric) for trial in self.trials}

    def mean_sd(self, trial: int, metric: str | None = None) -> MeanSd | None:
        """Mean and standard deviation of the metric over the trial's repeats; None without any."""
        values = list(self.values(trial, metric).values())
        if not values:
            return None
        return MeanSd(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    def mean_text(self, trial: int, metric: str | None = None) -> str:
        """``0.01234 +- 0.00012 (3)``: mean, standard deviation, repeats; to what luck decides. Empty without any."""
        known = self.mean_sd(trial, metric)
        if known is None:
            return ""
        luck = self._luck[metric or self.metric]
        text = uncertain_text(known.mean, known.sd, luck) if known.n > 1 else error_text(known.mean)
        return f"{text} ({known.n})"

    @cached_property
    def _luck(self) -> dict[str, float]:
        """Metric -> standard deviation that other seeds give a trial, what they do to all alike taken out."""
        return {name: significance.luck_of(self.values_by_trial(name)) for name in (self.metric, *self.metrics)}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that some whole repeat has."""
        return tuple(metric_names(repeat.record for repeat in self.repeats if not repeat.half))

    def summary(self, trial: int) -> dict[str, Any]:
        """``mean``, ``sd`` and ``n`` of the error, and of each of the ``metrics``; {} of a trial without repeats.

        Raises StoreError, as :meth:`values`.
        """
        known = self.mean_sd(trial)
        metrics = {name: own._asdict() for name in self.metrics if (own := self.mean_sd(trial, name))}
        if not metrics and not known:
            return {}
        error = known._asdict() if known else {"mean": None, "sd": None, "n": 0}
        return {**error, "metrics": metrics}

    def compare(self) -> Comparison | None:
        """Which trials differ by more than luck, by the tuned metric; None where luck is not known.

        Raises MissingDependency without SciPy.
        """
        return significance.compare(self.values_by_trial(), self.direction)

    def verdict(self) -> str:
        """Means, and which trials differ by more than luck, in words; one sentence a line."""
        return "\n".join(verdict_lines(self))


def read_repeats(records: Iterable[TrialRecord]) -> Iterable[Repeat]:
    """The repeats that the trials of a confirmation's own study are: their parameters say which."""
    for record in records:
        trial, seed, half = (record.params.get(name, 0) for name in ("trial", "seed", "half"))
        yield Repeat(int(trial or 0), int(seed or 0), int(half or 0), record)


# --- in words ----------------------------------------------------------------------------------------


def verdict_lines(confirmation: Confirmation) -> list[str]:
    """The means of the confirmed trials, and which of them differ by more than luck, for a person."""
    lines = [*_mean_lines(confirmation), *map(_failure_text, confirmation.failed)]
    try:
        lines += _comparison_lines(confirmation) if confirmation.best is not None else [_why_no_means(confirmation)]
    except MissingDependency as error:
        lines.append(str(error))
    rings = [(trial, confirmation.frc[trial]) for trial in confirmation.trials if trial in confirmation.frc]
    return [*lines, *(f"trial {trial}: FRC {ring.describe()}" for trial, ring in rings)]


def _comparison_lines(confirmation: Confirmation) -> list[str]:
    from ptydask.analysis import good_region  # it imports a good deal, which trials in a list have no need of

    values = confirmation.values_by_trial()
    if significance.is_deterministic(values):
        return [_deterministic_text(confirmation)]
    compared, region = confirmation.compare(), good_region.find_good_region(confirmation)
    lines = region.describe() if region is not None else []
    if compared is None:
        return [few_repeats_text(values), *lines]
    few = [] if compared.tells_all_apart else filter(None, [few_repeats_text(values)])
    return [*compare_lines(compared), *_luck_lines(confirmation, compared), *few, *lines]


def better_by_mean_text(confirmation: Confirmation) -> str:
    """That another trial than the study's best one is the best by its mean, and whether that is luck; else empty."""
    first, best = best_of(confirmation.records, confirmation.direction), confirmation.best
    if first is None or best is None or first.number == best:
        return ""
    text = f"with other seeds trial {best} is the best: {confirmation.mean_text(best)}"
    if not confirmation.values(first.number):
        return f"{text}; trial {first.number} was not repeated"
    text += f"; trial {first.number} has {confirmation.mean_text(first.number)}"
    try:
        compared = confirmation.compare()
    except MissingDependency:
        return text
    if compared is None or compared.is_deterministic:
        return f"{text}; whether that is luck is not known"
    return f"{text}, {'more' if compared.differ(best, first.number) else 'no more'} than luck apart"


def compare_lines(compared: Comparison) -> list[str]:
    """Which trials are better than which by more than luck, and which cannot be told apart.

    Of more than ten trials only what concerns the best one.
    """
    best, *others = compared.trials
    if len(others) >= _MANY:
        return _best_lines(compared)
    better = list(significance.better_groups(compared))
    lines = []
    if compared.worse_than(best) == tuple(others):
        rest = "all others" if len(others) > 1 else _trials_text(others)
        lines.append(f"trial {best} is better than {rest} by more than luck")
        better = better[1:]
    for group in significance.alike_groups(compared):
        why = ": they differ by no more than luck" if len(group) == len(compared.trials) else ""
        lines.append(f"{_trials_text(group)} cannot be told apart{why}")
    for group, worse in better:
        verb = "is" if len(group) == 1 else "are"
        lines.append(f"{_trials_text(group)} {verb} better than {_trials_text(worse)} by more than luck")
    return lines


def _best_lines(compared: Comparison) -> list[str]:
    """Which trials cannot be told apart from the best one, and how many are worse by more than luck."""
    best, *others = compared.trials
    alike, worse = [trial for trial in others if not compared.differ(best, trial)], compared.worse_than(best)
    if not alike:
        return [f"trial {best} is better than all others by more than luck"]
    rest = [f"trial {best} is better than {counted(len(worse), 'other')} by more than luck"] if worse else []
    return [f"trial {best} cannot be told apart from {_trials_text(alike)}", *rest]


def _mean_lines(confirmation: Confirmation) -> list[str]:
    """A heading, one line for each trial, its mean and what it had in the study, and one for each of other metrics."""
    study = {record.number: record for record in confirmation.records}
    better = "lower" if confirmation.direction == "minimize" else "higher"
    seeds = len({repeat.seed for repeat in confirmation.repeats if not repeat.half})
    what = f"{counted(len(confirmation.trials), 'trial')} once more with {counted(seeds, 'other seed')}"
    how = "mean +- standard deviation (repeats)"
    metric = printable_text(confirmation.metric)
    lines = [f"{what}: {metric} ({better} is better), {how}" if metric else f"{what}: {how}"]
    width = max((len(str(trial)) for trial in confirmation.trials), default=0)
    for trial in confirmation.trials if metric else ():
        text = confirmation.mean_text(trial) or "no repeat has a value"
        own = f"; in the study {error_text(study[trial].error)}" if trial in study else ""
        lines.append(f"  trial {trial:{width}}  {text}{own}")
    tuned = confirmation.values_by_trial()  # a metric that is the same number under another name says nothing more
    others = [name for name in confirmation.metrics if not metric or confirmation.values_by_trial(name) != tuned]
    if others:
        lines.append(f"  {'other metrics' if metric else 'metrics'}, of {_trials_text(confirmation.trials)}:")
    for name in others:
        texts = [confirmation.mean_text(trial, name) or NOTHING for trial in confirmation.trials]
        unit = metric_unit(name, confirmation.meta.engine) if confirmation.meta is not None else ""
        lines.append(f"    {printable_text(name)}  {', '.join(texts)}{f'  ({unit})' if unit else ''}")
    return lines


def _failure_text(repeat: Repeat) -> str:
    half = f", half {repeat.half}," if repeat.half else ""
    why = repeat.record.message or "it has no value"
    return f"trial {repeat.trial}{half} with seed {repeat.seed} failed and is left out: {printable_text(why)}"


def _luck_lines(confirmation: Confirmation, compared: Comparison) -> list[str]:
    luck, least = (f"{float(f'{value:.2g}'):g}" for value in (compared.luck, compared.least_difference))
    lines = [
        f"luck: the standard deviation that other seeds give, {luck}; differences of means above {least} are more than "
        f"that (paired by seed, Tukey's range test at {100 * significance.LEVEL:g} %)"
    ]
    spread, _ = significance.pooled_deviation(confirmation.values_by_trial())
    if spread > _COMMON * compared.luck:
        lines.append("the trials' own +- are larger: most of that is what a seed does to all of them alike")
    return lines


def _why_no_means(confirmation: Confirmation) -> str:
    if not confirmation.metric:
        return "the study names no metric to rank its trials by: nothing says which of them is better"
    return "no repeat has a value: nothing is known of luck"


def _deterministic_text(confirmation: Confirmation) -> str:
    from ptydask.analysis.sweep import is_sweep  # reads configurations, which nobody else here does

    text = "every trial has the same value with every seed: nothing is known of luck, nor of what a difference means"
    if confirmation.meta is not None and is_sweep(confirmation.meta):
        text += " (does the program use PTYDASK_SEED?)"
    return text


def few_repeats_text(seeds: Mapping[int, Collection[int]]) -> str:
    """Why repeats of trials, trial -> seeds, tell no luck, or only large differences, and what to do; else empty."""
    repeated = {trial: own for trial, own in seeds.items() if own}
    number = len({seed for own in repeated.values() for seed in own})
    if len(repeated) < 2:
        return "there is no other trial to compare with: confirm more of them, as --top 5"
    if number < 2:
        return "one repeat of each trial does not tell luck: repeat them with more seeds, as --seeds 3"
    freedom = significance.freedom_of(repeated)
    if freedom < 1:
        return "the trials share too few seeds to be compared: repeat them with more seeds"
    if freedom >= _FREEDOM:
        return ""
    enough = max(number + 1, 1 + math.ceil(_FREEDOM / (len(repeated) - 1)))
    return (
        f"{counted(len(repeated), 'trial')} with {counted(number, 'seed')} leave "
        f"{counted(freedom, 'degree')} of freedom to know luck by, so that only very large differences count: "
        f"repeat them with more seeds, as --seeds {enough}"
    )


def _trials_text(trials: Sequence[int]) -> str:
    *most, last = map(str, trials)
    return f"trials {', '.join(most)} and {last}" if most else f"trial {last}"
