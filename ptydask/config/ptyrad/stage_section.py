"""The stages of a params file: the keys ``stages`` and ``final`` of the section ``ptydask``, read and checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ptydask.config import own_settings, reading, study
from ptydask.config.ptyrad import search_space
from ptydask.config.ptyrad.hypertune_section import DEFAULT_PRUNER, read_component
from ptydask.config.stages import Around, PatternPart, ScanPart, Stage, find_step
from ptydask.distributions import Choice, Distribution, IntRange
from ptydask.errors import ConfigError, nearest_hint
from ptydask.lineage import FINAL
from ptydask.model import ComponentSpec
from ptydask.space.metrics import METRICS
from ptydask.space.tunables import LEGACY, PARAMETERS, TILTS, TUNABLES, Tunable

_STAGE = (
    *("name", "tune", "trials", "metric", "iterations", "batch_size", "scan", "pixels"),
    *("sampler", "pruner", "search", "start_from", "stop_when"),
)
_FINAL = ("iterations", "start_from")
_RESERVED = {
    FINAL: "the key final makes that stage",
    "confirmation": "repeats of trials are called so in a results file",
    "best": "in start_from it stands for the stage before",
    "none": "in start_from it stands for no stage",
}
_MOST_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class StageContext:
    """What the rest of the file says that its stages refer to."""

    entries: Mapping[str, Mapping[str, Any]]
    """Of ``tune_params``, by the tunable's name; switched on or not."""
    scan: tuple[int, int]
    """Positions along the slow and the fast axis, after ``meas_crop``."""
    pixels: int
    """Of a pattern along either direction, after ``meas_crop``."""
    metrics: Collection[str]
    metric: str
    """What the study tunes by, where a stage does not say."""
    arrays_kept: bool
    """Whether a trial's object and probe stay in the results (``collate_results``)."""
    patterns_fixed: str = ""
    """Why no stage can crop or bin the patterns; empty where it can."""
    no_sums: str = ""
    """Why none can bin them; empty where it can."""


@dataclass(slots=True)
class _Earlier:
    """What has been read before the stage that is being read."""

    names: list[str] = field(default_factory=list)
    ranges: dict[str, Distribution] = field(default_factory=dict)
    """The latest range of each parameter that a stage tunes; of one about the best value, the one before."""
    all_names: tuple[Any, ...] = ()


def read_stages(entries: Collection[Any], final: Any, context: StageContext, key: str = "") -> tuple[Stage, ...]:
    """The stages in their order, the final one last; ``key`` is the section that they are in.

    Raises ConfigError with key, value, rule and what to do.
    """
    prefix = f"{key}." if key else ""
    earlier = _Earlier(all_names=tuple(entry.get("name") for entry in entries if isinstance(entry, Mapping)))
    stages = [_read_stage(entry, f"{prefix}stages[{place}]", context, earlier) for place, entry in enumerate(entries)]
    if final is not ... and final is not None:
        stages.append(_read_final(final, f"{prefix}final", context, earlier))
    return tuple(stages)


def _read_stage(entry: Any, key: str, context: StageContext, earlier: _Earlier) -> Stage:
    hint = "for example {name: scan, tune: [scale, rotation], trials: 12}"
    reading.expect(entry, "a mapping", key, hint)
    reading.known_keys(entry, _STAGE, key)
    name = _read_name(entry, key, earlier)
    tune = _read_tune(entry, key, context, earlier)
    until_settled, no_gain = own_settings.read_stop_when(entry.get("stop_when"), f"{key}.stop_when")
    stage = Stage(
        name=name,
        tune=tune,
        trials=_read_count(entry, "trials", key),
        metric=_read_metric(entry, key, context),
        iterations=_read_count(entry, "iterations", key),
        batch_size=_read_batch_size(entry, key, tune),
        scan=_read_scan(entry.get("scan"), f"{key}.scan", context),
        pixels=_read_pixels(entry.get("pixels"), f"{key}.pixels", context),
        sampler=_read_sampler(entry, key),
        pruner=_read_pruner(entry, key),
        search=own_settings.read_search(entry.get("search"), f"{key}.search"),
        start_from=_read_start(entry.get("start_from"), f"{key}.start_from", name, context, earlier),
        until_settled=until_settled if "stop_when" in entry else None,
        no_gain=no_gain,
    )
    if stage.pixels is not None and stage.pixels.bin is not None:
        _check_sums(stage, f"{key}.pixels.bin", context)
    _check_unseen(stage, f"{key}.start_from", context)
    earlier.names.append(name)
    for parameter, dist in tune.items():
        if not isinstance(dist, Around):
            earlier.ranges[parameter] = dist if dist is not None else file_range(context.entries, parameter)
    return stage


