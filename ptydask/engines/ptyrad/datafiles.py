"""The files that a params file names: there, readable, and of the shape that PtyRAD will want. Headers only."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptydask.config import reading
from ptydask.engines.ptyrad import hdf5_patterns, schema
from ptydask.engines.ptyrad.hdf5_patterns import Shape, StoredPatterns
from ptydask.errors import ConfigError, DataError, one_line

_SUFFIXES = (*hdf5_patterns.SUFFIXES, ".npy", ".tif", ".tiff", ".raw")
_IN_MEMORY = "takes an array in memory, which a params file cannot hold"


def check_paths(config: Mapping[str, Any]) -> None:
    """Every file that is named must be there. Raises DataError, with the nearest name in its folder.

    Before PtyRAD's schema sees the params: what it says of a missing file names no key.
    """
    init = config["init_params"]
    _check_meas_params(init)
    _check_exists(init["meas_params"]["path"], hdf5_patterns.PATH)
    for part in ("probe", "pos", "obj", "tilt"):
        params, source = init.get(f"{part}_params"), init.get(f"{part}_source")
        key = f"init_params.{part}_params"
        if isinstance(params, str):
            _check_exists(params, key)
            if source == "PtyRAD":
                _holds_no_code(params, key)
        elif isinstance(params, Mapping) and isinstance(params.get("path"), str):
            _check_exists(params["path"], f"{key}.path")
        if source == "custom":
            raise ConfigError(_IN_MEMORY, key=f"init_params.{part}_source", value="custom")
    for section in ("optimizer_params", "scheduler_params"):
        params = (config.get("model_params") or {}).get(section)
        if isinstance(params, Mapping) and isinstance(params.get("load_state"), str):
            _check_exists(params["load_state"], f"model_params.{section}.load_state")
            _holds_no_code(params["load_state"], f"model_params.{section}.load_state")


_IN_A_RESULT = {
    "obj": ("optimizable_tensors/obja", "optimizable_tensors/objp"),
    "probe": ("optimizable_tensors/probe",),
    "pos": ("model_attributes/crop_pos", "optimizable_tensors/probe_pos_shifts"),
    "tilt": ("optimizable_tensors/obj_tilts",),
}


def check_loaded(init: Mapping[str, Any]) -> None:
    """A reconstruction that PtyRAD is to load must be one, and hold what is loaded from it; tilts must be there.

    Raises DataError.
    """
    from ptydask.store.foreign import links, measurement_headers

    _check_tilt_file(init)

    for part, datasets in _IN_A_RESULT.items():
        name, key = init.get(f"{part}_params"), f"init_params.{part}_params"
        if init.get(f"{part}_source") != "PtyRAD" or not isinstance(name, str):
            continue
        try:
            missing = [dataset for dataset in datasets if measurement_headers.read_header(Path(name), dataset) is None]
        except links.MissingPart as error:
            raise DataError(error.rule, key=key, value=name, hint=error.hint) from None
        except OSError as error:
            raise _unreadable_error(name, error, key) from None
        if missing:
            raise DataError(f"is no reconstruction of PtyRAD: it has no {missing[0]}", key=key, value=name)


def _unreadable_error(path: Path | str, error: Exception, key: str) -> DataError:
    from ptydask.store.foreign.damage import explain_unreadable

    rule, hint = explain_unreadable(Path(path), error)
    return DataError(rule, key=key, value=str(path), hint=hint)


def _check_tilt_file(init: Mapping[str, Any]) -> None:
    params = init.get("tilt_params")
    if init.get("tilt_source") != "file" or not isinstance(params, Mapping) or not params.get("key"):
        return
    path, key = Path(str(params.get("path"))), "init_params.tilt_params"
    try:
        if path.suffix.lower() in hdf5_patterns.SUFFIXES and not hdf5_patterns.is_old_matlab(path):
            hdf5_patterns.read_dataset(path, str(params["key"]), f"{key}.key")
    except OSError as error:
        raise _unreadable_error(path, error, f"{key}.path") from None


def _check_meas_params(init: Mapping[str, Any]) -> None:
    key = "init_params.meas_params"
    if init.get("meas_source") == "custom":
        raise ConfigError(_IN_MEMORY, key="init_params.meas_source", value="custom", hint="use 'file'")
    if "meas_params" not in init:
        raise ConfigError("is missing; it says where the patterns are", key=key, hint="{path: FILE, key: DATASET}")
    params = init["meas_params"]
    if not isinstance(params, Mapping):
        raise ConfigError("must be a mapping such as {path: FILE, key: DATASET}", key=key, value=params)
    reading.known_keys(params, tuple(schema.known_fields("init_params", "meas_params")), key)
    if "path" not in params:
        raise ConfigError("path is missing; it names the file of the patterns", key=key, value=dict(params))
    path = params["path"]
    if not isinstance(path, str) or not path:
        hint = "YAML reads ~ and null as nothing: put a path in quotes" if path is None else ""
        raise ConfigError("must be the path of a file", key=f"{key}.path", value=path, hint=hint)


def _check_exists(name: str, key: str) -> None:
    try:
        path = Path(name)
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be looked up: {one_line(str(error))}", key=key, value=name) from None
    if not exists:
        raise DataError("no such file", key=key, value=name, hint=reading.near_file(path))
    if path.is_dir() and path.suffix != ".zarr":
        raise DataError("is a folder, not a file", key=key, value=name)


def _holds_no_code(name: str, key: str) -> None:
    """A ``.pt`` file is a pickle: PyTorch would run whatever program it holds."""
    if Path(name).suffix.lower() not in (".h5", ".hdf5"):
        hint = "load a .pt file of your own with PtyRAD and save it as .h5: reading one can run any program"
        raise DataError("a reconstruction of PtyRAD must be a .h5 or .hdf5 file", key=key, value=name, hint=hint)


def check_measurements(init: Mapping[str, Any]) -> StoredPatterns:
    """The patterns as the file has them.

    As they will be after ``meas_permute`` and ``meas_reshape`` they must be (N, Npix, Npix), and all that a file refers
    to must be there.

    ``init`` has its defaults. What only PtyRAD can tell (a ``selection``, an unusual file) is left to PtyRAD. Raises
    DataError.
    """
    params = init["meas_params"]
    path, suffix = Path(params["path"]), Path(params["path"]).suffix.lower()
    readable = list(_SUFFIXES)
    if "zarr_kwargs" in schema.known_fields("init_params", "meas_params"):
        readable.append(".zarr")
    if suffix not in readable:
        rule = f"PtyRAD reads {', '.join(readable)}"
        raise DataError(rule, key=hdf5_patterns.PATH, value=params["path"])
    count, pixels = init["pos_N_scan_slow"] * init["pos_N_scan_fast"], init["meas_Npix"]
    scans = init.get("pos_N_scans") or count
    if scans != count:
        rule = f"must be pos_N_scan_slow x pos_N_scan_fast = {count}"
        raise ConfigError(rule, key="init_params.pos_N_scans", value=scans)
    expected = (scans, pixels, pixels)
    if suffix == ".raw":
        stored = StoredPatterns(_raw_shape(path, params, expected))
    else:
        stored = _read_header(path, suffix, init, expected)
    if stored.shape is not None and params.get("selection") is None:
        _check_shape(stored.shape, init, expected, stored.notices)
    return stored


def _read_header(path: Path, suffix: str, init: Mapping[str, Any], expected: Shape) -> StoredPatterns:
    key = init["meas_params"].get("key")

    def fits(shape: Shape) -> bool:
        return _fits(shape, init, expected)

    try:
        if suffix in hdf5_patterns.SUFFIXES:
            if hdf5_patterns.is_old_matlab(path):
                return _find_in_old_matlab(path, key, fits)
            return hdf5_patterns.find_patterns(path, key, fits)
        if suffix == ".zarr":
            return _find_in_zarr(path, init["meas_params"], fits)
        if suffix == ".npy":
            import numpy as np

            return StoredPatterns(tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape))
        if suffix in (".tif", ".tiff"):
            from tifffile import TiffFile

            with TiffFile(path) as file:
                return StoredPatterns(tuple(file.series[0].shape))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable_error(path, error, hdf5_patterns.PATH) from None
    return StoredPatterns(None)


def _fits(shape: Shape, init: Mapping[str, Any], expected: Shape) -> bool:
    if init["meas_params"].get("selection") is not None:
        return True  # what is left of it only PtyRAD can tell
    try:
        return _arranged_shape(shape, init) == expected
    except DataError:
        return False


def _find_in_old_matlab(path: Path, key: str | None, fits: Callable[[Shape], bool]) -> StoredPatterns:
    from scipy.io import whosmat  # type: ignore[import-untyped]

    from ptydask.store.foreign.measurement_headers import FileContents

    shapes = {name: tuple(n for n in shape if n != 1) for name, shape, _ in whosmat(str(path))}
    if key and "." not in key and key not in shapes:
        raise hdf5_patterns.no_dataset_error(path, key, list(shapes))
    if not key and any(len(shape) in (3, 4) for shape in shapes.values()):  # else it is within a structure
        chosen = hdf5_patterns.choose_dataset(path, FileContents(shapes), fits)
        return StoredPatterns(shapes[chosen.name], chosen.key, chosen.notices)
    return StoredPatterns(shapes.get(key or ""))


def _find_in_zarr(path: Path, params: Mapping[str, Any], fits: Callable[[Shape], bool]) -> StoredPatterns:
    """Of a folder of chunks; those that are not there read as the fill value."""
    if importlib.util.find_spec("zarr") is None:
        return StoredPatterns(None)  # PtyRAD says what it needs
    import zarr

    from ptydask.store.foreign.measurement_headers import FileContents

    root = zarr.open(str(path), mode="r", **(params.get("zarr_kwargs") or {}))
    arrays = {"": root} if hasattr(root, "shape") else dict(_zarr_arrays(root))
    key = (params.get("key") or "").lstrip("/")
    if key and key not in arrays:
        raise hdf5_patterns.no_dataset_error(path, key, list(arrays))
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    chosen = hdf5_patterns.ChosenDataset(key, None)
    if not key and "" not in arrays:
        chosen = hdf5_patterns.choose_dataset(path, FileContents(shapes), fits)
    array, notices = arrays[chosen.name], list(chosen.notices)
    if array.nchunks_initialized < array.nchunks:
        missing = f"of {array.nchunks} chunks {array.nchunks - array.nchunks_initialized} are not there"
        notices.append(f"{path}: {missing} and read as {array.fill_value}: zarr leaves out what holds nothing else")
    return StoredPatterns(shapes[chosen.name], chosen.key, tuple(notices))


def _zarr_arrays(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name in group.keys():  # noqa: SIM118 - a group of zarr is no mapping
        item = group[name]
        if hasattr(item, "shape"):
            yield f"{above}{name}", item
        else:
            yield from _zarr_arrays(item, f"{above}{name}/")


def _raw_shape(path: Path, params: Mapping[str, Any], expected: Shape) -> Shape:
    """Of EMPAD's raw format: an offset, then each pattern as 32-bit floats followed by a gap of bytes."""
    shape = params.get("shape") or expected
    key = "init_params.meas_params"
    if len(shape) != 3:
        raise DataError("must be [patterns, height, width]", key=f"{key}.shape", value=shape)
    gap = 1024 if params.get("gap") is None else params["gap"]
    needed = (params.get("offset") or 0) + shape[0] * (shape[1] * shape[2] * 4 + gap)
    size = path.stat().st_size
    if size != needed:
        rule = f"has {size} bytes, but {shape[0]} patterns of {shape[1]} x {shape[2]} with gap {gap} are {needed}"
        hint = "see pos_N_scan_slow, pos_N_scan_fast, meas_Npix and meas_params.gap"
        raise DataError(rule, key=f"{key}.path", value=params["path"], hint=hint)
    return tuple(shape)


