"""``run``, ``validate`` and ``demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.model import beside, target_met

if TYPE_CHECKING:
    from ptydask.cli.running import Asked
    from ptydask.clusters import ClusterRequest
    from ptydask.driver.contract import RunOptions
    from ptydask.model import StudyMeta, StudyPlan, TrialRecord

RUN_EXAMPLES = """\
examples:
  ptydask run params.yaml --workers 8            n_trials of the file on each of 8 workers
  ptydask run params.yaml --trials 50            50 trials, whatever the file says
  ptydask run params.yaml --set recon_params.NITER=50 --set init_params.probe_kv=300
  ptydask run params.yaml --try "scale=1.02 rotation=-1.5"
  ptydask run sweep.yaml --trials 100 --workers 4        a W&B sweep file, without W&B's server
  ptydask run sweep.yaml --set parameters.lr.max=0.1 --sampler TPESampler
  ptydask run params.yaml --cluster slurm --adapt 0:32 --trials 400     SLURM jobs as they are needed
  ptydask run params.yaml --cluster configs/cluster-slurm-a100.yaml --workers 8
  ptydask run params.yaml --dry-run              what would happen, and the job script, without starting it
"""


def add_parsers(commands: Any) -> None:
    """Add the commands of this module."""
    raw = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser(
        "run",
        help="run the study that a params file or a sweep file describes",
        description="Run the study that a PtyRAD params file or a W&B sweep file describes. The same command again "
        "goes on where it stopped.",
        epilog=RUN_EXAMPLES,
        formatter_class=raw,
    )
    _config_arguments(run)
    workers = run.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=_positive, metavar="N", help="workers (default: one per GPU, else one)")
    workers.add_argument(
        "--adapt",
        type=_bounds,
        metavar="MIN:MAX",
        help="as many workers as there are trials left, between these; n_trials of the file counts per MAX",
    )
    run.add_argument(
        "--cluster",
        default="auto",
        metavar="WHERE",
        help="auto (SLURM where it answers, else local), local, slurm or another batch system, a profile's file, "
        "tcp:// or tls:// address of a Dask scheduler (default: auto)",
    )
    run.add_argument(
        "--workers-per-gpu", type=_positive, default=1, metavar="K", help="trials that share a GPU (default: 1)"
    )
    run.add_argument(
        "--checkpoint-every",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds between two checkpoints of a trial under way (default: 120)",
    )
    run.add_argument(
        "--retries",
        type=_natural,
        default=3,
        metavar="N",
        help="how often a trial whose worker was lost is tried again (default: 3)",
    )
    run.add_argument("--dry-run", action="store_true", help="say what would happen and start nothing")
    run.set_defaults(handler=run_command)

    validate = commands.add_parser(
        "validate",
        help="check a params file or a sweep file, and what it names",
        description="Check a params file or a sweep file, and what it names, as run does before it starts a worker.",
    )
    _config_arguments(validate)
    validate.set_defaults(handler=validate_command)

    demo = commands.add_parser(
        "demo",
        help="write a small synthetic data set and its params file",
        description="Write a small synthetic 4D-STEM data set with known scan rotation and scale, and its params file.",
    )
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"), metavar="DIR", help="default: ./demo")
    demo.add_argument("--seed", type=_natural, default=1, metavar="N", help="of the noise (default: 1)")
    demo.set_defaults(handler=demo_command)


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="PtyRAD params file or W&B sweep file: .yaml, .yml, .json or .toml"
    )
    parser.add_argument(
        "--trials", type=_positive, metavar="N", help="trials in total, instead of n_trials per worker or run_cap"
    )
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="start no trial after this many seconds")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE.h5",
        help="the results file (default: OUTPUT_DIR/STUDY.h5, of a sweep file ./STUDY.h5)",
    )
    parser.add_argument(
        "--storage", metavar="URL", help="instead of storage_path: journal, sqlite, postgresql, mysql, redis"
    )
    parser.add_argument("--engine", metavar="NAME", help="what runs a trial (default: by the kind of file)")
    parser.add_argument(
        "--sampler", metavar="NAME", help="Optuna's sampler by name, for example TPESampler, instead of the file's"
    )
    parser.add_argument(
        "--seed", type=_natural, metavar="N", help="of the search, instead of init_params.random_seed (default: 0)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override a key, dots between levels",
    )
    parser.add_argument(
        "--try",
        action="append",
        default=[],
        dest="tries",
        metavar="'NAME=VALUE ...'",
        help="a point to try first",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number of seconds, not negative")
    return value


def _bounds(text: str) -> tuple[int, int]:
    least, _, most = text.partition(":")
    if not (least.isdecimal() and most.isdecimal() and int(least) <= int(most) and int(most) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} must be MIN:MAX, two whole numbers, MIN not above MAX: 0:32")
    return int(least), int(most)


_positive.__name__, _natural.__name__, _seconds.__name__ = "whole number", "whole number", "number"


# --- from a file to a plan ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, and what is on disk for it already."""

    plan: StudyPlan
    total: int
    workers: int
    recorded: int
    packed: bool
    """Whether all that is recorded is in one file."""
    reached: TrialRecord | None
    """The best recorded trial, where it is as good as the plan's target."""
    notices: tuple[str, ...]
    meta: StudyMeta