def _read_final(entry: Any, key: str, context: StageContext, earlier: _Earlier) -> Stage:
    example = "for example {iterations: 200}"
    reading.expect(entry, "a mapping", key, example)
    reading.known_keys(entry, _FINAL, key)
    if entry.get("iterations") is None:
        raise ConfigError("iterations is missing", key=key, value=dict(entry), hint=example)
    return Stage(
        name=FINAL,
        iterations=_read_count(entry, "iterations", key),
        start_from=_read_start(entry.get("start_from"), f"{key}.start_from", FINAL, context, earlier),
    )


def _read_name(entry: Mapping[str, Any], key: str, earlier: _Earlier) -> str:
    if entry.get("name") is None:
        raise ConfigError("name is missing", key=key, value=dict(entry), hint="for example name: scan")
    key = f"{key}.name"
    name = cast(str, reading.expect(entry["name"], "text", key))
    if name.lower() in _RESERVED:
        raise ConfigError(f"is taken: {_RESERVED[name.lower()]}", key=key, value=name, hint="choose another name")
    if not re.fullmatch(r"\w(?:[\w .+,&()-]*[\w)])?", name) or len(name) > _MOST_CHARACTERS:
        rule = f"must be letters, digits, blanks and -_.+,&(), at most {_MOST_CHARACTERS}"
        raise ConfigError(rule, key=key, value=name, hint="for example scan")
    if name in earlier.names:
        raise ConfigError("is the name of an earlier stage, too", key=key, value=name, hint=f"for example {name} 2")
    return name


def _read_count(entry: Mapping[str, Any], name: str, key: str) -> int | None:
    return None if entry.get(name) is None else study.check_whole(entry[name], f"{key}.{name}")


def _read_batch_size(entry: Mapping[str, Any], key: str, tune: Collection[str]) -> int | None:
    size = _read_count(entry, "batch_size", key)
    if size is not None and "batch_size" in tune:
        rule, hint = "is tuned in this stage", "leave it out of tune, or leave this out"
        raise ConfigError(rule, key=f"{key}.batch_size", value=size, hint=hint)
    return size


def _read_metric(entry: Mapping[str, Any], key: str, context: StageContext) -> str | None:
    if entry.get("metric") is None:
        return None
    metric = cast(str, reading.expect(entry["metric"], "text", f"{key}.metric"))
    if metric not in context.metrics:
        hint = nearest_hint(metric, context.metrics)
        raise ConfigError(f"must be one of {', '.join(context.metrics)}", key=f"{key}.metric", value=metric, hint=hint)
    return metric


# --- what is tuned ------------------------------------------------------------------------------------


def _read_tune(
    entry: Mapping[str, Any], key: str, context: StageContext, earlier: _Earlier
) -> dict[str, Distribution | Around | None]:
    """By parameter, so that ``C12`` is ``C12a`` and ``C12b``."""
    key = f"{key}.tune"
    value = entry.get("tune")
    if not value:
        hint = "name what it tunes, for example tune: [scale, rotation]; for a picture write final: {iterations: 200}"
        raise ConfigError("a stage must tune something", key=key, value=value, hint=hint)
    if not isinstance(value, list | Mapping):
        rule = f"must be a list of names, or a mapping of names and ranges, not {reading.type_name(value)}"
        raise ConfigError(rule, key=key, value=value, hint="for example [scale, rotation]")
    tune: dict[str, Distribution | Around | None] = {}
    for name in value:
        if not isinstance(name, str) or (name not in TUNABLES and name not in LEGACY):
            hint = nearest_hint(str(name), [*TUNABLES, *LEGACY])
            place = key if isinstance(value, list) else f"{key}.{name}"
            raise ConfigError("PtyRAD has no such tunable", key=place, value=name, hint=hint)
        given = value[name] if isinstance(value, Mapping) else None
        new, sign = LEGACY.get(name, (name, 1))
        for parameter in TUNABLES[new].parameters:
            if parameter in tune:
                raise ConfigError("is there twice", key=key, value=name, hint="keep one of them")
            tune[parameter] = _read_stage_range(parameter, given, f"{key}.{name}", sign, context, earlier)
    return tune


def file_range(entries: Mapping[str, Mapping[str, Any]], parameter: str) -> Distribution:
    """The range that ``tune_params`` has for a parameter, switched on or not. Raises ConfigError."""
    tunable = PARAMETERS[parameter]
    key = f"{search_space.KEY}.{tunable.name}"
    return search_space.read_distribution(tunable, dict(entries[tunable.name]), key, [])


