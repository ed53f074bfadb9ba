"""A study in stages: each prepared as a run of its own, one after the other on the same workers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask import config
from ptydask.clusters import Cluster, ClusterRequest, Place
from ptydask.config import Overrides, StudyFile
from ptydask.config.stages import Stage, StageInput, latest_ranges
from ptydask.distributions import Distribution
from ptydask.driver import provenance, stage_order
from ptydask.driver.contract import GOES_ON, RunOutcome, View
from ptydask.driver.cost import StageCost, estimate_stages
from ptydask.driver.earlier import EarlierStudy
from ptydask.driver.earlier_points import start_from
from ptydask.driver.execute import Watcher, run_and_pack
from ptydask.driver.prepare import (
    ChosenSite,
    Experience,
    PreparedRun,
    RunRequest,
    check_room,
    choose_site,
    complete_plan,
    count_trials,
    opened_results,
    prepare_plan,
    stored_bytes,
    with_shared_budget,
)
from ptydask.driver.settlement import find_early_end
from ptydask.driver.stage_order import BegunStage
from ptydask.driver.trial_start import read_stage_start
from ptydask.errors import StoppedEarly, StoreError
from ptydask.lineage import StageLineage, TrialStart
from ptydask.model import StudyPlan, path_beside
from ptydask.space import tunables
from ptydask.stop_signals import StopSignals
from ptydask.store import contents, names, reader
from ptydask.store.upkeep import staging


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage and its plan."""

    stage: Stage
    plan: StudyPlan
    """Of a stage to come as far as it is known: with the file's own values for what earlier stages have yet to find."""
    trials: int
    """How many it is to have."""
    recorded: int = 0


@dataclass(frozen=True, slots=True)
class PreparedStages:
    """A study in stages that can start, or go on: nothing is begun."""

    request: RunRequest
    file: StudyFile
    """As it was read at first: what becomes of it while a stage runs does not matter to the next."""
    stages: tuple[PlannedStage, ...]
    run: PreparedRun
    """The stage that is to be run next."""
    begins: bool
    """Whether the results file is still that of the stage before it."""
    begun: tuple[BegunStage, ...] = ()
    """What the results file has, in order."""

    @property
    def plan(self) -> StudyPlan:
        """The plan of the stage that is to be run next."""
        return self.run.plan

    @property
    def lineage(self) -> StageLineage:
        """The place among the stages of the one that is to be run next."""
        assert self.plan.lineage is not None
        return self.plan.lineage

    @property
    def index(self) -> int:
        """The same, counted from 0."""
        return self.lineage.number - 1

    @property
    def last(self) -> bool:
        """Whether no stage comes after the one that is to be run next."""
        return self.index == len(self.stages) - 1

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do in any stage."""
        return self.last and self.run.finished

    @property
    def costs(self) -> tuple[StageCost, ...]:
        """What each stage takes."""
        plans, totals = [stage.plan for stage in self.stages], [stage.trials for stage in self.stages]
        records = [stage.records for stage in self.begun]
        each_gpu = self.request.workers_per_gpu
        return estimate_stages(plans, totals, records, current=self.index, workers_per_gpu=each_gpu)

    def job_script(self) -> str:
        """See :meth:`PreparedRun.job_script`."""
        return self.run.place.script(_shared_request(self.run))

    def try_job(self) -> str:
        """See :meth:`PreparedRun.try_job`."""
        return self.run.place.try_job(_shared_request(self.run))


# --- prepared ----------------------------------------------------------------------------------------


def plan_stages(path: Path, overrides: Overrides, earlier: tuple[EarlierStudy, ...] = ()) -> tuple[PlannedStage, ...]:
    """Every stage that a file asks for, with the file's own values; none where it asks for no stages.

    The best points of ``earlier`` studies are tried first.

    All are checked by format and engine. Raises what :func:`ptydask.driver.prepare.complete_plan` raises.
    """
    file = config.read(path)
    stages = config.load_stages(path, overrides, file)
    plans = _plan_each(
        _Asked(RunRequest(path, overrides, earlier=earlier), file, stages), stage_order.trace_all(stages, (), ())
    )
    return tuple(PlannedStage(stage, plan, count_trials(plan, 1)) for stage, plan in zip(stages, plans, strict=True))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked for."""

    request: RunRequest
    file: StudyFile
    stages: tuple[Stage, ...]

    def naming(self, place: int) -> AbstractContextManager[None]:
        """Whatever is refused within names the stage at ``place``."""
        return config.naming_stage(self.stages[place], place, self.file, self.request.overrides)


