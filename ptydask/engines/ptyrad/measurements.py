"""The diffraction patterns: read once per worker, checked, kept on the device, given to every trial."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines import shared_copy
from ptydask.engines.ptyrad import hdf5_patterns, release, scratch_patterns
from ptydask.engines.ptyrad.counts import CountSplit, explain_uncounted, split_counts
from ptydask.engines.ptyrad.held_out_score import HeldOutCounts
from ptydask.engines.ptyrad.loading_place import are_shared
from ptydask.errors import DataError, one_line
from ptydask.store.foreign.damage import explain_unreadable

_SHAPE_KEYS = ("meas_Npix", "pos_N_scans", "pos_N_scan_slow", "pos_N_scan_fast")
"""What cropping, padding and resampling the patterns change in init_params."""

_FILE_CACHE = (
    "cache_source",
    "cache_path",
    "cache_contents",
    "use_cached_obj",
    "use_cached_probe",
    "use_cached_pos",
)
"""A reconstruction that object, probe or positions start from, as ``Initializer.init_cache`` keeps it."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Processed diffraction patterns, and what the Initializer derives from them."""

    key: str
    """Two sets of params with the same key have the same patterns."""
    variables: Mapping[str, Any]
    """Entries of ``Initializer.init_variables``; ``measurements`` is (N, ky, kx) float32."""
    shape_params: Mapping[str, Any]
    """Entries of ``Initializer.init_params`` as they are after cropping, padding and resampling."""
    file_cache: Mapping[str, Any]
    resident: torch.Tensor | None
    """The patterns on the device, (N, ky, kx) float32; None where ``preload_data`` is false."""
    detector: slice
    """The rows, and the columns, of a modelled pattern that were measured: not those of ``meas_pad``."""
    held_out: HeldOutCounts | None = None

    def give_to(self, init: Any) -> None:
        """Put the patterns into a fresh Initializer, as its own ``init_measurements`` would have."""
        init.init_variables.update(self.variables)
        init.init_params.update(self.shape_params)
        for name, value in self.file_cache.items():
            setattr(init, name, value)

    def lend_to(self, model: Any) -> None:
        """Let a model read the resident patterns, without a copy."""
        if self.resident is not None:
            model.meas_loader.data = self.resident
            model.meas_loader.preload_data = True
            model.preload_data = True


def key_of(init_params: Mapping[str, Any], seed: int, split: CountSplit | None = None) -> str:
    """What the processed patterns depend on, as text. The seed matters where Poisson noise is added."""
    names = {name for name in init_params if name.startswith("meas_")} - {"meas_calibration", "meas_export"}
    names |= {*_SHAPE_KEYS, "pos_scan_step_size"}
    # A reconstruction that these start from is kept with the patterns: see _FILE_CACHE.
    names |= {f"{part}_{what}" for part in ("obj", "probe", "pos") for what in ("source", "params")}
    matters = {name: value for name, value in init_params.items() if name in names}
    noise = seed if init_params.get("meas_add_poisson_noise") is not None else None
    return json.dumps([matters, noise, None if split is None else asdict(split)], sort_keys=True, default=repr)


@dataclass(frozen=True, slots=True)
class RestingMeasurements:
    """What a session leaves to the one that follows it in this process."""

    measurements: Measurements
    device: str
    checksums: Mapping[str, str]
    """Of the files that it was read from."""


_resting: RestingMeasurements | None = None


def rest(measurements: RestingMeasurements) -> None:
    """Keep them for the next session."""
    global _resting
    _resting = measurements


def take_resting() -> RestingMeasurements | None:
    """What was kept. It is the caller's now: where the caller lets it go, its memory is free."""
    global _resting
    kept, _resting = _resting, None
    return kept


@dataclass(frozen=True, slots=True)
class ProcessedPatterns:
    """What PtyRAD's Initializer makes of the data file, in host memory."""

    variables: Mapping[str, Any]
    """See :class:`Measurements`."""
    shape_params: Mapping[str, Any]
    file_cache: Mapping[str, Any]
    detector: slice
    held_out: NDArray[Any] | None
    """Electrons taken out of the patterns, as integers, as far as the detector goes."""
    intensity_unit: float
    """Detector units that an intensity of 1 stands for."""


