"""PtyRAD's own model file, ``model_iter0020.hdf5``: read and written as PtyRAD does itself.

The encoding is that of ``ptyrad.io.save.save_dict_to_hdf5`` and ``ptyrad.io.hierarchy.load_hdf5`` (0.1.0b13 and
1.0): a dict is a group, None the text ``__NONE__``, a list of mixed things its ``repr``.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.errors import StoreError, one_line
from ptydask.store import codec, files

_NONE = "__NONE__"
_PROVENANCE = "provenance_json"
_TENSORS = {
    "obja": ("omode", "z", "y", "x"),
    "objp": ("omode", "z", "y", "x"),
    "probe": ("pmode", "y", "x"),
}
"""What every reconstruction has, and its axes."""


@dataclass(frozen=True)
class PtyradModel:
    """One reconstruction as PtyRAD saves it. Lengths are in object pixels or angstrom, angles in mrad."""

    version: str
    """Of the PtyRAD that reconstructed."""
    tensors: Mapping[str, NDArray[Any]]
    """``obja`` and ``objp`` (omode, z, y, x) float32, ``probe`` (pmode, y, x) complex64, ``probe_pos_shifts`` (N, 2)
    float32 in pixels, ``obj_tilts`` (1, 2) or (N, 2) in mrad, ``slice_thickness``: one number."""
    attributes: Mapping[str, Any]
    """PtyRAD's ``model_attributes``: ``crop_pos`` (N, 2) int32, ``dx``, ``dk``, ``H`` (ky, kx), ``scan_affine`` ..."""
    params: Mapping[str, Any]
    """The sections of the params file."""
    losses: NDArray[Any]
    """(n, 2): iteration and loss."""
    seconds: NDArray[Any]
    """(n,): time of each iteration."""
    iteration: int
    """The last one that was done; 0 where the file does not say."""
    seed: int | None
    indices: NDArray[Any]
    """The scan positions that were reconstructed, of all N."""
    provenance: str = ""
    """PtyRAD's own history of probe, positions, object and tilts, as JSON."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is in the file, under PtyRAD's names: ``avg_losses``, ``optim_state_dict``, ``dz_iters`` ..."""


_FIELDS = {
    "ptyrad_version": "version",
    "optimizable_tensors": "tensors",
    "model_attributes": "attributes",
    "params": "params",
    "loss_iters": "losses",
    "iter_times": "seconds",
    "niter": "iteration",
    "random_seed": "seed",
    "indices": "indices",
}
"""PtyRAD's name -> ours."""


# --- reading ----------------------------------------------------------------------------------------


def read(path: Path, *, without: Collection[str] = (), large: bool = True) -> PtyradModel:
    """The whole model file, or all but what lies under PtyRAD's names ``without``.

    With ``large`` False, arrays of more than 4 kB are not read but come as zeros of their shape, which take no memory.
    Raises StoreError, in one line, where it is none or is damaged.
    """
    try:
        with files.open_read_only(path) as file:
            values = {name: _load_item(item, large) for name, item in file.items() if name not in without}
            model = _build_model(values, str(file.attrs.get(_PROVENANCE, "")))
    except files.BROKEN as error:
        raise StoreError(f"{path}: not readable as a model file of PtyRAD: {one_line(str(error))}") from error
    reason = _implausible_reason(model)
    if reason:
        raise StoreError(f"{path}: not a model file of PtyRAD: {reason}")
    return model


def _build_model(values: Mapping[str, Any], provenance: str) -> PtyradModel:
    """Of what was loaded under PtyRAD's names. Raises ValueError or TypeError where it is of another kind."""
    losses = np.asarray(values.get("loss_iters", ()), float).reshape(-1, 2)
    seed = values.get("random_seed")
    return PtyradModel(
        version=str(values.get("ptyrad_version", "")),
        tensors={
            name: np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
            for name, value in _as_dict(values.get("optimizable_tensors")).items()
        },
        attributes=_as_dict(values.get("model_attributes")),
        params=_arrays_to_lists(_as_dict(values.get("params"))),
        losses=losses,
        seconds=np.asarray(values.get("iter_times", ()), float).reshape(-1),
        iteration=int(values.get("niter") or (losses[-1, 0] if len(losses) else 0)),
        seed=None if seed is None else int(seed),
        indices=np.asarray(values.get("indices", ()), int).reshape(-1),
        provenance=provenance,
        others={name: value for name, value in values.items() if name not in _FIELDS},
    )


