"""A study as a person works with it in Python: ``ptydask.open("study.h5")``."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np

from ptydask.analysis import dataframe
from ptydask.analysis.data import StudyData, are_to_come, load_study, search_space
from ptydask.analysis.stages import Stages, load_stages, read_stages, stage_text
from ptydask.analysis.study_status import Status
from ptydask.analysis.trial import Trial
from ptydask.analysis.trial_list import Trials
from ptydask.errors import StoreError, nearest_number
from ptydask.model import Optimum, StudyMeta, TrialState, path_beside
from ptydask.ranking import count_states, why_none_is_best
from ptydask.store import reader
from ptydask.store.reader import Results, TrialData

if TYPE_CHECKING:
    import optuna
    import pandas
    from matplotlib.figure import Figure

    from ptydask.analysis.advice import Advice
    from ptydask.analysis.confirmation import Confirmation, MeanSd
    from ptydask.analysis.montage.picture_kinds import PictureKind
    from ptydask.lineage import StageLineage


class StudyResults:
    """A results file, also of a study that is running: reading it never makes the run wait.

    It shows the trials that were recorded when it was opened; :meth:`refresh` takes in those that ended since.
    ``with`` closes it. Of a study with stages it is one of them, the latest unless another is asked for.
    """

    def __init__(self, path: str | os.PathLike[str], stage: str | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        self._stage = stage or ""
        self._results: Results | None = reader.open(self.path, self._stage)
        self._columns = self._results.columns()

    # --- the study -------------------------------------------------------------------------------

    @property
    def meta(self) -> StudyMeta:
        """What the file says about the study as a whole, the params file among it."""
        return self.results.meta

    @property
    def name(self) -> str:
        """The study's name."""
        return self.meta.name

    @property
    def live(self) -> bool:
        """Whether a driver has the study at this moment."""
        return self.results.live

    @property
    def status(self) -> Status:
        """How the study stands now, with the trials that were recorded since :meth:`refresh`. Raises StoreError."""
        with reader.open(self.path, self._stage) as results:
            ended, to_come = results.columns()["state"], are_to_come(results)
        counts = count_states(ended.tolist())
        if not results.live:
            return Status("finished" if results.packed and not to_come else "stopped", **counts)
        run: Mapping[str, Any] = (results.last_words() or {}).get("run") or {}
        reported = run.get("counts") or {}
        counts = {word: max(count, int(reported.get(word, 0))) for word, count in counts.items()}
        return Status("running", **counts, running=int(reported.get("running", 0)), total=run.get("total") or None)

    def refresh(self) -> Self:
        """Take in the trials that were recorded since; returns itself. Raises StoreError.

        Of a study with stages, unless one was asked for, those of the stage that is the latest by now.
        """
        # The old one stays open for the arrays that still read from it, and closes with the last of them.
        self._results = reader.open(self.path, self._stage)
        self._columns = self._results.columns()
        for name in ("_table", "confirmation", "_tuned"):
            self.__dict__.pop(name, None)
        return self

    # --- stages ----------------------------------------------------------------------------------

    @property
    def lineage(self) -> StageLineage | None:
        """Which stage this is, and what it has from those before it; None for a study without stages.

        ``values`` is what they found, by parameter, ``origins`` the stage and the trial that each is of.
        """
        return self.meta.lineage

    @property
    def stages(self) -> Stages:
        """The stages of the study that have begun, by name, in their order; empty for a study without stages.

        Each has ``trials`` (how many), ``metric``, ``best`` (its record), ``tuned`` and ``lineage``. Raises StoreError.
        """
        return read_stages(self.results)

    def stage(self, name: str) -> StudyResults:
        """One of the stages, opened; it shows what this does. Raises StoreError, which names the nearest."""
        return StudyResults(self.path, name)

    @cached_property
    def _tuned(self) -> StudyResults:
        """The last stage that tuned something, where this is the final reconstruction and nobody asked for it."""
        name = "" if self._stage else self.results.tuned_before()
        return self.stage(name) if name else self

    # --- trials ----------------------------------------------------------------------------------

    @property
    def numbers(self) -> list[int]:
        """The numbers of all recorded trials. An attempt that was lost and tried again has none here."""
        return [int(number) for number in self._columns["number"].tolist()]

    def trial(self, number: int | float) -> Trial:
        """One trial. Raises StoreError, which names the nearest, where there is none with this number."""
        # A row of numbers that pandas gave out has it as a float.
        wanted = int(number) if isinstance(number, float) and number.is_integer() else operator.index(cast(int, number))
        if not (self._columns["number"] == wanted).any():
            raise StoreError(f"{self.path.name}: there is no trial {wanted}; {nearest_number(wanted, self.numbers)}")
        return self._make_trial(wanted)

    def trials(self, numbers: Iterable[int] | pandas.DataFrame | None = None) -> Trials:
        """All trials, or those with these ``numbers``, for which the rows of a table stand as well."""
        if numbers is None:
            return Trials(map(self._make_trial, self.numbers), self)
        chosen = numbers.index if hasattr(numbers, "index") and hasattr(numbers, "columns") else numbers
        return Trials((self.trial(number) for number in chosen), self)

    @overload
    def best(self) -> Trial: ...
    @overload
    def best(self, k: int) -> Trials: ...
    def best(self, k: int | None = None) -> Trial | Trials:
        """The best completed trial; with ``k`` the ``k`` best, or as many as there are, the best first.

        Pruned trials have no rank, since their error is of fewer iterations. ``best()`` raises StoreError where no
        trial has completed.
        """
        ranked = self._ranked_numbers()
        if k is not None:
            return Trials(map(self._make_trial, ranked[: max(0, k)]), self)
        if not ranked:
            before = "" if self.lineage is None else self.lineage.from_stage
            raise StoreError(f"{self.path.name}: {why_none_is_best(self.meta.metric, len(self), before)}")
        return self._make_trial(ranked[0])

    def optimum(self) -> Optimum | None:
        """Where the error has its optimum, between the points that were tried, by a model of values and slopes.

        ``center`` and ``deviation`` (one standard deviation) by parameter, in its units, for those that have slopes, at
        the other parameters of ``trial``, the best one; ``is_settled``: whether it is inside of the ranges, known to
        half a grid step, with a completed trial that near. The deviation is what the model does not know, not how far
        the error's optimum is from the truth. None where fewer than three completed trials have slopes. After a final
        reconstruction it is of the stage before that.
        """
        from ptydask.analysis.optimum import locate_study_optimum

        return locate_study_optimum(self._tuned.results.records(), self._tuned.meta)

    @cached_property
    def confirmation(self) -> Confirmation | None:
        """What ``ptydask confirm`` found: the best trials with other seeds; None where nobody confirmed any.

        ``trials`` are the confirmed ones, the best mean first; ``mean_sd(trial, metric=None)`` and ``values(...)``, by
        seed, are of the tuned metric or another; ``compare()`` says which differ by more than luck, ``verdict()`` the
        same in words, ``frc`` has the Fourier ring correlation by trial. Raises StoreError.
        """
        from ptydask.analysis.confirmation import Confirmation

        return Confirmation.of(self.results)

    def advice(self) -> tuple[Advice, ...]:
        """What to change after this study, from its results alone, the most pressing first; () where nothing is wrong.

        Each piece has ``kind``, ``parameter``, ``text`` and what to change: ``tune`` (parameter to range), ``fix``,
        ``settings`` (keys of the params file), and ``trials`` to look at. After a final reconstruction it is of the
        stage before that.
        """
        from ptydask.analysis.advice import advise

        return advise(self._tuned.data(curves=False))

    def _ranked_numbers(self) -> list[int]:
        error = self._columns["error"]
        done = (self._columns["state"] == TrialState.COMPLETE.value) & ~np.isnan(error)
        sign = 1 if self.meta.direction == "minimize" else -1
        order = np.lexsort((self._columns["number"][done], sign * error[done]))
        return [int(number) for number in self._columns["number"][done][order].tolist()]

    # --- tables ----------------------------------------------------------------------------------

    def table(self) -> pandas.DataFrame:
        """One row a trial, by number: state, error, a column for each parameter and metric, and the facts.

        Parameters and metrics have their own names, ``params.NAME`` and ``metrics.NAME`` where two would be alike, and
        as files of the table have them all; slopes of the error are ``gradient.NAME``. ``iterations`` is what each
        trial computed, in iterations over the whole scan. The error of a pruned or failed trial is its last one. Where
        trials were confirmed, ``confirmed_mean`` and ``confirmed_sd`` are mean and standard deviation of the error over
        ``confirmed_n`` other seeds. The table is yours: changing it changes nothing here.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pandas.DataFrame:
        confirmed = {}
        with suppress(StoreError):  # what is said of luck is damaged, the trials are not
            confirmed = {number: known for number in self.numbers if (known := self._read_confirmed(number))}
        return dataframe.trials_dataframe(self._columns, list(search_space(self.meta)), confirmed)

    def query(self, expression: str) -> pandas.DataFrame:
        """The rows for which it holds, in pandas's words: ``"scale < 1 and error < 0.02 and state == 'COMPLETE'"``.

        ``@name`` stands for a Python variable, and a name that is no Python word goes into backticks. Raises
        UsageError, in one line, for an unknown column or anything that is no condition.
        """
        return dataframe.query(self._table, expression, level=2)

    def by(self, name: str, *more: str, bins: int | None = None) -> pandas.DataFrame:
        """For each value of a parameter (or of several): the best error and its trial's number, median, counts.

        ``trials`` lists the numbers, the best first. Real numbers with more than 20 different values are grouped
        in 10 intervals (``bins`` sets how many), which widen where the range is logarithmic. Raises UsageError
        for an unknown column.
        """
        return dataframe.group_trials(self._table, (name, *more), self.meta.direction, bins, _log_parameters(self.meta))

    def curves(self, metric: str | None = None) -> pandas.DataFrame:
        """``metric``, the tuned one by default, at every iteration: one row a step, one column a trial."""
        return dataframe.curves_dataframe(self.data().curves, metric or self.meta.metric)

    # --- Optuna and pictures ---------------------------------------------------------------------

    def data(self, *, curves: bool = True) -> StudyData:
        """Every trial as a record, and every curve: what figures and reports are made of."""
        study = load_study(self.results, curves=curves)
        numbers = set(self.numbers)
        records = tuple(record for record in study.records if record.number in numbers)
        return replace(study, records=records, curves={n: c for n, c in study.curves.items() if n in numbers})

    def study(self) -> optuna.Study:
        """The Optuna study, in memory, with every trial under its own number.

        All of ``optuna.visualization`` and ``optuna.importance`` work on it, and so does optuna-dashboard; what is
        changed in it stays there. A number that is not recorded (a lost attempt) is a failed trial.
        """
        from ptydask.analysis.rehydrate import to_optuna_study

        return to_optuna_study(self.data())

    def plot(
        self, kind: str = "history", parameters: Sequence[str] | None = None, *, metric: str | None = None
    ) -> Figure:
        """A figure, one of :data:`ptydask.analysis.figures.KINDS`, by ``metric``. ``savefig`` writes it.

        After a final reconstruction it is of the stage before that; ``history`` is of all stages, unless one was asked
        for.
        """
        from ptydask.analysis import figures, notebook

        data = self._tuned.data()
        if kind == "history" and not self._stage:
            data = replace(data, stages=load_stages(self.results, curves=False))
        data = data if metric is None else data.by_metric(metric)
        return notebook.make_displayable(figures.draw(kind, data, parameters=parameters))

    def montage(
        self,
        trials: int | Iterable[int] | pandas.DataFrame = 25,
        *,
        what: PictureKind = "phase",
        columns: int | None = None,
        common: bool = True,
    ) -> Figure:
        """Images side by side with captions and a scale bar: of so many best trials, or of those with these numbers.

        ``what`` is shown: phase, amplitude, slices, spectrum, probe, modes, probe-reciprocal, positions, or
        the difference to the first of the trials.
        ``common``: one grey scale for all, else each image its own. Raises StoreError for a sweep, which has none.
        """
        from ptydask.analysis import notebook
        from ptydask.analysis.montage import trial_images

        if why := trial_images.why_no_images(self.results):
            raise StoreError(why)
        chosen = self.best(int(trials)) if isinstance(trials, int | np.integer) else self.trials(trials)
        rows = {record.number: record for record in self.results.records()}
        records = [rows[number] for number in chosen.numbers if number in rows]
        figure = trial_images.draw(self.results, records, what=what, columns=columns, common=common)
        return notebook.make_displayable(figure)

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the study as one web page that works offline; ``NAME.html`` beside the file if nothing is said.

        Returns the page's path. Raises UsageError for a name that is no page's, StoreError, OSError, MissingDependency.
        """
        from ptydask.analysis import report

        target = path_beside(self.path, ".html") if path is None else Path(path).expanduser()
        return report.write(self.results, target)

    # --- the file --------------------------------------------------------------------------------

    @property
    def results(self) -> Results:
        """The file itself, for what is not said here. Raises StoreError once it is closed."""
        if self._results is None:
            raise StoreError(f"{self.path.name}: was closed; ptydask.open it again")
        return self._results

    def close(self) -> None:
        """Let go of the file; arrays that were not read by then cannot be read any more."""
        tuned = self.__dict__.pop("_tuned", self)
        if tuned is not self:
            tuned.close()
        if self._results is not None:
            self._results.close()
        self._results = None

    def _read_trial(self, number: int) -> TrialData:
        return self.results.trial(number)

    def _require_open(self) -> Results:
        return self.results

    def _make_trial(self, number: int) -> Trial:
        return Trial(number, self.meta, self._read_trial, self._require_open, self._read_confirmed)

    def _read_confirmed(self, number: int) -> MeanSd | None:
        return self.confirmation.mean_sd(number) if self.confirmation is not None else None

    def __len__(self) -> int:
        return len(self._columns["number"])

    def __contains__(self, number: object) -> bool:
        return (number.number if isinstance(number, Trial) else number) in self.numbers

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials())

    def __getitem__(self, number: int) -> Trial:
        return self.trial(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[StudyResults], tuple[Path, str]]:
        """Another process opens the file itself."""
        return StudyResults, (self.path, self._stage)

    def __repr__(self) -> str:
        if self._results is None:
            return f"<StudyResults {self.path.name} (closed)>"
        ranked = self._ranked_numbers()
        best = f"; best {self._make_trial(ranked[0])!r}" if ranked else ""
        stage = "" if self.lineage is None else f" ({stage_text(self.lineage)})"
        return f"<StudyResults {self.name!r}{stage} {self.status}{best}>"

    def _repr_html_(self) -> str:
        from ptydask.analysis import notebook

        return notebook.study_html(self)


def _log_parameters(meta: StudyMeta) -> list[str]:
    """The parameters whose range the study says is logarithmic."""
    return [name for name, entry in search_space(meta).items() if (entry.get("attributes") or {}).get("log")]
