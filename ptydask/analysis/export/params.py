"""The params file of any trial, ready for ``ptyrad run``; and one that goes on where the trial stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptydask.analysis import stages, sweep
from ptydask.config import yaml_text
from ptydask.config.ptyrad import edited_file, hypertune_section, own_params, params_file, paths
from ptydask.errors import StoreError, UsageError, one_line
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.space import tunables
from ptydask.store.reader import TrialData

_DONE_ON_LOADING = (
    *("probe_permute", "probe_z_shift"),
    *("pos_scan_flipT", "pos_scan_affine", "pos_scan_rand_std"),
    *("obj_z_crop", "obj_z_pad", "obj_z_resample"),
)
"""What PtyRAD does to probe, positions and object after loading them, and did before the trial."""


_FOUND_KEY = "init_params.meas_params.key"


@dataclass(frozen=True)
class ParamsFile:
    """A params file as text, and what its reader should know, one line each."""

    text: str
    notes: tuple[str, ...] = ()


def of_trial(
    meta: StudyMeta,
    record: TrialRecord,
    *,
    near: Path,
    steps: int | None = None,
    command: str = "",
    hypertune: Mapping[str, Any] | None = None,
) -> ParamsFile:
    """The study's params file with the trial's values and those that earlier stages found, hypertune switched off.

    Where that file was YAML, it stays as its author wrote it, comments and all; only what is another value is changed.
    ``hypertune`` are other keys of ``hypertune_params`` and their values, for a file that is to tune again.

    Paths of data are made absolute, since PtyRAD takes them from its working directory; ``near`` is the results file,
    beside which data that have moved are looked for. ``steps`` replaces NITER. Of a sweep: every parameter of its
    program, tuned or not, and as a comment the ``command`` that ran; of any other engine the tuned ones.
    Raises UsageError for ``steps`` there, StoreError where the study does not hold its params file.
    """
    if meta.engine != "ptyrad":
        if steps is not None:
            raise UsageError(f"--iterations: the engine {meta.engine!r} has parameters alone")
        values = sweep.program_values(meta, record) if sweep.is_sweep(meta) else stages.all_values(meta, record)
        comment = yaml_text.comment_text([_title_line(meta, record), *command.splitlines()])
        return ParamsFile(comment + sweep.yaml_text(values))
    config = with_values(meta, record, of_file=True)
    notes = [*_resolve_paths(config, meta, near), *_stage_notes(meta)]
    _keep_something(config, steps, own_interval=hypertune is not None)
    config["init_params"]["random_seed"] = record.seed
    run_line = edited_file.RUN_LINE if hypertune is None else "ptydask run THIS_FILE"
    header = [_title_line(meta, record), *stages.origin_lines(meta, record, own=True), run_line]
    return _write_file(meta, record, config, header, notes, hypertune)


def resume_params(
    meta: StudyMeta, trial: TrialData, model_file: Path, *, near: Path, done: int, steps: int | None = None
) -> ParamsFile:
    """The params file that goes on from the trial's model file, ``done`` iterations on.

    Object, probe, positions and tilts are loaded, and nothing is done to them a second time. PtyRAD counts its
    iterations from 1 again: the ``start_iter`` and ``end_iter`` of tensors and constraints are moved, so that the
    schedule goes on. ``steps`` is how many iterations to do; else those that the trial lacks of the file's NITER, or,
    where it lacks none, NITER again. The optimizer starts without memory.
    """
    record = trial.record
    config = with_values(meta, record)
    notes = _resolve_paths(config, meta, near)
    planned = int(config.get("recon_params", {}).get("NITER") or 0)
    _keep_something(config, steps or max(planned - done, 0) or planned or None)
    _load_everything(config, trial, str(model_file.absolute()))
    _move_schedule(config, done)
    config["init_params"]["random_seed"] = record.seed
    config["recon_params"]["postfix"] = f"trial{record.number}_from_iter{done:04d}"
    header = [
        _title_line(meta, record),
        *stages.origin_lines(meta, record, own=True),
        f"Goes on from iteration {done} with the trial's object, probe, positions and tilts, in {model_file.name};",
        "start_iter and end_iter are counted from there. The optimizer starts without memory.",
        edited_file.RUN_LINE,
    ]
    return _write_file(meta, record, config, header, notes)


def _write_file(
    meta: StudyMeta,
    record: TrialRecord,
    config: Mapping[str, Any],
    header: Sequence[str],
    notes: Iterable[str],
    hypertune: Mapping[str, Any] | None = None,
) -> ParamsFile:
    """``config`` as text: that of the study's own file where it can be kept."""
    comment = "\n".join(header)
    if meta.config_format == "yaml" and meta.config_text.strip():
        told = meta.provenance.get("settings")
        # The key of the patterns may have been found in their file, which PtyRAD would not find.
        settings = None if told is None else [*told.split(), *([_FOUND_KEY] if _has_key(config) else [])]
        before = own_config(meta)
        if meta.lineage is not None:  # what stages found is in the configuration of this one already
            before = own_params.without_values(before, stages.all_values(meta, record))
        text = edited_file.edit_text(
            meta.config_text, config, before, settings=settings, hypertune=hypertune, header=comment
        )
        if text is not None:
            return ParamsFile(text, tuple(notes))
    section = None if hypertune is None else {**(config.get(hypertune_section.KEY) or {}), **hypertune}
    return ParamsFile(params_file.render_params(config, {}, header=comment, hypertune=section), tuple(notes))


