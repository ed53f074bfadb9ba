"""W&B's sweep files to a study plan, by the schema of the package ``sweeps`` 0.3.0. Needs neither it nor wandb."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from ptydask.config import Overrides, own_settings, reading, study
from ptydask.config.stages import Stage
from ptydask.config.sweep import buried, choices, engine_section, search
from ptydask.config.sweep.parameters import SweepParameters, is_parameter, read_parameters
from ptydask.distributions import Choice, Distribution, QuantileDistribution, WeightedChoice
from ptydask.errors import ConfigError, nearest_hint, shorten
from ptydask.model import TRIED, Budget, ComponentSpec, Point, Scalar, SourceFile, StudyPlan
from ptydask.space import ranges

KEYS = (
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "command",
    "program",
    "name",
    "description",
    "project",
    "entity",
    "run_cap",
    "controller",
    "apiVersion",
    "kind",
    "job",
    "image_uri",
    "engine",
    own_settings.SECTION,
)
"""W&B's top-level keys, and our own: ``engine``, and ``ptydask``, which is taken out before the rest is read."""
_REFUSED = {
    "scheduler": ("a scheduler of W&B Launch is not run", "remove it and use method: grid, random or bayes"),
    "metrics": (
        "several metrics at once are not supported",
        "keep one of them: metric: {name: loss, goal: minimize}",
    ),
}
"""Keys that end the run, each with the rule and what to do instead."""
_MARKS = ("method", "parameters", "metric", "program", "command", "early_terminate", "run_cap")
_ESSENTIAL = ("method", "metric", "parameters")
_MOST_POINTS = 100_000
_SHOWN = 20
"""As many of a kind are named one by one."""


class SweepFormat:
    """W&B's sweep files."""

    def recognises(self, data: dict[str, Any]) -> bool:
        """Whether ``data`` has a sweep's ``method`` or ``parameters``, or nearly, or two of its other keys."""
        if any(get_close_matches(key, ("init_params", "recon_params"), n=1, cutoff=0.9) for key in data):
            return False
        marks = {mark for key in data for mark in get_close_matches(key, _MARKS, n=1, cutoff=0.8)}
        return bool(marks & {"method", "parameters"}) or len(marks) >= 2

    def straighten(self, data: dict[str, Any]) -> tuple[str, ...]:
        """Parameters that lost their indentation, below an empty ``parameters:``, are put back where they belong."""
        if data.get("parameters", ...) is not None:
            return ()
        unknown = {key: value for key, value in data.items() if key not in KEYS and key not in _REFUSED}
        if not any(is_parameter(value) for value in unknown.values()):
            return ()
        lost = {key: value for key, value in unknown.items() if isinstance(value, Mapping) or value is None}
        data["parameters"] = lost
        for key in lost:
            del data[key]
        names = _list_few(list(lost))
        return (f"parameters is empty, so what stands beside it is taken as its own: {names}; indent these lines",)

    def plan(self, source: SourceFile, data: dict[str, Any], overrides: Overrides) -> StudyPlan:
        """The study of a sweep file.

        The seed is ``--seed``, else 0; the number of trials ``--trials``, else ``run_cap``, else all points of a grid,
        else 0: not known. Raises ConfigError.
        """
        notices: list[str] = []
        _refuse_metrics(overrides)
        _refuse_stages(overrides)
        data = _check_keys(data, notices)
        method = search.read_method(data)
        gridded = overrides.sampler in search.GRIDS if overrides.sampler else method == "grid"
        tuned = read_parameters(data["parameters"], gridded)
        notices.extend(tuned.notices)
        config, engine = _engine_config(data, tuned, overrides.engine, notices)
        points = tuple(_try_point(point, tuned, gridded, notices) for point in overrides.tries)
        budget = _choose_budget(data, overrides, tuned.space, gridded, len(points))
        if budget.n_trials == 0:
            notices.append("neither run_cap nor --trials says how many trials; a run needs one of them")
        constants = [f"{constant}={shorten(value, 40)}" for constant, value in tuned.constants.items()]
        name = study.check_name(source.path.stem if data.get("name") is None else data["name"], "name")
        sampler = ComponentSpec("RandomSampler")
        if tuned.space:
            sampler = search.choose_sampler(method, budget.n_trials, overrides.sampler, notices)
        metric = search.read_metric(data, sampler.name, _metric_needed(data, config))
        notices.extend(metric.notices)
        return StudyPlan(
            name=name,
            source=source,
            engine=engine,
            config=config,
            space=tuned.space,
            metric=metric.name,
            direction=metric.direction,
            sampler=sampler,
            pruner=search.read_pruner(data, notices),
            budget=budget,
            storage=overrides.storage,
            results=overrides.results or Path(study.results_name(name)),
            seed=study.choose_seed((overrides.seed, "--seed")),
            points=points,
            target=metric.target,
            details=(("fixed", _list_few(constants)),) if constants else (),
            notices=tuple(notices),
        )

    def stages(self, data: dict[str, Any], overrides: Overrides) -> tuple[Stage, ...]:
        """None: see :class:`ptydask.config.Format`. Raises ConfigError where the file asks for some."""
        _refuse_stages(overrides)
        return ()

    def key_of(self, key: str) -> str:
        """See :class:`ptydask.config.Format`."""
        return "early_terminate" if key.startswith("pruner_params") else "method"


