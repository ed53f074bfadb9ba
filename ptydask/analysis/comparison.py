"""The best of several studies side by side: ``ptydask.compare``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptydask.analysis.agreement import OptimumAgreement, compare_optima
from ptydask.analysis.study_best import StudyBest
from ptydask.errors import import_optional
from ptydask.formatting import (
    NOTHING,
    error_text,
    from_here,
    printable_text,
    shorten_text,
    value_text,
)
from ptydask.ranking import best_of
from ptydask.space import tunables

if TYPE_CHECKING:
    import pandas


_PARTS = ("confirmed.", "params.", "metrics.", "optimum.", "deviation.", "settings.")
NOT_TUNED = "in parentheses: not tuned there, the file's own value"
"""What a table says of a value between parentheses."""
OF_OPTIMUM = "optimum: by values and slopes; +- is the model's standard deviation, not the distance to the truth"
"""What a table says of the columns with optima."""
_MOST = 5
"""So many settings that differ are shown."""
_LONGEST = 24
"""Characters of a setting's value in the table."""


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
    def settings(self) -> tuple[str, ...]:
        """The dotted keys of the settings that are not alike, those of the microscope first."""
        keys = dict.fromkeys(key for study in self.studies for key in study.settings)
        return tuple(sorted(keys, key=lambda key: not key.startswith("init_params.")))

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """In what the studies differ, so that their errors do not say which did better; () where they do say it."""
        return (*find_obstacles(self.with_best), *map(self._setting_name, self.settings))

    @property
    def agreements(self) -> tuple[OptimumAgreement, ...]:
        """Of each parameter that has its optimum inside its range in two studies or more, whether these agree."""
        optima: dict[str, dict[str, tuple[float, float]]] = {}
        for study in self.studies:
            for name, center in {} if study.optimum is None else study.optimum.center.items():
                if study.optimum is not None and name not in study.at_edge:
                    optima.setdefault(name, {})[study.file] = center, study.optimum.deviation[name]
        return tuple(filter(None, (compare_optima(name, optima[name]) for name in self.parameters if name in optima)))

    @property
    def best(self) -> StudyBest | None:
        """The study with the best error; None where the errors of two or more cannot be compared."""
        if len(self.with_best) < 2 or self.obstacles:
            return None
        top = best_of([study.best for study in self.with_best if study.best], self.with_best[0].meta.direction)
        return next((study for study in self.with_best if study.best is top), None)

    @property
    def best_by_mean(self) -> StudyBest | None:
        """The study whose best trial has the best mean with other seeds; None where errors do not compare.

        And where a study's best trial was not repeated.
        """
        means = {study.file: study.confirmed.get("mean") for study in self.with_best}
        if self.best is None or None in means.values():
            return None
        sign = 1 if self.best.meta.direction == "minimize" else -1
        return min(self.with_best, key=lambda study: sign * (means[study.file] or 0.0))

    def notes(self) -> list[str]:
        """What a reader of the table has to know, one sentence each."""
        notes = [f"{study.file}: {study.problem}" for study in self.studies if study.problem]
        if self.best is not None and self.best.best is not None:
            error = self.best.best.error
            top = [s for s in self.with_best if s.best is not None and s.best.error == error]
            files = ", ".join(f"{study.file}, trial {study.best.number}" for study in top if study.best is not None)
            notes.append(f"best {printable_text(self.best.meta.metric)}: {files}{' (equal)' if len(top) > 1 else ''}")
        if self.best_by_mean is not None and self.best_by_mean is not self.best:
            notes.append(f"with other seeds {self.best_by_mean.file} is the best: {self.best_by_mean.confirmed_text}")
        if self.obstacles:
            notes.append(f"errors cannot be compared: the studies differ in {listed_text(self.obstacles)}")
        if self.optimum_parameters:
            notes += [*map(str, self.agreements), OF_OPTIMUM]
        notes += [f"{s.file}: {s.better_by_mean_text}" for s in self.with_best if s.better_by_mean_text]
        partly = [n for n in self.parameters if any(n not in study.tuned for study in self.studies)]
        if partly:
            notes.append(f"not tuned in all studies: {listed_text(list(map(printable_text, partly)))}")
        if any(self._is_own(study, name) for study in self.studies for name in self.parameters):
            notes.append(NOT_TUNED)
        return notes

    @cached_property
    def optimum_parameters(self) -> frozenset[str]:
        """The parameters whose optimum by the slopes is known in some study."""
        return frozenset(name for study in self.studies if study.optimum is not None for name in study.optimum.center)

    @cached_property
    def _columns(self) -> tuple[_Column, ...]:
        """What some study has; of the settings the first few."""
        error = self.metrics[0] if len(self.metrics) == 1 and self.metrics[0] else "error"
        several = {"metric": self.metrics, "engine": {study.meta.engine for study in self.studies}}
        columns = [
            _Column("file", lambda study: study.file),
            _Column("stage", lambda study: study.meta.stage),
            _Column("trial", lambda study: "" if study.best is None else str(study.best.number), True),
            *(_Column(name, attrgetter(f"meta.{name}")) for name, known in several.items() if len(known) > 1),
            _Column(error, lambda study: "" if study.best is None else error_text(study.best.error), True),
            _Column("confirmed", lambda study: study.confirmed_text, True),
        ]
        for name in self.parameters:
            columns.append(_Column(name, partial(self._value_text, name), True))
            if name in self.optimum_parameters:
                columns.append(_Column(f"{name} optimum", partial(StudyBest.optimum_text, parameter=name), True))
        columns += [
            _Column(self._setting_name(key), partial(_setting_text, key), True) for key in self.settings[:_MOST]
        ]
        columns += [_Column("held out", _held_out_text), _Column("data", self._data_text)]
        always = {"file", "trial", error, *self.parameters}
        return tuple(c for c in columns if c.name in always or any(c.text(study) for study in self.studies))

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table for a person; what no study has is left out."""
        return tuple(printable_text(column.name) for column in self._columns)

    @property
    def numeric(self) -> frozenset[int]:
        """Which of :attr:`columns` hold numbers."""
        return frozenset(i for i, column in enumerate(self._columns) if column.numeric)

    def rows(self) -> list[tuple[str, ...]]:
        """The cells below :attr:`columns`, a row a study, for a person."""
        return [tuple(printable_text(c.text(study)) or NOTHING for c in self._columns) for study in self.studies]

    def _setting_name(self, key: str) -> str:
        """Its last part, as the table has no room; as PtyRAD tunes it where it can; whole where two have one."""
        names = {other: _short_name(other) for other in self.settings}
        return key if list(names.values()).count(names[key]) > 1 or names[key] in self.parameters else names[key]

    def _data_text(self, study: StudyBest) -> str:
        """The data's file name; its path where files of one name are several, its SHA-256 where it was another then."""
        name = Path(study.data).name
        same = {other.data for other in self.studies if Path(other.data).name == name}
        text = name if len(same) == 1 else from_here(Path(study.data))
        digests = {other.data_sha256 for other in self.studies if other.data == study.data}
        return text if len(digests) == 1 else f"{text} SHA-256 {study.data_sha256[:8] or 'unknown'}"

    def _is_own(self, study: StudyBest, parameter: str) -> bool:
        """Whether the study has the file's own value of a parameter that it does not tune."""
        return study.best is not None and parameter not in study.tuned and study.own_value(parameter) is not None

    def _value_text(self, parameter: str, study: StudyBest) -> str:
        if self._is_own(study, parameter):
            return f"({value_text(study.own_value(parameter))})"
        return value_text(study.values[parameter]) if parameter in study.values else ""

    def table(self) -> pandas.DataFrame:
        """A row a study, by file: trial, error, metric, the parameters by their names, confirmed mean, data.

        A parameter that a study does not tune is missing there. Raises MissingDependency without pandas.
        """
        pd = import_optional("pandas", "tables need", "analysis")
        rows = [flat_row(study) for study in self.studies]
        return pd.DataFrame(rows, columns=flat_columns(self)).set_index("file")

    def report(self, path: str | os.PathLike[str], *, scale: Literal["common", "each"] = "common") -> Path:
        """Write a web page with the table and the images of the best trials, for any browser, offline; returns it.

        ``scale``: one grey scale for all images, or each its own. Raises UsageError for a name that is no page's.
        """
        from ptydask.analysis.report import comparison_page

        return comparison_page.write(self, Path(path).expanduser(), scale=scale)

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


