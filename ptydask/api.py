"""``ptydask.run`` and ``ptydask.validate``: a study from Python, as the command line runs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptydask.clusters.process_state import SharedState
from ptydask.config import Overrides, reading
from ptydask.config.study import check_whole
from ptydask.driver.contract import GOES_ON, TIME_IS_OVER, View
from ptydask.driver.earlier import read_studies
from ptydask.driver.earlier_points import start_from
from ptydask.driver.prepare import RunRequest, complete_plan
from ptydask.errors import ConfigError, StoppedEarly, UsageError
from ptydask.model import Scalar, StudyPlan
from ptydask.stop_signals import StopSignals, Terminated

if TYPE_CHECKING:
    from ptydask.analysis.results import StudyResults

FilePath = str | os.PathLike[str]


def run(
    config: FilePath,
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
    workers_per_gpu: int = 1,
    retries: int = 3,
    checkpoint_every: float = 120.0,
    notify: str | None = None,
    progress: bool = True,
) -> StudyResults:
    """Run the study of a PtyRAD params file or a W&B sweep file, or go on with it; returns its results, opened.

    It does what ``python -m ptydask run`` does, with the same checks, and leaves the same file. Called again with the
    same arguments, it goes on where it stopped; of a finished study it only opens the results.

    >>> study = ptydask.run("params.yaml", workers=8, cluster="slurm", trials=200)  # doctest: +SKIP
    >>> study.best().params  # doctest: +SKIP

    Args:
        config: the params or sweep file, or a file of ptydask's own that names it: YAML, JSON or TOML.
        workers: how many; None for one per GPU, else one, on this machine, and what the profile says elsewhere.
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
        PtydaskError: the first trials all failed alike; the base of all of these. Each is one line, and in
            :mod:`ptydask.errors`. That some trials failed is no error: ``study.table()`` has them.
        KeyboardInterrupt: Ctrl-C, or a notebook's interrupt, after all that was under way has been closed: the same
            call goes on. SIGTERM, after the same, does what it would have done: by default it ends the process.
    """
    overrides = _make_overrides(
        trials, timeout, set, tries, results, storage, engine, sampler, seed, search, until_settled, metric, stages
    )
    request = _make_request(
        config,
        overrides,
        cluster,
        workers,
        adapt,
        workers_per_gpu,
        retries,
        checkpoint_every,
        notify,
        command=f"ptydask.run({os.fspath(config)!r}, ...)",
    )
    request = replace(request, earlier=read_studies(_paths(earlier, "earlier")))

    def conduct(view: View, stop: StopSignals) -> tuple[Path, str]:
        from ptydask import running

        prepared = running.announce(request, view)
        if not prepared.finished and not running.carry_out(prepared, view, stop).complete:
            view.notice(TIME_IS_OVER)
        return prepared.plan.results, ""

    return _conduct_and_open(conduct, progress=progress)


def _make_request(
    config: FilePath,
    overrides: Overrides,
    cluster: FilePath,
    workers: int | None,
    adapt: tuple[int, int] | None,
    workers_per_gpu: int,
    retries: int,
    checkpoint_every: float,
    notify: str | None,
    command: str,
) -> RunRequest:
    if workers is not None and adapt is not None:
        raise UsageError("workers and adapt: give one of them")
    return RunRequest(
        config=Path(config).expanduser(),
        overrides=overrides,
        cluster=os.path.expanduser(cluster),  # noqa: PTH111 - it may be an address
        workers=None if workers is None else _check_count(workers, "workers"),
        adapt=None if adapt is None else _check_bounds(adapt),
        workers_per_gpu=_check_count(workers_per_gpu, "workers_per_gpu"),
        retries=_check_count(retries, "retries", 0),
        checkpoint_every=_check_seconds(checkpoint_every, "checkpoint_every"),
        notify=_check_text(notify, "notify"),
        command=command,
    )


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
) -> StudyPlan:
    """Check a params or sweep file and what it names, as :func:`run` does before it starts a worker.

    Returns the plan: ``space`` has what is tuned (parameter to range), ``points`` what is tried first, ``notices`` what
    was translated or may surprise, one line each. Of a study in stages all are checked, and the plan is that of the
    first; its ``lineage.stages`` names all of them. The arguments, and what is raised, are those of :func:`run`.

    >>> ptydask.validate("params.yaml", set={"recon_params.NITER": 50}).space  # doctest: +SKIP
    """
    overrides = _make_overrides(
        trials, timeout, set, tries, results, storage, engine, sampler, seed, search, until_settled, metric, stages
    )
    from ptydask.driver.stages import plan_stages

    path, studies = Path(config).expanduser(), read_studies(_paths(earlier, "earlier"))
    planned = plan_stages(path, overrides, studies)
    return planned[0].plan if planned else start_from(complete_plan(path, overrides), studies)


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
        _check_count(top, "top"),
        _check_count(seeds, "seeds"),
        tuple(_check_count(number, "trials", 0) for number in numbers),
        frc,
        _check_text(stage, "stage") or "",
    )
    overrides = Overrides(
        settings=tuple((_check_key(key), _plain_value(value, key)) for key, value in (set or {}).items())
    )
    request = _make_request(
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

    return _conduct_and_open(conduct, progress=progress)


def _conduct_and_open(conduct: Callable[[View, StopSignals], tuple[Path, str]], *, progress: bool) -> StudyResults:
    """Have ``conduct`` announce a run and carry it out; what is at the path that it returns, and its stage, opened."""
    from ptydask.analysis.results import StudyResults
    from ptydask.progress import view

    with _LEVELS.restored(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        shown = view.python_view(sys.stderr or nowhere) if progress else view.make_view(nowhere)
        stop = StopSignals()
        try:
            with stop:
                results, stage = conduct(shown, stop)
        except Terminated:
            raise StoppedEarly(f"SIGTERM ended the run; {GOES_ON}") from None
        finally:
            if not isinstance(sys.exception(), KeyboardInterrupt):  # that one is on its way already
                stop.pass_on()
    return StudyResults(results.absolute(), stage)


_LOGGERS = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado", "optuna")]
"""What a run silences; the caller's own use of them is not silenced for good."""


