"""Params files of PtyRAD 0.1.0b5 to b12, in today's keys; and which section a key belongs to.

``meas_source`` is not among them: PtyRAD 1.0 has its old values again, which the engine sees to. What PtyRAD itself
translates is left to it: ``freq`` of constraints, ``probe_defocus``, ``probe_c3``, ``probe_c5``,
``obj_preblur_std``, ``if_quiet``. Old names of tunables are :data:`ptydask.space.tunables.LEGACY`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ptydask.errors import ConfigError
from ptydask.space import aberrations
from ptydask.space.tunables import LEGACY, TUNABLES

BEFORE = ("exp_params", "source_params")
"""Sections of params files before PtyRAD 0.1.0b4."""

_RENAMED = (("init_params", "probe_add_df", "probe_z_shift"), ("recon_params", "prefix_date", "prefix_time"))
"""Section, key up to 0.1.0b11 (b7), key today."""
PRESENT: Mapping[str, str] = {
    **{f"{section}.{old}": f"{section}.{new}" for section, old, new in _RENAMED},
    "init_params.probe_dx": "init_params.meas_calibration",
    **dict.fromkeys((f"init_params.{key}" for key in aberrations.LEGACY), "init_params.probe_aberrations"),
}
"""Old dotted keys, and where their values are now."""
_LIST_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "recon_dir_affixes": {"illumination": ("conv_angle", "aberrations"), "init": ("conv_angle", "aberrations")},
    "save_result": {"obj": ("objp",), "object": ("objp",)},
}
"""Lists of ``recon_params``, and words in them that PtyRAD does not take any more."""


def check_layout(data: Mapping[str, Any]) -> None:
    """Raises ConfigError for a params file of PtyRAD before 0.1.0b4, whose sections are others."""
    for name in BEFORE:
        if name in data:
            rule = "a params file of PtyRAD before 0.1.0b4, which has another layout"
            hint = "put its values into a template of today's PtyRAD, which `ptyrad get-templates` writes; "
            hint += "most of exp_params and source_params are in init_params now, under longer names"
            raise ConfigError(rule, key=name, hint=hint)


def translate(config: dict[str, Any]) -> tuple[str, ...]:
    """Give the keys and values of older files their present spelling, in place; one line for each kind that there was.

    ``config`` are the sections that are mappings. Keys that meant nothing (null, say) go without a word.
    """
    return tuple(_translate(config))


def _translate(config: dict[str, Any]) -> Iterator[str]:
    yield from _move_pixel_size(config.get("init_params", {}))
    for section, old, new in _RENAMED:
        yield from _rename(config.get(section, {}), old, new)
    for key, words in _LIST_WORDS.items():
        yield from _replace_words(config.get("recon_params", {}), key, words)
    optimizer = config.get("model_params", {}).get("optimizer_params")
    if isinstance(optimizer, dict) and optimizer.get("configs", {}) is None:
        optimizer["configs"] = {}


def _move_pixel_size(init: dict[str, Any]) -> Iterator[str]:
    if "probe_dx" not in init:
        return
    value = init.pop("probe_dx")
    if value is None:
        return
    if init.get("meas_calibration"):
        yield f"probe_dx = {value!r} is not used: meas_calibration says the pixel size"
        return
    init["meas_calibration"] = {"mode": "dx", "value": value}
    yield f"probe_dx is meas_calibration now: {{mode: dx, value: {value!r}}}"


def _rename(section: dict[str, Any], old: str, new: str) -> Iterator[str]:
    if old not in section:
        return
    value = section.pop(old)
    if old == "prefix_date":
        value = "date" if value is True else value or False
    elif value is None:
        return
    if new in section:
        yield f"{old} is not used: it is called {new} now, which is there too"
        return
    section[new] = value
    yield f"{old} is called {new} now: {value!r}"


def _replace_words(recon: dict[str, Any], key: str, words: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    given = recon.get(key)
    if not isinstance(given, list) or not any(isinstance(word, str) and word in words for word in given):
        return
    spelled = [new for word in given for new in (words.get(word, (word,)) if isinstance(word, str) else (word,))]
    recon[key] = list(dict.fromkeys(spelled))
    yield f"{key} {given!r} is {recon[key]!r} now"


# --- keys in the wrong place ---------------------------------------------------------------------------

_PREFIXES = ("probe_", "meas_", "pos_", "obj_", "tilt_")
"""Those of ``init_params``; constraints may have them as well."""
_HOMES: Mapping[str, tuple[str, ...]] = {
    "init_params": ("random_seed", "beam_kev"),
    "hypertune_params": (
        *("if_hypertune", "collate_results", "append_params", "n_trials", "sampler_params", "pruner_params"),
        *("storage_path", "study_name", "error_metric", "tune_params"),
    ),
    "hypertune_params.tune_params": (*TUNABLES, *LEGACY),
    "model_params": (
        *("detector_blur_std", "obj_preblur_std", "preload_data", "optimizer_params", "scheduler_params"),
        "update_params",
    ),
    "loss_params": ("loss_single", "loss_poissn", "loss_pacbed", "loss_sparse", "loss_simlar"),
    "constraint_params": (
        *("ortho_pmode", "probe_mask_k", "probe_mask_r", "fix_probe_int", "obj_rblur", "obj_zblur", "obj_z_recenter"),
        *("kr_filter", "kz_filter", "kr_thresh", "complex_ratio", "mirrored_amp", "obja_thresh", "objp_postiv"),
        *("pos_recenter", "tilt_smooth"),
    ),
    "recon_params": (
        *("NITER", "INDICES_MODE", "BATCH_SIZE", "GROUP_MODE", "SAVE_ITERS", "output_dir", "recon_dir_affixes"),
        *("prefix_time", "prefix_date", "prefix", "postfix", "save_result", "result_modes", "selected_figs"),
        *("copy_params", "if_quiet", "compiler_configs", "convergence_monitor"),
    ),
}
_HOME = {key: section for section, keys in _HOMES.items() for key in keys}


def misplaced(key: str, section: str, value: Any, sections: Collection[str]) -> ConfigError | None:
    """The error for a ``key`` that ``section`` (empty: the file itself) does not have and another one has.

    That happens where a section's own line was commented out, or keys were indented too little; ``sections`` are those
    that the file has. None for a key that no section has, as far as is known here: what PtyRAD takes is for it to say.
    """
    home = _HOME.get(key, "init_params" if key.startswith(_PREFIXES) else "")
    if home in ("", section):
        return None
    missing = home.partition(".")[0] not in sections
    hint = f"the line '{home}:' above it is missing, or commented out" if missing else ""
    return ConfigError(f"belongs to {home}", key=f"{section}.{key}" if section else key, value=value, hint=hint)
