"""The stages of a study in words, as they are printed before anything starts. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from ptydask.config.stages import Around, Stage
from ptydask.driver.cost import StageCost
from ptydask.formatting import NOTHING, counted, printable_text, shorten_text, work_text, wrap_line
from ptydask.model import StudyPlan
from ptydask.progress.plan_text import WIDTH as LABEL
from ptydask.progress.plan_text import labelled_line
from ptydask.space import ranges
from ptydask.trial.search_choice import parameters_with_slopes

WIDTH = 100
"""Characters of a line."""
_WIDEST = {"stage": 10, "trials": 8, "metric": 10, "batch": 6, "scan": 6, "pixels": 9, "from": 8, "ends": 12}
"""Characters of a column, whatever is in it, so that there is room for what is tuned."""
_LONGEST = 20
"""Characters of a name."""
_MOST_LINES = 6
"""Lines of one stage: a choice may have thousands of values."""
_GAP = "  "
_HEADINGS = ("stage", "tunes", "trials", "metric", "iterations", "batch", "scan", "pixels", "from", "ends")
_USUAL = {"batch": NOTHING, "scan": "whole", "pixels": "all", "from": "anew", "ends": NOTHING}
"""A column that says nothing else in any stage is left out."""
_NUMBERS = ("trials", "iterations", "batch", "scan")
"""Columns that are set to the right."""


def stages_lines(plans: Sequence[StudyPlan], stages: Sequence[Stage], costs: Sequence[StageCost]) -> list[str]:
    """A table of the stages, and below it what they cost: lines of the plan, of at most 100 characters.

    ``plans`` are the stages' plans, those of stages that have not begun as far as they are known, and ``costs`` what
    :func:`ptydask.driver.cost.estimate_stages` says of them, all in the stages' order.
    """
    rows = [_row(plan, stage, cost) for plan, stage, cost in zip(plans, stages, costs, strict=True)]
    return [*_table_lines(rows), *_cost_lines([stage.name for stage in stages], costs)]


# --- the table -----------------------------------------------------------------------------------------


def _row(plan: StudyPlan, stage: Stage, cost: StageCost) -> dict[str, str]:
    """What the table says of a stage, by the column's heading."""
    return {
        "stage": _name(stage.name),
        "tunes": tuned_text(plan, stage),
        "trials": f"{cost.recorded} of {cost.trials}" if cost.recorded else str(cost.trials),
        "metric": _name(plan.metric) or NOTHING,
        "iterations": str(plan.iterations or NOTHING),
        "batch": str(stage.batch_size or NOTHING),
        "scan": share_text(plan.scan_share),
        "pixels": _pixels_text(stage),
        "from": _name(stage.start_from) or "anew",
        "ends": end_text(plan),
    }


def tuned_text(plan: StudyPlan, stage: Stage) -> str:
    """``dz 10 to 20, step 0.5; scale, rotation around best +- 3 steps``: ranges in numbers once they are known.

    Where a range lies around what an earlier stage finds, that is once the stage before it is over.
    """
    if not stage.tune:
        return "nothing"
    begun = plan.lineage is not None and plan.lineage.from_trial is not None
    texts: list[tuple[str, str]] = []
    for name, given in stage.tune.items():
        known = None if isinstance(given, Around) and not begun else plan.space.get(name)
        dist = known or given
        text = _around_text(dist) if isinstance(dist, Around) else "" if dist is None else ranges.describe(dist)
        texts.append((printable_text(name), printable_text(text)))
    return "; ".join(_grouped(texts))


def end_text(plan: StudyPlan) -> str:
    """What ends a stage before its trials do: ``settled``, ``no 1 % in 20``."""
    ends = ["settled"] if plan.until_settled and parameters_with_slopes(plan) else []
    if plan.no_gain is not None and plan.space:
        ends.append(f"no {100 * plan.no_gain.share:.4g} % in {plan.no_gain.trials}")
    return ", ".join(ends) or NOTHING


def share_text(share: float) -> str:
    """A share of the scan: ``whole``, ``1/4``, ``6.3 %``."""
    if share >= 1 or share <= 0:
        return "whole"
    parts = 1 / share
    if round(parts) < 100 and abs(parts - round(parts)) < 1e-6 * parts:
        return f"1/{round(parts)}"
    return f"{100 * share:.2g} %"


