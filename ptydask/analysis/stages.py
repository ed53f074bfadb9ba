"""The stages of a study: which a results file has, what each of them found, and where a trial's values are from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from ptydask.analysis.data import StudyData, json_object, load_study
from ptydask.analysis.gain import compute_gain
from ptydask.errors import StoreError, nearest_hint
from ptydask.formatting import NOTHING, error_text, printable_text, value_text
from ptydask.lineage import FINAL, StageLineage
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.ranking import best_of
from ptydask.store import codec, reader
from ptydask.store.reader import Results

COLUMNS = ("stage", "trials", "best", "trial", "found", "from")
"""Of the table of stages; ``trial`` is the best one."""


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage of a study, as far as it has run."""

    name: str
    metric: str
    trials: int
    """Recorded, whatever became of them."""
    best: TrialRecord | None
    tuned: tuple[str, ...]
    lineage: StageLineage

    @property
    def cells(self) -> tuple[str, ...]:
        """For a person, in the order of :data:`COLUMNS`."""
        best = self.best
        found = ", ".join(self.tuned) if best is None else values_text(best.params)
        error = "" if best is None else f"{self.metric} {error_text(best.error)}".strip()
        number = "" if best is None else str(best.number)
        texts = (self.name, str(self.trials), error, number, found, predecessor_text(self.lineage))
        return tuple(printable_text(text) or NOTHING for text in texts)

    def __str__(self) -> str:
        return "  ".join(self.cells)


