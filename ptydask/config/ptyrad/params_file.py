"""PtyRAD's params file, as the versions before 1.0 spell it and as 1.0 does, to a study plan. Does not need PtyRAD."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ptydask.config import Overrides, reading, study, yaml_text
from ptydask.config.own_settings import OwnSettings
from ptydask.config.ptyrad import old_keys, paths, stage_config, stage_list
from ptydask.config.ptyrad.hypertune_section import (
    KEY,
    HypertuneSettings,
    canonical_section,
    check_keys,
    read_hypertune,
)
from ptydask.config.ptyrad.search_space import (
    TuneParams,
    check_point,
    check_values,
    part_of_point,
    rename_legacy,
)
from ptydask.config.stages import Stage, StageInput
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import Budget, ComponentSpec, Direction, HeldOut, KeepOptions, Point, Scalar, SourceFile, StudyPlan
from ptydask.space import ranges, tunables
from ptydask.space.metrics import METRICS

SECTIONS = tuple(f"{name}_params" for name in ("init", "hypertune", "model", "loss", "constraint", "recon"))


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
        """The study of a params file, or of one of its stages.

        The seed is ``--seed``, else ``init_params.random_seed``, else 0, and is written into the configuration, so
        that a study can be repeated. Raises ConfigError.
        """
        config, hyper, translated = _read_file(data)
        given, of_stage = overrides.stage, {}
        if given is not None:
            if not hyper.on:
                translated.append("if_hypertune is false; the stages tune all the same")
            of_stage = stage_config.stage_space(config, given)
            config = stage_config.write_stage(config, given, of_stage)
            hyper = read_hypertune(config[KEY], config)
        init, recon = config["init_params"], config.setdefault("recon_params", {})
        unused = [] if given is None else stage_list.unused_options(given.stage, overrides)
        notices = [*translated, *hyper.tuned.notices, *unused]
        chosen = study.named_sampler(overrides.sampler, hyper.sampler)
        sampler, space = _grid_ranges(chosen, {**hyper.tuned.space, **of_stage}, notices, partial=given is not None)
        if not hyper.on:
            sampler, space = ComponentSpec("RandomSampler"), {}
            notices = [*translated, *([_switched_off(hyper.tuned, overrides)] if given is None else [])]
        elif not space:
            hint = "set state: true for one, or if_hypertune: false for a single reconstruction"
            raise ConfigError("nothing is switched on", key=f"{KEY}.tune_params", hint=hint)
        seed = study.choose_seed((overrides.seed, "--seed"), (init.get("random_seed"), "init_params.random_seed"))
        init["random_seed"] = seed
        points = _tried_points(overrides, space, notices)
        metric, direction = _choose_metric(hyper, overrides)
        config[KEY] = canonical_section(config.get(KEY) or {}, hyper)
        results = overrides.results or _results_path(recon, hyper.name)
        notices[:0] = paths.find_copy_notices(config, source.path, None if overrides.results else results)
        plan = StudyPlan(
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
            storage=overrides.storage or (hyper.storage if hyper.on or given is not None else None),
            results=results,
            seed=seed,
            iterations=study.check_whole(recon.get("NITER", 200), "recon_params.NITER"),
            points=points,
            keep=_make_keep(hyper, recon, given),
            # What one stage does not use, another may.
            held_out=_choose_held_out(metric, overrides.own, notices if given is None else []),
            own_metrics={name: own.function for name, own in (overrides.own.metrics or {}).items()},
            notices=tuple(notices),
        )
        return plan if given is None else _as_stage(plan, given)

    def stages(self, data: dict[str, Any], overrides: Overrides) -> tuple[Stage, ...]:
        """See :class:`ptydask.config.Format`."""
        config, hyper, _ = _read_file(data)
        return stage_list.choose_stages(config, hyper, overrides)

    def key_of(self, key: str) -> str:
        """See :class:`ptydask.config.Format`."""
        return f"{KEY}.{key}"


def _read_file(data: dict[str, Any]) -> tuple[dict[str, Any], HypertuneSettings, list[str]]:
    """The sections in today's spelling, the search that they ask for, and what was translated. Raises ConfigError."""
    config = read_sections(data)
    translated = old_keys.translate(config)
    paths.expand(config)
    return config, read_hypertune(config.get(KEY) or {}, config), [*translated]


def _as_stage(plan: StudyPlan, given: StageInput) -> StudyPlan:
    """The plan of a stage: its study has a name of its own beside the others in the same file."""
    notices = (*plan.notices, *stage_list.stage_notices(plan, given))
    return replace(plan, name=f"{plan.name} {given.stage.name}", lineage=given.lineage, notices=notices)


