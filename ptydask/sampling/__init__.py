"""Samplers, pruners and distributions of Optuna from a plan's plain description of them."""

from ptydask.sampling.described import search_space_json as search_space_json
from ptydask.sampling.described import value_distribution as value_distribution
from ptydask.sampling.distinct import PointsTaken as PointsTaken
from ptydask.sampling.distributions import find_stale_param as find_stale_param
from ptydask.sampling.distributions import foreign_values as foreign_values
from ptydask.sampling.distributions import from_optuna_params as from_optuna_params
from ptydask.sampling.distributions import kept_attributes as kept_attributes
from ptydask.sampling.distributions import suggest as suggest
from ptydask.sampling.distributions import to_optuna as to_optuna
from ptydask.sampling.distributions import to_optuna_params as to_optuna_params
from ptydask.sampling.distributions import unit_parameters as unit_parameters
from ptydask.sampling.distributions import value_attributes as value_attributes
from ptydask.sampling.factory import LEAST_EARLIER as LEAST_EARLIER
from ptydask.sampling.factory import Remembered as Remembered
from ptydask.sampling.factory import build_pruner as build_pruner
from ptydask.sampling.factory import build_sampler as build_sampler
from ptydask.sampling.factory import learns_from_earlier as learns_from_earlier
from ptydask.sampling.grid import count_new_points as count_new_points
from ptydask.sampling.grid import count_points as count_points
from ptydask.sampling.grid import grid_points as grid_points
from ptydask.sampling.rehearsal import rehearse_search as rehearse_search
from ptydask.sampling.startup import startup_trials as startup_trials
from ptydask.space.ranges import from_json as from_json
