"""A confirmation prepared: which trials of a finished study are repeated with which seeds, and the run that does it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ptydask import engines, sampling
from ptydask.config import own_settings, reading
from ptydask.driver import provenance
from ptydask.driver.prepare import Experience, PreparedRun, RunRequest, opened_results, prepare_plan, stored_bytes
from ptydask.driver.trial_start import read_stage_start
from ptydask.engines import repeat
from ptydask.errors import ConfigError, StoreError, UnusableResults, UsageError, nearest_hint, nearest_number
from ptydask.formatting import counted, shell_path, shell_word
from ptydask.model import (
    Budget,
    ComponentSpec,
    KeepOptions,
    Point,
    Scalar,
    SourceFile,
    StudyMeta,
    StudyPlan,
    TrialRecord,
    TrialState,
)
from ptydask.ranking import ranked
from ptydask.store import confirmation, index
from ptydask.store.reader import Results

_MOST_REPEATS = 10_000
_METRICS = f"{own_settings.SECTION}.metrics."
"""How the settings of metrics of one's own begin."""
_SEEDS = 2**32
Repeat = tuple[int, int, int]
"""A trial's number, the seed, and the half: 0 for all of the data."""


@dataclass(frozen=True, slots=True)
class ConfirmOptions:
    """What is asked of a confirmation."""

    top: int = 5
    """So many of the best trials are repeated."""
    seeds: int = 3
    """With so many seeds each."""
    trials: tuple[int, ...] = ()
    """These instead of the best."""
    frc: bool = False
    """Also from each half of the data alone."""
    stage: str = ""
    """The stage whose trials they are; empty for the last one that tuned something."""


@dataclass(frozen=True, slots=True)
class PreparedConfirmation:
    """A run of repeats that can start, and what it is of."""

    study: Path
    """The results file whose trials are repeated."""
    stage: str
    """The stage that they are of; empty for a study without stages."""
    store_id: str
    """The id of the study, or of that stage."""
    run: PreparedRun
    repeats: tuple[Repeat, ...]
    """All that the confirmation is to have, those of earlier runs among them."""
    recorded: frozenset[Repeat]
    """Those of them that are recorded."""
    embedded: bool
    """Whether all that is recorded is in the study's own file, and nowhere else."""

    @property
    def trials(self) -> tuple[int, ...]:
        """The trials that are repeated."""
        return tuple(dict.fromkeys(trial for trial, _, _ in self.repeats))

    @property
    def seeds_by_trial(self) -> dict[int, list[int]]:
        """Trial -> the seeds with which it is repeated as a whole."""
        return {
            trial: [seed for other, seed, half in self.repeats if other == trial and not half] for trial in self.trials
        }

    @property
    def missing(self) -> tuple[Repeat, ...]:
        """What is not recorded so far."""
        return tuple(repeat for repeat in self.repeats if repeat not in self.recorded)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.embedded and not self.run.trials_left


# --- what is repeated: pure ----------------------------------------------------------------------------


def choose_trials(
    records: Sequence[TrialRecord], meta: StudyMeta, options: ConfirmOptions, *, file: Path
) -> list[TrialRecord]:
    """The trials to repeat, the best first or as they are named. Raises UsageError where there are none such."""
    by_number = {record.number: record for record in records}
    chosen = []
    for number in dict.fromkeys(options.trials):
        if number not in by_number:
            raise UsageError(
                f"--trials {number}: {file.name} has no such trial; {nearest_number(number, [*by_number])}"
            )
        if by_number[number].state is TrialState.FAIL:
            raise UsageError(f"--trials {number}: trial {number} failed; name trials that completed")
        chosen.append(by_number[number])
    if chosen:
        return chosen
    if not meta.metric:
        raise UsageError(f"{file.name}: its trials are ranked by nothing; say which to repeat: --trials 3,5")
    best = ranked(records, meta.direction)[: options.top]
    if not best:
        raise UsageError(f"{file.name}: no trial has completed so far ({len(records)} recorded): none can be confirmed")
    return best


