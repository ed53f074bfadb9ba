"""Samplers, pruners and distributions of Optuna from a plan's plain description of them."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import json
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from ptydask import space as spaces
from ptydask.errors import ConfigError, MissingDependency, nearest, one_line
from ptydask.model import (
    NEAR_VALUES,
    OWN_VALUES,
    Choice,
    ComponentSpec,
    Distribution,
    IntRange,
    Point,
    Scalar,
    StudyPlan,
)

_PACKAGES = {"CmaEsSampler": ("cmaes", "cmaes"), "QMCSampler": ("scipy", "gp"), "GPSampler": ("scipy", "gp")}
_EXHAUSTIVE = ("GridSampler", "BruteForceSampler")
_MOST_POINTS = 100_000
_NO_WILCOXON = (
    "it compares trials problem by problem, and the iterations of a reconstruction are one problem; "
    "HyperbandPruner and MedianPruner work"
)


# --- distributions ----------------------------------------------------------------------------------


def to_optuna(dist: Distribution) -> BaseDistribution:
    """Optuna's distribution with the same values."""
    if isinstance(dist, Choice):
        return CategoricalDistribution(dist.choices)
    if isinstance(dist, IntRange):
        return IntDistribution(dist.low, dist.high, log=dist.log, step=dist.step)
    return FloatDistribution(dist.low, dist.high, log=dist.log, step=dist.step)


def search_space_json(space: Mapping[str, Distribution]) -> str:
    """A JSON object: the parameter's name -> the JSON object in which Optuna writes its distribution."""
    return json.dumps({name: json.loads(distribution_to_json(to_optuna(d))) for name, d in space.items()})


# --- samplers and pruners ---------------------------------------------------------------------------


def sampler(spec: ComponentSpec, *, seed: int, space: Mapping[str, Distribution]) -> BaseSampler:
    """The sampler for one trial; ``seed`` differs from trial to trial, else parallel workers all start alike.

    A ``seed`` in the configs is the base that ``seed`` is mixed with. GridSampler and BruteForceSampler become a
    random one, as :func:`exhaustive` lists their points beforehand. Raises ConfigError and MissingDependency.
    """
    if spec.name in _EXHAUSTIVE:
        _class("sampler", spec.name, "sampler_params.name")
        return optuna.samplers.RandomSampler(seed=seed)
    return cast(BaseSampler, _build("sampler", spec, "sampler_params", seed, space))


def pruner(spec: ComponentSpec | None, *, iterations: int | None) -> BasePruner:
    """The pruner; one that never prunes for None.

    Hyperband is told the length of a full trial, as it is blind until the first one completes otherwise; a
    ``min_resource`` beyond that length becomes the length. Raises ConfigError.
    """
    if spec is None:
        return optuna.pruners.NopPruner()
    return cast(BasePruner, _build("pruner", _bounded(spec, iterations), "pruner_params", 0, {}))


def _bounded(spec: ComponentSpec, iterations: int | None) -> ComponentSpec:
    configs = dict(spec.configs)
    for key in ("wrapped_pruner", "wrapped_pruner_configs"):
        inner = configs.get(key)
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            held = _bounded(ComponentSpec(inner["name"], inner.get("configs") or {}), iterations)
            configs[key] = {**inner, "configs": dict(held.configs)}
    if spec.name == "HyperbandPruner" and iterations is not None:
        if configs.get("max_resource", "auto") == "auto":
            configs["max_resource"] = iterations
        least = configs.get("min_resource", 1)
        if isinstance(least, int) and isinstance(configs["max_resource"], int):
            configs["min_resource"] = min(least, max(1, configs["max_resource"]))
    return ComponentSpec(spec.name, configs)


def _names(kind: str) -> dict[str, type]:
    module, base = {
        "sampler": (optuna.samplers, BaseSampler),
        "pruner": (optuna.pruners, BasePruner),
        "crossover": (optuna.samplers.nsgaii, optuna.samplers.nsgaii.BaseCrossover),
        "mutation": (optuna.samplers.nsgaii, optuna.samplers.nsgaii.BaseMutation),
    }[kind]
    return {
        name: thing
        for name in module.__all__
        if inspect.isclass(thing := getattr(module, name)) and issubclass(thing, base) and name[:4] != "Base"
    }


def _class(kind: str, name: str, key: str) -> type:
    known = _names(kind)
    if name not in known:
        hint = nearest(name, known) or f"known: {', '.join(sorted(known))}"
        raise ConfigError(f"Optuna has no such {kind}", key=key, value=name, hint=hint)
    if name == "WilcoxonPruner":
        raise ConfigError(_NO_WILCOXON, key=key, value=name)
    if name in _PACKAGES and importlib.util.find_spec(_PACKAGES[name][0]) is None:
        package, extra = _PACKAGES[name]
        raise MissingDependency(f"{name} needs the package {package}: pip install 'ptydask[{extra}]'")
    return known[name]


