"""Stages against one flat study: iterations until the values found are at the planted truth.

    python benchmarks/staged.py run geometry6a --lists flat+recommended --seeds 5
    python benchmarks/staged.py show geometry6a geometry6b          what was run, as a table

Iterations count as those over the whole scan: one over every second position in both directions counts 0.25. A list of
stages has found what its earlier stages found, with the best completed trial of the one that is under way in place of
it; a flat study is a list of one. Studies are replayed with 2 workers, their reconstructions are the engine's (see
search_replay.py), and each study goes to its own end.

``there`` is when the values found were first at the truth (all within a grid step), ``stays`` when they were there for
good, ``end`` all that was computed, ``at the truth`` how many studies ended there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import getitem
from statistics import median, quantiles
from typing import Any

from search_courses import Course, Reconstructions
from search_problems import CACHE, PROBLEMS, TUNED, Problem
from search_replay import SEARCHES, Study, replay_study
from staged_lists import LISTS, recommended

from ptydask.config import Overrides
from ptydask.distributions import Distribution, FloatRange
from ptydask.driver.prepare import complete_plan
from ptydask.driver.settlement import settled_optimum
from ptydask.engines.ptyrad.datafiles import chosen_grid
from ptydask.model import Scalar, StudyPlan
from ptydask.ranking import best_of
from ptydask.space import tunables

TRIALS = 24
"""Of a stage that does not say how many, and of the flat study."""
KEPT = CACHE / "staged.jsonl"


@dataclass(slots=True)
class Outcome:
    """What a list of stages came to, in iterations over the whole scan."""

    there: float | None = None
    stays: float | None = None
    end: float = 0.0
    trials: int = 0
    values: dict[str, Scalar] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    """One line a stage."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="replay studies")
    run.add_argument("problem", choices=PROBLEMS)
    run.add_argument("--lists", default="flat+recommended", metavar="A+B", help=f"of {', '.join(LISTS)}, recommended")
    run.add_argument("--seeds", type=int, default=5, metavar="N", help="studies of each (5)")
    run.add_argument("--first", type=int, default=0, metavar="N", help="seed (0)")
    run.add_argument("--workers", type=int, default=2, metavar="N", help="(2)")
    show = commands.add_parser("show", help="the table of what was run")
    show.add_argument("problems", nargs="+", choices=PROBLEMS)
    args = parser.parse_args()
    if args.command == "show":
        print_table(args.problems)
        return
    problem = PROBLEMS[args.problem]
    source = Courses(problem)
    for name in args.lists.split("+"):
        for seed in range(args.first, args.first + args.seeds):
            outcome = replay_stages(source, stages_of(name, source.plan), seed, args.workers)
            keep(problem.name, name, seed, args.workers, outcome)
            print(f"{problem.name} {name} {seed}: there {outcome.there}, stays {outcome.stays}, end {outcome.end:.1f}, "
                  f"{outcome.trials} trials; " + "; ".join(outcome.story), flush=True)  # fmt: skip


def stages_of(name: str, plan: StudyPlan) -> Sequence[Mapping[str, Any]]:
    """A list of stages by its name, as a file would have them."""
    return recommended(plan) if name == "recommended" else LISTS[name]


# --- one list of stages ---------------------------------------------------------------------------------------


def replay_stages(source: Courses, stages: Sequence[Mapping[str, Any]], seed: int, workers: int) -> Outcome:
    """All stages one after the other, each with what those before it found."""
    base, outcome = source.plan, Outcome(values=dict(source.plan.points[0].params))
    spaces = dict(base.space)
    for stage in stages:
        plan, share = source.stage_plan(stage, outcome.values, spaces)
        trials = int(stage.get("trials", TRIALS))
        search = SEARCHES["auto-whole" if plan.pruner is None else "auto"]
        over = _end_of(stage.get("stop_when"), plan, source.problem)
        study = replay_study(
            source.problem, plan, source.stage_courses(plan, outcome.values, stage), search,
            seed=seed, workers=workers, trials=trials, over=over,
        )  # fmt: skip
        for best in study.improvements:
            note(
                outcome, source.problem, base.space, {**outcome.values, **best.params}, outcome.end + share * best.spent
            )
        outcome.end += share * study.spent
        outcome.trials += len(study.points)
        best_trial = best_of(study.records, plan.direction)
        if best_trial is not None:
            outcome.values |= best_trial.params
            spaces |= plan.space
        found = " ".join(f"{name} {outcome.values[name]:g}" for name in plan.space)
        outcome.story.append(f"{len(study.points)} trials, {share * study.spent:.1f}: {found}")
    return outcome


