"""What guesses are made from, to look at: the mean pattern with its disk, parallax, and the centres of mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis.figures import need_matplotlib
from ptydask.formatting import uncertain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ptydask.guess.measuring import Measured
    from ptydask.guess.report import Report

_MOST = 256
"""Scan positions along a side of the field that is drawn, in its middle."""
_ARROWS = 20
"""Along a side."""
_FEW, _COARSE = 32, 2.0
"""An image of fewer positions along a side, or of a coarser scan (:attr:`Geometry.coarseness`), shows no atoms."""


def draw(measured: Measured) -> Figure:
    """The mean pattern with the disk; the phase by parallax, where that was fitted; the field of the centres of mass.

    Real space is in angstrom from the middle of what was read, along the scan's own axes. Raises MissingDependency
    without Matplotlib.
    """
    need_matplotlib()
    from ptydask.analysis.figures import style

    panels = 2 if measured.parallax is None else 3
    with style.style_context():
        figure = style.new_figure(3.5 * panels, 4.3)
        (pattern, *middle, field), (pattern_key, *middle_key, field_key) = figure.subplots(
            2, panels, height_ratios=(1, 0.16)
        )
        _draw_pattern(pattern, pattern_key, measured)
        for axes, key in zip(middle, middle_key, strict=True):
            _draw_phase(axes, key, measured)
        _draw_field(field, field_key, measured)
        style.note(figure, measured.report.warnings[:3])
    return figure


def _draw_pattern(axes: Any, key: Any, measured: Measured) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Circle

    from ptydask.analysis.figures.style import ORANGE

    mean = np.maximum(measured.sample.mean, 0)
    shown = axes.imshow(mean, cmap="viridis", norm=PowerNorm(0.5, vmin=0))
    title = "Mean pattern: no disk"
    if (disk := measured.disk) is not None:
        y, x = disk.centre
        axes.add_patch(Circle((x, y), disk.radius, fill=False, color=ORANGE, linewidth=1.2))
        axes.plot([x], [y], "+", color=ORANGE)
        angle = measured.geometry.pixel_angle
        mrad = "" if angle is None else f" ({disk.radius * angle:.1f} mrad)"
        title = f"Mean pattern: disk of {disk.radius:.1f} pixels{mrad}"
    _dress(axes, title, "detector pixel")
    unit = "counts" if measured.sample.counted else "the file's unit"
    bar = _add_bar(key, shown, f"mean of a pixel, {unit}; square-root scale")
    bar.set_ticks([0, *(float(f"{mean.max() * share:.1g}") for share in (0.05, 0.25, 0.8))])


def _draw_phase(axes: Any, key: Any, measured: Measured) -> None:
    """By acBF: bright where the specimen's phase is large, if the fit is right."""
    assert measured.parallax is not None
    image = measured.parallax.image
    low, high = np.percentile(image, (1, 99))
    step = measured.geometry.step
    shown = axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=_extent(image.shape, step))
    _dress(axes, parallax_title(measured.report), "scan, angstrom")
    coarseness = measured.geometry.coarseness
    few = min(image.shape) < _FEW or (coarseness is not None and coarseness > _COARSE)
    why = f"\nno atoms to be expected of {image.shape[0]} x {image.shape[1]} positions" if few else ""
    _add_bar(key, shown, f"phase, arbitrary unit{why}").set_ticks([])


def parallax_title(report: Report) -> str:
    """C10 and rotation by parallax, with deviations, and how far to trust them."""
    has = {one.parameter: one for one in report.guesses if one.method == "parallax"}
    texts = [
        f"{name} {uncertain_text(one.value, one.deviation or 0.0)} {one.unit} "
        f"({one.trust if one.counts else 'not determined'})"
        for name in ("C10", "rotation")
        if (one := has.get(name)) is not None and isinstance(one.value, float)
    ]
    return f"Parallax: {', '.join(texts[:1]) or 'not determined'}\n{', '.join(texts[1:])}".rstrip()


def _draw_field(axes: Any, key: Any, measured: Measured) -> None:
    """Hue is the direction, brightness the length of the field, less its mean."""
    mass, step = measured.sample.mass, measured.geometry.step
    middle = tuple(slice(max(0, (size - _MOST) // 2), (size + _MOST) // 2) for size in mass.shape[1:])
    y, x = mass[:, *middle] - mass[:, *middle].mean(axis=(1, 2), keepdims=True)
    length = np.hypot(y, x)
    most = float(np.percentile(length, 99))
    axes.imshow(_colour(y, x, most), extent=(extent := _extent(y.shape, step)))
    every = max(1, max(y.shape) // _ARROWS)
    rows, columns = np.mgrid[every // 2 : y.shape[0] : every, every // 2 : y.shape[1] : every]
    if most > 0:
        along, down = (extent[0] + (columns + 0.5) * step, extent[3] + (rows + 0.5) * step)
        arrows = {"angles": "xy", "scale_units": "xy", "scale": most / (1.3 * every * step)}
        axes.quiver(along, down, x[rows, columns], y[rows, columns], color="white", width=0.004, **arrows)
    if measured.parallax is not None and measured.parallax.image.shape != y.shape:
        from matplotlib.patches import Rectangle

        left, right, bottom, top = _extent(measured.parallax.image.shape, step)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="white", linestyle="--"))
    _dress(axes, "Centre of mass, less its mean", "scan, angstrom")
    _draw_wheel(key, most)


def _draw_wheel(key: Any, most: float) -> None:
    """Which direction on the detector has which colour, and how long the brightest is."""
    y, x = np.mgrid[-1:1:61j, -1:1:61j]
    key.set_axis_off()
    wheel = key.inset_axes((0.0, 0.0, 0.25, 1.0))
    wheel.imshow(np.dstack([_colour(y, x, 1.0), np.hypot(y, x) <= 1]))
    wheel.set_axis_off()
    words = f"direction on the detector;\nat the rim {most:.2g} pixels or more"
    key.text(0.3, 0.5, words, transform=key.transAxes, va="center", fontsize=8)


def _colour(y: NDArray[np.float64], x: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    from matplotlib.colors import hsv_to_rgb

    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1
    bright = np.clip(np.hypot(y, x) / max(most, 1e-12), 0, 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), bright], axis=-1)))


def _extent(shape: tuple[int, ...], step: float) -> tuple[float, float, float, float]:
    """Of an image of scan positions, from its middle: left, right, bottom, top."""
    down, along = shape[0] * step / 2, shape[1] * step / 2
    return (-along, along, down, -down)


def _add_bar(key: Any, shown: Any, label: str) -> Any:
    """A colour bar in the upper part of the axes ``key``."""
    key.set_axis_off()
    inset = key.inset_axes((0.05, 0.65, 0.9, 0.25))
    return key.figure.colorbar(shown, cax=inset, orientation="horizontal", label=label)


def _dress(axes: Any, title: str, unit: str) -> None:
    axes.grid(visible=False)
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.set_ylabel(unit)