# --- the top level ----------------------------------------------------------------------------------


def _refuse_stages(overrides: Overrides) -> None:
    """Raises ConfigError for stages, whose parameters and metrics are PtyRAD's."""
    own = overrides.own
    for key, value, default in (("stages", own.stages, None), ("final", own.final, ...)):
        if value is not default and overrides.stages != "none":
            rule, hint = "is for PtyRAD's params files", "remove it; `ptydask next` narrows a sweep's ranges"
            raise ConfigError(rule, key=f"{own_settings.SECTION}.{key}", value=..., hint=hint)
    if overrides.stages == own_settings.RECOMMENDED:
        rule, hint = "is for PtyRAD's params files", "leave it out"
        raise ConfigError(rule, key="--stages", value=overrides.stages, hint=hint)


def _refuse_metrics(overrides: Overrides) -> None:
    """Raises ConfigError for those of our own settings that say how PtyRAD's trials are scored."""
    own = overrides.own
    if own.error_metric is not None:
        key = "--metric" if overrides.metric is not None else f"{own_settings.SECTION}.error_metric"
        rule = "is for PtyRAD's params files; what a sweep tunes is what its program logs"
        hint = f"write metric: {{name: {own.error_metric}, goal: minimize}}, or --set metric.name={own.error_metric}"
        raise ConfigError(rule, key=key, value=own.error_metric, hint=hint)
    for name, value in (("metrics", own.metrics), ("held_out", own.held_out)):
        if value is not None:
            rule, hint = "is for PtyRAD's params files", "remove it: a sweep's program computes and logs its metrics"
            raise ConfigError(rule, key=f"{own_settings.SECTION}.{name}", value=..., hint=hint)


def _check_keys(data: dict[str, Any], notices: list[str]) -> dict[str, Any]:
    """The known keys. Raises ConfigError for what is not supported, and for parameters in the wrong place."""
    metrics = data.get("metrics")
    if isinstance(metrics, Mapping) and "name" in metrics:
        hint = "remove it, metric is there too" if "metric" in data else "did you mean metric?"
        raise ConfigError("unknown key", key="metrics", value=metrics, hint=hint)
    for key, (rule, hint) in _REFUSED.items():
        if key in data:
            raise ConfigError(rule, key=key, value=data[key], hint=hint)
    unknown = {key: value for key, value in data.items() if key not in KEYS}
    kept = {key: value for key, value in data.items() if key in KEYS}
    has_parameters = "parameters" in data
    buried_hint = "" if has_parameters else buried.find_in_data(unknown)
    if buried_hint:
        raise ConfigError("is missing; it says what to tune", key="parameters", hint=buried_hint)
    for key, value in unknown.items():
        close = get_close_matches(key, KEYS, n=1, cutoff=0.8)
        if close and close[0] in _ESSENTIAL and close[0] not in data:
            raise ConfigError("unknown key", key=key, value=value, hint=f"did you mean {close[0]!r}?")
        if is_parameter(value) and not has_parameters and not key.startswith(("_", ".", "x-")):
            rule = "looks like a parameter, and has no line parameters: above it"
            raise ConfigError(rule, key=key, value=value, hint="indent it")
    if not has_parameters:
        hint = "for example parameters: {lr: {min: 1e-5, max: 1e-2}}"
        raise ConfigError("is missing; it says what to tune", key="parameters", hint=hint)
    for key in list(unknown)[:_SHOWN]:
        close = get_close_matches(key, KEYS, n=1)
        also = f"; did you mean {close[0]!r}?" if close else ""
        if is_parameter(unknown[key]) and not key.startswith(("_", ".", "x-")):
            also = "; it looks like a parameter: indent it below parameters, if it is one"
        named = key if key.isprintable() and len(key) <= 60 else shorten(key)
        notices.append(f"{named} is no key of a sweep file and changes nothing{also}")
    if len(unknown) > _SHOWN:
        notices.append(f"{len(unknown) - _SHOWN} more keys are none of a sweep file and change nothing")
    _check_server_keys(kept, notices)
    return kept


