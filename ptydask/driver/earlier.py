"""Earlier studies that a later one starts from: read from their files, and chosen by the microscope's settings.

What is taken of them is in :mod:`ptydask.driver.earlier_points`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ptydask.driver import microscope, provenance
from ptydask.errors import StoreError, UnusableResults
from ptydask.lineage import FINAL
from ptydask.model import (
    Direction,
    Scalar,
    StudyMeta,
    StudyPlan,
    TrialRecord,
    TrialState,
)
from ptydask.ranking import ranked, why_none_is_best
from ptydask.store import reader


@dataclass(frozen=True, slots=True)
class EarlierStudy:
    """What a later study takes from one: its completed trials, or those of the last of its stages that has some."""

    path: Path
    name: str
    """As origins and messages have it: the file's name, with as many folders as tell it from others, and its stage."""
    meta: StudyMeta
    trials: tuple[TrialRecord, ...]
    """The completed ones that have an error, best first: those that were confirmed by their means before the others."""
    values: Mapping[str, Scalar]
    """What the stages before it found: all of its trials have these."""
    stages: Mapping[str, StudyMeta] = field(default_factory=dict)
    """What each stage of the file says of itself."""
    stage: str = ""
    """The one that the trials are of, where there are several."""
    problem: str = ""
    """Why nothing could be read of it, in one line: then all but its path and name is empty."""

    def params_of(self, record: TrialRecord) -> dict[str, Scalar]:
        """Everything that was tuned so far, as the trial had it."""
        return {**self.values, **record.params}

    def meta_for(self, plan: StudyPlan) -> StudyMeta:
        """That of the stage which is called as the plan's, where there is one, for comparing settings."""
        return self.meta if plan.lineage is None else self.stages.get(plan.lineage.name, self.meta)

    @property
    def begun_with(self) -> StudyMeta:
        """That of its first stage, whose settings are those of its file: no stage has found anything yet."""
        return next(iter(self.stages.values()), self.meta)


# --- read --------------------------------------------------------------------------------------------


def read_studies(paths: Iterable[Path]) -> tuple[EarlierStudy, ...]:
    """The studies in these results files, each once; finished or still running.

    One that cannot be read, or has no trial that is the best, has a ``problem``: whether that matters is for the study
    to say that starts from it.
    """
    unique = {path.expanduser().resolve(): path.expanduser() for path in paths}.values()
    return name_apart(map(_try_study, unique), ())


def name_apart(studies: Iterable[EarlierStudy], others: Iterable[Path]) -> tuple[EarlierStudy, ...]:
    """The studies, each called by as much of its path as tells it from the files of the rest and from ``others``."""
    studies = tuple(studies)
    files = {path.absolute() for path in (*others, *(study.path for study in studies))}
    endings = Counter(ending for path in files for ending in _endings(path))
    return tuple(replace(study, name=_name_in(study, endings)) for study in studies)


def _name_in(study: EarlierStudy, endings: Mapping[str, int]) -> str:
    """No shorter than it is already: then others that do not count here would have had the same name."""
    stage = f" ({study.stage})" if study.stage else ""
    known = len(Path(study.name.removesuffix(stage)).parts)
    longer = _endings(study.path)[known - 1 :]
    return next((ending for ending in longer if endings[ending] == 1), str(study.path)) + stage


def _endings(path: Path) -> list[str]:
    """``demo.h5``, ``gold/demo.h5``, ``monday/gold/demo.h5`` ..."""
    parts = path.absolute().parts
    return ["/".join(parts[-count:]) for count in range(1, len(parts))]


def _try_study(path: Path) -> EarlierStudy:
    try:
        return read_study(path)
    except UnusableResults as error:
        meta = StudyMeta("", "minimize", "", "", "", "", "", "")
        return EarlierStudy(path, path.name, meta, (), {}, problem=str(error))


