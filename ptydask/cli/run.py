"""``run`` and ``validate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.cli import arguments, formats
from ptydask.errors import PtydaskError, UsageError
from ptydask.formatting import error_text, params_text
from ptydask.stop_signals import StopSignals, Terminated

if TYPE_CHECKING:
    from ptydask.config import Overrides
    from ptydask.driver.contract import RunOutcome, View
    from ptydask.driver.prepare import PreparedRun, RunRequest
    from ptydask.driver.stages import PreparedStages

RUN_EXAMPLES = """\
examples:
  ptydask run params.yaml --workers 8            n_trials of the file on each of 8 workers
  ptydask run params.yaml --trials 50            50 trials, whatever the file says
  ptydask run params.yaml --set recon_params.NITER=50 --set init_params.probe_kv=300
  ptydask run params.yaml --try "scale=1.02 rotation=-1.5"
  ptydask run params.yaml --from last.h5         first the best points of an earlier study
  ptydask run params.yaml --search file --until-settled
  ptydask run sweep.yaml --trials 100 --workers 4        a W&B sweep file, without W&B's server
  ptydask run sweep.yaml --set parameters.lr.max=0.1 --sampler TPESampler
  ptydask run params.yaml --cluster slurm --adapt 0:32 --trials 400     SLURM jobs as they are needed
  ptydask run params.yaml --cluster configs/cluster-slurm-a100.yaml --workers 8
  ptydask run monday/ --workers 8                a study of each file in the folder, on the same workers
  ptydask run params.yaml --dry-run              what would happen, and the job script, without starting it
"""


def add_parsers(commands: Any) -> None:
    """Add the commands of this module."""
    does = "run the study that a params file or a sweep file describes"
    says = (
        "Run the study that a PtyRAD params file or a W&B sweep file describes. The same command again goes on where "
    )
    says += "it stopped."
    run = arguments.add_command(commands, "run", does, says=says, more=RUN_EXAMPLES, file=False)
    _add_config_arguments(run, several=True)
    run.add_argument(
        "--independent",
        action="store_true",
        help="of several files: start none from what those before it have found",
    )
    add_place_arguments(run)
    run.set_defaults(handler=run_command, elsewhere="place with -o FILE.h5")

    validate = commands.add_parser(
        "validate",
        help="check a params file or a sweep file, and what it names",
        description="Check a params file or a sweep file, and what it names, as run does before it starts a worker.",
    )
    _add_config_arguments(validate)
    validate.set_defaults(handler=validate_command)


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where trials run, and what happens when one is lost."""
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers", type=arguments.parse_count, metavar="N", help="workers (default: one per GPU, else per core)"
    )
    workers.add_argument(
        "--adapt",
        type=arguments.bounds,
        metavar="MIN:MAX",
        help="as many workers as there are trials left, between these; n_trials of the file counts per MAX",
    )
    parser.add_argument(
        "--cluster",
        default="auto",
        metavar="WHERE",
        help="auto (SLURM where it answers, else local), local, slurm or another batch system, a profile's file, "
        "tcp:// or tls:// address of a Dask scheduler (default: auto)",
    )
    parser.add_argument(
        "--workers-per-gpu",
        type=arguments.parse_count,
        default=1,
        metavar="K",
        help="trials that share a GPU (default: 1)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=arguments.seconds,
        default=120.0,
        metavar="S",
        help="seconds between two checkpoints of a trial under way (default: 120)",
    )
    parser.add_argument(
        "--retries",
        type=arguments.natural,
        default=3,
        metavar="N",
        help="how often a trial whose worker was lost is tried again (default: 3)",
    )
    parser.add_argument(
        "--notify",
        metavar="COMMAND",
        help="a shell command that is told when the run ends, stops or gets stuck: PTYDASK_EVENT and others in its "
        "environment, one line on its stdin (default: notify of the profile)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would happen and start nothing")