def choose_seeds(own: Iterable[int], earlier: Iterable[int], number: int) -> list[int]:
    """``number`` seeds, none of the study's ``own``: those that repeats have already, in their order, then new ones.

    All trials have the same ones, so that they can be compared seed by seed.
    """
    own = list(dict.fromkeys(own))
    seeds = list(dict.fromkeys(earlier))
    start = own[0] if own else 0
    new = (seed % _SEEDS for seed in count(start + 1))
    while len(seeds) < number:
        seed = next(new)
        if seed not in own and seed not in seeds:
            seeds.append(seed)
    return seeds[:number]


def list_repeats(
    trials: Iterable[int], seeds: Sequence[int], earlier: Iterable[Repeat], *, halves: bool
) -> tuple[Repeat, ...]:
    """Every trial with every seed, its halves with the first; before them what an earlier run had to do.

    Seeds come in turns: a confirmation that is stopped has about as many repeats of each trial.
    """
    trials = list(trials)
    wanted = [(trial, seed, 0) for seed in seeds for trial in trials]
    if halves:
        wanted += [(trial, seeds[0], half) for trial in trials for half in (1, 2)]
    return tuple(dict.fromkeys((*earlier, *wanted)))


def repeats_of(meta: StudyMeta, records: Iterable[TrialRecord]) -> list[Repeat]:
    """What a confirmation was to have when it was run last, and what it has."""
    planned: list[Iterable[Any]] = json.loads(meta.config_json or "{}").get("repeats", [])
    every = ((int(trial), int(seed), int(half)) for trial, seed, half in planned)
    return list(dict.fromkeys([*every, *map(repeat_of, records)]))


def repeat_of(record: TrialRecord) -> Repeat:
    """What a trial of a confirmation repeats."""
    trial, seed, half = (int(record.params[name] or 0) for name in (repeat.TRIAL, repeat.SEED, repeat.HALF))
    return trial, seed, half


# --- the run ------------------------------------------------------------------------------------------


def prepare_confirmation(request: RunRequest, options: ConfirmOptions) -> PreparedConfirmation:
    """The repeats that are missing, as a run that can start; starts and writes nothing.

    ``request.config`` is the results file, ``request.overrides.settings`` what has changed in its configuration since,
    as where the data are. Raises what :func:`ptydask.driver.prepare.prepare_run` raises, UsageError for trials that
    there are not.
    """
    path = request.config.absolute()
    with ExitStack() as stack:
        study = stack.enter_context(opened_results(path, options.stage))
        if not options.stage and (before := study.tuned_before()):
            study = stack.enter_context(opened_results(path, before))
        stage = study.meta.stage
        meta, records = study.meta, study.records()
        if meta.engine == repeat.NAME:
            raise UsageError(f"{path.name}: is a confirmation itself; give the file whose trials it repeats")
        if not _says_how(meta):
            raise UnusableResults(f"{path}: does not say how its trials were run, so none can be repeated")
        earlier = study.confirmation()
        if earlier is not None:
            stack.enter_context(earlier)
        _refuse_other_companion(path, study)
        done = [] if earlier is None else earlier.records()
        repeats_before = [] if earlier is None else repeats_of(earlier.meta, done)
        chosen = choose_trials(records, meta, options, file=path)
        if len(chosen) * options.seeds > _MOST_REPEATS:
            trials = counted(len(chosen), "trial")
            raise UsageError(f"--seeds {options.seeds}: {trials} with as many are more than {_MOST_REPEATS} repeats")
        seeds = choose_seeds(
            (record.seed for record in records), (seed for _, seed, _ in repeats_before), options.seeds
        )
        repeats = list_repeats((r.number for r in chosen), seeds, repeats_before, halves=options.frc)
        inner = read_plan(meta, records, path, request.overrides.settings)
        inner = replace(inner, start=read_stage_start(study, meta.lineage))
        _refuse_seen_data(inner, repeats, path)
        plan = _validate(plan_repeats(inner, meta, records, repeats, study.id), path)
        own = repeat.repeated_plan(plan)  # what its engine completed
        completed = replace(inner, config=own.config, space=own.space)
        try:
            moved = provenance.compare(meta, provenance.study_meta(completed), file=path)
        except ConfigError as error:
            raise provenance.as_of_a_confirmation(error) from None
        run = prepare_plan(plan, request, earlier, Experience(records, _stored_bytes(study)))
        embedded = earlier is not None and earlier.path != plan.results and not plan.results.exists()
    run = replace(run, origin=meta, notices=tuple(dict.fromkeys((*run.notices, *moved))))
    return PreparedConfirmation(path, stage, study.id, run, repeats, frozenset(map(repeat_of, done)), embedded)


