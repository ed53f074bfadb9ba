"""What guesses are made from, to look at: the mean pattern with its disk, and the field of the centres of mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis.figures import need_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ptydask.guess.measuring import Measured

_MOST = 256
"""Scan positions along a side of the field that is drawn, in its middle."""
_ARROWS = 24
"""Along a side."""


def draw(measured: Measured, image: NDArray[np.float32] | None = None) -> Figure:
    """The mean pattern, its square root, with the disk; the field by colour and arrows; ``image`` is of parallax.

    Raises MissingDependency without Matplotlib.
    """
    need_matplotlib()
    from ptydask.analysis.figures import style

    panels = 2 if image is None else 3
    with style.style_context():
        figure = style.new_figure(3.6 * panels, 3.6)
        _draw_pattern(figure.add_subplot(1, panels, 1), measured)
        _draw_field(figure.add_subplot(1, panels, panels), measured.sample.mass)
        if image is not None:
            axes = figure.add_subplot(1, panels, 2)
            axes.imshow(image, cmap="gray")
            _dress(axes, "parallax", "scan position")
        style.note(figure, measured.report.warnings[:3])
    return figure


def _draw_pattern(axes: Any, measured: Measured) -> None:
    from matplotlib.patches import Circle

    from ptydask.analysis.figures.style import ORANGE

    axes.imshow(np.sqrt(np.maximum(measured.sample.mean, 0)), cmap="viridis")
    title = "mean pattern, no disk"
    if (disk := measured.disk) is not None:
        y, x = disk.centre
        axes.add_patch(Circle((x, y), disk.radius, fill=False, color=ORANGE, linewidth=1.2))
        axes.plot([x], [y], "+", color=ORANGE)
        title = f"mean pattern, disk of {disk.radius:.1f} pixels"
    _dress(axes, title, "detector pixel")


def _draw_field(axes: Any, mass: NDArray[np.float64]) -> None:
    """Hue is the direction, brightness the length of the field, less its mean."""
    from matplotlib.colors import hsv_to_rgb

    middle = tuple(slice(max(0, (size - _MOST) // 2), (size + _MOST) // 2) for size in mass.shape[1:])
    y, x = mass[:, *middle] - mass[:, *middle].mean(axis=(1, 2), keepdims=True)
    length = np.hypot(y, x)
    bright = np.clip(length / max(float(np.percentile(length, 99)), 1e-12), 0, 1)
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1
    axes.imshow(hsv_to_rgb(np.stack([hue, np.ones_like(hue), bright], axis=-1)))
    step = max(1, max(y.shape) // _ARROWS)
    rows, columns = np.mgrid[step // 2 : y.shape[0] : step, step // 2 : y.shape[1] : step]
    if length.any():
        axes.quiver(columns, rows, x[rows, columns], y[rows, columns], color="white", angles="xy", width=0.004)
    _dress(axes, "centre of mass", "scan position")


def _dress(axes: Any, title: str, unit: str) -> None:
    axes.grid(visible=False)
    axes.set_title(title)
    axes.set_xlabel(unit)
