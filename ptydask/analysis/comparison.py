"""The best of several studies side by side: ``ptydask.compare``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.analysis import sweep
from ptydask.analysis.data import json_object, read_confirmation, search_space
from ptydask.analysis.stages import all_values, whole_name
from ptydask.errors import StoreError
from ptydask.formatting import NOTHING, error_text, from_here, printable_text, value_text
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.ranking import best_of, ranked, why_none_is_best
from ptydask.space import tunables
from ptydask.store import reader
from ptydask.store.reader import Results

if TYPE_CHECKING:
    import pandas

    from ptydask.analysis.confirmation import Confirmation

NOT_TUNED = "in parentheses: not tuned there, the file's own value"
"""What a table says of a value between parentheses."""


@dataclass(frozen=True)
class StudyBest:
    """The best trial of one study; of one with stages, that of the latest stage in which a trial has completed."""

    path: Path
    meta: StudyMeta
    trials: int
    """Recorded in its stage, whatever became of them."""
    best: TrialRecord | None
    confirmation: Confirmation | None = None
    problem: str = ""
    """Why there is no best trial."""

    @property
    def name(self) -> str:
        """The study's name, without its stage."""
        return whole_name(self.meta)

    @property
    def file(self) -> str:
        """The results file, as seen from the working directory."""
        return printable_text(from_here(self.path))

    @cached_property
    def tuned(self) -> tuple[str, ...]:
        """The parameters that the study tunes, those of its earlier stages first."""
        earlier = () if self.meta.lineage is None else tuple(self.meta.lineage.values)
        return tuple(dict.fromkeys((*earlier, *search_space(self.meta))))

    @property
    def values(self) -> dict[str, Scalar]:
        """Of the best trial: what it tuned, and what earlier stages had found; {} without one."""
        return {} if self.best is None else all_values(self.meta, self.best)

    def own_value(self, parameter: str) -> Scalar:
        """The value that a parameter has in all trials, where it is not tuned; None where that is not known."""
        if sweep.is_sweep(self.meta):
            value = sweep.constants(self.meta).get(parameter)
            return value if isinstance(value, bool | int | float | str) else None
        config = json_object(self.meta.config_json)
        if self.meta.engine != "ptyrad" or not config:
            return None
        with suppress(LookupError, TypeError, ValueError, AttributeError):
            return tunables.current_value(config, parameter)
        return None

    @property
    def data(self) -> str:
        """The file of the measurements; empty where the study has none, or does not say."""
        if known := self.meta.provenance.get("data"):
            return str(known)
        measured = (json_object(self.meta.config_json).get("init_params") or {}).get("meas_params") or {}
        return str(measured.get("path") or "") if isinstance(measured, Mapping) else ""

    @property
    def data_sha256(self) -> str:
        """Of that file; empty where no worker has read it."""
        return self.meta.provenance.get("data_sha256", "")

    @property
    def confirmed(self) -> dict[str, Any]:
        """``mean``, ``sd`` and ``n`` of the best trial's error with other seeds, and of all ``metrics``; {} without."""
        known = self.best is not None and self.confirmation is not None
        return self.confirmation.summary(self.best.number) if known else {}  # type: ignore[union-attr]

    @property
    def confirmed_text(self) -> str:
        """``0.01234 +- 0.00012 (3)``; empty without repeats of the best trial."""
        known = self.best is not None and self.confirmation is not None
        return self.confirmation.mean_text(self.best.number) if known else ""  # type: ignore[union-attr]

    def to_object(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        best = self.best
        return {
            "file": str(self.path),
            "study": self.name,
            "stage": self.meta.stage or None,
            "engine": self.meta.engine,
            "metric": self.meta.metric,
            "direction": self.meta.direction,
            "trials": self.trials,
            "number": None if best is None else best.number,
            "error": None if best is None else best.error,
            "confirmed": self.confirmed or None,
            "values": self.values,
            "tuned": list(self.tuned),
            "metrics": {} if best is None else dict(best.metrics),
            "data": self.data or None,
            "data_sha256": self.data_sha256 or None,
            "problem": self.problem or None,
        }


@dataclass(frozen=True, repr=False)
class StudyComparison:
    """The best trials of several studies, in the order of the files."""

    studies: tuple[StudyBest, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """File -> why it cannot be read."""

    @property
    def with_best(self) -> tuple[StudyBest, ...]:
        """Those in which a trial has completed."""
        return tuple(study for study in self.studies if study.best is not None)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """All parameters that some study tunes, in the order of their appearance."""
        return tuple(dict.fromkeys(name for study in self.studies for name in study.tuned))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The tuned metrics."""
        return tuple(dict.fromkeys(study.meta.metric for study in self.studies))

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """Why the errors do not say which study did better, one sentence each; () where they do."""
        return tuple(find_obstacles(self.with_best))

    @property
    def best(self) -> StudyBest | None:
        """The study with the best error; None where the errors of two or more cannot be compared."""
        if len(self.with_best) < 2 or self.obstacles:
            return None
        records = {id(study.best): study for study in self.with_best}
        top = ranked((study.best for study in self.with_best if study.best), self.with_best[0].meta.direction)
        return records[id(top[0])] if top else None

    def notes(self) -> list[str]:
        """What a reader of the table has to know, one sentence each."""
        notes = [f"{study.file}: {study.problem}" for study in self.studies if study.problem]
        notes += self.obstacles
        tuned = {frozenset(study.tuned) for study in self.studies}
        if len(tuned) > 1:
            texts = [f"{study.file}: {', '.join(map(printable_text, study.tuned)) or 'nothing'}" for study in self.studies]
            notes.append(f"other things are tuned: {'; '.join(texts)}")
        if any(NOT_TUNED in notes or cell.startswith("(") for row in self.rows() for cell in row):
            notes.append(NOT_TUNED)
        return notes

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table for a person; what no study has is left out."""
        one_metric = len(self.metrics) == 1
        stage = ("stage",) if any(study.meta.stage for study in self.studies) else ()
        error = (printable_text(self.metrics[0]) or "error",) if one_metric else ("metric", "error")
        confirmed = ("confirmed",) if any(study.confirmed_text for study in self.studies) else ()
        data = ("data",) if any(study.data for study in self.studies) else ()
        return ("file", *stage, "trial", *error, *confirmed, *map(printable_text, self.parameters), *data)

    def rows(self) -> list[tuple[str, ...]]:
        """The cells below :attr:`columns`, a row a study, for a person."""
        return [self._row(study) for study in self.studies]

    def _row(self, study: StudyBest) -> tuple[str, ...]:
        columns, best = self.columns, study.best
        cells = [study.file]
        cells += [study.meta.stage or NOTHING] if "stage" in columns[1:2] else []
        cells.append(NOTHING if best is None else str(best.number))
        cells += [] if len(self.metrics) == 1 else [study.meta.metric or NOTHING]
        cells.append(error_text(None if best is None else best.error))
        if any(other.confirmed_text for other in self.studies):
            cells.append(study.confirmed_text or NOTHING)
        cells += [self._value_text(study, name) for name in self.parameters]
        if any(other.data for other in self.studies):
            cells.append(Path(study.data).name or NOTHING)
        return tuple(map(printable_text, cells))

    def _value_text(self, study: StudyBest, parameter: str) -> str:
        if parameter in study.values:
            return value_text(study.values[parameter])
        own = None if study.best is None or parameter in study.tuned else study.own_value(parameter)
        return NOTHING if own is None else f"({value_text(own)})"

    def table(self) -> pandas.DataFrame:
        """A row a study, by file: trial, error, metric, the parameters by their names, confirmed mean, data.

        A parameter that a study does not tune is missing there. Raises MissingDependency without pandas.
        """
        from ptydask.analysis.dataframe import import_pandas

        rows = [flat_row(study) for study in self.studies]
        return import_pandas().DataFrame(rows, columns=flat_columns(self)).set_index("file")

    def __repr__(self) -> str:
        cells = [self.columns, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells])

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

        body = "".join(row("td", cells) for cells in self.rows())
        notes = "".join(f"<br><small>{escape(note)}</small>" for note in self.notes())
        return f"<table><thead>{row('th', self.columns)}</thead><tbody>{body}</tbody></table>{notes}"


# --- what can be compared: pure -----------------------------------------------------------------------


def find_obstacles(studies: Sequence[StudyBest]) -> Iterable[str]:
    """Why errors of these studies do not compare, one sentence each."""
    questions = (
        ("other engines ran them", lambda study: study.meta.engine),
        ("they tune by other metrics", lambda study: f"{study.meta.direction} {study.meta.metric}".strip()),
        ("other data were held out", lambda study: "" if study.meta.held_out is None else str(study.meta.held_out.share)),
    )
    for words, answer in questions:
        answers = [(study.file, answer(study)) for study in studies]
        if len({text for _, text in answers}) > 1:
            yield f"errors are not compared, {words}: {'; '.join(f'{file}: {text}' for file, text in answers)}"


# --- reading ------------------------------------------------------------------------------------------


def compare_studies(paths: Iterable[str | os.PathLike[str]]) -> StudyComparison:
    """The best trials of the studies in these results files, finished or running, each file once.

    Files that cannot be read are in ``unreadable``. Raises StoreError where none can, that of the first.
    """
    studies: list[StudyBest] = []
    errors: dict[str, StoreError] = {}
    for path in dict.fromkeys(Path(path).expanduser().absolute() for path in paths):
        try:
            studies.append(read_study_best(path))
        except StoreError as error:
            errors[str(path)] = error
    if errors and not studies:
        raise next(iter(errors.values()))
    return StudyComparison(tuple(studies), {file: str(error) for file, error in errors.items()})


def read_study_best(path: Path) -> StudyBest:
    """The best trial in a results file. Raises StoreError where it cannot be read."""
    with reader.open(path) as results:
        latest = _best_of_results(path, results)
        if latest.best is not None or not latest.meta.metric:
            return latest
        for name in reversed(results.stage_names()[:-1]):
            with results.stage(name) as stage:
                earlier = _best_of_results(path, stage)
            if earlier.best is not None:
                return earlier
        return latest


def _best_of_results(path: Path, results: Results) -> StudyBest:
    records, meta = results.records(), results.meta
    best = best_of(records, meta.direction)
    problem = "" if best is not None else why_none_is_best(meta.metric, len(records))
    return StudyBest(path, meta, len(records), best, read_confirmation(results), problem)


# --- one flat row -------------------------------------------------------------------------------------


def flat_columns(compared: StudyComparison) -> list[str]:
    """The columns of :func:`flat_row` that some study has."""
    names = dict.fromkeys(name for study in compared.studies for name in flat_row(study))
    order = ("file", "confirmed.", "params.", "metrics.")  # the others where they stand
    return sorted(names, key=lambda name: next((i for i, start in enumerate(order) if name.startswith(start)), 0))


def flat_row(study: StudyBest) -> dict[str, Any]:
    """A study as one row, for CSV: ``confirmed.mean``, ``params.NAME``, ``metrics.NAME``; ``tuned`` joined by blanks."""
    flat = study.to_object()
    parts = {"confirmed": flat.pop("confirmed") or {}, "params": flat.pop("values"), "metrics": flat.pop("metrics")}
    parts["confirmed"].pop("metrics", None)
    flat["tuned"] = " ".join(flat["tuned"])
    return flat | {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