def prepare_stages(
    request: RunRequest, file: StudyFile, stages: tuple[Stage, ...], site: ChosenSite | None = None
) -> PreparedStages:
    """Complete the plans of all stages, and prepare the one that is to be run next; starts and writes nothing.

    ``site`` is where the stages before it ran, if any did.

    Raises what :func:`ptydask.driver.prepare.prepare_run` raises, ConfigError also for a results file with other
    stages, PtydaskError where a stage is over and no trial of it has completed.
    """
    asked = _Asked(request, file, stages)
    lineages = stage_order.trace_all(stages, (), ())
    results = config.load(request.config, request.overrides, StageInput(stages[0], lineages[0]), file).results
    if not results.exists():
        plans = _plan_each(asked, lineages)
        site = site or choose_site(request, plans)
        with asked.naming(0):
            run = prepare_plan(plans[0], request, site=site)
        return _complete(asked, plans, (), run, begins=False)
    with opened_results(results) as found:
        stage_order.check_stages([stage.name for stage in stages], found.stage_names(), file=results)
        begun = _read_begun(found)
        current = len(begun) - 1
        lineages = stage_order.trace_all(stages, begun, begun[:-1])
        start, missing = None, None
        try:
            start = read_stage_start(found, lineages[current])
        except StoreError as error:  # as where arrays were dropped: a stage whose trials are all there needs none
            missing = error
        plans = _plan_each(asked, lineages, current, start)
        site = site or choose_site(request, plans)
        with asked.naming(current):
            run = prepare_plan(plans[current], request, found, site=site)
        if missing is not None and run.trials_left:
            raise missing
        begins = not (run.trials_left or run.mirror_behind) and _is_whole(found) and len(begun) < len(stages)
        if begins:
            current += 1
            stage_order.require_best(begun[-1], stages[current].name, file=results)
            lineages = stage_order.trace_all(stages, begun, begun)
            plans = _plan_each(asked, lineages, current, read_stage_start(found, lineages[current]))
            experience = Experience(begun[-1].records, stored_bytes(results))
            run = prepare_plan(plans[current], request, experience=experience, site=site)
            # What the workers said of the data holds for all stages, and is compared with what they say next.
            facts = {**begun[-1].meta.provenance, **run.meta.provenance}
            run = replace(run, meta=replace(run.meta, provenance=facts))
    return _complete(asked, plans, begun, run, begins=begins)


def _plan_each(
    asked: _Asked, lineages: Sequence[StageLineage], current: int = 0, start: TrialStart | None = None
) -> list[StudyPlan]:
    """The plan of each stage, complete. ``start`` is what the trials of the ``current`` one start from, if known."""
    plans: list[StudyPlan] = []
    ranges: dict[str, Distribution] = {}
    for place, (stage, lineage) in enumerate(zip(asked.stages, lineages, strict=True)):
        given = StageInput(stage, lineage, dict(ranges))
        own_start = start if place == current else None
        with asked.naming(place):
            plan = complete_plan(asked.request.config, asked.request.overrides, given, own_start, asked.file)
            plan = start_from(plan, asked.request.earlier, found=ranges)
        unknown = tuple(tunables.START_NOTICE.format(name) for name in ranges if name not in lineage.values)
        plans.append(replace(plan, notices=tuple(text for text in plan.notices if not text.startswith(unknown))))
        ranges |= latest_ranges(stage, plan.space)
    texts = stage_order.name_stages([stage.name for stage in asked.stages], [plan.notices for plan in plans])
    return [replace(plan, notices=notices) for plan, notices in zip(plans, texts, strict=True)]


def _is_whole(found: reader.Results) -> bool:
    """Whether all trials are in the one file. What is left of damaged ones, in the folder beside it, does not count."""
    folder = names.folder_of(found.path)
    return found.packed and not contents.shard_files(folder) and not contents.pack_files(folder)


def _read_begun(found: reader.Results) -> tuple[BegunStage, ...]:
    """The stages that a results file has, in their order; the last one is that of the file."""
    begun = []
    for name in found.stage_names()[:-1]:
        with found.stage(name) as earlier:
            begun.append(BegunStage(name, earlier.meta, earlier.records()))
    return (*begun, BegunStage(found.stage_names()[-1], found.meta, found.records()))


def _complete(
    asked: _Asked,
    plans: Sequence[StudyPlan],
    begun: tuple[BegunStage, ...],
    run: PreparedRun,
    *,
    begins: bool,
) -> PreparedStages:
    """All of it together, with what is said of stages that are over and of those to come."""
    assert run.plan.lineage is not None
    current = run.plan.lineage.number - 1
    workers = run.cluster_request.workers
    planned, compared = [], []
    for place, (stage, plan) in enumerate(zip(asked.stages, plans, strict=True)):
        records = begun[place].records if place < len(begun) else ()
        if place > current:
            with asked.naming(place):
                check_room(plan, run.place)
        shared = with_shared_budget(plan, run.cluster_request)
        total = run.options.total if place == current else count_trials(shared, workers, records)
        over = place < current
        planned.append(PlannedStage(stage, plan, len(records) if over else total, len(records)))
        texts: list[str] = []
        if place < len(begun):
            with asked.naming(place):
                texts = provenance.compare(begun[place].meta, provenance.study_meta(plan), file=run.plan.results)
        if over and total > len(records) and not find_early_end(records, plan):
            texts.append(stage_order.more_asked_text(stage.name, len(records), total))
        compared.append(texts)
    named = stage_order.name_stages([stage.stage.name for stage in planned], compared)
    notices = [text for text in run.notices if text not in compared[current]]
    for place, plan in enumerate(plans):
        notices += [*named[place], *(plan.notices if place > current else ())]
    upcoming = sum(stage.trials for stage in planned[current + 1 :])
    run = replace(
        run,
        options=replace(run.options, upcoming=upcoming),
        notices=tuple(dict.fromkeys(notices)),
    )
    return PreparedStages(asked.request, asked.file, tuple(planned), run, begins, begun)