def _read_stage_range(
    parameter: str, value: Any, key: str, sign: int, context: StageContext, earlier: _Earlier
) -> Distribution | Around | None:
    tunable = PARAMETERS[parameter]
    if value is None:
        if tunable.name not in context.entries:
            hint = f"write its range here, for example {tunable.name}: {_example_range(tunable)}"
            raise ConfigError(f"has no range in {search_space.KEY}", key=key, value=None, hint=hint)
        file_range(context.entries, parameter)
        return None
    reading.expect(value, "a mapping", key, f"for example {_example_range(tunable)}, or null for the file's range")
    if "around" in value:
        return _read_around(parameter, value, key, earlier)
    entry, kwargs_key = dict(value), ""
    if "suggest" in entry or "kwargs" in entry:
        reading.known_keys(entry, ("suggest", "kwargs"), key)
        if isinstance(entry.get("kwargs"), Mapping) and entry["kwargs"].get("optim_configs"):
            # Stages that come later, and the params file of all, take them from there.
            rule, hint = "is the same for all stages", f"write it into {search_space.KEY}.optimizer.kwargs"
            raise ConfigError(rule, key=f"{key}.kwargs.optim_configs", hint=hint)
    else:
        reading.known_keys(entry, ("low", "high", "step", "log", "choices", "around", "within"), key)
        suggest = "int" if tunable.kind == "integer" else "float"
        entry = {"suggest": "cat" if "choices" in entry else suggest, "kwargs": entry}
        kwargs_key = key
    dist = search_space.read_distribution(tunable, entry, key, [], kwargs_key=kwargs_key)
    return search_space.negate_distribution(dist, kwargs_key or f"{key}.kwargs") if sign < 0 else dist


def _example_range(tunable: Tunable) -> str:
    """Numbers where any file's would do: lengths and angles are the specimen's own."""
    words = {"name": "{choices: [Adam, SGD]}", "integer": "{low: 1, high: 8}", "real": "{low: ..., high: ...}"}
    return words[tunable.kind]


def _read_around(parameter: str, value: Mapping[str, Any], key: str, earlier: _Earlier) -> Around:
    reading.known_keys(value, ("around", "within", "step"), key)
    if value["around"] != "best":
        raise ConfigError("must be best", key=f"{key}.around", value=value["around"], hint="write around: best")
    if parameter not in earlier.ranges:
        hint = "tune it in an earlier stage, or write its range"
        raise ConfigError("no earlier stage tunes it, so no best value is known", key=key, value=dict(value), hint=hint)
    dist = earlier.ranges[parameter]
    if isinstance(dist, Choice):
        rule = "has choices, which lie in no order"
        raise ConfigError(rule, key=key, value=dict(value), hint="write the choices that are left, or null")
    step = value.get("step")
    if step is not None:
        step = study.number(step, f"{key}.step")
        if step <= 0 or (isinstance(dist, IntRange) and step != int(step)):
            rule = "must be a whole number above 0" if isinstance(dist, IntRange) else "must be above 0"
            raise ConfigError(rule, key=f"{key}.step", value=step)
    around = Around(_read_steps(value.get("within"), f"{key}.within"), None if step is None else float(step))
    if getattr(dist, "log", False):
        rule = "its range is logarithmic, and within counts grid steps"
        raise ConfigError(rule, key=key, value=dict(value), hint="write {low, high, log: true}")
    if find_step(dist, around) is None:
        hint = f"add a step: {{around: best, within: {around.steps:g} steps, step: 0.1}}"
        raise ConfigError("its range has no step to count", key=key, value=dict(value), hint=hint)
    return around


def _read_steps(value: Any, key: str) -> float:
    """``3 steps``, or 3."""
    steps = value
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([0-9.]+)\s*steps?\s*", value)):
        steps = float(match[1]) if reading.spells_number(match[1]) else None
    if isinstance(steps, bool) or not isinstance(steps, int | float) or not 0 < steps <= 1e6:
        rule = "must be a number of grid steps above 0"
        raise ConfigError(rule, key=key, value=value, hint="for example within: 3 steps")
    return float(steps)


# --- the part of the data -----------------------------------------------------------------------------


def _read_scan(value: Any, key: str, context: StageContext) -> ScanPart | None:
    if value is None:
        return None
    number = _read_one_of(value, ("every", "center"), key, "for example {every: 2}")
    slow, fast = context.scan
    if not slow or not fast:
        rule, hint = "needs the numbers of scan positions", "write pos_N_scan_slow and pos_N_scan_fast"
        raise ConfigError(rule, key=key, value=dict(value), hint=hint)
    if "every" in value:
        if number >= min(slow, fast):
            rule = f"leaves less than two rows or columns of the scan's {slow} x {fast} positions"
            raise ConfigError(rule, key=f"{key}.every", value=number)
        return ScanPart(every=number)
    if number > min(slow, fast):
        rule = f"must be at most {min(slow, fast)}: the scan has {slow} x {fast} positions"
        raise ConfigError(rule, key=f"{key}.center", value=number)
    return ScanPart(center=number)


