"""Which stages a study of a params file has: those that are written, those that are recommended, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ptydask.config import Overrides, own_settings, study
from ptydask.config.ptyrad import recommended_stages, stage_config
from ptydask.config.ptyrad.hypertune_section import HypertuneSettings
from ptydask.config.ptyrad.search_space import rename_legacy
from ptydask.config.ptyrad.stage_section import StageContext, read_stages
from ptydask.config.stages import Stage, StageInput
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import StudyPlan
from ptydask.space import ranges
from ptydask.space.metrics import METRICS

_IMAGE_METRICS = ("contrast", "robust_contrast")


def choose_stages(config: Mapping[str, Any], hyper: HypertuneSettings, overrides: Overrides) -> tuple[Stage, ...]:
    """The stages of a file with these sections, checked; none where it has none, or tunes nothing to be recommended.

    Raises ConfigError.
    """
    own = overrides.own
    if overrides.stages == "none" or (own.stages is None and overrides.stages is None and own.final in (..., None)):
        return ()
    recommended, final = are_recommended(overrides), own.final
    entries: Any = own.stages
    if recommended:
        if not hyper.tuned.space:
            return ()
        study.check_whole((config.get("recon_params") or {}).get("NITER", 200), "recon_params.NITER")
        metric = own.error_metric or hyper.metric
        entries = recommended_stages.recommend(config, hyper.tuned.space, metric)
        if own.final is ...:
            final = recommended_stages.recommend_final(config, entries)
    elif entries is None:
        rule, hint = "belongs to stages, and there are none", "add stages: recommended, or --stages recommended"
        raise ConfigError(rule, key=f"{own_settings.SECTION}.final", value=final, hint=hint)
    elif overrides.n_trials is not None:
        rule = "does not say which stage has how many trials"
        hint = f"write trials into the stages, or set them: --set {own_settings.SECTION}.stages.0.trials=20"
        raise ConfigError(rule, key="--trials", value=overrides.n_trials, hint=hint)
    stages = read_stages(entries, final, _make_context(config, hyper, overrides), own_settings.SECTION)
    _check_tries(stages, overrides)
    return _share_trials(stages, overrides.n_trials) if recommended else stages


def are_recommended(overrides: Overrides) -> bool:
    """Whether the stages are to be those that what the file tunes makes sensible."""
    return (overrides.stages or overrides.own.stages) == own_settings.RECOMMENDED


def _make_context(config: Mapping[str, Any], hyper: HypertuneSettings, overrides: Overrides) -> StageContext:
    init = config["init_params"]
    return StageContext(
        entries=hyper.tuned.entries,
        scan=stage_config.scan_shape(init),
        pixels=stage_config.pattern_pixels(init),
        metrics=(*METRICS, *(overrides.own.metrics or {})),
        metric=overrides.own.error_metric or hyper.metric,
        arrays_kept=hyper.keep_arrays,
        patterns_fixed=stage_config.why_patterns_fixed(init),
        no_sums=stage_config.why_no_sums(init),
    )


def _share_trials(stages: tuple[Stage, ...], total: int | None) -> tuple[Stage, ...]:
    """``--trials``: so many in total, in the proportion that the stages have them, one each at least."""
    tuning = [stage for stage in stages if not stage.is_final]
    if total is None:
        return stages
    if total < len(stages):
        final = " and the final one" if len(tuning) < len(stages) else ""
        rule = f"must be at least {len(stages)}, one for each recommended stage{final}"
        raise ConfigError(rule, key="--trials", value=total)
    weights = [stage.trials or 1 for stage in tuning]
    counts = share_out(total - len(stages), weights)
    shared = [replace(stage, trials=1 + count) for stage, count in zip(tuning, counts, strict=True)]
    return (*shared, *(stage for stage in stages if stage.is_final))


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in whole parts in proportion to ``weights``; what is left goes to the largest remainders."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _check_tries(stages: tuple[Stage, ...], overrides: Overrides) -> None:
    tuned = {name for stage in stages for name in stage.tune}
    for values in overrides.tries:
        for name, value in rename_legacy(values).items():
            if name not in tuned:
                raise ConfigError(
                    "is not tuned in any stage", key=f"--try {name}", value=value, hint=nearest_hint(name, tuned)
                )


def stage_notices(plan: StudyPlan, given: StageInput) -> tuple[str, ...]:
    """What may surprise in a stage's plan."""
    stage = given.stage
    return (
        *_notice_idle(plan, stage),
        *_notice_late_updates(plan, stage),
        *_notice_image_metric(plan, given),
        *_notice_few_steps(plan, stage),
    )


