"""A study as numbers, read once: what tables, figures and the live Optuna study are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ptydask.analysis.forks import map_in_forks
from ptydask.errors import StoreError, UsageError, nearest_hint
from ptydask.model import Direction, StudyMeta, TrialRecord
from ptydask.ranking import best_of, metric_names, parameter_names
from ptydask.space.metrics import metrics_of
from ptydask.store.reader import Results

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation

Curve = Mapping[str, NDArray[Any]]
"""``step`` and one column for each metric that was known at every step."""


@dataclass(frozen=True)
class StudyData:
    """Every recorded trial of a study, by number, without arrays."""

    meta: StudyMeta
    records: tuple[TrialRecord, ...]
    curves: Mapping[int, Curve] = field(default_factory=dict)
    """Trial number -> its curve; a trial that never reported has none."""
    confirmation: Confirmation | None = None
    """The best trials once more with other seeds; None where nobody confirmed any."""
    stages: tuple[StudyData, ...] = ()
    """Every stage in their order, this one among them, where all are to be drawn; () for one study by itself."""
    to_come: bool = False
    """Whether a run that went on would go on in this stage, or begin one after it."""

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best error; None when nothing completed."""
        return best_of(self.records, self.meta.direction)

    @cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        """Kept for :mod:`ptydask.analysis.figures.importance`: several figures ask, and the answer takes seconds."""
        return {}

    @cached_property
    def scales(self) -> dict[str, Any]:
        """By parameter, kept for :mod:`ptydask.analysis.figures.scales`: every figure asks, and it takes all trials."""
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
        stages = tuple(stage.by_metric(name) for stage in self.stages if name in metric_names(stage.records))
        if name == self.meta.metric:
            return replace(self, stages=stages) if stages else self
        if name not in names:
            raise UsageError(f"no trial has a metric {name!r}; {nearest_hint(name, names) or 'see ptydask ls'}")
        meta = replace(self.meta, metric=name, direction=known_directions(self.meta).get(name, "minimize"))
        records = tuple(
            replace(record, error=record.metrics.get(name), gradient={}, relative_decrease=None)
            for record in self.records
        )
        confirmation = None if self.confirmation is None else self.confirmation.by_metric(meta, records)
        return replace(self, meta=meta, records=records, confirmation=confirmation, stages=stages)


def known_directions(meta: StudyMeta) -> dict[str, Direction]:
    """Which way each metric is better, as far as that is known: the tuned one, and those of PtyRAD's trials."""
    of_engine = {name: metric.direction for name, metric in metrics_of(meta.engine).items()}
    return {**of_engine, **({meta.metric: meta.direction} if meta.metric else {})}


def are_to_come(results: Results) -> bool:
    """Whether a run that went on would begin, or go on with, a stage after all trials that these results have."""
    lineage = results.meta.lineage
    if lineage is None or results.stage_names()[-1:] != (lineage.name,):
        return False
    return lineage.name != lineage.stages[-1] or not results.records()


def load_study(results: Results, *, curves: bool = True, on_all_cores: bool = False) -> StudyData:
    """Read all rows, the confirmation, and all curves where asked for. Raises StoreError.

    ``on_all_cores`` is for commands: curves are read in forks, too, which a program may not want of itself.
    """
    records = tuple(results.records())
    columns = results.curves(map_in_forks if on_all_cores else map) if curves else {}
    return StudyData(results.meta, records, columns, read_confirmation(results), to_come=are_to_come(results))


def read_confirmation(results: Results) -> Confirmation | None:
    """The repeats of the study's best trials; None without any, or where they are damaged: the trials are not."""
    from ptydask.analysis.confirmation import Confirmation  # reads a study's data itself

    with suppress(StoreError):
        return Confirmation.of(results)
    return None


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
