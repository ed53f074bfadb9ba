"""``pack``, ``verify`` and ``rebuild``: results files kept in order; ``merge`` and ``info`` are modules beside this."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.cli import arguments, formats
from ptydask.errors import UsageError
from ptydask.formatting import counted, from_here, shell_path, size_text

if TYPE_CHECKING:
    from ptydask.store.upkeep.packing import PackReport
    from ptydask.store.upkeep.rebuild import RebuildReport
    from ptydask.store.upkeep.verify import VerifyReport

_PACK = """\
Make one file of a study whose driver stopped for good, or a packed file smaller.

FILE.h5 becomes one file that holds every trial, and the folder FILE.trials goes away. Checkpoints
of trials that were under way stay in the folder, so that 'ptydask run' can still go on with them.
A study that is being run is refused; with -o OUT.h5 its trials so far are copied, and nothing else
is touched. The file is replaced only after the new one was read back."""
_PACK_MORE = """\
which trials keep their object, probe, positions, image and snapshots, of a sweep the files that
its program left (--arrays):
  all            every trial (default)
  none           no trial
  best:K         the K best
  improvements   those that were the best so far when they ended
  every:N        those with a number that N divides
  Several, joined by commas, add up: best:20,improvements,every:50

Numbers, parameters, curves, logs, commands and thumbnails always stay, and 'ptydask show' says of
a trial what was dropped. What was dropped cannot be had back: try --dry-run first."""

_REBUILD = """\
Make damaged results usable again, from whatever of them can be read.

With the trials' own files beside it (FILE.trials), FILE.h5 becomes their index again, also where it
is gone: the study is then as if it had been stopped, and 'ptydask run' or 'ptydask pack' goes on
from there. Damaged files are moved to FILE.trials/damaged and named.

Without them, every trial that is whole goes into a new file, FILE-rebuilt.h5 or OUT.h5; of a
damaged one the numbers do, where the table has them. FILE.h5 stays as it is."""

_REBUILD_MORE = """\
Every trial is read and checked against its SHA-256, in a process of its own: damage can crash HDF5.
exit code 0 where everything is whole again, 1 where a trial lost its arrays or all of it."""

_VERIFY = """\
Read every byte of a results file that matters, and say what is not as it was written.