def _has_key(config: Mapping[str, Any]) -> bool:
    return (config["init_params"].get("meas_params") or {}).get("key") is not None


def own_config(meta: StudyMeta) -> dict[str, Any]:
    """PtyRAD's params as the study ran with them; of a stage those of its whole study, which it may have cut down."""
    config: dict[str, Any] = json.loads(meta.config_json or "{}")
    if meta.lineage is None or not isinstance(config, dict):
        return config
    return own_params.restore(config, meta.config_text, meta.config_format)


def with_values(meta: StudyMeta, record: TrialRecord, *, of_file: bool = False) -> dict[str, Any]:
    """PtyRAD's params with the trial's values in place, and those that earlier stages found.

    They are the params that the trial had or, ``of_file``, without what a stage cut down. Raises StoreError where the
    study does not hold them.
    """
    config = own_config(meta) if of_file else json.loads(meta.config_json or "{}")
    if not isinstance(config, dict) or not isinstance(config.get("init_params"), dict):
        raise StoreError(f"study {meta.name}: its results do not hold the params file, so none can be made of a trial")
    # The params of a stage have in place already what those before it found, or what it has otherwise.
    values = stages.all_values(meta, record) if of_file else record.params
    unknown = [name for name in values if name not in tunables.PARAMETERS]
    if unknown:
        raise StoreError(f"trial {record.number}: {unknown[0]} is no parameter of PtyRAD")
    return tunables.apply(config, values)


def _stage_notes(meta: StudyMeta) -> list[str]:
    """What was set beside the file in a stage's place, and is not known any more."""
    told = {key for key in meta.provenance.get("settings", "").split() if own_params.is_of_stage(key)}
    text = "was set beside the file, and the stage had it otherwise: what the file itself says stands here"
    return [] if meta.lineage is None else [f"{key}: {text}" for key in sorted(told)]


def _title_line(meta: StudyMeta, record: TrialRecord) -> str:
    state = "" if record.error is None else f": {meta.metric} {record.error!r}"
    return one_line(f"{meta.name}, trial {record.number} ({record.state.value.lower()}){state}")


def _keep_something(config: dict[str, Any], steps: int | None, *, own_interval: bool = False) -> None:
    """NITER, and SAVE_ITERS where the study had none: ``ptyrad run`` saves nothing without it; ``ptydask run`` does."""
    recon = config.setdefault("recon_params", {})
    if steps is not None:
        recon["NITER"] = steps
    if own_interval:
        return
    if recon.get("SAVE_ITERS", 10) is None or recon.get("SAVE_ITERS", 10) > recon.get("NITER", 200):
        recon["SAVE_ITERS"] = recon.get("NITER", 200)


# --- files that the params name ----------------------------------------------------------------------


def _resolve_paths(config: dict[str, Any], meta: StudyMeta, near: Path) -> list[str]:
    """Make the paths in ``config`` absolute; a note for each file that is not there."""
    notes = []
    for section, name, key in paths.named(config):
        data_file = _find_data_file(Path(section[name]), meta.provenance, near)
        section[name] = str(data_file)
        if not data_file.exists():
            notes.append(f"{key}: {data_file} is not on this machine")
    return notes


def _find_data_file(path: Path, provenance: Mapping[str, str], near: Path) -> Path:
    """Where the run had the file; where it is not there any more, the same path from here or from the results."""
    ran_in = Path(provenance.get("working_directory") or ".").absolute()
    recorded = ran_in / path
    moved = [path.absolute(), near.absolute().parent / path, near.absolute().parent / path.name]
    return next((candidate for candidate in (recorded, *moved) if candidate.exists()), recorded)


# --- going on ----------------------------------------------------------------------------------------


def _load_everything(config: dict[str, Any], trial: TrialData, model_file: str) -> None:
    init = config["init_params"]
    for name in ("obj", "probe", "pos", "tilt"):
        init[f"{name}_source"], init[f"{name}_params"] = "PtyRAD", model_file
    init |= dict.fromkeys(_DONE_ON_LOADING)
    init["obj_Nlayer"] = int(trial.arrays["object_phase"].shape[1])
    init["obj_slice_thickness"] = float(trial.arrays["slice_thickness"].read())
    for name in ("optimizer_params", "scheduler_params"):
        section = config.get("model_params", {}).get(name)
        if isinstance(section, dict) and "load_state" in section:
            section["load_state"] = None


def _move_schedule(config: dict[str, Any], done: int) -> None:
    """Count ``start_iter`` and ``end_iter`` from iteration ``done`` on."""
    update = config.get("model_params", {}).get("update_params") or {}
    for schedule in (*update.values(), *(config.get("constraint_params") or {}).values()):
        if isinstance(schedule, dict) and schedule.get("start_iter") is not None:
            schedule.update(shift_iterations(schedule, done))


def shift_iterations(schedule: Mapping[str, Any], done: int) -> dict[str, Scalar]:
    """``start_iter`` and ``end_iter`` of an entry, where the first ``done`` iterations are over.

    An entry acts at ``start_iter``, every ``step`` iterations from there, before ``end_iter``. One whose end has
    passed has no start any more.
    """
    start, step, end = int(schedule["start_iter"]), int(schedule.get("step") or 1), schedule.get("end_iter")
    later = start - done if start > done else (start - done - 1) % step + 1
    if end is not None and later >= int(end) - done:
        return {"start_iter": None, "end_iter": None}
    return {"start_iter": later, "end_iter": None if end is None else int(end) - done}
