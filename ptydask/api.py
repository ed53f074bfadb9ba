"""``ptydask.run`` and ``ptydask.validate``: a study from Python, as the command line runs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from ptydask.clusters.process_state import SharedState
from ptydask.config import Overrides
from ptydask.driver.contract import GOES_ON, TIME_IS_OVER, View
from ptydask.driver.earlier import read_studies
from ptydask.driver.earlier_points import start_from
from ptydask.driver.prepare import RunRequest, complete_plan, with_machine_notice
from ptydask.errors import ConfigError, PtydaskError, StoppedEarly, StudiesFailed, UsageError
from ptydask.model import Scalar, StudyPlan
from ptydask.python_arguments import (
    FilePath,
    RunArguments,
    check_count,
    check_key,
    check_text,
    make_overrides,
    make_request,
    plain_value,
    read_paths,
)
from ptydask.stop_signals import StopSignals, Terminated

if TYPE_CHECKING:
    from ptydask.analysis.results import StudyResults

_Ended = TypeVar("_Ended")


@overload
def run(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
    config: FilePath, **arguments: Unpack[RunArguments]
) -> StudyResults: ...
@overload
def run(
    config: Sequence[FilePath], *, independent: bool = False, **arguments: Unpack[RunArguments]
) -> list[StudyResults]: ...
def run(
    config: FilePath | Sequence[FilePath],
    *,
    workers: int | None = None,
    cluster: FilePath = "auto",
    trials: int | None = None,
    set: Mapping[str, Any] | None = None,
    tries: Iterable[Mapping[str, Scalar]] = (),
    earlier: FilePath | Iterable[FilePath] = (),
    adapt: tuple[int, int] | None = None,
    timeout: float | None = None,
    results: FilePath | None = None,
    storage: str | None = None,
    engine: str | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    search: Literal["auto", "file"] | None = None,
    until_settled: bool | None = None,
    metric: str | None = None,
    stages: Literal["recommended", "none"] | None = None,
    guess: Literal["point", "ranges"] | None = None,
    independent: bool = False,
    workers_per_gpu: int = 1,
    retries: int = 3,
    checkpoint_every: float = 120.0,
    notify: str | None = None,
    progress: bool = True,
) -> StudyResults | list[StudyResults]:
    """Run the study of a PtyRAD params file or a W&B sweep file, or go on with it; returns its results, opened.

    It does what ``python -m ptydask run`` does, with the same checks, and leaves the same file. Called again with the
    same arguments, it goes on where it stopped; of a finished study it only opens the results. Several files are run on
    the same workers, each a study of its own; their results are returned as a list, in the order of the files.

    >>> study = ptydask.run("params.yaml", workers=8, cluster="slurm", trials=200)  # doctest: +SKIP
    >>> study.best().params  # doctest: +SKIP

    Args:
        config: the params or sweep file, or a file of ptydask's own that names it: YAML, JSON or TOML; or a list.
        workers: how many; None for one per GPU, else per core, on this machine, and what the profile says elsewhere.
        cluster: ``auto`` (SLURM where it answers, else this machine), ``local``, ``slurm`` or another batch system, a
            profile's file, or the ``tcp://`` or ``tls://`` address of a Dask scheduler.
        trials: trials in total, instead of ``n_trials`` per worker or ``run_cap``.
        set: keys of the file to override, dots between levels: ``{"recon_params.NITER": 50}``.
        tries: points to try first, each a mapping of parameter to value: ``[{"scale": 1.02, "rotation": -1.5}]``.
        earlier: results files of studies of the same microscope settings: their best points are tried first.
        adapt: (fewest, most) workers, as many as there are trials left; instead of ``workers``.
        timeout: start no trial after this many seconds.
        results: the results file; None for ``OUTPUT_DIR/STUDY.h5``, of a sweep file ``./STUDY.h5``.
        storage: URL of an Optuna storage, instead of ``storage_path``.
        engine: what runs a trial; None decides by the kind of file.
        sampler: Optuna's sampler by name, instead of the file's.
        seed: of the search, instead of ``init_params.random_seed``.
        search: who chooses the points: ``file``, the sampler as the file has it; ``auto``, the slopes of the trials
            where they have some; None for the file's own key, else ``auto``, or ``file`` where ``sampler`` is given.
        until_settled: end the study once its optimum is known to a grid step in every parameter that has slopes; None
            for what the file says.
        metric: what is tuned, instead of the file's ``error_metric``.
        stages: ``recommended`` tunes in stages, from cheap looks to the whole scan; ``none`` runs a file
            that has stages without them; None for what the file says.
        guess: ``point`` tries first what the patterns tell, ``ranges`` looks near it alone.
        independent: of several files, start none from what those before it have found.
        workers_per_gpu: trials that share a GPU.
        retries: how often a trial whose worker was lost is tried again.
        checkpoint_every: seconds between two checkpoints of a trial under way.
        notify: a shell command that is told when the run ends, stops or gets stuck; None for what the profile says.
        progress: whether to show the plan and the run: in a notebook below the cell, elsewhere on stderr.

    Raises:
        ConfigError, DataError, UsageError: the file, the data or an argument breaks a rule; nothing was started.
        MissingDependency: an optional package is needed and not installed.
        StoreError: the results file cannot be used, or another process has it.
        StorageError, ClusterError, StoppedEarly: storage or workers failed; what was recorded is safe.
        StudiesFailed: of several studies some failed, told after the others are over; ``errors`` has each by its file.
        PtydaskError: the first trials all failed alike; the base of all of these. Each is one line, and in
            :mod:`ptydask.errors`. That some trials failed is no error: ``study.table()`` has them.
        KeyboardInterrupt: Ctrl-C, or a notebook's interrupt, after all that was under way has been closed: the same
            call goes on. SIGTERM, after the same, does what it would have done: by default it ends the process.
    """
    overrides = make_overrides(
        trials,
        timeout,
        set,
        tries,
        results,
        storage,
        engine,
        sampler,
        seed,
        search,
        until_settled,
        metric,
        stages,
        guess,
    )
    earlier_studies = read_studies(read_paths(earlier, "earlier"))

    def ask(file: Path) -> RunRequest:
        request = make_request(
            file,
            overrides,
            cluster,
            workers,
            adapt,
            workers_per_gpu,
            retries,
            checkpoint_every,
            notify,
            command=f"ptydask.run({os.fspath(file)!r}, ...)",
        )
        return replace(request, earlier=earlier_studies)

    if isinstance(config, str | os.PathLike) or not isinstance(config, Iterable):
        return _open_study(_conduct(lambda view, stop: _run_one(ask(Path(config)), view, stop), progress=progress))
    files = read_paths(config, "config")
    if not files:
        raise ConfigError("must name a file, or several", key="config", value=config)
    if results is not None:
        raise UsageError("results names one file, and each of several studies has its own; leave it out")
    requests = [ask(file) for file in files]
    paths = _conduct(lambda view, stop: _run_several(requests, view, stop, independent=independent), progress=progress)
    return [_open_study(path) for path in paths]


def _run_one(request: RunRequest, view: View, stop: StopSignals) -> Path:
    """Run the study; returns where its results are."""
    from ptydask import running

    prepared = running.announce(request, view)
    if not prepared.finished and not running.carry_out(prepared, view, stop).complete:
        view.notice(TIME_IS_OVER)
    return prepared.plan.results


def _run_several(requests: Sequence[RunRequest], view: View, stop: StopSignals, *, independent: bool) -> list[Path]:
    """Run the studies; returns where their results are. Raises StudiesFailed once all are over."""
    from ptydask import running

    queued = running.announce_queue(requests, view, independent=independent)
    end = running.carry_out_queue(queued, view, stop, independent=independent)
    if end.stopped is not None:
        raise end.stopped
    errors = {request.config: study.error for request, study in zip(requests, end.studies, strict=True) if study.error}
    if errors:
        raise StudiesFailed(errors, len(requests)) from next(
            (error for error in errors.values() if not isinstance(error, PtydaskError)), None
        )
    if not all(study.outcome is None or study.outcome.complete for study in end.studies):
        view.notice(TIME_IS_OVER)
    return [study.prepared.plan.results for study in end.studies]


def validate(
    config: FilePath,
    *,
    trials: int | None = None,
    set: Mapping[str, Any] | None = None,
    tries: Iterable[Mapping[str, Scalar]] = (),
    earlier: FilePath | Iterable[FilePath] = (),
    timeout: float | None = None,
    results: FilePath | None = None,
    storage: str | None = None,
    engine: str | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    search: Literal["auto", "file"] | None = None,
    until_settled: bool | None = None,
    metric: str | None = None,
    stages: Literal["recommended", "none"] | None = None,
    guess: Literal["point", "ranges"] | None = None,
) -> StudyPlan:
    """Check a params or sweep file and what it names, as :func:`run` does before it starts a worker.

    Returns the plan: ``space`` has what is tuned (parameter to range), ``points`` what is tried first, ``notices`` what
    was translated or may surprise, one line each. Of a study in stages all are checked, and the plan is that of the
    first; its ``lineage.stages`` names all of them. The arguments, and what is raised, are those of :func:`run`.

    >>> ptydask.validate("params.yaml", set={"recon_params.NITER": 50}).space  # doctest: +SKIP
    """
    overrides = make_overrides(
        trials,
        timeout,
        set,
        tries,
        results,
        storage,
        engine,
        sampler,
        seed,
        search,
        until_settled,
        metric,
        stages,
        guess,
    )
    from ptydask.driver.stages import plan_stages

    path, studies = Path(config).expanduser(), read_studies(read_paths(earlier, "earlier"))
    with _PROCESS.restored():
        planned = plan_stages(path, overrides, studies)
        plan = planned[0].plan if planned else start_from(complete_plan(path, overrides), studies)
        return with_machine_notice(plan)


def confirm(
    results: FilePath,
    *,
    top: int = 5,
    seeds: int = 3,
    trials: Iterable[int] = (),
    frc: bool = False,
    stage: str = "",
    workers: int | None = None,
    cluster: FilePath = "auto",
    adapt: tuple[int, int] | None = None,
    set: Mapping[str, Any] | None = None,
    workers_per_gpu: int = 1,
    retries: int = 3,
    checkpoint_every: float = 120.0,
    notify: str | None = None,
    progress: bool = True,
) -> StudyResults:
    """Run the best trials of a study once more with other seeds, to see whether they differ by more than luck.

    Returns the results of the study, or of the stage that was confirmed, opened; what the repeats say is in its file.
    Called again, it goes on where it stopped, and with more ``top`` or ``seeds`` it runs what is missing.

    >>> study = ptydask.confirm("results.h5", top=5, seeds=3, workers=8)  # doctest: +SKIP

    Args:
        results: the results file of the study.
        top: so many of the best trials.
        seeds: with so many seeds each, none of them the study's own.
        trials: the numbers of trials to repeat instead of the best.
        frc: also reconstruct from each half of the data alone, for the Fourier ring correlation of the two.
        stage: of a study with stages, the one whose trials they are; empty for the last one that tuned something.
        set: keys of the study's configuration that have changed since, such as where the data are.

    The other arguments, and what is raised, are those of :func:`run`; UsageError also for trials that there are not.
    """
    from ptydask.driver.confirmation import ConfirmOptions

    numbers = [trials] if isinstance(trials, int) else list(trials)
    options = ConfirmOptions(
        check_count(top, "top"),
        check_count(seeds, "seeds"),
        tuple(check_count(number, "trials", 0) for number in numbers),
        frc,
        check_text(stage, "stage") or "",
    )
    overrides = Overrides(
        settings=tuple((check_key(key), plain_value(value, key)) for key, value in (set or {}).items())
    )
    request = make_request(
        results,
        overrides,
        cluster,
        workers,
        adapt,
        workers_per_gpu,
        retries,
        checkpoint_every,
        notify,
        command=f"ptydask.confirm({os.fspath(results)!r}, ...)",
    )

    def conduct(view: View, stop: StopSignals) -> tuple[Path, str]:
        from ptydask import confirming

        prepared = confirming.announce(request, options, view)
        if not prepared.finished and not confirming.carry_out(prepared, view, stop).complete:
            view.notice(TIME_IS_OVER)
        return prepared.study, prepared.stage

    return _open_study(*_conduct(conduct, progress=progress))


def _conduct(conduct: Callable[[View, StopSignals], _Ended], *, progress: bool) -> _Ended:
    """Have ``conduct`` announce a run and carry it out; returns what it returns."""
    from ptydask.progress import view

    with _PROCESS.restored(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        shown = view.python_view(sys.stderr or nowhere) if progress else view.make_view(nowhere)
        stop = StopSignals()
        try:
            with stop:
                return conduct(shown, stop)
        except Terminated:
            raise StoppedEarly(f"SIGTERM ended the run; {GOES_ON}") from None
        finally:
            if not isinstance(sys.exception(), KeyboardInterrupt):  # that one is on its way already
                stop.pass_on()


def _open_study(results: Path, stage: str = "") -> StudyResults:
    from ptydask.analysis.results import StudyResults

    return StudyResults(results.absolute(), stage)


_LOGGERS = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado", "optuna")]
"""What a run silences; the caller's own use of them is not silenced for good."""
_SET_BY_IMPORTS = "KMP_DUPLICATE_LIB_OK"
"""A variable that threadpoolctl and scikit-learn set as they are imported, as SciPy does for PtyRAD."""


def _save_process() -> tuple[list[int], str | None]:
    return [logger.level for logger in _LOGGERS], os.environ.get(_SET_BY_IMPORTS)


def _restore_process(saved: tuple[list[int], str | None]) -> None:
    levels, value = saved
    for logger, level in zip(_LOGGERS, levels, strict=True):
        logger.setLevel(level)
    if value is None:
        os.environ.pop(_SET_BY_IMPORTS, None)


_PROCESS = SharedState(_save_process, _restore_process)
