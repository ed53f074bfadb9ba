"""What a geometry other than the demo's own does: the experiment that has it, and the params file that looks for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ptydask.demo.microscope import Experiment
from ptydask.errors import ConfigError, nearest_hint

MULTISLICE = 6
"""Layers of a specimen with a tilt or a slice thickness, where nobody says how many."""
ITERATIONS = 20
"""Of a trial with such a specimen, which takes longer to come near rest."""
MOST_SLICES = 40
MOST_ELECTRONS = 10_000_000
"""In a pattern: none of its pixels then has more than 65535."""
OWN = {"scale": 1.04, "rotation": -1.5}
"""What is planted where only slices or a dose are asked for."""
TRUTH = "# Planted: "
"""What the line of the params file begins with that says the truth."""


@dataclass(frozen=True, slots=True)
class PlantedRange:
    """Where a parameter's truth may lie; a study tries the same range, from the nominal value on."""

    low: float
    high: float
    step: float
    nominal: float
    """What the params file has."""
    unit: str = ""


RANGES: Mapping[str, PlantedRange] = {
    "scale": PlantedRange(0.9, 1.1, 0.02, 1.0),
    "asymmetry": PlantedRange(-0.05, 0.05, 0.01, 0.0),
    "rotation": PlantedRange(-4, 4, 0.5, 0.0, "degree"),
    "shear": PlantedRange(-3, 3, 0.5, 0.0, "degree"),
    "C10": PlantedRange(100, 340, 10, 230.0, "angstrom"),
    "tilt_y": PlantedRange(-10, 10, 2, 0.0, "mrad"),
    "tilt_x": PlantedRange(-10, 10, 2, 0.0, "mrad"),
    "dz": PlantedRange(4, 24, 1, 12.0, "angstrom"),
}
"""By PtyRAD's names of them."""
_NEEDS_SLICES = ("tilt_y", "tilt_x", "dz")


def parse_geometry(text: str) -> dict[str, float]:
    """``scale=1.03 rotation=2`` as a mapping, in the order of :data:`RANGES`.

    Raises ConfigError for an unknown name, a value that is no number or out of range, and one that is there twice.
    """
    planted: dict[str, float] = {}
    for word in re.split(r"[\s,]+", text.strip()):
        name, sign, raw = word.partition("=")
        key = f"--geometry {name}"
        if not sign or not name or not raw:
            raise ConfigError("must be name=value, one or more, with blanks between them", key="--geometry", value=text)
        if name not in RANGES:
            hint = nearest_hint(name, RANGES)
            raise ConfigError("is nothing that the demo can plant", key=key, value=raw, hint=hint)
        if name in planted:
            raise ConfigError("is there twice", key=key, value=raw)
        limits = RANGES[name]
        rule = f"must be a number from {limits.low:g} to {limits.high:g} {limits.unit}".rstrip()
        try:
            value = float(raw)
        except ValueError:
            raise ConfigError(rule, key=key, value=raw) from None
        if not limits.low <= value <= limits.high:
            raise ConfigError(rule, key=key, value=raw)
        planted[name] = value
    return {name: planted[name] for name in RANGES if name in planted}


def plant(planted: Mapping[str, float], slices: int | None, electrons: int | None, seed: int) -> Experiment:
    """The experiment with the truth of ``planted``; what that leaves out is nominal, but for the demo's own defocus.

    ``slices`` are the layers of the specimen; None is one, or ``MULTISLICE`` where something planted needs them.
    ``electrons`` are those of a pattern; None is the demo's dose. Raises ConfigError for a number that is too large,
    and for a geometry that one layer cannot have.
    """
    for option, number, most in (("--slices", slices, MOST_SLICES), ("--electrons", electrons, MOST_ELECTRONS)):
        if number is not None and not 1 <= number <= most:
            raise ConfigError(f"must be a whole number from 1 to {most}", key=option, value=number)
    needs = [name for name in _NEEDS_SLICES if name in planted]
    if needs and slices == 1:
        rule = f"a single layer is never propagated through: {needs[0]} needs --slices 2 or more"
        raise ConfigError(rule, key="--slices", value=slices)
    own = Experiment(seed=seed)
    return replace(
        own,
        scan_scale=planted.get("scale", 1.0),
        scan_asymmetry=planted.get("asymmetry", 0.0),
        scan_rotation=planted.get("rotation", 0.0),
        scan_shear=planted.get("shear", 0.0),
        defocus=-planted.get("C10", -own.defocus),
        dose=float(own.dose if electrons is None else electrons),
        slices=slices or (MULTISLICE if needs else 1),
        slice_thickness=planted.get("dz", RANGES["dz"].nominal),
        tilt_y=planted.get("tilt_y", 0.0),
        tilt_x=planted.get("tilt_x", 0.0),
    )


def params_text(template: str, planted: Mapping[str, float], experiment: Experiment) -> str:
    """The demo's params file, ``template``, with nominal values, tuning what was planted, the truth in a comment."""
    truth = [f"{name} = {value:g} {RANGES[name].unit}".rstrip() for name, value in planted.items()]
    facts = f"{experiment.slices} slice{'s' * (experiment.slices > 1)}, {experiment.dose:g} electrons in a pattern"
    story = f"{TRUTH}{', '.join([*truth, facts])}.\n# The file says {{}}, and the study looks for the truth:"
    nominal = ", ".join(f"{name} {RANGES[name].nominal:g}" for name in planted)
    text = re.sub(
        r"# The scan of this data set was .*\n# The study finds both:", lambda _: story.format(nominal), template
    )
    text = _replace_line(text, "probe_aberrations", "{'C10': 230}  # [angstrom] C10 = -defocus")
    if experiment.slices > 1:
        text = text.replace("specimen: one thin slice, one probe", "specimen: several slices, one probe")
        text = _replace_line(text, "obj_zblur", "{'start_iter': 1}  # columns along the beam, or any tilt would fit")
        text = _replace_line(text, "obj_Nlayer", f"{experiment.slices}")
        text = re.sub(r"(NITER *: *)\d+ ", rf"\g<1>{ITERATIONS} ", text)
        text = _replace_line(text, "obj_slice_thickness", f"{RANGES['dz'].nominal:g}  # [angstrom]")
    rows = "".join(_tuned_line(name) for name in planted)
    return re.sub(r"(?<=more than 4 at a time\n)(        .*\n)+", lambda _: rows, text)


def truth_line(text: str) -> str:
    """The line of a params file that says what was planted; empty for the demo's own."""
    return next((line for line in text.splitlines() if line.startswith(TRUTH)), "")


def _replace_line(text: str, key: str, value: str) -> str:
    """``text`` with another value, and comment, of ``key``."""
    return re.sub(rf"(?m)^( *{key} *: *).*$", lambda match: match[1] + value, text)


def _tuned_line(name: str) -> str:
    limits = RANGES[name]
    kwargs = f"{{'low': {limits.low:g}, 'high': {limits.high:g}, 'step': {limits.step:g}}}"
    unit = f"  # [{limits.unit}]" if limits.unit else ""
    return f"        {name:<11}: {{'state': true, 'suggest': 'float', 'kwargs': {kwargs}}}{unit}\n"
