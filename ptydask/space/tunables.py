"""Everything that PtyRAD can tune: where it lives in a params file, what it is now, and how a value is put there.

Pure, standard library only: the engine, the renderer of a tuned params file and the tests all go through here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ptydask.distributions import Choice, Distribution
from ptydask.model import NEAR_VALUES, OWN_VALUES, Point, Scalar
from ptydask.space import aberrations, ranges


@dataclass(frozen=True, slots=True)
class Tunable:
    """One entry of ``tune_params``."""

    name: str
    where: str
    """Dotted key of the value in the params file."""
    unit: str
    meaning: str
    kind: Literal["real", "integer", "name"] = "real"
    least: float | None = None
    """The smallest value that makes sense, or, with ``positive``, the bound that it must be above."""
    positive: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names that its parameters have in a study: two for an aberration that has a direction."""
        if self.name[0] == "C" and self.name[1:].isdigit() and self.name[-1] != "0":
            return f"{self.name}a", f"{self.name}b"
        return (self.name,)


TENSORS = {
    "plr": "probe",
    "oalr": "obja",
    "oplr": "objp",
    "slr": "probe_pos_shifts",
    "tlr": "obj_tilts",
    "dzlr": "slice_thickness",
}
AFFINE = ("scale", "asymmetry", "rotation", "shear")
TILTS = ("tilt_y", "tilt_x")
DIFFERENTIABLE = (*AFFINE, *TILTS, "dz")
"""Parameters in which a reconstruction knows the slope of its loss."""
LEGACY = {"defocus": ("C10", -1), "c3": ("C30", 1), "c5": ("C50", 1), "add_df": ("z_shift", 1)}
"""Names before PtyRAD 0.1.0b13 (the last: b12), what they are called now, and the sign between the two.

``add_df`` propagated the probe by so much in the direction of the beam, as ``z_shift`` does.
"""

_ABERRATIONS = {
    "C10": "defocus (C10 = -df, positive is overfocus)",
    "C12": "two-fold astigmatism",
    "C21": "axial coma",
    "C23": "three-fold astigmatism",
    "C30": "spherical aberration",
    "C32": "axial star aberration",
    "C34": "four-fold astigmatism",
    "C41": "fourth-order axial coma",
    "C43": "three-lobe aberration",
    "C45": "five-fold astigmatism",
    "C50": "fifth-order spherical aberration",
    "C52": "fifth-order star aberration",
    "C54": "fifth-order rosette",
    "C56": "six-fold astigmatism",
}
_RATES = {
    "plr": "learning rate of the probe",
    "oalr": "learning rate of the object's amplitude",
    "oplr": "learning rate of the object's phase",
    "slr": "learning rate of the probe positions",
    "tlr": "learning rate of the object tilts",
    "dzlr": "learning rate of the slice thickness",
}
_INIT = "init_params."
_ALL = (
    Tunable("optimizer", "model_params.optimizer_params.name", "", "gradient descent optimizer", "name"),
    Tunable("batch_size", "recon_params.BATCH_SIZE.size", "patterns", "patterns in a batch", "integer", 1),
    *(
        Tunable(n, f"model_params.update_params.{TENSORS[n]}.lr", "", text, "real", 0, True)
        for n, text in _RATES.items()
    ),
    Tunable("dx", _INIT + "meas_calibration", "angstrom", "pixel size of the object", "real", 0, True),
    Tunable("pmode_max", _INIT + "probe_pmode_max", "modes", "probe modes", "integer", 1),
    Tunable("conv_angle", _INIT + "probe_conv_angle", "mrad", "convergence semi-angle", "real", 0, True),
    *(Tunable(n, _INIT + "probe_aberrations", "angstrom", text) for n, text in _ABERRATIONS.items()),
    Tunable("z_shift", _INIT + "probe_z_shift", "angstrom", "shift of the probe along the beam"),
    Tunable("Nlayer", _INIT + "obj_Nlayer", "slices", "slices of the object", "integer", 1),
    Tunable("dz", _INIT + "obj_slice_thickness", "angstrom", "slice thickness", "real", 0, True),
    Tunable("scale", _INIT + "pos_scan_affine", "1", "scan step over its nominal size", "real", 0, True),
    Tunable("asymmetry", _INIT + "pos_scan_affine", "1", "scan aspect ratio"),
    Tunable("rotation", _INIT + "pos_scan_affine", "degree", "scan rotation"),
    Tunable("shear", _INIT + "pos_scan_affine", "degree", "scan shear"),
    Tunable("tilt_y", _INIT + "tilt_params.init_tilts", "mrad", "object tilt along y"),
    Tunable("tilt_x", _INIT + "tilt_params.init_tilts", "mrad", "object tilt along x"),
)
TUNABLES: Mapping[str, Tunable] = {tunable.name: tunable for tunable in _ALL}
"""By their name in ``tune_params``, in PtyRAD's order."""
PARAMETERS: Mapping[str, Tunable] = {name: tunable for tunable in _ALL for name in tunable.parameters}
"""By the name of a study's parameter: as above, but ``C12a`` and ``C12b`` where that has ``C12``."""
PROBE = tuple(name for name, tunable in PARAMETERS.items() if tunable.where.startswith(f"{_INIT}probe_"))
"""The parameters that shape the probe which a reconstruction begins with."""


