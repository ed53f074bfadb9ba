"""A plan for PtyRAD checked before any job is queued: its schema, the data's headers, what is worth tuning."""

from __future__ import annotations

import copy
import inspect
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptydask.config import reading, study
from ptydask.config.ptyrad import metric_advice, old_keys
from ptydask.distributions import Choice, Distribution, IntRange, WeightedChoice
from ptydask.engines import naming_file, starts_from_reconstruction
from ptydask.engines.ptyrad import datafiles, held_out, own_metrics, schema
from ptydask.engines.ptyrad.footprint import estimate_trial_bytes, estimate_worker_memory
from ptydask.errors import ConfigError, nearest_hint, one_line, require
from ptydask.model import NEAR_VALUES, OWN_VALUES, Scalar, StudyPlan
from ptydask.space import inactive, ranges, tunables, tuning_order
from ptydask.trial.search_choice import choose_search, parameters_with_slopes

_TUNE = "hypertune_params.tune_params"


def complete(plan: StudyPlan) -> StudyPlan:
    """The plan with PtyRAD's defaults filled in, the file's own values as its first point, and more notices.

    Reads no pattern and needs no device. Raises ConfigError for what PtyRAD would refuse or could only fail at, and
    for a tuned parameter that the file makes ineffective; DataError for a data file that cannot be used;
    MissingDependency without PtyRAD.
    """
    require("ptyrad", "the engine 'ptyrad' needs", "ptyrad")
    with naming_file(plan):
        return _complete_params(plan)


def _complete_params(plan: StudyPlan) -> StudyPlan:
    config, moved = _present_source(_whole_numbers(plan.config))
    plan = own_metrics.check(plan)
    plan = replace(plan, config=config, notices=(*plan.notices, *moved))
    _check_types(plan.config)
    datafiles.check_paths(plan.config)
    # PtyRAD knows 9 samplers and 6 pruners, and not all its versions the same keys: of the search it sees the tunables
    # alone, to check those that are switched on.
    params = {section: value for section, value in plan.config.items() if section != "hypertune_params"}
    params["hypertune_params"] = {"tune_params": plan.config["hypertune_params"]["tune_params"]}
    config, warnings = schema.load(params)
    config["hypertune_params"] = copy.deepcopy(dict(plan.config["hypertune_params"]))
    init = config["init_params"]
    patterns = datafiles.check_measurements(init)
    plan = replace(plan, notices=(*plan.notices, *patterns.notices))
    if patterns.key is not None:
        init["meas_params"]["key"] = patterns.key
    datafiles.check_loaded(init)
    scan = datafiles.check_preprocessing(init)
    _check_optimizers(config)
    _check_updates(config["model_params"])
    _check_tilts(init)
    grid, hidden = datafiles.chosen_grid(config["recon_params"], *scan), 0
    if plan.held_out is not None:
        hidden = held_out.check_plan(plan.held_out, config, grid, plan.seed)
        if plan.held_out.kind == "counts":
            from ptydask.engines.ptyrad import counted_patterns  # it reads data, which other plans need not wait for

            counted_patterns.check_counted(init, plan.held_out.gain)
        line = ("held out", held_out.describe(plan.held_out, hidden, grid, plan.seed))
        plan = replace(plan, details=(*plan.details, line))
    space, clipped = _limit_batches(config, plan.space, math.prod(grid) - hidden)
    tuned = tuple(dict.fromkeys(tunables.PARAMETERS[name].name for name in space))
    for name in tuned:
        reason = tunables.ineffective_reason(config, name, tuned)
        if reason is not None:
            raise ConfigError(f"tuning it has no effect: {reason}", key=f"{_TUNE}.{name}.state", value=True)
    metric_advice.check_idle_metric(plan.metric, tuned, config)
    points = plan.points
    if starts_from_reconstruction(plan):
        # SciPy, which other plans need not wait for.
        from ptydask.engines.ptyrad.start_rules import check_start

        plan = replace(plan, notices=(*plan.notices, *check_start(plan, config, tuple(space), math.prod(scan))))
    notices = (*plan.notices, *warnings, *clipped, *_coupling_notices(init, tuned), *_late_updates(config, plan, tuned))
    pruner = "" if plan.pruner is None else "pruner_params" if plan.lineage is None else "pruner"
    notices = (*notices, *metric_advice.advise(plan.metric, tuned, config, pruner=pruner))
    if space and not any(point.origin in (OWN_VALUES, NEAR_VALUES) for point in points):
        start, moved = tunables.start_point(space, config, plan.lineage.values if plan.lineage else ())
        notices = (*notices, *moved)
        if start.params:
            points = (start, *points)
    _check_output(plan.results, config["recon_params"]["output_dir"])
    # What is optimised is the loss: only that has its slope from the reconstruction.
    numbers = frozenset(name for name, dist in space.items() if not isinstance(dist, Choice | WeightedChoice))
    slopes = numbers & frozenset(tunables.DIFFERENTIABLE) if plan.metric == "loss" else frozenset[str]()
    idle = tuple(("inactive", inactivity.text) for inactivity in inactive.conditional_inactivity(config, space))
    return replace(
        plan,
        config=config,
        space=space,
        points=points,
        notices=(*notices, *_advise_steps(replace(plan, space=space, differentiable=slopes))),
        differentiable=slopes,
        details=(*plan.details, *idle),
        trial_bytes=estimate_trial_bytes(config, plan.keep, scan),
        worker_memory=estimate_worker_memory(config, scan),
        scan_share=(math.prod(grid) - hidden) / math.prod(scan),
    )


