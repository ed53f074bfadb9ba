"""What a study takes of earlier ones: their best points, and what is otherwise than it was in them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

from ptydask import engines
from ptydask.driver import comparability, provenance
from ptydask.driver.earlier import EarlierStudy, name_apart, other_defocus
from ptydask.errors import UnusableResults, UsageError
from ptydask.formatting import counted, params_text, uncertain_text
from ptydask.model import (
    FROM_EARLIER,
    GUESSED,
    NEAR_VALUES,
    OWN_VALUES,
    TRIED,
    EarlierTrial,
    Point,
    Scalar,
    StudyMeta,
    StudyPlan,
)
from ptydask.sampling import LEAST_EARLIER, learns_from_earlier
from ptydask.space import ranges, tunables
from ptydask.space.nearest_point import point_key
from ptydask.trial.search_choice import choose_search

MOST = 3
"""So many points of earlier studies are tried first, or one of each study where there are more studies. Where slopes
lead, one of each: they know better than the second best. What may be the specimen's costs one more."""
_OF_THE_SPECIMEN = ("Nlayer", "dz", *tunables.TILTS)
"""PtyRAD's parameters that do not carry over with the microscope."""
_KEPT_ORIGINS = (OWN_VALUES, NEAR_VALUES, TRIED)
_WITHOUT = " without "
"""In an origin: what follows is not the earlier trial's, but the file's own."""
_APART = 3.0
"""Standard deviations of a guess from which on an earlier study found something else."""
_MOST_NAMED = 6
"""Settings that are named where they differ."""


# --- taken -------------------------------------------------------------------------------------------


def start_from(plan: StudyPlan, studies: Sequence[EarlierStudy], found: Collection[str] = ()) -> StudyPlan:
    """The plan with the best points of earlier ``studies`` tried first, what was taken said, and what differs named.

    Values of parameters that the plan tunes and that lie in its ranges, on its grid; other parameters of a point are
    the file's own. Not those ``found`` by the plan's own earlier stages, which are of the data at hand. CMA-ES begins
    with what all trials of these studies say, where they have every parameter and the same metric.

    Raises UsageError where one of the studies is the plan's own file, and UnusableResults where one could not be read,
    unless the plan has results already: the study has begun with what it took, and that it goes on without is said.
    """
    unread = [study.problem for study in studies if study.problem]
    if unread and not plan.results.exists():
        raise UnusableResults(unread[0])
    tuned = [name for name in plan.space if name not in found]
    if not studies or not tuned:
        return plan
    for study in studies:
        if study.path.resolve() == plan.results.resolve():
            raise UsageError(f"--from {study.path}: is this study's own results file; the same command goes on with it")
    studies = [study for study in name_apart(studies, [plan.results]) if not study.problem]
    by_study = [_points_of(study, plan, tuned) for study in studies]
    best = [point for point in chain.from_iterable(zip_longest(*by_study)) if point is not None]
    bare = _without_specimen(best[0], studies, plan, tuned) if best else None
    most = len(studies) + (bare is not None) if choose_search(plan).informed else max(MOST, len(studies))
    points = _first_points(plan, [*best[:1], *([bare] if bare else []), *best[1:]], most)
    known = tuple(_to_learn_from(plan, studies)) if learns_from_earlier(plan.sampler) else ()
    trials = known if len(known) >= LEAST_EARLIER else ()
    lines = [line for study in studies for line in _taken_lines(study, plan, tuned, points)]
    if trials:
        lines.append(f"{plan.sampler.name} begins with what {counted(len(trials), 'trial')} of them say")
    notices = [f"{problem}; this study has begun, and goes on without it" for problem in unread]
    notices += (notice for study in studies for notice in _notices(study, plan, tuned))
    notices += (notice for study in studies for notice in _contradictions(study, plan, tuned))
    if len(known) > len(trials):
        enough = f"{LEAST_EARLIER} earlier trials or more"
        notices.append(f"{plan.sampler.name} learns from {enough}, and there are {len(known)} that it can: from none")
    return replace(
        plan,
        points=put_first(points, plan),
        earlier=trials,
        details=(
            *(line for line in plan.details if line[0] != GUESSED),
            *(("" if place else "from", line) for place, line in enumerate(lines)),
            *(line for line in plan.details if line[0] == GUESSED),  # in the order in which they are tried
        ),
        notices=(*plan.notices, *notices),
    )


