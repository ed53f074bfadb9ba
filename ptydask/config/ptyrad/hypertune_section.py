"""The section ``hypertune_params`` of PtyRAD's params file: read, checked, written in the spelling of PtyRAD 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ptydask.config import reading, study
from ptydask.config.ptyrad import old_keys
from ptydask.config.ptyrad.search_space import TuneParams, tune_params
from ptydask.errors import ConfigError, hide_password, mask_userinfo, nearest_hint, redact
from ptydask.model import Budget, ComponentSpec
from ptydask.space.metrics import METRICS, OF_PTYRAD

_KEYS = (
    "if_hypertune",
    "verbosity",
    "collate_results",
    "append_params",
    "n_trials",
    "timeout",
    "sampler_params",
    "pruner_params",
    "storage_path",
    "study_name",
    "error_metric",
    "tune_params",
)
KEY = "hypertune_params"
DEFAULT_PRUNER = ComponentSpec("HyperbandPruner", {"min_resource": 5, "reduction_factor": 2})


@dataclass(frozen=True, slots=True)
class HypertuneSettings:
    """The fields of ``hypertune_params``, checked, with PtyRAD's own defaults."""

    on: bool
    tuned: TuneParams
    budget: Budget
    sampler: ComponentSpec
    pruner: ComponentSpec | None
    storage: str | None
    name: str
    metric: str
    keep_arrays: bool
    params_in_names: bool


def check_keys(section: Mapping[str, Any], known: tuple[str, ...], key: str, data: Mapping[str, Any]) -> None:
    """Raises ConfigError for a key that ``section`` of the file ``data`` does not have, and says who has it."""
    for name in section:
        if name not in known and (error := old_keys.misplaced(name, key, section[name], data)) is not None:
            raise error
    reading.known_keys(section, known, key)


def read_hypertune(section: Mapping[str, Any], data: Mapping[str, Any]) -> HypertuneSettings:
    """The ``section`` of the file ``data``. Raises ConfigError."""
    check_keys(section, _KEYS, KEY, data)

    def field(name: str, what: str, default: Any) -> Any:
        return reading.expect(section[name], what, f"{KEY}.{name}") if name in section else default

    metric = field("error_metric", "text", "loss")
    if metric not in OF_PTYRAD:
        hint = nearest_hint(metric, OF_PTYRAD)
        if metric in METRICS:
            hint = f"PtyRAD does not know it: write it as ptydask.error_metric, or say --metric {metric}"
        raise ConfigError("must be loss or contrast", key=f"{KEY}.error_metric", value=metric, hint=hint)
    _check_verbosity(section)
    return HypertuneSettings(
        on=field("if_hypertune", "true or false", False),
        tuned=tune_params(section.get("tune_params")),
        budget=Budget(
            study.check_whole(section.get("n_trials", 5), f"{KEY}.n_trials"),
            timeout=study.check_timeout(section.get("timeout"), f"{KEY}.timeout"),
        ),
        sampler=_read_sampler(section),
        pruner=_read_pruner(section),
        storage=_read_storage(section.get("storage_path")),
        name=study.check_name(field("study_name", "text", "study"), f"{KEY}.study_name"),
        metric=metric,
        keep_arrays=field("collate_results", "true or false", True),
        params_in_names=field("append_params", "true or false", True),
    )


def _check_verbosity(section: Mapping[str, Any]) -> None:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if section.get("verbosity", "WARNING") not in levels:
        value = section["verbosity"]
        hint = nearest_hint(str(value).upper(), levels)
        raise ConfigError(f"must be one of {', '.join(levels)}", key=f"{KEY}.verbosity", value=value, hint=hint)


def _read_sampler(section: Mapping[str, Any]) -> ComponentSpec:
    key = f"{KEY}.sampler_params"
    if section.get("sampler_params", ...) is None:
        raise ConfigError("a study needs a sampler; leave the key out for the TPESampler", key=key, value=None)
    return read_component(section.get("sampler_params", {}), key, study.TPE)


def _read_pruner(section: Mapping[str, Any]) -> ComponentSpec | None:
    entry = section.get("pruner_params", {})
    return None if entry in (None, False) else read_component(entry, f"{KEY}.pruner_params", DEFAULT_PRUNER)


def read_component(entry: Any, key: str, default: ComponentSpec) -> ComponentSpec:
    """The sampler or pruner ``{name, configs}`` at ``key``; by ``default`` what it does not say. Raises ConfigError."""
    reading.expect(entry, "a mapping", key)
    reading.known_keys(entry, ("name", "configs"), key)
    name = reading.expect(entry.get("name", default.name), "text", f"{key}.name")
    configs = entry.get("configs")
    if configs is None:
        configs = default.configs if name == default.name else {}
    return ComponentSpec(name, dict(reading.expect(configs, "a mapping", f"{key}.configs")))


def write_component(component: ComponentSpec | None) -> dict[str, Any] | None:
    """A sampler or pruner as a params file has it."""
    return None if component is None else {"name": component.name, "configs": dict(component.configs)}


def _read_storage(entry: Any) -> str | None:
    if entry is None:
        return None
    key = f"{KEY}.storage_path"
    url = cast(str, reading.expect(entry, "text", key))
    if "://" not in url:
        raise ConfigError("must be a URL", key=key, value=mask_userinfo(url), hint=_url_example(url))
    hide_password(url)  # before any part of the file is written anywhere, also where --storage beats it
    return url


def _url_example(text: str) -> str:
    """What to write in the place of a storage that is no URL."""
    if text.endswith((".sqlite3", ".sqlite", ".db")):
        return f"write sqlite:///{text}"
    return "for example " + ("redis://HOST:6379" if "6379" in text else "sqlite:///hypertune.sqlite3")


def canonical_section(section: Mapping[str, Any], hyper: HypertuneSettings) -> dict[str, Any]:
    """``hypertune_params`` in PtyRAD 1.0's spelling, every default written out; no password in it."""
    storage = {} if hyper.storage is None else {"storage_path": redact(hyper.storage)}
    return {
        "if_hypertune": hyper.on,
        "verbosity": section.get("verbosity", "WARNING"),
        "collate_results": hyper.keep_arrays,
        "append_params": hyper.params_in_names,
        "n_trials": hyper.budget.n_trials,
        "timeout": hyper.budget.timeout,
        "sampler_params": write_component(hyper.sampler),
        "pruner_params": write_component(hyper.pruner),
        **storage,
        "study_name": hyper.name,
        "error_metric": hyper.metric,
        "tune_params": hyper.tuned.entries,
    }
