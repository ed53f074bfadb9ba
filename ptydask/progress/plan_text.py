"""The plan of a study in words, as it is printed before anything starts. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ptydask.distributions import Distribution, IntRange
from ptydask.driver.cost import RunCost
from ptydask.driver.settlement import gain_text
from ptydask.errors import redact, require
from ptydask.formatting import (
    counted,
    params_text,
    printable_text,
    shorten_text,
    size_text,
    value_text,
    work_text,
    wrap_line,
)
from ptydask.model import NEAR_VALUES, OWN_VALUES, TRIED, Budget, Point, Scalar, StudyPlan
from ptydask.sampling import startup_trials
from ptydask.space import ranges, tunables
from ptydask.trial.search_choice import choose_search, parameters_with_slopes

WIDTH = 10
LONGEST = 160
"""Characters of one parameter's choices; a grid may have thousands."""
LINE_WIDTH = 100
"""Characters of a line that can be broken."""
MOST_TRIED = 8
"""Guesses that are listed."""


def plan_lines(plan: StudyPlan, trials: int | None = None) -> list[str]:
    """Study, tuned parameters with their ranges, what its engine adds, search method, where results go.

    With the number of ``trials`` that the study is to have, also how many of them are drawn at random.
    """
    return [
        labelled_line("study", f"{plan.name}, from {_source_text(plan)}"),
        *_space_lines(plan.space, _file_values(plan), plan.engine),
        *_tried_lines(plan.points),
        *(labelled_line(label, redact(printable_text(text))) for label, text in plan.details),
        labelled_line("error", _error_text(plan)),
        *_search_lines(plan, trials),
        labelled_line("results", str(plan.results)),
        *([labelled_line("storage", redact(plan.storage))] if plan.storage else []),
    ]


def trials_line(budget: Budget, workers: int, total: int, recorded: int) -> str:
    """``8 workers x 25 trials = 200 trials, 30 recorded already``; ``total`` is less where there are fewer points."""
    wanted = budget.trials(workers)
    text = counted(wanted, "trial")
    if not budget.total:
        text = f"{counted(workers, 'worker')} x {counted(budget.n_trials, 'trial')} = {text}"
    if total < wanted:
        text = f"{counted(total, 'trial')}, then all points of the search space are recorded (asked for: {text})"
    if total > wanted:
        text = f"{counted(total, 'trial')}, {total - wanted} of them of another search before this grid"
    if budget.timeout is not None:
        text += f", none started after {budget.timeout:g} s"
    return labelled_line("trials", text + (f", {recorded} recorded already" if recorded else ""))


def cost_line(cost: RunCost) -> str | None:
    """``about 14 GPU hours by 30 trials, 3.1 GB of results``; None where nothing says either, or nothing is left."""
    size = f"about {size_text(cost.size)} of results" if cost.size else ""
    if cost.seconds:
        by = f"by {counted(cost.known_by, 'completed trial')}"
        time = f"about {work_text(cost.seconds, cost.on_gpus)} {by}"
        return labelled_line("cost", ", ".join(filter(None, (time, size))))
    return labelled_line("cost", f"{size}; the time is said after the first trials") if size else None


def recorded_text(total: int, recorded: int, results: Path) -> str:
    """``all 200 trials are recorded in FILE``; other words where more are recorded than are asked for now."""
    if recorded == total:
        return f"all {total} trials are recorded in {results}"
    return f"{counted(recorded, 'trial')} are recorded in {results}, and {total} asked for"


def workers_line(where: str, why: str) -> str:
    """What runs where, and why there where nobody said so."""
    return labelled_line("workers", f"{where} ({why})" if why else where)


def _file_values(plan: StudyPlan) -> dict[str, Scalar]:
    """What the file has now for each tuned parameter, where its engine compared the two."""
    ours = (OWN_VALUES, NEAR_VALUES)
    if not any(point.origin in ours for point in plan.points):
        return {}
    values = {name: tunables.current_value(plan.config, name) for name in plan.space}
    return {name: value for name, value in values.items() if value is not None}


def _tried_lines(points: Sequence[Point]) -> list[str]:
    """A person's guesses, which are tried before the sampler chooses."""
    texts = [shorten_text(params_text(point.params), LONGEST) for point in points if point.origin == TRIED]
    if len(texts) > MOST_TRIED:
        texts[MOST_TRIED:] = [f"and {counted(len(texts) - MOST_TRIED, 'point')} more"]
    return [labelled_line("" if index else "try", text) for index, text in enumerate(texts)]


def _space_lines(tuned: Mapping[str, Distribution], current: Mapping[str, Scalar], engine: str) -> list[str]:
    if not tuned:
        return [labelled_line("tuning", "nothing: the file's own values")]
    width = max(map(len, tuned))
    lines: list[str] = []
    for name, dist in tuned.items():
        text = f"{name:<{width}}  {shorten_text(printable_text(ranges.describe(dist)), LONGEST)}"
        if unit := tunables.unit_of(name, engine):
            text += f" {unit}"
        if isinstance(dist, IntRange):
            text += " (whole numbers)"
        if name in current:
            text += f"  (file: {value_text(current[name])})"
        lines.append(labelled_line("" if lines else "tuning", text))
    return lines


def _error_text(plan: StudyPlan) -> str:
    if not plan.metric:
        return "none: the file names no metric, so trials are ranked by nothing"
    steps = f" after {counted(plan.iterations, 'iteration')}" if plan.iterations else ""
    ends = [f"{plan.target:g} is reached"] if plan.target is not None else []
    if plan.until_settled and parameters_with_slopes(plan):
        ends.append("its optimum is settled")
    if plan.no_gain is not None:
        ends.append(f"the last {gain_text(plan.no_gain)}")
    until = f" until {' or '.join(ends)}" if ends else ""
    return f"{printable_text(plan.metric)}{steps}, {plan.direction}d{until}"


def _search_lines(plan: StudyPlan, trials: int | None) -> list[str]:
    """Who chooses the points, and why; the pruner and the seed."""
    if not plan.space:
        return [labelled_line("search", "none")]
    choice = choose_search(plan)
    why = shorten_text(printable_text(choice.why), LONGEST)
    rest = f"{plan.pruner.name if plan.pruner else 'no pruning'}, seed {plan.seed}"
    if choice.informed:
        return [*wrap_line(labelled_line("search", why), LINE_WIDTH), labelled_line("", rest)]
    random = None if trials is None or plan.exhaustive else startup_trials(plan.sampler, trials)
    sampler = plan.sampler.name
    if random is not None:
        sampler += f" after {counted(random, 'random trial')}"
    return wrap_line(labelled_line("search", f"{sampler}, {rest} ({why})"), LINE_WIDTH)


def _source_text(plan: StudyPlan) -> str:
    """The file that was given, and the one that it names, where it is one of ptydask's own."""
    own = plan.own_file
    return str(plan.source.path) if own is None else f"{own.path} (params: {plan.source.path})"


def looking_line(count: int) -> str:
    """What parallax does with the patterns of so many data sets before anything else is said, and how long it takes.

    Empty without parallax, as the rest takes a second or two. Raises MissingDependency where guesses cannot be made.
    """
    require("scipy", "--guess needs", "guess")
    from ptydask.guess.measuring import has_parallax

    if not has_parallax():
        return ""
    each = f" for each of {count} data sets" if count > 1 else ""
    return f"guess: looking at the patterns, which takes ten seconds to a minute{each}"


def labelled_line(label: str, text: str) -> str:
    """A line of the plan."""
    return f"{label:<{WIDTH}}{text}"