def load(
    config: Mapping[str, Any],
    seed: int,
    device: str,
    file: Path | None,
    split: CountSplit | None = None,
    contents: str = "",
) -> Measurements:
    """Read and process the patterns and put them on the device; with ``split``, without the electrons held out.

    With ``contents``, which tells the data files from others of their names, the patterns in host memory are one copy
    for all processes of this machine that load the same, unless they are small or a GPU has them.

    Raises DataError where they cannot be read, have the wrong shape, hold values that are not finite, have no positive
    intensity, or do not fit the device; it names ``file``, the params file.
    """
    key, init_params = key_of(config["init_params"], seed, split), config["init_params"]
    preloaded = bool(config["model_params"].get("preload_data", True))
    folder = scratch_patterns.choose_folder(config, file, counts_held_out=split is not None)
    read = partial(_read_patterns, config, seed, file, split, folder)
    if contents and are_shared(init_params) and not (preloaded and device != "cpu"):
        identity = f"{contents} {release.installed().version} {np.__version__} {key}"
        try:
            patterns = _share_patterns(identity, read, folder)
        except MemoryError as error:
            raise _data_error(error, init_params, file) from error
    else:
        patterns = read()
    variables, resident = dict(patterns.variables), None
    if preloaded:
        try:
            resident = _copy_to_device(variables["measurements"], device)
        except _UnusablePatterns as error:
            raise _data_error(error, init_params, file) from None
        variables["measurements"] = _host_view(variables["measurements"], resident)
    return Measurements(
        key=key,
        variables=variables,
        shape_params=patterns.shape_params,
        file_cache=patterns.file_cache,
        resident=resident,
        detector=patterns.detector,
        held_out=None if split is None else _held_out_counts(patterns, split, resident),
    )


def _share_patterns(identity: str, read: Callable[[], ProcessedPatterns], folder: Path | None) -> ProcessedPatterns:
    def take_apart() -> tuple[shared_copy.Arrays, ProcessedPatterns]:
        patterns = read()
        variables = dict(patterns.variables)
        arrays = {"measurements": variables.pop("measurements")}
        if patterns.held_out is not None:
            arrays["held_out"] = patterns.held_out
        return arrays, replace(patterns, variables=variables, held_out=None)

    arrays, rest = shared_copy.one_copy(identity, take_apart, folder)
    variables = {**rest.variables, "measurements": arrays["measurements"]}
    shared: ProcessedPatterns = replace(rest, variables=variables, held_out=arrays.get("held_out"))
    return shared


def _read_patterns(
    config: Mapping[str, Any], seed: int, file: Path | None, split: CountSplit | None, folder: Path | None
) -> ProcessedPatterns:
    init_params = {**config["init_params"], "meas_export": None}  # every worker would write the same file
    _require_whole(init_params, file)
    init = _checking_initializer(split)(init_params, seed=seed)
    try:
        # What comes of it is checked here.
        with np.errstate(all="ignore"), scratch_patterns.reading_into(folder, init_params):
            init.init_cache()
            init.init_measurements()
        _check_processed(init.init_variables)
    except Exception as error:
        raise _data_error(error, init_params, file) from (None if isinstance(error, _UnusablePatterns) else error)
    return ProcessedPatterns(
        variables={name: value for name, value in init.init_variables.items() if name != "random_seed"},
        shape_params={name: init.init_params[name] for name in _SHAPE_KEYS},
        file_cache={name: getattr(init, name) for name in _FILE_CACHE},
        detector=init.detector,
        held_out=init.held_out,
        intensity_unit=init.intensity_unit,
    )


def _data_error(error: Exception, init_params: Mapping[str, Any], file: Path | None) -> DataError:
    path = str((init_params.get("meas_params") or {}).get("path", ""))
    if isinstance(error, _UnusablePatterns):
        rule, hint = str(error), error.hint
    else:
        rule, hint = _explain_failure(error, Path(path))
    return DataError(rule, file=file, key=hdf5_patterns.PATH, value=path, hint=hint)


def _held_out_counts(patterns: ProcessedPatterns, split: CountSplit, resident: torch.Tensor | None) -> HeldOutCounts:
    assert patterns.held_out is not None
    counts = torch.from_numpy(patterns.held_out)
    if resident is not None:
        counts = counts.to(resident.device)
    expected = patterns.intensity_unit / split.gain * split.exposure
    rows, mean = patterns.detector, torch.from_numpy(patterns.variables["meas_avg_pattern"])
    mean = mean if len(mean) == counts.shape[-1] else mean[rows, rows]  # padded before the run, or not
    return HeldOutCounts.of(counts, expected, split.gain, mean)


def _require_whole(init_params: Mapping[str, Any], file: Path | None) -> None:
    """Files that the data file refers to may be missing on this machine alone, and would be read as zeros."""
    params = init_params.get("meas_params")
    if not isinstance(params, Mapping):
        return
    try:
        hdf5_patterns.require_whole(Path(str(params.get("path", ""))), params.get("key"))
    except DataError as error:
        raise (error if file is None else error.in_file(file)) from None


class _UnusablePatterns(Exception):  # noqa: N818 - becomes a DataError
    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.hint = hint


