"""A params file as its author wrote it, with the values of a trial: comments, order and spelling stay."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ptydask.config import own_settings, reading, yaml_text
from ptydask.config.ptyrad import old_keys
from ptydask.config.ptyrad.hypertune_section import KEY
from ptydask.config.ptyrad.params_file import SECTIONS, copy_sections
from ptydask.errors import ConfigError
from ptydask.space import aberrations

_ABSENT = object()
_TERMS = "probe_aberrations"
_SAMPLERS = ("Random", "TPE", "GP", "CmaEs", "NSGAII", "NSGAIII", "Grid", "QMC", "BruteForce")
_PRUNERS = ("Median", "Patient", "Percentile", "SuccessiveHalving", "Hyperband", "Threshold")
_COMPONENTS = {
    "sampler_params": tuple(f"{name}Sampler" for name in _SAMPLERS),
    "pruner_params": tuple(f"{name}Pruner" for name in _PRUNERS),
}
"""Those that PtyRAD's schema knows; ptydask runs any of Optuna's."""


def edit_text(
    text: str,
    complete: Mapping[str, Any],
    before: Mapping[str, Any],
    *,
    settings: Collection[str] | None = None,
    hypertune: Mapping[str, Any] | None = None,
    header: str = "",
) -> str | None:
    """The YAML ``text`` of a params file with the values of ``complete``, PtyRAD's params with every default filled in.

    What the text leaves to PtyRAD's defaults is left out here as well, unless it is among ``settings`` (dotted keys
    that the run was told beside its file; None where nobody knows any more, so that all are written), or is another in
    ``complete`` than ``before``, in the params that the study ran with. Old keys are translated. ``hypertune`` are keys
    of ``hypertune_params`` and their new values, for ptydask; without any, the file is for PtyRAD: hypertune is off,
    the ranges stay, and the section ``ptydask`` goes. ``header`` becomes a comment on top. None where that cannot be
    done to this text.
    """
    try:
        data = reading.parse_value(text)
    except ConfigError:
        return None
    user = copy_sections(data)
    if user is None:
        return None
    if settings is not None:
        settings = [old_keys.PRESENT.get(key, key) for key in settings]
    new: dict[str, Any] = {}
    for name in SECTIONS:
        if name == KEY:
            new[KEY] = _hypertune(user.get(KEY, {}), complete.get(KEY) or {}, hypertune)
        elif isinstance(complete.get(name), Mapping):
            section = _merge(user.get(name, {}), complete[name], before.get(name) or {}, settings, name)
            if section or name in user:
                new[name] = section
    if hypertune is not None and (section := without_stages(data.get(own_settings.SECTION))):
        new[own_settings.SECTION] = section
    body = yaml_text.rewrite(text, new)
    return None if body is None else add_header(body, header)


def add_header(text: str, header: str) -> str:
    """``text`` below ``header`` as comments; the header that an earlier export put there goes."""
    advice = r"(?:# .+ follows .+:\n(?:# .*\n)*?)?"  # which `next` puts above it
    text = re.sub(rf"\A{advice}(?:# .*\n){{1,40}}?# pty(?:rad|dask) run THIS_FILE\n", "", text)
    return yaml_text.comment_text(header.splitlines()) + text


RUN_LINE = "ptyrad run THIS_FILE"
"""The last line of an export's header; of one that ptydask is to run, with its name."""


def without_stages(section: Any) -> Any:
    """ptydask's own section without what makes a study one of stages, for a file that tunes once."""
    if not isinstance(section, Mapping):
        return section
    return {name: value for name, value in section.items() if name not in ("stages", "final")}


def _merge(
    user: Mapping[str, Any],
    complete: Mapping[str, Any],
    before: Mapping[str, Any],
    settings: Collection[str] | None,
    way: str,
) -> dict[str, Any]:
    """What a section (or a mapping in one), at the dotted key ``way``, is to say."""

    def is_set(name: str) -> bool:
        key = f"{way}.{name}"
        return settings is None or any(f"{key}.".startswith(f"{s}.") or s.startswith(f"{key}.") for s in settings)

    nested, unknown = "." in way, settings is None
    merged: dict[str, Any] = {}
    dropped = False
    for name, value in user.items():
        if name not in complete:  # an old name, which PtyRAD translates: it stays unless that is to say something else
            replaced = nested or name in aberrations.LEGACY
            now, earlier = (complete, before) if nested else (complete.get(_TERMS), before.get(_TERMS))
            if replaced and (unknown or now != earlier):
                dropped = True
            else:
                merged[name] = value
            continue
        wanted, earlier = complete[name], before.get(name, _ABSENT)
        texts = isinstance(value, str) and isinstance(wanted, str)  # a path, of which ~ is spelled out, say
        if isinstance(value, Mapping) and isinstance(wanted, Mapping):
            below = earlier if isinstance(earlier, Mapping) else {}
            merged[name] = _merge(value, wanted, below, settings, f"{way}.{name}")
        else:
            merged[name] = wanted if wanted != earlier or is_set(name) or texts else value
    for name, wanted in complete.items():
        # Of a section each key has a default of its own; within a key, those of one mapping belong together.
        if name not in user and ((nested and dropped) or is_set(name) or wanted != before.get(name, _ABSENT)):
            merged[name] = wanted
    if dropped and not nested:
        merged[_TERMS] = complete[_TERMS]
    return merged


def _hypertune(
    user: Mapping[str, Any], canonical: Mapping[str, Any], changed: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The section in the spelling of PtyRAD's schema, with the keys that the file has; see :func:`edit_text`."""
    section: dict[str, Any] = {}
    for name, value in user.items():
        wanted = canonical.get(name, value)
        known = _COMPONENTS.get(name)
        if known is not None and (wanted is None or wanted.get("name") not in known):
            if name == "pruner_params" and wanted is None:
                section[name] = None
        elif known is not None and isinstance(value, Mapping) and value.get("configs", {}) is not None:
            section[name] = value
        elif name == "storage_path":
            if isinstance(wanted, str) and "***" not in wanted:  # PtyRAD takes no null, and nobody a masked password
                section[name] = wanted
        elif name != "verbosity":  # which PtyRAD 1.0 alone has
            section[name] = wanted
    return section | dict(changed or {"if_hypertune": False})
