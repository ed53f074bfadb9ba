"""How many bytes one of PtyRAD's trials takes, in the results file and in memory, from the params alone. No PtyRAD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptydask.engines.ptyrad.loading_place import are_shared
from ptydask.model import KeepOptions, WorkerMemory
from ptydask.space import tunables

_PHASE, _AMPLITUDE, _PROBE, _POSITIONS = 0.87, 0.45, 0.88, 0.85
"""Share of its size in memory that an array has in the file, compressed: measured on reconstructions of 1 and 12
slices. The amplitude is 1 wherever nothing was scanned."""
_MARGIN = 1.2
"""PtyRAD's object is so many times as wide as what the probe meets (``Initializer.init_pos``)."""
_BASE, _ITERATION, _SNAPSHOT = 39_000, 450, 6_000
"""Bytes of a trial without arrays (record, links, thumbnail, headers); of an iteration (its log and its row of the
curve); of a snapshot's headers."""


def estimate_trial_bytes(config: Mapping[str, Any], keep: KeepOptions, scan: tuple[int, int]) -> float | None:
    """Bytes in the results file of a trial that runs to its end; ``scan`` are the scan points (slow, fast).

    ``config`` has PtyRAD's defaults filled in; of a tuned parameter the file's own value counts. None where the file
    does not say how large the object will be: a pixel size fitted to the patterns, loaded positions or objects.
    """
    iterations = int(config["recon_params"]["NITER"])
    base = _BASE + _ITERATION * iterations
    if not keep.arrays:
        return base
    init = config["init_params"]
    pixels, object_pixels = _probe_pixels(init), _object_pixels(init, scan)
    slices = _count_slices(init)
    if object_pixels is None or slices is None:
        return None
    positions = scan[0] * scan[1]
    volume = 4 * int(init.get("obj_omode_max") or 1) * slices * object_pixels
    probe = 8 * int(init.get("probe_pmode_max") or 1) * pixels**2
    state = volume * (_PHASE + _AMPLITUDE) + probe * _PROBE + 16 * positions * _POSITIONS
    snapshots = iterations // keep.snapshot_every if keep.snapshot_every else 0
    # The image is the part of the object under the centres of the probe.
    image = 4 * _PHASE * max(0.0, math.sqrt(object_pixels) / _MARGIN - pixels) ** 2
    return base + state + image + 2 * positions + snapshots * (state + _SNAPSHOT)


_PROCESS = 550e6
"""Bytes of a worker before it has read anything: Python, PyTorch, PtyRAD. Measured, as what is below."""
_READING = 2.5
"""Sizes of the patterns that they take while they are read and prepared: of values in single precision 1.3, of others
as many more as they are larger."""


def estimate_worker_memory(config: Mapping[str, Any], scan: tuple[int, int]) -> WorkerMemory:
    """The memory of workers that reconstruct on a CPU; ``scan`` are the scan points (slow, fast)
    that ``meas_crop`` leaves.

    Of what the file does not say, an object of patterns without overlap for instance, a generous guess.
    """
    init = config["init_params"]
    pixels, positions = _probe_pixels(init), scan[0] * scan[1]
    patterns = 4.0 * positions * _padded_pixels(init) ** 2
    slices = _count_slices(init) or 2 * int(init.get("obj_Nlayer") or 1)
    modes = int(init.get("obj_omode_max") or 1) * int(init.get("probe_pmode_max") or 1)
    # Amplitude and phase with gradients and Adam's two moments; of a batch the waves that autograd keeps of each
    # slice, and what comes and goes.
    volume = 2 * 4 * 4 * int(init.get("obj_omode_max") or 1) * slices * (_object_pixels(init, scan) or 25 * pixels**2)
    waves = (30 + 6 * modes * slices) * 8 * int(config["recon_params"]["BATCH_SIZE"]["size"]) * pixels**2
    own, reading = _PROCESS + volume + waves, _READING * patterns
    return WorkerMemory(own, shared=reading) if are_shared(init) else WorkerMemory(own + reading, shared=0)


def _probe_pixels(init: Mapping[str, Any]) -> int:
    """Pixels along a side of the probe: those of the patterns after cropping, padding and resampling."""
    pixels = _padded_pixels(init)
    resample = init.get("meas_resample") or {}
    factors = resample.get("scale_factors")
    return math.floor(pixels * factors[-1]) if resample.get("mode") is not None and factors else pixels


def _padded_pixels(init: Mapping[str, Any]) -> int:
    pixels, crop = int(init["meas_Npix"]), init.get("meas_crop")
    if crop is not None and crop[-1] is not None:
        pixels = len(range(*slice(*crop[-1]).indices(pixels)))
    pad = init.get("meas_pad") or {}
    return int(pad["target_Npix"]) if pad.get("mode") is not None else pixels


def _object_pixels(init: Mapping[str, Any], scan: tuple[int, int]) -> float | None:
    """Pixels of one slice: ``1.2 * ceil(extent of the positions + width of the probe)`` each way."""
    dx = tunables.pixel_size(init)
    if dx is None or init.get("pos_source", "simu") != "simu" or init.get("obj_source", "simu") != "simu":
        return None
    dx *= int(init["meas_Npix"]) / _padded_pixels(init)  # cropping and padding leave the reciprocal pixel size
    step = init.get("pos_scan_step_size")
    if not step:
        return None
    scale, asymmetry, rotation, shear = init.get("pos_scan_affine") or (1.0, 0.0, 0.0, 0.0)
    slow, fast = ((points - 1) * step / dx * scale for points in scan)
    slow, fast = slow * (1 + asymmetry / 2), fast * (1 - asymmetry / 2)
    turn, lean = math.radians(rotation), abs(math.tan(math.radians(shear)))
    sine, cosine = abs(math.sin(turn)), abs(math.cos(turn))
    sides = (slow * cosine + fast * (sine + lean), fast * cosine + slow * (sine + lean))
    rows, columns = (int(_MARGIN * math.ceil(side + _probe_pixels(init))) for side in sides)
    return float(rows * columns)


def _count_slices(init: Mapping[str, Any]) -> int | None:
    if init.get("obj_z_pad") or init.get("obj_z_resample"):
        return None
    layers, crop = int(init.get("obj_Nlayer") or 1), init.get("obj_z_crop")
    return layers if crop is None else len(range(*slice(*crop).indices(layers)))