_DATA_FORMATS = ("raw", "hdf5", "mat", "tif", "tiff", "npy")
_WHOLE = ("pos_N_scan_slow", "pos_N_scan_fast", "meas_Npix")


def _whole_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The params with 8 for 8.0 where a number of pixels or scan points is meant, as PtyRAD reads it."""
    init = dict(config["init_params"])
    for key in _WHOLE:
        if isinstance(init.get(key), float) and init[key].is_integer():
            init[key] = int(init[key])
    return {**config, "init_params": init}


def _present_source(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``meas_source`` as the installed PtyRAD takes it: up to 0.1.0b7, and from 1.0 on, it may be a file format."""
    source = config["init_params"].get("meas_source")
    if source not in _DATA_FORMATS or source in schema.known_values("init_params", "meas_source"):
        return config, ()
    notice = f"meas_source {source!r} is 'file' now: the format is told by the file's name"
    return {**config, "init_params": {**config["init_params"], "meas_source": "file"}}, (notice,)


def _check_types(config: Mapping[str, Any]) -> None:
    """Shapes of values that PtyRAD's migration of old keys takes for granted."""
    init = config["init_params"]
    for key in _WHOLE:
        study.check_whole(init.get(key, 1), f"init_params.{key}")
    aberrations = init.get("probe_aberrations")
    if aberrations is not None:
        reading.expect(aberrations, "a mapping", "init_params.probe_aberrations")
        for name, value in aberrations.items():
            if not ranges.is_number(value):
                key = f"init_params.probe_aberrations.{name}"
                rule, hint = f"must be a number, not {reading.type_name(value)}", reading.spelling_hint(value)
                raise ConfigError(rule, key=key, value=value, hint=hint)
    for name, entry in (config.get("constraint_params") or {}).items():
        error = old_keys.misplaced(name, "constraint_params", entry, config)
        if error is not None and not isinstance(entry, Mapping):
            raise error
        reading.expect(entry, "a mapping", f"constraint_params.{name}")
    model = config.get("model_params") or {}
    for name in ("optimizer_params", "update_params"):
        if name in model:
            reading.expect(model[name], "a mapping", f"model_params.{name}")


# --- what PtyRAD's schema lets pass -----------------------------------------------------------------


def _check_updates(model: Mapping[str, Any]) -> None:
    for tensor, entry in model["update_params"].items():
        key = f"model_params.update_params.{tensor}"
        reading.known_keys(entry, ("start_iter", "lr", "end_iter"), key)
        rate = entry.get("lr")
        if not ranges.is_number(rate) or not math.isfinite(rate) or rate < 0:
            raise ConfigError("lr must be a finite number, at least 0", key=f"{key}.lr", value=rate)


def _check_tilts(init: Mapping[str, Any]) -> None:
    """PtyRAD's schema takes rows of any length, and its trials fail."""
    rows = (init.get("tilt_params") or {}).get("init_tilts")
    if init.get("tilt_source", "simu") != "simu" or rows is None:
        return
    if not rows or any(len(row) != 2 or not all(map(math.isfinite, row)) for row in rows):
        key = "init_params.tilt_params.init_tilts"
        raise ConfigError("must be rows of two finite numbers, [[tilt_y, tilt_x]]", key=key, value=rows)


def _check_optimizers(config: Mapping[str, Any]) -> None:
    """The keywords of PyTorch's optimizers; PyTorch is loaded only where there are any to check."""
    params = config["model_params"]["optimizer_params"]
    key = "model_params.optimizer_params"
    _check_keywords(params["name"], params.get("configs") or {}, f"{key}.configs", f"{key}.name")
    entry = config["hypertune_params"]["tune_params"].get("optimizer") or {}
    tuned_configs = (entry.get("kwargs") or {}).get("optim_configs") or {}
    for name, configs in tuned_configs.items():
        inner = f"{_TUNE}.optimizer.kwargs.optim_configs.{name}"
        _check_keywords(name, configs or {}, inner, inner)