def note(
    outcome: Outcome, problem: Problem, space: Mapping[str, Distribution], values: Mapping[str, Scalar], spent: float
) -> None:
    """Write down whether the values found after so many iterations are at the truth."""
    if not problem.is_found(space, values):
        outcome.stays = None
        return
    outcome.there = spent if outcome.there is None else outcome.there
    outcome.stays = spent if outcome.stays is None else outcome.stays


def _end_of(rule: Any, plan: StudyPlan, problem: Problem) -> Callable[[Study], bool]:
    """When a stage ends, beside the end of its trials."""
    if rule == "there":
        return lambda study: study.found(problem, plan) is not None
    if rule == "settled":
        return lambda study: settled_optimum(study.records, plan) is not None
    return partial(_lacks_gain, rule, plan)


def _lacks_gain(rule: Mapping[str, Any] | None, plan: StudyPlan, study: Study) -> bool:
    """Whether the last trials have not made the best error better by a share of itself; never without a ``rule``."""
    if rule is None or len(study.records) <= rule["trials"]:
        return False
    before, now = (best_of(some, plan.direction) for some in (study.records[: -rule["trials"]], study.records))
    if before is None or now is None:
        return False
    return (before.error or 0.0) - (now.error or 0.0) < float(rule["gain"].split()[0]) / 100 * (before.error or 0.0)