def _implausible_reason(model: PtyradModel) -> str:
    """Why no reconstruction is like this; "" for one that can be."""
    missing = [name for name in _TENSORS if name not in model.tensors]
    if missing:
        return f"it has no optimizable_tensors with {', '.join(missing)}"
    for name, axes in _TENSORS.items():
        shape = model.tensors[name].shape
        if len(shape) != len(axes) or 0 in shape:
            return f"its {name} is of shape {shape}, not ({', '.join(axes)})"
    if model.tensors["obja"].shape != model.tensors["objp"].shape:
        return "its obja and objp differ in shape"
    crop = model.attributes.get("crop_pos")
    positions = len(crop) if isinstance(crop, np.ndarray) and crop.ndim else 0
    if positions and len(model.indices) and not 0 <= model.indices.min() <= model.indices.max() < positions:
        return f"its indices go beyond its {positions} scan positions"
    return ""


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _arrays_to_lists(value: Any) -> Any:
    """Params as a params file has them: lists in place of arrays."""
    if isinstance(value, dict):
        return {name: _arrays_to_lists(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _load_item(item: h5py.Group | h5py.Dataset, large: bool) -> Any:
    """A group as a dict, a dataset as the value that PtyRAD wrote."""
    if isinstance(item, h5py.Group):
        return {name: _load_item(member, large) for name, member in item.items()}
    if not large and item.dtype.kind in "fciub" and item.nbytes > _SMALL:
        return np.broadcast_to(np.zeros((), item.dtype), item.shape)
    value = codec.scalar(item[()])
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_decode_bytes(element) for element in value.ravel()]
    return _value_of(_decode_bytes(value)) if isinstance(value, bytes | str) else value


def _decode_bytes(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _value_of(text: str) -> Any:
    """What PtyRAD makes of a text: None, the list or number that it spells, or the text."""
    if text == _NONE:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


# --- writing ----------------------------------------------------------------------------------------


def write(path: Path, model: PtyradModel, *, creator: str = "") -> None:
    """Write a model file that PtyRAD's ``load_ptyrad`` reads, whole or not at all. Raises OSError."""
    files.write_whole(path, lambda file: _write_model(file, path, model, creator))


def _write_model(file: h5py.File, path: Path, model: PtyradModel, creator: str) -> None:
    contents = {name: getattr(model, ours) for name, ours in _FIELDS.items()}
    _save_dict({**contents, "output_path": str(path.absolute().parent), **model.others}, file)
    if model.provenance:
        file.attrs[_PROVENANCE] = model.provenance
    if creator:
        file.attrs["creator"] = creator


def _save_dict(contents: Mapping[str, Any], group: h5py.Group) -> None:
    for name, value in contents.items():
        if isinstance(value, Mapping):
            _save_dict(value, group.create_group(str(name)))
        elif isinstance(value, list | tuple) and value and all(isinstance(element, Mapping) for element in value):
            _save_dict({str(i): element for i, element in enumerate(value)}, group.create_group(str(name)))
        else:
            data = _to_dataset_value(value)
            packed = {"compression": "gzip", "shuffle": True} if getattr(data, "nbytes", 0) > _SMALL else {}
            group.create_dataset(str(name), data=data, **packed)


_SMALL = 4096
"""Bytes of an array that is not worth compressing, nor leaving unread."""


def _to_dataset_value(value: Any) -> Any:
    """What h5py writes for a value that is no dict."""
    if value is None:
        return _NONE
    if isinstance(value, list | tuple):
        if all(isinstance(element, bool | int | float | np.number) for element in value):
            return np.array(value)
        if all(isinstance(element, str) for element in value):
            return np.array(value, dtype=h5py.string_dtype("utf-8"))
        return str(value)
    return value if isinstance(value, bool | int | float | str | np.generic | np.ndarray) else str(value)
