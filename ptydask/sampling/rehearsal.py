"""A plan's sampler and pruner tried out before the run."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from ptydask.distributions import QuantileDistribution, WeightedChoice
from ptydask.errors import ConfigError, MissingDependency, nearest_hint, one_line
from ptydask.model import ComponentSpec, StudyPlan
from ptydask.sampling.distributions import check_requirements, to_optuna
from ptydask.sampling.factory import build_pruner, build_sampler, quiet_optuna
from ptydask.sampling.grid import grid_axes
from ptydask.space import ranges


def rehearse_search(plan: StudyPlan) -> tuple[str, ...]:
    """Builds the plan's sampler and pruner and has them handle three short trials, in memory.

    Returns notices. Raises ConfigError for an unknown name, setting or value, and for a grid that has no end;
    MissingDependency for a package that is not installed.
    """
    check_requirements(plan.space)
    grid_axes(plan)  # refuses a grid without end before anything is built
    sampler = build_sampler(plan.sampler, seed=plan.seed, space=plan.space)
    _check_names(plan)
    pruner = build_pruner(plan.pruner, iterations=plan.iterations)
    _rehearse(plan, sampler, optuna.pruners.NopPruner(), plan.sampler, "sampler_params")
    if plan.pruner is not None:
        _rehearse(plan, optuna.samplers.RandomSampler(seed=0), pruner, plan.pruner, "pruner_params")
    return _pruner_notices(plan)


def _rehearse(plan: StudyPlan, sampler: BaseSampler, pruner: BasePruner, spec: ComponentSpec, key: str) -> None:
    """Three trials of two steps, as constructors let pass what fails later."""
    dists = {name: to_optuna(dist) for name, dist in plan.space.items()}
    try:
        with quiet_optuna():
            study = optuna.create_study(sampler=sampler, pruner=pruner, direction=plan.direction)
            for number in range(3):
                trial = study.ask(fixed_distributions=dists)
                for step in (1, 2):
                    trial.report(1.0 / (number + step), step)
                    trial.should_prune()
                study.tell(trial, 1.0 / (number + 2))
    except ImportError as error:
        raise MissingDependency(one_line(str(error))) from None
    except Exception as error:
        rule = f"{spec.name} fails with it: {one_line(str(error))}"
        raise ConfigError(rule, key=f"{key}.configs", value=dict(spec.configs)) from None


def _check_names(plan: StudyPlan) -> None:
    for setting in ("search_space", "fixed_params", "x0"):
        key = f"sampler_params.configs.{setting}"
        for name, value in (plan.sampler.configs.get(setting) or {}).items():
            if name not in plan.space:
                hint = nearest_hint(name, plan.space)
                raise ConfigError("is not tuned in this study", key=f"{key}.{name}", value=value, hint=hint)
            dist = plan.space[name]
            # to_optuna_params leaves a value that has no u as it is, and the sampler would take it for one.
            by_u = isinstance(dist, QuantileDistribution | WeightedChoice)
            checked = setting == "fixed_params" or (setting == "x0" and by_u)
            if checked and not ranges.contains(dist, value):
                raise ConfigError(f"must be {ranges.describe(dist)}", key=f"{key}.{name}", value=value)


def _pruner_notices(plan: StudyPlan) -> tuple[str, ...]:
    if plan.pruner is None or plan.pruner.name != "HyperbandPruner" or plan.iterations is None:
        return ()
    least = plan.pruner.configs.get("min_resource", 1)
    if least < plan.iterations:
        return ()
    return (f"HyperbandPruner's min_resource = {least} is a whole trial (NITER = {plan.iterations}): none is pruned",)
