"""The TIFF files that PtyRAD's own hypertune leaves of a trial: their names and their pixels.

After ``ptyrad.io.save.save_results`` and ``ptyrad.solver.hypertune`` (0.1.0b13 and 1.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Direction, Scalar, TrialRecord
from ptydask.space import tunables

LONGEST = 255
"""Characters of a file's name; PtyRAD cuts before the suffix."""

_BITS = {"8": "_08bit", "16": "_16bit", "32": "_32bit"}
_FULL_SCALE: dict[str, tuple[type, int]] = {"8": (np.uint8, 255), "16": (np.uint16, 65535), "32": (np.float32, 1)}
_FIRST = ("batch_size", "optimizer", *tunables.TENSORS, "dx", "pmode_max", "conv_angle", "z_shift")
_ORDER = {name: i for i, name in enumerate(dict.fromkeys([*_FIRST, *tunables.PARAMETERS]))}
"""The order in which PtyRAD's objective asks for its parameters, and so names them."""


@dataclass(frozen=True)
class TiffImage:
    """One TIFF file of PtyRAD's, without its folder."""

    name: str
    data: NDArray[Any]
    """As it is written: 8 or 16 bits, or float32."""
    axes: str
    """One letter a dimension: T modes, Z slices, Y, X."""
    cropped: bool
    low: float
    high: float
    """The values that became 0 and full scale; of ``raw``, where a viewer puts black and white."""
    scaled: bool
    """Whether the values were mapped to that scale; False for ``raw``."""


def trial_text(record: TrialRecord, direction: Direction, *, with_params: bool = True) -> str:
    """``_error_0.01234_t0012_scale_0.98_rotation_-1.5``: what PtyRAD puts into the names of a trial's files.

    PtyRAD minimises: a metric that is maximised has its sign turned.
    """
    error = float("nan") if record.error is None else record.error if direction == "minimize" else -record.error
    return f"_error_{error_text(error)}_t{record.number:04d}{params_text(record.params) if with_params else ''}"


def error_text(error: float) -> str:
    """``0.01234``."""
    return f"{error:.5f}"


def params_text(params: Mapping[str, Scalar]) -> str:
    """``_scale_0.98_plr_1.0e-04``, as ``parse_hypertune_params_to_str`` has it."""
    ordered = sorted(params.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER)))
    return "".join(f"_{name}_{value_text(name, value)}" for name, value in ordered)


def value_text(name: str, value: Scalar) -> str:
    """``0.98``, of a learning rate ``1.0e-04``."""
    if isinstance(value, int | float):
        return f"{value:.1e}" if name[-2:].lower() == "lr" else f"{value:.3g}"
    return str(value)


def iteration_text(iteration: int) -> str:
    """``_iter0020``."""
    return f"_iter{iteration:04d}"


def truncate_name(name: str) -> str:
    """A file's name of at most 255 characters, its suffix kept."""
    suffix = PurePath(name).suffix
    return name if len(name) <= LONGEST else name[: LONGEST - len(suffix)] + suffix


def render_tiffs(
    arrays: Mapping[str, NDArray[Any]],
    region: tuple[slice, slice],
    settings: Mapping[str, Any],
    ending: str,
    bits: Sequence[str] | None = None,
) -> Iterator[TiffImage]:
    """The files that PtyRAD would write of ``arrays``.

    ``arrays`` has ``objp``, ``obja`` (omode, z, y, x) and ``probe`` (pmode, y, x); ``settings`` are the params'
    ``recon_params``, whose ``save_result`` and ``result_modes`` say which; ``ending`` comes behind what the picture
    is, from :func:`trial_text` and :func:`iteration_text`. ``bits`` replaces the depths of ``result_modes``.
    """
    asked, modes = settings.get("save_result") or ("model", "objp"), settings.get("result_modes") or {}
    for bit in bits or modes.get("bit") or ("8",):
        if "probe" in asked:
            amplitude = np.abs(arrays["probe"]).transpose(1, 0, 2).reshape(arrays["probe"].shape[-2], -1)
            yield _render_tiff(f"probe_amp{_BITS.get(bit, '')}", amplitude, "YX", bit, ending, cropped=False)
        for field in modes.get("FOV") or ("crop",):
            cropped = field == "crop"
            tag = ("_crop" if cropped else "") + _BITS.get(bit, "")
            for name in _object_names(asked):
                data = arrays[name][:, :, region[0], region[1]] if cropped else arrays[name]
                for kind, pixels, axes in _object_views(name, data, modes.get("obj_dim") or (2, 3, 4)):
                    yield _render_tiff(f"{kind}{tag}", pixels, axes, bit, ending, cropped=cropped)


def _object_names(asked: Sequence[str]) -> tuple[str, ...]:
    phase = ("objp",) if {"obj", "objp", "object"} & set(asked) else ()
    return (*phase, "obja") if "obja" in asked else phase


def _object_views(name: str, data: NDArray[Any], dims: Sequence[int]) -> list[tuple[str, NDArray[Any], str]]:
    """What PtyRAD makes of an object (omode, z, y, x) in 2, 3 and 4 dimensions, with its axes."""
    if data.shape[:2] == (1, 1):
        views = [("", data[0, 0], "YX")]
    elif data.shape[0] == 1:
        views = [("_zstack", data[0], "ZYX"), *_depth_projections(name, "", data[0], 0, "YX")]
    elif data.shape[1] == 1:
        modes = data[:, 0]
        views = [("_ostack", modes, "TYX"), ("_omean", modes.mean(0), "YX"), ("_ostd", modes.std(0), "YX")]
    else:
        views = [("_4D", data, "TZYX"), ("_omean_zstack", data.mean(0), "ZYX")]
        views += [
            *_depth_projections(name, "_ostack", data, 1, "TYX"),
            *_depth_projections(name, "_omean", data.mean(0), 0, "YX"),
        ]
    return [(name + tag, pixels, axes) for tag, pixels, axes in views if len(axes) in dims]


def _depth_projections(
    name: str, tag: str, data: NDArray[Any], axis: int, axes: str
) -> list[tuple[str, NDArray[Any], str]]:
    """An object without its depth: phases are summed, amplitudes averaged and multiplied."""
    if name == "objp":
        return [(f"{tag}_zsum", data.sum(axis), axes)]
    return [(f"{tag}_zmean", data.mean(axis), axes), (f"{tag}_zprod", data.prod(axis), axes)]


def _render_tiff(kind: str, data: NDArray[Any], axes: str, bit: str, ending: str, *, cropped: bool) -> TiffImage:
    pixels, low, high = scale_to_depth(data, bit)
    return TiffImage(truncate_name(f"{kind}{ending}.tif"), pixels, axes, cropped, low, high, bit in _FULL_SCALE)


def scale_to_depth(data: NDArray[Any], bit: str) -> tuple[NDArray[Any], float, float]:
    """``normalize_by_bit_depth``: the whole range of values on 8 or 16 bits or 0 to 1; ``raw`` as they are.

    Returns it with the values that became 0 and full scale.
    """
    low, high = float(data.min()), float(data.max())
    if bit not in _FULL_SCALE:
        return data.astype(np.float32), low, high
    kind, top = _FULL_SCALE[bit]
    if not low < high:  # or NaN, of a reconstruction that diverged
        return np.zeros(data.shape, kind), low, high
    return (top * ((data - data.min()) / (data.max() - data.min()))).astype(kind), low, high
