"""Jobs on a batch system as a place to run. Light to import: Dask comes in with the first job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptydask.clusters import ClusterRequest, Place
from ptydask.clusters.jobqueue import advice, profile_file, slurm, systems
from ptydask.clusters.jobqueue import profile as profiles
from ptydask.clusters.jobqueue.profile import Profile
from ptydask.clusters.settings import import_dask
from ptydask.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from ptydask.clusters.jobqueue.fleet import Fleet


class JobQueue(Place):
    """See :class:`ptydask.clusters.Place`."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.notify = profile, profile.notify or ""

    def default_workers(self) -> int:
        """As many as the profile's ``max_jobs`` have, else those of one job."""
        return (self.profile.max_jobs or 1) * max(1, self.profile.gpus)

    def describe(self, request: ClusterRequest) -> str:
        """Workers, jobs, and what each job asks for. Raises UsageError where the workers cannot share a job."""
        self._check_cores(request)
        return profiles.describe(self.profile, request)

    def script(self, request: ClusterRequest) -> str:
        """The first job's script. Raises ClusterError where dask-jobqueue refuses the job."""
        import_dask()
        from ptydask.clusters.jobqueue import launch

        self._check_cores(request)
        return launch.job_script(self.profile, request)

    def try_job(self, request: ClusterRequest) -> str:
        """What SLURM says of a job; see :meth:`ptydask.clusters.Place.try_job`. No other system is asked."""
        if self.profile.system != "slurm" or shutil.which("sbatch") is None:
            return ""
        script, environ = self.script(request), systems.submit_environment(self.profile, os.environ)
        try:
            taken, words = slurm.try_job(script, environ)
        except slurm.BatchSystemUnavailable as error:
            return f"SLURM could not be asked whether it takes this job: {error}"
        if not taken:
            what_to_do = advice.advice_for(words)
            raise ClusterError("; ".join(filter(None, [f"SLURM would not take this job: {words}", what_to_do])))
        if trouble := slurm.partition_notes(self.profile.queue, self.profile.walltime):
            return f"SLURM would take this job and not start it: {trouble}"
        return f"SLURM would take this job: {words}"

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[Fleet]:
        """Start the scheduler in this process, and jobs as they are needed. Raises ClusterError."""
        import_dask()
        from ptydask.clusters.jobqueue import launch
        from ptydask.clusters.jobqueue.fleet import Fleet

        self._check_cores(request)
        with launch.open_scheduler(self.profile, request) as cluster, Fleet(cluster, self.profile, request) as fleet:
            yield fleet

    def _check_cores(self, request: ClusterRequest) -> None:
        workers = profiles.worker_limits(self.profile, request).per_job
        if workers > self.profile.cpus:
            raise UsageError(
                f"a job of this profile has {self.profile.cpus} cores for {workers} workers "
                f"({max(1, self.profile.gpus)} GPUs x {request.workers_per_gpu}); each needs one: raise cpus"
            )


def from_file(path: Path) -> JobQueue:
    """The place that a profile file describes. Raises ConfigError."""
    return JobQueue(profile_file.read(path))


def by_name(system: str) -> JobQueue:
    """A batch system: Dask's jobqueue.yaml says what a job is, and where it does not, ptydask's defaults."""
    return JobQueue(profile_file.complete_profile({"system": system}))


Slurm = partial(by_name, "slurm")
Pbs = partial(by_name, "pbs")
Lsf = partial(by_name, "lsf")
Sge = partial(by_name, "sge")
Oar = partial(by_name, "oar")
Moab = partial(by_name, "moab")
HTCondor = partial(by_name, "htcondor")
