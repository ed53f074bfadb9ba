"""Everything that the page says, as plain values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from ptydask.analysis import advice, optimum, sweep
from ptydask.analysis.attribute_units import attribute_units
from ptydask.analysis.confirmation import verdict_lines
from ptydask.analysis.data import StudyData, json_object, search_space
from ptydask.analysis.figures import scales, timeline
from ptydask.analysis.gain import baseline_trial, compute_gain, errors_by_step, is_of_file
from ptydask.analysis.report import rows
from ptydask.analysis.report.trial_album import BEST_SIDE_BY_SIDE, PageTrial, TrialAlbum
from ptydask.analysis.stages import COLUMNS, Stages, origin_lines, stage_text, whole_name
from ptydask.distributions import Choice, Distribution, WeightedChoice
from ptydask.formatting import shell_word
from ptydask.model import StudyMeta
from ptydask.ranking import count_states, ranked
from ptydask.space import ranges
from ptydask.space.tunables import PARAMETERS


def collect_page_data(
    study: StudyData,
    album: TrialAlbum,
    running: Mapping[str, Any] | None = None,
    stages: Stages | None = None,
    searched: StudyData | None = None,
) -> dict[str, Any]:
    """The page's data. ``running`` is what the driver says of a run that is on, as ``Results.status()`` has it.

    ``stages`` are those of the whole study, ``searched`` the one whose trials advice is taken from, where that is not
    ``study``.

    ``study``: its name, what was tuned, the outcome; ``columns``: the table, one list a column, in the order of the
    trials' numbers; ``trials``, ``curves``, ``pictures``, ``probes``, ``thumbnails``, ``more``: by number, what there
    is; ``advice``: what to do next, the most pressing first; ``provenance``: where all of it comes from. The same study
    gives the same data.
    """
    advised = searched or study
    units = {parameter["name"]: parameter["unit"] for parameter in tuned_parameters(study)}

    def by_number(read: Callable[[PageTrial], Any]) -> dict[str, Any]:
        values = {str(number): read(seen) for number, seen in album.trials.items()}
        return {number: value for number, value in values.items() if value}

    return {
        "study": {**_study_summary(study, album, running), **_stage_summary(study, stages or Stages(), advised)},
        "columns": rows.table_columns(study, album.trials, units),
        "trials": by_number(rows.trial_details),
        "curves": rows.encode_curves(study),
        "pictures": by_number(attrgetter("picture")),
        "probes": by_number(attrgetter("probe")),
        "thumbnails": by_number(attrgetter("thumbnail")),
        "more": by_number(attrgetter("more_pictures")),
        "advice": [
            {"kind": one.kind.value, "text": one.text, "trials": list(one.trials) if advised is study else []}
            for one in advice.advise(advised)
        ],
        "provenance": provenance(study.meta),
    }


# --- the study ---------------------------------------------------------------------------------------


def _study_summary(study: StudyData, album: TrialAlbum, running: Mapping[str, Any] | None) -> dict[str, Any]:
    meta, records = study.meta, study.records
    own = baseline_trial(records)
    best = study.best
    gain = None
    if best is not None:
        errors = errors_by_step(study.curves.get(best.number, {}), meta.metric)
        gain = compute_gain(best, own, meta.direction, errors, meta.lineage)
    counts = count_states(record.state for record in records)
    order = ranked(records, meta.direction)
    return {
        "name": meta.name,
        "metric": meta.metric or "error",
        "ranked": bool(meta.metric),
        "direction": meta.direction,
        "engine": meta.engine,
        "step": sweep.step_word(meta),
        "images": not sweep.is_sweep(meta) or any(seen.picture or seen.thumbnail for seen in album.trials.values()),
        "constants": [[name, _constant_text(value)] for name, value in sweep.constants(meta).items()],
        "created": meta.created,
        "counts": counts,
        "ranks": [record.number for record in order],
        "montage": [record.number for record in order[:BEST_SIDE_BY_SIDE]],
        "grey": album.grey,
        "own": None if own is None else own.number,
        "own_word": "file’s own" if own is None or is_of_file(own, meta.lineage) else "earlier stages’",
        "gain": None
        if gain is None
        else {
            "own": gain.own.number,
            "values": gain.values,
            "difference": gain.difference,
            "share": gain.share,
            "step": gain.step,
        },
        "tuned": tuned_parameters(study),
        "attribute_units": _attribute_units(study, album),
        "wall": timeline.wall_seconds(records),
        "worked": sum(record.seconds for record in records if math.isfinite(record.seconds)),
        "workers": len({(record.host, record.worker) for record in records}),
        "hosts": sorted({record.host for record in records if record.host}),
        "devices": sorted({record.device for record in records if record.device}),
        "retried": sum(record.attempt > 1 for record in records),
        "search": _search_settings(meta),
        "computed": sum(record.iterations or 0.0 for record in records),
        "optimum": _optimum_lines(study),
        "verdict": [] if study.confirmation is None else list(map(_typeset, verdict_lines(study.confirmation))),
        "best_confirmed": None if study.confirmation is None else study.confirmation.best,
        "running": _run_progress(running),
    }


def _stage_summary(study: StudyData, stages: Stages, advised: StudyData) -> dict[str, Any]:
    """``stage``: which one the page is of, in words; ``stages``: the table of all, heading first; what is to come.

    ``whole``: the study's name; ``inherited``: where the values are from that the best trial does not tune; ``option``,
    ``advised_option``: how commands choose the stage, and the one that advice is taken from. Nothing where there are no
    stages.
    """
    lineage = study.meta.lineage
    if lineage is None:
        return {}
    return {
        "whole": whole_name(study.meta),
        "stage": lineage.name,
        "stage_text": stage_text(lineage),
        "option": (option := f" --stage {shell_word(lineage.name)}"),
        "advised_option": option if advised is study else "",
        "stages": [list(COLUMNS), *(list(stage.cells) for stage in stages.values())],
        "to_come": list(stages.to_come),
        "inherited": [] if study.best is None else origin_lines(study.meta, study.best),
    }


def _typeset(line: str) -> str:
    return line.replace("+-", "\N{PLUS-MINUS SIGN}")


def _optimum_lines(study: StudyData) -> dict[str, Any] | None:
    """``trial`` at whose other parameters it holds, ``values`` by parameter in words, and ``about``: what they mean."""
    located = optimum.locate_study_optimum(study.records, study.meta)
    if located is None:
        return None
    values = optimum.optimum_texts(located, study.meta)
    return {"trial": located.trial, "values": values, "about": optimum.explain_optimum(located, study.meta)}


def _attribute_units(study: StudyData, album: TrialAlbum) -> dict[str, str]:
    """By name, of all trials together."""
    if study.meta.engine != "ptyrad":
        return {}
    units = [attribute_units(trial.attributes) for trial in album.trials.values() if trial.attributes]
    return {name: unit for trial in units for name, unit in trial.items()}


def tuned_parameters(study: StudyData) -> list[dict[str, Any]]:
    """Each parameter: its name, unit, meaning and range, in the order of the study's search space."""
    space = optimum.read_space(study.meta)
    entries = search_space(study.meta)
    tunables = PARAMETERS if study.meta.engine == "ptyrad" else {}
    listed = []
    for name in dict.fromkeys([*space, *study.parameters]):
        attributes = entries[name].get("attributes") or {} if name in space else {}
        listed.append(
            {
                "name": name,
                "unit": scales.parameter_unit(name, study.meta),
                "meaning": tunables[name].meaning if name in tunables else "",
                "range": _range_text(space.get(name), study.meta),
                "low": rows.json_value(attributes.get("low")),
                "high": rows.json_value(attributes.get("high")),
                "log": bool(attributes.get("log")),
            }
        )
    return listed


