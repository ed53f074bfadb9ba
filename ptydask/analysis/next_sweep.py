"""The sweep file of the next study: the last one's text with other ranges, constants and another name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import yaml

from ptydask.analysis import sweep
from ptydask.analysis.advice import Advice, StudyFacts
from ptydask.analysis.export.params import ParamsFile
from ptydask.analysis.next_study import NextStudy, comment_text
from ptydask.config import yaml_text
from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.errors import StoreError
from ptydask.model import StudyMeta


def render_next_sweep(meta: StudyMeta, facts: StudyFacts, following: NextStudy, advice: Sequence[Advice]) -> ParamsFile:
    """The sweep file of the next study as text, the advice as comments on top.

    Raises StoreError where the last one is no YAML, or spells a range otherwise than by ``min`` and ``max``.
    """
    try:
        data = yaml.safe_load(meta.config_text)
        places = {parameter["name"]: parameter["path"] for parameter in sweep.config(meta)["parameters"]}
        changed = copy.deepcopy(data)
        changed["name"] = following.name
        for name, dist in facts.space.items():
            holder, last = _find_entry(changed, places[name])
            if name not in following.tune:
                holder[last] = {"value": following.best.params[name]}
            elif following.tune[name] != dist:
                _set_range(holder[last], following.tune[name])
    except (KeyError, TypeError, ValueError, yaml.YAMLError):
        changed = None
    text = None if changed is None else yaml_text.rewrite(meta.config_text, changed)
    if text is None:
        raise StoreError(
            f"study {meta.name}: its sweep file has ranges that are not given by min and max; change it there"
        )
    return ParamsFile(f"{comment_text(meta, following, advice)}{text.rstrip()}\n")


def _find_entry(data: dict[str, Any], path: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The mapping that holds the parameter's entry, and the entry's key in it."""
    *way, last = path
    holder = data["parameters"]
    for part in way:
        holder = holder[part]["parameters"]
    if not isinstance(holder[last], dict):
        raise TypeError(last)
    return holder, last


def _set_range(entry: dict[str, Any], dist: Distribution) -> None:
    """Raises KeyError or TypeError for a range that ``min`` and ``max`` do not say: exponents, steps."""
    if not isinstance(dist, FloatRange | IntRange) or dist.step not in (None, 1) or entry.get("distribution") in _OTHER:
        raise TypeError(dist)
    for end, value in (("min", dist.low), ("max", dist.high)):
        if end not in entry:
            raise KeyError(end)
        entry[end] = value


_OTHER = ("log_uniform", "q_log_uniform", "q_uniform", "q_log_uniform_values")
"""Distributions whose ends are exponents, or that have steps."""
