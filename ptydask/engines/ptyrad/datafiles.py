"""The files that a params file names: there, readable, and of the shape that PtyRAD will want. Headers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptydask.config import reading
from ptydask.engines.ptyrad import schema
from ptydask.errors import ConfigError, DataError, nearest_hint, one_line

HDF5 = (".h5", ".hdf5", ".mat")
_KNOWN = (*HDF5, ".npy", ".tif", ".tiff", ".raw")
Shape = tuple[int, ...]


def check_paths(config: Mapping[str, Any]) -> None:
    """Every file that is named must be there. Raises DataError, with the nearest name in its folder.

    Before PtyRAD's schema sees the params: what it says of a missing file names no key.
    """
    init = config["init_params"]
    _check_meas_params(init)
    if init.get("meas_source", "file") != "custom":
        _check_exists(init["meas_params"]["path"], "init_params.meas_params.path")
    for part in ("probe", "pos", "obj", "tilt"):
        named = init.get(f"{part}_params")
        key = f"init_params.{part}_params"
        if isinstance(named, str):
            _check_exists(named, key)
        elif isinstance(named, Mapping) and isinstance(named.get("path"), str):
            _check_exists(named["path"], f"{key}.path")
        if isinstance(named, str) and init.get(f"{part}_source") == "PtyRAD":
            _holds_no_code(named, key)
        if init.get(f"{part}_source") == "custom":
            rule = "takes an array in memory, which a params file cannot hold"
            raise ConfigError(rule, key=f"init_params.{part}_source", value="custom")
    for part in ("optimizer_params", "scheduler_params"):
        inner = (config.get("model_params") or {}).get(part)
        if isinstance(inner, Mapping) and isinstance(inner.get("load_state"), str):
            _check_exists(inner["load_state"], f"model_params.{part}.load_state")
            _holds_no_code(inner["load_state"], f"model_params.{part}.load_state")


_IN_A_RESULT = {
    "obj": ("optimizable_tensors/obja", "optimizable_tensors/objp"),
    "probe": ("optimizable_tensors/probe",),
    "pos": ("model_attributes/crop_pos", "optimizable_tensors/probe_pos_shifts"),
    "tilt": ("optimizable_tensors/obj_tilts",),
}


def check_loaded(init: Mapping[str, Any]) -> None:
    """A reconstruction that PtyRAD is to load must be one, and hold what is loaded from it. Raises DataError."""
    from ptydask.store.foreign import measurement_headers

    for part, needed in _IN_A_RESULT.items():
        name, key = init.get(f"{part}_params"), f"init_params.{part}_params"
        if init.get(f"{part}_source") != "PtyRAD" or not isinstance(name, str):
            continue
        try:
            missing = [inside for inside in needed if measurement_headers.dataset_shape(Path(name), inside) is None]
        except OSError as error:
            raise DataError(f"cannot be read as HDF5: {one_line(str(error))}", key=key, value=name) from None
        if missing:
            raise DataError(f"is no reconstruction of PtyRAD: it has no {missing[0]}", key=key, value=name)


def _check_meas_params(init: Mapping[str, Any]) -> None:
    key = "init_params.meas_params"
    if init.get("meas_source") == "custom":
        rule = "takes an array in memory, which a params file cannot hold"
        raise ConfigError(rule, key="init_params.meas_source", value="custom", hint="use 'file'")
    if "meas_params" not in init:
        raise ConfigError("is missing; it says where the patterns are", key=key, hint="{path: FILE, key: DATASET}")
    given = init["meas_params"]
    if not isinstance(given, Mapping):
        raise ConfigError("must be a mapping such as {path: FILE, key: DATASET}", key=key, value=given)
    reading.known_keys(given, tuple(schema.known_fields("init_params", "meas_params")), key)
    if "path" not in given:
        raise ConfigError("path is missing; it names the file of the patterns", key=key, value=dict(given))
    path = given["path"]
    if not isinstance(path, str) or not path:
        raise ConfigError("must be the path of a file", key=f"{key}.path", value=path)


def _check_exists(name: str, key: str) -> None:
    try:
        path = Path(name)
        there = path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be looked up: {one_line(str(error))}", key=key, value=name) from None
    if not there:
        raise DataError("no such file", key=key, value=name, hint=reading.near_file(path))
    if path.is_dir() and path.suffix != ".zarr":
        raise DataError("is a folder, not a file", key=key, value=name)


def _holds_no_code(name: str, key: str) -> None:
    """A ``.pt`` file is a pickle: PyTorch would run whatever program it holds."""
    if Path(name).suffix.lower() not in (".h5", ".hdf5"):
        hint = "load a .pt file of your own with PtyRAD and save it as .h5: reading one can run any program"
        raise DataError("a reconstruction of PtyRAD must be a .h5 or .hdf5 file", key=key, value=name, hint=hint)


def check_measurements(init: Mapping[str, Any]) -> None:
    """The patterns' shape, as it will be after ``meas_permute`` and ``meas_reshape``, must be (N, Npix, Npix).

    ``init`` has its defaults. What only PtyRAD can tell (a ``selection``, an unusual file) is left to PtyRAD. Raises
    DataError.
    """
    given = init["meas_params"]
    path, key = Path(given["path"]), given.get("key")
    suffix = path.suffix.lower()
    known = (*_KNOWN, *([".zarr"] if "zarr_kwargs" in schema.known_fields("init_params", "meas_params") else []))
    if suffix not in known:
        rule = f"PtyRAD reads {', '.join(known)}"
        raise DataError(rule, key="init_params.meas_params.path", value=given["path"])
    count, pixels = init["pos_N_scan_slow"] * init["pos_N_scan_fast"], init["meas_Npix"]
    scans = init.get("pos_N_scans") or count
    if scans != count:
        rule = f"must be pos_N_scan_slow x pos_N_scan_fast = {count}"
        raise ConfigError(rule, key="init_params.pos_N_scans", value=scans)
    if suffix == ".raw":
        _check_raw(path, given, (scans, pixels, pixels))
        shape: Shape | None = tuple(given.get("shape") or (scans, pixels, pixels))
    else:
        shape = _stored_shape(path, suffix, key)
    if shape is None or given.get("selection") is not None:
        return
    _check_shape(_arranged_shape(shape, init), shape, init, (scans, pixels, pixels), given)


def _stored_shape(path: Path, suffix: str, key: str | None) -> Shape | None:
    """The shape in the file's header; None where only PtyRAD can tell."""
    named = str(path)
    try:
        if suffix in HDF5:
            return _matlab_shape(path, key) if _is_old_matlab(path, suffix) else _hdf5_shape(path, key)
        if suffix == ".npy":
            import numpy as np

            return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)
        if suffix in (".tif", ".tiff"):
            from tifffile import TiffFile

            with TiffFile(path) as file:
                return tuple(file.series[0].shape)
    except DataError:
        raise
    except Exception as error:
        rule = f"cannot be read as {suffix}: {one_line(str(error))}"
        raise DataError(rule, key="init_params.meas_params.path", value=named) from None
    return None


