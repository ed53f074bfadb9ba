"""Which stage of a study comes next, and what it has from those before it: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.config.stages import Stage
from ptydask.driver.contract import GOES_ON
from ptydask.errors import ConfigError, PtydaskError
from ptydask.formatting import counted, error_text, params_text, shell_path
from ptydask.lineage import FINAL, StageLineage
from ptydask.model import Scalar, StudyMeta, StudyPlan, TrialRecord
from ptydask.ranking import best_of

KEY = "ptydask.stages"


@dataclass(frozen=True, slots=True)
class BegunStage:
    """A stage as the results file has it."""

    name: str
    meta: StudyMeta
    records: Sequence[TrialRecord]

    @property
    def best(self) -> TrialRecord | None:
        """Its best trial; None where none has completed."""
        return best_of(self.records, self.meta.direction)


def check_stages(asked: Sequence[str], begun: Sequence[str], *, file: Path) -> None:
    """Raise ConfigError where a results file with the stages ``begun`` cannot be gone on with by those ``asked`` for.

    Stages that have not begun may be others than they were; more may come after those that are over.
    """
    elsewhere = "or give the new study its own file with --results NEW.h5"
    if asked and not begun:
        rule = "the trials in this file were run without stages, and cannot be those of one"
        raise ConfigError(rule, file=file, key=KEY, hint=f"take the stages out (--stages none), {elsewhere}")
    if begun and not asked:
        rule = f"this file has the stages {', '.join(begun)}, and none are asked for"
        back = "give the command that made it, with --stages recommended where that had it"
        raise ConfigError(rule, file=file, key=KEY, hint=f"{back}; for a study of its own, --results NEW.h5")
    if list(asked[: len(begun)]) == list(begun):
        return
    place = next(i for i, name in enumerate(begun) if i >= len(asked) or asked[i] != name)
    now = f"{asked[place]!r} now" if place < len(asked) else "missing now"
    rule = f"stage {place + 1} of this file is {begun[place]!r}, and it is {now}"
    adding = "none can be added, as the final reconstruction is there"
    after = adding if FINAL in begun else "stages may be added after it"
    raise ConfigError(rule, file=file, key=KEY, hint=f"put it back; {after}; {elsewhere}")


def trace_lineage(stage: Stage, names: Sequence[str], begun: Iterable[BegunStage]) -> StageLineage:
    """What ``stage`` has from the stages before it, as far as these are ``begun``: of each its best trial.

    Where several found a value for a parameter, the last one's counts.
    """
    before = {other.name: other for other in begun if other.name in names[: names.index(stage.name)]}
    values: dict[str, Scalar] = {}
    origins: dict[str, tuple[str, int]] = {}
    for other in before.values():
        if other.best is not None:
            values |= other.best.params
            origins |= dict.fromkeys(other.best.params, (other.name, other.best.number))
    place = list(names).index(stage.name)
    from_stage = names[place - 1] if place else ""
    return StageLineage(
        stage.name,
        tuple(names),
        from_stage=from_stage,
        from_trial=_best_number(before, from_stage),
        values=values,
        origins=origins,
        start_stage=stage.start_from,
        start_trial=_best_number(before, stage.start_from),
    )


def _best_number(begun: Mapping[str, BegunStage], name: str) -> int | None:
    best = begun[name].best if name in begun else None
    return None if best is None else best.number


def require_best(begun: BegunStage, following: str, *, file: Path) -> None:
    """Raise PtydaskError where a stage that is over has no completed trial: the ``following`` one cannot begin."""
    if begun.best is None:
        trials = counted(len(begun.records), "trial")
        raise PtydaskError(
            f"stage {begun.name}: none of its {trials} completed, so stage {following} has "
            f"nothing to go on from; `ptydask ls {shell_path(file)}` lists them; once it is mended, raise its trials, "
            f"and {GOES_ON}"
        )


def trace_all(stages: Sequence[Stage], begun: Sequence[BegunStage], known: Sequence[BegunStage]) -> list[StageLineage]:
    """The lineage of every stage: as it is recorded where it has begun, else by the best trials of those ``known``."""
    names = tuple(stage.name for stage in stages)
    recorded = {
        stage.name: replace(stage.meta.lineage, stages=names) for stage in begun if stage.meta.lineage is not None
    }
    return [recorded.get(stage.name) or trace_lineage(stage, names, known) for stage in stages]


# --- words -----------------------------------------------------------------------------------------


def ended_text(stage: BegunStage) -> str:
    """``stage 1 of 4: dz is over after 12 trials, best trial 5: loss 0.1021  dz=1.9``."""
    assert stage.meta.lineage is not None
    text = f"stage {stage.meta.lineage.place} is over after {counted(len(stage.records), 'trial')}"
    best = stage.best
    if best is not None:
        text += f", best trial {best.number}: {stage.meta.metric} {error_text(best.error)}"
        text += f"  {params_text(best.params)}" if best.params else ""
    return text


def name_stages(names: Sequence[str], notices: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The ``notices`` of each stage, with the stages that they are of where those are not all, in the same order."""

    def name(text: str) -> str:
        whose = [name for name, texts in zip(names, notices, strict=True) if text in texts]
        if len(whose) == len(names) or any(f"stage {name}" in text for name in whose):
            return text
        return f"{'stage' if len(whose) == 1 else 'stages'} {', '.join(whose)}: {text}"

    return [tuple(map(name, texts)) for texts in notices]


def more_asked_text(name: str, recorded: int, total: int) -> str:
    """``stage dz is over with 12 trials: the 20 that are asked for now change nothing``."""
    return f"stage {name} is over with {counted(recorded, 'trial')}: the {total} that are asked for now change nothing"


def begins_text(plan: StudyPlan, trials: int) -> str:
    """``stage 2 of 4: scan begins, 20 trials of scale, rotation, with dz=1.9``."""
    lineage = plan.lineage
    assert lineage is not None
    text = f"stage {lineage.place} begins, {counted(trials, 'trial')}"
    text += f" of {', '.join(plan.space)}" if plan.space else ""
    if lineage.values:
        text += f", with {params_text(lineage.values)}"
    if lineage.start_trial is not None:
        text += ", each" if trials > 1 else ","
        text += f" from the reconstruction of trial {lineage.start_trial} of {lineage.start_stage}"
    return text
