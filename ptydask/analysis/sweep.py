"""A study of a sweep file, as its readers meet it: what a trial's program was given, complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ptydask.analysis.data import json_object
from ptydask.config import reading
from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord
from ptydask.space import sweep_values

ENGINES = ("command", "callable")
"""The engines that run sweeps."""


def is_sweep(meta: StudyMeta) -> bool:
    """Whether the study is of a sweep file, whose program ptydask knows nothing of."""
    return meta.engine in ENGINES


def step_word(meta: StudyMeta) -> str:
    """What a curve runs over: a reconstruction's iterations, the steps that a program counts itself."""
    return "step" if is_sweep(meta) else "iteration"


def error_word(meta: StudyMeta) -> str:
    """What a heading calls the tuned metric: by its own name in a sweep, where it may be no error at all."""
    return (meta.metric or "error") if is_sweep(meta) else "error"


def config(meta: StudyMeta) -> dict[str, Any]:
    """The sweep's configuration, see :mod:`ptydask.space.sweep_values`; empty where the file does not hold one."""
    loaded = json_object(meta.config_json)
    return loaded if isinstance(loaded.get("parameters"), list) else {}


def program_values(meta: StudyMeta, record: TrialRecord) -> dict[str, Any]:
    """What the program of a trial was given: tuned values and constants, nested, by name.

    Where the study's configuration is not known, the tuned ones alone. Raises StoreError for a trial that lacks one.
    """
    loaded = config(meta)
    if not loaded:
        return dict(record.params)
    try:
        return sweep_values.values(loaded, record.params)
    except KeyError as error:
        raise StoreError(f"trial {record.number} has no value of {error.args[0]}") from error


def constants(meta: StudyMeta) -> dict[str, Any]:
    """The parameters that are not tuned, by their names, those of nested ones joined with dots."""
    return {
        parameter["name"]: parameter["value"]
        for parameter in config(meta).get("parameters", ())
        if "value" in parameter
    }


def program(meta: StudyMeta) -> str:
    """What the sweep runs, as its file has it: ``ldctbench-train``, ``train.py``, ``package.module:function``."""
    loaded = config(meta)
    engine = loaded.get("engine")
    name = loaded.get("program")
    if not name and isinstance(engine, Mapping):
        name = engine.get("callable")
    return str(name or "")


def yaml_text(values: Mapping[str, Any]) -> str:
    """The values as YAML that every reader understands alike: a text that looks like a number is in quotes."""
    return str(yaml.dump(dict(values), Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True, width=1000))


class _QuotingDumper(yaml.SafeDumper):
    """Writes ``1e-5``, the text, in quotes: to YAML 1.2 and to ptydask that is a number without them."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if reading.spells_number(value) else None)


_QuotingDumper.add_representer(str, _represent_text)
