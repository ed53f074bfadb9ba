"""The params of a study as its user's file has them, where a stage has others: the whole scan, all iterations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ptydask.config import reading
from ptydask.config.ptyrad.hypertune_section import KEY, canonical_section, read_hypertune
from ptydask.config.ptyrad.params_file import copy_sections
from ptydask.errors import ConfigError
from ptydask.space import tunables

STAGE_KEYS = (
    *(f"recon_params.{name}" for name in ("NITER", "SAVE_ITERS", "INDICES_MODE", "BATCH_SIZE")),
    *(f"init_params.{name}" for name in ("meas_crop", "meas_resample")),
    *(f"constraint_params.{name}" for name in ("probe_mask_k", "kr_filter", "obj_rblur")),
    "model_params.detector_blur_std",
)
"""What a stage may have otherwise than the file: a cheap look takes fewer iterations, positions and pixels."""

_BESIDE = {
    "pmode_max": "init_params.probe_pmode_init_pows",
    "optimizer": "model_params.optimizer_params.configs",
}
"""What a parameter's value brings with it, beside its own key."""


def is_of_stage(key: str) -> bool:
    """Whether a dotted key is one of :data:`STAGE_KEYS`, within one, or above."""
    return any(f"{key}.".startswith(f"{own}.") or own.startswith(f"{key}.") for own in STAGE_KEYS)


def restore(config: Mapping[str, Any], text: str, form: str) -> dict[str, Any]:
    """A deep copy of a stage's ``config`` with the :data:`STAGE_KEYS` and ``hypertune_params`` of its params file.

    What that leaves to PtyRAD's defaults is left out. ``text`` and ``form`` are the file and its format; of one that
    cannot be read any more nothing is put back.
    """
    restored = copy.deepcopy(dict(config))
    try:
        data = reading.parse_text(text, form)
    except ConfigError:
        return restored
    own = copy_sections(data)
    if own is None:
        return restored
    for key in STAGE_KEYS:
        section, name = key.split(".")
        below = restored.setdefault(section, {})
        below.pop(name, None)
        if name in own.get(section, {}):
            below[name] = own[section][name]
    with suppress(ConfigError):
        section = own.get(KEY, {})
        restored[KEY] = canonical_section(section, read_hypertune(section, own))
    return restored


def without_values(config: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
    """A deep copy without the values of these parameters: compared with it, each of them is another."""
    bare = copy.deepcopy(dict(config))
    for name in parameters:
        for key in filter(None, (tunables.PARAMETERS[name].where, _BESIDE.get(name))):
            *way, last = key.split(".")
            section: Any = bare
            for part in way:
                section = section.get(part) if isinstance(section, dict) else None
            if isinstance(section, dict):
                section.pop(last, None)
    return bare
