"""``ptydask.run`` and ``ptydask.validate``: a study from Python, as the command line runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.config import Overrides, reading
from ptydask.config.study import check_whole
from ptydask.driver.contract import View
from ptydask.driver.prepare import PreparedRun, RunRequest, complete_plan, prepare_run
from ptydask.errors import ConfigError, UsageError
from ptydask.model import Scalar, StudyPlan

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
    adapt: tuple[int, int] | None = None,
    timeout: float | None = None,
    results: FilePath | None = None,
    storage: str | None = None,
    engine: str | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    workers_per_gpu: int = 1,
    retries: int = 3,
    checkpoint_every: float = 120.0,
    progress: bool = True,
) -> StudyResults:
    """Run the study of a PtyRAD params file or a W&B sweep file, or go on with it; returns its results, opened.

    It does what ``python -m ptydask run`` does, with the same checks, and leaves the same file. Called again with the
    same arguments, it goes on where it stopped; of a finished study it only opens the results.

    >>> study = ptydask.run("params.yaml", workers=8, cluster="slurm", trials=200)  # doctest: +SKIP
    >>> study.best().params  # doctest: +SKIP

    Args:
        config: the params or sweep file: YAML, JSON or TOML.
        workers: how many; None for one per GPU, else one, on this machine, and what the profile says elsewhere.
        cluster: ``auto`` (SLURM where it answers, else this machine), ``local``, ``slurm`` or another batch system, a
            profile's file, or the ``tcp://`` or ``tls://`` address of a Dask scheduler.
        trials: trials in total, instead of ``n_trials`` per worker or ``run_cap``.
        set: keys of the file to override, dots between levels: ``{"recon_params.NITER": 50}``.
        tries: points to try first, each a mapping of parameter to value: ``[{"scale": 1.02, "rotation": -1.5}]``.
        adapt: (fewest, most) workers, as many as there are trials left; instead of ``workers``.
        timeout: start no trial after this many seconds.
        results: the results file; None for ``OUTPUT_DIR/STUDY.h5``, of a sweep file ``./STUDY.h5``.
        storage: URL of an Optuna storage, instead of ``storage_path``.
        engine: what runs a trial; None decides by the kind of file.
        sampler: Optuna's sampler by name, instead of the file's.
        seed: of the search, instead of ``init_params.random_seed``.
        workers_per_gpu: trials that share a GPU.
        retries: how often a trial whose worker was lost is tried again.
        checkpoint_every: seconds between two checkpoints of a trial under way.
        progress: whether to show the plan and the run: in a notebook below the cell, elsewhere on stderr.

    Raises:
        ConfigError, DataError, UsageError: the file, the data or an argument breaks a rule; nothing was started.
        MissingDependency: an optional package is needed and not installed.
        StoreError: the results file cannot be used, or another process has it.
        StorageError, ClusterError, StoppedEarly: storage or workers failed; what was recorded is safe.
        PtydaskError: the first trials all failed alike; the base of all of these. Each is one line, and in
            :mod:`ptydask.errors`. That some trials failed is no error: ``study.table()`` has them.
        KeyboardInterrupt: Ctrl-C, or a notebook's interrupt, after all that was under way has been closed: the same
            call goes on. SIGTERM ends the process as it would have, after the same.
    """
    overrides = _make_overrides(trials, timeout, set, tries, results, storage, engine, sampler, seed)
    if workers is not None and adapt is not None:
        raise UsageError("workers and adapt: give one of them")
    request = RunRequest(
        config=Path(config),
        overrides=overrides,
        cluster=os.fspath(cluster),
        workers=None if workers is None else check_whole(workers, "workers"),
        adapt=None if adapt is None else _check_bounds(adapt),
        workers_per_gpu=check_whole(workers_per_gpu, "workers_per_gpu"),
        retries=check_whole(retries, "retries", 0),
        checkpoint_every=_check_seconds(checkpoint_every, "checkpoint_every"),
        command=f"ptydask.run({os.fspath(config)!r}, ...)",
    )
    return _run_request(request, progress=progress)


def validate(
    config: FilePath,
    *,
    trials: int | None = None,
    set: Mapping[str, Any] | None = None,
    tries: Iterable[Mapping[str, Scalar]] = (),
    timeout: float | None = None,
    results: FilePath | None = None,
    storage: str | None = None,
    engine: str | None = None,
    sampler: str | None = None,
    seed: int | None = None,
) -> StudyPlan:
    """Check a params or sweep file and what it names, as :func:`run` does before it starts a worker.

    Returns the plan: ``space`` has what is tuned (parameter to range), ``points`` what is tried first, ``notices`` what
    was translated or may surprise, one line each. The arguments, and what is raised, are those of :func:`run`.

    >>> ptydask.validate("params.yaml", set={"recon_params.NITER": 50}).space  # doctest: +SKIP
    """
    overrides = _make_overrides(trials, timeout, set, tries, results, storage, engine, sampler, seed)
    return complete_plan(Path(config), overrides)


def announce_run(request: RunRequest, view: View) -> PreparedRun:
    """Prepare a run and have ``view`` say what will happen, what may surprise, and where nothing is left to do.

    Raises what :func:`ptydask.driver.prepare.prepare_run` raises. Nothing is started.
    """
    from ptydask.driver.execute import target_text
    from ptydask.progress import plan_text

    prepared = prepare_run(request)
    plan, total = prepared.plan, prepared.options.total
    view.plan(
        [
            *plan_text.plan_lines(plan),
            plan_text.trials_line(plan.budget, prepared.where.workers, total, prepared.recorded),
            plan_text.workers_line(prepared.place.describe(prepared.where), prepared.why_there),
        ]
    )
    for notice in prepared.notices:
        view.notice(notice)
    if prepared.finished and prepared.reached is not None:
        view.notice(f"{target_text(prepared.reached, plan)}: nothing left to do in {plan.results}")
    elif prepared.finished:
        view.notice(f"{plan_text.recorded_text(total, prepared.recorded, plan.results)}: nothing left to do")
    return prepared


def _run_request(request: RunRequest, *, progress: bool) -> StudyResults:
    from ptydask.analysis.results import StudyResults
    from ptydask.driver import execute
    from ptydask.progress import view

    try:
        with execute.raise_on_sigterm() as sigterm, open(os.devnull, "w") as nowhere:  # noqa: PTH123
            screen = view.python_view(sys.stderr) if progress else view.make_view(nowhere, terminal=False)
            prepared = announce_run(request, screen)
            if not prepared.finished:
                execute.execute_run(prepared, screen, sigterm)
    except execute.Terminated:
        # Everything is closed; now the process ends as one ends that SIGTERM was sent to.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        raise
    return StudyResults(prepared.plan.results)


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
) -> Overrides:
    """What is said beside the file. Raises ConfigError, naming the argument or the key."""
    points = [tries] if isinstance(tries, Mapping) else list(tries)
    if not all(isinstance(point, Mapping) and point for point in points):
        raise ConfigError("must be mappings of parameter to value: [{'scale': 1.02}]", key="tries", value=points)
    return Overrides(
        settings=tuple((key, _plain_value(value, key)) for key, value in (settings or {}).items()),
        n_trials=None if trials is None else check_whole(trials, "trials"),
        timeout=None if timeout is None else _check_seconds(timeout, "timeout"),
        results=None if results is None else Path(results),
        storage=storage,
        engine=engine,
        sampler=sampler,
        seed=None if seed is None else check_whole(seed, "seed", 0),
        tries=tuple({name: _plain_value(value, f"tries.{name}") for name, value in point.items()} for point in points),
    )


def _check_bounds(adapt: tuple[int, int]) -> tuple[int, int]:
    least, most = adapt
    if check_whole(least, "adapt", 0) > check_whole(most, "adapt"):
        raise ConfigError("must be (fewest, most), the fewest not above the most", key="adapt", value=adapt)
    return least, most


def _check_seconds(value: float, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigError("must be a finite number of seconds, not negative", key=key, value=value)
    return float(value)


def _plain_value(value: Any, key: str) -> Any:
    """``value`` as a file would have it: paths as text, NumPy's numbers and arrays as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _plain_value(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return reading.plain_values(value.tolist() if hasattr(value, "tolist") else value, key)