def _arranged_shape(shape: Shape, init: Mapping[str, Any]) -> Shape:
    order, target = init.get("meas_permute"), init.get("meas_reshape")
    if order is not None:
        if sorted(order) != list(range(len(shape))):
            rule = f"must hold each of 0 to {len(shape) - 1} once: the patterns are {shape}"
            raise DataError(rule, key="init_params.meas_permute", value=order)
        shape = tuple(shape[axis] for axis in order)
    if target is not None:
        shape = _resolve_reshape(shape, target)
    return shape


def _resolve_reshape(shape: Shape, target: Sequence[int]) -> Shape:
    total, known = math.prod(shape), math.prod(n for n in target if n != -1)
    open_axes = sum(n == -1 for n in target)
    fits = known > 0 and total == known
    if open_axes:
        fits = open_axes == 1 and known > 0 and total % known == 0
    if not fits:
        rule = f"does not fit patterns of shape {shape}"
        raise DataError(rule, key="init_params.meas_reshape", value=list(target))
    return tuple(total // known if n == -1 else n for n in target)


def _check_shape(stored: Shape, init: Mapping[str, Any], expected: Shape, notices: Sequence[str]) -> None:
    arranged = _arranged_shape(stored, init)
    if arranged == expected:
        return
    slow, fast, pixels = init["pos_N_scan_slow"], init["pos_N_scan_fast"], init["meas_Npix"]
    hint = "; ".join(notices) or "see meas_permute and meas_reshape"
    if stored == (slow, fast, pixels, pixels):
        hint = f"set meas_reshape: [-1, {pixels}, {pixels}]"
    elif stored == (pixels, pixels, slow, fast):
        hint = f"set meas_permute: [2, 3, 0, 1] and meas_reshape: [-1, {pixels}, {pixels}]"
    shapes = f"{stored}" if arranged == stored else f"{stored}, arranged {arranged}"
    rule = (
        f"the patterns are {shapes}, but (pos_N_scan_slow x pos_N_scan_fast, meas_Npix, meas_Npix) = "
        f"({slow} x {fast}, {pixels}, {pixels}) is expected"
    )
    raise DataError(rule, key=hdf5_patterns.PATH, value=init["meas_params"]["path"], hint=hint)


# --- what is done with the patterns and the object --------------------------------------------------


def check_preprocessing(init: Mapping[str, Any]) -> tuple[int, int]:
    """Scan points (slow, fast) that are left after ``meas_crop``.

    Raises ConfigError for a crop or padding that leaves nothing, or patterns that are not square.
    """
    slow, fast, pixels = init["pos_N_scan_slow"], init["pos_N_scan_fast"], init["meas_Npix"]
    sizes = [slow, fast, pixels, pixels]
    crop = init.get("meas_crop")
    if crop is not None:
        sizes = [
            size if bounds is None else len(range(*slice(*bounds).indices(size)))
            for bounds, size in zip(crop, sizes, strict=True)
        ]
        if min(sizes) < 1 or sizes[2] != sizes[3]:
            rule = "must leave square patterns" if min(sizes) else "leaves nothing"
            rule = f"{rule}: (slow, fast, ky, kx) = ({slow}, {fast}, {pixels}, {pixels}) become {tuple(sizes)}"
            raise ConfigError(rule, key="init_params.meas_crop", value=crop)
    pad = init.get("meas_pad") or {}
    if pad.get("mode") is not None and pad["target_Npix"] < sizes[2]:
        rule = f"must be at least the patterns' {sizes[2]} pixels"
        raise ConfigError(rule, key="init_params.meas_pad.target_Npix", value=pad["target_Npix"])
    _check_object(init)
    return sizes[0], sizes[1]


def _check_object(init: Mapping[str, Any]) -> None:
    if init.get("obj_source", "simu") != "simu":
        return
    if init.get("obj_params") is not None:
        rule = "must be null where obj_source is 'simu': PtyRAD fails on a given shape"
        raise ConfigError(rule, key="init_params.obj_params", value=init["obj_params"])
    crop, layers = init.get("obj_z_crop"), init["obj_Nlayer"]
    if crop is not None and not range(*slice(*crop).indices(layers)):
        raise ConfigError(f"leaves none of obj_Nlayer = {layers} slices", key="init_params.obj_z_crop", value=crop)


def chosen_grid(recon: Mapping[str, Any], slow: int, fast: int) -> tuple[int, int]:
    """Rows and columns of the scan positions that ``INDICES_MODE`` chooses."""
    mode = recon.get("INDICES_MODE") or {}
    if mode.get("mode", "full") == "full":
        return slow, fast
    subscan_slow, subscan_fast = mode.get("subscan_slow"), mode.get("subscan_fast")
    if subscan_slow is None and subscan_fast is None:
        return slow // 2, fast // 2
    return subscan_slow or slow, subscan_fast or fast
