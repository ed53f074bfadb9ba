"""How Dask has to behave for trials, wherever the workers are: its settings and the environment of a worker."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping

from ptydask.errors import ConfigError, one_line

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
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": "60s",
}


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


def dask_variable(setting: str) -> str:
    """The environment variable that Dask reads ``setting`` from."""
    return "DASK_" + setting.replace(".", "__").replace("-", "_").upper()