def _add_config_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    help_text = (
        "PtyRAD params file, W&B sweep file, or a file that names one (params: FILE): .yaml, .yml, .json or .toml"
    )
    if several:
        help_text += "; several, or a folder of them, are run as a queue, a study and a results file each"
        parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help=help_text)
    else:
        parser.add_argument("config", type=Path, metavar="CONFIG", help=help_text)
    parser.add_argument(
        "--trials",
        type=arguments.parse_count,
        metavar="N",
        help="trials in total, instead of n_trials per worker or run_cap",
    )
    parser.add_argument("--timeout", type=arguments.seconds, metavar="S", help="start no trial after this many seconds")
    parser.add_argument(
        "-o",
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
        "--seed",
        type=arguments.natural,
        metavar="N",
        help="of the search, instead of init_params.random_seed (default: 0)",
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
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        type=Path,
        dest="earlier",
        metavar="FILE.h5",
        help="a study of the same microscope settings whose best points are tried first; may be given several times",
    )
    parser.add_argument(
        "--search",
        choices=("auto", "file"),
        help="who chooses the points: file, the sampler as the file has it; auto, slopes where trials have them "
        "(default: auto; with --sampler: file)",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what is tuned: loss, data_loss, contrast, heldout, counts ..., or a metric of your own (ptydask.metrics)",
    )
    parser.add_argument(
        "--until-settled",
        action=argparse.BooleanOptionalAction,
        help="end the study once its optimum is known to a grid step in every parameter that has slopes",
    )
    parser.add_argument(
        "--guess",
        nargs="?",
        const="point",
        type=_guess_choice,
        metavar="ranges",
        help="try first what ptydask guess tells by the patterns; ranges: and look near it alone",
    )
    parser.add_argument(
        "--stages",
        choices=("recommended", "none"),
        help="recommended: tune in stages, from cheap looks to the whole scan; none: without the file's stages",
    )


def _guess_choice(text: str) -> str:
    """``point`` or ``ranges``: what follows ``--guess`` is its own, a file as well."""
    if text in ("point", "ranges"):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither point nor ranges; a file comes before --guess")


# --- what is asked for, and how it ended ---------------------------------------------------------------


def _make_overrides(args: argparse.Namespace) -> Overrides:
    from ptydask import config

    return config.Overrides(
        settings=tuple(config.parse_setting(text) for text in args.settings),
        n_trials=args.trials,
        timeout=args.timeout,
        results=args.results,
        storage=args.storage,
        engine=args.engine,
        sampler=args.sampler,
        seed=args.seed,
        tries=tuple(config.parse_point(text) for text in args.tries),
        search=args.search,
        until_settled=args.until_settled,
        metric=args.metric,
        stages=args.stages,
        guess=args.guess,
    )


def _requests(args: argparse.Namespace, files: Sequence[Path]) -> list[RunRequest]:
    """What is asked for of each file."""
    from ptydask.driver.earlier import read_studies

    overrides, earlier = _make_overrides(args), read_studies(args.earlier)
    return [replace(make_request(args, path, overrides), earlier=earlier) for path in files]


def study_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those that describe a study in each of the folders; others that a folder has are told of."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        from ptydask.config.folder import read_folder

        folder = read_folder(path)
        files += folder.files
        for other, why in folder.others.items():
            formats.print_stderr(f"note: {other} {why}: left out")
    return files


def make_request(args: argparse.Namespace, config: Path, overrides: Overrides) -> RunRequest:
    """What is asked for, where the command has the options of :func:`add_place_arguments`."""
    from ptydask.driver.prepare import RunRequest

    return RunRequest(
        config=config,
        overrides=overrides,
        cluster=args.cluster,
        workers=args.workers,
        adapt=args.adapt,
        workers_per_gpu=args.workers_per_gpu,
        retries=args.retries,
        checkpoint_every=args.checkpoint_every,
        notify=args.notify,
    )


