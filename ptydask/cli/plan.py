"""The plan of a study in words, as it is printed before anything starts. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from ptydask.cli.formats import value_text
from ptydask.errors import redact
from ptydask.model import Budget, Choice, Distribution, FloatRange, IntRange, StudyPlan

WIDTH = 10


def plan_lines(plan: StudyPlan) -> list[str]:
    """Study, tuned parameters with their ranges, search method, where results go."""
    start = plan.points[0].params if plan.points and plan.points[0].origin == "start" else {}
    return [
        _line("study", f"{plan.name}, from {plan.source.path}"),
        *_space(plan.space, start),
        _line("error", _error(plan)),
        _line("search", _search(plan)),
        _line("results", str(plan.results)),
        *([_line("storage", redact(plan.storage))] if plan.storage else []),
    ]


def trials_line(budget: Budget, workers: int, total: int, recorded: int) -> str:
    """``8 workers x 25 trials = 200 trials, 30 recorded already``; ``total`` is less where a grid has fewer points."""
    asked = budget.trials(workers)
    text = _count(asked, "trial")
    if not budget.total:
        text = f"{_count(workers, 'worker')} x {_count(budget.n_trials, 'trial')} = {text}"
    if total < asked:
        text = f"{_count(total, 'trial')}, all points of the grid (asked for: {text})"
    if budget.timeout is not None:
        text += f", none started after {budget.timeout:g} s"
    return _line("trials", text + (f", {recorded} recorded already" if recorded else ""))


def workers_line(where: str) -> str:
    """What runs where."""
    return _line("workers", where)


def distribution_text(among: Distribution) -> str:
    """``0.8 to 1.2, step 0.02`` and the like."""
    match among:
        case FloatRange(low, high, step, log):
            stepped = f", step {value_text(step)}" if step else ", logarithmic" if log else ""
            return f"{value_text(low)} to {value_text(high)}{stepped}"
        case IntRange(low, high, step, log):
            stepped = ", logarithmic" if log else f", step {step}" if step != 1 else ""
            return f"{low} to {high}{stepped} (whole numbers)"
        case Choice(choices):
            return "one of " + ", ".join(value_text(choice) for choice in choices)


def _space(space: Mapping[str, Distribution], start: Mapping[str, object]) -> list[str]:
    if not space:
        return [_line("tuning", "nothing: one reconstruction with the file's own values")]
    wide = max(map(len, space))
    return [
        _line(
            "" if i else "tuning",
            f"{name:<{wide}}  {distribution_text(among)}"
            + (f"  (file: {value_text(start[name])})" if name in start else ""),
        )
        for i, (name, among) in enumerate(space.items())
    ]


def _error(plan: StudyPlan) -> str:
    steps = f" after {plan.iterations} iterations" if plan.iterations else ""
    return f"{plan.metric}{steps}, {plan.direction}d"


def _search(plan: StudyPlan) -> str:
    if not plan.space:
        return "none"
    pruner = plan.pruner.name if plan.pruner else "no pruning"
    return f"{plan.sampler.name}, {pruner}, seed {plan.seed}"


def _line(label: str, text: str) -> str:
    return f"{label:<{WIDTH}}{text}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
