"""A confirmation in words, as it is printed before anything starts. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ptydask.driver.confirmation import PreparedConfirmation, Repeat
from ptydask.engines import repeat
from ptydask.formatting import counted, printable_text, shorten_text

LONGEST = 160
"""Characters of the list of what is missing."""


def describe_repeats(prepared: PreparedConfirmation) -> Iterator[tuple[str, str]]:
    """Labels and texts for the plan: which trials, which seeds, how many repeats, which of them are missing."""
    whole = [item for item in prepared.repeats if item[2] == 0]
    halves = [item for item in prepared.repeats if item[2]]
    seeds = list(dict.fromkeys(seed for _, seed, _ in whole))
    trials = list(dict.fromkeys(trial for trial, _, _ in whole))
    stage = f"stage {printable_text(prepared.stage)} of " if prepared.stage else ""
    yield "study", f"{prepared.run.plan.name}, of {stage}{prepared.study}"
    yield "trials", _listed(trials)
    yield "seeds", _listed(seeds)
    if halves:
        split = list(dict.fromkeys(trial for trial, _, _ in halves))
        yield "halves", f"both, of {'trials' if len(split) > 1 else 'trial'} {_listed(split)}"
    text = counted(len(prepared.repeats), "reconstruction" if prepared.run.plan.config["engine"] == "ptyrad" else "run")
    if len(whole) == len(trials) * len(seeds) and not halves:
        text = f"{counted(len(trials), 'trial')} x {counted(len(seeds), 'seed')} = {text}"
    if prepared.run.recorded:
        text += f", {prepared.run.recorded} recorded already"
    yield "repeats", text
    if prepared.run.recorded and prepared.missing:
        yield "missing", shorten_text(missing_text(prepared.missing), LONGEST)
    if prepared.finished:
        yield "results", str(prepared.study)
    else:
        yield "results", f"{prepared.run.plan.results}, and in {prepared.study.name} once all are there"


def missing_text(missing: Iterable[Repeat]) -> str:
    """``trial 5 with seeds 11 and 12, first half of trial 3``."""
    whole: dict[int, list[int]] = {}
    parts = []
    for trial, seed, half in missing:
        if half:
            parts.append(repeat.describe({repeat.TRIAL: trial, repeat.SEED: seed, repeat.HALF: half}))
        else:
            whole.setdefault(trial, []).append(seed)
    seeds = (f"trial {trial} with {'seeds' if len(own) > 1 else 'seed'} {_listed(own)}" for trial, own in whole.items())
    return "; ".join([*seeds, *parts])


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