def _check_server_keys(data: Mapping[str, Any], notices: list[str]) -> None:
    """Keys that mean something to W&B's server alone: checked as far as a typing error would show."""
    for key in ("name", "description", "project", "entity", "job", "image_uri"):
        if data.get(key) is not None:
            reading.expect(data[key], "text", key)
    if data.get("kind", "sweep") != "sweep":
        raise ConfigError("must be sweep", key="kind", value=data["kind"])
    for key in ("job", "image_uri"):
        if data.get(key) is not None:
            notices.append(f"{key} belongs to W&B Launch and changes nothing; program and command say what runs")
    controller = data.get("controller")
    if controller is None:
        return
    kind = controller.get("type") if isinstance(controller, Mapping) else controller
    if kind not in ("local", "cloud"):
        hint = "ptydask is the controller; the key may go"
        raise ConfigError("must be {type: local} or {type: cloud}", key="controller", value=controller, hint=hint)


# --- the parts of the plan --------------------------------------------------------------------------


def _engine_config(
    data: Mapping[str, Any], tuned: SweepParameters, named_engine: str | None, notices: list[str]
) -> tuple[dict[str, Any], str]:
    """What the engine runs (see :mod:`ptydask.space.sweep_values`), and the engine's name."""
    settings = engine_section.read_settings(data, tuned.constants, tuned.space)
    engine = named_engine or ("callable" if settings["callable"] else "command")
    program = engine_section.read_program(data)
    if settings["callable"]:
        engine_section.idle_settings(data, notices)
        items = list(engine_section.COMMAND)
    else:
        items = engine_section.read_command(data, notices)
        notice = engine_section.map_devices(program, items, settings, tuned.constants)
        if notice:
            notices.append(notice)
    if engine == "command":
        engine_section.check_program(program, items)
    config = {
        "program": program,
        "command": items,
        "parameters": tuned.entries,
        "directory": str(Path.cwd()),
        "engine": settings,
    }
    return config, engine


def _metric_needed(data: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What of a sweep needs a metric, whatever its search; empty where nothing does."""
    if config["engine"]["callable"]:
        return "a function returns its value"
    if data.get("early_terminate") is not None:
        return "early_terminate compares trials by it"
    return "engine.objective says which value of it counts" if config["engine"]["objective"] == "best" else ""


def _choose_budget(
    data: Mapping[str, Any], overrides: Overrides, space: Mapping[str, Distribution], gridded: bool, tries: int
) -> Budget:
    timeout = study.check_timeout(overrides.timeout, "--timeout")
    if overrides.n_trials is not None:
        study.check_whole(overrides.n_trials, "--trials")
    trials = overrides.n_trials or search.run_cap(data)
    if gridded and space:
        size = math.prod(ranges.grid_size(dist) or 1 for dist in space.values())
        if size > _MOST_POINTS:
            sizes = " x ".join(f"{name} {ranges.grid_size(dist)}" for name, dist in space.items())
            raise ConfigError(f"the grid has {size} points ({sizes})", key="method", value="grid", hint="use random")
        return Budget(trials or size + tries, total=True, timeout=timeout)
    if not space:
        trials = 1 if gridded else trials or 1
    return Budget(trials or 0, total=True, timeout=timeout)


def _try_point(values: Mapping[str, Scalar], tuned: SweepParameters, gridded: bool, notices: list[str]) -> Point:
    """A person's guess in real values; text that spells a list or a mapping finds its label. Raises ConfigError."""
    point: dict[str, Scalar] = {}
    for name, value in values.items():
        key = f"--try {name}"
        if name not in tuned.space:
            rule = "is a constant in this sweep" if name in tuned.constants else "is not tuned in this study"
            raise ConfigError(rule, key=key, value=value, hint=nearest_hint(name, tuned.space) if tuned.space else "")
        dist, real = tuned.space[name], choices.label_of(value, tuned.labels(name))
        try:
            near = ranges.nearest_value(dist, real)
            beyond = _is_beyond(dist, real, near)
        except ValueError:
            beyond = True
        if beyond:
            raise ConfigError(f"must be {_range_text(dist)}", key=key, value=value)
        if near != real:
            notices.append(f"{key}: {value!r} is not in {_range_text(dist)}; {near!r} is tried")
        point[name] = near
    for name in tuned.space:
        if gridded and name not in point:
            raise ConfigError(f"{name} is missing: a grid has whole points alone", key="--try", value=dict(values))
    return Point(point, TRIED)


def _is_beyond(dist: Distribution, value: Scalar, near: Scalar) -> bool:
    """Whether the nearest number that is allowed is further away than rounding to a step explains."""
    if isinstance(dist, Choice | WeightedChoice):
        return False
    step = dist.q if isinstance(dist, QuantileDistribution) else dist.step
    value, near = cast(float, value), cast(float, near)
    return abs(near - value) > (step or 0) * 0.501 + 1e-9 * abs(value)


def _list_few(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _range_text(dist: Distribution) -> str:
    text = ranges.describe(dist)
    return text if len(text) <= 200 else f"{text[:200]}..."
