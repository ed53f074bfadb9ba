"""What to do after a study, from its results alone: each piece of advice in words and as changes. Pure decisions.

What the results cannot tell is not advised, and nothing is said where nothing is wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from ptydask.analysis import next_ranges
from ptydask.analysis.data import StudyData, json_object
from ptydask.analysis.optimum import locate_study_optimum, read_space, study_importances
from ptydask.distributions import Distribution
from ptydask.formatting import counted, printable_text
from ptydask.lineage import FINAL, StageLineage
from ptydask.model import Direction, Optimum, Reason, Scalar, TrialRecord, TrialState
from ptydask.proposals.optimum import AT_REST
from ptydask.ranking import rank_correlation, ranked
from ptydask.space import ranges, tunables
from ptydask.space.nearest_point import count_points
from ptydask.space.tuning_order import next_step


class AdviceKind(StrEnum):
    """What a piece of advice is about."""

    TOO_FEW_TRIALS = "too few trials"
    FAILED_TRIALS = "failed trials"
    PRUNING = "pruning"
    RANGE_TOO_NARROW = "range too narrow"
    RANGE_TOO_WIDE = "range too wide"
    STEP_TOO_COARSE = "step too coarse"
    STEP_TOO_FINE = "step too fine"
    METRICS_DISAGREE = "metrics disagree"
    MORE_ITERATIONS = "more iterations"
    NO_INFLUENCE = "no influence"
    MORE_TRIALS = "more trials"
    NEXT_STEP = "next step"
    LAST_STEP = "last step"


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change, and why."""

    kind: AdviceKind
    text: str
    """One sentence or two, for a person."""
    parameter: str = ""
    """The parameter that it is about; empty where it is about the study as a whole."""
    tune: Mapping[str, Distribution] = field(default_factory=dict)
    """Parameter -> the range to tune it in next."""
    fix: tuple[str, ...] = ()
    """Parameters to tune no more: they keep the best trial's values."""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    """Keys of the params file, dots between levels, and what to set them to."""
    trials: tuple[int, ...] = ()
    """Trials to look at."""


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What advice is given by."""

    records: tuple[TrialRecord, ...]
    space: Mapping[str, Distribution]
    metric: str
    direction: Direction
    engine: str = "ptyrad"
    config: Mapping[str, Any] = field(default_factory=dict)
    """The params file, defaults filled in; of another engine whatever it ran with."""
    optimum: Optimum | None = None
    importances: Mapping[str, float] = field(default_factory=dict)
    """Parameter -> its share; empty where none can be told."""
    lineage: StageLineage | None = None
    """Which stage it is, where it is one of several."""
    to_come: bool = False
    """Whether trials of the stage, or stages after it, are still to come in the same results file."""

    @property
    def best(self) -> list[TrialRecord]:
        """The completed trials, the best first."""
        return ranked(self.records, self.direction)

    @property
    def is_second_look(self) -> bool:
        """Whether earlier stages have tuned all that this one tunes: it need not settle what is known."""
        return self.lineage is not None and self.space.keys() <= self.lineage.values.keys()

    @property
    def sloped(self) -> frozenset[str]:
        """The tuned parameters in which completed trials have slopes."""
        completed = (record for record in self.records if record.state is TrialState.COMPLETE)
        return frozenset(name for record in completed for name in record.gradient) & self.space.keys()


def advise(data: StudyData) -> tuple[Advice, ...]:
    """What to do after the study ``data``, the most pressing first; () where it is as it should be and ends there."""
    return advise_by(gather_facts(data))


def gather_facts(data: StudyData) -> StudyFacts:
    """The facts of a study: its model of values and slopes, and its importances."""
    records, meta = data.records, data.meta
    return StudyFacts(
        records,
        read_space(meta),
        meta.metric,
        meta.direction,
        meta.engine,
        json_object(meta.config_json),
        locate_study_optimum(records, meta),
        study_importances(data),
        meta.lineage,
        data.to_come,
    )


def advise_by(facts: StudyFacts) -> tuple[Advice, ...]:
    """:func:`advise` as a pure function of its facts; () where nothing was tuned, or there is no metric to go by."""
    if not facts.space or not facts.metric:
        return ()
    troubles = [*_failed_trials(facts), *_pruning(facts)]
    few = _too_few_trials(facts)
    if few and not (facts.is_second_look and facts.best):
        return (few, *troubles)
    names = () if few else facts.space
    by_parameter = [advice for name in names if (advice := _about_range(facts, name))]
    chosen = [advice for advice in by_parameter if advice.kind is AdviceKind.RANGE_TOO_NARROW]
    chosen += _more_iterations(facts)
    if not chosen:  # else the optimum of the other parameters may move with that
        coarse = {advice.parameter for advice in by_parameter if advice.kind is AdviceKind.STEP_TOO_COARSE}
        chosen += _unsettled(facts)
        following = None if chosen else _order(facts, coarse)
        if following is None:
            chosen += by_parameter
            chosen += _no_influence(facts, {advice.parameter for advice in by_parameter})
        else:
            chosen.append(following)
    return (*troubles, *chosen, *_metrics_disagree(facts))


# --- enough to say anything --------------------------------------------------------------------------

_FEWEST = 10
_FEWEST_EACH = 5
"""Completed trials, in all and a parameter, below which values alone say nothing: Optuna's samplers draw the first
ten at random."""


def _too_few_trials(facts: StudyFacts) -> Advice | None:
    unsloped = len(facts.space.keys() - facts.sloped)
    # Values and slopes of d + 1 trials determine a quadratic in d parameters.
    needed = max(_FEWEST, _FEWEST_EACH * unsloped) if unsloped else max(3, len(facts.space) + 1)
    needed = min(needed, count_points(facts.space) or needed)
    if len(facts.best) >= needed:
        return None
    why = f"{counted(len(facts.best), 'trial')} completed: too few to say anything of {_listed(facts.space)}"
    return _with_more(facts, AdviceKind.TOO_FEW_TRIALS, f"{why}, which takes {needed}", len(facts.records) + 2 * needed)


def _with_more(facts: StudyFacts, kind: AdviceKind, why: str, total: int, *trials: int) -> Advice:
    """The advice to run so many trials in ``total``: where they go, and the settings of a new study that has them."""
    lineage, settings = facts.lineage, {}
    if lineage is None:
        how = f"the same command goes on with more trials, as --trials {total}"
    elif facts.to_come:
        how = "the run has not come to its end, and the same command goes on"
    else:  # the last stage takes more, but recommended ones are in no file
        last, stage = lineage.name == lineage.stages[-1], printable_text(lineage.name)
        how = f"give stage {stage} more in its file, as trials: {total}, or" if last else f"stage {stage} is over;"
        how += f" a study of its own goes on from the best trial, with n_trials {total}"
        settings["hypertune_params.n_trials"] = total
    return Advice(kind, f"{why}: {how}", settings=settings, trials=trials)


def _unsettled(facts: StudyFacts) -> Iterator[Advice]:
    """More trials, where the search has not arrived and there is something left to try."""
    points = count_points(facts.space)
    if points is not None and len(facts.best) >= points:
        return
    total = round(1.5 * len(facts.records))
    if facts.optimum is not None and not facts.optimum.is_settled and not facts.is_second_look:
        why = "the optimum by the slopes is not settled, so more trials may move it"
        yield _with_more(facts, AdviceKind.MORE_TRIALS, why, total)
    elif facts.optimum is None and (late := _late_gain(facts)):
        yield _with_more(facts, AdviceKind.MORE_TRIALS, late, total, facts.best[0].number)


def _late_gain(facts: StudyFacts) -> str:
    """Words for a search that was still finding better trials; empty where it was not.

    The last fifth of the trials gained more than a twentieth of what is between the best trial and the median one.
    """
    best, errors = facts.best[0], [record.error or 0.0 for record in facts.best]
    cut = sorted(record.number for record in facts.records)[-max(1, len(facts.records) // 5)]
    before = next((record for record in facts.best if record.number < cut), None)
    if before is None or best.number < cut or best.error is None or before.error is None:
        return ""
    if abs(before.error - best.error) <= 0.05 * abs(median(errors) - best.error):
        return ""
    return f"the best trial, {best.number}, is among the last fifth: the search was still finding better ones"


# --- trials that did not complete --------------------------------------------------------------------


def _failed_trials(facts: StudyFacts) -> Iterator[Advice]:
    failed = [r for r in facts.records if r.state is TrialState.FAIL and r.reason is Reason.FAILED]
    if len(failed) < 3 or len(failed) < 0.2 * len(facts.records):
        return
    message, _ = Counter(printable_text(record.message) for record in failed).most_common(1)[0]
    text = f"{len(failed)} of {counted(len(facts.records), 'trial')} failed, most often with: {message}"
    ended = [record for record in facts.records if record.state is not TrialState.FAIL]
    for name, dist in facts.space.items():
        if cut := next_ranges.without_failures(dist, name, _values(failed, name), _values(ended, name)):
            text += f"; all of them have {name} {cut.words}, and no other trial has"
            yield Advice(AdviceKind.FAILED_TRIALS, text, name, {name: cut.range}, trials=_numbers(failed))
            return
    yield Advice(AdviceKind.FAILED_TRIALS, text, trials=_numbers(failed))


def _pruning(facts: StudyFacts) -> Iterator[Advice]:  # a trial with slopes has told what it was run for
    pruned = sum(record.state is TrialState.PRUNED for record in facts.records)
    no_pruner: dict[str, Scalar] = {"hypertune_params.pruner_params": None} if facts.engine == "ptyrad" else {}
    if facts.engine == "ptyrad" and facts.metric == "contrast" and pruned:
        text = (
            f"{counted(pruned, 'trial')} pruned by contrast, which does not rise steadily with iterations, so that "
            "good ones may be among them: tune it without a pruner"
        )
        yield Advice(AdviceKind.PRUNING, text, settings=no_pruner)
        return
    pruned = sum(r.state is TrialState.PRUNED and not facts.space.keys() <= r.gradient.keys() for r in facts.records)
    if pruned >= 0.8 * len(facts.records) and len(facts.best) < _FEWEST <= len(facts.records):
        text = f"{pruned} of {counted(len(facts.records), 'trial')} pruned, so that few are left to compare: no pruner"
        yield Advice(AdviceKind.PRUNING, text, settings=no_pruner)


# --- ranges and steps --------------------------------------------------------------------------------

_GOOD = 0.1
_FEWEST_GOOD = 5
"""The good trials: the best tenth of the completed ones, no fewer than five."""
_NO_INFLUENCE = 0.01
"""Share of importance below which a parameter makes no difference."""


def _about_range(facts: StudyFacts, name: str) -> Advice | None:
    """The one thing that is wrong with a parameter's range or step, if anything is."""
    dist, values = facts.space[name], _values(facts.best, name)
    if not isinstance(dist, next_ranges.RANGES) or dist.low == dist.high or len(values) < len(facts.best):
        return None
    idle = next_ranges.where_idle(name, facts.space, facts.config if facts.engine == "ptyrad" else {})
    best = [record for record in facts.best if not idle(record)]
    if facts.best[0] not in best:  # dz of an object of one slice: its values there are chance
        return None
    values = _values(best, name)
    if facts.importances.get(name, 1.0) < _NO_INFLUENCE and len(facts.space) > 1 and not _is_located(facts, name):
        return None
    good = values[: max(_FEWEST_GOOD, round(_GOOD * len(values)))]
    ended = (record for record in facts.records if record.state is not TrialState.FAIL)
    tried = _values((record for record in ended if not idle(record)), name)
    if facts.optimum is not None and name in facts.optimum.center:
        center, deviation = facts.optimum.center[name], facts.optimum.deviation[name]
        change = next_ranges.by_optimum(dist, name, center, deviation, settled=facts.optimum.is_settled)
    else:
        slope = facts.best[0].gradient.get(name)
        downhill = None if slope is None else slope if facts.direction == "minimize" else -slope
        change = next_ranges.by_good_trials(dist, name, good, tried, downhill)
    if change is None:
        return None
    new = f"; next: {_range_text(facts, name, change.range)}"
    return Advice(AdviceKind(change.kind), f"{name}: {change.words}{new}", name, {name: change.range})


