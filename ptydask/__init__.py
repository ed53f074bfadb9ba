"""Tune electron-ptychography reconstructions with Dask and Optuna, into one HDF5 file."""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = (
    False  # programs import this module to report: importing typing would take four times as long as it does
)
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ptydask.analysis.comparison import StudyComparison
    from ptydask.analysis.results import StudyResults
    from ptydask.api import confirm, run, validate
    from ptydask.reconstructed_trial import ReconstructedTrial

__version__ = "0.1.0"
__all__ = ["Pruned", "ReconstructedTrial", "__version__", "compare", "confirm", "open", "report", "run", "validate"]


class Pruned(BaseException):
    """Raised by ``report`` in an objective function once the pruner wants its trial to end.

    Let it pass; ``finally`` blocks run. No Exception, so that no ``except Exception`` takes it for an error.
    """


def open(path: str | os.PathLike[str], stage: str | None = None) -> StudyResults:
    """The study in a results file, finished or running. Raises StoreError, in one line, where there is none to read.

    Of a study with stages: the ``stage`` of this name, or the latest.

    >>> study = ptydask.open("results.h5")  # doctest: +SKIP
    >>> study.best().image  # doctest: +SKIP
    """
    # Every module of ptydask imports this one: a statement here would have all of them depend on the analysis.
    results = importlib.import_module("ptydask.analysis.results")
    study: StudyResults = results.StudyResults(path, stage)
    return study


def compare(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> StudyComparison:
    """The best trials of several results files side by side; it shows itself as a table, ``table()`` is for pandas.

    A folder stands for the results files in it. A file that cannot be read is in ``unreadable``, with the reason.
    Raises StoreError where none can be read.

    >>> print(ptydask.compare(["a.h5", "b.h5"]))  # doctest: +SKIP
    """
    compared: StudyComparison = importlib.import_module("ptydask.comparing").compare_studies(paths)
    return compared


def report(step: int | None = None, metrics: Mapping[str, float] | None = None, /, **more: float) -> None:
    """Report the metrics of a step from a program that a sweep runs; outside a trial it does nothing.

    Names that are no Python identifiers go in a mapping. Without a step, reports are counted. Raises TypeError for what
    is no number.

    >>> ptydask.report(3, loss=0.25)  # doctest: +SKIP
    >>> ptydask.report(3, {"loss (val)": 0.5})  # doctest: +SKIP
    """
    importlib.import_module("ptydask.trial.reporting").report(step, metrics, more)


def __getattr__(name: str) -> Any:
    """``run``, ``confirm`` and ``validate`` come in with everything that they need when they are first asked for."""
    if name in ("confirm", "run", "validate"):
        return getattr(importlib.import_module("ptydask.api"), name)
    if name == "ReconstructedTrial":
        return importlib.import_module("ptydask.reconstructed_trial").ReconstructedTrial
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
