"""Who chooses the points of a study: the file's sampler alone, or the slopes of the trials before it."""

from __future__ import annotations

from dataclasses import dataclass

from ptydask.model import StudyPlan

_NAMED = 4
"""As many parameters are named where none has a slope."""


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """Who chooses the points."""

    informed: bool
    """Whether the slopes of the trials so far lead; else it is the file's sampler alone."""
    why: str
    """The reason in a few words; of an informed search, who leads and who else has a turn."""


def parameters_with_slopes(plan: StudyPlan) -> tuple[str, ...]:
    """The tuned parameters in which every trial gives the metric's derivative, in the plan's order."""
    return tuple(name for name in plan.space if name in plan.differentiable)


def choose_search(plan: StudyPlan) -> SearchChoice:
    """Who chooses the points of a complete plan: its engine has said which parameters have slopes, a grid is listed."""
    sloped = parameters_with_slopes(plan)
    listed = ", ".join(sloped)
    if not plan.space:
        return SearchChoice(False, "nothing is tuned")
    if plan.exhaustive:
        return SearchChoice(False, "every point of the grid once")
    if not sloped:
        names, more = list(plan.space)[:_NAMED], len(plan.space) - _NAMED
        tuned = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        return SearchChoice(False, f"{plan.metric} has no slopes in {tuned}" if plan.metric else "there is no metric")
    if plan.search == "file":
        return SearchChoice(False, f"alone, as was asked for; --search auto: slopes of {listed} lead")
    sampler = plan.sampler.name
    turns = f"{sampler} has a turn now and then (--search file: {sampler} alone)"
    return SearchChoice(True, f"slopes of {listed} lead, {turns}")
