"""Samplers and pruners from a plan's plain description of them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, create_trial

from ptydask.distributions import Distribution
from ptydask.errors import ConfigError, MissingDependency, caught_warnings, nearest_hint, one_line, require
from ptydask.model import ComponentSpec, EarlierTrial
from ptydask.sampling import release
from ptydask.sampling.distinct import DistinctSampler, PointsTaken
from ptydask.sampling.distributions import to_optuna, to_optuna_params
from ptydask.sampling.gaussian import ParallelGPSampler
from ptydask.sampling.hyperband import SweepHyperbandPruner, UnfilteredHyperband
from ptydask.sampling.informed import InformedPruner, InformedSampler
from ptydask.sampling.startup import unwrap_fixed, with_startup

_PACKAGES = {"CmaEsSampler": ("cmaes", "cmaes"), "QMCSampler": ("scipy", "gp"), "GPSampler": ("scipy", "gp")}
_BEGINNINGS = ("x0", "sigma0", "use_separable_cma", "source_trials")
"""Settings of CmaEsSampler beside which Optuna takes no trials of other studies."""
LEAST_EARLIER = 10
"""Trials of other studies that CMA-ES needs: it begins with the best tenth of them."""
_VALUES = ("fixed_params", "x0")
"""Settings of samplers that hold parameters' values."""
EXHAUSTIVE = ("GridSampler", "BruteForceSampler")
"""Samplers whose points are listed beforehand, see :mod:`ptydask.sampling.grid`."""
_NO_WILCOXON = (
    "it compares trials problem by problem, and the iterations of a reconstruction are one problem; "
    "HyperbandPruner and MedianPruner work"
)


@dataclass(slots=True)
class Remembered:
    """What the samplers of one study's trials hand on in a process, from one to the next; it changes no point."""

    taken: PointsTaken
    common: IntersectionSearchSpace | None = None
    """Which parameters all trials that ended have, as Optuna finds out."""

    def hand_to(self, sampler: BaseSampler) -> None:
        """Optuna keeps it in a sampler, and would read every trial anew for a new one."""
        own = getattr(sampler, "_search_space", None)
        if isinstance(own, IntersectionSearchSpace):
            self.common = self.common or own
            vars(sampler)["_search_space"] = self.common


def build_sampler(
    spec: ComponentSpec,
    *,
    seed: int,
    space: Mapping[str, Distribution],
    trials: int | None = None,
    informed: bool = False,
    earlier: Sequence[EarlierTrial] = (),
    remembered: Remembered | None = None,
) -> DistinctSampler:
    """The sampler for one trial; ``seed`` differs from trial to trial, else parallel workers all start alike.

    It takes no point twice; ``remembered`` is what the samplers before it have read. A ``seed`` in the configs is the
    base that ``seed`` is mixed with; how many of the study's ``trials`` are drawn at random fits their number where the
    configs do not say. ``informed``: the slopes of the trials lead, and the sampler has its turns. CMA-ES begins with
    what ``earlier`` trials of other studies say.
    GridSampler and BruteForceSampler become a random one, as :func:`grid_points` lists their points beforehand. Raises
    ConfigError and MissingDependency.
    """
    sampler = _build_base_sampler(with_startup(spec, trials), seed, space, earlier)
    if remembered is not None:
        remembered.hand_to(sampler)
    _, held = unwrap_fixed(spec)
    if informed:
        sampler = InformedSampler(sampler, space, held)
    return DistinctSampler(sampler, space, held=held, seed=seed, taken=remembered.taken if remembered else None)


def learns_from_earlier(spec: ComponentSpec) -> bool:
    """Whether the sampler begins with trials of other studies: CMA-ES, where its settings do not say where it begins.

    Optuna's separable one cannot.
    """
    return spec.name == "CmaEsSampler" and not any(spec.configs.get(name) for name in _BEGINNINGS)


def _source_trials(earlier: Iterable[EarlierTrial], space: Mapping[str, Distribution]) -> list[FrozenTrial]:
    """As CmaEsSampler takes them: with the parameters that it samples, and no others."""
    converted = {name: to_optuna(dist) for name, dist in space.items()}
    own = {name: d for name, d in converted.items() if not (d.single() or isinstance(d, CategoricalDistribution))}
    sources = []
    for trial in earlier:
        values = to_optuna_params(space, trial.params)
        params = {name: values[name] for name in own}
        sources.append(create_trial(value=trial.error, params=params, distributions=own))
    return sources if own else []


