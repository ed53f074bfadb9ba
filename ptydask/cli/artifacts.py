"""``export run`` and ``export artifacts``: the files that a trial's program wrote, as files again."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ptydask import formatting
from ptydask.cli import arguments, formats, inspect, trial_argument
from ptydask.errors import UsageError, nearest_hint

if TYPE_CHECKING:
    from ptydask.analysis.export.run import ExportedFiles

_RUN = """\
Write the folder of a trial's W&B run: its files in DIR/files, as the program left them, and beside
them command.txt and log.txt."""
_RUN_MORE = """\
ldct-benchmark finds the run by its name:
  ptydask export FILE.h5 run --trial best wandb/cnn10-tuned
  ldctbench-test --methods cnn10-tuned
Nothing outside DIR is written. A folder that holds something already is left alone without --force."""
_ARTIFACTS = """\
Write the files that a trial's program left, or those that fit a PATTERN, under the paths that they
had in the trial's own folder."""
_ARTIFACTS_MORE = """\
A pattern is of a whole path or of a file's name: '*.pt', 'wandb/*/args.yaml'. Which files of a trial
are kept, engine.outputs of the sweep file says. 'ptydask show FILE.h5 N' lists them.
Nothing outside DIR is written. A folder that holds something already is left alone without --force."""


def add_kinds(kinds: arguments.Commands[argparse.ArgumentParser]) -> None:
    """Add run and artifacts to the kinds of ``export``."""
    run = _add_kind(kinds, "run", "the folder of a trial's W&B run, for ldctbench-test", _RUN, _RUN_MORE)
    run.set_defaults(handler=run_run)
    does = "the files that a trial's program left"
    files = _add_kind(kinds, "artifacts", does, _ARTIFACTS, _ARTIFACTS_MORE)
    files.add_argument("patterns", nargs="*", metavar="PATTERN", help="only files that fit one of these")
    files.set_defaults(handler=run_artifacts)


def _add_kind(
    kinds: arguments.Commands[argparse.ArgumentParser], name: str, does: str, says: str, more: str
) -> argparse.ArgumentParser:
    parser = arguments.add_command(kinds, name, does, says=says, more=more, file=False)
    place = f"the folder (default: NAME-trial12-{name} beside FILE.h5)"
    parser.add_argument("out", nargs="?", type=Path, metavar="DIR", help=place)
    parser.add_argument("--force", action="store_true", help="write into a folder that holds something, and replace")
    trial_argument.add_option(parser)
    arguments.add_stage(parser)
    return parser


def run_run(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 run``: 0; 1 where a file's name leads out of the folder."""
    from ptydask.analysis.export import place, run

    with inspect.open_results(args.file, args.stage) as results:
        trial = trial_argument.read_trial(args.trial, results)
        wandb_run = run.run_of(trial.artifacts)
        if not wandb_run.files:
            raise run.no_files_error(results.meta, trial)
        folder = place.ensure_folder(args.out or arguments.path_beside_file(args, f"-trial{trial.record.number}-run"))
        texts = {run.COMMAND: f"{trial.command}\n" if trial.command else "", run.LOG: trial.log}
        written = run.write_files(folder, wandb_run.files, texts, force=args.force)
    beside_them = " and ".join(name for name, text in texts.items() if text)
    code = _report_written(folder, trial.record.number, written, f", {beside_them}" if beside_them else "")
    if wandb_run.others:
        formats.print_stderr(f"the last of the {wandb_run.others + 1} W&B runs that the trial began")
    usage = run.ldctbench_usage(folder, list(wandb_run.files))
    if usage:
        formats.print_stderr(f"to test it: {usage}")
    return code


def run_artifacts(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 artifacts``: 0; 1 where a file's name leads out of the folder."""
    from ptydask.analysis.export import place, run

    with inspect.open_results(args.file, args.stage) as results:
        trial = trial_argument.read_trial(args.trial, results)
        if not trial.artifacts:
            raise run.no_files_error(results.meta, trial)
        files = run.select_files(trial.artifacts, args.patterns)
        if not files:
            patterns, hint = ", ".join(map(repr, args.patterns)), _pattern_hint(args.patterns[0], trial.artifacts)
            raise UsageError(f"trial {trial.record.number} has no file that fits {patterns}; {hint}")
        folder = place.ensure_folder(
            args.out or arguments.path_beside_file(args, f"-trial{trial.record.number}-artifacts")
        )
        written = run.write_files(folder, files, {}, force=args.force)
    return _report_written(folder, trial.record.number, written, "")


def _pattern_hint(pattern: str, paths: Iterable[str]) -> str:
    names = [formatting.printable_text(path) for path in paths]
    more = " ..." if len(names) > 4 else ""
    return nearest_hint(pattern, names) or f"it has {', '.join(names[:4])}{more}"


def _report_written(folder: Path, number: int, written: ExportedFiles, more: str) -> int:
    """Say what was written, and what was not."""
    formats.print_text(f"{folder}\n")
    files = f"{formatting.counted(written.files, 'file')} ({formatting.size_text(written.nbytes)})"
    formats.print_stderr(f"trial {number}: {files}{more}")
    for path in written.refused:
        formats.print_stderr(
            f"not written, since its name leads out of the folder or is none here: {formatting.printable_text(path)}"
        )
    return 1 if written.refused else 0