def _load(args: argparse.Namespace) -> StudyPlan:
    from ptydask import config, engines, sampling

    overrides = config.Overrides(
        settings=tuple(config.parse_setting(text) for text in args.settings),
        n_trials=args.trials,
        timeout=args.timeout,
        results=args.results,
        storage=args.storage,
        engine=args.engine,
        sampler=args.sampler,
        seed=args.seed,
        tries=tuple(config.parse_point(text) for text in args.tries),
    )
    plan = config.load(args.config, overrides)
    plan = engines.get(plan.engine).validate(plan)
    points = sampling.exhaustive(plan)
    return plan if points is None else replace(plan, points=points, exhaustive=True)


def _refuse_endless(plan: StudyPlan) -> None:
    """Raises ConfigError where neither the file nor the command line says how many trials there are."""
    from ptydask.errors import ConfigError

    if plan.budget.n_trials == 0:
        rule = "nobody has said how many trials to run"
        hint = "add --trials 100 to the command, or run_cap: 100 to the file"
        raise ConfigError(rule, file=plan.source.path, key="run_cap", hint=hint)


def _prepare(plan: StudyPlan, workers: int) -> Prepared:
    from ptydask.driver import provenance
    from ptydask.driver.contract import total_of
    from ptydask.errors import StoreError, UnusableResults
    from ptydask.store import reader

    meta = provenance.meta_of(plan, {})
    records: Sequence[TrialRecord] = ()
    packed, reached, notices = False, None, list(plan.notices)
    if plan.results.exists():
        try:
            with reader.open(plan.results) as there:
                records, old = there.records(), there.meta
                reached = target_met(records, plan.target, plan.direction)
                packed = there.packed and not beside(plan.results, ".trials").exists()
        except StoreError as error:
            raise UnusableResults(str(error)) from None
        notices += provenance.compare(old, meta, file=plan.results)
    total = total_of(plan, workers, records)
    return Prepared(plan, total, workers, len(records), packed, reached, tuple(notices), meta)


def validate_command(args: argparse.Namespace) -> int:
    """``ptydask validate``."""
    from ptydask.cli.plan import plan_lines

    plan = _load(args)
    for line in plan_lines(plan):
        print(line, file=sys.stderr)
    for notice in plan.notices:
        print(f"note: {notice}", file=sys.stderr)
    print(f"{args.config}: valid")
    return 0


def demo_command(args: argparse.Namespace) -> int:
    """``ptydask demo``."""
    from ptydask import demo

    params = demo.write(args.folder, seed=args.seed)
    print(params)
    print(f"now: python -m ptydask run {params} --workers 2", file=sys.stderr)
    return 0


# --- running --------------------------------------------------------------------------------------


def run_command(args: argparse.Namespace) -> int:
    """``ptydask run``."""
    from ptydask.cli import running

    try:
        with running.sigterm() as asked:
            return _run(args, asked)
    except running.Terminated:  # nothing was begun so far
        return 75


def _run(args: argparse.Namespace, asked: Asked) -> int:
    from ptydask import clusters
    from ptydask.cli import plan as words
    from ptydask.cli import running, view

    chosen = clusters.choose(args.cluster)
    plan = _load(args)
    _refuse_endless(plan)
    request = _request(args, chosen.place.default_workers())
    prepared = _prepare(plan, request.workers)
    watch = view.observer(sys.stderr)
    watch.plan(
        [
            *words.plan_lines(plan),
            words.trials_line(plan.budget, prepared.workers, prepared.total, prepared.recorded),
            words.workers_line(chosen.place.describe(request), chosen.why if args.cluster == "auto" else ""),
        ]
    )
    for notice in prepared.notices:
        watch.notice(notice)
    if prepared.packed and prepared.reached is not None:
        watch.notice(f"{running.target_text(prepared.reached, plan)}: nothing left to do in {plan.results}")
        return 0
    if prepared.packed and prepared.recorded >= prepared.total:
        watch.notice(f"{words.recorded_text(prepared.total, prepared.recorded, plan.results)}: nothing left to do")
        return 0
    if args.dry_run:
        script = chosen.place.script(
            replace(request, folder=beside(plan.results.absolute(), ".trials"), label=plan.name)
        )
        if script:
            print(script)
        return 0
    return running.run(prepared, chosen.place, request, _options(args, prepared.total), watch, asked)


def _request(args: argparse.Namespace, default: int) -> ClusterRequest:
    from ptydask.clusters import ClusterRequest

    least, most = args.adapt or (args.workers or default * args.workers_per_gpu,) * 2
    return ClusterRequest(most, least, args.workers_per_gpu)


def _options(args: argparse.Namespace, total: int) -> RunOptions:
    from ptydask.driver.contract import RunOptions

    return RunOptions(total, args.retries, args.checkpoint_every)
