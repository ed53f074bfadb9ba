"""Arguments of the Python functions, checked, as the command line's options would be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from ptydask.config import Overrides, reading
from ptydask.config.study import check_whole
from ptydask.driver.prepare import RunRequest
from ptydask.errors import ConfigError, UsageError
from ptydask.model import Scalar

FilePath = str | os.PathLike[str]


class RunArguments(TypedDict, total=False):
    """What :func:`ptydask.run` may be told beside its files."""

    workers: int | None
    cluster: FilePath
    trials: int | None
    set: Mapping[str, Any] | None
    tries: Iterable[Mapping[str, Scalar]]
    earlier: FilePath | Iterable[FilePath]
    adapt: tuple[int, int] | None
    timeout: float | None
    results: FilePath | None
    storage: str | None
    engine: str | None
    sampler: str | None
    seed: int | None
    search: Literal["auto", "file"] | None
    until_settled: bool | None
    metric: str | None
    stages: Literal["recommended", "none"] | None
    guess: Literal["point", "ranges"] | None
    workers_per_gpu: int
    retries: int
    checkpoint_every: float
    notify: str | None
    progress: bool


def make_request(
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
    """What is asked for of a run. Raises ConfigError or UsageError, naming the argument."""
    if workers is not None and adapt is not None:
        raise UsageError("workers and adapt: give one of them")
    return RunRequest(
        config=Path(config).expanduser(),
        overrides=overrides,
        cluster=os.path.expanduser(cluster),  # noqa: PTH111 - it may be an address
        workers=None if workers is None else check_count(workers, "workers"),
        adapt=None if adapt is None else _check_bounds(adapt),
        workers_per_gpu=check_count(workers_per_gpu, "workers_per_gpu"),
        retries=check_count(retries, "retries", 0),
        checkpoint_every=_check_seconds(checkpoint_every, "checkpoint_every"),
        notify=check_text(notify, "notify"),
        command=command,
    )


def make_overrides(
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
    guess: Any = None,
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
    if guess not in (None, "point", "ranges"):
        raise ConfigError("must be 'point' or 'ranges'", key="guess", value=guess)
    return Overrides(
        settings=tuple((check_key(key), plain_value(value, key)) for key, value in (settings or {}).items()),
        n_trials=None if trials is None else check_count(trials, "trials"),
        timeout=None if timeout is None else _check_seconds(timeout, "timeout"),
        results=None if results is None else Path(results).expanduser(),
        storage=check_text(storage, "storage"),
        engine=check_text(engine, "engine"),
        sampler=check_text(sampler, "sampler"),
        seed=None if seed is None else check_count(seed, "seed", 0),
        tries=tuple({name: plain_value(value, f"tries.{name}") for name, value in point.items()} for point in points),
        search=search,
        until_settled=until_settled,
        metric=check_text(metric, "metric"),
        stages=stages,
        guess=guess,
    )


def read_paths(value: Any, key: str) -> list[Path]:
    """One path, or several, as a list."""
    several = [value] if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(path, str | os.PathLike) for path in several):
        raise ConfigError("must be one path, or a list of them", key=key, value=value)
    return [Path(path) for path in several]


def check_key(key: Any) -> str:
    """A key of ``set``. Raises ConfigError where it is none."""
    if not isinstance(key, str) or not all(part.strip() for part in key.split(".")):
        raise ConfigError("must be text with dots between levels: 'recon_params.NITER'", key="set", value=key)
    return key.strip()


def check_text(value: Any, key: str) -> str | None:
    """The same text, or None. Raises ConfigError for what is neither."""
    if value is not None and not isinstance(value, str):
        raise ConfigError("must be text", key=key, value=value)
    return value


def check_count(value: Any, key: str, least: int = 1) -> int:
    """A whole number from ``least`` on, as Python's. Raises ConfigError for anything else."""
    return check_whole(plain_value(value, key), key, least)


def _check_bounds(adapt: Any) -> tuple[int, int]:
    try:
        least, most = adapt
    except (TypeError, ValueError):
        raise ConfigError("must be (fewest, most)", key="adapt", value=adapt) from None
    least, most = check_count(least, "adapt", 0), check_count(most, "adapt")
    if least > most:
        raise ConfigError("must be (fewest, most), the fewest not above the most", key="adapt", value=adapt)
    return least, most


def _check_seconds(value: Any, key: str) -> float:
    seconds = plain_value(value, key)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ConfigError("must be a finite number of seconds, not negative", key=key, value=value)
    return float(seconds)


def plain_value(value: Any, key: str) -> Any:
    """``value`` as a file would have it: paths as text, NumPy's numbers and arrays as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        value = {name: plain_value(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        value = [plain_value(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return reading.plain_values(value, key)
