"""The study that follows advice: PtyRAD's params file with the best trial's values, ranges as advised, a new name."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptydask.analysis import stages
from ptydask.analysis.advice import Advice, StudyFacts
from ptydask.analysis.data import json_object
from ptydask.analysis.export import params
from ptydask.analysis.export.params import ParamsFile
from ptydask.config import reading, yaml_text
from ptydask.config.own_settings import SECTION
from ptydask.config.ptyrad.edited_file import without_stages
from ptydask.config.study import TPE, results_name
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import ConfigError, one_line
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.sampling.factory import EXHAUSTIVE
from ptydask.space import tunables
from ptydask.space.metrics import OF_PTYRAD

_HYPERTUNE = "hypertune_params."
_ITERATIONS = "recon_params.NITER"
_OF_OLD_RANGES = frozenset({"search_space", "fixed_params", "x0"})
"""Settings of samplers that name tuned parameters."""


@dataclass(frozen=True, slots=True)
class NextStudy:
    """What the params file of the next study says that the last one's does not."""

    name: str
    best: TrialRecord
    """The trial whose values become the file's own."""
    tune: Mapping[str, Distribution]
    """What is tuned; empty for a single reconstruction."""
    iterations: int | None = None
    """NITER; None for the file's own."""
    hypertune: Mapping[str, Scalar] = field(default_factory=dict)
    """Other keys of ``hypertune_params``."""


def plan_next_study(facts: StudyFacts, advice: Iterable[Advice], name: str) -> NextStudy | None:
    """The study that follows all of the advice, called ``name``; None where the same study is to go on, or has no best.

    A step of PtyRAD's order takes the place of what was tuned so far; else that is tuned again, but for what is
    to be held, in ranges as advised.
    """
    advice = list(advice)
    if not facts.best or not any(one.tune or one.fix or one.settings for one in advice):
        return None
    advised = {name: dist for one in advice for name, dist in one.tune.items()}
    held = {name for one in advice for name in one.fix}
    tune = {name: dist for name, dist in {**facts.space, **advised}.items() if name not in held}
    settings = {key: value for one in advice for key, value in one.settings.items()}
    iterations = settings.pop(_ITERATIONS, None)
    return NextStudy(
        name,
        facts.best[0],
        tune,
        iterations if isinstance(iterations, int) else None,
        {key.removeprefix(_HYPERTUNE): value for key, value in settings.items()},
    )


def name_next_study(name: str, is_taken: Callable[[str], bool]) -> str:
    """``NAME-2`` after ``NAME``, ``NAME-3`` after ``NAME-2``; the first that is not taken."""
    match = re.fullmatch(r"(.+)-(\d{1,6})", name)
    stem, number = (match[1], int(match[2])) if match else (name, 1)
    while is_taken(f"{stem}-{(number := number + 1)}"):
        pass
    return f"{stem}-{number}"


def find_free_name(meta: StudyMeta, results: Path) -> str:
    """A name for the next study under which there are no results where these lie, nor where the next ones will go."""
    recon = json_object(meta.config_json).get("recon_params")
    folder = Path(str(recon.get("output_dir", "output"))) if isinstance(recon, dict) else Path()
    folders = {results.absolute().parent, folder, Path(meta.provenance.get("working_directory") or ".") / folder}
    name = stages.whole_name(meta)
    return name_next_study(name, lambda name: any((place / results_name(name)).exists() for place in folders))