def _build(kind: str, spec: ComponentSpec, key: str, seed: int, space: Mapping[str, Distribution]) -> object:
    made = _class(kind, spec.name, f"{key}.name")
    known = dict(inspect.signature(made).parameters)
    configs = dict(spec.configs)
    if "wrapped_pruner_configs" in configs and spec.name == "PatientPruner":
        configs["wrapped_pruner"] = configs.pop("wrapped_pruner_configs")
    arguments = {}
    for name, value in configs.items():
        where = f"{key}.configs.{name}"
        if name not in known:
            hint = nearest(name, known) or "it takes no settings"
            raise ConfigError(f"{spec.name} has no such setting", key=where, value=value, hint=hint)
        arguments[name] = _argument(value, str(known[name].annotation), where, seed, space)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"{spec.name} needs {name}", key=f"{key}.configs", value=dict(spec.configs))
    _seeded(spec.name, known, arguments, seed)
    return _construct(made if spec.name != "QMCSampler" else _qmc(space), arguments, spec, key)


def _seeded(name: str, known: Mapping[str, Any], arguments: dict[str, Any], seed: int) -> None:
    """Every trial draws from its own stream, but the sequence of QMC is one for all trials."""
    base = arguments.get("seed")
    mixed = seed if base is None else random.Random(f"{base}/{seed}").getrandbits(32)
    if name == "QMCSampler":
        arguments["seed"] = base or 0
        arguments.setdefault("warn_independent_sampling", False)
        arguments.setdefault("independent_sampler", optuna.samplers.RandomSampler(seed=mixed))
    elif "seed" in known:
        arguments["seed"] = mixed % 2**32


def _construct(made: Callable[..., object], arguments: dict[str, Any], spec: ComponentSpec, key: str) -> object:
    try:
        with _quiet():
            return made(**arguments)
    except ImportError as error:
        raise MissingDependency(f"{spec.name}: {one_line(str(error))}") from None
    except Exception as error:
        raise ConfigError(
            f"{spec.name} refuses it: {one_line(str(error))}", key=f"{key}.configs", value=dict(spec.configs)
        ) from None


_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
    "dict": (dict,),
    "Mapping": (dict,),
    "np.ndarray": (list,),
}


def _argument(value: Any, annotation: str, key: str, seed: int, space: Mapping[str, Distribution]) -> Any:
    """``value`` as the constructor wants it: checked against the type that Optuna declares, nested parts built."""
    annotation = annotation.removeprefix("<class '").removesuffix("'>")
    parts = [part.strip() for part in annotation.split(" | ")]
    for kind in ("sampler", "pruner", "crossover", "mutation"):
        if any(part == f"Base{kind.capitalize()}" for part in parts):
            return None if value is None and "None" in parts else _nested(kind, value, key, seed, space)
    if "Callable" in annotation or "FrozenTrial" in annotation:
        if value is None:
            return None
        raise ConfigError("is a Python object, which a params file cannot hold", key=key, value=value)
    types = tuple(t for part in parts for t in _PLAIN.get(part.split("[")[0], ()))
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        raise ConfigError(f"must be {' or '.join(parts)}", key=key, value=value)
    return np.array(value) if "np.ndarray" in parts and value is not None else value


def _nested(kind: str, value: Any, key: str, seed: int, space: Mapping[str, Distribution]) -> object:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError("must be {name: ..., configs: {...}}", key=key, value=value)
    if unknown := [name for name in value if name not in ("name", "configs")]:
        raise ConfigError(
            "unknown key", key=f"{key}.{unknown[0]}", value=value[unknown[0]], hint="known: name, configs"
        )
    configs = value.get("configs") or {}
    if not isinstance(configs, Mapping):
        raise ConfigError("must be a mapping", key=f"{key}.configs", value=configs)
    if value["name"] in _EXHAUSTIVE:
        return optuna.samplers.RandomSampler(seed=seed)
    return _build(kind, ComponentSpec(value["name"], configs), key, seed, space)


def _qmc(space: Mapping[str, Distribution]) -> Callable[..., object]:
    """QMCSampler whose point in the sequence is the trial's number.

    Optuna counts points in the study's attributes, read and written in two steps, so that parallel workers draw
    one point twice; and it samples at random until a trial completes, as it does not know the space beforehand.
    """
    dists = {name: d for name, dist in sorted(space.items()) if not (d := to_optuna(dist)).single()}

    class NumberedQMCSampler(optuna.samplers.QMCSampler):
        number = 0

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
            self.number = trial.number
            return dict(dists)

        def _find_sample_id(self, study: Any, search_space: Any) -> int:
            return self.number

    return NumberedQMCSampler


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls settings experimental that the params file asks for by name; said once in PtyRAD's manual."""
    log = logging.getLogger("optuna")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


# --- before the run ---------------------------------------------------------------------------------


