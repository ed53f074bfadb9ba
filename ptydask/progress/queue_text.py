"""The plan of a queue in words: what holds for all of its studies once, then each with its own. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ptydask.formatting import printable_text, wrap_line
from ptydask.progress.plan_text import LINE_WIDTH, WIDTH, labelled_line

_STUDY = "study"
Block = tuple[str, ...]
"""A line of a plan with a label, and those without one that follow it."""


def blocks_of(lines: Iterable[str]) -> list[Block]:
    """The lines of a plan by their labels, without a first one that says no more than the head of a study."""
    blocks: list[list[str]] = []
    for line in lines:
        if not blocks or line[:WIDTH].strip():
            blocks.append([])
        blocks[-1].append(line)
    # Of a study in stages the first tells these, and of one that another file names, which.
    is_head = bool(blocks) and blocks[0][0].startswith(_STUDY.ljust(WIDTH)) and " (params: " not in blocks[0][0]
    return [tuple(block) for block in blocks[is_head:]]


def common_blocks(plans: Sequence[Sequence[Block]]) -> list[Block]:
    """The blocks that all plans have."""
    return [block for block in plans[0] if all(block in other for other in plans[1:])]


def common_lines(count: int, common: Iterable[Block]) -> list[str]:
    """What is said once of all studies; nothing where they have nothing in common."""
    lines = [line for block in common for line in block]
    return [labelled_line("queue", f"{count} studies, of each:"), *lines] if lines else []


def study_lines(
    place: int, names: Sequence[str], file: Path, own: Iterable[Block], before: Iterable[str] = ()
) -> list[str]:
    """A study of the queue with the blocks that are its own, and the lines of the studies ``before`` it."""
    name = printable_text(names[place])
    origin = "" if name == str(file) else f", from {file}"
    head = labelled_line(_STUDY, f"{place + 1} of {len(names)}: {name}{origin}")
    return [head, *before, *(line for block in own for line in block)]


def sources_lines(sources: Sequence[tuple[str, str]]) -> list[str]:
    """What a study starts from: of those before it the ones with the same microscope settings, and which others.

    ``sources`` are the names of those before it and the first setting in which each differs.
    """
    if not sources:
        return []
    same = [printable_text(name) for name, setting in sources if not setting]
    others: dict[str, list[str]] = {}
    for name, setting in sources:
        if setting:
            others.setdefault(printable_text(setting), []).append(printable_text(name))
    text = "the best of those before it with the same microscope settings (not with --independent)"
    lines = [labelled_line("from", text if same else "none of those before it: other microscope settings")]
    lines += [labelled_line("", f"same: {', '.join(same)}")] if same else []
    lines += [labelled_line("", f"other: {', '.join(names)}: {setting}") for setting, names in others.items()]
    return [part for line in lines for part in wrap_line(line, LINE_WIDTH)]