def unused_options(stage: Stage, overrides: Overrides) -> Iterator[str]:
    """What the command line says and the stage says otherwise."""
    options = (("--metric", overrides.metric, stage.metric), ("--search", overrides.search, stage.search))
    for option, value, own in options:
        if own is not None and value not in (None, own):
            yield f"{option} {value} is not used, the stage has its own: {own}"
    keys = {"recon_params.NITER": stage.iterations, "recon_params.BATCH_SIZE.size": stage.batch_size}
    for key, value in overrides.settings if not are_recommended(overrides) else ():
        if keys.get(key) not in (None, value):
            yield f"--set {key}={value} is not used, the stage has its own: {keys[key]}"


_FEW = 20
"""Iterations over a part of the scan, in the file's batches, after which it is nowhere near rest."""


def _notice_few_steps(plan: StudyPlan, stage: Stage) -> Iterator[str]:
    """A part of the scan in batches of the whole scan's size makes few steps (docs/stages.md: what was measured)."""
    size = ((plan.config.get("recon_params") or {}).get("BATCH_SIZE") or {}).get("size")
    large = stage.batch_size is None and ranges.is_number(size) and size > recommended_stages.SMALLEST_BATCH
    tuned = bool(plan.space) and "batch_size" not in plan.space
    if stage.scan is not None and large and tuned and plan.iterations and plan.iterations < _FEW:
        yield (
            f"{plan.iterations} iterations over a part of the scan, in batches as large as for all of it, make few "
            "steps: its losses may lead astray; a smaller batch_size makes as many as the whole scan does"
        )


def _notice_idle(plan: StudyPlan, stage: Stage) -> Iterator[str]:
    """What is not tuned, as an earlier stage found that one slice is best."""
    idle = [name for name in stage.tune if name not in plan.space]
    if idle:
        nothing = "" if plan.space else ", and nothing else is: one reconstruction"
        yield f"{', '.join(idle)}: not tuned in stage {stage.name}, as one slice was found to be best{nothing}"


def _notice_late_updates(plan: StudyPlan, stage: Stage) -> Iterator[str]:
    """Tensors that the file updates from an iteration on that the stage's shorter trials do not reach."""
    updates = (plan.config.get("model_params") or {}).get("update_params")
    for tensor, entry in updates.items() if isinstance(updates, Mapping) and stage.iterations else ():
        start = entry.get("start_iter") if isinstance(entry, Mapping) else None
        if ranges.is_number(start) and start > (stage.iterations or 0):
            yield f"{tensor}: stays as it is in stage {stage.name}, as its updates begin at iteration {start:g}"


def _notice_image_metric(plan: StudyPlan, given: StageInput) -> Iterator[str]:
    stage, is_first = given.stage, given.lineage.number == 1
    loaded = stage.start_from or plan.config["init_params"].get("obj_source", "simu") != "simu"
    if plan.metric in _IMAGE_METRICS and plan.space and not loaded:
        hint = "start_from: best begins with the object, probe and positions of the stage before"
        hint = "tune by loss first, and by it in a later stage with start_from: best" if is_first else hint
        yield f"{plan.metric} tells reconstructions apart that are nearly done, and these start from nothing: {hint}"
