"""How a sweep searches: ``method``, ``metric``, ``run_cap`` and ``early_terminate``."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ptydask.config import reading, study
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import ComponentSpec, Direction
from ptydask.trial import hyperband_bands

METHODS = ("grid", "random", "bayes")
GRIDS = ("GridSampler", "BruteForceSampler")
MOST_GP_TRIALS = 300
"""A suggestion after so many trials takes half a second, for one worker after the other; after more it takes longer."""
_LARGEST = 2**53
_IMPUTES = ("latest", "best", "worst")
_IMPUTED = {
    "impute": "to a Gaussian process a failed trial is as bad as the worst, other searches leave it out",
    "impute_while_running": "the values of running trials are no part of the search",
}
_HIGHER = re.compile(r"acc|f1|auc|ssim|psnr|reward|score|iou|dice|r2\b|bleu|mAP|precision|recall|success", re.I)


@dataclass(frozen=True, slots=True)
class SweepMetric:
    """What a trial is ranked by."""

    name: str
    direction: Direction
    target: float | None
    notices: tuple[str, ...]


def read_method(data: Mapping[str, Any]) -> Literal["grid", "random", "bayes"]:
    """The method's name. Raises ConfigError."""
    if "method" not in data:
        raise ConfigError("is missing", key="method", hint="must be grid, random or bayes")
    method = data["method"]
    if method == "custom":
        rule = "leaves the search to a program on W&B's side, which ptydask does not run"
        raise ConfigError(rule, key="method", value=method, hint="use grid, random or bayes, or --sampler NAME")
    if method not in METHODS:
        hint = nearest_hint(method.lower(), METHODS) if isinstance(method, str) else ""
        raise ConfigError("must be grid, random or bayes", key="method", value=method, hint=hint)
    return cast(Literal["grid", "random", "bayes"], method)


def choose_sampler(method: str, trials: int, named: str | None, notices: list[str]) -> ComponentSpec:
    """The sampler of a method for so many trials (0: not known); ``named`` (``--sampler``) beats both."""
    simple = ComponentSpec("GridSampler" if method == "grid" else "RandomSampler")
    if named is not None or method != "bayes":
        return study.named_sampler(named, simple)
    if trials > MOST_GP_TRIALS:
        notices.append(f"bayes with more than {MOST_GP_TRIALS} trials: TPESampler instead of a Gaussian process")
        return study.TPE
    for package, get in (("scipy", "pip install 'ptydask[gp]'"), ("torch", "install PyTorch")):
        if importlib.util.find_spec(package) is None:
            notices.append(f"bayes without the package {package}: TPESampler; for a Gaussian process {get}")
            return study.TPE
    return ComponentSpec("GPSampler")


def run_cap(data: Mapping[str, Any]) -> int | None:
    """The number of trials that the file asks for; None where it names none. Raises ConfigError."""
    if data.get("run_cap") is None:
        return None
    return study.check_whole(_whole(study.number(data["run_cap"], "run_cap")), "run_cap")


NO_METRIC = SweepMetric(
    "", "minimize", None, ("metric is not given: trials are ranked by nothing; metric: {name: loss} would rank them",)
)
"""As good as any to a search that does not learn from its trials."""
_LEARNS_NOTHING = ("RandomSampler", "QMCSampler", *GRIDS)


def read_metric(data: Mapping[str, Any], sampler: str, needs: str) -> SweepMetric:
    """Name, direction and target; :data:`NO_METRIC` where the file has none and nothing needs one.

    ``sampler`` is Optuna's name of it, ``needs`` what else needs a metric, in words. Raises ConfigError.
    """
    example = "for example metric: {name: loss, goal: minimize}, or --set metric.name=loss"
    section = data.get("metric")
    if section is None:
        if not needs and sampler in _LEARNS_NOTHING:
            return NO_METRIC
        needs = needs or f"the search ({sampler}) goes by it"
        raise ConfigError(f"is missing; {needs}", key="metric", hint=example)
    reading.expect(section, "a mapping", "metric", example)
    reading.known_keys(section, ("name", "goal", "target", "impute", "impute_while_running"), "metric")
    if section.get("name") is None:
        raise ConfigError("name is missing", key="metric", value=section, hint=example)
    name = reading.expect(section["name"], "text", "metric.name")
    if not name.strip() or not name.isprintable():
        raise ConfigError("must be the name that the program logs it by", key="metric.name", value=name)
    goal = section.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        hint = nearest_hint(str(goal), ("minimize", "maximize"))
        raise ConfigError("must be minimize or maximize", key="metric.goal", value=goal, hint=hint)
    notices = []
    if "goal" not in section and _HIGHER.search(name):
        notices.append(f"metric: no goal is given, so {name} is minimized, as W&B does; is goal: maximize meant?")
    for key, instead in _IMPUTED.items():
        value = section.get(key)
        if value in (None, False, "false"):
            continue
        if value not in _IMPUTES:
            raise ConfigError(f"must be {', '.join(_IMPUTES)}", key=f"metric.{key}", value=value)
        notices.append(f"metric.{key}: not used; {instead}")
    target = None if section.get("target") is None else float(study.number(section["target"], "metric.target"))
    return SweepMetric(name, goal, target, tuple(notices))


