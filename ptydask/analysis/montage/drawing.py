"""A montage on paper: cells, captions, scale bars and the grey scale, laid out in inches on one pair of axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ptydask.analysis.figures import scales, style
from ptydask.analysis.montage import sheet_layout
from ptydask.analysis.montage.sheet_layout import CELL, MontageCell, MontageSheet
from ptydask.errors import UsageError
from ptydask.model import StudyMeta, TrialRecord, TrialState

_GAP, _MARGIN, _LINE = 0.12, 0.15, 0.125
"""Inches: between cells, around all, from one line of a caption to the next."""
_FOOT = 0.55
_COARSEST, _FINEST = 150.0, 600.0
"""Dots per inch, at least and at most."""
_MOST_LINES = 8
_SIDE = 65_000
"""Pixels along a side that Matplotlib can draw."""
_WORDS = {
    "phase": "phase, summed over depth",
    "amplitude": "amplitude of the object, mean over depth",
    "probe": "amplitude of the probe, all modes",
}


@dataclass(frozen=True)
class MontageLayout:
    """Where the cells are, in inches from the upper left corner; ``scale`` is inches per angstrom, 0 where unknown."""

    columns: int
    rows: int
    image: float
    """Height of a cell's image."""
    caption: float
    head: float
    scale: float

    @property
    def width(self) -> float:
        """Of the whole picture, inches."""
        return 2 * _MARGIN + self.columns * CELL + (self.columns - 1) * _GAP

    @property
    def height(self) -> float:
        """Of the whole picture, inches."""
        return 2 * _MARGIN + self.head + self.rows * (self.image + self.caption + _GAP) + _FOOT

    def cell(self, index: int) -> tuple[float, float]:
        """Left and top of a cell."""
        row, column = divmod(index, self.columns)
        return _MARGIN + column * (CELL + _GAP), _MARGIN + self.head + row * (self.image + self.caption + _GAP)

    def box(self, index: int, picture: MontageCell) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of a picture: in the middle of its cell, at the scale of all."""
        left, top = self.cell(index)
        if self.scale and picture.height is not None and picture.width is not None:
            height, width = picture.height * self.scale, picture.width * self.scale
        else:
            fit = min(CELL / picture.data.shape[1], self.image / picture.data.shape[0])
            height, width = (fit * size for size in picture.data.shape)
        x, y = left + (CELL - width) / 2, top + (self.image - height) / 2
        return x, x + width, y + height, y


def compute_layout(pictures: Sequence[MontageCell], columns: int | None, lines: int, head: int) -> MontageLayout:
    """One scale for all, such that the widest picture fills its cell; ``lines`` of captions, ``head`` lines on top."""
    sizes = [(p.height, p.width) for p in pictures if p.height is not None and p.width is not None]
    if sizes:
        tallest, widest = max(height for height, _ in sizes), max(width for _, width in sizes)
        # The widest fills its cell, unless the tallest would then be higher than two cells are wide.
        image = min(tallest * CELL / widest, 2 * CELL)
        scale = image / tallest
    else:
        image = min(2 * CELL, CELL * max(picture.data.shape[0] / picture.data.shape[1] for picture in pictures))
        scale = 0.0
    caption = lines * _LINE + 0.06
    if columns:
        columns = min(columns, len(pictures))
    else:
        columns = sheet_layout.columns_for(len(pictures), (image + caption) / CELL)
    return MontageLayout(columns, -(-len(pictures) // columns), image, caption, 0.22 + head * _LINE, scale)


def draw_sheet(sheet: MontageSheet, *, columns: int | None, common: bool, dpi: float | None, title: str) -> Figure:
    """See :func:`ptydask.analysis.montage.trial_images.draw_sheet`."""
    pictures = sheet.pictures
    if not pictures:
        return style.text_figure(
            style.display_name(sheet.meta.name, 40),
            f"No trial with {'an image' if sheet.array == 'phase' else sheet.array} to show.",
        )
    records = [picture.record for picture in pictures]
    snapshots = any(picture.label for picture in pictures)
    names, alike = sheet_layout.varying_parameters(records)
    captions = [caption(p, sheet.ranks.get(p.record.number), names, sheet.meta)[:_MOST_LINES] for p in pictures]
    head = _head_lines(sheet, alike if len(pictures) > 1 or snapshots else {})
    layout = compute_layout(pictures, columns, max(map(len, captions)), 0)
    wrapped = [line for text in head for line in textwrap.wrap(text, int((layout.width - 2 * _MARGIN) * 17))]
    layout = compute_layout(pictures, columns, max(map(len, captions)), len(wrapped))
    figure = Figure(figsize=(layout.width, layout.height), dpi=dpi or _choose_dpi(pictures, layout))
    if max(layout.width, layout.height) * figure.dpi > _SIDE:
        raise UsageError(
            f"{len(pictures)} images at {figure.dpi:.0f} dpi make a picture too large to draw; choose fewer"
        )
    axes = _page_axes(figure, layout)
    limits = sheet_layout.sheet_grey_limits(pictures)
    for index, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        _draw_cell(axes, layout, index, picture, lines, limits if common else None)
    axes.text(_MARGIN, _MARGIN, _title_text(sheet, title), va="top", fontsize=10, fontweight="bold")
    for i, line in enumerate(wrapped):
        axes.text(_MARGIN, _MARGIN + 0.2 + i * _LINE, line, va="top", fontsize=7, color=style.GREY)
    _draw_footer(axes, sheet, layout, limits if common else None)
    return figure


def caption(
    picture: MontageCell, rank: int | None, names: Sequence[str], meta: StudyMeta, width: int = 32
) -> list[str]:
    """The lines below a picture: rank and number; the error; the parameters, as many on a line as fit."""
    record = picture.record
    ranked = f"#{rank}  " if rank is not None and not picture.label else ""
    lines = [f"{ranked}{picture.label or f'trial {record.number}'}{'  (thumbnail)' if picture.thumbnail else ''}"]
    if not picture.label:
        lines.append(f"{_error_text(record, meta)}{_state_text(record)}")
        lines += _fill_lines([_parameter_text(record, name, meta) for name in names if name in record.params], width)
    return lines


def _error_text(record: TrialRecord, meta: StudyMeta) -> str:
    if record.error is None:
        return "no error"
    return f"{style.display_name(meta.metric, 14)} {scales.value_text(float(f'{record.error:.5g}'))}"


def _state_text(record: TrialRecord) -> str:
    return "" if record.state is TrialState.COMPLETE else f"  ({record.state.word})"


def _parameter_text(record: TrialRecord, name: str, meta: StudyMeta) -> str:
    """``rotation −1.5°``."""
    value, unit = record.params[name], scales.parameter_unit(name, meta)
    text = scales.value_text(float(f"{value:.4g}") if isinstance(value, float) else value, 16)
    return f"{style.display_name(name, 18)} {text}{'' if unit in ('', '°') else ' '}{unit}"


def _fill_lines(texts: Sequence[str], width: int) -> list[str]:
    """As many parts on a line as fit, two blanks between them."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 2 + len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return lines


