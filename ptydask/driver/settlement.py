"""Whether a study ends before its trials do: its target is reached, its optimum known, no gain left; in words, too.

And whether its slopes lead anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ptydask.formatting import counted, error_text, printable_text, uncertain_text, value_text
from ptydask.model import Optimum, StudyPlan, TrialRecord, TrialState
from ptydask.ranking import NoGain, best_of, lacks_gain, target_met
from ptydask.trial.search_choice import choose_search, parameters_with_slopes


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """What ends a study however many trials are left; false where nothing does."""

    reached: TrialRecord | None = None
    """The best trial, where it is as good as the plan's target."""
    settled: Optimum | None = None
    """The optimum, where it is settled and the plan is to end then."""
    unbeaten: TrialRecord | None = None
    """The best trial, where the plan is to end for want of gain and the last trials bring none."""

    def __bool__(self) -> bool:
        return self != EarlyEnd()


def find_early_end(records: Collection[TrialRecord], plan: StudyPlan) -> EarlyEnd:
    """What ends the study by the trials recorded so far."""
    reached = target_met(records, plan.target, plan.direction)
    return EarlyEnd(reached, settled_optimum(records, plan), unbeaten_trial(records, plan))


def early_end_text(end: EarlyEnd, plan: StudyPlan, recorded: int, total: int) -> str:
    """What ended the study, and how many trials that left; empty where nothing did."""
    if end.reached is not None:
        error = error_text(end.reached.error)
        return f"target reached by trial {end.reached.number}: {plan.metric} {error} (target {plan.target:g})"
    if end.settled is not None:
        return settled_text(end.settled, recorded, total)
    return "" if end.unbeaten is None else unbeaten_text(end.unbeaten, plan, recorded, total)


def settled_optimum(records: Iterable[TrialRecord], plan: StudyPlan) -> Optimum | None:
    """The optimum, where the study is to end once it is settled, and it is; a function of the records alone."""
    if not plan.until_settled or not parameters_with_slopes(plan):
        return None
    if plan.iterations == 1:  # nobody knows how far from rest such a trial is
        return None
    from ptydask.proposals import locate_optimum  # NumPy comes in with it

    # By number: a study that goes on has them in another order, and must come to the same end.
    ordered = sorted(records, key=lambda record: record.number)
    optimum = locate_optimum(ordered, plan.space, plan.direction)
    return optimum if optimum is not None and optimum.is_settled else None


def settled_text(optimum: Optimum, recorded: int, total: int) -> str:
    """``settled by 14 trials: optimum at scale 1.0387 +- 0.0012; 46 of 60 trials were not run``."""
    values = []
    for name, value in optimum.center.items():
        deviation = optimum.deviation.get(name)
        values.append(f"{name} {value_text(value) if deviation is None else uncertain_text(value, deviation)}")
    return f"settled by {counted(recorded, 'trial')}: optimum at {', '.join(values)}; {_unspent_text(recorded, total)}"


def unbeaten_trial(records: Iterable[TrialRecord], plan: StudyPlan) -> TrialRecord | None:
    """The best trial, where the study is to end for want of gain and the last ones bring none, by the records alone."""
    if plan.no_gain is None or not plan.metric:
        return None
    records = list(records)
    return best_of(records, plan.direction) if lacks_gain(records, plan.direction, plan.no_gain) else None


def gain_text(no_gain: NoGain) -> str:
    """``20 trials bring no gain of 1 %``."""
    gain = f"gain of {100 * no_gain.share:.4g} %" if no_gain.share > 0 else "gain"
    return f"trial brings no {gain}" if no_gain.trials == 1 else f"{no_gain.trials} trials bring no {gain}"


def unbeaten_text(best: TrialRecord, plan: StudyPlan, recorded: int, total: int) -> str:
    """``the last 20 trials bring no gain of 1 %: best loss 0.0123000 (trial 12); 26 of 60 trials were not run``."""
    assert plan.no_gain is not None
    found = f"best {printable_text(plan.metric)} {error_text(best.error)} (trial {best.number})"
    return f"the last {gain_text(plan.no_gain)}: {found}; {_unspent_text(recorded, total)}"


def _unspent_text(recorded: int, total: int) -> str:
    left = total - recorded
    return f"{left} of {total} trials were not run" if left > 0 else f"all {total} trials were run"


def falling_back_text(records: Iterable[TrialRecord], plan: StudyPlan) -> str:
    """What is said where slopes are to lead and the file's sampler is ahead of them; empty where it is not."""
    if not choose_search(plan).informed:
        return ""
    from ptydask.proposals import PastTrial, sampler_is_ahead  # NumPy comes in with it

    errors = ((r.origin, r.error if r.state is TrialState.COMPLETE else None) for r in records)
    if not sampler_is_ahead([PastTrial(origin, error) for origin, error in errors], plan.direction):
        return ""
    sampler = plan.sampler.name
    return f"the slopes do not lead to better trials than {sampler}'s: it has every other turn"