def check(plan: StudyPlan) -> tuple[str, ...]:
    """Builds the plan's sampler and pruner and has them handle three short trials, in memory.

    Returns notices. Raises ConfigError for an unknown name, setting or value, and for a grid that has no end;
    MissingDependency for a package that is not installed.
    """
    exhaustive(plan)
    made = sampler(plan.sampler, seed=plan.seed, space=plan.space)
    _known_names(plan)
    prunes = pruner(plan.pruner, iterations=plan.iterations)
    _rehearse(plan, made, optuna.pruners.NopPruner(), plan.sampler, "sampler_params")
    if plan.pruner is not None:
        _rehearse(plan, optuna.samplers.RandomSampler(seed=0), prunes, plan.pruner, "pruner_params")
    return _notices(plan)


def _rehearse(plan: StudyPlan, made: BaseSampler, prunes: BasePruner, spec: ComponentSpec, key: str) -> None:
    """Three trials of two steps, as constructors let pass what fails later."""
    dists = {name: to_optuna(dist) for name, dist in plan.space.items()}
    try:
        with _quiet():
            study = optuna.create_study(sampler=made, pruner=prunes, direction=plan.direction)
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


def _known_names(plan: StudyPlan) -> None:
    for setting in ("search_space", "fixed_params", "x0"):
        key = f"sampler_params.configs.{setting}"
        for name, value in (plan.sampler.configs.get(setting) or {}).items():
            if name not in plan.space:
                hint = nearest(name, plan.space)
                raise ConfigError("is not tuned in this study", key=f"{key}.{name}", value=value, hint=hint)
            if setting == "fixed_params" and not spaces.contains(plan.space[name], value):
                rule = f"must be {spaces.describe(plan.space[name])}"
                raise ConfigError(rule, key=f"{key}.{name}", value=value)


def _notices(plan: StudyPlan) -> tuple[str, ...]:
    if plan.pruner is None or plan.pruner.name != "HyperbandPruner" or plan.iterations is None:
        return ()
    least = plan.pruner.configs.get("min_resource", 1)
    if least >= plan.iterations:
        return (
            f"HyperbandPruner's min_resource = {least} is a whole trial (NITER = {plan.iterations}): none is pruned",
        )
    return ()


def exhaustive(plan: StudyPlan) -> tuple[Point, ...] | None:
    """Every point of a GridSampler or BruteForceSampler once, in a fixed order; None for another sampler.

    The plan's own points come first: tries as they are where they are complete, the start where it is on the grid.
    The driver enqueues these points, so that no two workers run the same one. Raises ConfigError for a range
    without steps and for more points than anyone can run.
    """
    spec, fixed = plan.sampler, dict[str, Scalar]()
    if spec.name == "PartialFixedSampler" and isinstance(spec.configs.get("base_sampler"), Mapping):
        base = spec.configs["base_sampler"]
        fixed = dict(spec.configs.get("fixed_params") or {})
        spec = ComponentSpec(str(base.get("name")), base.get("configs") or {})
    if spec.name not in _EXHAUSTIVE or not plan.space:
        return None
    _settings(spec)
    values = {name: _values(spec, name, dist, fixed) for name, dist in plan.space.items()}
    size = math.prod(len(v) for v in values.values())
    if size > _MOST_POINTS:
        sizes = " x ".join(f"{name} {len(v)}" for name, v in values.items())
        raise ConfigError(f"the grid has {size} points ({sizes})", key="sampler_params.name", value=spec.name)
    names = sorted(values)
    grid = [dict(zip(names, point, strict=True)) for point in itertools.product(*(values[n] for n in names))]
    ours = (OWN_VALUES, NEAR_VALUES)
    whole = [p for p in plan.points if set(p.params) == set(names)]
    first = [p for p in whole if p.origin not in ours or dict(p.params) in grid]
    taken = [dict(p.params) for p in first]
    return (*first, *(Point(point, "grid") for point in grid if point not in taken))


def _settings(spec: ComponentSpec) -> None:
    known = ("search_space", "seed") if spec.name == "GridSampler" else ("seed", "avoid_premature_stop")
    for name, value in spec.configs.items():
        if name not in known:
            key = f"sampler_params.configs.{name}"
            raise ConfigError(f"{spec.name} has no such setting", key=key, value=value, hint=nearest(name, known))


def _values(spec: ComponentSpec, name: str, dist: Distribution, fixed: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
    if name in fixed:
        return (fixed[name],)
    key = f"sampler_params.configs.search_space.{name}"
    given = spec.configs.get("search_space") or {}
    if not isinstance(given, Mapping):
        raise ConfigError("must be a mapping", key="sampler_params.configs.search_space", value=given)
    if name in given:
        values = given[name]
        if not isinstance(values, list) or not values or any(isinstance(v, list | dict) for v in values):
            raise ConfigError("must be a list of values, at least one", key=key, value=values)
        for value in values:
            if not spaces.contains(dist, value):
                raise ConfigError(f"must be {spaces.describe(dist)}", key=key, value=value)
        return tuple(dict.fromkeys(values))
    if (spaces.grid_size(dist) or 0) > _MOST_POINTS or (points := spaces.grid(dist)) is None:
        hint = f"give {name} a step in tune_params, or values in the sampler's search_space"
        raise ConfigError(f"{spec.name} cannot count off {name}", key="sampler_params.name", value=spec.name, hint=hint)
    return points