def _is_located(facts: StudyFacts, name: str) -> bool:
    """Whether the optimum's place is known to a tenth of the range: a parameter that does nothing has none."""
    dist, optimum = facts.space[name], facts.optimum
    if optimum is None or name not in optimum.center or not isinstance(dist, next_ranges.RANGES):
        return False
    return optimum.deviation[name] < 0.1 * (dist.high - dist.low)


def _no_influence(facts: StudyFacts, taken: Iterable[str]) -> Iterator[Advice]:
    for name, share in facts.importances.items():
        if share >= _NO_INFLUENCE or name not in facts.space or name in taken or len(facts.space) < 2:
            continue
        if _is_located(facts, name):  # near its optimum it makes little difference, and its place is known
            continue
        text = (
            f"{name}: makes no difference to {facts.metric} ({_range_text(facts, name, facts.space[name])}; "
            f"{100 * share:.2g} % of all importance): leave it at the best trial's value"
        )
        yield Advice(AdviceKind.NO_INFLUENCE, text, name, fix=(name,))


# --- the course of trials, the metrics ---------------------------------------------------------------


def _more_iterations(facts: StudyFacts) -> Iterator[Advice]:
    """More iterations, where the good trials end while their error still falls."""
    falls = [r.relative_decrease for r in facts.best[:_FEWEST_GOOD] if r.relative_decrease is not None]
    if not falls or median(falls) <= AT_REST:
        return
    text = (
        f"the best trials end while {facts.metric} still gets better by {100 * median(falls):.2g} % an iteration: too "
        "early to rank them, and their slopes say little"
    )
    recon = facts.config.get("recon_params")
    iterations = recon.get("NITER") if facts.engine == "ptyrad" and isinstance(recon, Mapping) else None
    if not isinstance(iterations, int):
        yield Advice(AdviceKind.MORE_ITERATIONS, f"{text}; let a trial run longer")
        return
    settings = {"recon_params.NITER": 2 * iterations}
    what = "NITER" if facts.lineage is None else "for such a stage iterations:"
    yield Advice(AdviceKind.MORE_ITERATIONS, f"{text}; next: {what} {2 * iterations}", settings=settings)