def _build_base_sampler(
    spec: ComponentSpec, seed: int, space: Mapping[str, Distribution], earlier: Sequence[EarlierTrial] = ()
) -> BaseSampler:
    if spec.name in EXHAUSTIVE:
        _find_class("sampler", spec.name, "sampler_params.name")
        return optuna.samplers.RandomSampler(seed=seed)
    learns = learns_from_earlier(spec) and len(earlier) >= LEAST_EARLIER
    sources = _source_trials(earlier, space) if learns else []
    more = {"source_trials": sources} if sources else {}
    return cast(BaseSampler, _build_component("sampler", spec, "sampler_params", seed, space, more))


def build_pruner(
    spec: ComponentSpec | None,
    *,
    iterations: int | None,
    trials: int | None = None,
    informed_by: tuple[ComponentSpec, Mapping[str, Distribution]] | None = None,
) -> BasePruner:
    """The pruner; one that never prunes for None.

    Hyperband is told the length of a full trial, as it is blind until the first one completes otherwise; a
    ``min_resource`` beyond that length becomes the length. Samplers see the trials of all its brackets. Raises
    ConfigError.

    With the sampler and the search space of a search by slopes, ``informed_by``, the slopes have a say as well, while
    enough of the study's ``trials`` are left.
    """
    if spec is None:
        return optuna.pruners.NopPruner()
    pruner = cast(BasePruner, _build_component("pruner", _bound_resources(spec, iterations), "pruner_params", 0, {}))
    if isinstance(pruner, optuna.pruners.HyperbandPruner):
        pruner = UnfilteredHyperband(pruner)
    if informed_by is None:
        return pruner
    sampler, space = informed_by
    return InformedPruner(pruner, space, unwrap_fixed(sampler)[1], iterations, trials)


def _bound_resources(spec: ComponentSpec, iterations: int | None) -> ComponentSpec:
    configs = dict(spec.configs)
    # PatientPruner wraps another pruner, under either of two names; Hyperband may be in there.
    for key in ("wrapped_pruner", "wrapped_pruner_configs"):
        inner = configs.get(key)
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            held = _bound_resources(ComponentSpec(inner["name"], inner.get("configs") or {}), iterations)
            configs[key] = {**inner, "configs": dict(held.configs)}
    if spec.name == "HyperbandPruner" and iterations is not None:
        if configs.get("max_resource", "auto") == "auto":
            configs["max_resource"] = iterations
        least = configs.get("min_resource", 1)
        if isinstance(least, int) and isinstance(configs["max_resource"], int):
            configs["min_resource"] = min(least, max(1, configs["max_resource"]))
    return ComponentSpec(spec.name, configs)


def _known_classes(kind: str) -> dict[str, type]:
    module = {"sampler": optuna.samplers, "pruner": optuna.pruners}.get(kind, optuna.samplers.nsgaii)
    # By its name, as BaseMutation came with Optuna 5.0: no setting of an older one asks for a mutation.
    base = getattr(module, f"Base{kind.capitalize()}")
    classes: dict[str, type] = {"SweepHyperbandPruner": SweepHyperbandPruner} if kind == "pruner" else {}
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) and issubclass(thing, base) and not name.startswith("Base"):
            classes[name] = thing
    return classes


def _find_class(kind: str, name: str, key: str) -> type:
    classes = _known_classes(kind)
    if name not in classes:
        spellings = {full.lower(): full for full in classes}
        spellings |= {full.removesuffix(kind.capitalize()).lower(): full for full in classes}
        hint = nearest_hint(name, classes) or f"known: {', '.join(sorted(classes))}"
        if name.lower() in spellings:
            hint = f"did you mean {spellings[name.lower()]!r}?"
        raise ConfigError(f"Optuna has no such {kind}", key=key, value=name, hint=hint)
    if name == "WilcoxonPruner":
        raise ConfigError(_NO_WILCOXON, key=key, value=name)
    if name in _PACKAGES:
        package, extra = _PACKAGES[name]
        require(package, f"{name} needs", extra)
    return classes[name]


def _build_component(
    kind: str,
    spec: ComponentSpec,
    key: str,
    seed: int,
    space: Mapping[str, Distribution],
    more: Mapping[str, object] = MappingProxyType({}),
) -> object:
    """``more`` are arguments beside those of the ``spec``, as the constructor takes them."""
    component = _find_class(kind, spec.name, f"{key}.name")
    parameters = dict(inspect.signature(component).parameters)
    configs = dict(spec.configs)
    if "wrapped_pruner_configs" in configs and spec.name == "PatientPruner":
        configs["wrapped_pruner"] = configs.pop("wrapped_pruner_configs")
    arguments: dict[str, Any] = dict(more)
    for name, value in configs.items():
        where = f"{key}.configs.{name}"
        if name not in parameters:
            hint = nearest_hint(name, parameters) or ("" if parameters else "it takes no settings")
            raise ConfigError(f"{spec.name} has no such setting", key=where, value=value, hint=hint)
        own = to_optuna_params(space, value) if name in _VALUES and isinstance(value, Mapping) else value
        arguments[name] = _check_argument(own, str(parameters[name].annotation), where, seed, space)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"{spec.name} needs {name}", key=f"{key}.configs", value=dict(spec.configs))
    _set_seed(spec.name, parameters, arguments, seed)
    return _construct(_find_replacement(spec.name, space) or component, arguments, spec, key)


