"""``import-ptyrad``: the folder of a study that PtyRAD's own hypertune made, into a results file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.cli import arguments, formats
from ptydask.errors import redact

if TYPE_CHECKING:
    from ptydask.importers.ptyrad import ImportedStudy

_EPILOG = """\
what is read:
  values, states, times   from the study's database, exact; which one the params file says, or --storage.
                          Without a database: from PtyRAD's log where it has them, else from the names of the files,
                          where they have three digits; a value on a grid, and one that the model file has in full,
                          is exact even so. Each trial says which (values_exact, values_from), and so does the report.
  arrays, curves          from model_error_*.hdf5, and from the trials' own folders t0000_... (SAVE_ITERS)
  images                  of trials without a model file: from objp*.tif
The folder and its database are only read. A contrast, which PtyRAD negates, gets its sign back.
A trial that was RUNNING (its job was killed) becomes a failed one with the reason interrupted.

exit codes:
  0  everything was imported              2  bad usage; nothing was written
  1  failed; nothing was written          3  imported, but some files could not be used: the report names them"""
_SHOWN = 20
"""Files that are named one by one."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add import-ptyrad to the command line; it sets ``handler(args) -> int``."""
    does = "turn a folder of PtyRAD's own hypertune into a results file"
    says = "Turn a folder of PtyRAD's own hypertune into a results file, which every command works on."
    parser = arguments.add_command(subparsers, "import-ptyrad", does, says=says, more=_EPILOG, file=False)
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER", help=_FOLDER_HELP)
    parser.add_argument("--storage", metavar="URL", help=_STORAGE_HELP)
    parser.add_argument("--study", metavar="NAME", help="the study, where the database holds several")
    parser.add_argument("--params", type=Path, metavar="FILE", help="the params file, where the folder has none")
    parser.add_argument("--results", type=Path, metavar="FILE.h5", help="the file to write (default: STUDY.h5, here)")
    parser.set_defaults(handler=run_import, elsewhere="place with --results FILE.h5")


_FOLDER_HELP = "the folder output_dir/..._hypertune_...; several, where one study's jobs made more than one"
_STORAGE_HELP = "the study's database, a URL or an SQLite file (default: by the params file); none: use none"


def run_import(args: argparse.Namespace) -> int:
    """``ptydask import-ptyrad``: 0; 3 where files had to be left out."""
    from ptydask.importers.ptyrad import import_study

    progress = _ProgressLine()
    try:
        done = import_study(
            args.folder,
            results=args.results,
            storage=args.storage,
            study=args.study,
            params=args.params,
            progress=progress,
        )
    finally:
        progress.end()
    formats.print_report("\n".join(report_lines(done)) + "\n")
    return 3 if done.tally.skipped else 0


class _ProgressLine:
    """How far it is, on stderr: one line that is written over on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        self._begin = self._printed = time.monotonic()
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if not done or now - self._printed < (0.2 if terminal else 30.0):
            return
        self._printed = now
        rest = (now - self._begin) / done * (total - done)
        line = f"{done} of {total} trials, {formatting.duration_text(rest)} left"
        print(f"\r\x1b[K{line}" if terminal else f"{line}\n", end="", file=sys.stderr, flush=True)
        self._open = terminal

    def end(self) -> None:
        """Leave no half line behind."""
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._open = False


def report_lines(done: ImportedStudy) -> list[str]:
    """What was imported, where the values come from, and what was left out: lines for a person."""
    tally = done.tally
    states = ", ".join(f"{count} {word}" for word, count in sorted(tally.states.items()))
    lines = [
        f"{done.results}: study {formatting.printable_text(done.study)}, {done.trials} trials ({states})",
        *(f"  from     {folder}" for folder in done.folders),
        f"  values   {_values_text(done)}",
        f"  arrays   {_arrays_text(done)}",
    ]
    if tally.renumbered:
        lines.append(f"  numbers  {tally.renumbered} trials have a new one: several jobs counted from 0 each")
    if done.waiting:
        lines.append(f"  waiting  {done.waiting} trials that were never begun are left out")
    lines += [f"  note     {formatting.printable_text(redact(notice))}" for notice in done.notices]
    if tally.skipped:
        lines.append(f"  skipped  {len(tally.skipped)} files:")
        named = sorted(tally.skipped.items())[:_SHOWN]
        lines += [f"    {_short_path(path, done)}: {formatting.printable_text(why)}" for path, why in named]
        if len(tally.skipped) > _SHOWN:
            lines.append(f"    ... and {len(tally.skipped) - _SHOWN} more")
    if done.params is not None:
        own = " --set hypertune_params.storage_path=null" if done.storage else ""
        params, results = (formatting.shell_path(path) for path in (done.params, done.results))
        command = f"ptydask run {params} --results {results}{own}"
        lines.append(f"  go on    {command} --trials {2 * done.trials}   # in total, these {done.trials} among them")
    return lines


def _values_text(done: ImportedStudy) -> str:
    tally = done.tally
    words = {
        "database": f"the database {done.database}",
        "log": "PtyRAD's log",
        "names": "the names of the files",
        "model file": "the model files alone",
    }
    parts = [f"{count} from {words[source]}" for source, count in sorted(tally.sources.items())]
    exact = done.trials - tally.rounded_trials
    accuracy = "all exact" if exact == done.trials else f"{exact} exact, {tally.rounded_trials} rounded"
    which = f" ({', '.join(sorted(tally.rounded))})" if tally.rounded else ""
    return f"{accuracy}{which}: {', '.join(parts)}"


def _arrays_text(done: ImportedStudy) -> str:
    tally = done.tally
    parts = [f"{tally.arrays} trials"]
    if tally.earlier:
        parts.append(f"{tally.earlier} of them of an iteration before the last, as none was saved later")
    if tally.snapshots:
        parts.append(f"{tally.snapshots} snapshots")
    if tally.pictures:
        parts.append(f"{tally.pictures} trials have a TIFF as their image instead")
    return ", ".join(parts)


def _short_path(path: Path, done: ImportedStudy) -> str:
    for folder in done.folders:
        if path.is_relative_to(folder):
            return formatting.printable_text(str(path.relative_to(folder)))
    return formatting.printable_text(str(path))