def _range_text(dist: Distribution | None, meta: StudyMeta) -> str:
    if isinstance(dist, Choice | WeightedChoice) and sweep.is_sweep(meta):
        shown = [_constant_text(choice) for choice in dist.choices]
        if isinstance(dist, WeightedChoice):
            shown = [f"{choice} ({100 * weight:.4g} %)" for choice, weight in zip(shown, dist.weights, strict=True)]
        return f"one of {', '.join(shown)}"
    return "" if dist is None else ranges.describe(dist)


def _search_settings(meta: StudyMeta) -> list[list[str]]:
    """Budget, sampler and pruner, where the configuration has them in PtyRAD's words; a sweep's program."""
    hypertune = json_object(meta.config_json).get("hypertune_params")
    if not isinstance(hypertune, Mapping):
        program = sweep.program(meta)
        return [["Program", program]] if program else []
    settings = []
    if hypertune.get("n_trials") is not None:
        settings.append(["Budget in the file", f"{hypertune['n_trials']} trials for each worker"])
    if hypertune.get("timeout") is not None:
        settings.append(["Time limit", f"{hypertune['timeout']} s"])
    for what in ("sampler", "pruner"):
        component = hypertune.get(f"{what}_params")
        if isinstance(component, Mapping) and component.get("name"):
            settings.append([what.capitalize(), _component_text(str(component["name"]), component.get("configs"))])
    return settings


def _constant_text(value: Any) -> str:
    """A constant as its file might have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _component_text(name: str, configs: Any) -> str:
    """``HyperbandPruner (min_resource 5, reduction_factor 2)``."""
    arguments = ", ".join(f"{key} {json.dumps(value)}" for key, value in (configs or {}).items())
    return f"{name} ({arguments})" if arguments else name


def _run_progress(status: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if status is None:
        return None
    run = status.get("run") or {}
    return {
        "updated": status.get("updated", ""),
        "total": run.get("total"),
        "under_way": len(run.get("running") or ()),
        "remaining": rows.json_value(run.get("remaining")),
    }


# --- where it comes from -------------------------------------------------------------------------------


def provenance(meta: StudyMeta) -> dict[str, Any]:
    """What ran, where and on which data; the file as it was given; the whole configuration; the search space."""
    first = ("data", "data_sha256", "config_path", "command", "working_directory", "host", "driver_host", "gpu")
    order = [*first, *(name for name in meta.provenance if name not in first)]
    return {
        "facts": [[name, str(meta.provenance[name])] for name in order if meta.provenance.get(name)],
        "config_text": meta.config_text,
        "config_format": meta.config_format,
        "config": _pretty_json(meta.config_json),
        "search_space": _pretty_json(meta.search_space_json),
        "keep_arrays": meta.keep.arrays,
    }


def _pretty_json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
