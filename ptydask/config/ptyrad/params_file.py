"""PtyRAD's params file, as the versions before 1.0 spell it and as 1.0 does, to a study plan. Does not need PtyRAD."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from ptydask.config import Overrides, reading, study, yaml_text
from ptydask.config.own_settings import OwnSettings
from ptydask.config.ptyrad import old_keys, paths
from ptydask.config.ptyrad.search_space import TuneParams, check_point, check_values, rename_legacy, tune_params
from ptydask.errors import ConfigError, hide_password, mask_userinfo, nearest_hint, redact
from ptydask.model import (
    Budget,
    Choice,
    ComponentSpec,
    Direction,
    Distribution,
    FloatRange,
    HeldOut,
    IntRange,
    KeepOptions,
    Scalar,
    SourceFile,
    StudyPlan,
)
from ptydask.space import ranges, tunables
from ptydask.space.metrics import METRICS, OF_PTYRAD

SECTIONS = tuple(f"{name}_params" for name in ("init", "hypertune", "model", "loss", "constraint", "recon"))
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
class _HypertuneSettings:
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


class PtyradFormat:
    """Files with PtyRAD's six sections."""

    def recognises(self, data: dict[str, Any]) -> bool:
        """Whether a section is one of PtyRAD's, or nearly; a sweep's parameter may be called like one."""
        if {"method", "parameters"} <= data.keys():
            return False
        if not data.keys().isdisjoint(old_keys.BEFORE):
            return True
        return any(get_close_matches(key, SECTIONS, n=1, cutoff=0.8) for key in data)

    def straighten(self, data: dict[str, Any]) -> tuple[str, ...]:
        """See :class:`ptydask.config.Format`."""
        return ()

    def plan(self, source: SourceFile, data: dict[str, Any], overrides: Overrides) -> StudyPlan:
        """The study of a params file.

        The seed is ``--seed``, else ``init_params.random_seed``, else 0, and is written into the configuration, so
        that a study can be repeated. Raises ConfigError.
        """
        config = read_sections(data)
        translated = old_keys.translate(config)
        paths.expand(config)
        init, recon = config["init_params"], config.setdefault("recon_params", {})
        hyper = _read_hypertune(config.get(KEY) or {}, config)
        notices = [*translated, *hyper.tuned.notices]
        chosen = study.named_sampler(overrides.sampler, hyper.sampler)
        sampler, space = _grid_ranges(chosen, hyper.tuned.space, notices)
        if not hyper.on:
            sampler, space = ComponentSpec("RandomSampler"), {}
            notices = [*translated, _switched_off(hyper.tuned)]
        elif not space:
            hint = "set state: true for one, or if_hypertune: false for a single reconstruction"
            raise ConfigError("nothing is switched on", key=f"{KEY}.tune_params", hint=hint)
        seed = study.choose_seed((overrides.seed, "--seed"), (init.get("random_seed"), "init_params.random_seed"))
        init["random_seed"] = seed
        points = [check_point(values, space, notices) for values in overrides.tries]
        metric, direction = _choose_metric(hyper, overrides)
        config[KEY] = _canonical_hypertune(config.get(KEY) or {}, hyper)
        iterations = study.check_whole(recon.get("NITER", 200), "recon_params.NITER")
        return StudyPlan(
            name=hyper.name,
            source=source,
            engine=overrides.engine or "ptyrad",
            config=config,
            space=space,
            metric=metric,
            direction=direction,
            sampler=sampler,
            pruner=hyper.pruner if hyper.on else None,
            budget=_choose_budget(hyper, overrides),
            storage=overrides.storage or (hyper.storage if hyper.on else None),
            results=overrides.results or _results_path(recon, hyper.name),
            seed=seed,
            iterations=iterations,
            points=tuple(points),
            keep=_make_keep(hyper, recon),
            held_out=_choose_held_out(metric, overrides.own, notices),
            own_metrics={name: own.function for name, own in (overrides.own.metrics or {}).items()},
            notices=tuple(notices),
        )

    def key_of(self, key: str) -> str:
        """See :class:`ptydask.config.Format`."""
        return f"{KEY}.{key}"


def _switched_off(tuned: TuneParams) -> str:
    """That nothing is tuned, and which ranges that are switched on are not used."""
    notice = "if_hypertune is false: one reconstruction with the file's own values"
    if not tuned.space:
        return notice
    names = ", ".join(name for name, entry in tuned.entries.items() if entry["state"])
    return f"{notice}; the ranges of {names} are not used (if_hypertune: true tunes them)"