def _title_text(sheet: MontageSheet, title: str) -> str:
    count, first = len(sheet.pictures), sheet.pictures[0].record
    if title:
        subject = style.escape_text(title)
    elif any(picture.label for picture in sheet.pictures):
        subject = f"trial {first.number}, {_error_text(first, sheet.meta)}"
    else:
        subject = style.format_count(count, "trial")
    return f"{style.display_name(sheet.meta.name, 40)} \N{EN DASH} {subject}"


def _head_lines(sheet: MontageSheet, alike: dict[str, Any]) -> list[str]:
    """Lines below the title: what is shown, and the values that all trials share."""
    records = [picture.record for picture in sheet.pictures]
    values = [_parameter_text(records[0], name, sheet.meta) for name in alike]
    alike_text = f"in all: {',  '.join(values)}" if values else ""
    return [line for line in (_WORDS[sheet.array], alike_text) if line]


def _choose_dpi(pictures: Sequence[MontageCell], layout: MontageLayout) -> float:
    """Dots per inch at which no picture loses a pixel, within reason."""
    finest = 0.0
    for index, picture in enumerate(pictures):
        left, right, _, _ = layout.box(index, picture)
        finest = max(finest, picture.data.shape[1] / max(right - left, 1e-3))
    return math.ceil(min(_FINEST, max(_COARSEST, finest)))