def validate_command(args: argparse.Namespace) -> int:
    """``ptydask validate``."""
    from ptydask.driver.cost import estimate_stages
    from ptydask.driver.earlier import read_studies
    from ptydask.driver.earlier_points import start_from
    from ptydask.driver.prepare import complete_plan, with_machine_notice
    from ptydask.driver.stages import plan_stages
    from ptydask.progress.plan_text import looking_line, plan_lines
    from ptydask.progress.stages_text import stages_lines

    overrides, earlier, lines = _make_overrides(args), read_studies(args.earlier), []
    if args.guess is not None and (looking := looking_line(1)):
        formats.print_stderr(looking)
    planned = plan_stages(args.config, overrides, earlier)
    plans = [stage.plan for stage in planned] or [start_from(complete_plan(args.config, overrides), earlier)]
    plans = [*map(with_machine_notice, plans)]
    if planned:
        costs = estimate_stages(plans, [stage.trials for stage in planned])
        lines = stages_lines(plans, [stage.stage for stage in planned], costs)
    for line in [*lines, *plan_lines(plans[0])]:
        formats.print_stderr(line)
    for notice in dict.fromkeys(notice for plan in plans for notice in plan.notices):
        formats.print_stderr(f"note: {notice}")
    print(f"{args.config}: valid")
    return 0


def run_command(args: argparse.Namespace) -> int:
    """``ptydask run``."""
    try:
        with StopSignals() as stop:
            files = study_files(args.configs)
            return _run_study(args, files[0], stop) if len(files) == 1 else _run_queue(args, files, stop)
    except Terminated:
        return 75


def _run_study(args: argparse.Namespace, file: Path, stop: StopSignals) -> int:
    from ptydask import running
    from ptydask.driver.contract import TIME_IS_OVER
    from ptydask.progress.view import make_view

    view = make_view(sys.stderr)
    prepared = running.announce(_requests(args, [file])[0], view)
    if prepared.finished:
        return 0
    if args.dry_run:
        show_job(prepared, view)
        return 0
    end = running.carry_out(prepared, view, stop)
    _print_best(end)
    if not end.complete:
        view.notice(TIME_IS_OVER)
    return end.exit_code


def _run_queue(args: argparse.Namespace, files: Sequence[Path], stop: StopSignals) -> int:
    from ptydask import running
    from ptydask.driver.contract import GOES_ON
    from ptydask.driver.queue import combine_exit_codes
    from ptydask.progress.queue_view import SUMMARY, summary_rows
    from ptydask.progress.view import make_view

    if args.results is not None:
        raise UsageError("-o names one results file, and each of several studies has its own; leave it out")
    view = make_view(sys.stderr)
    queued = running.announce_queue(_requests(args, files), view, independent=args.independent)
    if args.dry_run:
        show_job(queued[0].prepared, view)
        return 0
    end = running.carry_out_queue(queued, view, stop, independent=args.independent)
    table = formats.Table(SUMMARY, tuple(summary_rows(end.studies)), right=frozenset({1, 2, 3}))
    formats.write_table(table, sys.stdout)
    if end.stopped is not None:
        view.notice(f"stopped; {GOES_ON}")
        raise end.stopped
    for study in end.studies:
        if study.error is not None and not isinstance(study.error, PtydaskError):
            raise study.error
    return combine_exit_codes([study.exit_code for study in end.studies])


def show_job(prepared: PreparedRun | PreparedStages, view: View) -> None:
    """Print the job script of a run, and what the batch system says of it; nothing where there are no jobs."""
    script = prepared.job_script()
    if script:
        print(script, flush=True)
    if answer := prepared.try_job():
        view.notice(answer)


def _print_best(end: RunOutcome) -> None:
    if end.snapshot is None:
        return
    best = end.snapshot.best
    if best is not None:
        line = f"best      trial {best.number}: {end.snapshot.metric} {error_text(best.error)}"
        params = {**end.values, **best.params}
        formats.print_report(f"{line}  {params_text(params)}\n" if params else f"{line}\n")
    print(f"results   {end.snapshot.results}")