@dataclass(slots=True)
class Courses:
    """Plans and courses of a problem's stages; equal reconstructions of any stages are computed once."""

    problem: Problem
    plan: StudyPlan = field(init=False)
    """Of the flat study."""
    _sources: dict[str, Reconstructions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan = self._complete({})

    def _complete(self, settings: Mapping[str, Any]) -> StudyPlan:
        overrides = Overrides(settings=tuple({**self.problem.overrides(), **settings}.items()))
        return complete_plan(self.problem.params(), overrides)

    def stage_plan(
        self, stage: Mapping[str, Any], values: Mapping[str, Scalar], ranges: Mapping[str, Distribution]
    ) -> tuple[StudyPlan, float]:
        """The plan of a stage, and the share of the scan that it looks at."""
        settings = dict(self._reconstruction(stage))
        config = tunables.apply(self.plan.config, values)
        for key in {".".join(tunables.PARAMETERS[name].where.split(".")[:3]) for name in values}:
            settings[key] = reduce(getitem, key.split("."), config)
        named = stage.get("tune") or list(self.plan.space)
        tune = dict(named) if isinstance(named, Mapping) else dict.fromkeys(named)
        for name in self.plan.space:
            settings[f"{TUNED}.{name}.state"] = name in tune
        for name, entry in tune.items():
            if entry is not None:
                settings[f"{TUNED}.{name}.kwargs"] = narrow(ranges[name], self.plan.space[name], values[name], entry)
        if "pruner" in stage:
            settings["hypertune_params.pruner_params"] = stage["pruner"]
        plan = self._complete(settings)
        scan = self.plan.config["init_params"]["pos_N_scan_slow"], self.plan.config["init_params"]["pos_N_scan_fast"]
        rows, columns = chosen_grid(plan.config["recon_params"], *scan)
        settled = stage.get("stop_when") == "settled"
        return replace(plan, until_settled=settled), rows * columns / (scan[0] * scan[1])

    def _reconstruction(self, stage: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The settings that decide what a reconstruction of a stage computes, beside the tuned values."""
        if "iterations" in stage:
            yield "recon_params.NITER", stage["iterations"]
        if "batch_size" in stage:
            yield "recon_params.BATCH_SIZE.size", stage["batch_size"]
        scan = stage.get("scan") or {}
        if scan:
            init = self.plan.config["init_params"]
            slow, fast = (scan.get("center") or init[f"pos_N_scan_{way}"] // scan["every"] for way in ("slow", "fast"))
            mode = "center" if "center" in scan else "sub"
            yield "recon_params.INDICES_MODE", {"mode": mode, "subscan_slow": slow, "subscan_fast": fast}

    def stage_courses(self, plan: StudyPlan, values: Mapping[str, Scalar], stage: Mapping[str, Any]) -> StageCourses:
        """The courses of a stage's trials."""
        settings = dict(self._reconstruction(stage))
        key = json.dumps(settings, sort_keys=True)
        if key not in self._sources:
            self._sources[key] = Reconstructions(self.problem, self._complete(settings))
        return StageCourses(self._sources[key], plan, values)


@dataclass(frozen=True, slots=True)
class StageCourses:
    """Of all parameters together, with those that a stage does not tune at the values found so far."""

    source: Reconstructions
    plan: StudyPlan
    values: Mapping[str, Scalar]

    def course(self, params: Mapping[str, Scalar]) -> Course:
        whole = self.source.course({**self.values, **params})
        return Course(whole.losses, {name: slopes for name, slopes in whole.slopes.items() if name in self.plan.space})


def narrow(latest: Distribution, first: Distribution, value: Scalar, entry: Mapping[str, Any]) -> dict[str, float]:
    """The range ``{around: best, within: N steps}``, of a stepped range, within the file's own."""
    assert isinstance(latest, FloatRange)
    assert isinstance(first, FloatRange)
    assert latest.step
    half = float(str(entry["within"]).split()[0]) * latest.step
    step = float(entry.get("step", latest.step))
    center = float(str(value))
    down, up = (int((end + 1e-9) / step) for end in (min(half, center - first.low), min(half, first.high - center)))
    return {"low": round(center - down * step, 9), "high": round(center + up * step, 9), "step": step}


# --- the table ------------------------------------------------------------------------------------------------


def keep(problem: str, name: str, seed: int, workers: int, outcome: Outcome) -> None:
    """One more line of what was run."""
    entry = {"problem": problem, "list": name, "seed": seed, "workers": workers, "there": outcome.there}
    entry |= {"stays": outcome.stays, "end": outcome.end, "trials": outcome.trials, "story": outcome.story}
    with KEPT.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def print_table(problems: Sequence[str]) -> None:
    """The latest outcome of each list and seed."""
    latest = {}
    for line in KEPT.read_text().splitlines():
        entry = json.loads(line)
        latest[entry["problem"], entry["list"], entry["workers"], entry["seed"]] = entry
    for problem in problems:
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for (name, called, workers, _), entry in latest.items():
            if name == problem:
                groups.setdefault((called, workers), []).append(entry)
        print(f"\n{problem}: {PROBLEMS[problem].what}; {dict(PROBLEMS[problem].truth)}")
        print("| stages | workers | there | stays | end | trials | at the truth |\n|---|---|---|---|---|---|---|")
        for (called, workers), entries in groups.items():
            columns = [_spread([entry[key] for entry in entries]) for key in ("there", "stays", "end")]
            trials = median(entry["trials"] for entry in entries)
            right = sum(entry["stays"] is not None for entry in entries)
            print(f"| {called} | {workers} | {' | '.join(columns)} | {trials:.0f} | {right} of {len(entries)} |")


def _spread(numbers: Sequence[float | None]) -> str:
    """Median (quartiles; worst), with those that never were as the largest of all."""
    known = sorted(float("inf") if number is None else number for number in numbers)
    low, _, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else known * 3
    text = [f"{number:.0f}" if number < float("inf") else "never" for number in (median(known), low, high, known[-1])]
    return f"{text[0]} ({text[1]}-{text[2]}; {text[3]})"


if __name__ == "__main__":
    main()