def _around_text(around: Around) -> str:
    step = "" if around.step is None else f" of {around.step:.10g}"
    return f"around best +- {around.steps:g} {'step' if around.steps == 1 else 'steps'}{step}"


def _grouped(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Neighbours of which the same is said together: ``scale, rotation around best +- 3 steps``."""
    names: list[str] = []
    last = ""
    for name, text in texts:
        if names and text != last:
            yield f"{', '.join(names)} {last}".rstrip()
            names = []
        names.append(name)
        last = text
    yield f"{', '.join(names)} {last}".rstrip()


def _pixels_text(stage: Stage) -> str:
    part = stage.pixels
    if part is None:
        return "all"
    said = [f"crop {part.crop}"] if part.crop else []
    said += [f"bin {part.bin}"] if part.bin and part.bin > 1 else []
    return ", ".join(said) or "all"


def _name(text: str) -> str:
    return shorten_text(printable_text(text), _LONGEST)


def _table_lines(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """The table, each cell in as many lines as it takes; what is tuned has the room that the others leave."""
    shown = [h for h in _HEADINGS if h not in _USUAL or any(row[h] != _USUAL[h] for row in rows)]
    widths = {h: min(_WIDEST.get(h, WIDTH), max(len(h), *(len(row[h]) for row in rows))) for h in shown}
    others = sum(width for heading, width in widths.items() if heading != "tunes")
    widths["tunes"] = min(widths["tunes"], WIDTH - LABEL - others - len(_GAP) * (len(shown) - 1))
    label = "stages"
    for row in [{heading: heading for heading in shown}, *rows]:
        cells = [_cell_lines(row[heading], widths[heading]) for heading in shown]
        for parts in zip_longest(*cells, fillvalue=""):
            aligned = (_align(part, heading, widths[heading]) for heading, part in zip(shown, parts, strict=True))
            yield labelled_line(label, _GAP.join(aligned).rstrip())
            label = ""


def _cell_lines(text: str, width: int) -> list[str]:
    """``text`` as lines of at most ``width`` characters; ``...`` for what are too many."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [*lines[: _MOST_LINES - 1], "..."] if len(lines) > _MOST_LINES else lines


def _align(cell: str, heading: str, width: int) -> str:
    return cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)


# --- the cost ------------------------------------------------------------------------------------------


def _cost_lines(names: Sequence[str], costs: Sequence[StageCost]) -> Iterator[str]:
    """Scan-iterations of every stage and of all, and the hours of those that are left, where trials tell."""
    named = list(zip(map(_name, names), costs, strict=True))
    known = [(name, cost.scan_iterations) for name, cost in named if cost.scan_iterations is not None]
    if known:
        terms = " + ".join(f"{_number(number)} ({name})" for name, number in known)
        whole = _number(sum(number for _, number in known))
        total = f"{terms} = {whole}" if len(known) > 1 else whole
        more = "" if len(known) == len(named) else ", and those of stages whose iterations are not known"
        yield from wrap_line(labelled_line("cost", f"{total} scan-iterations at the most{more}"), WIDTH)
    timed = [(name, cost, cost.seconds) for name, cost in named if cost.left and cost.seconds is not None]
    if timed:
        seconds, on_gpus = sum(time for _, _, time in timed), all(cost.on_gpus for _, cost, _ in timed)
        left = sum(cost.left for _, cost, _ in timed)
        by = counted(max(cost.known_by for _, cost, _ in timed), "completed trial")
        text = f"about {work_text(seconds, on_gpus)} for the {counted(left, 'trial')} left, by {by}"
        if len(timed) > 1:
            text += f": {', '.join(f'{name} {_span(time)}' for name, _, time in timed)}"
        yield from wrap_line(labelled_line("" if known else "cost", text), WIDTH)


def _number(count: float) -> str:
    """Scan-iterations: whole ones, fewer than ten with a digit."""
    return f"{count:.0f}" if count >= 10 or count == round(count) else f"{count:.2g}"


def _span(seconds: float) -> str:
    """``3.1 h``, ``40 min``."""
    hours, minutes = seconds / 3600, max(1.0, seconds / 60)
    return f"{float(f'{hours:.2g}'):g} h" if hours >= 1 else f"{minutes:.0f} min"