def _refuse_seen_data(plan: StudyPlan, repeats: Iterable[Repeat], path: Path) -> None:
    """Raise UsageError for halves of the data whose trials start from a reconstruction of both."""
    if plan.start is not None and any(half for _, _, half in repeats):
        start = f"the reconstruction of stage {plan.start.stage}, trial {plan.start.trial}"
        hint = "name a stage whose trials start anew"
        raise UsageError(f"--frc: {path.name}: trials start from {start}, which has seen both halves; {hint}")


def _refuse_other_companion(path: Path, study: Results) -> None:
    """Raise UnusableResults where the repeats of another study, or another results file, are where these come to lie.

    What cannot be read at all is refused when it is opened to go on.
    """
    companion = confirmation.companion_of(path)
    try:
        meta = index.read_head(companion).meta
    except StoreError:
        return
    if confirmation.is_of(meta, study.id):
        return
    if other := _stage_of_repeats(study, meta):
        finish = f"`ptydask confirm {shell_path(path)} --stage {shell_word(other)}`"
        what = f"has repeats of stage {other} that are not in {path.name} yet: {finish} goes on with them first"
    else:
        what = f"holds no repeats of {path.name}, whose repeats come there; give it another name"
    raise UnusableResults(f"{companion}: {what}")


def _stage_of_repeats(study: Results, meta: StudyMeta) -> str:
    """The stage of a study whose trials are repeated by the confirmation ``meta``; empty where it is none of them."""
    for name in study.stage_names():
        with study.stage(name) as stage:
            if confirmation.is_of(meta, stage.id):
                return name
    return ""


def _stored_bytes(study: Results) -> int:
    """What the trials of a study take; of a stage its share of the trials of all."""
    whole = stored_bytes(study.path)
    counts = []
    for name in study.stage_names():
        with study.stage(name) as stage:
            counts.append(len(stage.records()))
    return whole if sum(counts) == 0 else round(whole * len(study.records()) / sum(counts))


def _says_how(meta: StudyMeta) -> bool:
    """Whether a file has the engine, the configuration and the search space of its trials: a rebuilt one may not.

    A stage may tune nothing; what it has of those before it says then that nothing is missing.
    """
    try:
        space = [sampling.from_json(one) for one in json.loads(meta.search_space_json or "{}").values()]
        return bool(meta.engine and provenance.config_of(meta) and (space or meta.lineage))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _validate(plan: StudyPlan, path: Path) -> StudyPlan:
    """The plan completed by its engine. What is wrong is in ``path``, not in the params or sweep file."""
    try:
        return engines.validate(plan)
    except ConfigError as error:
        can_set = bool(error.key) and (not _is_own(error.key) or error.key.startswith(_METRICS))
        just_set = any(error.key == key or error.key.startswith(f"{key}.") for key in plan.settings)
        elsewhere = f"where that is something else by now, say so: --set {error.key}=NEW"
        ways = [error.hint, elsewhere if can_set and not just_set else ""]
        hint = "; ".join(filter(None, ways))
        raise type(error)(error.rule, file=path, key=error.key, value=error.value, hint=hint) from None


def _is_own(key: str) -> bool:
    """Whether a setting is ptydask's own, and so in no engine's configuration."""
    return key.partition(".")[0] == own_settings.SECTION


