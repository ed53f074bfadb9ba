"""How Dask has to behave for trials, wherever the workers are: its settings and the environment of a worker."""

from __future__ import annotations

import importlib
import logging
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

from ptydask.clusters.process_state import SharedState
from ptydask.errors import ClusterError, ConfigError, one_line

if TYPE_CHECKING:
    from distributed import Scheduler

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that each hold a worker's number of cores."""
UNLESS_SET: Mapping[str, str] = {
    # Dask has glibc give memory back at every free beyond 64 KiB. A reconstruction frees its temporaries many times a
    # second: the page faults alone doubled the time of an iteration on a CPU. Keep the memory for the next iteration.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    # Threads of OpenMP meet thousands of times in an iteration, and spin until the last one is there. Beside other work
    # that one waits for a core that the others spin on: 0.1 s became 10. Sleep instead. Second: Intel, LLVM.
    "OMP_WAIT_POLICY": "passive",
    "KMP_BLOCKTIME": "0",
}
"""The environment of a worker's process, where whoever starts it has not set a variable of this name."""
SETTINGS: Mapping[str, object] = {
    # A trial holds the interpreter for long; nobody is dead for that.
    "distributed.scheduler.worker-ttl": "60 minutes",
    # The driver counts attempts itself: the first loss is reported at once.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # A queue may take days.
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # A worker's web pages have no TLS: there are none.
    "distributed.worker.http.routes": [],
    # What Dask samples of itself fifty to a hundred times a second, in every process, costs more than the messages of
    # a trial.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "60s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    # An hour of them: Dask keeps 7200, some MB of every process.
    "distributed.admin.system-monitor.log-length": 360,
    # What Dask keeps for its developers, of each worker the last thousand messages, is a MB of the driver's for each.
    "distributed.admin.low-level-log-length": 10,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": "60s",
}

LEAST_INTERVAL = 10.0
"""Seconds between two heartbeats of a worker, at the least; Dask has two a second of up to ten workers."""
HEARTBEATS = 20
"""A second, of all workers together, at the most; Dask has up to two hundred."""
OPEN_FILES = 1 << 16
"""Of the driver's process, at the most."""
FILES_PER_WORKER, FILES_OF_DRIVER = 12, 100
"""Pipes and connections of one worker of this machine in the driver's process, 11 as counted; what else it opens."""


def threads_asked_for(environ: Mapping[str, str]) -> int | None:
    """``OMP_NUM_THREADS``, of a list for nested regions (``4,2``) the first; None where it is no such number."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def import_dask(module: str = "distributed") -> None:
    """Import Dask, which reads its own configuration then. Raises ConfigError, in one line, where that is unusable."""
    try:
        importlib.import_module(module)
    except ImportError:
        raise
    except Exception as error:  # of the YAML reader, of logging, of whatever a setting was handed to
        message = one_line(str(error))
        malformed = re.match(r"A dask config file at '(.+?)' is malformed[ -,]*(.*)", message)
        hint = "mend it, move it away, or set DASK_CONFIG to another folder"
        if malformed is not None:
            raise ConfigError(f"Dask cannot read it: {malformed[2]}", file=malformed[1], hint=hint) from error
        import dask

        files = [str(path) for path, _ in dask.config.collect_yaml(dask.config.paths, return_paths=True)]
        where = ", ".join(files) or "its environment variables DASK_..."
        text = f"Dask does not start with its configuration: {type(error).__name__}: {message}"
        raise ConfigError(text, file=where, hint=hint) from error


def silence_dask() -> None:
    """Keep what Dask says of connections that come and go off the screen; the driver says what matters."""
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def heartbeat_interval(workers: int) -> float:
    """Seconds between two heartbeats of one worker: at most :data:`HEARTBEATS` a second, all workers together."""
    return max(LEAST_INTERVAL, workers / HEARTBEATS)


def space_heartbeats(scheduler: Scheduler) -> None:
    """Have a scheduler of our own ask its workers for fewer heartbeats than Dask does.

    They tell how much memory and time a worker needs, which nobody here reads: that one has died shows by its
    connection. Dask has no setting for it; every answer to a heartbeat says when the next one is due.
    """
    answer = scheduler.handlers["heartbeat_worker"]

    @wraps(answer)
    def answer_and_space(*args: Any, **message: Any) -> dict[str, Any]:
        told: dict[str, Any] = answer(*args, **message)
        if "heartbeat-interval" in told:
            told["heartbeat-interval"] = heartbeat_interval(len(scheduler.workers))
        return told

    scheduler.handlers["heartbeat_worker"] = answer_and_space


@contextmanager
def many_open_files() -> Iterator[None]:
    """Let this process have as many open files as it may, at most :data:`OPEN_FILES`, while workers are with it.

    A shell's usual limit of 1024 is that of fewer than a hundred workers of this machine, and Dask only waits then.
    """
    with _OPEN_FILES.restored():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        yield


_OPEN_FILES = SharedState(
    lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    lambda limits: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
)


def check_open_files(workers: int, limit: int) -> None:
    """Raise ClusterError where so many workers of this machine would need more open files than ``limit``."""
    needed = FILES_OF_DRIVER + FILES_PER_WORKER * workers
    if limit != resource.RLIM_INFINITY and needed > limit:
        fitting = max(0, (limit - FILES_OF_DRIVER) // FILES_PER_WORKER)
        raise ClusterError(
            f"--workers {workers}: the driver needs {needed} open files for them and may have {limit} (ulimit -n): "
            f"enough for {fitting}; raise the limit, or take fewer"
        )


def dask_variable(setting: str) -> str:
    """The environment variable that Dask reads ``setting`` from."""
    return "DASK_" + setting.replace(".", "__").replace("-", "_").upper()
