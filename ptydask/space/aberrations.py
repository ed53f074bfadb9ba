"""Aberration coefficients of the probe in every spelling that PtyRAD reads. Angstrom and degree.

Krivanek's polar form and his Cartesian one say the same (O. L. Krivanek, N. Dellby, A. R. Lupini,
Ultramicroscopy 78 (1999) 1-11; in PtyRAD ``ptyrad/optics/aberrations.py``):

    C_nm,a = C_nm cos(m phi_nm)        C_nm,b = C_nm sin(m phi_nm)

Haider's names are those of Krivanek times a factor, with the same angle; ``defocus`` is -C10 and ``Cs`` is C30.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Order = tuple[int, int]

_HAIDER: dict[str, tuple[Order, float]] = {
    "C1": ((1, 0), 1.0),
    "A1": ((1, 2), 1.0),
    "B2": ((2, 1), 3.0),
    "A2": ((2, 3), 1.0),
    "C3": ((3, 0), 1.0),
    "S3": ((3, 2), 4.0),
    "A3": ((3, 4), 1.0),
    "B4": ((4, 1), 4.0),
    "D4": ((4, 3), 4.0),
    "A4": ((4, 5), 1.0),
    "C5": ((5, 0), 1.0),
    "S5": ((5, 2), 6.0),
    "R5": ((5, 4), 6.0),
    "A5": ((5, 6), 1.0),
}
_KRIVANEK = re.compile(r"^(phi|C)(\d)(\d)([ab]?)$")
LEGACY = {"probe_defocus": ((1, 0), -1.0), "probe_c3": ((3, 0), 1.0), "probe_c5": ((5, 0), 1.0)}
"""Keys of ``init_params`` before PtyRAD 0.1.0b13. PtyRAD heeds them only where ``probe_aberrations`` is silent."""


def order(name: str) -> Order:
    """``C12``, ``C12a`` -> (1, 2)."""
    return int(name[1]), int(name[2])


def coefficient(init_params: Mapping[str, Any], nm: Order) -> tuple[float, float]:
    """The Cartesian parts (a, b) that ``init_params`` gives the aberration of order ``nm``; b is 0 where m is 0."""
    parts: dict[str, float] = {}
    for key, value in (init_params.get("probe_aberrations") or {}).items():
        parsed = _parse_name(key)
        if parsed is not None and parsed[0] == nm:
            parts[parsed[1]] = float(value) * parsed[2]
    for key, (legacy, scale) in LEGACY.items():
        if legacy == nm and not parts and init_params.get(key) is not None:
            parts["size"] = float(init_params[key]) * scale
    if "size" not in parts and "angle" not in parts:
        return parts.get("a", 0.0), parts.get("b", 0.0)
    # Polar: with m = 0 the turn is 0, so that b is.
    turn = math.radians(nm[1] * parts.get("angle", 0.0))
    size = parts.get("size", 0.0)
    return size * math.cos(turn), size * math.sin(turn)


def with_coefficients(init_params: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """A copy of ``init_params`` with ``C10``, ``C12a``, ``C12b`` ... put in place of what it said of these orders.

    The other orders stay as they were written; a part that ``values`` does not name keeps its value.
    """
    changed = dict(init_params)
    orders = {order(name) for name in values}
    # Whatever spelling an order had goes, as PtyRAD would otherwise read it twice; it comes back as Cartesian parts.
    terms: dict[str, Any] = {}
    for key, value in (init_params.get("probe_aberrations") or {}).items():
        parsed = _parse_name(key)
        if parsed is None or parsed[0] not in orders:
            terms[key] = value
    for nm in sorted(orders):
        a, b = coefficient(init_params, nm)
        base = f"C{nm[0]}{nm[1]}"
        if nm[1] == 0:
            terms[base] = values[base]
        else:
            terms[f"{base}a"] = values.get(f"{base}a", a)
            terms[f"{base}b"] = values.get(f"{base}b", b)
    for key, (nm, _) in LEGACY.items():
        if nm in orders:
            changed.pop(key, None)
    changed["probe_aberrations"] = terms
    return changed


def _parse_name(key: object) -> tuple[Order, str, float] | None:
    """Order, part (size, angle, a, b) and factor to Krivanek's convention; None for no aberration's name."""
    if not isinstance(key, str):
        return None
    if key == "defocus":
        return (1, 0), "size", -1.0
    if key == "Cs":
        return (3, 0), "size", 1.0
    if key in _HAIDER:
        nm, factor = _HAIDER[key]
        return nm, "size", factor
    if key.endswith("phi") and key[:-3] in _HAIDER:
        return _HAIDER[key[:-3]][0], "angle", 1.0
    match = _KRIVANEK.match(key)
    if match is None:
        return None
    head, n, m, suffix = match.groups()
    return (int(n), int(m)), "angle" if head == "phi" else suffix or "size", 1.0
