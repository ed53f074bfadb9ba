"""One trial's group: parameters, curve, arrays, image, snapshots, log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import h5py
import numpy as np

from ptydask.model import Direction, Image, KeepOptions, Quantity, TrialOutput, TrialRecord
from ptydask.store import artifacts, codec, draft, layout, names, nexus, stored, thumbnail
from ptydask.trial import slopes

_ASIDE = {"params", "metrics", "gradient", "traceback", "iterations", "last_step"}
"""Fields of a record that are no attributes of its group; there ``iterations`` is the engine's own."""
_NO_ARRAYS = frozenset(
    [
        *(layout.RECORD_JSON, layout.PARAMS, layout.METRICS, layout.TRACEBACK, layout.ATTRIBUTES_JSON),
        *(layout.CURVE, layout.IMAGE, layout.SNAPSHOTS, layout.THUMBNAIL, layout.LOG),
    ]
)
_RESERVED = _NO_ARRAYS | {layout.PROGRAM, layout.COMMAND, layout.ARTIFACTS, layout.GRADIENT}
"""Names that no array is given. The last four are never those of an array of ours, so none need be left out there."""


def compose(
    name: str,
    record: TrialRecord,
    output: TrialOutput | None,
    keep: KeepOptions,
    *,
    direction: Direction,
    metric: str,
    lost: str = "",
    text: str = "",
) -> draft.Group:
    """A group in memory that has one trial as its member ``name``, not sealed.

    ``lost`` says what could not be kept of it, and why; ``text`` is the record as JSON, where it is at hand.
    """
    parent = draft.Group()
    group = nexus.create_group(parent, name, "NXprocess")
    _write_record_attributes(group, record, direction, metric)
    if lost:
        nexus.write_attribute(group, "lost", lost)
    nexus.write_text(group, layout.RECORD_JSON, text or codec.record_to_json(record))
    params = group.create_group(layout.PARAMS)  # its attributes are the parameters, and nothing else
    nexus.write_facts(params, _encode_keys(record.params))
    nexus.write_text(params, layout.PARAMS_JSON, codec.dumps(record.params))
    nexus.write_facts(nexus.create_group(group, layout.METRICS, "NXcollection"), _encode_keys(record.metrics))
    if record.gradient:
        nexus.write_facts(nexus.create_group(group, layout.GRADIENT, "NXcollection"), _encode_keys(record.gradient))
    if record.traceback:
        nexus.write_text(group, layout.TRACEBACK, record.traceback)
    if output is not None:
        _write_output(group, output, keep, metric)
    return parent


def _write_record_attributes(group: h5py.Group, record: TrialRecord, direction: Direction, metric: str) -> None:
    columns = {field.name: getattr(record, field.name) for field in fields(record)}
    columns["error"] = float("nan") if record.error is None else record.error
    nexus.write_facts(group, {k: v for k, v in columns.items() if k not in _ASIDE and v is not None})
    nexus.write_facts(group, {"error_metric": metric, "direction": direction})


def _write_engine_attributes(group: h5py.Group, attributes: Mapping[str, Any]) -> None:
    """What the engine says of its trial."""
    taken = set(group.attrs)
    nexus.write_facts(group, {k if k not in taken else f"engine_{k}": v for k, v in _encode_keys(attributes).items()})


def copy_description(
    group: h5py.Group, source: h5py.Group, record: TrialRecord, *, direction: Direction, metric: str
) -> None:
    """Give ``group`` the attributes of the trial's group ``source``, sealed or not: facts are not read from there."""
    text = nexus.read_text(source, layout.ATTRIBUTES_JSON)
    _write_record_attributes(group, record, direction, metric)
    _write_engine_attributes(group, codec.loads(text) if text else {})
    nexus.copy_attributes(
        source, group, ("default", "lost", layout.ARRAYS_DROPPED, layout.MERGED_STORE, layout.MERGED_NUMBER)
    )


def _encode_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {names.encode(key): value for key, value in values.items()}


