"""Samplers, pruners and distributions of Optuna from a plan's plain description of them."""

from ptydask.sampling.described import from_json, natural, search_space_json
from ptydask.sampling.distributions import (
    foreign_values,
    from_optuna_params,
    kept_attributes,
    stale,
    suggest,
    to_optuna,
    to_optuna_params,
    translated,
    value_attributes,
)
from ptydask.sampling.factory import pruner, sampler
from ptydask.sampling.grid import grid_points, identity
from ptydask.sampling.rehearsal import check

__all__ = [
    "check",
    "foreign_values",
    "from_json",
    "from_optuna_params",
    "grid_points",
    "identity",
    "kept_attributes",
    "natural",
    "pruner",
    "sampler",
    "search_space_json",
    "stale",
    "suggest",
    "to_optuna",
    "to_optuna_params",
    "translated",
    "value_attributes",
]
