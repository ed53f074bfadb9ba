"""A sweep as its engines run it: what ``StudyPlan.config`` holds, and the values of one trial. Standard library only.

A sweep's configuration is JSON-like::

    program     the file or command to run, as given; null where the engine is ``callable``
    command     the command's items, macros and all: ["${env}", "${interpreter}", "${program}", "${args}"]
    parameters  a list, in the order of the file, of {name, path, value} for a constant, {name, path} for a tuned
                parameter, {name, path, labels} for a tuned one with choices that are lists or mappings
    directory   absolute path of the folder that ``ptydask run`` was started in
    engine      the settings of the engine, defaults filled in

``name`` is the parameter's name in the study; those of nested parameters are joined with dots. ``path`` is where its
value belongs in the program's configuration. ``labels`` maps the text that stands for a value to the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptydask.model import Scalar


def values(config: Mapping[str, Any], params: Mapping[str, Scalar]) -> dict[str, Any]:
    """What the program of one trial is given: constants and the trial's ``params``, nested, by name as W&B sorts them.

    LightningCLI and its like need that order: ``model.class_path`` has to come before ``model.init_args``. Raises
    KeyError for a tuned parameter that ``params`` lacks.
    """
    nested: dict[str, Any] = {}
    for parameter in sorted(config["parameters"], key=lambda parameter: parameter["path"]):
        *way, last = parameter["path"]
        mapping = nested
        for part in way:
            mapping = mapping.setdefault(part, {})
        mapping[last] = _parameter_value(parameter, params)
    return nested


def _parameter_value(parameter: Mapping[str, Any], params: Mapping[str, Scalar]) -> Any:
    if "value" in parameter:
        return parameter["value"]
    value = params[parameter["name"]]
    labels = parameter.get("labels") or {}
    return labels.get(value, value) if isinstance(value, str) else value
