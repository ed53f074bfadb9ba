"""What a later study of a queue takes from those before it: it is prepared again, as if ``--from`` named them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.config import StudyFile
from ptydask.driver.conduct import Prepared, prepare, run_of
from ptydask.driver.contract import View
from ptydask.driver.earlier import EarlierStudy, explain_others, name_apart, read_study, select_same_microscope
from ptydask.driver.prepare import ChosenSite, RunRequest
from ptydask.driver.stages import PreparedStages
from ptydask.errors import UnusableResults

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
    view.plan([f"from {text}" if ", trial " in text else text for text in taken])
    for notice in run_of(again).notices:
        if notice not in run.notices:
            view.notice(notice)
    return again
