"""The best trial of one study, and what has to be known of the study to put it beside others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.analysis import sweep
from ptydask.analysis.data import json_object, search_space
from ptydask.analysis.stages import all_values, whole_name
from ptydask.formatting import from_here, printable_text, uncertain_text, value_text
from ptydask.model import Optimum, Scalar, StudyMeta, TrialRecord
from ptydask.space import tunables

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation


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
    at_edge: frozenset[str] = frozenset()
    """The parameters whose optimum is at an end of their range, or beyond it."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Dotted key -> value, of the settings that decide a trial's result and are not alike in all that are compared."""
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

    def optimum_text(self, parameter: str) -> str:
        """``1.0387 +- 0.0012``, or ``1.1 or beyond``, at an end of its range; empty where it has no slopes."""
        if self.optimum is None or parameter not in self.optimum.center:
            return ""
        center = self.optimum.center[parameter]
        if parameter in self.at_edge:
            return f"{value_text(center)} or beyond"
        return uncertain_text(center, self.optimum.deviation[parameter])

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
            "settings": dict(self.settings),
            "data": self.data or None,
            "data_sha256": self.data_sha256 or None,
            "problem": self.problem or None,
        }
