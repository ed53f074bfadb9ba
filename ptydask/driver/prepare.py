"""From a file and what is said beside it to a run that can start: plan complete, place chosen, nothing begun."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask import clusters, config, engines, sampling
from ptydask.clusters import ClusterRequest, Place, StudyDemand
from ptydask.config import Overrides, StudyFile
from ptydask.config.stages import StageInput
from ptydask.driver import provenance, stage_order
from ptydask.driver.contract import RunOptions
from ptydask.driver.cost import RunCost, estimate_cost, find_shortage
from ptydask.driver.earlier import EarlierStudy
from ptydask.driver.earlier_points import start_from
from ptydask.driver.guesses import describe_guess, with_guesses
from ptydask.driver.settlement import EarlyEnd, find_early_end
from ptydask.errors import ConfigError, DataError, StoreError, UnusableResults, require
from ptydask.formatting import size_text
from ptydask.lineage import TrialStart
from ptydask.model import StudyMeta, StudyPlan, TrialRecord, WorkerMemory, path_beside
from ptydask.storage import urls
from ptydask.store import reader
from ptydask.store.upkeep import sizes
from ptydask.trial.search_choice import parameters_with_slopes


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is asked of a run: a params or sweep file, and what is said beside it."""

    config: Path
    overrides: Overrides
    cluster: str = "auto"
    """See :func:`ptydask.clusters.choose`."""
    workers: int | None = None
    """None: one per GPU, else what is best for the study, on this machine; what the profile says on a batch system."""
    adapt: tuple[int, int] | None = None
    """The fewest and the most workers, as many as there are trials left; takes the place of ``workers``."""
    workers_per_gpu: int = 1
    retries: int = 3
    checkpoint_every: float = 120.0
    """Seconds."""
    notify: str | None = None
    """A shell command that is told when the run ends or is stuck; None for what the profile says, empty for none."""
    earlier: tuple[EarlierStudy, ...] = ()
    """Studies whose best points are tried first; see :func:`ptydask.driver.earlier.read_studies`."""
    command: str = ""
    """How the run was asked for, in words, for the results file; empty for this process's command line."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A complete plan, where it is to run, and what is on disk for it already."""

    plan: StudyPlan
    meta: StudyMeta
    """What the results file will say of the study; what workers say of themselves and of the data comes later."""
    place: Place
    cluster_request: ClusterRequest
    why_there: str
    """Why this place, and so many workers, in a few words; empty where somebody said it."""
    options: RunOptions
    asked: int
    """Trials that were asked for; ``options.total`` is less where there are no more points to try."""
    points: int | None
    """How many points there are to try; None where there is no end of them."""
    recorded: int
    """Trials that the results file holds."""
    packed: bool
    """Whether all that is recorded is in one file."""
    early_end: EarlyEnd
    """What ends the study by the trials recorded so far."""
    mirror_behind: bool
    """Whether an SQLite study that the plan names has not all of the recorded trials."""
    notify: str
    """A shell command that is told when the run ends or is stuck; empty for none."""
    cost: RunCost
    """What the trials that are left will take."""
    notices: tuple[str, ...]
    origin: StudyMeta | None = None
    """Another study, whose data the trials must be of, too."""

    @property
    def trials_left(self) -> int:
        """Trials that are still to run; 0 where all are recorded, or what is recorded ends the study."""
        return 0 if self.early_end else max(0, self.options.total - self.recorded)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: neither a trial, nor packing, nor an SQLite study to be completed."""
        return self.packed and not self.trials_left and not self.mirror_behind

    def job_script(self) -> str:
        """The job script as it would be submitted; empty where there are no jobs."""
        return self.place.script(self._job_request)

    def try_job(self) -> str:
        """What the batch system says of such a job, in one line; empty where there is none to be asked.

        Raises ClusterError where it would refuse the job.
        """
        return self.place.try_job(self._job_request)

    @property
    def _job_request(self) -> ClusterRequest:
        folder = path_beside(self.plan.results.absolute(), ".trials")
        return replace(self.cluster_request, folder=folder, label=self.plan.name)


def complete_plan(
    path: Path,
    overrides: Overrides,
    stage: StageInput | None = None,
    start: TrialStart | None = None,
    file: StudyFile | None = None,
) -> StudyPlan:
    """The plan of the study in a file, or of one ``stage`` of it: checked by its format and its engine, a grid's
    points listed. ``start`` is the reconstruction that its trials start from, where that is known, and ``file`` what
    was read of the file earlier.

    No worker, device or batch system is needed, and of the measurements only headers are read. Raises ConfigError,
    DataError or MissingDependency.
    """
    plan = engines.validate(replace(config.load(path, overrides, stage, file), start=start))
    if overrides.guess is not None:
        require("scipy", "--guess needs", "guess")
        if "init_params" not in plan.config:
            raise ConfigError("is for PtyRAD's params files", file=plan.source.path, key="--guess")
        # Without what the stage makes of the patterns: these are looked at once for all stages.
        init = (plan if stage is None else config.load(path, overrides, file=file)).config["init_params"]
        known = () if stage is None else stage.ranges
        plan = with_guesses(plan, init, known, narrow=overrides.guess == "ranges")
    if plan.until_settled and not parameters_with_slopes(plan) and (plan.space or plan.lineage is None):
        metric = plan.metric or "no metric"
        notice = f"{metric} has no slopes in any tuned parameter, so nothing can settle: all trials are run"
        plan = replace(plan, notices=(*plan.notices, notice))
    if plan.no_gain is not None and not plan.metric:
        notice = "there is no metric, so no trial can bring a gain, or lack one: all trials are run"
        plan = replace(plan, notices=(*plan.notices, notice))
    points = sampling.grid_points(plan)
    return describe_guess(plan if points is None else replace(plan, points=points, exhaustive=True), plan.points)


def prepare_run(request: RunRequest, file: StudyFile | None = None, site: ChosenSite | None = None) -> PreparedRun:
    """Complete the plan, choose the place and look at what is recorded; starts and writes nothing.

    ``file`` is what was read of it earlier, ``site`` where the run is to be, if these are known.

    Raises what :func:`complete_plan` raises, UsageError for a cluster that there is not, UnusableResults for a results
    file that cannot be gone on with, ConfigError where its trials would not be comparable, and DataError where the run
    is to be on this machine, which has no room for the data.
    """
    plan = start_from(complete_plan(request.config, request.overrides, file=file), request.earlier)
    if plan.budget.n_trials == 0:
        rule = "nobody has said how many trials to run"
        hint = "add --trials 100 to the command, or run_cap: 100 to the file"
        raise ConfigError(rule, file=plan.source.path, key="run_cap", hint=hint)
    if not plan.results.exists():
        return prepare_plan(plan, request, site=site)
    with opened_results(plan.results) as results:
        stage_order.check_stages((), results.stage_names(), file=plan.results)
        return prepare_plan(plan, request, results, site=site)


@contextmanager
def opened_results(path: Path, stage: str = "") -> Iterator[reader.Results]:
    """The results that a run is to go on with, or a stage of them. Raises UnusableResults where they cannot be read."""
    try:
        with reader.open(path, stage) as results:
            yield results
    except StoreError as error:
        raise UnusableResults(str(error)) from None


@dataclass(frozen=True, slots=True)
class Experience:
    """Earlier trials by which those to come are said to cost."""

    records: Sequence[TrialRecord]
    stored: int
    """Bytes that they take."""


@dataclass(frozen=True, slots=True)
class ChosenSite:
    """Where a run is to be, and with how many workers."""

    place: Place
    cluster_request: ClusterRequest
    why: str
    """Why there, and why with so many workers, in a few words; empty where somebody said it."""


def choose_site(request: RunRequest, plans: Sequence[StudyPlan]) -> ChosenSite:
    """Where the run that is asked for is to be, with workers for each of its ``plans``.

    Raises what :func:`ptydask.clusters.choose` raises.
    """
    chosen = clusters.choose(request.cluster)
    cluster_request, why_so_many = _cluster_request(request, chosen.place, plans)
    why_there = chosen.why if request.cluster == "auto" else ""
    return ChosenSite(chosen.place, cluster_request, "; ".join(filter(None, (why_there, why_so_many))))


def prepare_plan(
    plan: StudyPlan,
    request: RunRequest,
    earlier: reader.Results | None = None,
    experience: Experience | None = None,
    site: ChosenSite | None = None,
) -> PreparedRun:
    """The same for a plan that is complete. ``earlier`` holds the trials that it goes on from, where there are any.

    ``experience`` says what its trials cost before there are any of its own, ``site`` where it is to be, if that is
    chosen already.
    """
    site = site or choose_site(request, [plan])
    cluster_request = replace(site.cluster_request, imports=plan.imports)
    plan = with_shared_budget(plan, cluster_request)
    meta = provenance.study_meta(plan, command=request.command)
    records: Sequence[TrialRecord] = ()
    packed, behind, notices = False, False, list(plan.notices)
    if earlier is not None:
        records = earlier.records()
        packed = earlier.packed and not path_beside(plan.results, ".trials").exists()
        behind = _mirror_behind(plan, earlier.id, records)
        if earlier.begun:
            notices += provenance.compare(earlier.meta, meta, file=plan.results)
    total = count_trials(plan, cluster_request.workers, records)
    known = experience if experience and not records else Experience(records, stored_bytes(plan.results))
    cost = estimate_cost(
        max(0, total - len(records)),
        known.records,
        iterations=plan.iterations,
        trial_bytes=plan.trial_bytes,
        stored=known.stored,
        workers_per_gpu=request.workers_per_gpu,
    )
    free = _free_bytes(plan.results)
    if (needed := find_shortage(cost, free)) is not None:
        notices.append(
            f"{plan.results.absolute().parent}: {size_text(free)} free, and the results take about {size_text(needed)} "
            "until they are packed; free some, or keep less (collate_results: false, SAVE_ITERS: null)"
        )
    prepared = PreparedRun(
        plan=plan,
        meta=meta,
        place=site.place,
        cluster_request=cluster_request,
        why_there=site.why,
        options=RunOptions(total, request.retries, request.checkpoint_every, request.workers_per_gpu),
        asked=plan.budget.trials(cluster_request.workers),
        points=sampling.count_points(plan),
        recorded=len(records),
        packed=packed,
        early_end=find_early_end(records, plan),
        mirror_behind=behind,
        notify=site.place.notify if request.notify is None else request.notify,
        cost=cost,
        notices=tuple(notices),
    )
    if prepared.trials_left:
        check_room(plan, site.place)
    return prepared


def check_room(plan: StudyPlan, place: Place) -> None:
    """Raises DataError where trials are to run on this machine, which has no room for their data."""
    if place.here:
        engines.check_machine(plan)


def with_machine_notice(plan: StudyPlan) -> StudyPlan:
    """The plan with a notice where a run on this machine would be refused: it may be meant for another."""
    try:
        engines.check_machine(plan)
    except DataError as error:
        return replace(plan, notices=(*plan.notices, f"`run` on this machine would refuse it: {error}"))
    return plan


def _mirror_behind(plan: StudyPlan, store: str, records: Sequence[TrialRecord]) -> bool:
    mirror = urls.parse(plan.storage, plan.results).mirror
    if mirror is None:
        return False
    from ptydask.storage.mirror import mirrored_trials

    mirrored = mirrored_trials(mirror, store)
    return mirrored is not None and not {record.number for record in records} <= mirrored


def stored_bytes(results: Path) -> int:
    """What the results file and the trials beside it take on the disk."""
    return sizes.measure_files([results, *path_beside(results, ".trials").glob("*.h5")])


def _free_bytes(results: Path) -> float:
    """Bytes that are free where the results go; infinity where nobody says."""
    folder = next((folder for folder in results.absolute().parents if folder.exists()), Path("/"))
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return float("inf")


def _cluster_request(request: RunRequest, place: Place, plans: Sequence[StudyPlan]) -> tuple[ClusterRequest, str]:
    default = place.share_out(_demand(plans))  # a scheduler that does not answer is told of here
    if request.adapt is not None:
        least, most = request.adapt
        return ClusterRequest(most, least, request.workers_per_gpu), ""
    if request.workers is not None:
        return ClusterRequest(request.workers, request.workers, request.workers_per_gpu), ""
    workers = default.workers * request.workers_per_gpu
    return ClusterRequest(workers, workers, request.workers_per_gpu, shared_budget=bool(default.why)), default.why


def _demand(plans: Sequence[StudyPlan]) -> StudyDemand:
    """What is enough for each of the studies."""
    memory = [plan.worker_memory for plan in plans]
    known = [needed for needed in memory if needed is not None]
    return StudyDemand(
        trials=max(count_trials(plan, 1) for plan in plans),
        learns=not all(plan.exhaustive for plan in plans),
        memory=WorkerMemory(max(one.own for one in known), max(one.shared for one in known))
        if len(known) == len(memory)
        else None,
    )


def with_shared_budget(plan: StudyPlan, cluster_request: ClusterRequest) -> StudyPlan:
    """The plan for the workers that there are to be: ``n_trials`` are all that they run, if they share them."""
    return replace(plan, budget=replace(plan.budget, total=True)) if cluster_request.shared_budget else plan


def count_trials(plan: StudyPlan, workers: int, records: Iterable[TrialRecord] = ()) -> int:
    """How many trials ``workers`` workers record together; no more than there are points to try.

    ``records`` that are none of these points, as it was another search before, do not take the place of any of a grid.
    """
    asked, records = plan.budget.trials(workers), list(records)
    new = sampling.count_new_points(plan, records)
    if new is None or (plan.exhaustive and asked < len(plan.points)):
        return asked
    return len(records) + new if plan.exhaustive else min(asked, len(records) + new)
