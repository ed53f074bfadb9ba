"""What runs on a worker.

``process``       what the worker process keeps from trial to trial: measurements, connections
``trial``         one trial, as one Dask task
``step_reports``  a trial's steps: reports to Optuna, checkpoints
``transfer``      files of workers that do not see the results' folder

A trial leaves nothing else behind.
"""

from ptydask.worker.process import NotPrepared, RunSetup, prepare, versions
from ptydask.worker.trial import TrialDone, WorkerLeaving, run_trial

__all__ = ["NotPrepared", "RunSetup", "TrialDone", "WorkerLeaving", "prepare", "run_trial", "versions"]