def _write_output(group: h5py.Group, output: TrialOutput, keep: KeepOptions, metric: str) -> None:
    _write_engine_attributes(group, output.attributes)
    nexus.write_text(group, layout.ATTRIBUTES_JSON, codec.dumps(output.attributes))
    if output.log:
        nexus.write_text(group, layout.LOG, output.log)
    artifacts.write_program(group, output.command, output.left_out)
    if output.curve:
        _write_curve(group, output.curve, metric, output.units)
        nexus.write_attribute(group, "default", layout.CURVE)
    if not keep.arrays:
        return
    artifacts.write(group, output.artifacts)
    _write_arrays(group, output.arrays)
    if output.snapshots:
        snapshots = nexus.create_group(group, layout.SNAPSHOTS, "NXcollection")
        for step, arrays in output.snapshots.items():
            _write_arrays(nexus.create_group(snapshots, layout.snapshot_name(step), "NXcollection"), arrays)
    if output.image is not None:
        _write_image(group, output.image)
        nexus.write_attribute(group, "default", layout.IMAGE)
        tile = thumbnail.create_stack(group, layout.THUMBNAIL, (thumbnail.SIDE, thumbnail.SIDE))
        tile[()] = thumbnail.make(output.image.data)


def _write_curve(group: h5py.Group, curve: Mapping[str, Any], metric: str, units: Mapping[str, str]) -> None:
    slope_columns = {k: v for k, v in curve.items() if k.startswith(slopes.COLUMN) and k != metric}
    columns = {_column_name(name): np.asarray(values) for name, values in curve.items() if name not in slope_columns}
    units = {_column_name(name): unit for name, unit in units.items()}
    signals = [name for name in columns if name != layout.STEP]
    # The study's metric comes first, and is to be found as ``error`` in every study.
    linked = _column_name(metric) if metric in curve and "error" not in columns else None
    if linked is not None:
        signals = [linked, *(name for name in signals if name != linked)]
    axes = [layout.STEP] if layout.STEP in columns else []
    plot = nexus.create_plot(
        group,
        layout.CURVE,
        signal=(signals or [layout.STEP])[0],
        axes=axes,
        beside=signals[1:],
        title=f"trial {group.attrs['number']}",
    )
    for name, data in columns.items():
        dataset = nexus.write_numbers(plot, name, data)
        if name in units:
            nexus.write_attribute(dataset, "units", units[name])
    if linked is not None:
        plot["error"] = h5py.SoftLink(linked)
    if slope_columns:  # in a group of their own: a viewer that draws the curve leaves them out
        gradient = nexus.create_group(plot, layout.GRADIENT, "NXcollection")
        for name, values in slope_columns.items():
            nexus.write_numbers(gradient, names.encode(name.removeprefix(slopes.COLUMN)), np.asarray(values))


def _column_name(name: str) -> str:
    """A column's name in the curve's group, where ``title`` is the plot's own and ``gradient`` a group."""
    return f"%{ord(name[0]):x}{name[1:]}" if name in ("title", layout.GRADIENT) else names.encode(name)


def _write_arrays(group: h5py.Group, arrays: Mapping[str, Quantity]) -> None:
    for name, quantity in arrays.items():
        encoded = names.encode(name)
        nexus.write_array(group, encoded if encoded not in _RESERVED else f"array_{encoded}", quantity)


def _write_image(group: h5py.Group, image: Image) -> None:
    title = f"trial {group.attrs['number']}"
    if image.title:
        title += f": {image.title}"
    plot = nexus.create_plot(group, layout.IMAGE, signal=layout.DATA, axes=["y", "x"], title=title)
    data = nexus.write_array(plot, layout.DATA, Quantity(image.data, image.units, image.title))
    nexus.write_attribute(data, "interpretation", "image")
    for axis, centres in (("y", image.y), ("x", image.x)):
        nexus.write_array(plot, axis, Quantity(centres, image.axis_units, axis))


# --- reading ----------------------------------------------------------------------------------------


def read_record(group: h5py.Group) -> TrialRecord:
    """The trial's row. Raises KeyError or ValueError where it is not one."""
    text = nexus.read_text(group, layout.RECORD_JSON)
    return codec.record_from_json(text, nexus.read_text(group, layout.TRACEBACK))


