"""What a hypertune folder says of its study: the params file as it was given, or what a model file keeps of it."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ptydask import config, engines
from ptydask.config import Overrides, own_settings
from ptydask.config.ptyrad.search_space import tune_params
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import ConfigError, PtydaskError, hide_password, redact
from ptydask.model import Direction, KeepOptions, Scalar, SourceFile, StudyPlan
from ptydask.space import ranges
from ptydask.space.metrics import METRICS, OF_PTYRAD
from ptydask.space.tunables import LEGACY
from ptydask.store.foreign.ptyrad_model import PtyradModel


@dataclass(frozen=True)
class StudyDescription:
    """A study before its trials are known."""

    source: SourceFile
    config: Mapping[str, Any]
    """Complete with PtyRAD's defaults, where that could be."""
    space: Mapping[str, Distribution]
    metric: str
    name: str | None = None
    storage: str | None = None
    iterations: int | None = None
    seed: int = 0
    keep: KeepOptions = field(default_factory=KeepOptions)
    notices: tuple[str, ...] = field(default=())

    @property
    def direction(self) -> Direction:
        """PtyRAD minimises the negated contrast; here it is maximised."""
        return METRICS[self.metric].direction

    @property
    def sign(self) -> int:
        """From PtyRAD's value to ours."""
        return -1 if self.direction == "maximize" else 1


def describe(
    copies: Sequence[Path], model: PtyradModel | None, folder: Path, *, metric: str, asked: bool
) -> StudyDescription:
    """The study by the newest copy of its params file that can be read; else by a model file.

    ``metric`` is what the names of folder and files tell where neither is there. ``asked``: the copy was named by a
    person, and must be right; raises ConfigError for that one.
    """
    notices: list[str] = []
    for path in copies:
        try:
            return _describe_file(path, model, notices)
        except ConfigError as error:
            if asked:
                raise
            notices.append(f"not used: {redact(str(error))}")
    complete = params_from_model(model) if model is not None else {}
    if "init_params" not in complete:
        notices.append("no params file and no model file tell of the study: its ranges are taken from the trials")
        return StudyDescription(SourceFile(folder / "params.yaml", "", "yaml"), {}, {}, metric, notices=tuple(notices))
    text = yaml.safe_dump(complete, sort_keys=False, default_flow_style=None, width=4096)
    notices.append("no params file in the folder: taken from a model file, with that trial's values in it")
    return _describe_params(SourceFile(folder / "params.yaml", text, "yaml"), complete, notices)


def _describe_file(path: Path, model: PtyradModel | None, notices: list[str]) -> StudyDescription:
    file = config.read(path)
    source, data = file.source, {key: value for key, value in file.data.items() if key != own_settings.SECTION}
    if "init_params" not in data:
        raise ConfigError("the section is missing; it says what the data are", file=path, key="init_params")
    try:
        plan = config.load(path, Overrides(results=Path("imported.h5")))
    except PtydaskError as error:
        notices.append(f"read without checks: {redact(str(error))}")
        return _describe_params(source, _merge_params(model, data), notices)
    plan = _with_defaults(plan, model, notices)
    return StudyDescription(
        source=plan.source,
        config=plan.config,
        space=plan.space,
        metric=plan.metric,
        name=plan.name,
        storage=plan.storage,
        iterations=plan.iterations,
        seed=plan.seed,
        keep=plan.keep,
        notices=tuple(notices),
    )


def _with_defaults(plan: StudyPlan, model: PtyradModel | None, notices: list[str]) -> StudyPlan:
    """The plan with PtyRAD's defaults: by PtyRAD itself; where the data are gone, as the model file has them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return engines.get(plan.engine).validate(plan)
    except PtydaskError as error:
        notices.append(f"{redact(str(error))} (the trials are imported all the same)")
    return replace(plan, config=_merge_params(model, plan.config))


def _merge_params(model: PtyradModel | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says, and below it what the model file's own params say."""
    return _deep_merge(params_from_model(model), data) if model is not None else dict(copy.deepcopy(data))


