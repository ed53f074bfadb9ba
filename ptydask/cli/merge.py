"""``merge``: several results files of one study into one."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.cli import arguments, formats
from ptydask.cli.upkeep import print_notice
from ptydask.errors import MissingDependency, StoreError, UsageError
from ptydask.formatting import counted, from_here, shorten_text, size_text

if TYPE_CHECKING:
    from ptydask.store.upkeep.merge_plan import MergePart, MergeSource

_MERGE = """\
Make one file of several of the same study: of copies that were run on, or of two clusters.

A trial that is in several files comes once, from the file that has most of it. Trials of the first
file keep their numbers; those of another move up together where a number is taken, and say where
they came from (merged_store, merged_number). The files themselves are only read."""
_MERGE_MORE = """\
Files that are not of one study are refused: study, engine, error metric, direction, settings, data
and tuned parameters have to be the same. The ranges of parameters may differ; the first file's are
kept. OUT.h5 goes on as the first file's study.

Copies of one file that were both run on have different trials under the same numbers (--conflicts):
  refuse   stop, and say which (default)
  both     keep them all, those of the later file under new numbers
  first    keep those of the file that was named first"""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ``merge`` to the command line."""
    does = "make one file of several of the same study"
    merge = arguments.add_command(subparsers, "merge", does, says=_MERGE, more=_MERGE_MORE, file=False)
    merge.add_argument("out", type=Path, metavar="OUT.h5", help="the file to write; it may not exist yet")
    merge.add_argument("files", type=Path, nargs="+", metavar="FILE.h5", help="the files to merge")
    merge.add_argument("--conflicts", choices=("refuse", "both", "first"), default="refuse", help="see below")
    merge.set_defaults(handler=run_merge, elsewhere="OUT.h5")


def run_merge(args: argparse.Namespace) -> int:
    """``ptydask merge``: 0; 1 where the files are not of one study, or a trial turned out damaged."""
    from ptydask.store import reader
    from ptydask.store.upkeep import merge, merge_plan, packing

    files = [path.absolute() for path in args.files]
    if len(files) < 2:
        raise UsageError(f"merge: {args.out} is the file to write, and {args.files[0]} the only one to merge")
    if len(set(files)) < len(files):
        twice = [path for path in args.files if files.count(path.absolute()) > 1]
        raise UsageError(f"merge: {twice[0]} is named twice")
    packing.refuse_existing(args.out.absolute())
    sources = merge.read(args.files)
    first = sources[0]
    for source in sources[1:]:
        _check_same_study(first, source)
    plan = merge_plan.plan_merge(sources, args.conflicts)
    failed = merge.write(args.out, plan)
    lines = [_part_line(part) for part in plan.parts]
    with reader.open(args.out) as merged:
        *before, _ = merged.stage_names() or [""]
    stages = f" of stage {first.meta.stage}, all of {', '.join(before)}" if before else ""
    lines.append(f"{args.out}: {counted(len(plan.trials), 'trial')}{stages}, {size_text(args.out.stat().st_size)}")
    formats.print_report("".join(f"{line}\n" for line in lines))
    for source in sources:
        _print_source_notices(source)
        if not merge.keeps_numbers(source, plan) and merge.has_confirmation(source):
            print_notice(f"{source.path.name}: the repeats of its trials are not merged; confirm {args.out.name} anew")
        if source.store_id != first.store_id and merge.has_earlier_stages(source):
            print_notice(f"{source.path.name}: its earlier stages are not merged; those of {first.path.name} are kept")
        for name in merge_plan.changed_ranges(first.meta, source.meta):
            print_notice(f"{source.path.name}: another range of {name} than in {first.path.name}, whose range is kept")
    for number, why in failed.items():
        print_notice(f"trial {number}: only its numbers were kept: {why}")
    return 1 if failed else 0


def _part_line(part: MergePart) -> str:
    from ptydask.store.upkeep.merge_plan import format_spans

    words = [f"{from_here(part.source.path)}: {counted(part.new, 'trial')}"]
    if part.known:
        words.append(f"{part.known} that a file before it has as well")
    if part.fuller:
        words.append(f"the arrays of {part.fuller} of those are from this file")
    if part.moved:
        old, new = zip(*part.moved, strict=True)
        words.append(f"{format_spans(old)} became {format_spans(new)}")
    elif part.conflicts:
        words.append(f"left out, because another of that number came first: {format_spans(part.conflicts)}")
    return ", ".join(words)


def _print_source_notices(source: MergeSource) -> None:
    name = source.path.name
    if source.live:
        print_notice(f"{name}: being run by {source.live}; merged with its trials so far")
    if source.unfinished:
        print_notice(f"{name}: {counted(source.unfinished, 'trial')} under way, with checkpoints, not merged")


def _check_same_study(first: MergeSource, other: MergeSource) -> None:
    """Raise StoreError where trials of the two are not comparable."""
    from ptydask.store.upkeep import merge_plan

    differences = [*merge_plan.differences(first.meta, other.meta), *_differing_settings(first, other)]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise StoreError(
            f"{first.path.name} and {other.path.name} are not of one study: {'; '.join(differences[:3])}{more}"
        )


def _differing_settings(first: MergeSource, other: MergeSource) -> list[str]:
    """Where the settings differ that decide a trial's result: the engine knows which do; without it, all count."""
    from ptydask import engines
    from ptydask.driver import comparability, provenance

    metas = (first.meta, other.meta)
    if first.meta.engine != other.meta.engine or not all(meta.config_json for meta in metas):
        return []
    old, new = map(provenance.config_of, metas)
    with suppress(UsageError, MissingDependency):
        essential = engines.get(first.meta.engine).essential
        old, new = dict(essential(old)), dict(essential(new))
    changes = comparability.changed_settings(old, new)
    return [
        f"{key} {shorten_text(str(before), 30)} and {shorten_text(str(after), 30)}"
        for key, before, after in changes
        if not provenance.is_same_file(*metas, key)
    ]