Checksums and SHA-256 of every trial, of the table, the history and the links are compared with each
other; with an index, the trials' own files in FILE.trials are read too. Works on a running study
and on a single trial's file. Reading is done by a process of its own: damage can crash HDF5."""
_VERIFY_MORE = """\
exit codes: 0 all is as it was written, 1 something is damaged (each line on stderr says what)
json is one object: intact, kind, trials, files, problems (file, trial, where, what), damaged, advice"""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add pack, verify and rebuild; each sets ``handler(args) -> int``."""
    does = "make one file of a stopped study, or a file smaller"
    pack = arguments.add_command(subparsers, "pack", does, says=_PACK, more=_PACK_MORE, file=False)
    pack.add_argument("file", type=Path, metavar="FILE.h5", help="the results file")
    pack.add_argument("--arrays", default="all", metavar="RULE", help="which trials keep their arrays, see below")
    pack.add_argument("-o", "--out", type=Path, metavar="OUT.h5", help="write this file instead; FILE.h5 stays")
    pack.add_argument("--dry-run", action="store_true", help="say what would be done, and how large the file gets")
    pack.add_argument("--drop-checkpoints", action="store_true", help="also give up the trials that were under way")
    pack.set_defaults(handler=run_pack, elsewhere="place with -o OUT.h5")

    does = "read everything, and say what is damaged"
    verify = arguments.add_command(subparsers, "verify", does, says=_VERIFY, more=_VERIFY_MORE)
    verify.add_argument("--format", choices=("table", "json"), default="table", help="how to print (default: table)")
    verify.set_defaults(handler=run_verify)

    does = "make damaged results usable again"
    rebuild = arguments.add_command(subparsers, "rebuild", does, says=_REBUILD, more=_REBUILD_MORE, file=False)
    rebuild.add_argument("file", type=Path, metavar="FILE.h5", help="the results file, damaged or gone")
    rebuild.add_argument("-o", "--out", type=Path, metavar="OUT.h5", help="write this file, and touch nothing else")
    rebuild.set_defaults(handler=run_rebuild, elsewhere="place with -o OUT.h5")


# --- pack --------------------------------------------------------------------------------------------


def run_pack(args: argparse.Namespace) -> int:
    """``ptydask pack``: 0; 1 where of a damaged trial only the numbers could be kept."""
    from ptydask.store.upkeep import packing, retention

    if args.out is not None and args.drop_checkpoints:
        raise UsageError("--drop-checkpoints: with -o nothing but OUT.h5 is changed")
    rule = retention.parse(args.arrays)
    report = packing.pack(args.file, rule, out=args.out, dry_run=args.dry_run, drop_checkpoints=args.drop_checkpoints)
    formats.print_report("".join(f"{line}\n" for line in pack_lines(report, dry_run=args.dry_run)))
    for line in report.damaged:
        print_notice(line)
    return 1 if report.damaged else 0


def pack_lines(report: PackReport, *, dry_run: bool) -> list[str]:
    """What packing did, or would do, for a person."""
    path, trials = from_here(report.path), counted(report.trials, "trial")
    if report.earlier_trials:
        trials += f", and {report.earlier_trials} of earlier stages"
    before, after = size_text(report.before), size_text(report.after)
    if dry_run:
        lines = [f"{path}: would hold {trials}; {before} before, about {after} then"]
    elif report.changed:
        lines = [f"{path}: holds {trials}; {before} before, {after} now"]
    else:
        lines = [f"{path}: one file already, with {trials}; nothing to do"]
    dropped = len(report.dropped) + report.earlier_dropped
    if dropped:
        word = "would be dropped" if dry_run else "dropped"
        kept = report.with_arrays + report.earlier_with_arrays
        lines.append(f"{report.bulk} {word} of {counted(dropped, 'trial')}, kept of {kept}")
    if report.unfinished:
        from ptydask.store import names

        verb = "was" if report.unfinished == 1 else "were"
        outcome = "given up, checkpoints removed"
        if report.checkpoints_kept:
            outcome = f"checkpoints stay in {names.folder_of(report.path).name}/, and `ptydask run` goes on with them"
        lines.append(f"{counted(report.unfinished, 'trial')} {verb} under way: {outcome}")
    return lines


# --- verify ------------------------------------------------------------------------------------------


def run_verify(args: argparse.Namespace) -> int:
    """``ptydask verify``: 0 intact, 1 damaged."""
    from ptydask.store.upkeep import verify

    report = verify.verify(args.file, progress=_progress_counter())
    if args.format == "json":
        formats.print_text(formats.json_text(_report_object(report)))
        return 0 if report.intact else 1
    for problem in report.problems:
        print_notice(str(problem))
    read = f"{counted(report.trials, 'trial')} in {counted(report.files, 'file')} read"
    if report.intact:
        formats.print_report(f"{args.file}: intact, {read}\n")
        return 0
    damage = counted(len(report.problems), "problem")
    if report.damaged:
        damage += f", {counted(len(report.damaged), 'trial')} damaged"
    formats.print_report(f"{args.file}: damaged: {damage}; {read}\n")
    print_notice(report.advice)
    return 1


def _progress_counter() -> Callable[[int, int], None] | None:
    """Counts the trials on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def count(done: int, total: int) -> None:
        line = f"\r{done}/{total} trials\r" if done < total else "\r\x1b[K"
        print(line, end="", file=sys.stderr, flush=True)

    return count


def _report_object(report: VerifyReport) -> dict[str, Any]:
    return {
        "file": str(report.path),
        "intact": report.intact,
        "kind": report.kind,
        "trials": report.trials,
        "files": report.files,
        "damaged": list(report.damaged),
        "problems": [
            {"file": str(p.file), "trial": p.trial, "where": p.where, "what": p.what} for p in report.problems
        ],
        "advice": report.advice,
    }


# --- rebuild -----------------------------------------------------------------------------------------


def run_rebuild(args: argparse.Namespace) -> int:
    """``ptydask rebuild``: 0; 1 where of a trial only the numbers, or nothing, could be saved."""
    from ptydask.store.upkeep import rebuild

    report = rebuild.rebuild(args.file, args.out)
    for line in report.trouble:
        print_notice(line)
    formats.print_report("".join(f"{line}\n" for line in rebuild_lines(report)))
    return 1 if report.numbers_only or report.lost else 0


def rebuild_lines(report: RebuildReport) -> list[str]:
    """What was rebuilt, for a person."""
    from ptydask.store.upkeep.merge_plan import format_spans

    path, trials = from_here(report.path), counted(report.trials, "trial")
    if not report.written:
        return [f"{path}: nothing is damaged, {trials}; nothing to do"]
    holds, verb = "holds" if report.packed else "is the index of", "is" if report.trials == 1 else "are"
    lines = [f"{path}: {holds} {trials} that {verb} whole"]
    for loss, numbers in (("only the numbers of", report.numbers_only), ("lost:", report.lost)):
        if numbers:
            lines.append(f"{loss} {counted(len(numbers), 'trial')}: {format_spans(numbers)}")
    if not report.described:
        lines.append("the study's settings are not known any more: `ptydask run` with its params file fills them in")
    lines += [f"moved to {from_here(path)}" for path in report.aside]
    if not report.packed:
        lines.append(
            f"`ptydask pack {shell_path(report.path)}` makes it one file, `ptydask run` goes on with the study"
        )
    return lines


# --- pieces ------------------------------------------------------------------------------------------


def print_notice(text: str) -> None:
    """One line on stderr."""
    formats.print_stderr(f"ptydask: {formatting.printable_text(text)}")
