"""``info``: what is in a results file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptydask import formatting
from ptydask.cli import arguments, formats, inspect
from ptydask.formatting import counted, from_here, size_text

_INFO = """\
Show what a results file is and holds, of a running study too.

Trials by how they ended, the best one, how large it is and what takes the room, how many trials
have their arrays, who runs the study now, and where it came from: host, versions, data, command.
Of a study with stages: which there are, and all else of the latest."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ``info`` to the command line."""
    info = arguments.add_command(subparsers, "info", "show what is in a results file", says=_INFO)
    info.add_argument("--format", choices=("table", "json", "yaml"), default="table", help="how to print")
    info.set_defaults(handler=run_info)


def run_info(args: argparse.Namespace) -> int:
    """``ptydask info``: 0."""
    from ptydask.analysis import stages, sweep
    from ptydask.store.upkeep import info

    contents = info.collect_info(args.file)
    with inspect.open_results(args.file) as results:
        meta, listed = results.meta, stages.read_stages(results)
    if sweep.is_sweep(meta):  # what it runs, and the parameters that it does not tune
        contents |= {"program": sweep.program(meta), "constants": sweep.constants(meta)}
    if args.format == "table":
        above = [*listed.lines(), ""] if listed else []
        formats.print_report("".join(f"{line}\n" for line in [*above, *info_lines(contents)]))
        return 0
    if listed:
        contents["stages"] = [stages.stage_object(stage) for stage in listed.values()]
    formats.print_text(formats.object_text(contents, args.format))
    return 0


def info_lines(contents: Mapping[str, Any]) -> list[str]:
    """The facts of :func:`ptydask.store.upkeep.info.collect_info` for a person."""
    data = contents["bytes"]
    if contents["kind"] == "packed":
        where = "one file that holds everything"
    else:
        where = f"an index; the trials are in {contents['folder']}/"
    engine = contents["engine"] or "engine not known"
    aim = f"{contents['direction']} {contents['metric']}" if contents["metric"] else "no metric"
    unfinished = counted(contents["unfinished"], "trial")
    lines: list[tuple[str, str]] = [
        ("study", f"{contents['study']} ({engine}), {aim}"),
        ("file", f"{from_here(Path(contents['file']))}, {where}"),
        ("written", f"{contents['written']} by {contents['creator']}, format {contents['format_version']}"),
        ("study begun", contents["created"]),
        *_trial_lines(contents["trials"], sweep="program" in contents),
        ("best", _best_text(contents["best"])),
        ("tuned", ", ".join(contents["parameters"])),
        ("program", "" if "program" in contents["provenance"] else contents.get("program", "")),
        ("constants", formatting.params_text(contents.get("constants", {}))),
        ("confirmation", _confirmation_text(contents)),
        ("size", size_text(data["total"])),
        *(("", f"{size_text(size):>9}  {kind}") for kind, size in data["kinds"].items() if size),
        ("compression", _compression_text(contents)),
        ("unfinished", f"{unfinished} under way, with checkpoints" if contents["unfinished"] else ""),
        ("driver", contents["driver"]),
        *((name, text) for name, text in contents["provenance"].items() if name != "own_file_text"),
    ]
    rows = [(formatting.printable_text(name), text) for name, text in lines if text]
    width = min(22, max(len(name) for name, _ in rows))
    return [f"{name.ljust(width)}  {formatting.printable_text(text) if name else text}".rstrip() for name, text in rows]


def _confirmation_text(contents: Mapping[str, Any]) -> str:
    if "confirmation" not in contents:
        return ""
    text, missing = counted(contents["confirmation"], "repeat"), contents.get("confirmation_missing", 0)
    return f"{text}, {missing} more to go: ptydask confirm goes on" if missing else text


def _trial_lines(trials: Mapping[str, Any], *, sweep: bool) -> list[tuple[str, str]]:
    counts = [f"{count} {word}" for word, count in trials["states"].items() if count]
    if trials["retried"]:
        counts.append(f"{trials['retried']} tried again")
    words = {
        "with_arrays": "with arrays",
        "with_artifacts": "with files of the program",
        "dropped": "had theirs dropped",
        "lost": "could not be kept whole",
        "unreadable": "cannot be read: see ptydask verify",
    }
    # A reconstruction without arrays is worth a word, a program's trial has none anyway.
    always = () if sweep else ("with_arrays",)
    kept = [f"{trials[key]} {text}" for key, text in words.items() if trials[key] or key in always]
    return [("trials", f"{trials['total']}: {', '.join(counts) or 'none yet'}"), ("", ", ".join(kept))]


def _best_text(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return ""
    return f"trial {best['number']}: {formatting.error_text(best['error'])}  {formatting.params_text(best['params'])}"


def _compression_text(contents: Mapping[str, Any]) -> str:
    text, ratio = contents["compression"] or "", contents["ratio"]
    if text and ratio and ratio > 1.05:
        text += f", {ratio:.2g} times smaller than in memory"
    return text
