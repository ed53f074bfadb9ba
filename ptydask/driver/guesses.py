"""What a study does with the guesses from its patterns: they are tried among the first, and that is said."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ptydask import engines
from ptydask.distributions import Distribution
from ptydask.driver.earlier_points import put_first
from ptydask.formatting import params_text
from ptydask.model import GUESSED, TRIED, Point, StudyPlan
from ptydask.sampling.startup import unwrap_fixed
from ptydask.space import ranges


def with_guesses(plan: StudyPlan, init: Mapping[str, Any], known: Collection[str], *, narrow: bool) -> StudyPlan:
    """The plan with what its patterns tell tried first: those that the section ``init`` names, read in part, once.

    Parameters that are ``known`` from earlier stages are left as they are.
    """
    spec, fixed = unwrap_fixed(plan.sampler)
    known = {*known, *fixed}
    if not plan.space.keys() - known:
        return plan
    from ptydask.guess.measuring import has_parallax, report_once
    from ptydask.guess.points import use_guesses
    from ptydask.guess.report import RADIUS

    with engines.naming_file(plan):
        report = report_once(init, parallax=has_parallax())
    guessed = use_guesses(
        report.chosen(),
        plan.space,
        plan.own_params,
        known=known,
        # A grid of values that somebody listed stays whole.
        narrow=plan.space.keys() - (spec.configs.get("search_space") or {}).keys() if narrow else (),
        kept=[point for point in plan.points if point.origin == TRIED],
    )
    points = plan.points if guessed.point is None else put_first([guessed.point], plan)
    points = tuple(point for point in points if _lies_in(guessed.space, point))
    untuned = guessed.untuned if plan.lineage is None else ()  # another stage may tune it
    by_disk = any(name in report.chosen() and not report.chosen()[name].agrees for name in ("conv_angle", "dx"))
    # The disk's radius says the same as a convergence angle that is told already.
    warnings = [text for text in report.warnings if not (untuned and by_disk and text.startswith(RADIUS))]
    notices = *plan.notices, *guessed.notices, *untuned, *(f"guess: {warning}" for warning in warnings)
    return replace(plan, space=guessed.space, points=points, notices=notices, guessed=guessed.good)


def describe_guess(plan: StudyPlan, before: Iterable[Point]) -> StudyPlan:
    """The plan with the point that is tried by its guesses among its details, as those of earlier studies are.

    ``before`` are its points before a grid left out those that it has not: that is said then.
    """
    guesses = [point for point in before if point.origin == GUESSED]
    if not guesses:
        return plan
    text = params_text(guesses[0].params)
    if guesses[0] in plan.points:
        return replace(plan, details=(*plan.details, (GUESSED, text)))
    return replace(plan, notices=(*plan.notices, f"guess: {text} is not tried: the grid has no such point"))


def _lies_in(space: Mapping[str, Distribution], point: Point) -> bool:
    return point.origin == TRIED or all(ranges.contains(space[name], value) for name, value in point.params.items())