def _checking_initializer(split: CountSplit | None) -> Any:
    base: Any = release.initializer().Initializer

    class CheckingInitializer(base):
        """Looks at the patterns as they come from the file, before clipping hides what is wrong with them.

        There it takes out the electrons that are held out; they follow the patterns through every step that moves
        pixels, while ``intensity_unit`` is what the others are divided by.
        """

        detector = slice(None)
        held_out: NDArray[Any] | None = None
        intensity_unit = 1.0

        def _load_meas(self) -> NDArray[np.float32]:
            raw: NDArray[np.float32] = super()._load_meas()
            _check_raw(raw)
            if split is not None:
                uncounted = explain_uncounted(raw, split.gain)
                if uncounted is not None:
                    raise _UnusablePatterns(*uncounted)
                self.held_out = split_counts(raw, split)
            return raw

        def _process_meas(self, meas: NDArray[np.float32]) -> NDArray[np.float32]:
            before = copy.copy(self)
            before.init_params = dict(self.init_params)
            processed: NDArray[np.float32] = super()._process_meas(meas)
            if self.held_out is not None:
                settings = before.init_params
                moved = before._meas_permute(self.held_out, settings.get("meas_permute"))
                moved = before._meas_reshape(moved, settings.get("meas_reshape"))
                moved = before._meas_flipT(moved, settings.get("meas_flipT"))
                self.held_out = np.ascontiguousarray(before._meas_crop(moved, settings.get("meas_crop")))
            return processed

        def _meas_normalization(self, meas: NDArray[np.float32], norm_cfg: Any) -> NDArray[np.float32]:
            total = meas.sum(dtype=np.float64)  # first: the values are divided in place
            normalised: NDArray[np.float32] = super()._meas_normalization(meas, norm_cfg)
            self.intensity_unit = float(total / normalised.sum(dtype=np.float64))
            return normalised

        def _meas_pad(self, meas: NDArray[np.float32], pad_cfg: Any) -> NDArray[np.float32]:
            pixels = meas.shape[-1]
            padded: NDArray[np.float32] = super()._meas_pad(meas, pad_cfg)
            first = (self.init_params["meas_Npix"] - pixels) // 2
            if first and not (self.init_params.get("meas_resample") or {}).get("mode"):
                self.detector = slice(first, first + pixels)
            return padded

    return CheckingInitializer


def _check_raw(raw: NDArray[np.float32]) -> None:
    total = float(raw.sum(dtype=np.float64))
    if not np.isfinite(total):
        bad, first = _non_finite(raw)
        raise _UnusablePatterns(
            f"the measurements must be finite, but {bad} of {raw.size} values are NaN or infinite,"
            f" the first at index {first}",
            "repair the file, for example numpy.nan_to_num",
        )
    if total <= 0:
        raise _UnusablePatterns(f"the measurements must have positive intensity, but they sum to {total:g}")


def _non_finite(raw: NDArray[np.float32]) -> tuple[int, tuple[int, ...]]:
    """How many values are not finite, and the index of the first; a slab at a time, for large files."""
    count, first = 0, None
    for index, slab in enumerate(raw):
        bad = ~np.isfinite(slab)
        count += int(bad.sum())
        if first is None and bad.any():
            first = (index, *np.argwhere(bad)[0].tolist())
    return count, first or ()


def _check_processed(variables: Mapping[str, Any]) -> None:
    totals = variables["meas_total_ints"]
    if not np.isfinite(totals).all() or float(totals.max()) <= 0:
        raise _UnusablePatterns(
            "no positive intensity is left after processing",
            "see init_params.meas_crop, meas_remove_neg_values and meas_normalization",
        )


def _copy_to_device(patterns: NDArray[np.float32], device: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(patterns)).to(device=device, dtype=torch.float32)
    except torch.OutOfMemoryError:
        raise _UnusablePatterns(
            f"the measurements ({patterns.nbytes / 2**30:.1f} GiB) do not fit the memory of the device",
            "set model_params.preload_data: false",
        ) from None


def _host_view(patterns: NDArray[np.float32], resident: torch.Tensor) -> NDArray[np.float32]:
    """The array that Initializer and model see; on a GPU only its shape is read, and it takes no memory."""
    if resident.device.type == "cpu":
        return resident.numpy()
    return np.broadcast_to(np.float32(0), patterns.shape)


def _explain_failure(error: Exception, path: Path) -> tuple[str, str]:
    """A rule and a hint for whatever PtyRAD or a file library raised."""
    text = one_line(str(error))
    shape = re.search(r"expected measurements shape = (\(.*?\)), but got (\(.*?\))", text)
    if shape:
        rule = f"the measurements must have the shape {shape[1]}, but have {shape[2]}"
        return rule, "see init_params.meas_permute and meas_reshape"
    if "zero-size array" in text:
        return "the measurements are empty", ""
    if isinstance(error, MemoryError):
        return "the measurements do not fit the memory of this machine", "see init_params.meas_crop"
    if isinstance(error, OSError | EOFError):  # what its file cannot give
        return explain_unreadable(path, error)
    return f"cannot be used as measurements: {type(error).__name__}: {text[:200]}", ""