def _metrics_disagree(facts: StudyFacts) -> Iterator[Advice]:
    """Where a lower loss goes with a lower contrast: of all metrics these two are known to have a good side each."""
    both = [r for r in facts.best if all(math.isfinite(r.metrics.get(m, math.nan)) for m in ("loss", "contrast"))]
    if facts.engine != "ptyrad" or len(both) < _FEWEST:
        return
    agreement = rank_correlation([-r.metrics["loss"] for r in both], [r.metrics["contrast"] for r in both])
    # Of n unrelated pairs the rank correlation has the standard deviation 1 / sqrt(n - 1).
    if agreement > -2 / math.sqrt(len(both) - 1):
        return
    by_loss = min(both, key=lambda record: record.metrics["loss"]).number
    by_contrast = max(both, key=lambda record: record.metrics["contrast"]).number
    text = (
        f"loss and contrast disagree: over {len(both)} completed trials a lower loss goes with a lower contrast (rank "
        f"correlation {agreement:.2f}), so that one of them rewards something else than a better object; look at "
        f"trials {by_loss} (lowest loss) and {by_contrast} (highest contrast) side by side before a value is settled"
    )
    yield Advice(AdviceKind.METRICS_DISAGREE, text, trials=(by_loss, by_contrast))


# --- PtyRAD's order ----------------------------------------------------------------------------------