def read_study(path: Path) -> EarlierStudy:
    """The study in ``path``, called as the file is.

    Raises UnusableResults, in one line, where it cannot be read or has no trial that is the best.
    """
    if path.is_dir():
        raise UnusableResults(f"--from: {path}: is a folder, not a results file")
    recorded, metric = 0, ""
    try:
        with reader.open(path) as results:
            tuned = [stage for stage in results.stage_names() if stage != FINAL]
            stages = {stage: _read_meta(results, stage) for stage in tuned}
            for stage in reversed(tuned or [""]):
                with results.stage(stage) if stage else reader.open(path) as study:
                    records = study.records()
                    recorded, metric = recorded + len(records), study.meta.metric
                    trials = _rank(records, _confirmed_means(study), study.meta.direction) if metric else []
                    if trials:
                        values = {} if study.lineage is None else dict(study.lineage.values)
                        of_stage = stage if len(tuned) > 1 else ""
                        name = f"{path.name} ({stage})" if of_stage else path.name
                        return EarlierStudy(path, name, study.meta, tuple(trials), values, stages, of_stage)
    except StoreError as error:
        raise UnusableResults(f"--from: {error}") from None
    raise UnusableResults(f"--from: {path}: {why_none_is_best(metric, recorded)}")


def _read_meta(results: reader.Results, stage: str) -> StudyMeta:
    with results.stage(stage) as study:
        return study.meta


def _confirmed_means(study: reader.Results) -> dict[int, float]:
    """Trial -> mean error of its repeats with other seeds; of those repeated at least twice, as one says no more."""
    confirmation = study.confirmation()
    if confirmation is None:
        return {}
    errors = defaultdict[int, list[float]](list)
    with confirmation:
        for record in confirmation.records():
            whole = not record.params.get("half") and record.state is TrialState.COMPLETE
            if whole and record.error is not None and math.isfinite(record.error):
                errors[int(record.params.get("trial") or 0)].append(record.error)
    return {trial: fmean(values) for trial, values in errors.items() if len(values) > 1}


def _rank(records: Iterable[TrialRecord], means: Mapping[int, float], direction: Direction) -> list[TrialRecord]:
    """Best first. A confirmed trial's error is its mean, and it comes before those whose luck nobody knows."""
    done = ranked(records, direction)
    confirmed = [replace(record, error=means[record.number]) for record in done if record.number in means]
    return [*ranked(confirmed, direction), *(record for record in done if record.number not in means)]


# --- chosen ------------------------------------------------------------------------------------------


def select_same_microscope(plan: StudyPlan, studies: Iterable[EarlierStudy]) -> tuple[EarlierStudy, ...]:
    """Those of ``studies`` that were run with the plan's microscope settings; of sweeps, with its program and metric.

    What counts as these settings is in :mod:`ptydask.driver.microscope`. A study of another defocus is among them:
    :func:`ptydask.driver.earlier_points.start_from` leaves its defocus out.
    """
    return tuple(study for study in studies if not other_setting(plan, study))


def explain_others(plan: StudyPlan, studies: Iterable[EarlierStudy]) -> tuple[str, ...]:
    """One line for each of ``studies`` that is not selected: the first setting that differs."""
    others = ((study.name, other_setting(plan, study)) for study in studies)
    return tuple(f"nothing is taken from {name}: {setting}" for name, setting in others if setting)


def other_setting(plan: StudyPlan, study: EarlierStudy) -> str:
    """The first setting in which the study differs from the plan; "" where it is of the same microscope settings."""
    if study.problem:
        return study.problem.removeprefix("--from: ")
    if study.meta.engine != plan.engine:
        return f"engine {study.meta.engine} (here {plan.engine})"
    of_a_sweep = "init_params" not in plan.config
    if of_a_sweep and (study.meta.metric, study.meta.direction) != (plan.metric, plan.direction):
        return f"metric {study.meta.metric}, {study.meta.direction}d (here {plan.metric}, {plan.direction}d)"
    try:
        return microscope.first_difference(*_microscope_configs(plan, study))
    except (ValueError, KeyError, TypeError, AttributeError):  # of a study that was imported or rebuilt
        return "what it was run with is not known"


def _microscope_configs(
    plan: StudyPlan, study: EarlierStudy
) -> tuple[dict[str, Any], Mapping[str, Any], Mapping[str, Scalar], Collection[str]]:
    """What :mod:`ptydask.driver.microscope` compares. Raises ValueError where the study's is not JSON."""
    found = plan.lineage.values if plan.lineage else ()
    best = study.params_of(study.trials[0]) if study.trials else {}
    return provenance.config_of(study.begun_with), plan.config, best, found


def other_defocus(plan: StudyPlan, study: EarlierStudy) -> dict[str, str]:
    """The parameters of the defocus that the study's file begins with at other values than the plan's, in words."""
    if study.meta.engine != plan.engine:
        return {}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return microscope.differing_defocus(*_microscope_configs(plan, study))
    return {}