def _deep_merge(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return copy.deepcopy(above)
    names = [*below, *(name for name in above if name not in below)]
    return {name: _deep_merge(below.get(name), above[name]) if name in above else below[name] for name in names}


def _describe_params(source: SourceFile, data: Mapping[str, Any], notices: list[str]) -> StudyDescription:
    """As far as it goes, of params that ptydask would not run."""
    hyper, recon = data.get("hypertune_params") or {}, data.get("recon_params") or {}
    metric, storage = hyper.get("error_metric", "loss"), hyper.get("storage_path")
    space: Mapping[str, Distribution] = {}
    try:
        space = tune_params(copy.deepcopy(hyper.get("tune_params"))).space
    except ConfigError as error:
        notices.append(f"the ranges are taken from the trials: {redact(str(error))}")
    if isinstance(storage, str):
        hide_password(storage)
    seed, every = (data.get("init_params") or {}).get("random_seed"), recon.get("SAVE_ITERS")
    return StudyDescription(
        source=source,
        config=data,
        space=space,
        metric=metric if metric in OF_PTYRAD else "loss",
        name=hyper.get("study_name") or None,
        storage=storage if isinstance(storage, str) else None,
        iterations=recon.get("NITER"),
        seed=seed if isinstance(seed, int) else 0,
        keep=KeepOptions(snapshot_every=every if isinstance(every, int) else None),
        notices=tuple(notices),
    )


def params_from_model(model: PtyradModel) -> dict[str, Any]:
    """The complete params of a trial as its model file has them: PtyRAD's provenance is the exact one."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        for steps in json.loads(model.provenance).values():
            params = steps[-1]["params"]
            if isinstance(params, dict) and "init_params" in params:
                return _strip_hypertune(params)
    return _strip_hypertune(copy.deepcopy(dict(model.params)))


def _strip_hypertune(params: dict[str, Any]) -> dict[str, Any]:
    """Without what hypertune put into them for its own files."""
    params.pop("params_path", None)
    storage = (params.get("hypertune_params") or {}).get("storage_path")
    if isinstance(storage, str):
        hide_password(storage)
    recon = params.get("recon_params")
    if isinstance(recon, dict):
        recon.pop("prefix", None)
        if isinstance(recon.get("output_dir"), str) and "hypertune_" in Path(recon["output_dir"]).name:
            recon["output_dir"] = str(Path(recon["output_dir"]).parent)
    return params


# --- what was searched ----------------------------------------------------------------------------------


def fit_search_space(
    planned: Mapping[str, Distribution],
    params: Sequence[Mapping[str, Scalar]],
    stored: Iterable[Mapping[str, Distribution]],
) -> dict[str, Distribution]:
    """A distribution for every parameter of the trials that holds all their values.

    The planned one where it does, else the database's (the last that does), else the span of the values.
    """
    kinds: dict[str, dict[Distribution, None]] = {}
    for distributions in stored:
        for name, dist in distributions.items():
            today, sign = LEGACY.get(name, (name, 1))
            if sign > 0:
                kinds.setdefault(today, {})[dist] = None
    space: dict[str, Distribution] = {}
    for name in dict.fromkeys([*planned, *(name for values in params for name in values)]):
        values = list(dict.fromkeys(trial[name] for trial in params if name in trial))
        candidates = [planned[name]] if name in planned else []
        candidates += reversed(kinds.get(name, {}))
        fitting = (dist for dist in candidates if all(ranges.contains(dist, value) for value in values))
        space[name] = next(fitting, None) or _spanning_distribution(values)
    return space


def _spanning_distribution(values: Sequence[Scalar]) -> Distribution:
    numbers = [v for v in values if ranges.is_number(v)]
    if not values or len(numbers) < len(values):
        return Choice(tuple(values))
    low, high = min(numbers), max(numbers)
    if all(isinstance(v, int) for v in numbers):
        return IntRange(int(low), int(high))
    return FloatRange(float(low), float(high))