def _check_keywords(name: str, configs: Mapping[str, Any], key: str, name_key: str) -> None:
    if name == "Nadam":
        raise ConfigError("PyTorch has no optimizer of that name", key=name_key, value=name)
    if not configs:
        return
    import torch

    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    settings = [setting for setting in parameters if setting not in ("params", "lr")]
    for keyword, value in configs.items():
        if keyword not in settings and keyword != "lr":
            hint = nearest_hint(keyword, settings)
            raise ConfigError(f"{name} has no such setting", key=f"{key}.{keyword}", value=value, hint=hint)


def _limit_batches(
    config: Mapping[str, Any], space: Mapping[str, Distribution], patterns: int
) -> tuple[dict[str, Distribution], tuple[str, ...]]:
    """A batch cannot hold more than all patterns: PtyRAD makes no batch at all of them then, and fails."""
    distribution = space.get("batch_size")
    if distribution is None:
        size = config["recon_params"]["BATCH_SIZE"]["size"]
        if size > patterns:
            rule = f"must be at most the {patterns} patterns of an iteration"
            raise ConfigError(rule, key="recon_params.BATCH_SIZE.size", value=size)
        return dict(space), ()
    fitting = _limit_distribution(distribution, patterns)
    if fitting is None:
        rule = f"must allow batches of at most the {patterns} patterns of an iteration"
        raise ConfigError(rule, key=f"{_TUNE}.batch_size.kwargs", value=ranges.describe(distribution))
    if fitting == distribution:
        return dict(space), ()
    notice = f"batch_size: {ranges.describe(fitting)}, as an iteration has {patterns} patterns"
    return {**space, "batch_size": fitting}, (notice,)


def _limit_distribution(distribution: Distribution, most: int) -> Distribution | None:
    if isinstance(distribution, Choice):
        choices: tuple[Scalar, ...] = tuple(c for c in distribution.choices if isinstance(c, int) and c <= most)
        return Choice(choices) if choices else None
    if not isinstance(distribution, IntRange) or distribution.low > most:
        return None
    low, step = distribution.low, distribution.step
    high = min(distribution.high, most)
    return IntRange(low, low + (high - low) // step * step, step, distribution.log)


def _advise_steps(plan: StudyPlan) -> Iterator[str]:
    """Where slopes lead, all that have them are best tuned at once (docs/stages.md: what was measured)."""
    led = parameters_with_slopes(plan) if choose_search(plan).informed else ()
    unled = dict.fromkeys(tunables.PARAMETERS[name].name for name in plan.space if name not in led)
    if len(unled) > tuning_order.MOST:
        yield (
            f"{len(unled)} parameters are tuned at once without slopes; no more than {tuning_order.MOST} is better "
            "practice, in steps: dz first, then scale with rotation, then all four of the scan affine, tilts last"
        )


def _coupling_notices(init: Mapping[str, Any], tuned: tuple[str, ...]) -> tuple[str, ...]:
    mode = init["meas_calibration"]["mode"]
    if "conv_angle" in tuned and "dx" not in tuned and mode in ("fitRBF", "RBF", "n_alpha"):
        return (f"conv_angle: the pixel size follows it, as meas_calibration is {mode!r}; mode 'dx' keeps it fixed",)
    return ()


def _late_updates(config: Mapping[str, Any], plan: StudyPlan, tuned: tuple[str, ...]) -> tuple[str, ...]:
    """A notice for each learning rate that trials know nothing of where they are pruned before its updates begin."""
    if plan.pruner is None:
        return ()
    configs = plan.pruner.configs
    waits = [configs.get(key) for key in ("min_resource", "n_warmup_steps")]
    earliest = max([1, *(steps for steps in waits if isinstance(steps, int))])
    notices = []
    for name in tuned:
        if name in tunables.TENSORS:
            start = config["model_params"]["update_params"][tunables.TENSORS[name]]["start_iter"]
            if start > earliest:
                notices.append(
                    f"{name}: does nothing in trials that are pruned before iteration {start}, where it begins"
                )
    return tuple(notices)


# --- where the results go ---------------------------------------------------------------------------


def _check_output(results: Path, output_dir: str) -> None:
    """The results file can be written: tried with an empty file, which is gone at once."""
    key = "recon_params.output_dir" if results.parent == Path(output_dir) else "--results"
    try:
        if results.is_dir():
            raise ConfigError("the results file is a folder already", key=key, value=str(results))
        folder = results.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise ConfigError(f"{folder} is a file, not a folder", key=key, value=str(results.parent))
        with tempfile.TemporaryFile(dir=folder, prefix=".ptydask-"):
            pass
        if len(results.name.encode()) > 240:
            raise OSError("File name too long")
    except OSError as error:
        reason = one_line(error.strerror or str(error))
        rule, hint = f"cannot be written to: {reason}", "give another place with -o FILE.h5"
        raise ConfigError(rule, key=key, value=str(results.parent), hint=hint) from None