def _tried_points(overrides: Overrides, space: Mapping[str, Distribution], notices: list[str]) -> tuple[Point, ...]:
    """The points of ``--try``; of each, a stage tries what it tunes."""
    if overrides.stage is None:
        return tuple(check_point(values, space, notices) for values in overrides.tries)
    parts = (part_of_point(values, space, notices) for values in overrides.tries)
    return tuple(check_point(part, space, notices) for part in parts if part)


def _switched_off(tuned: TuneParams, overrides: Overrides) -> str:
    """That nothing is tuned, and which ranges that are switched on are not used."""
    notice = "if_hypertune is false: one reconstruction with the file's own values"
    if tuned.space:
        names = ", ".join(name for name, entry in tuned.entries.items() if entry["state"])
        return f"{notice}; the ranges of {names} are not used (if_hypertune: true tunes them)"
    if stage_list.are_recommended(overrides):
        return f"{notice}; no stages are recommended where tune_params switches nothing on"
    return notice


def copy_sections(data: Any) -> dict[str, Any] | None:
    """A copy of PtyRAD's sections in ``data``, a file as read, in today's spelling; None where it is no mapping."""
    if not isinstance(data, dict):
        return None
    own = {name: copy.deepcopy(data[name]) for name in SECTIONS if isinstance(data.get(name), dict)}
    old_keys.translate(own)
    return own


def read_sections(data: dict[str, Any]) -> dict[str, Any]:
    """The sections in PtyRAD's order; empty ones (every line a comment) are left out, so they get their defaults.

    Raises ConfigError for keys that belong elsewhere, and for files that are too old.
    """
    data.pop("params_path", None)
    old_keys.check_layout(data)
    check_keys(data, SECTIONS, "", data)
    config = {}
    for name in SECTIONS:
        if data.get(name) is not None:
            config[name] = dict(reading.expect(data[name], "a mapping", name))
    if "init_params" not in config:
        raise ConfigError("the section is missing; it says what the data are", key="init_params")
    return config


# --- the search ---------------------------------------------------------------------------------------


def _grid_ranges(
    sampler: ComponentSpec, space: dict[str, Distribution], notices: list[str], *, partial: bool
) -> tuple[ComponentSpec, dict[str, Distribution]]:
    """Old names translated in what the sampler was given; a grid of values beats ``tune_params``, as in PtyRAD.

    With ``partial``, what the sampler was given of parameters that ``space`` does not have is left out.
    """
    configs, space = dict(sampler.configs), dict(space)
    for key in ("search_space", "fixed_params", "x0"):
        if isinstance(configs.get(key), dict):
            renamed = rename_legacy(configs[key])
            configs[key] = {name: value for name, value in renamed.items() if name in space or not partial}
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


def _choose_metric(hyper: HypertuneSettings, overrides: Overrides) -> tuple[str, Direction]:
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


def _choose_budget(hyper: HypertuneSettings, overrides: Overrides) -> Budget:
    timeout = study.check_timeout(overrides.timeout, "--timeout")
    if overrides.n_trials is not None:
        study.check_whole(overrides.n_trials, "--trials")
    if timeout is None and (hyper.on or overrides.stage is not None):
        timeout = hyper.budget.timeout
    if not hyper.on:
        return Budget(1, total=True, timeout=timeout)
    if overrides.stage is not None:
        return Budget(hyper.budget.n_trials, total=True, timeout=timeout)
    if overrides.n_trials is not None:
        return Budget(overrides.n_trials, total=True, timeout=timeout)
    return Budget(hyper.budget.n_trials, timeout=timeout)


def _make_keep(hyper: HypertuneSettings, recon: Mapping[str, Any], given: StageInput | None) -> KeepOptions:
    interval = recon.get("SAVE_ITERS", 10)
    if interval is not None:
        study.check_whole(interval, "recon_params.SAVE_ITERS")
    if not hyper.on:
        return KeepOptions(snapshot_every=interval)
    every = interval if hyper.keep_arrays and given is None else None
    return KeepOptions(hyper.keep_arrays, every, hyper.params_in_names)


def _results_path(recon: Mapping[str, Any], name: str) -> Path:
    folder = reading.expect(recon.get("output_dir", "output"), "text", "recon_params.output_dir")
    if "\0" in folder:
        raise ConfigError("cannot be a folder's name", key="recon_params.output_dir", value=folder)
    return Path(folder) / study.results_name(name)


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