def _restore_levels(levels: list[int]) -> None:
    for logger, level in zip(_LOGGERS, levels, strict=True):
        logger.setLevel(level)


_LEVELS = SharedState(lambda: [logger.level for logger in _LOGGERS], _restore_levels)


def _make_overrides(
    trials: int | None,
    timeout: float | None,
    settings: Mapping[str, Any] | None,
    tries: Iterable[Mapping[str, Scalar]],
    results: FilePath | None,
    storage: str | None,
    engine: str | None,
    sampler: str | None,
    seed: int | None,
    search: Any,
    until_settled: Any,
    metric: Any,
    stages: Any,
) -> Overrides:
    """What is said beside the file. Raises ConfigError, naming the argument or the key."""
    points = [tries] if isinstance(tries, Mapping) or not isinstance(tries or (), Iterable) else list(tries or ())
    if not all(isinstance(point, Mapping) and point for point in points):
        raise ConfigError("must be mappings of parameter to value: [{'scale': 1.02}]", key="tries", value=tries)
    if not isinstance(settings or {}, Mapping):
        raise ConfigError("must be a mapping of key to value: {'recon_params.NITER': 50}", key="set", value=settings)
    if search not in (None, "auto", "file"):
        raise ConfigError("must be 'auto' or 'file'", key="search", value=search)
    if until_settled not in (None, True, False):
        raise ConfigError("must be True or False", key="until_settled", value=until_settled)
    if stages not in (None, "recommended", "none"):
        raise ConfigError("must be 'recommended' or 'none'", key="stages", value=stages)
    return Overrides(
        settings=tuple((_check_key(key), _plain_value(value, key)) for key, value in (settings or {}).items()),
        n_trials=None if trials is None else _check_count(trials, "trials"),
        timeout=None if timeout is None else _check_seconds(timeout, "timeout"),
        results=None if results is None else Path(results).expanduser(),
        storage=_check_text(storage, "storage"),
        engine=_check_text(engine, "engine"),
        sampler=_check_text(sampler, "sampler"),
        seed=None if seed is None else _check_count(seed, "seed", 0),
        tries=tuple({name: _plain_value(value, f"tries.{name}") for name, value in point.items()} for point in points),
        search=search,
        until_settled=until_settled,
        metric=_check_text(metric, "metric"),
        stages=stages,
    )


def _paths(value: Any, key: str) -> list[Path]:
    """One path, or several, as a list."""
    several = [value] if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(path, str | os.PathLike) for path in several):
        raise ConfigError("must be one path, or a list of them", key=key, value=value)
    return [Path(path) for path in several]


def _check_key(key: Any) -> str:
    if not isinstance(key, str) or not all(part.strip() for part in key.split(".")):
        raise ConfigError("must be text with dots between levels: 'recon_params.NITER'", key="set", value=key)
    return key.strip()


def _check_text(value: Any, key: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError("must be text", key=key, value=value)
    return value


def _check_count(value: Any, key: str, least: int = 1) -> int:
    return check_whole(_plain_value(value, key), key, least)


def _check_bounds(adapt: Any) -> tuple[int, int]:
    try:
        least, most = adapt
    except (TypeError, ValueError):
        raise ConfigError("must be (fewest, most)", key="adapt", value=adapt) from None
    least, most = _check_count(least, "adapt", 0), _check_count(most, "adapt")
    if least > most:
        raise ConfigError("must be (fewest, most), the fewest not above the most", key="adapt", value=adapt)
    return least, most


def _check_seconds(value: Any, key: str) -> float:
    seconds = _plain_value(value, key)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ConfigError("must be a finite number of seconds, not negative", key=key, value=value)
    return float(seconds)


def _plain_value(value: Any, key: str) -> Any:
    """``value`` as a file would have it: paths as text, NumPy's numbers and arrays as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        value = {name: _plain_value(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        value = [_plain_value(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return reading.plain_values(value, key)
