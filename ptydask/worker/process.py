"""What a worker process keeps from trial to trial: the engine's session, connections, the way for its files."""

from __future__ import annotations

import gc
import os
import platform
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import optuna

from ptydask import __version__, engines, machine, sampling
from ptydask.clusters.settings import threads_asked_for
from ptydask.engines import Session
from ptydask.errors import ClusterError, PtydaskError, clear_frames
from ptydask.model import Slot, StudyPlan
from ptydask.storage import urls
from ptydask.worker import transfer


@dataclass(frozen=True, slots=True)
class RunSetup:
    """What all trials of a run share, sent once to each worker. ``plan.storage`` is None: the URL is in ``storage``."""

    plan: StudyPlan = field(repr=False)
    storage: urls.StorageSpec
    store_id: str
    folder: Path
    """Of the trials' files. A worker that does not see it sends them over the Dask connection."""
    run_id: str
    """Differs from run to run, so that no worker takes up what it kept from another."""
    checkpoint_every: float
    """Seconds."""
    trials: int
    """How many the study is to have."""


class NotPrepared(Exception):  # noqa: N818
    """This process has not been made ready for the run: it is a new one, or another run has had it since."""


@dataclass
class OpenSession:
    """One run's, on this worker."""

    setup: RunSetup
    session: Session
    slot: Slot
    facts: Mapping[str, str]
    """What the session says of itself and of the data."""

    @cached_property
    def storage(self) -> optuna.storages.BaseStorage:
        """The connection, made at the first trial."""
        return urls.connect(self.setup.storage)

    @cached_property
    def remembered(self) -> sampling.Remembered:
        """What this process has read of the study's trials, for the sampler of the next one."""
        return sampling.Remembered(sampling.PointsTaken(self.setup.plan.space))

    @cached_property
    def shelf(self) -> transfer.SharedFolder:
        """The way for the files of trials, found out at the first one."""
        return transfer.choose_shelf(self.setup.folder, self.setup.store_id)

    @property
    def device(self) -> str:
        """Where trials compute: ``cuda:`` and the GPU's name in CUDA_VISIBLE_DEVICES, or ``cpu``."""
        return "cpu" if self.slot.cuda is None or self.facts.get("device") == "cpu" else f"cuda:{self.slot.cuda}"

    def close(self, successor: StudyPlan) -> None:
        """Give everything back, but for what the engine can use again for the plan that is next in this process."""
        close_for = getattr(self.session, "close_for", None)
        if close_for is None:
            self.session.close()
        else:
            close_for(successor)
        if "storage" in vars(self):
            urls.disconnect(self.storage)
        if "shelf" in vars(self):
            self.shelf.close()


_open: OpenSession | None = None
_opening = threading.Lock()


def slot_of_this_process() -> Slot:
    """The share of the machine that the cluster gave to this worker, from its environment."""
    cuda = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Slot(threads_asked_for(os.environ) or 1, cuda if cuda not in (None, "", "-1") else None)


def prepare(setup: RunSetup, versions: Mapping[str, str]) -> dict[str, str]:
    """Check the versions, load the measurements, keep ``setup`` for the run's trials.

    Returns the session's provenance, the host, and the GPU it was given.

    Raises ClusterError where this worker's packages are not the driver's or the engine is not among them, DataError
    where the measurements cannot be used.
    """
    _check_versions(versions)
    try:
        engines.get(setup.plan.engine)
    except PtydaskError as error:
        raise ClusterError(f"{_this_python()} cannot run this study: {error}; {_REMEDY}") from None
    ready = _open_for(setup)
    return {**ready.facts, "host": socket.gethostname(), "gpu": ready.slot.cuda or ""}


def versions() -> dict[str, str]:
    """What has to be the same in the driver and in its workers, for they send each other objects of these packages."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "ptydask": __version__, **{name: version(name) for name in ("distributed", "optuna")}}


def _check_versions(of_driver: Mapping[str, str]) -> None:
    own = versions()
    differing = []
    for name, wanted in of_driver.items():
        if own.get(name) != wanted:
            differing.append(f"{name} {own.get(name, 'missing')} (here: {wanted})")
    if differing:
        raise ClusterError(f"{_this_python()} has {', '.join(differing)}; {_REMEDY}")


_REMEDY = "give the workers the environment that this command runs in"


def _this_python() -> str:
    return f"the Python of the workers, {sys.executable} on {socket.gethostname()},"


def _open_for(setup: RunSetup) -> OpenSession:
    """What this process keeps for the run; what it kept of another is given back."""
    global _open
    with _opening:
        if _open is None or _open.setup.run_id != setup.run_id:
            former, _open = _open, None
            if former is not None:
                former.close(setup.plan)
                del former
                _return_freed_memory()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            slot = slot_of_this_process()
            try:
                session = engines.get(setup.plan.engine).open(setup.plan, slot)
                _open = OpenSession(setup, session, slot, session.provenance())
            except BaseException as error:
                clear_frames(error)  # Dask keeps it: with it the data would stay that cannot be used
                raise
        return _open


def _return_freed_memory() -> None:
    """Give the machine back what the former session has freed.

    Where glibc is told to keep freed memory for the next iteration (``UNLESS_SET`` in
    :mod:`ptydask.clusters.settings`), it keeps up to a GiB of a large model for a study that is small.
    """
    gc.collect()
    machine.return_freed_memory()


def session_for_run(run_id: str) -> OpenSession:
    """What this process keeps for the run. Raises NotPrepared where that is nothing."""
    with _opening:
        if _open is None or _open.setup.run_id != run_id:
            raise NotPrepared
        return _open