def _page_axes(figure: Figure, layout: MontageLayout) -> Axes:
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.set_autoscale_on(False)
    return axes


def _draw_cell(
    axes: Axes,
    layout: MontageLayout,
    index: int,
    picture: MontageCell,
    lines: Sequence[str],
    limits: tuple[float, float] | None,
) -> None:
    box = layout.box(index, picture)
    low, high = (1, 255) if picture.thumbnail else limits or sheet_layout.sheet_grey_limits([picture])
    axes.imshow(picture.data, cmap="gray", vmin=low, vmax=high, extent=box, aspect="auto", interpolation="auto")
    if index % layout.columns == 0 and layout.scale and picture.width is not None:
        _draw_scale_bar(axes, layout, box, picture.width)
    left, top = layout.cell(index)
    for i, line in enumerate(lines):
        weight = "bold" if i == 0 else "normal"
        y = top + layout.image + 0.05 + i * _LINE
        axes.text(left, y, line, va="top", fontsize=7, clip_on=False, fontweight=weight)


def _draw_scale_bar(axes: Axes, layout: MontageLayout, box: tuple[float, float, float, float], width: float) -> None:
    """A scale bar with its length, in the lower left corner of a picture."""
    angstrom = sheet_layout.scale_bar(width)
    left, _, bottom, _ = box
    x, y = left + 0.09, bottom - 0.11
    edge: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.4}
    axes.add_patch(Rectangle((x, y), angstrom * layout.scale, 0.04, gid="scale bar", zorder=3, **edge))
    axes.text(
        x + angstrom * layout.scale / 2,
        y - 0.02,
        sheet_layout.length_text(angstrom),
        ha="center",
        va="bottom",
        fontsize=7.5,
        color="white",
        fontweight="bold",
        zorder=3,
        path_effects=[withStroke(linewidth=1.4, foreground="black")],
    )


def _draw_footer(axes: Axes, sheet: MontageSheet, layout: MontageLayout, limits: tuple[float, float] | None) -> None:
    """The grey scale with its ends, and what is missing."""
    top, x = layout.height - _MARGIN - _FOOT + 0.12, _MARGIN
    units = next((picture.units for picture in sheet.pictures if picture.units), "")
    if limits is not None and not all(picture.thumbnail for picture in sheet.pictures):
        width = min(1.6, layout.width / 2)
        ramp = np.linspace(0, 1, 256)[None]
        axes.imshow(ramp, cmap="gray", extent=(x, x + width, top + 0.12, top), aspect="auto")
        axes.add_patch(Rectangle((x, top), width, 0.12, fill=False, edgecolor=style.INK, linewidth=0.5))
        for position, value, side in ((x, limits[0], "left"), (x + width, limits[1], "right")):
            text = scales.value_text(float(f"{value:.2g}"))
            axes.text(position, top + 0.15, f"{text} {units}".strip(), ha=side, va="top", fontsize=7)
        x += width + 0.15
    notes = []
    if limits is None:
        notes.append("each image has its own grey scale")
    elif sheet.array == "phase":
        notes.append("phase less each image's median")
    if sheet.lost:
        numbers = [str(number) for number in sheet.lost]
        more = ["\N{HORIZONTAL ELLIPSIS}"] if len(numbers) > 12 else []
        notes.append(f"without an image: {', '.join(numbers[:12] + more)}")
    room = max(20, int((layout.width - x - _MARGIN) * 17))
    remarks = "\n".join(textwrap.wrap(" \N{MIDDLE DOT} ".join(map(style.escape_text, notes)), room)[:4])
    axes.text(x, top, remarks, va="top", fontsize=7, color=style.GREY)
