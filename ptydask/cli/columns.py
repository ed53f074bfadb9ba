"""The columns that ``--sort`` and ``--where`` know: of trials, of their confirmation, and what to do for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptydask.cli import where
from ptydask.errors import UsageError
from ptydask.formatting import NOTHING, shell_path, value_text
from ptydask.model import Direction, TrialRecord
from ptydask.ranking import parameter_names
from ptydask.space.metrics import metrics_of

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation

CONFIRMED = "confirmed"
"""The column of means over other seeds."""
ON_REQUEST = frozenset(where.FACTS) - {
    "number",
    "state",
    "error",
    "seconds",
    "iterations",
    "attempt",
    "origin",
    "message",
}
"""Facts that a table for people leaves out unless they are asked for."""
_PARTS = tuple(f"{CONFIRMED}.{part}" for part in ("mean", "sd", "n"))


def more_columns(confirmation: Confirmation | None) -> dict[str, where.Value]:
    """Columns beside those of the records, as csv names them; {} without a confirmation."""
    if confirmation is None:
        return {}

    def column(part: str) -> where.Value:
        return lambda record: getattr(confirmation.mean_sd(record.number), part, None)

    return {CONFIRMED: column("mean"), **{name: column(name.removeprefix(f"{CONFIRMED}.")) for name in _PARTS}}


def absent_hints(engine: str, file: Path, confirmation: Confirmation | None) -> dict[str, str]:
    """How to get the columns that a file may lack, by their names."""
    hidden = {name: known.held_out for name, known in metrics_of(engine).items() if known.held_out}
    hints = {
        name: f"it is computed in a study that is tuned by held-out data: ptydask run PARAMS.yaml --metric {tuned}"
        for name, what in hidden.items()
        for tuned in ["counts" if what == "counts" else "heldout"]
    }
    if confirmation is None:
        hints |= dict.fromkeys(
            (CONFIRMED, *_PARTS), f"no trial is confirmed so far: ptydask confirm {shell_path(file)}"
        )
    return hints


def column_of(
    records: Sequence[TrialRecord],
    name: str,
    more: Mapping[str, where.Value] | None = None,
    hints: Mapping[str, str] | None = None,
) -> where.Value:
    """The function from a trial to its value of column ``name``; of no trials, one that gives None.

    Raises UsageError for a column that no trial has.
    """
    column = where.find_column(records, name, more)
    if column is None and records:
        hint = where.column_hint(records, name, more or (), hints)
        raise UsageError(f"--sort {name}: no trial has such a column; {hint}")
    return column or (lambda _record: None)


def is_larger_better(records: Sequence[TrialRecord], name: str, direction: Direction, metric: str, engine: str) -> bool:
    """Of a column: the study's own ``metric`` by its ``direction``, others by what is known of them."""
    if name in ("error", CONFIRMED, *_PARTS[:1]):
        return direction == "maximize"
    if name in where.FACTS or name in parameter_names(records):
        return False
    plain = name.removeprefix("metrics.")
    known = metrics_of(engine).get(plain)
    return (direction if plain == metric else known.direction if known else "minimize") == "maximize"


def fact_text(record: TrialRecord, name: str) -> str:
    """A fact or a slope for a person."""
    slope = name.removeprefix("gradient.")
    value = getattr(record, name) if slope == name else record.gradient.get(slope)
    return NOTHING if value is None else value_text(value)