def _own_metrics(own: Mapping[str, str], settings: Iterable[tuple[str, Any]], path: Path) -> dict[str, str]:
    """The study's ``own`` metrics with the functions that ``settings`` name, as where one has moved since.

    Raises ConfigError for a metric that the study does not have, and for all else of ptydask's own settings.
    """
    metrics = dict(own)
    for key, value in settings:
        name = key.removeprefix(_METRICS).removesuffix(".function")
        function = value.get("function") if isinstance(value, Mapping) else value
        if not key.startswith(_METRICS):
            rule, hint = "trials are repeated with what the study had", "leave it out"
        elif name not in own:
            rule, hint = "the study has no such metric", nearest_hint(name, own) if own else "it has none of its own"
        elif not isinstance(function, str):
            rule, hint = "must name a function", "for example mypackage.quality:sharpness"
        else:
            metrics[name] = function
            continue
        raise ConfigError(rule, file=path, key=key, value=value, hint=hint)
    return metrics


def read_plan(
    meta: StudyMeta, records: Sequence[TrialRecord], path: Path, settings: Iterable[tuple[str, Any]]
) -> StudyPlan:
    """The plan of the study in ``path`` as its file tells it, without its search, ``settings`` applied."""
    config = copy.deepcopy(provenance.config_of(meta))
    settings = tuple(settings)
    for key, value in settings:
        if _is_own(key):
            continue
        try:
            reading.set_value(config, key, value)
        except ConfigError as error:
            raise error.in_file(path) from None
    steps = {record.last_step for record in records if record.state is TrialState.COMPLETE}
    own_file = meta.provenance.get("own_file")
    return StudyPlan(
        name=meta.name,
        source=SourceFile(Path(meta.provenance.get("config_path") or path), meta.config_text, meta.config_format),
        engine=meta.engine,
        config=config,
        space={},
        metric=meta.metric,
        direction=meta.direction,
        sampler=ComponentSpec("RandomSampler"),
        pruner=None,
        budget=Budget(0, total=True),
        storage=None,
        results=confirmation.companion_of(path),
        seed=records[0].seed if records else 0,
        iterations=steps.pop() if len(steps) == 1 else None,
        search="file",
        held_out=meta.held_out,
        lineage=meta.lineage,
        own_metrics=_own_metrics(meta.own_metrics, (item for item in settings if _is_own(item[0])), path),
        function_folders=(folder,) if (folder := meta.provenance.get("working_directory")) else (),
        keep=replace(meta.keep, snapshot_every=None),
        own_file=None if own_file is None else SourceFile(Path(own_file), meta.provenance["own_file_text"], "yaml"),
        settings=tuple(key for key, _ in settings),
    )


def plan_repeats(
    inner: StudyPlan, meta: StudyMeta, records: Iterable[TrialRecord], repeats: Sequence[Repeat], store: str
) -> StudyPlan:
    """The plan of the confirmation of the study ``inner``, which the store of the id ``store`` has."""
    wanted = {trial for trial, _, _ in repeats}
    params = {str(record.number): dict(record.params) for record in records if record.number in wanted}
    halves = any(half for _, _, half in repeats)
    names = (repeat.TRIAL, repeat.SEED, repeat.HALF)
    points = tuple[dict[str, Scalar], ...](dict(zip(names, item, strict=True)) for item in repeats)
    return replace(
        inner,
        seed_parameter=repeat.SEED,
        name=f"{inner.name} confirmation",
        engine=repeat.NAME,
        config={
            "study": store,
            "engine": inner.engine,
            "config": inner.config,
            "space": meta.search_space_json,
            "trials": params,
            "repeats": [list(item) for item in repeats],
        },
        space=dict(repeat.SPACE),
        budget=Budget(len(repeats), total=True),
        points=tuple(Point(point, "repeat") for point in points),
        exhaustive=True,
        lineage=None,  # it is no stage itself
        keep=KeepOptions(inner.keep.arrays or halves, None, inner.keep.params_in_names),
    )