@dataclass(frozen=True)
class _Column:
    name: str
    text: Callable[[StudyBest], str]
    numeric: bool = False


def find_obstacles(studies: Sequence[StudyBest]) -> list[str]:
    """In what the studies differ, their settings apart, so that errors do not say which did better: ``the data``."""
    questions: tuple[tuple[str, Callable[[StudyBest], str]], ...] = (
        ("the engine", lambda study: study.meta.engine),
        ("the metric", lambda study: study.meta.metric),
        ("the direction of the metric", lambda study: study.meta.metric and study.meta.direction),
        ("the data", lambda study: study.data_sha256 or study.data),
        ("the data held out", _held_out_text),
    )
    return [what for what, answer in questions if len(set(map(answer, studies))) > 1]


def listed_text(names: Sequence[str], most: int = _MOST + 1) -> str:
    """``scale``, ``scale and dz``, ``scale, dz and rotation``; from ``most`` on they are counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _short_name(key: str) -> str:
    """A setting's dotted key by the name under which it can be tuned, else its last part; an element with its list."""
    tuned = (name for name, tunable in tunables.PARAMETERS.items() if tunable.where == key and name in key)
    return next(tuned, key.rpartition(".")[2])


def _setting_text(key: str, study: StudyBest) -> str:
    return shorten_text(value_text(study.settings[key]), _LONGEST) if key in study.settings else ""


def _held_out_text(study: StudyBest) -> str:
    held_out = study.meta.held_out
    return "" if held_out is None else f"{held_out.share:.3g} of the {held_out.kind}"


# --- one flat row -------------------------------------------------------------------------------------


def flat_columns(compared: StudyComparison) -> list[str]:
    """The columns of :func:`flat_row` that some study has: facts, then those of parts of a trial."""
    names = list(dict.fromkeys(name for study in compared.studies for name in flat_row(study)))
    return [
        *(name for name in names if not name.startswith(_PARTS)),
        *(name for part in _PARTS for name in names if name.startswith(part)),
    ]


def flat_row(study: StudyBest) -> dict[str, Any]:
    """A study as one row, for CSV: ``confirmed.mean``, ``params.NAME``, ``metrics.NAME``; ``tuned`` has blanks."""
    flat = study.to_object()
    confirmed = {name: value for name, value in (flat.pop("confirmed") or {}).items() if name != "metrics"}
    others = (flat.pop(name) for name in ("values", "metrics", "optimum", "deviation", "settings"))
    parts = zip(_PARTS, (confirmed, *others), strict=True)
    flat["tuned"] = " ".join(flat["tuned"])
    return flat | {f"{part}{name}": value for part, values in parts for name, value in values.items()}