# --- what the file says now ------------------------------------------------------------------------


def current_value(params: Mapping[str, Any], name: str) -> Scalar:
    """The value that the params file gives a study's parameter; None where it gives none (dx of ``fitRBF``)."""
    tunable = PARAMETERS[name]
    value = _get_value(params, tunable.where)
    if name in AFFINE:
        return cast(float, (value or (1.0, 0.0, 0.0, 0.0))[AFFINE.index(name)])
    if name in TILTS:
        return cast(float, (value or [[0.0, 0.0]])[0][TILTS.index(name)])
    if name == "z_shift":
        return cast(float, value or 0.0)
    init = _get_section(params, "init_params")
    if name == "dx":
        return pixel_size(init)
    if tunable.where.endswith("probe_aberrations"):
        return aberrations.coefficient(init, aberrations.order(name))[1 if name.endswith("b") else 0]
    return cast(Scalar, value)


def difference(name: str, one: float, other: float) -> float:
    """``one`` less ``other``; of rotations, in degree, the short way round: -2 of 179 and -179."""
    return math.remainder(one - other, 360) if name == "rotation" else one - other


def wavelength(kilovolts: float) -> float:
    """The relativistic electron wavelength in angstrom, with the constants that PtyRAD uses (CODATA 2018).

    lambda = h c / sqrt((2 m c^2 + e U) e U), Kirkland, Advanced Computing in Electron Microscopy, eq. 2.5.
    """
    h, mass, charge, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    rest = mass * c**2 / charge * 1e-3
    return h * c / charge * 1e-3 * 1e10 / math.sqrt((2 * rest + kilovolts) * kilovolts)


def pixel_size(init: Mapping[str, Any]) -> float | None:
    """The ``dx`` (angstrom) that ``meas_calibration`` fixes for the patterns as they are in the file.

    A crop or padding of the patterns changes the pixel size afterwards, for a tuned dx as for the file's own. None
    where the calibration is fitted to the data (``fitRBF``), or the file lacks what it takes.
    """
    calibration = init.get("meas_calibration") or {}
    mode, value = calibration.get("mode", "fitRBF"), calibration.get("value")
    pixels, angle, kv = (init.get(k) for k in ("meas_Npix", "probe_conv_angle", "probe_kv"))
    if not value:
        return None
    if mode == "dx":
        return cast(float, value)
    if mode == "kMax":
        return cast(float, 1 / (2 * value))
    if mode == "dk":
        return None if not pixels else cast(float, 1 / (pixels * value))
    if not kv:
        return None
    rad = wavelength(kv) * 1e3
    half = {
        "angleMax": value,
        "da": value * (pixels or 0) / 2,
        "n_alpha": value * (angle or 0),
        "RBF": (angle or 0) / value * (pixels or 0) / 2,
    }.get(mode, 0)
    """Half the width of a pattern, mrad."""
    return cast(float, rad / (2 * half)) if half else None


# --- a trial's values put in place -----------------------------------------------------------------