def read_sections(data: dict[str, Any]) -> dict[str, Any]:
    """The sections in PtyRAD's order; empty ones (every line a comment) are left out, so they get their defaults.

    Raises ConfigError for keys that belong elsewhere, and for files that are too old.
    """
    data.pop("params_path", None)
    old_keys.check_layout(data)
    _check_keys(data, SECTIONS, "", data)
    config = {}
    for name in SECTIONS:
        if data.get(name) is not None:
            config[name] = dict(reading.expect(data[name], "a mapping", name))
    if "init_params" not in config:
        raise ConfigError("the section is missing; it says what the data are", key="init_params")
    return config


# --- hypertune_params -------------------------------------------------------------------------------


def _check_keys(section: Mapping[str, Any], known: tuple[str, ...], key: str, data: Mapping[str, Any]) -> None:
    for name in section:
        if name not in known and (error := old_keys.misplaced(name, key, section[name], data)) is not None:
            raise error
    reading.known_keys(section, known, key)


def _read_hypertune(section: Mapping[str, Any], data: Mapping[str, Any]) -> _HypertuneSettings:
    _check_keys(section, _KEYS, KEY, data)

    def field(name: str, what: str, default: Any) -> Any:
        return reading.expect(section[name], what, f"{KEY}.{name}") if name in section else default

    metric = field("error_metric", "text", "loss")
    if metric not in OF_PTYRAD:
        hint = nearest_hint(metric, OF_PTYRAD)
        if metric in METRICS:
            hint = f"PtyRAD does not know it: write it as ptydask.error_metric, or say --metric {metric}"
        raise ConfigError("must be loss or contrast", key=f"{KEY}.error_metric", value=metric, hint=hint)
    _check_verbosity(section)
    return _HypertuneSettings(
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
    if section.get("sampler_params", ...) is None:
        rule = "a study needs a sampler; leave the key out for the TPESampler"
        raise ConfigError(rule, key=f"{KEY}.sampler_params", value=None)
    return _read_component(section, "sampler_params", study.TPE)


def _read_pruner(section: Mapping[str, Any]) -> ComponentSpec | None:
    if section.get("pruner_params", True) in (None, False):
        return None
    return _read_component(section, "pruner_params", DEFAULT_PRUNER)


def _read_component(section: Mapping[str, Any], setting: str, default: ComponentSpec) -> ComponentSpec:
    if setting not in section:
        return default
    key = f"{KEY}.{setting}"
    entry = reading.expect(section[setting], "a mapping", key)
    reading.known_keys(entry, ("name", "configs"), key)
    name = reading.expect(entry.get("name", default.name), "text", f"{key}.name")
    configs = entry.get("configs")
    if configs is None:
        configs = default.configs if name == default.name else {}
    return ComponentSpec(name, dict(reading.expect(configs, "a mapping", f"{key}.configs")))


def _grid_ranges(
    sampler: ComponentSpec, space: dict[str, Distribution], notices: list[str]
) -> tuple[ComponentSpec, dict[str, Distribution]]:
    """Old names translated in what the sampler was given; a grid of values beats ``tune_params``, as in PtyRAD."""
    configs, space = dict(sampler.configs), dict(space)
    for key in ("search_space", "fixed_params", "x0"):
        if isinstance(configs.get(key), dict):
            configs[key] = rename_legacy(configs[key])
    axes = configs.get("search_space")
    for name, values in axes.items() if isinstance(axes, dict) else ():
        dist = space.get(name)
        if dist is None or not isinstance(values, list) or not values:
            continue
        if all(ranges.contains(dist, value) for value in values):
            continue
        check_values(name, values, f"{KEY}.sampler_params.configs.search_space.{name}")
        space[name] = _range_around(dist, values)
        notices.append(f"{name}: GridSampler's search_space {values} replaces {ranges.describe(dist)}")
    return ComponentSpec(sampler.name, configs), space


def _range_around(dist: Distribution, values: list[Any]) -> Distribution:
    if isinstance(dist, Choice):
        return Choice(tuple(dict.fromkeys(values)))
    if isinstance(dist, IntRange) and all(isinstance(v, int) for v in values):
        return IntRange(min(values), max(values))
    return FloatRange(float(min(values)), float(max(values)))


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


def _choose_metric(hyper: _HypertuneSettings, overrides: Overrides) -> tuple[str, Direction]:
    """What is tuned, and which way: ``ptydask.error_metric`` and ``--metric`` beat ``hypertune_params``."""
    own = overrides.own
    if own.error_metric is None:
        return hyper.metric, METRICS[hyper.metric].direction
    name, metrics = own.error_metric, own.metrics or {}
    if name in METRICS:
        return name, METRICS[name].direction
    if name not in metrics:
        known = (*METRICS, *metrics)
        hint = nearest_hint(name, known) or "metrics of your own are listed in ptydask.metrics"
        key = "ptydask.error_metric" if overrides.metric is None else "--metric"
        raise ConfigError(f"must be one of {', '.join(known)}", key=key, value=name, hint=hint)
    direction = metrics[name].direction
    if direction is None:
        hint = f"write {name}: {{function: {metrics[name].function}, direction: maximize}}"
        rule = "must be minimize or maximize, for a metric that is tuned"
        raise ConfigError(rule, key=f"ptydask.metrics.{name}.direction", value=None, hint=hint)
    return name, direction


DEFAULT_SHARE = 0.03
"""Of the scan positions, or of the electrons, that are held out where the file does not say."""


def _choose_held_out(metric: str, own: OwnSettings, notices: list[str]) -> HeldOut | None:
    kind = METRICS[metric].held_out if metric in METRICS else ""
    if own.held_out is not None and not kind:
        users = ", ".join(name for name, known in METRICS.items() if known.held_out)
        notices.append(f"ptydask.held_out is not used: {metric} holds no data out, {users} do")
    elif kind == "positions" and "gain" in (own.held_out or {}):
        notices.append("ptydask.held_out.gain is not used: it belongs to the metric counts")
    return HeldOut(kind, **{"share": DEFAULT_SHARE, **(own.held_out or {})}) if kind else None


# --- the plan's other parts -------------------------------------------------------------------------


def _choose_budget(hyper: _HypertuneSettings, overrides: Overrides) -> Budget:
    timeout = study.check_timeout(overrides.timeout, "--timeout")
    if overrides.n_trials is not None:
        study.check_whole(overrides.n_trials, "--trials")
    if not hyper.on:
        return Budget(1, total=True, timeout=timeout)
    timeout = hyper.budget.timeout if timeout is None else timeout
    if overrides.n_trials is not None:
        return Budget(overrides.n_trials, total=True, timeout=timeout)
    return Budget(hyper.budget.n_trials, timeout=timeout)


def _make_keep(hyper: _HypertuneSettings, recon: Mapping[str, Any]) -> KeepOptions:
    interval = recon.get("SAVE_ITERS", 10)
    if interval is not None:
        study.check_whole(interval, "recon_params.SAVE_ITERS")
    if not hyper.on:
        return KeepOptions(snapshot_every=interval)
    return KeepOptions(hyper.keep_arrays, interval if hyper.keep_arrays else None, hyper.params_in_names)


def _results_path(recon: Mapping[str, Any], name: str) -> Path:
    folder = reading.expect(recon.get("output_dir", "output"), "text", "recon_params.output_dir")
    if "\0" in folder:
        raise ConfigError("cannot be a folder's name", key="recon_params.output_dir", value=folder)
    return Path(folder) / study.results_name(name)


def canonical_hypertune(data: Mapping[str, Any]) -> dict[str, Any]:
    """``hypertune_params`` of the sections ``data`` as a study of that file has it. Raises ConfigError."""
    section = data.get(KEY) or {}
    return _canonical_hypertune(section, _read_hypertune(section, data))


def _canonical_hypertune(section: Mapping[str, Any], hyper: _HypertuneSettings) -> dict[str, Any]:
    """``hypertune_params`` in PtyRAD 1.0's spelling, every default written out; no password in it."""
    pruner = hyper.pruner
    storage = {} if hyper.storage is None else {"storage_path": redact(hyper.storage)}
    return {
        "if_hypertune": hyper.on,
        "verbosity": section.get("verbosity", "WARNING"),
        "collate_results": hyper.keep_arrays,
        "append_params": hyper.params_in_names,
        "n_trials": hyper.budget.n_trials,
        "timeout": hyper.budget.timeout,
        "sampler_params": {"name": hyper.sampler.name, "configs": dict(hyper.sampler.configs)},
        "pruner_params": pruner and {"name": pruner.name, "configs": dict(pruner.configs)},
        **storage,
        "study_name": hyper.name,
        "error_metric": hyper.metric,
        "tune_params": hyper.tuned.entries,
    }


# --- back to a file ---------------------------------------------------------------------------------


def render_params(
    config: Mapping[str, Any],
    params: Mapping[str, Scalar],
    header: str = "",
    hypertune: Mapping[str, Any] | None = None,
) -> str:
    """YAML text of a params file for ``ptyrad run``: ``config`` with ``params`` in place, hypertune switched off.

    ``header`` (which trial, which error) becomes a comment on top. ``hypertune`` is another ``hypertune_params``.
    """
    new = tunables.apply(copy.deepcopy(dict(config)), params)
    new[KEY] = dict(hypertune or {"if_hypertune": False})
    ordered = {name: new[name] for name in SECTIONS if name in new}
    ordered.update({name: part for name, part in new.items() if name not in ordered and name != "params_path"})
    body = "\n".join(yaml_text.section_text(name, part) for name, part in ordered.items())
    return yaml_text.comment_text(header.splitlines()) + body
