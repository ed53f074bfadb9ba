"""Images for a page: 8 bits, no larger than a screen shows, as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import greys
from ptydask.errors import import_optional
from ptydask.model import Image

LOSSLESS = 192
"""Up to so many pixels along a side an image is stored exactly: small ones gain nothing by less."""
QUALITY = 86
_EXACT_COLOURS = 80
"""The same of coloured ones, where others are shown beside them."""


def import_pillow() -> Any:
    """Pillow's ``Image``. Raises MissingDependency where it is not installed."""
    return import_optional("PIL.Image", "report needs", "analysis", "pillow")


def encode_image(image: Image, side: int, *, exact: bool = False, quality: int = QUALITY) -> dict[str, Any] | None:
    """One image as the page wants it; None where it has no finite pixel.

    ``src`` holds at most ``side`` pixels along a side; ``quality`` is WebP's of an image that is not stored exactly.
    ``low`` and ``high`` are the values of black and white, in ``values``; ``middle``, of
    :mod:`ptydask.analysis.greys`, is what images beside each other are compared from. ``left``, ``top``, ``dx``,
    ``dy`` calibrate the pixels in ``unit``; without axes they count pixels.
    """
    data = np.asarray(image.data, np.float32)
    ends = greys.grey_limits(data) if data.ndim == 2 else None
    if ends is None:
        return None
    low, high = ends
    (top, dy), (left, dx) = _pixel_axis(image.y, data.shape[0]), _pixel_axis(image.x, data.shape[1])
    finite = np.nan_to_num(data, nan=low, posinf=high, neginf=low)
    return {
        "src": _image_data_uri(grey_image(finite, low, high, side), exact, quality),
        "width": data.shape[1],
        "height": data.shape[0],
        "low": low,
        "high": high,
        "middle": greys.phase_median(image),
        "values": image.units,
        "left": left,
        "top": top,
        "dx": dx,
        "dy": dy,
        "unit": image.axis_units if len(image.x) and len(image.y) else "px",
        "title": image.title,
    }


def encode_probe(modes: NDArray[Any], pixel: float | None, side: int = 192) -> dict[str, Any] | None:
    """The strongest mode of a (mode, y, x) complex probe: brightness is amplitude, hue is phase.

    ``share`` is its part of the whole power. None where the array holds no probe.
    """
    stack = np.asarray(modes)
    if stack.ndim != 3 or 0 in stack.shape or not np.iscomplexobj(stack) or not np.isfinite(stack).all():
        return None
    powers = (np.abs(stack) ** 2).sum((1, 2), dtype=np.float64)
    mode = stack[int(powers.argmax())]
    total = float(powers.sum())
    if total <= 0:
        return None
    step = pixel or 1.0
    y, x = (step * (np.arange(size) + 0.5) for size in mode.shape)
    encoded = encode_complex(mode, y, x, "angstrom" if pixel else "px", side, exact=True)
    return {**encoded, "modes": len(stack), "share": float(powers.max()) / total}


def encode_complex(
    data: NDArray[Any], y: NDArray[Any], x: NDArray[Any], unit: str, side: int, *, exact: bool = False
) -> dict[str, Any]:
    """A finite complex (y, x) image on its axes: brightness is amplitude, white is ``high``; hue is phase."""
    colours = import_pillow().fromarray(_phase_colours(data))
    _shrink_to_fit(colours, side)
    (top, dy), (left, dx) = _pixel_axis(y, data.shape[0]), _pixel_axis(x, data.shape[1])
    return {
        "src": _image_data_uri(colours, exact or max(colours.size) <= _EXACT_COLOURS),
        "width": data.shape[1],
        "height": data.shape[0],
        "high": float(np.abs(data).max()),
        "left": left,
        "top": top,
        "dx": dx,
        "dy": dy,
        "unit": unit,
    }


def encode_thumbnail(tile: NDArray[np.uint8], side: int) -> str:
    """A stored thumbnail without its empty margin, ``side`` pixels along its longer side."""
    small = import_pillow().fromarray(np.ascontiguousarray(greys.without_margin(tile)))
    _shrink_to_fit(small, side)
    return _webp_data_uri(small, quality=50, method=0)


def relative_limits(picture: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Black and white of a :func:`encode_image` from its middle on; None where there is none."""
    return None if picture is None else (picture["low"] - picture["middle"], picture["high"] - picture["middle"])


def grey_image(data: NDArray[np.float32], low: float, high: float, side: int) -> Any:
    """An 8-bit Pillow image, ``low`` black and ``high`` white, shrunk before the grey values are rounded."""
    image = import_pillow().fromarray(np.ascontiguousarray(data))
    _shrink_to_fit(image, side)
    span = high - low if high > low else 1.0
    levels = np.clip((np.asarray(image, np.float64) - low) / span, 0, 1) * 255
    return import_pillow().fromarray(np.round(levels).astype(np.uint8))


def _phase_colours(mode: NDArray[Any]) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: the full-colour circle around the phase, black where there is no amplitude."""
    value = np.abs(mode) / (np.abs(mode).max() or 1.0)
    sector = (np.angle(mode) / (2 * np.pi) % 1.0) * 6
    channels = [np.clip(np.abs((sector + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)]
    return np.asarray(np.round(255 * np.stack(channels, -1) * value[..., None]), np.uint8)


def _shrink_to_fit(image: Any, side: int) -> None:
    """Make an image fit ``side`` pixels, in place, aspect kept; a smaller one stays as it is."""
    image.thumbnail((side, side), import_pillow().Resampling.LANCZOS)


def compress_png(png: bytes) -> str:
    """A figure that is a picture already, smaller: lossy, at a quality that leaves letters sharp."""
    return _image_data_uri(import_pillow().open(io.BytesIO(png)).convert("RGB"), exact=False)


def _image_data_uri(image: Any, exact: bool, quality: int = QUALITY) -> str:
    if exact or (image.mode == "L" and max(image.size) <= LOSSLESS):
        return _webp_data_uri(image, lossless=True, quality=40, method=3)
    return _webp_data_uri(image, quality=quality, method=3 if quality >= QUALITY else 1)


def _webp_data_uri(image: Any, **options: Any) -> str:
    out = io.BytesIO()
    image.save(out, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _pixel_axis(centres: NDArray[Any], count: int) -> tuple[float, float]:
    """Where the first pixel begins and how wide each is, from the pixels' centres."""
    if len(centres) != count:
        return 0.0, 1.0
    step = float(centres[-1] - centres[0]) / (count - 1) if count > 1 else 1.0
    return float(centres[0]) - step / 2, step