def apply(params: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, Any]:
    """A deep copy of the params file with a trial's values in it; what ``values`` leaves out stays as it is.

    A tuned affine is written out even where it is the identity. A tuned tilt leaves the other component and the
    ``tilt_type`` as the file has them. A tuned optimizer takes its ``optim_configs``; the file's own optimizer
    keeps the file's ``configs`` where there are none. Raises KeyError for a name that is no parameter.
    """
    new = copy.deepcopy(dict(params))
    coefficients: dict[str, float] = {}
    for name, value in values.items():
        tunable = PARAMETERS[name]
        if tunable.where.endswith("probe_aberrations"):
            coefficients[name] = cast(float, value)
        elif name == "optimizer":
            _apply_optimizer(new, cast(str, value))
        elif name == "dx":
            _make_section(new, "init_params")["meas_calibration"] = {"mode": "dx", "value": value}
        elif name == "pmode_max":
            _apply_modes(new, cast(int, value))
        elif name not in AFFINE and name not in TILTS:
            *way, last = tunable.where.split(".")
            _make_section(new, *way)[last] = value
    if coefficients:
        new["init_params"] = aberrations.with_coefficients(_make_section(new, "init_params"), coefficients)
    if any(name in values for name in AFFINE):
        _make_section(new, "init_params")["pos_scan_affine"] = [values.get(n, current_value(params, n)) for n in AFFINE]
    if any(name in values for name in TILTS):
        tilt = _make_section(new, "init_params", "tilt_params")
        tilt["init_tilts"] = [[values.get(n, current_value(params, n)) for n in TILTS]]
    return new


def _apply_optimizer(params: dict[str, Any], name: str) -> None:
    optimizer = _make_section(params, "model_params", "optimizer_params")
    optim_configs = _get_section(params, "hypertune_params.tune_params.optimizer.kwargs.optim_configs")
    if name in optim_configs:
        optimizer["configs"] = copy.deepcopy(optim_configs[name])
    elif optimizer.get("name", "Adam") != name:
        optimizer["configs"] = {}
    optimizer["name"] = name


def _apply_modes(params: dict[str, Any], modes: int) -> None:
    """PtyRAD heeds the smallest of several powers only, and refuses a list whose length is not the mode count."""
    init = _make_section(params, "init_params")
    init["probe_pmode_max"] = modes
    powers = init.get("probe_pmode_init_pows")
    if isinstance(powers, list) and len(powers) > 1:
        init["probe_pmode_init_pows"] = [min(powers)]


def _make_section(params: dict[str, Any], *way: str) -> dict[str, Any]:
    for part in way:
        if params.get(part) is None:
            params[part] = {}
        params = params[part]
    return params