class Stages(Mapping[str, StageSummary]):
    """The stages of a study by name, in their order: those that have begun. Empty for a study without stages."""

    def __init__(self, stages: Sequence[StageSummary] = ()) -> None:
        self._stages = {stage.name: stage for stage in stages}

    def __getitem__(self, name: str) -> StageSummary:
        if name not in self._stages:
            raise KeyError(f"no stage {name!r} has begun; {nearest_hint(name, self._stages) or 'there are none'}")
        return self._stages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    @property
    def to_come(self) -> tuple[str, ...]:
        """The names of those that have not begun."""
        planned = [stage.lineage.stages for stage in self._stages.values()][-1:]
        return tuple(name for names in planned for name in names if name not in self._stages)

    def lines(self) -> list[str]:
        """A line each below a heading, in columns, for a person; and which are still to come."""
        if not self:
            return []
        rows = [COLUMNS, *(stage.cells for stage in self.values())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return [*lines, f"still to come: {printable_text(', '.join(self.to_come))}"] if self.to_come else lines

    def __repr__(self) -> str:
        return "\n".join(self.lines()) or "<no stages>"

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

        body = "".join(row("td", stage.cells) for stage in self.values())
        rest = f"<small>still to come: {escape(', '.join(self.to_come))}</small>" if self.to_come else ""
        return f"<table><thead>{row('th', COLUMNS)}</thead><tbody>{body}</tbody></table>{rest}"


# --- which there are, and which is meant --------------------------------------------------------------


def read_stages(results: Results) -> Stages:
    """The stages in the file. Raises StoreError."""
    return Stages([_summarize(stage) for stage in _read_each(results, _records_of)])


def load_stages(results: Results, *, curves: bool = True) -> tuple[StudyData, ...]:
    """Every stage in the file, in their order; () for a study without any. Raises StoreError."""
    return tuple(_read_each(results, lambda stage: load_study(stage, curves=curves)))


def _read_each(results: Results, read: Any) -> Iterator[Any]:
    own = results.meta.lineage
    for name in results.stage_names():
        if own is not None and name == own.name:
            yield read(results)
        else:
            with results.stage(name) as stage:
                yield read(stage)


def _records_of(results: Results) -> StudyData:
    return StudyData(results.meta, tuple(results.records()))


def _summarize(study: StudyData) -> StageSummary:
    meta = study.meta
    lineage = meta.lineage or StageLineage(meta.name, ())
    best = best_of(study.records, meta.direction)
    return StageSummary(lineage.name, meta.metric, len(study.records), best, tuple(codec.search_space(meta)), lineage)


def open_tuned(path: Path, stage: str = "") -> Results:
    """The study that a question about tuning is asked of: the ``stage``, or the last one that tuned something.

    That is the latest one, but for the final reconstruction, which tunes nothing. Raises StoreError.
    """
    results = reader.open(path, stage)
    before = "" if stage else results.tuned_before()
    if not before:
        return results
    with results:
        return results.stage(before)


# --- where values are from ----------------------------------------------------------------------------


def whole_name(meta: StudyMeta) -> str:
    """The name of the study that a stage is of."""
    return meta.name if meta.lineage is None else meta.name.removesuffix(f" {meta.lineage.name}")


def all_values(meta: StudyMeta, record: TrialRecord) -> dict[str, Scalar]:
    """What all stages up to a trial's found, and the trial's own values."""
    return {**({} if meta.lineage is None else meta.lineage.values), **record.params}


def inherited_values(meta: StudyMeta, record: TrialRecord) -> dict[str, Scalar]:
    """The values of a trial that earlier stages found."""
    values = {} if meta.lineage is None else meta.lineage.values
    return {name: value for name, value in values.items() if name not in record.params}


def origin_lines(meta: StudyMeta, record: TrialRecord, *, own: bool = False) -> list[str]:
    """``dz 15.2 from stage dz, trial 4``: a line for each earlier trial that values of ``record`` are from.

    With its ``own`` as the last line.
    """
    if meta.lineage is None:
        return []
    by_origin: dict[tuple[str, int], dict[str, Scalar]] = {}
    for name, value in inherited_values(meta, record).items():
        if name in meta.lineage.origins:
            by_origin.setdefault(meta.lineage.origins[name], {})[name] = value
    if own and record.params:
        by_origin[meta.lineage.name, record.number] = dict(record.params)
    return [
        f"{values_text(values)} from stage {printable_text(stage)}, trial {trial}"
        for (stage, trial), values in by_origin.items()
    ]


def values_text(values: Mapping[str, Scalar]) -> str:
    """``scale 1.02, rotation -1.5``."""
    return ", ".join(f"{printable_text(name)} {value_text(value)}" for name, value in values.items())


def stage_text(lineage: StageLineage) -> str:
    """``stage 2 of 3: scan``."""
    return f"stage {printable_text(lineage.place)}"


def predecessor_text(lineage: StageLineage) -> str:
    """``dz, trial 4``: what it goes on from; ``with its reconstruction``, or another, where trials start from one."""
    own = "" if lineage.from_trial is None else f"{lineage.from_stage}, trial {lineage.from_trial}"
    if lineage.start_trial is None:
        return own
    if (lineage.start_stage, lineage.start_trial) == (lineage.from_stage, lineage.from_trial):
        return f"{own}, with its reconstruction"
    return f"{own}, with the reconstruction of {lineage.start_stage}, trial {lineage.start_trial}"


def start_text(lineage: StageLineage) -> str:
    """The reconstruction that its trials start from; empty where they start from nothing."""
    if lineage.start_trial is None:
        return ""
    return printable_text(f"starts from the reconstruction of stage {lineage.start_stage}, trial {lineage.start_trial}")


def final_text(results: Results, record: TrialRecord) -> str:
    """How a final reconstruction compares with the trial that it goes on from; empty where the errors do not compare.

    As where that trial saw a part of the scan or of the patterns, or had another metric.
    """
    lineage = results.meta.lineage
    if lineage is None or lineage.name != FINAL or lineage.from_trial is None:
        return ""
    try:
        with results.stage(lineage.from_stage) as stage:
            meta, before = stage.meta, stage.trial(lineage.from_trial).record
    except StoreError:
        return ""
    gain = compute_gain(record, before, meta.direction)
    if gain is None or gain.share is None or _data_of(meta) != _data_of(results.meta):
        return ""
    word = "better" if gain.difference > 0 else "worse"
    theirs = f"{predecessor_text(replace(lineage, start_trial=None))}, whose values it has: {error_text(before.error)}"
    return f"{gain.share:.2%} {word} than stage {printable_text(theirs)}"


def _data_of(meta: StudyMeta) -> object:
    """What the metric of a stage is computed on."""
    config = json_object(meta.config_json)
    settings = {**(config.get("init_params") or {}), **(config.get("recon_params") or {})}
    return meta.metric, meta.held_out, [settings.get(key) for key in ("INDICES_MODE", "meas_crop", "meas_resample")]


def stage_object(stage: StageSummary) -> dict[str, Any]:
    """A stage as plain values, for JSON."""
    best = stage.best
    return {
        "name": stage.name,
        "trials": stage.trials,
        "metric": stage.metric,
        "best": None if best is None else {"number": best.number, "error": best.error, "params": dict(best.params)},
        "tuned": list(stage.tuned),
        **lineage_object(stage.lineage),
    }


def lineage_object(lineage: StageLineage) -> dict[str, Any]:
    """Where a stage's values are from, as plain values: ``origins`` by parameter as ``{stage, trial}``."""
    origins = {name: {"stage": stage, "trial": trial} for name, (stage, trial) in lineage.origins.items()}
    return {
        "from_stage": lineage.from_stage or None,
        "from_trial": lineage.from_trial,
        "values": dict(lineage.values),
        "origins": origins,
        "start_stage": lineage.start_stage or None,
        "start_trial": lineage.start_trial,
    }
