"""What this process needs to start workers: its environment, and one process that they are forks of.

That process, multiprocessing's fork server, imports what each of them needs, once, while the driver imports Dask, which
this module does not.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from typing import Any

from ptydask.clusters.process_state import SharedState
from ptydask.clusters.settings import THREADS, UNLESS_SET
from ptydask.stop_signals import for_this_process_only, held_back

_METHOD = "distributed.worker.multiprocessing-method"
_HASH_SEED = ("PYTHONHASHSEED", "6640")
"""Dask's, for workers to agree on hashes: a fork has that of its server."""
_GPUS = "CUDA_VISIBLE_DEVICES"
_SERVER: Any = forkserver._forkserver  # a process has one
_FIRST = "ptydask.clusters.server_path"
"""What it imports first. By this the server of a run is told from any other."""
_LAST = "ptydask.clusters.server_heap"


@dataclass(slots=True)
class WorkerStart:
    """How Dask is to start workers."""

    settings: Mapping[str, object]
    """Dask's."""
    forks: bool = False
    """They are forks of a server that was started for them; otherwise each is a Python of its own."""

    def end_server(self) -> None:
        """End that server, whatever it does. Its forks go on, but nobody hears of their ends any more."""
        server = _SERVER._forkserver_pid  # another one, where the first was killed
        if not self.forks or server is None:
            return
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        with suppress(OSError):  # somebody else has heard of its end, or removed its socket
            _SERVER._stop()


@contextmanager
def starting_workers(environments: Sequence[Mapping[str, str]], imports: Sequence[str]) -> Iterator[WorkerStart]:
    """This process as one that can start workers with these environments, which need the modules ``imports``."""
    environment = {name: environments[0][name] for name in THREADS}
    environment |= {name: os.environ.get(name, value) for name, value in (*UNLESS_SET.items(), _HASH_SEED)}
    # CUDA cannot be used in a fork of a process that has asked for it.
    if any(each[_GPUS] for each in environments):
        imports = ()
    else:
        environment[_GPUS] = ""  # of a GPU that is not found here, but by PyTorch
    with _PROCESS.restored():
        with held_back():  # what it held back is raised at its end
            os.environ.update(environment)
            start = _start_server(("ptydask.worker", *imports))
        start.settings = {**start.settings, "distributed.nanny.pre-spawn-environ": environment}
        try:
            yield start
        finally:
            start.end_server()


def _start_server(imports: Sequence[str]) -> WorkerStart:
    """The server that imports these; none in a program that has one already, or where its socket can have no place."""
    if sys.platform == "darwin":  # its own libraries end a fork that uses them
        return WorkerStart({})
    running: int | None = _SERVER._forkserver_pid
    if running is not None:
        return WorkerStart({_METHOD: "spawn"} if _SERVER._preload_modules[:1] == [_FIRST] else {})
    forkserver.set_forkserver_preload([_FIRST, *imports, _LAST])
    # The resource tracker unblocks Ctrl-C in the thread that starts it, so it has to be there before.
    resource_tracker.ensure_running()
    try:
        with for_this_process_only():
            forkserver.ensure_running()
    except OSError:
        return WorkerStart({})
    return WorkerStart({_METHOD: "forkserver"}, forks=True)


_Saved = tuple[dict[str, str | None], list[str], str | None, Any, str | None]


def _save_process() -> _Saved:
    """The variables that are set here for workers, and left; what the program would have a fork server of its own
    import; its start method of processes, which is set for good where that server asks for it; and the main module,
    which is hidden from workers.

    multiprocessing has a new process import it, and Dask starts workers again that died: a script that calls
    ``ptydask.run`` without ``if __name__ == "__main__"`` would run itself in each of them.
    """
    main = sys.modules["__main__"]
    spec, main.__spec__ = main.__spec__, None
    variables = (*THREADS, *UNLESS_SET, _HASH_SEED[0], _GPUS, "__DASK_PARENT_PID")
    environment = {name: os.environ.get(name) for name in variables}
    method = multiprocessing.get_start_method(allow_none=True)
    return environment, _SERVER._preload_modules, method, spec, vars(main).pop("__file__", None)


def _restore_process(saved: _Saved) -> None:
    variables, imports, method, spec, file = saved
    forkserver.set_forkserver_preload(imports)
    if method is None:
        multiprocessing.set_start_method(None, force=True)
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    main = sys.modules["__main__"]
    main.__spec__ = spec
    if file is not None:
        main.__file__ = file


_PROCESS = SharedState(_save_process, _restore_process)