def _get_section(params: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", _get_value(params, key) or {})


def _get_value(params: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key; None where the file has none."""
    value: Any = params
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


# --- where a study starts ---------------------------------------------------------------------------


START_NOTICE = "{}: the file's value "
"""How a notice begins of a value that the first trial cannot have."""


def start_point(
    params_space: Mapping[str, Distribution], params: Mapping[str, Any], found: Collection[str] = ()
) -> tuple[Point, tuple[str, ...]]:
    """The file's own values as the first point of a study, and a notice for each that had to be changed.

    Those of ``found`` are not the file's, but what earlier stages found. The point's origin is ``OWN_VALUES``, or
    ``NEAR_VALUES`` where there is a notice.

    A value outside its range becomes the nearest end, one off the grid the nearest grid point. Left to the sampler:
    values that the file does not give, and those that are none of the choices.
    """
    point: dict[str, Scalar] = {}
    notices: list[str] = []
    for name, dist in params_space.items():
        value = current_value(params, name)
        if value is None:
            notices.append(f"{name}: the file gives no value, so the first trial leaves it to the sampler")
            continue
        told = f"{name}: the value that was found, " if name in found else START_NOTICE.format(name)
        try:
            near = ranges.nearest_value(dist, value)
        except ValueError:
            why = "is not one of the choices" if isinstance(dist, Choice) else "is not a number"
            notices.append(f"{told}{value!r} {why}, so the first trial leaves it to the sampler")
            continue
        point[name] = near
        if not _same_value(near, value):
            notices.append(f"{told}{value!r} is not in {ranges.describe(dist)}; the first trial takes {near!r}")
    return Point(point, NEAR_VALUES if notices else OWN_VALUES), tuple(notices)


def _same_value(a: Scalar, b: Scalar) -> bool:
    if ranges.is_number(a) and ranges.is_number(b):
        return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
    return a == b


# --- what tuning it would not do --------------------------------------------------------------------


def ineffective_reason(params: Mapping[str, Any], name: str, tuned: Collection[str] = ()) -> str | None:
    """Why tuning ``name`` would change nothing, or something else than meant; None where it works.

    ``tuned`` are the names of ``tune_params`` that are tuned together; ``params`` has PtyRAD's defaults filled in.
    """
    init = _get_section(params, "init_params")
    if name in TENSORS:
        return _idle_rate_reason(params, name, tuned)
    if name == "optimizer":
        if _get_value(params, "model_params.optimizer_params.load_state") is None:
            return None
        return "optimizer_params.load_state belongs to one optimizer; set it to null"
    if name == "conv_angle" or name in _ABERRATIONS:
        return _idle_probe_reason(init, name, tuned)
    if name == "dx":
        return _loaded_reason(init, ("obj", "probe", "pos"), "is sampled at another pixel size")
    if name in AFFINE:
        return _loaded_reason(init, ("obj",), "belongs to the scan positions that it was reconstructed with")
    if name == "Nlayer":
        if init.get("obj_source", "simu") != "simu":
            return f"obj_source is {init['obj_source']!r}: the loaded object has its own slices; use 'simu'"
        crop = init.get("obj_z_crop")
        return None if crop is None else f"obj_z_crop = {crop!r} sets the slices that are kept; set it to null"
    if name in TILTS:
        return _idle_tilt_reason(init, tuned)
    if name == "dz" and single_slice(init, tuned):
        return _ONE_SLICE
    return None


def unit_of(name: str, engine: str) -> str:
    """The unit of one of PtyRAD's parameters; "" for a mere number, and for what another engine tunes."""
    tunable = PARAMETERS.get(name) if engine == "ptyrad" else None
    return "" if tunable is None or tunable.unit == "1" else tunable.unit


_ONE_SLICE = "one slice (obj_Nlayer = 1) is never propagated through; use 2 slices or more"


def single_slice(init: Mapping[str, Any], tuned: Collection[str] = ()) -> bool:
    """Whether every trial has an object of one slice, as far as the file alone tells."""
    if init.get("obj_source", "simu") != "simu" or "Nlayer" in tuned:
        return False
    return init.get("obj_Nlayer") == 1 and not init.get("obj_z_pad") and not init.get("obj_z_resample")


def _idle_rate_reason(params: Mapping[str, Any], name: str, tuned: Collection[str]) -> str | None:
    tensor, key = TENSORS[name], f"update_params.{TENSORS[name]}"
    update = _get_section(params, f"model_params.{key}")
    start, end = update.get("start_iter"), update.get("end_iter")
    last = _get_value(params, "recon_params.NITER")
    if start is None:
        return f"{key}.start_iter is null, so {tensor} is never updated; set it to 1"
    if last is not None and start > last:
        return f"{key}.start_iter = {start} comes after the last iteration (NITER = {last})"
    if end is not None and end <= start:
        return f"{key}.end_iter = {end} ends the updates before they start"
    if _get_value(params, "model_params.optimizer_params.load_state") is not None:
        return "optimizer_params.load_state brings its own learning rates; set it to null"
    scheduler = _get_value(params, "model_params.scheduler_params.name")
    if scheduler in ("OneCycleLR", "CyclicLR"):
        return f"the scheduler {scheduler} sets the learning rates itself"
    if name in ("tlr", "dzlr") and single_slice(_get_section(params, "init_params"), tuned):
        return _ONE_SLICE
    return None


def _idle_probe_reason(init: Mapping[str, Any], name: str, tuned: Collection[str]) -> str | None:
    if init.get("probe_illum_type", "electron") != "electron":
        return "probe_illum_type is not 'electron': an X-ray probe has no such value"
    if init.get("probe_source", "simu") != "simu":
        return f"probe_source is {init['probe_source']!r}: the loaded probe is used as it is; use 'simu'"
    mode = (init.get("meas_calibration") or {}).get("mode", "fitRBF")
    if name == "conv_angle" and "dx" not in tuned and mode in ("fitRBF", "RBF", "n_alpha"):
        reason = _loaded_reason(init, ("obj", "pos"), "is sampled at another pixel size")
        return reason and f"meas_calibration {mode!r} takes the pixel size from it, and {reason}"
    return None


def _idle_tilt_reason(init: Mapping[str, Any], tuned: Collection[str]) -> str | None:
    source = init.get("tilt_source", "simu")
    if source != "simu":
        return f"tilt_source is {source!r}: the loaded tilts would be thrown away; use 'simu'"
    rows: Sequence[Any] = (init.get("tilt_params") or {}).get("init_tilts") or [[0.0, 0.0]]
    if len(rows) > 1:
        return f"tilt_params.init_tilts holds {len(rows)} tilts, and one is tuned for all; give one"
    return _ONE_SLICE if single_slice(init, tuned) else None


def _loaded_reason(init: Mapping[str, Any], parts: tuple[str, ...], why: str) -> str | None:
    for part in parts:
        source = init.get(f"{part}_source", "simu")
        if source not in ("simu", "foldslice_hdf5"):
            return f"{part}_source is {source!r}: what is loaded {why}; use 'simu'"
    return None
