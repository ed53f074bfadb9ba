"""Whether trials can start from a reconstruction, by the params file alone, and what of it they make anew. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ptydask.engines.ptyrad.carried_start import changed
from ptydask.errors import ConfigError
from ptydask.formatting import counted
from ptydask.lineage import TrialStart
from ptydask.model import StudyPlan
from ptydask.space import tunables

_KEY = "ptydask.stages"


def check_start(plan: StudyPlan, config: Mapping[str, Any], tuned: Collection[str], positions: int) -> tuple[str, ...]:
    """Notices of a stage whose trials start from a reconstruction, with so many scan ``positions``.

    ``config`` has PtyRAD's defaults filled in, ``tuned`` are the study's parameters. Raises ConfigError where they
    cannot: PtyRAD loads an object, no arrays are kept, or the reconstruction is of something else.
    """
    init = config["init_params"]
    if init.get("obj_source", "simu") != "simu":
        rule = "with start_from the object comes from an earlier stage, and PtyRAD would load another: use 'simu'"
        raise ConfigError(rule, key="init_params.obj_source", value=init["obj_source"])
    if plan.start is None:
        if not plan.keep.arrays:
            rule = "start_from needs the object, probe and positions of an earlier stage, which are not kept"
            hint = "set it to true, or leave start_from out"
            raise ConfigError(rule, key="hypertune_params.collate_results", value=False, hint=hint)
        anew = [name for name in tuned if name in tunables.PROBE]
    else:
        _check_fit(plan.start, init, positions)
        values = {name: tunables.current_value(config, name) for name in tunables.PROBE}
        anew = changed(plan.start, values, tuned, tunables.PROBE)
    if not anew:
        return ()
    verb = "are" if len(anew) > 1 else "is"
    return (
        f"start_from: object and positions are carried on, the probe is made anew: {', '.join(anew)} {verb} changed",
    )


def _check_fit(start: TrialStart, init: Mapping[str, Any], positions: int) -> None:
    had, modes = len(start.arrays["positions"]), len(start.arrays["object_phase"])
    source = f"trial {start.trial}" + (f" of the stage {start.stage}" if start.stage else "")
    unit = "m" if init.get("probe_illum_type") == "xray" else "angstrom"
    rule = ""
    if had != positions:
        rule = f"{source} has {counted(had, 'scan position')}, and this stage has {positions}"
    elif modes != init["obj_omode_max"]:
        rule = f"the object of {source} has {counted(modes, 'mode')}, and obj_omode_max is {init['obj_omode_max']}"
    elif start.attributes["length_unit"] != unit:
        rule = f"{source} has its lengths in {start.attributes['length_unit']}, and this stage in {unit}"
    if rule:
        raise ConfigError(rule, key=_KEY, value="start_from", hint="leave start_from out")