def render_next_study(meta: StudyMeta, following: NextStudy, advice: Sequence[Advice], *, near: Path) -> ParamsFile:
    """The params file of the next study of PtyRAD's as text, the advice as comments on top, and what to know of it.

    Raises StoreError where the results do not hold their params file.
    """
    own = params.own_config(meta)
    section = own.get("hypertune_params") or {}
    notes = []
    changed: dict[str, Any] = {
        "if_hypertune": bool(following.tune),
        "study_name": following.name,
        **following.hypertune,
        "tune_params": _tune_params(section.get("tune_params") or {}, following.tune),
    }
    if meta.metric in OF_PTYRAD and section.get("error_metric", meta.metric) != meta.metric:  # a stage's own
        changed["error_metric"] = meta.metric
    sampler = section.get("sampler_params") or {}
    if sampler.get("name") in EXHAUSTIVE or not _OF_OLD_RANGES.isdisjoint(sampler.get("configs") or {}):
        changed["sampler_params"] = {"name": TPE.name, "configs": dict(TPE.configs)}
        notes.append(f"sampler_params: {sampler.get('name')} lists points of the last ranges; it is {TPE.name} now")
    if "***" in str(section.get("storage_path")):
        changed["storage_path"] = None
        notes.append("storage_path: results hold no password, so it is left out; put it in, or add --storage URL")
    steps = following.iterations
    if meta.lineage is not None and steps is not None and steps <= (own["recon_params"].get("NITER") or 200):
        steps = None  # more than the stage had, which the file has anyway
    file = params.of_trial(meta, following.best, near=near, steps=steps, hypertune=changed)
    comment = comment_text(meta, following, advice)
    text = f"{comment}{file.text.rstrip()}\n"
    if not _has_own_section(text):
        text += _own_section(meta)
    return ParamsFile(text, (*notes, *file.notes))


def _has_own_section(text: str) -> bool:
    with suppress(ConfigError):
        return SECTION in reading.parse_value(text)
    return False


def _own_section(meta: StudyMeta) -> str:
    """The section ``ptydask`` of the study's file, which a file for PtyRAD must not have; "" without one."""
    with suppress(ConfigError):
        data = reading.parse_value(meta.config_text) if meta.config_format in ("yaml", "json") else None
        if isinstance(data, dict) and data.get(SECTION):
            section = without_stages(data[SECTION])
            return f"\n{yaml_text.section_text(SECTION, section)}" if section else ""
    return ""


def comment_text(meta: StudyMeta, following: NextStudy, advice: Sequence[Advice]) -> str:
    """What stands on top of the file of the next study: which study it follows, and the advice."""
    lines = [f"{following.name} follows {meta.name}:", *(f"{one.kind}: {one.text}" for one in advice)]
    wrapped = (part for line in lines for part in textwrap.wrap(one_line(line), 110, subsequent_indent="  "))
    return yaml_text.comment_text(wrapped)


def _tune_params(entries: Mapping[str, Any], tune: Mapping[str, Distribution]) -> dict[str, Any]:
    """``tune_params`` with ``tune`` switched on and all else off; a direction's two parameters share their entry."""
    wanted: dict[str, list[Distribution]] = {}
    for parameter, dist in tune.items():
        wanted.setdefault(tunables.PARAMETERS[parameter].name, []).append(dist)
    changed = {name: {**entry, "state": name in wanted} for name, entry in entries.items()}
    for name, dists in wanted.items():
        changed[name] = _make_entry(changed.get(name, {}), dists)
    return changed


def _make_entry(entry: Mapping[str, Any], dists: Sequence[Distribution]) -> dict[str, Any]:
    dist = dists[0]
    if isinstance(dist, Choice):
        kwargs = {**(entry.get("kwargs") or {}), "choices": list(dist.choices)}
        return {**entry, "state": True, "suggest": "cat", "kwargs": kwargs}
    spans = [each for each in dists if isinstance(each, FloatRange | IntRange)]
    steps = [each.step for each in spans if each.step is not None and not each.log]
    kwargs = {key: value for key, value in (entry.get("kwargs") or {}).items() if key in ("low", "high", "step", "log")}
    kwargs |= {"low": min(each.low for each in spans), "high": max(each.high for each in spans)}
    for key, value, default in (("step", min(steps, default=None), None), ("log", spans[0].log, False)):
        if key in kwargs or value != default:
            kwargs[key] = value
    return {**entry, "state": True, "suggest": "int" if isinstance(dist, IntRange) else "float", "kwargs": kwargs}