def _find_replacement(name: str, space: Mapping[str, Distribution]) -> Callable[..., object] | None:
    """What takes the place of a sampler that is not made for many workers; it has the same settings."""
    if name == "QMCSampler":
        return _numbered_qmc_sampler(space)
    return functools.partial(ParallelGPSampler, space) if name == "GPSampler" else None


def _set_seed(name: str, parameters: Mapping[str, Any], arguments: dict[str, Any], seed: int) -> None:
    """Every trial draws from its own stream, but the sequence of QMC is one for all trials."""
    base = arguments.get("seed")
    mixed = seed if base is None else random.Random(f"{base}/{seed}").getrandbits(32)
    if name == "QMCSampler":
        arguments["seed"] = base or 0
        arguments.setdefault("warn_independent_sampling", False)
        arguments.setdefault("independent_sampler", optuna.samplers.RandomSampler(seed=mixed))
    elif "seed" in parameters:
        arguments["seed"] = mixed % 2**32


def _construct(component: Callable[..., object], arguments: dict[str, Any], spec: ComponentSpec, key: str) -> object:
    try:
        with quiet_optuna():
            return component(**arguments)
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
    "list": (list, tuple),
}


def _check_argument(value: Any, annotation: str, key: str, seed: int, space: Mapping[str, Distribution]) -> Any:
    """``value`` as the constructor wants it: checked against the type that Optuna declares, nested parts built."""
    annotation = annotation.removeprefix("<class '").removesuffix("'>")
    parts = [part.strip() for part in annotation.split(" | ")]
    for kind in ("sampler", "pruner", "crossover", "mutation"):
        if any(part == f"Base{kind.capitalize()}" for part in parts):
            return None if value is None and "None" in parts else _build_nested(kind, value, key, seed, space)
    if "Callable" in annotation or "FrozenTrial" in annotation:
        if value is None:
            return None
        raise ConfigError("is a Python object, which a params file cannot hold", key=key, value=value)
    types = tuple(t for part in parts for t in _PLAIN.get(part.split("[")[0], ()))
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        raise ConfigError(f"must be {' or '.join(parts)}", key=key, value=value)
    return np.array(value) if "np.ndarray" in parts and value is not None else value


def _build_nested(kind: str, value: Any, key: str, seed: int, space: Mapping[str, Distribution]) -> object:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError("must be {name: ..., configs: {...}}", key=key, value=value)
    for name in value:
        if name not in ("name", "configs"):
            raise ConfigError("unknown key", key=f"{key}.{name}", value=value[name], hint="known: name, configs")
    configs = value.get("configs") or {}
    if not isinstance(configs, Mapping):
        raise ConfigError("must be a mapping", key=f"{key}.configs", value=configs)
    if value["name"] in EXHAUSTIVE:
        return optuna.samplers.RandomSampler(seed=seed)
    return _build_component(kind, ComponentSpec(value["name"], configs), key, seed, space)


def _numbered_qmc_sampler(space: Mapping[str, Distribution]) -> Callable[..., object]:
    """QMCSampler whose point in the sequence is the trial's number.

    Optuna counts points in the study's attributes, read and written in two steps, so that parallel workers draw
    one point twice; and it samples at random until a trial completes, as it does not know the space beforehand.
    """
    left_out = () if release.QMC_DRAWS_CHOICES else (CategoricalDistribution,)
    converted = {name: to_optuna(dist) for name, dist in sorted(space.items())}
    dists = {name: dist for name, dist in converted.items() if not (dist.single() or isinstance(dist, left_out))}

    class NumberedQMCSampler(optuna.samplers.QMCSampler):
        number = 0

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
            self.number = trial.number
            return dict(dists)

        def _find_sample_id(self, *_: Any) -> int:
            return self.number

    return NumberedQMCSampler


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna calls settings experimental that the params file asks for by name; said once in PtyRAD's manual."""
    log = logging.getLogger("optuna")
    with caught_warnings():
        level = log.level
        if level != logging.ERROR:  # else, as in a worker, it would only forget what it knows of every logger
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if level != logging.ERROR:
                log.setLevel(level)