def _is_old_matlab(path: Path, suffix: str) -> bool:
    """Before version 7.3, which is HDF5."""
    if suffix != ".mat":
        return False
    with path.open("rb") as file:
        head = file.read(1024)
    return b"\x89HDF\r\n\x1a\n" not in (head[:8], head[512:520])


def _hdf5_shape(path: Path, key: str | None) -> Shape:
    from ptydask.store.foreign import measurement_headers

    where = "init_params.meas_params.key"
    if key:
        shape = measurement_headers.dataset_shape(path, key.replace(".", "/"))
        if shape is not None:
            return shape
        known = list(measurement_headers.dataset_shapes(path))
        rule = f"no such dataset in {path}"
        raise DataError(rule, key=where, value=key, hint=nearest_hint(key, known) or _datasets_text(known))
    shapes = measurement_headers.dataset_shapes(path)
    stacks = {name: shape for name, shape in shapes.items() if len(shape) in (3, 4)}
    if len(stacks) != 1:
        rule = f"must name one of the {len(stacks)} datasets of 3 or 4 dimensions in {path}"
        raise DataError(rule, key=where, value=key, hint=_datasets_text(list(stacks or shapes)))
    return next(iter(stacks.values()))


def _matlab_shape(path: Path, key: str | None) -> Shape | None:
    from scipy.io import whosmat  # type: ignore[import-untyped]

    shapes = {name: tuple(n for n in shape if n != 1) for name, shape, _ in whosmat(str(path))}
    if key and "." not in key and key not in shapes:
        rule = f"no such array in {path}"
        raise DataError(rule, key="init_params.meas_params.key", value=key, hint=nearest_hint(key, shapes))
    return shapes.get(key or "")