def read_tile(group: h5py.Group) -> bytes | None:
    """The trial's thumbnail as it lies in the file, compressed; None where there is none, or it is damaged."""
    return thumbnail.read_tile(group[layout.THUMBNAIL]) if layout.THUMBNAIL in group else None


def read_objective(group: h5py.Group) -> tuple[Direction, str]:
    """Which way the study goes, and its error metric, as the trial's group says."""
    direction: Direction = "maximize" if nexus.read_attribute(group, "direction") == "maximize" else "minimize"
    return direction, nexus.read_attribute(group, "error_metric")


def disagreeing_attributes(group: h5py.Group, record: TrialRecord) -> list[str]:
    """The attributes, of the group and of its parameters, that do not say what ``record`` says."""
    stored = {name: (group, name, getattr(record, name)) for name in ("number", "state", "reason", "attempt", "seed")}
    stored |= {f"{layout.PARAMS}/{k}": (group[layout.PARAMS], k, v) for k, v in _encode_keys(record.params).items()}
    return [path for path, (owner, name, value) in stored.items() if not nexus.attribute_equals(owner, name, value)]


def read_origin(group: h5py.Group) -> str:
    """Which trial of which store it was, where it was merged from there; else ""."""
    store = nexus.read_attribute(group, layout.MERGED_STORE)
    return f"trial {group.attrs[layout.MERGED_NUMBER]} of store {store}" if store else ""


def read_curve(group: h5py.Group) -> dict[str, Any]:
    """Column name -> 1-D array, as the engine gave them; slopes are ``gradient/NAME``."""
    if layout.CURVE not in group:
        return {}
    curve = h5py.h5g.open(group.id, layout.CURVE.encode())  # ten thousand curves at a time: h5py's own ways are slow
    columns = {}
    for name in curve:
        if name != b"title" and curve.links.get_info(name).type == h5py.h5l.TYPE_HARD:
            item = h5py.h5o.open(curve, name)
            if isinstance(item, h5py.h5d.DatasetID):
                columns[names.decode(name.decode())] = _read_column(item)
            else:
                for slope in item:
                    column = _read_column(h5py.h5d.open(item, slope))
                    columns[slopes.COLUMN + names.decode(slope.decode())] = column
    return columns


def _read_column(data: h5py.h5d.DatasetID) -> Any:
    return stored.read_dataset(data, stored.type_of(data), stored.shape_of(data) or ())


def read_image(group: h5py.Group) -> Image | None:
    """The picture with its axes; None where none was kept."""
    if layout.IMAGE not in group:
        return None
    plot = group[layout.IMAGE]
    data, y, x = (plot[name] for name in (layout.DATA, "y", "x"))
    return Image(
        data=data[()],
        y=y[()],
        x=x[()],
        units=nexus.read_attribute(data, "units"),
        axis_units=nexus.read_attribute(y, "units"),
        title=nexus.read_attribute(data, "long_name"),
    )


def array_paths(group: h5py.Group) -> dict[str, str]:
    """Array name -> path of its dataset below the group."""
    paths = {}
    for encoded in group.id:
        name = encoded.decode(errors="surrogateescape")
        if name in _NO_ARRAYS or group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
            continue
        if not isinstance(h5py.h5o.open(group.id, encoded), h5py.h5d.DatasetID):
            continue
        plain = name.removeprefix("array_")
        paths[names.decode(plain if plain in _RESERVED else name)] = name
    return paths


def snapshot_paths(group: h5py.Group) -> dict[int, dict[str, str]]:
    """Step -> array name -> path of its dataset below the group."""
    if layout.SNAPSHOTS not in group:
        return {}
    steps = {}
    for name, snapshot in group[layout.SNAPSHOTS].items():
        above = f"{layout.SNAPSHOTS}/{name}"
        steps[layout.snapshot_step(name)] = {array: f"{above}/{path}" for array, path in array_paths(snapshot).items()}
    return steps