def _points_of(study: EarlierStudy, plan: StudyPlan, tuned: Sequence[str]) -> list[Point]:
    """The study's points that lie in the plan's ranges, best first."""
    points, taken, own = [], _taken_parameters(study, plan, tuned), plan.own_params
    for record in study.trials:
        values = study.params_of(record)
        shared = {name: values[name] for name in taken if name in values}
        if shared and all(ranges.spans(plan.space[name], value) for name, value in shared.items()):
            near = {name: ranges.nearest_value(plan.space[name], value) for name, value in shared.items()}
            points.append(Point({**own, **near}, f"{_origin_of(study)}{record.number}"))
    return points


def _without_specimen(
    point: Point, studies: Iterable[EarlierStudy], plan: StudyPlan, tuned: Sequence[str]
) -> Point | None:
    """The point with the file's own values of what may be the earlier specimen's alone; None where that is no other.

    Where the specimen is another one, it is the better start by far: the scan is right, and the slopes see the rest.
    """
    taken = next(_taken_parameters(s, plan, tuned) for s in studies if point.origin.startswith(_origin_of(s)))
    specimen, own = _of_specimen(taken, plan), plan.own_params
    if not specimen or len(specimen) == len(taken) or not own.keys() >= set(specimen):
        return None
    bare = Point(
        {**point.params, **{name: own[name] for name in specimen}}, f"{point.origin}{_WITHOUT}{', '.join(specimen)}"
    )
    return None if point_key(plan.space, bare.params) == point_key(plan.space, point.params) else bare


def _of_specimen(names: Iterable[str], plan: StudyPlan) -> list[str]:
    return [name for name in names if plan.engine == "ptyrad" and name in _OF_THE_SPECIMEN]


def _origin_of(study: EarlierStudy) -> str:
    """What the origin of each of the study's points begins with."""
    return f"{FROM_EARLIER}{study.name}, trial "


def _taken_parameters(study: EarlierStudy, plan: StudyPlan, tuned: Iterable[str]) -> list[str]:
    """Which of the ``tuned`` parameters the study has, apart from a defocus that its file has otherwise."""
    there, other = study.params_of(study.trials[0]), other_defocus(plan, study)
    return [name for name in tuned if name in there and name not in other]


def _first_points(plan: StudyPlan, points: Iterable[Point], most: int) -> list[Point]:
    """The first ``most`` that differ; of a grid only points that it has."""
    grid = {point_key(plan.space, point.params) for point in plan.points} if plan.exhaustive else None
    first: dict[object, Point] = {}
    for point in points:
        if len(first) < most:
            key = point_key(plan.space, point.params)
            if grid is None or key in grid:
                first.setdefault(key, point)
    return list(first.values())


def put_first(points: Sequence[Point], plan: StudyPlan) -> tuple[Point, ...]:
    """``points``, then the plan's that are none of them: what the plan tries first.

    One that is the file's own, or a person's, stays that: results say what was gained over the former.
    """
    own = {point_key(plan.space, point.params): point for point in plan.points if point.origin in _KEPT_ORIGINS}
    first = {point_key(plan.space, point.params): point for point in points}
    rest = (point for point in plan.points if point_key(plan.space, point.params) not in first)
    return (*(own.get(key, point) for key, point in first.items()), *rest)


def _to_learn_from(plan: StudyPlan, studies: Iterable[EarlierStudy]) -> Iterator[EarlierTrial]:
    """Trials with every parameter of the plan, in its ranges, scored by its metric."""
    for study in studies:
        comparable = (study.meta.metric, study.meta.direction) == (plan.metric, plan.direction)
        if comparable and not other_defocus(plan, study).keys() & plan.space.keys():
            for record in study.trials:
                values = study.params_of(record)
                inside = all(name in values and ranges.spans(dist, values[name]) for name, dist in plan.space.items())
                if inside and record.error is not None and math.isfinite(record.error):
                    near = {name: ranges.nearest_value(dist, values[name]) for name, dist in plan.space.items()}
                    yield EarlierTrial(near, record.error)


# --- said --------------------------------------------------------------------------------------------


def _taken_lines(study: EarlierStudy, plan: StudyPlan, tuned: Iterable[str], points: Sequence[Point]) -> Iterator[str]:
    """``last.h5, trial 12: scale=1.04 rotation=-1.5`` for each point of the study that is tried."""
    taken = _taken_parameters(study, plan, tuned)
    own = {point_key(plan.space, point.params) for point in plan.points if point.origin == OWN_VALUES}
    best = f"{_origin_of(study)}{study.trials[0].number}"
    for point in points:
        if point.origin.startswith(_origin_of(study)):
            trial, left = point.origin.removeprefix(FROM_EARLIER), point.origin.partition(_WITHOUT)[2].split(", ")
            shared = {name: point.params[name] for name in taken if name not in left}
            if point_key(plan.space, point.params) not in own:
                yield f"{trial}: {params_text(shared)}"
            elif point.origin == best:
                yield f"{study.name}'s best is the file's own values: {params_text(shared)}"
            else:
                yield f"{trial}: the file's own values"