def _read_pixels(value: Any, key: str, context: StageContext) -> PatternPart | None:
    if value is None:
        return None
    number = _read_one_of(value, ("crop", "bin"), key, "for example {crop: 64}")
    if context.patterns_fixed:
        hint = "take pixels out, or use scan: {every: 2} for a cheap look"
        raise ConfigError(context.patterns_fixed, key=key, value=dict(value), hint=hint)
    if "crop" in value:
        if number > context.pixels:
            rule = f"must be at most the patterns' {context.pixels} pixels"
            raise ConfigError(rule, key=f"{key}.crop", value=number)
        return PatternPart(crop=number)
    if number != 2 or context.pixels % 2:
        rule = "PtyRAD adds up 2 x 2 pixels of patterns with an even number of them; with others it leaves some out"
        raise ConfigError(rule, key=f"{key}.bin", value=number, hint="write bin: 2, or crop")
    if context.no_sums:
        hint = "use crop, which leaves the window as it is"
        raise ConfigError(context.no_sums, key=f"{key}.bin", value=number, hint=hint)
    return PatternPart(bin=2)


def _check_sums(stage: Stage, key: str, context: StageContext) -> None:
    """Raises ConfigError for what goes wrong with sums of 2 x 2 pixels.

    The zero of reciprocal space, at the middle of pixel N // 2, is not at the middle of any sum: the patterns seem
    shifted by half a pixel of before. The probe takes that up as a tilt of the beam, and so do tilts of the object.
    """
    if (stage.metric or context.metric) == "counts":
        rule = "the metric counts needs patterns of counted electrons, and neighbouring pixels are mixed"
        raise ConfigError(rule, key=key, value=2, hint="use crop, or the metric heldout")
    tilts = [name for name in TILTS if name in stage.tune]
    if tilts:
        rule = f"{', '.join(tilts)} would be found off by half a pixel of the whole patterns"
        raise ConfigError(rule, key=key, value=2, hint="tune tilts with crop, or without pixels")


def _check_unseen(stage: Stage, key: str, context: StageContext) -> None:
    """Raises ConfigError for a metric of data that the trials' reconstruction has not seen, where the start has."""
    metric = stage.metric or context.metric
    if stage.start_from and metric in METRICS and METRICS[metric].held_out:
        rule = f"{metric} scores by data that are held out, and the reconstruction that trials start from has seen them"
        raise ConfigError(rule, key=key, value=stage.start_from, hint="leave start_from out, or tune by another metric")


def _read_one_of(value: Any, names: tuple[str, str], key: str, example: str) -> int:
    reading.expect(value, "a mapping", key, example)
    reading.known_keys(value, names, key)
    given = [name for name in names if value.get(name) is not None]
    if len(given) != 1:
        rule = f"must be {names[0]} or {names[1]}, one of them"
        raise ConfigError(rule, key=key, value=dict(value), hint=example)
    return study.check_whole(value[given[0]], f"{key}.{given[0]}")


# --- the search ---------------------------------------------------------------------------------------


def _read_sampler(entry: Mapping[str, Any], key: str) -> ComponentSpec | None:
    value = entry.get("sampler")
    return None if value is None else _read_component(value, f"{key}.sampler", study.TPE)


def _read_pruner(entry: Mapping[str, Any], key: str) -> ComponentSpec | Literal["file"] | None:
    value = entry.get("pruner", "file")
    if value is None or value is False:
        return None
    return "file" if "pruner" not in entry else _read_component(value, f"{key}.pruner", DEFAULT_PRUNER)


def _read_component(value: Any, key: str, default: ComponentSpec) -> ComponentSpec:
    """``TPESampler``, or ``{name: TPESampler, configs: {...}}``."""
    return read_component({"name": value} if isinstance(value, str) else value, key, default)


# --- where trials start from --------------------------------------------------------------------------


def _read_start(value: Any, key: str, name: str, context: StageContext, earlier: _Earlier) -> str:
    if value is None or value == "none":
        return ""
    reading.expect(value, "text", key, "best, the name of an earlier stage, or none")
    start = earlier.names[-1] if value == "best" and earlier.names else value
    if start not in earlier.names:
        rule, hint = "no stage has this name", nearest_hint(value, ("best", "none", *earlier.names))
        if value == "best":
            rule, hint = "no stage comes before this one", "take it out, or write none"
        elif value == name:
            rule, hint = "a stage cannot start from itself", "write best for the stage before"
        elif value in earlier.all_names or value == FINAL:
            rule, hint = "comes later", "name an earlier stage, or write best for the stage before"
        raise ConfigError(rule, key=key, value=value, hint=hint)
    if not context.arrays_kept:
        rule = f"stage {start} would keep no reconstruction to start from: hypertune_params.collate_results is false"
        raise ConfigError(rule, key=key, value=value, hint="set collate_results: true")
    return start
