"""A study as numbers, read once: what tables, figures and the live Optuna study are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from ptydask.config.ptyrad.metrics import METRICS
from ptydask.errors import UsageError, nearest_hint
from ptydask.model import StudyMeta, TrialRecord
from ptydask.ranking import best_of, metric_names, parameter_names
from ptydask.store.reader import Results

Curve = Mapping[str, NDArray[Any]]
"""``step`` and one column for each metric that was known at every step."""


@dataclass(frozen=True)
class StudyData:
    """Every recorded trial of a study, by number, without arrays."""

    meta: StudyMeta
    records: tuple[TrialRecord, ...]
    curves: Mapping[int, Curve] = field(default_factory=dict)
    """Trial number -> its curve; a trial that never reported has none."""

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best error; None when nothing completed."""
        return best_of(self.records, self.meta.direction)

    @cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        """Kept for :mod:`ptydask.analysis.figures.importance`: several figures ask, and the answer takes seconds."""
        return {}

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters, in the order of their appearance."""
        return tuple(parameter_names(self.records))

    def by_metric(self, name: str) -> StudyData:
        """The study as if another of its metrics had been tuned: errors, the best and all figures are by that one.

        A metric that is not PtyRAD's is taken to be better where it is smaller. Slopes are left out: they are those of
        the metric that was tuned. Raises UsageError where no trial has the metric.
        """
        names = metric_names(self.records)
        if name == self.meta.metric:
            return self
        if name not in names:
            raise UsageError(f"no trial has a metric {name!r}; {nearest_hint(name, names) or 'see ptydask ls'}")
        known = METRICS.get(name) if self.meta.engine == "ptyrad" else None
        meta = replace(self.meta, metric=name, direction="minimize" if known is None else known.direction)
        records = (
            replace(record, error=record.metrics.get(name), gradient={}, relative_decrease=None)
            for record in self.records
        )
        return replace(self, meta=meta, records=tuple(records))


def load_study(results: Results, *, curves: bool = True) -> StudyData:
    """Read all rows, and all curves where asked for. Raises StoreError."""
    records = tuple(results.records())
    return StudyData(results.meta, records, results.curves() if curves else {})


def search_space(meta: StudyMeta) -> dict[str, dict[str, Any]]:
    """Parameter -> Optuna's JSON of its range, in the params file's order; what is no such JSON is left out."""
    space = json_object(meta.search_space_json)
    return {name: entry for name, entry in space.items() if isinstance(entry, dict)}


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``; {} where there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