def _notices(study: EarlierStudy, plan: StudyPlan, tuned: Sequence[str]) -> Iterator[str]:
    """What was not taken of a study and why, and the settings that are otherwise."""
    there, shared = study.params_of(study.trials[0]), _taken_parameters(study, plan, tuned)
    other = {name: text for name, text in other_defocus(plan, study).items() if name in tuned and name in there}
    if other:
        yield f"{study.name}: another defocus, {'; '.join(other.values())}: this file's own is tried with the rest"
    if not shared:
        yield f"{study.name}: nothing is taken from it: it tuned {', '.join(there) or 'nothing'}"
    else:
        if specimen := _of_specimen(shared, plan):
            yield f"{study.name}: its {', '.join(specimen)} may be of its specimen alone: another one has others"
        missing = [name for name in tuned if name not in there]
        if missing:
            yield f"{study.name}: has no {', '.join(missing)}: the file's own, or the sampler's, are tried with it"
        best = {name: there[name] for name in shared if not ranges.spans(plan.space[name], there[name])}
        if best:
            allowed = "; ".join(f"{name} {ranges.describe(plan.space[name])}" for name in best)
            yield f"{study.name}: its best, {params_text(best)}, is outside of {allowed}, and is not tried"
    if (study.meta.metric, study.meta.direction) != (plan.metric, plan.direction):
        yield f"{study.name}: its best is that by {study.meta.metric}, {study.meta.direction}d"
    differing = list(_differing_settings(study.meta_for(plan), plan, there))
    if differing:
        more = len(differing) - _MOST_NAMED
        named = "; ".join(differing[:_MOST_NAMED]) + (f"; and {counted(more, 'setting')} more" if more > 0 else "")
        yield f"{study.name} was run with other settings: {named}"


def _contradictions(study: EarlierStudy, plan: StudyPlan, tuned: Iterable[str]) -> Iterator[str]:
    """Where the patterns tell a parameter well, and otherwise than the study's best trial has it."""
    there = study.params_of(study.trials[0])
    for name in _taken_parameters(study, plan, tuned):
        value, deviation = plan.guessed.get(name, (0.0, 0.0))
        best = there[name]
        apart = abs(tunables.difference(name, value, best)) if ranges.is_number(best) else 0.0
        if deviation and apart > _APART * deviation:
            yield f"the patterns say {name} {uncertain_text(value, deviation)}, {study.name} found {best:g}"


def _differing_settings(meta: StudyMeta, plan: StudyPlan, best: Mapping[str, Scalar]) -> Iterator[str]:
    """``init_params.probe_kv 80 (here 300)``; which data they are, and what is tuned, is expected to differ."""
    if meta.engine != plan.engine:
        yield f"engine {meta.engine} (here {plan.engine})"
        return
    engine = engines.get(plan.engine)
    try:
        old_config, new_config = _comparable_configs(provenance.config_of(meta), plan, best)
        before, now = engine.essential(old_config), engine.essential(new_config)
    except (ValueError, KeyError, TypeError, AttributeError):  # of a study that was imported or rebuilt
        return
    for key, old, new in comparability.changed_settings(before, now):
        if key != provenance.DATA_PATH:
            yield f"{key} {comparability.brief_text(old)} (here {comparability.brief_text(new)})"


def _comparable_configs(
    old: dict[str, Any], plan: StudyPlan, best: Mapping[str, Scalar]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The earlier configuration and the plan's, of PtyRAD with the values of the ``best`` trial in the former.

    What the plan tunes is the same in both.
    """
    new = provenance.config_of(provenance.study_meta(plan))
    if plan.engine != "ptyrad":
        return old, new
    known = {name: value for name, value in best.items() if name in tunables.PARAMETERS}
    here = _own_values(new, (name for name in plan.space if name in tunables.PARAMETERS))
    kept = {name: value for name, value in known.items() if name not in plan.space}
    return tunables.apply(old, {**known, **here}), tunables.apply(new, {**_own_values(new, kept), **here})


def _own_values(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scalar]:
    """What a params file has for these parameters, written as :func:`tunables.apply` writes a trial's values."""
    values = {name: tunables.current_value(config, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