# --- carried out -------------------------------------------------------------------------------------


def execute_stages(prepared: PreparedStages, view: View, stop: StopSignals) -> RunOutcome:
    """Run what is missing, stage by stage, on the same workers; the view is closed at the end.

    Returns how the last stage that was run ended. Raises what :func:`ptydask.driver.execute.execute_run` raises, after
    the same has been done, and PtydaskError where a stage is over and no trial of it has completed.
    """
    watcher = Watcher(prepared.run, view, stop)
    with (
        watcher.telling_the_end(),
        stop.deferred(),
        SharedCluster(prepared.run.place, _shared_request(prepared.run)) as cluster,
    ):
        failed, told = 0, set(prepared.run.notices)
        while True:
            outcome = replace(
                _run_stage(prepared, watcher, cluster), failed_before=failed, values=prepared.lineage.values
            )
            failed = outcome.failed
            if _ends_here(prepared, outcome):
                break
            with stop.at_once():
                stages = tuple(planned.stage for planned in prepared.stages)
                run = prepared.run
                site = ChosenSite(run.place, run.cluster_request, run.why_there)
                following = prepare_stages(prepared.request, prepared.file, stages, site)
            if not following.begins:  # as where somebody else writes the file
                raise StoppedEarly(f"stage {following.lineage.place} is not in one file; {GOES_ON}")
            view.notice(stage_order.ended_text(following.begun[-1]))
            if watcher.time_left(prepared.plan) == 0.0:
                outcome = replace(outcome, complete=False)
                break
            prepared = following
            watcher.go_on_with(prepared.run)
            view.plan([stage_order.begins_text(prepared.plan, prepared.run.options.total)])
            for notice in prepared.run.notices:
                if notice not in told:
                    view.notice(notice)
            told.update(prepared.run.notices)
        view.close(watcher.snapshot)
        watcher.notify_end(outcome)
        return outcome


def _ends_here(prepared: PreparedStages, outcome: RunOutcome) -> bool:
    """Whether no stage is run after the one that ended so."""
    return prepared.last or not outcome.complete or bool(outcome.behind)


def _run_stage(prepared: PreparedStages, watcher: Watcher, cluster: SharedCluster) -> RunOutcome:
    """One stage from its beginning in the results file to its end there."""
    run = prepared.run
    if prepared.begins:
        with watcher.stop.at_once():
            staging.begin_stage(run.plan.results.absolute(), run.meta)
    left = watcher.time_left(run.plan)
    if left is not None:
        run = replace(run, plan=replace(run.plan, budget=replace(run.plan.budget, timeout=left)))

    def let_go(outcome: RunOutcome) -> None:
        if _ends_here(prepared, outcome):
            cluster.close()

    return run_and_pack(run, watcher, cluster.opened, ended=let_go)


def _shared_request(run: PreparedRun) -> ClusterRequest:
    """What is asked of the cluster of all stages.

    Its folder is not that of the trials, which goes when a stage is packed, nor is a stage's id in its label:
    workers outlive both, and a driver that was killed may have left jobs of any stage.
    """
    results = run.plan.results.absolute()
    return replace(run.cluster_request, folder=path_beside(results, ".jobs"), label=label_of([results]))


def label_of(results: Sequence[Path]) -> str:
    """What tells the workers that these results files share from those of others: ``gold-1f0c9a3b``."""
    digest = hashlib.sha256("\n".join(map(str, results)).encode()).hexdigest()
    return f"{results[0].stem}-{digest[:8]}"


class SharedCluster:
    """The workers of all stages: there from the first one that needs them until the end."""

    def __init__(self, place: Place, request: ClusterRequest) -> None:
        self._place, self._request = place, request
        self._stack = ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> SharedCluster:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()
        with suppress(OSError):
            self._request.folder.rmdir()

    @contextmanager
    def opened(self, _request: ClusterRequest) -> Iterator[Cluster]:
        """The cluster, asked for at the first call; it stays."""
        if self._cluster is None:
            self._cluster = self._stack.enter_context(self._place.open(self._request))
        yield self._cluster

    def close(self) -> None:
        """Let the workers go: all is done."""
        if self._cluster is not None:
            self._cluster.stop_workers()
            self._cluster = None
        self._stack.close()
        shutil.rmtree(self._request.folder, ignore_errors=True)
