"""A params file as it would be written for one stage alone: values found so far, its ranges, its part of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ptydask.config.ptyrad import search_space
from ptydask.config.ptyrad.hypertune_section import KEY, write_component
from ptydask.config.ptyrad.stage_section import file_range
from ptydask.config.stages import Around, PatternPart, ScanPart, Stage, StageInput, place_range
from ptydask.distributions import Choice, Distribution, IntRange
from ptydask.errors import ConfigError
from ptydask.model import Scalar
from ptydask.space import aberrations, ranges, tunables


def stage_space(config: Mapping[str, Any], given: StageInput) -> dict[str, Distribution]:
    """The range of each parameter that a stage tunes. ``config`` are the file's sections in today's spelling.

    Where the best value of an earlier stage is not known yet, a range about it is one about the file's own value. What
    does nothing in a single slice is left out where an earlier stage found that one is best. Raises ConfigError.
    """
    entries = (config.get(KEY) or {}).get("tune_params") or {}
    space: dict[str, Distribution] = {}
    single = given.lineage.values.get("Nlayer") == 1 and "Nlayer" not in given.stage.tune
    for name, dist in given.stage.tune.items():
        if single and name in IN_SLICES:
            continue
        if isinstance(dist, Around):
            before = given.ranges.get(name) or file_range(entries, name)
            space[name] = place_range(name, before, dist, _best_value(config, given, name, before))
        else:
            space[name] = file_range(entries, name) if dist is None else dist
    return space


IN_SLICES = ("dz", *tunables.TILTS, "dzlr", "tlr")
"""Parameters that do nothing in an object of one slice."""


def _values_before(given: StageInput) -> dict[str, Scalar]:
    """What earlier stages found; where the slices are yet to be found, as many as there may be, so that it can be
    checked what a stage does with them."""
    values, slices = dict(given.lineage.values), given.ranges.get("Nlayer")
    if slices is not None and "Nlayer" not in values and "Nlayer" not in given.stage.tune:
        values["Nlayer"] = max(slices.choices) if isinstance(slices, Choice) else cast(IntRange, slices).high  # type: ignore[type-var]
    return values


def _best_value(config: Mapping[str, Any], given: StageInput, name: str, before: Distribution) -> Scalar:
    if name in given.lineage.values:
        return given.lineage.values[name]
    own = tunables.current_value(config, name)
    return ranges.nearest_value(before, own) if ranges.is_number(own) else ranges.middle(before)


def write_stage(config: Mapping[str, Any], given: StageInput, space: Mapping[str, Distribution]) -> dict[str, Any]:
    """A copy of ``config``, a file's sections in today's spelling, with everything in place that the stage says.

    ``space`` is what :func:`stage_space` returned.
    """
    stage, new = given.stage, _apply_values(config, _values_before(given))
    new[KEY] = _write_search(dict(new.get(KEY) or {}), stage, space)
    recon = dict(new.get("recon_params") or {})
    if stage.iterations is not None:
        recon["NITER"] = stage.iterations
    if stage.batch_size is not None:
        recon["BATCH_SIZE"] = {**(recon.get("BATCH_SIZE") or {}), "size": stage.batch_size}
    if stage.is_final:
        recon["INDICES_MODE"] = {"mode": "full", "subscan_slow": None, "subscan_fast": None}
    elif stage.scan is not None:
        recon["INDICES_MODE"] = indices_mode(stage.scan, scan_shape(new["init_params"]))
    new["recon_params"] = recon
    return new if stage.pixels is None else with_patterns(new, stage.pixels)


def _apply_values(config: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, Any]:
    try:
        return tunables.apply(config, values)
    except (TypeError, ValueError, AttributeError, LookupError):
        places = ", ".join(dict.fromkeys(tunables.PARAMETERS[name].where for name in values))
        rule = "has another shape than PtyRAD's, so that the values that a stage found cannot be put there"
        raise ConfigError(rule, key=places, hint="--stages none says what is wrong with it") from None


def _write_search(hyper: dict[str, Any], stage: Stage, space: Mapping[str, Distribution]) -> dict[str, Any]:
    entries = {name: {**entry, "state": False} for name, entry in (hyper.get("tune_params") or {}).items()}
    for name in dict.fromkeys(tunables.PARAMETERS[parameter].name for parameter in space):
        parts = [space[parameter] for parameter in tunables.TUNABLES[name].parameters if parameter in space]
        entries[name] = _write_entry(parts, entries.get(name))
    hyper |= {"if_hypertune": bool(space), "tune_params": entries}
    if stage.trials is not None:
        hyper["n_trials"] = stage.trials
    if stage.sampler is not None:
        hyper["sampler_params"] = write_component(stage.sampler)
    if stage.pruner != "file":
        hyper["pruner_params"] = write_component(stage.pruner)
    return hyper


def _write_entry(parts: list[Distribution], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """PtyRAD's entry of a tunable; of an aberration with a direction it is as wide as both parts take."""
    dist, all_kwargs = parts[0], [search_space.suggest_kwargs(cast("search_space.Tuned", part)) for part in parts]
    kwargs = all_kwargs[0]
    if isinstance(dist, Choice):
        if configs := ((before or {}).get("kwargs") or {}).get("optim_configs"):
            kwargs = {**kwargs, "optim_configs": configs}
        return {"state": True, "suggest": "cat", "kwargs": kwargs}
    kwargs |= {"low": min(other["low"] for other in all_kwargs), "high": max(other["high"] for other in all_kwargs)}
    return {"state": True, "suggest": "int" if isinstance(dist, IntRange) else "float", "kwargs": kwargs}


