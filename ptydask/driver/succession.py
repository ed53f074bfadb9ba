"""What a later study of a queue takes from those before it: it is prepared again, as if ``--from`` named them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.config import StudyFile
from ptydask.driver.conduct import Prepared, prepare, run_of
from ptydask.driver.contract import View
from ptydask.driver.earlier import (
    EarlierStudy,
    explain_others,
    name_apart,
    other_setting,
    read_study,
    select_same_microscope,
)
from ptydask.driver.prepare import ChosenSite, RunRequest
from ptydask.driver.stages import PreparedStages
from ptydask.errors import UnusablePatterns, UnusableResults

MOST = 3
"""So many of those before it a study starts from, the latest: they found much the same, and each costs a trial."""


@dataclass(frozen=True, slots=True)
class QueuedStudy:
    """A study of a queue before it is opened."""

    request: RunRequest
    file: StudyFile
    """As it was read at first: what becomes of it until the study is opened does not matter."""
    prepared: Prepared


def read_usable(paths: Iterable[Path], others: Iterable[Path] = ()) -> tuple[EarlierStudy, ...]:
    """The studies in those of these results files that have a completed trial by now.

    Each is called as its file is, with as many folders as tell it from the other ``paths`` and from ``others``.
    """
    paths, studies = list(paths), []
    for path in paths:
        with suppress(UnusableResults):
            studies.append(read_study(path))
    return name_apart(studies, [*paths, *others])


def prepare_queued(request: RunRequest, file: StudyFile) -> tuple[QueuedStudy, str]:
    """The study as one of a queue, and what is to be said of it.

    Where ``--guess`` finds that its patterns cannot be used, it goes on without, and ends by itself where a
    reconstruction cannot use them either. Raises what :func:`ptydask.driver.conduct.prepare` raises otherwise.
    """
    try:
        return QueuedStudy(request, file, prepare(request, file)), ""
    except UnusablePatterns as error:
        without = replace(request, overrides=replace(request.overrides, guess=None))
        return QueuedStudy(without, file, prepare(without, file)), f"{error}; this study goes on without a guess"


def foresee_sources(studies: Sequence[Prepared]) -> list[list[tuple[str, str]]]:
    """For each study of a queue those before it of its engine, by their names in origins, and the first setting of the
    microscope that differs, "" where none does: as far as their files, and what is recorded already, tell."""
    results = [study.plan.results for study in studies]
    recorded = {study.path: study for study in read_usable(path for path in results if path.exists())}
    known = [
        recorded.get(path) or EarlierStudy(path, path.name, run_of(study).meta, (), {})
        for path, study in zip(results, studies, strict=True)
    ]
    known = list(name_apart(known, ()))
    return [
        [(one.name, other_setting(study.plan, one)) for one in known[:place] if one.meta.engine == study.plan.engine]
        for place, study in enumerate(studies)
    ]


def prepare_after(study: QueuedStudy, before: Sequence[Path], view: View) -> Prepared:
    """The study prepared again, to start from those in the results files ``before`` it, as far as these are by now.

    Only those of the same microscope settings count. One that has trials keeps the points that it began with; its later
    stages start from them. What was taken is told ``view``. Raises what :func:`ptydask.driver.conduct.prepare` raises.
    """
    prepared, run = study.prepared, run_of(study.prepared)
    others = [prepared.plan.results, *(one.path for one in study.request.earlier)]
    earlier = read_usable(before, others)
    chosen = select_same_microscope(prepared.plan, earlier)[-MOST:]
    alike = [one for one in earlier if one.meta.engine == prepared.plan.engine]  # of others nobody expects anything
    for line in explain_others(prepared.plan, alike[-MOST:]):
        view.notice(line)
    if not chosen:
        return prepared
    request = replace(study.request, earlier=(*study.request.earlier, *reversed(chosen)))
    if run.recorded:
        return replace(prepared, request=request) if isinstance(prepared, PreparedStages) else prepared
    again = prepare(request, study.file, ChosenSite(run.place, run.cluster_request, run.why_there))
    known = {text for _, text in prepared.plan.details}
    taken = [text for _, text in again.plan.details if text not in known]
    view.plan([f"from {text}" if ", trial " in text.partition(":")[0] else text for text in taken])
    for notice in run_of(again).notices:
        if notice not in run.notices:
            view.notice(notice)
    return again