# --- early_terminate --------------------------------------------------------------------------------

_KEY = "early_terminate"
_SETTINGS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


def read_pruner(data: Mapping[str, Any], notices: list[str]) -> ComponentSpec | None:
    """W&B's hyperband with its bands counted out; None where the file has none. Raises ConfigError."""
    section = data.get(_KEY)
    if section is None:
        if _KEY in data:
            notices.append("early_terminate is empty: no trial is stopped early")
        return None
    reading.expect(section, "a mapping", _KEY)
    _check_spelling(section)
    if section.get("type") != "hyperband":
        missing = "type" not in section
        rule = "type is missing; it must be hyperband" if missing else "must be hyperband"
        hint = "" if missing else nearest_hint(str(section["type"]), ("hyperband",))
        raise ConfigError(rule, key=_KEY if missing else f"{_KEY}.type", value=section.get("type", section), hint=hint)
    for name in section:
        if name not in _SETTINGS:
            notices.append(f"{_KEY}.{name} is no key of hyperband and changes nothing; {nearest_hint(name, _SETTINGS)}")
    eta = study.number(section.get("eta", 3), f"{_KEY}.eta")
    if eta <= 1:
        raise ConfigError("must be above 1", key=f"{_KEY}.eta", value=eta)
    strict = reading.expect(section.get("strict", True), "true or false", f"{_KEY}.strict")
    return ComponentSpec(
        "SweepHyperbandPruner", {"bands": _read_bands(section, eta, notices), "eta": eta, "strict": strict}
    )


def _check_spelling(section: Mapping[str, Any]) -> None:
    """Raises ConfigError where one that is needed is missing and another is nearly its name."""
    missing = {"type", "s" if "max_iter" in section else "min_iter"} - set(section)
    for name, value in section.items() if missing else ():
        hint = nearest_hint(name, _SETTINGS)
        if name not in _SETTINGS and hint.startswith("did you mean"):
            raise ConfigError("unknown key", key=f"{_KEY}.{name}", value=value, hint=hint)


def _read_bands(section: Mapping[str, Any], eta: int | float, notices: list[str]) -> list[int]:
    """The counts of logged values at which a trial is judged, as :mod:`ptydask.trial.hyperband_bands` has them."""
    if "max_iter" in section:
        if "s" not in section:
            rule = "s is missing: max_iter needs it, the number of bands below max_iter"
            hint = "add s: 2, or remove max_iter" if "min_iter" in section else "add s: 2, or use min_iter instead"
            raise ConfigError(rule, key=_KEY, value=dict(section), hint=hint)
        if "min_iter" in section:
            notices.append(f"{_KEY}: max_iter and s are there, so min_iter is not used, as W&B does")
        bands = hyperband_bands.of_max_iter(_read_count(section, "max_iter"), _read_count(section, "s"), eta)
        if not bands:
            rule = f"leaves no band: max_iter / eta = {section['max_iter']} / {eta:g} is below 1"
            raise ConfigError(rule, key=f"{_KEY}.max_iter", value=section["max_iter"], hint="raise it, or lower eta")
        return list(bands)
    if "min_iter" not in section:
        rule = "needs min_iter, or max_iter and s"
        raise ConfigError(rule, key=_KEY, value=dict(section), hint="for example {type: hyperband, min_iter: 3}")
    if "s" in section:
        notices.append(f"{_KEY}: s belongs to max_iter and changes nothing beside min_iter")
    return list(hyperband_bands.of_min_iter(_read_count(section, "min_iter"), eta))


def _read_count(section: Mapping[str, Any], name: str) -> int:
    """A whole number of at least 1, as far as a float can tell it from the next."""
    key = f"{_KEY}.{name}"
    value = study.number(section[name], key)
    return study.check_whole(_whole(value) if value <= _LARGEST else float(value), key)


def _whole(value: float) -> int | float:
    """3.0 as 3."""
    return int(value) if value == int(value) else value