# --- the part of the data -----------------------------------------------------------------------------


def scan_shape(init: Mapping[str, Any]) -> tuple[int, int]:
    """Scan positions along the slow and the fast axis, after ``meas_crop``; 0 where the file does not say."""
    return len(_kept(init, 0)), len(_kept(init, 1))


def pattern_pixels(init: Mapping[str, Any]) -> int:
    """Pixels of a pattern along one direction, after ``meas_crop``; 0 where the file does not say."""
    return len(_kept(init, 2))


_AXES = ("pos_N_scan_slow", "pos_N_scan_fast", "meas_Npix", "meas_Npix")


def _whole(init: Mapping[str, Any], axis: int) -> range:
    size = init.get(_AXES[axis])
    return range(int(size)) if ranges.is_number(size) and 0 < size < 2**31 else range(0)


def _kept(init: Mapping[str, Any], axis: int) -> range:
    """What ``meas_crop`` leaves of an axis; all of it where that is no crop, which PtyRAD will refuse."""
    whole, crop = _whole(init, axis), init.get("meas_crop")
    bounds = crop[axis] if isinstance(crop, list) and len(crop) == 4 else None
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(end, int) for end in bounds):
        return whole
    return whole[slice(*bounds)]


def indices_mode(part: ScanPart, scan: tuple[int, int]) -> dict[str, Any]:
    """PtyRAD's ``INDICES_MODE``: it wants numbers of positions, which ``sub`` spreads evenly from end to end."""
    if part.center is not None:
        return {"mode": "center", "subscan_slow": part.center, "subscan_fast": part.center}
    slow, fast = ((count - 1) // part.every + 1 for count in scan)
    return {"mode": "sub", "subscan_slow": slow, "subscan_fast": fast}


def why_patterns_fixed(init: Mapping[str, Any]) -> str:
    """Why no stage can crop or bin the patterns of this file; empty where it can.

    A crop makes the object's pixels larger, and a sum over pixels the probe's window smaller: what is loaded fits
    neither. Padding and resampling come after the crop, and would undo it.
    """
    for part in ("probe", "obj", "pos"):
        if init.get(f"{part}_source", "simu") != "simu":
            return f"{part}_source is {init[f'{part}_source']!r}: what is loaded has the pixels of the whole patterns"
    for key in ("meas_pad", "meas_resample"):
        entry = init.get(key)
        if isinstance(entry, Mapping) and entry.get("mode") is not None:
            return f"{key} changes the patterns' pixels already"
    return ""


def why_no_sums(init: Mapping[str, Any]) -> str:
    """Why sums of 2 x 2 pixels cannot be reconstructed from: the probe is wider than their window. Empty where it fits.

    Its width is that of geometrical optics, 2 |C10| times the convergence semi-angle; unknown where the file lacks it.
    """
    angle, pixels = init.get("probe_conv_angle"), pattern_pixels(init)
    try:
        size, defocus = tunables.pixel_size(init), aberrations.coefficient(init, (1, 0))[0]
        width = 2 * abs(defocus) * cast(float, angle) * 1e-3
        window = cast(float, size) * len(_whole(init, 2)) / 2
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
        return ""
    if not pixels or not width > window:
        return ""
    return f"the probe, {width:.3g} angstrom wide by its defocus, does not fit into half of the window, {window:.3g}"


_OF_PATTERN: Mapping[str, Mapping[str, Any]] = {
    "probe_mask_k": {"start_iter": None, "radius": 0.22, "width": 0.05},
    "kr_filter": {"start_iter": None, "radius": 0.15, "width": 0.05},
}
"""PtyRAD's constraints, with its defaults, whose lengths are shares of a pattern's width, or of the object's band."""
_OF_OBJECT: Mapping[str, Mapping[str, Any]] = {"obj_rblur": {"start_iter": 1, "std": 0.4}}
"""Those whose lengths are pixels of the object."""


def with_patterns(config: Mapping[str, Any], part: PatternPart) -> dict[str, Any]:
    """A copy of ``config`` with its patterns cropped about their centre, or with 2 x 2 of their pixels added up.

    The calibration is that of the file's patterns: PtyRAD widens ``dx`` by the crop, and the pixels in reciprocal space
    by the sum. What constraints say in pixels, or in shares of a pattern, is kept at the same length.
    """
    init, pixels = dict(config["init_params"]), pattern_pixels(config["init_params"])
    model, ratio = dict(config.get("model_params") or {}), 1.0
    if part.crop is not None:
        before = init.get("meas_crop")
        scan = before[:2] if isinstance(before, list) else [None, None]
        # The zero of reciprocal space is pixel N // 2, before and after.
        first = (_kept(init, axis).start + pixels // 2 - part.crop // 2 for axis in (2, 3))
        init["meas_crop"] = [*scan, *([start, start + part.crop] for start in first)]
        ratio = pixels / part.crop
        constraints = _scaled(config.get("constraint_params") or {}, _OF_PATTERN, ratio)
        constraints = _scaled(constraints, _OF_OBJECT, 1 / ratio)
    else:
        # Bilinear at the common corner of 2 x 2 pixels, times 4: their sum.
        init["meas_resample"] = {"mode": "on_the_fly", "scale_factors": [0.5, 0.5]}
        constraints = dict(config.get("constraint_params") or {})
        if ranges.is_number(model.get("detector_blur_std")):
            model["detector_blur_std"] /= 2
    new = {**config, "init_params": init}
    if constraints:
        new["constraint_params"] = constraints
    if model:
        new["model_params"] = model
    return new


def _scaled(constraints: Mapping[str, Any], lengths: Mapping[str, Mapping[str, Any]], factor: float) -> dict[str, Any]:
    """``constraints`` with some lengths of those that are active times ``factor``."""
    scaled = dict(constraints)
    for name, defaults in lengths.items():
        given = constraints.get(name)
        entry = {**defaults, **(given if isinstance(given, Mapping) else {})}
        new = {key: entry[key] for key in defaults if key != "start_iter"}
        if entry["start_iter"] is not None and all(map(ranges.is_number, new.values())):
            scaled[name] = entry | {key: value * factor for key, value in new.items()}
    return scaled