def _order(facts: StudyFacts, coarse: Iterable[str]) -> Advice | None:
    """The next step of PtyRAD's order, or that this was the last; None for other engines."""
    if facts.engine != "ptyrad" or not isinstance(facts.config.get("init_params"), Mapping):
        return None
    names = next_step(facts.config, {*facts.space, *(facts.lineage.values if facts.lineage else ())})
    final_follows = facts.lineage is not None and facts.lineage.stages[-1:] == (FINAL,)
    if set(coarse) - set(names or ()) or (names is None and final_follows):
        return None
    best = facts.best[0]
    held = tuple(name for name in facts.space if name not in (names or ()))
    if names is None:
        text = (
            "this was the last step of PtyRAD's order (dz, scale with rotation, the whole affine, tilts); next: a "
            "reconstruction with the best values and as many iterations as it takes"
        )
        return Advice(AdviceKind.LAST_STEP, text, fix=held)
    tune = {name: next_ranges.in_next_step(name, facts.space, best, facts.optimum, facts.config) for name in names}
    kept = f", {_listed(held)} held at the best values" if held else ""
    wanted = _listed(f"{name} ({_range_text(facts, name, dist)})" for name, dist in tune.items())
    text = f"{_listed(facts.space)} found; next in PtyRAD's order: {wanted}{kept}"
    return Advice(AdviceKind.NEXT_STEP, text, tune=tune, fix=held)


# --- pieces ------------------------------------------------------------------------------------------


def _values(records: Iterable[TrialRecord], name: str) -> list[float]:
    """The numbers that the trials have for a parameter, in their order."""
    values = (record.params.get(name) for record in records)
    return [float(value) for value in values if ranges.is_number(value)]


def _numbers(records: Iterable[TrialRecord]) -> tuple[int, ...]:
    return tuple(record.number for record in records)


def _range_text(facts: StudyFacts, name: str, dist: Distribution) -> str:
    """The range in words, with PtyRAD's unit."""
    return f"{ranges.describe(dist)} {tunables.unit_of(name, facts.engine)}".rstrip()


def _listed(names: Iterable[str]) -> str:
    *most, last = map(printable_text, names)
    return f"{', '.join(most)} and {last}" if most else last
