"""What runs on a worker.

``process``   what the worker process keeps from trial to trial: measurements, connections
``trial``     one trial, as one Dask task
``progress``  a trial's steps: reports to Optuna, checkpoints

A trial leaves nothing else behind.
"""

from ptydask.worker.process import prepare, versions
from ptydask.worker.trial import Left, RunSetup, TrialDone, run_trial

__all__ = ["Left", "RunSetup", "TrialDone", "prepare", "run_trial", "versions"]