def _datasets_text(names: Sequence[str]) -> str:
    return f"the file has {', '.join(names[:6])}" if names else "the file has no dataset"


def _check_raw(path: Path, given: Mapping[str, Any], wanted: Shape) -> None:
    """EMPAD's raw format: an offset, then each pattern as 32-bit floats followed by a gap of bytes."""
    shape = given.get("shape") or wanted
    key = "init_params.meas_params"
    if len(shape) != 3:
        raise DataError("must be [patterns, height, width]", key=f"{key}.shape", value=shape)
    gap = 1024 if given.get("gap") is None else given["gap"]
    expected = (given.get("offset") or 0) + shape[0] * (shape[1] * shape[2] * 4 + gap)
    size = path.stat().st_size
    if size != expected:
        rule = f"has {size} bytes, but {shape[0]} patterns of {shape[1]} x {shape[2]} with gap {gap} are {expected}"
        hint = "see pos_N_scan_slow, pos_N_scan_fast, meas_Npix and meas_params.gap"
        raise DataError(rule, key=f"{key}.path", value=given["path"], hint=hint)


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
    open_ends = sum(n == -1 for n in target)
    fits = known > 0 and (total == known if not open_ends else open_ends == 1 and total % known == 0)
    if not fits:
        rule = f"does not fit patterns of shape {shape}"
        raise DataError(rule, key="init_params.meas_reshape", value=list(target))
    return tuple(total // known if n == -1 else n for n in target)


def _check_shape(made: Shape, stored: Shape, init: Mapping[str, Any], wanted: Shape, given: Mapping[str, Any]) -> None:
    if made == wanted:
        return
    slow, fast, pixels = init["pos_N_scan_slow"], init["pos_N_scan_fast"], init["meas_Npix"]
    hint = "see meas_permute and meas_reshape"
    if stored == (slow, fast, pixels, pixels):
        hint = f"set meas_reshape: [-1, {pixels}, {pixels}]"
    elif stored == (pixels, pixels, slow, fast):
        hint = f"set meas_permute: [2, 3, 0, 1] and meas_reshape: [-1, {pixels}, {pixels}]"
    what = f"{stored}" if made == stored else f"{stored}, arranged {made}"
    rule = (
        f"the patterns are {what}, but (pos_N_scan_slow x pos_N_scan_fast, meas_Npix, meas_Npix) = "
        f"({slow} x {fast}, {pixels}, {pixels}) is expected"
    )
    raise DataError(rule, key="init_params.meas_params.path", value=given["path"], hint=hint)


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
            size if part is None else len(range(*slice(*part).indices(size)))
            for part, size in zip(crop, sizes, strict=True)
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


def count_positions(recon: Mapping[str, Any], slow: int, fast: int) -> int:
    """How many patterns an iteration uses, by ``INDICES_MODE``."""
    mode = recon.get("INDICES_MODE") or {}
    if mode.get("mode", "full") == "full":
        return slow * fast
    parts = mode.get("subscan_slow"), mode.get("subscan_fast")
    if parts == (None, None):
        return (slow // 2) * (fast // 2)
    return (parts[0] or slow) * (parts[1] or fast)
