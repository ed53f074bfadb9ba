"""Samplers, pruners and distributions of Optuna from a plan's plain description of them."""

from ptydask.sampling.described import from_json, search_space_json, value_distribution
from ptydask.sampling.distributions import (
    find_stale_param,
    foreign_values,
    from_optuna_params,
    kept_attributes,
    suggest,
    to_optuna,
    to_optuna_params,
    unit_parameters,
    value_attributes,
)
from ptydask.sampling.factory import build_pruner, build_sampler
from ptydask.sampling.grid import grid_points, point_identity
from ptydask.sampling.rehearsal import rehearse_search

__all__ = [
    "build_pruner",
    "build_sampler",
    "find_stale_param",
    "foreign_values",
    "from_json",
    "from_optuna_params",
    "grid_points",
    "kept_attributes",
    "point_identity",
    "rehearse_search",
    "search_space_json",
    "suggest",
    "to_optuna",
    "to_optuna_params",
    "unit_parameters",
    "value_attributes",
    "value_distribution",
]
