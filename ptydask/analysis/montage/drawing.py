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
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke

from ptydask.analysis.figures import scales, style
from ptydask.analysis.montage import sheet_layout
from ptydask.analysis.montage.picture_kinds import PictureLook
from ptydask.analysis.montage.sheet_layout import CELL, CellArrows, MontageCell, MontageSheet
from ptydask.errors import UsageError
from ptydask.model import StudyMeta, TrialRecord, TrialState

_GAP, _MARGIN, _LINE = 0.12, 0.15, 0.125
"""Inches: between cells, around all, from one line of a caption to the next."""
_FOOT = 0.55
_COARSEST, _FINEST = 150.0, 600.0
"""Dots per inch, at least and at most."""
_MOST_LINES = 8
_SHORT = 4
"""Letters of a unit that has room at both ends of the colour scale."""
_SIDE = 65_000
"""Pixels along a side that Matplotlib can draw."""
_TITLE, _SMALL = 13, 17
"""Letters an inch of the title, and of what is written in small."""


@dataclass(frozen=True)
class MontageLayout:
    """Where the cells are, in inches from the upper left corner.

    ``scale`` is inches per angstrom (or other unit of the cells' axes), 0 where unknown.
    """

    columns: int
    rows: int
    image: float
    """Height of a cell's image."""
    caption: float
    head: float
    scale: float
    cell_width: float = CELL

    @property
    def width(self) -> float:
        """Of the whole picture, inches."""
        return 2 * _MARGIN + self.columns * self.cell_width + (self.columns - 1) * _GAP

    @property
    def height(self) -> float:
        """Of the whole picture, inches."""
        return 2 * _MARGIN + self.head + self.rows * (self.image + self.caption + _GAP) + _FOOT

    def cell(self, place: int) -> tuple[float, float]:
        """Left and top of a cell; places count along the rows."""
        row, column = divmod(place, self.columns)
        return _MARGIN + column * (self.cell_width + _GAP), _MARGIN + self.head + row * (
            self.image + self.caption + _GAP
        )

    def box(self, place: int, picture: MontageCell) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of a picture: in the middle of its cell, at the scale of all."""
        left, top = self.cell(place)
        if self.scale and picture.height is not None and picture.width is not None:
            height, width = picture.height * self.scale, picture.width * self.scale
        else:
            fit = min(self.cell_width / picture.data.shape[1], self.image / picture.data.shape[0])
            height, width = (fit * size for size in picture.data.shape)
        x, y = left + (self.cell_width - width) / 2, top + (self.image - height) / 2
        return x, x + width, y + height, y


def compute_layout(
    pictures: Sequence[MontageCell], columns: int | None, lines: int, head: float, cell: float = CELL
) -> tuple[MontageLayout, list[int]]:
    """One scale for all, such that the widest picture fills its cell, and the place of each picture.

    ``lines`` are those of the captions, ``head`` is what is above the pictures and ``cell`` how wide they are, inches.
    """
    sizes = [(p.height, p.width) for p in pictures if p.height is not None and p.width is not None]
    if sizes:
        tallest, widest = max(height for height, _ in sizes), max(width for _, width in sizes)
        # The widest fills its cell, unless the tallest would then be higher than two cells are wide.
        image = min(tallest * cell / widest, 2 * cell)
        scale = image / tallest
    else:
        image = min(2 * cell, cell * max(picture.data.shape[0] / picture.data.shape[1] for picture in pictures))
        scale = 0.0
    caption = lines * _LINE + 0.06
    places = list(range(len(pictures)))
    if len({picture.record.number for picture in pictures}) < len(pictures) and not pictures[0].label:
        columns, places = sheet_layout.place_strips(pictures, columns)
    elif columns:
        columns = min(columns, len(pictures))
    else:
        columns = sheet_layout.columns_for(len(pictures), (image + caption) / cell)
    return MontageLayout(columns, places[-1] // columns + 1, image, caption, head, scale, cell), places


def draw_sheet(
    sheet: MontageSheet, *, columns: int | None, common: bool, dpi: float | None, title: str | None
) -> Figure:
    """See :func:`ptydask.analysis.montage.trial_images.draw_sheet`."""
    pictures, look = sheet.pictures, sheet.look
    if not pictures:
        return style.text_figure(
            style.display_name(sheet.meta.name, 40), f"No trial with {sheet_layout.missing_words(sheet.what)} to show."
        )
    records = [picture.record for picture in pictures]
    labelled = any(picture.label for picture in pictures)
    names, alike = sheet_layout.varying_parameters(records)
    letters = round(32 * look.cell / CELL)
    captions = [caption(p, sheet.ranks.get(p.record.number), names, sheet.meta, letters) for p in pictures]
    captions = [lines[:_MOST_LINES] for lines in captions]
    most = max(map(len, captions))
    width = compute_layout(pictures, columns, most, 0, look.cell)[0].width - 2 * _MARGIN
    headline = [] if title is None else textwrap.wrap(_title_text(sheet, title), int(width * _TITLE))
    remarks = [] if title is None else _head_lines(sheet, alike if len(pictures) > 1 or labelled else {})
    remarks = [line for text in remarks for line in textwrap.wrap(text, int(width * _SMALL))]
    head = 0.0 if title is None else 0.06 + 0.16 * len(headline) + len(remarks) * _LINE
    layout, places = compute_layout(pictures, columns, most, head, look.cell)
    figure = Figure(figsize=(layout.width, layout.height), dpi=dpi or _choose_dpi(pictures, layout))
    if max(layout.width, layout.height) * figure.dpi > _SIDE:
        raise UsageError(
            f"{len(pictures)} images at {figure.dpi:.0f} dpi make a picture too large to draw; choose fewer"
        )
    axes = _page_axes(figure, layout)
    limits = sheet_layout.colour_limits(pictures, look) if common or sheet.what == "positions" else None
    for place, picture, lines in zip(places, pictures, captions, strict=True):
        _draw_cell(axes, layout, sheet, place, picture, lines, limits)
    for i, line in enumerate(headline):
        axes.text(_MARGIN, _MARGIN + 0.16 * i, line, va="top", fontsize=10, fontweight="bold")
    for i, line in enumerate(remarks):
        y = _MARGIN + 0.13 + 0.16 * len(headline) + i * _LINE
        axes.text(_MARGIN, y, line, va="baseline", fontsize=7, color=style.GREY)
    _draw_footer(axes, sheet, layout, limits)
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
    lines += picture.lines
    if not picture.label:
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
    count, first = len({picture.record.number for picture in sheet.pictures}), sheet.pictures[0].record
    if title:
        subject = style.escape_text(title)
    elif count == 1:
        subject = f"trial {first.number}, {_error_text(first, sheet.meta)}"
    else:
        subject = style.format_count(count, "trial")
    return f"{style.display_name(sheet.meta.name, 40)} \N{EN DASH} {subject}"


def _head_lines(sheet: MontageSheet, alike: dict[str, Any]) -> list[str]:
    """Lines below the title: what is shown, and the values that all trials share."""
    records = [picture.record for picture in sheet.pictures]
    values = [_parameter_text(records[0], name, sheet.meta) for name in alike]
    alike_text = (
        ",  ".join(values) if len({record.number for record in records}) == 1 else f"in all: {',  '.join(values)}"
    )
    words = sheet.look.words
    if sheet.reference is not None:
        words += f": each trial less trial {sheet.reference}"
    if sheet.what == "positions":
        factor = sheet_layout.arrow_factor(sheet.pictures)
        times = f", {factor:,} times as long" if factor > 1 else ""
        words += f": arrows from the nominal ones{times}, without the shift of all"
    return [line for line in (words, alike_text if values else "") if line]


def _choose_dpi(pictures: Sequence[MontageCell], layout: MontageLayout) -> float:
    """Dots per inch at which no picture loses a pixel, within reason."""
    finest = 0.0
    for picture in pictures:
        left, right, _, _ = layout.box(0, picture)
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
    sheet: MontageSheet,
    place: int,
    picture: MontageCell,
    lines: Sequence[str],
    limits: tuple[float, float] | None,
) -> None:
    box, look = layout.box(place, picture), sheet.look
    low, high = (1, 255) if picture.thumbnail else limits or sheet_layout.colour_limits([picture], look)
    colours = "gray" if picture.thumbnail else look.colours
    if sheet.what == "positions":
        # The image is no more than a background: pale, so that arrows of any colour stand out.
        black, white = sheet_layout.sheet_grey_limits([picture])
        colours, low, high = "gray", black - 2 * (white - black), white
    axes.imshow(picture.data, cmap=colours, vmin=low, vmax=high, extent=box, aspect="auto", interpolation="auto")
    first = look.every_scale or place % layout.columns == 0
    if layout.scale and picture.width is not None:
        if picture.arrows is not None and limits is not None:
            _draw_arrows(axes, layout, box, picture.arrows, sheet_layout.arrow_factor(sheet.pictures), limits, look)
        _draw_circles(axes, layout, box, picture, labels=first)
        if first and picture.axis_unit == "angstrom":
            _draw_scale_bar(axes, layout, box, picture.width, pale=look.pale)
    left, top = layout.cell(place)
    for i, line in enumerate(lines):
        weight = "bold" if i == 0 else "normal"
        y = top + layout.image + 0.14 + i * _LINE
        axes.text(left, y, line, va="baseline", fontsize=7, clip_on=False, fontweight=weight)


def _draw_circles(
    axes: Axes, layout: MontageLayout, box: tuple[float, float, float, float], picture: MontageCell, *, labels: bool
) -> None:
    """The ring scale around the centre; each ring has its label within, at its top."""
    if picture.centre is None:
        return
    left, right, bottom, top = box
    x, y = left + picture.centre[1] * layout.scale, top + picture.centre[0] * layout.scale
    frame = Rectangle((left, top), right - left, bottom - top, transform=axes.transData)
    for circle in picture.circles:
        radius = circle.radius * layout.scale
        line: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (4, 3))} if circle.dashed else {"linewidth": 0.5}
        ring = Circle((x, y), radius, fill=False, edgecolor=style.VERMILION, gid="ring", **line)
        axes.add_patch(ring)
        ring.set_clip_path(frame)
        if labels and circle.text:
            _draw_label(axes, x, y - radius + 0.04, circle.text, va="top")


def _draw_arrows(
    axes: Axes,
    layout: MontageLayout,
    box: tuple[float, float, float, float],
    arrows: CellArrows,
    factor: int,
    limits: tuple[float, float],
    look: PictureLook,
) -> None:
    left, _, _, top = box
    starts, shifts = arrows.starts * layout.scale, arrows.shifts * (layout.scale * factor)
    axes.quiver(
        left + starts[:, 1],
        top + starts[:, 0],
        shifts[:, 1],
        shifts[:, 0],
        arrows.lengths,
        cmap=look.colours,
        clim=limits,
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.013,
        headwidth=3,
        headlength=3.5,
        headaxislength=3.2,
        minlength=0.5,
    )


def _draw_scale_bar(
    axes: Axes, layout: MontageLayout, box: tuple[float, float, float, float], width: float, *, pale: bool
) -> None:
    """A scale bar with its length, in the lower left corner of a picture."""
    angstrom = sheet_layout.scale_bar(width)
    left, _, bottom, _ = box
    x, y = left + 0.09, bottom - 0.11
    inside, outside = (style.INK, "white") if pale else ("white", "black")
    edge: dict[str, Any] = {"facecolor": inside, "edgecolor": outside, "linewidth": 0.4}
    axes.add_patch(Rectangle((x, y), angstrom * layout.scale, 0.04, gid="scale bar", zorder=3, **edge))
    text = sheet_layout.length_text(angstrom)
    _draw_label(axes, x + angstrom * layout.scale / 2, y - 0.02, text, va="bottom", colours=(inside, outside))


def _draw_label(
    axes: Axes, x: float, y: float, text: str, *, va: str, colours: tuple[str, str] = ("white", "black")
) -> None:
    """Words on a picture, with an outline, so that they are legible on black and on white."""
    inside, outside = colours
    outline = [withStroke(linewidth=1.4, foreground=outside)]
    axes.text(x, y, text, ha="center", va=va, fontsize=7.5, color=inside, weight="bold", zorder=3, path_effects=outline)


def _draw_footer(axes: Axes, sheet: MontageSheet, layout: MontageLayout, limits: tuple[float, float] | None) -> None:
    """The colour scale with its ends, and what is missing."""
    top, x = layout.height - _MARGIN - _FOOT + 0.12, _MARGIN
    units = next((picture.units for picture in sheet.pictures if picture.units), "")
    notes = [sheet.look.note] if sheet.look.note and limits is not None else []
    if sheet.what == "positions":
        units, notes = "Å", ["shift of a position"]
        if all(picture.arrows is None for picture in sheet.pictures):
            limits, notes = None, []
    if limits is None and sheet.what != "positions":
        notes.append(f"each image has its own {'grey' if sheet.look.colours == 'gray' else 'colour'} scale")
    if limits is not None and not all(picture.thumbnail for picture in sheet.pictures):
        if len(units) > _SHORT:
            units, notes = "", [units, *notes]
        width = min(1.6, layout.width / 2)
        ramp = np.linspace(0, 1, 256)[None]
        axes.imshow(ramp, cmap=sheet.look.colours, extent=(x, x + width, top + 0.12, top), aspect="auto")
        axes.add_patch(Rectangle((x, top), width, 0.12, fill=False, edgecolor=style.INK, linewidth=0.5))
        for position, value, side in ((x, limits[0], "left"), (x + width, limits[1], "right")):
            text = scales.value_text(float(f"{value:.2g}"))
            axes.text(position, top + 0.15, f"{text} {units}".strip(), ha=side, va="top", fontsize=7)
        x += width + 0.15
    if sheet.lost:
        numbers = [str(number) for number in sheet.lost]
        more = ["\N{HORIZONTAL ELLIPSIS}"] if len(numbers) > 12 else []
        notes.append(f"without {'an image' if sheet.what == 'phase' else 'this'}: {', '.join(numbers[:12] + more)}")
    room = max(20, int((layout.width - x - _MARGIN) * _SMALL))
    remarks = "\n".join(textwrap.wrap(" \N{MIDDLE DOT} ".join(map(style.escape_text, notes)), room)[:4])
    axes.text(x, top, remarks, va="top", fontsize=7, color=style.GREY)
