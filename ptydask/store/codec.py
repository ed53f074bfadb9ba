"""Records as JSON text, exactly: NaN, infinities, None and integers of any size come back as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ptydask.interning import intern_text, intern_texts
from ptydask.lineage import StageLineage
from ptydask.model import HeldOut, KeepOptions, Reason, Scalar, StudyMeta, TrialRecord, TrialState

_FLOAT = "$float"
_MAPPINGS = ("params", "metrics", "gradient")
_REPEATED = ("origin", "worker", "host", "job", "device")
"""Fields of texts that few trials have for themselves."""
_SINCE_2 = ("gradient", "relative_decrease", "iterations", "last_step")
"""Fields that a record of format 1 did not have: they are in the text where they say something."""
_META_SINCE = ("held_out", "own_metrics", "lineage")
"""Fields that a study's description has had since: the same, so that an earlier ptydask reads files without them."""


def dumps(value: Any) -> str:
    """Strict JSON of plain values; NaN and infinities are written ``{"$float": "nan"}``."""
    return json.dumps(_to_plain(value), allow_nan=False)


def loads(text: str) -> Any:
    """The value that :func:`dumps` wrote. Raises ValueError on anything else."""
    return json.loads(text, object_hook=_restore_float)


def scalar(value: Any) -> Any:
    """A NumPy scalar as the Python value that it stands for; everything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _to_plain(value: Any) -> Any:
    value = scalar(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return _to_plain(_field_values(value))
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _restore_float(item: dict[str, Any]) -> Any:
    return float(item[_FLOAT]) if item.keys() == {_FLOAT} else item


def _field_values(value: Any) -> dict[str, Any]:
    # Not dataclasses.asdict: it deep-copies, which read-only mappings do not bear.
    return {field.name: getattr(value, field.name) for field in fields(value)}


def record_to_json(record: TrialRecord) -> str:
    """The record, all but its traceback."""
    columns = _field_values(record)
    del columns["traceback"]
    return dumps({k: v for k, v in columns.items() if k not in _SINCE_2 or v not in (None, {})})


def record_from_json(text: str, traceback: str = "") -> TrialRecord:
    """The record again. Raises ValueError, KeyError or TypeError on any other text."""
    columns = loads(text)
    columns["state"], columns["reason"] = TrialState(columns["state"]), Reason(columns["reason"])
    return TrialRecord(**_intern_repeated(columns), traceback=traceback)


def share_texts(record: TrialRecord) -> TrialRecord:
    """The record with one object for each text that most records repeat, as :func:`record_from_json` gives it."""
    return TrialRecord(**_intern_repeated(_field_values(record)))


def _intern_repeated(columns: dict[str, Any]) -> dict[str, Any]:
    # dict() raises TypeError or ValueError for what is no mapping.
    mappings = {name: intern_texts(dict(columns[name])) for name in _MAPPINGS if name in columns}
    texts = {name: intern_text(columns[name]) for name in _REPEATED if name in columns}
    return {**columns, **mappings, **texts}


def meta_to_json(meta: StudyMeta) -> str:
    """What the store says about its study."""
    fields_said = _field_values(meta)
    return dumps({k: v for k, v in fields_said.items() if k not in _META_SINCE or v not in (None, {})})


def stage_facts(meta: StudyMeta) -> dict[str, Scalar]:
    """What the group of a stage says for people: which it is, and what it goes on from."""
    if meta.lineage is None:
        return {}
    lineage = meta.lineage
    before = {"from_stage": lineage.from_stage, "from_trial": lineage.from_trial} if lineage.from_stage else {}
    values = {"values": dumps(lineage.values)} if lineage.values else {}
    return {"stage": lineage.name, **before, **values}


def search_space(meta: StudyMeta) -> dict[str, Any]:
    """The tuned parameters, each with its distribution as JSON has it; empty where the study does not say."""
    try:
        space = json.loads(meta.search_space_json or "{}")
    except ValueError:
        return {}
    return space if isinstance(space, dict) else {}


def meta_from_json(text: str) -> StudyMeta:
    """The study's description again. Raises ValueError, KeyError or TypeError on any other text."""
    values = loads(text)
    held_out = values.get("held_out")
    values["held_out"] = None if held_out is None else HeldOut(**held_out)
    lineage = values.get("lineage")
    values["lineage"] = None if lineage is None else _lineage_from(lineage)
    return StudyMeta(**{**values, "keep": KeepOptions(**values["keep"])})


def _lineage_from(values: dict[str, Any]) -> StageLineage:
    origins = {name: (str(stage), int(trial)) for name, (stage, trial) in values["origins"].items()}
    return StageLineage(**{**values, "stages": tuple(values["stages"]), "origins": origins})
