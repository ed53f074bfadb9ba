"""The best of several studies side by side: ``ptydask.compare``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptydask.analysis import sweep
from ptydask.analysis.data import json_object, search_space
from ptydask.analysis.stages import all_values, whole_name
from ptydask.errors import import_optional
from ptydask.formatting import NOTHING, error_text, from_here, printable_text, value_text
from ptydask.model import Optimum, Scalar, StudyMeta, TrialRecord
from ptydask.ranking import best_of
from ptydask.space import tunables

if TYPE_CHECKING:
    import pandas

    from ptydask.analysis.confirmation import Confirmation

_PARTS = ("confirmed.", "params.", "metrics.", "optimum.", "deviation.")
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
    optimum: Optimum | None = None
    """Where the error has its optimum by the slopes; None without slopes. After a final reconstruction, that of the
    stage before it."""
    optimum_texts: Mapping[str, str] = field(default_factory=dict)
    """The same for a person, by parameter."""
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
        value: Any = json_object(self.meta.config_json)
        for key in ("init_params", "meas_params", "path"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else ""

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

    @property
    def better_by_mean_text(self) -> str:
        """That another trial is the best with other seeds; else empty."""
        from ptydask.analysis.confirmation import better_by_mean_text

        return "" if self.confirmation is None else better_by_mean_text(self.confirmation)

    @property
    def optimum_text(self) -> str:
        """``optimum by the slopes: scale 1.0387 +- 0.0012``; empty without slopes."""
        pairs = ", ".join(f"{printable_text(name)} {text}" for name, text in self.optimum_texts.items())
        return f"optimum by the slopes: {pairs}" if pairs else ""

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
            "optimum": {} if self.optimum is None else dict(self.optimum.center),
            "deviation": {} if self.optimum is None else dict(self.optimum.deviation),
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
    differences: tuple[str, ...] = ()
    """The settings in which those that have a best trial differ, what they tune and their data left out."""

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
        return tuple(find_obstacles(self.with_best, self.differences))

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
        notes += self.obstacles
        for study in self.with_best:
            notes += [f"{study.file}: {text}" for text in (study.optimum_text, study.better_by_mean_text) if text]
        tuned: dict[str, list[str]] = {}
        for study in self.studies:
            tuned.setdefault(", ".join(sorted(study.tuned)) or "nothing", []).append(study.file)
        if len(tuned) > 1:
            notes.append(f"other parameters are tuned: {grouped_text(tuned)}")
        return (
            [*notes, NOT_TUNED]
            if any(self._is_own(study, n) for study in self.studies for n in self.parameters)
            else notes
        )

    @property
    def _facts(self) -> tuple[str, ...]:
        """What a table has of each study before the parameters: what some of them have."""
        absent = {
            "stage": not any(study.meta.stage for study in self.studies),
            "metric": len(self.metrics) == 1,
            "confirmed": not any(study.confirmed_text for study in self.studies),
        }
        return tuple(n for n in ("file", "stage", "trial", "metric", "error", "confirmed") if not absent.get(n))

    @property
    def _has_data(self) -> bool:
        return any(study.data for study in self.studies)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table for a person; what no study has is left out."""
        error = self.metrics[0] if len(self.metrics) == 1 and self.metrics[0] else "error"
        facts = [error if name == "error" else name for name in self._facts]
        return tuple(map(printable_text, [*facts, *self.parameters, *(["data"] * self._has_data)]))

    @property
    def numeric(self) -> frozenset[int]:
        """Which of :attr:`columns` hold numbers."""
        facts = [i for i, name in enumerate(self._facts) if name in ("trial", "error", "confirmed")]
        return frozenset([*facts, *(len(self._facts) + i for i in range(len(self.parameters)))])

    def rows(self) -> list[tuple[str, ...]]:
        """The cells below :attr:`columns`, a row a study, for a person."""
        return [self._row(study) for study in self.studies]

    def _row(self, study: StudyBest) -> tuple[str, ...]:
        best = study.best
        cells = {
            "file": study.file,
            "stage": study.meta.stage,
            "trial": "" if best is None else str(best.number),
            "metric": study.meta.metric,
            "error": "" if best is None else error_text(best.error),
            "confirmed": study.confirmed_text,
        }
        texts = [cells[name] for name in self._facts] + [self._value_text(study, name) for name in self.parameters]
        texts += [self._data_text(study)] if self._has_data else []
        return tuple(printable_text(text) or NOTHING for text in texts)

    def _data_text(self, study: StudyBest) -> str:
        """The data's file name; its path where files of one name are several."""
        name = Path(study.data).name
        same = {other.data for other in self.studies if Path(other.data).name == name}
        return name if len(same) == 1 else from_here(Path(study.data))

    def _is_own(self, study: StudyBest, parameter: str) -> bool:
        """Whether the study has the file's own value of a parameter that it does not tune."""
        return study.best is not None and parameter not in study.tuned and study.own_value(parameter) is not None

    def _value_text(self, study: StudyBest, parameter: str) -> str:
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


def find_obstacles(studies: Sequence[StudyBest], differences: Sequence[str] = ()) -> list[str]:
    """Why errors of these studies do not say which did better, one sentence each; ``differences`` are of settings."""
    questions: tuple[tuple[str, Callable[[StudyBest], str]], ...] = (
        ("engines", lambda study: study.meta.engine),
        ("metrics", lambda study: study.meta.metric and f"{study.meta.direction}d {study.meta.metric}"),
        ("data", _data_identity),
        ("held-out data", _held_out_text),
    )
    sentences = []
    for what, answer in questions:
        files: dict[str, list[str]] = {}
        for study in studies:
            files.setdefault(answer(study), []).append(study.file)
        if len(files) > 1:
            sentences.append(f"errors do not compare, of other {what}: {grouped_text(files)}")
    if differences:
        sentences.append(f"errors do not compare, of other settings: {'; '.join(differences)}")
    return sentences


def grouped_text(files: Mapping[str, Sequence[str]]) -> str:
    """``minimized loss (a.h5, b.h5), maximized contrast (c.h5)``."""
    return ", ".join(f"{printable_text(text) or 'none'} ({', '.join(names)})" for text, names in files.items())


def _data_identity(study: StudyBest) -> str:
    """The data's file name, and what tells it from another of that name."""
    digest = study.data_sha256[:8]
    return " ".join(filter(None, (Path(study.data).name, digest and f"SHA-256 {digest}...")))


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
    others = (flat.pop(name) for name in ("values", "metrics", "optimum", "deviation"))
    parts = zip(_PARTS, (confirmed, *others), strict=True)
    flat["tuned"] = " ".join(flat["tuned"])
    return flat | {f"{part}{name}": value for part, values in parts for name, value in values.items()}
