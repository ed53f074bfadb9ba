"""Trials in words: what ``best`` and ``show`` say to a person, and ``show`` as one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptydask.analysis import gain as gains
from ptydask.analysis.gain import compute_gain, errors_by_step
from ptydask.cli.formats import trial_object
from ptydask.formatting import (
    counted,
    duration_text,
    error_text,
    inert_text,
    printable_text,
    shell_line,
    shell_path,
    shell_word,
    size_text,
    sparkline,
    state_text,
    value_text,
    wrap_line,
)
from ptydask.lineage import StageLineage
from ptydask.model import Direction, Image, Optimum, StudyMeta, TrialRecord
from ptydask.space import tunables
from ptydask.space.metrics import is_minor, metric_unit
from ptydask.store import layout, names

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation
    from ptydask.store.artifacts import StoredFile
    from ptydask.store.reader import Results, TrialData

FILES = 40
"""Files of a trial's program that a person is shown."""
LOG_TAIL = 12
"""Last lines of a log that a person is shown."""
SPARKLINE = 48
WITH_OTHER_SEEDS = "with other seeds"
"""What the means of a confirmed trial's repeats are called."""


def gain_text(
    record: TrialRecord,
    own: TrialRecord | None,
    direction: Direction,
    errors: Mapping[int, float] | None = None,
    lineage: StageLineage | None = None,
) -> str:
    """How much better a trial is than ``own``, the one with the file's values, or those of stages before its own.

    Empty where there is nothing to compare; ``errors`` are those of the trial by its steps.
    """
    gain = compute_gain(record, own, direction, errors, lineage)
    if gain is None:
        return ""
    after = "" if gain.step is None else f", both after step {gain.step}"
    theirs = f"{gain.values} (trial {gain.own.number}: {error_text(gain.own.error)}{after})"
    if gain.own.number == record.number:
        return f"these are {gain.values}"
    if gain.difference == 0:
        return f"no better than {theirs}"
    word = "better" if gain.difference > 0 else "worse"
    amount = error_text(abs(gain.difference)) if gain.share is None else f"{gain.share:.1%}"
    return f"{amount} {word} than {theirs}"


def trial_location(results: Results, number: int) -> str:
    """``FILE:/group`` of a trial: in the results file, in the trial's own file while a run is on."""
    own = names.shard_path(names.folder_of(results.path), number)
    if not results.packed and own.exists():
        return f"{own}:{layout.OWN_GROUP}"
    study = names.encode(results.meta.name)
    return f"{results.file}:/{study}/{layout.TRIALS}/{names.trial_name(number)}"


def best_text(
    results: Results,
    record: TrialRecord,
    own: TrialRecord | None,
    optimum: Optimum | None = None,
    confirmation: Confirmation | None = None,
) -> str:
    """One of the best trials: error, gain, parameters beside the optimum and the file's own, metrics, its image."""
    from ptydask.analysis import stages

    meta = results.meta
    repeated = _repeated_metrics(record, confirmation)
    lines = [_headline(record, meta.metric), *_lineage_lines(record, meta)]
    if meta.metric in repeated:
        lines.append(f"  {WITH_OTHER_SEEDS}: {repeated[meta.metric]}")
    errors = errors_by_step(results.curve(record.number), meta.metric)
    gain = gain_text(record, own, meta.direction, errors, meta.lineage) or stages.final_text(results, record)
    if gain:
        lines.append(f"  {gain}")
    optimum_notes, about = _optimum_notes(record, optimum, meta)
    idle_notes = {name: f"did nothing in this trial: {why}" for name, why in idle_parameters(record, meta).items()}
    edge_notes = {n: "at the edge of its range" for n in parameters_at_edge(record, meta) if n not in idle_notes}
    every = (idle_notes, edge_notes, optimum_notes, gains.baseline_notes(record, own, meta.lineage))
    both = {name: "; ".join(filter(None, (notes.get(name) for notes in every))) for name in record.params}
    lines += _aligned_pairs(record.params, {name: f"({text})" for name, text in both.items() if text})
    lines += wrap_line(f"  {about}", 79) if about else []
    names = [name for name in record.metrics if name != meta.metric and not is_minor(name, meta.engine)]
    others = {name: error_text(record.metrics[name]) for name in names}
    lines += _aligned_pairs(others, {name: f"({WITH_OTHER_SEEDS}: {text})" for name, text in repeated.items()})
    from ptydask.analysis.export import run

    trial = results.trial(record.number)
    if trial.image is not None:
        lines.append(f"  image  {trial_location(results, record.number)}/{layout.IMAGE}")
    if trial.artifacts:
        kind = "run" if run.run_of(trial.artifacts).files else "artifacts"
        command = f"ptydask export {shell_path(results.path)} {kind} --trial {record.number} DIR"
        size = size_text(sum(file.size for file in trial.artifacts.values()))
        lines.append(f"  {counted(len(trial.artifacts), 'file')}, {size}: {command}")
    return "\n".join(lines) + "\n"


def _repeated_metrics(record: TrialRecord, confirmation: Confirmation | None) -> dict[str, str]:
    """Metric, the tuned one among them -> mean and standard deviation over the repeats of the trial; {} without any."""
    if confirmation is None:
        return {}
    names = dict.fromkeys([confirmation.metric, *confirmation.metrics])
    texts = {name: confirmation.mean_text(record.number, name) for name in names}
    return {name: text for name, text in texts.items() if text}


def better_by_mean_text(confirmation: Confirmation | None, results: Results) -> str:
    """That another trial than the best one is the best with other seeds, and how to see it; else empty."""
    from ptydask.analysis import confirmation as confirmed

    text = "" if confirmation is None else confirmed.better_by_mean_text(confirmation)
    if not text or confirmation is None:
        return ""
    stage = results.meta.stage
    option = f" --stage {shell_word(stage)}" if stage else ""
    return f"{text}: ptydask show {shell_path(results.path)} {confirmation.best}{option}"


def parameters_at_edge(record: TrialRecord, meta: StudyMeta) -> list[str]:
    """The parameters whose value is an end of their range, where a wider range is possible."""
    from ptydask.analysis.optimum import read_space
    from ptydask.space import reshaping

    space = read_space(meta)
    return [n for n, value in record.params.items() if n in space and reshaping.is_at_end(space[n], value, n)]


def idle_parameters(record: TrialRecord, meta: StudyMeta) -> dict[str, str]:
    """The parameters that did nothing in a trial of PtyRAD's, and why."""
    from ptydask.analysis.data import json_object
    from ptydask.space import inactive

    config = json_object(meta.config_json)
    return inactive.inactive_parameters(config, record.params) if meta.engine == "ptyrad" and config else {}


def _optimum_notes(record: TrialRecord, optimum: Optimum | None, meta: StudyMeta) -> tuple[dict[str, str], str]:
    """Where the optimum is in each parameter that has slopes, and what that means; nothing for another trial's."""
    if optimum is None or optimum.trial != record.number:
        return {}, ""
    from ptydask.analysis.optimum import explain_optimum, optimum_texts

    texts = optimum_texts(optimum, meta)
    return {name: f"optimum {text} by the slopes" for name, text in texts.items()}, explain_optimum(optimum, meta)


def optimum_object(record: TrialRecord, optimum: Optimum | None, meta: StudyMeta) -> dict[str, Any]:
    """``optimum`` and its ``deviation`` by parameter, empty for a trial that it is not of, and what is odd."""
    own = optimum is not None and optimum.trial == record.number
    return {
        "optimum": dict(optimum.center) if own and optimum is not None else {},
        "deviation": dict(optimum.deviation) if own and optimum is not None else {},
        "at_edge": parameters_at_edge(record, meta),
        "inactive": idle_parameters(record, meta),
    }


def with_config(results: Results, record: TrialRecord, description: dict[str, Any]) -> dict[str, Any]:
    """``description`` of a trial; of a sweep with ``config``, every parameter that its program was given."""
    from ptydask.analysis import sweep

    if not sweep.is_sweep(results.meta):
        return description
    return {**description, "config": sweep.program_values(results.meta, record)}


def lineage_object(meta: StudyMeta) -> dict[str, Any]:
    """``lineage`` of a trial of a study with stages: what earlier ones found; nothing of another."""
    from ptydask.analysis import stages

    return {} if meta.lineage is None else {"lineage": stages.lineage_object(meta.lineage)}


def _lineage_lines(record: TrialRecord, meta: StudyMeta) -> list[str]:
    """Which stage a trial is of, where the values that it does not tune are from, and what it started from."""
    if meta.lineage is None:
        return []
    from ptydask.analysis import stages

    lines = [stages.stage_text(meta.lineage), *stages.origin_lines(meta, record), stages.start_text(meta.lineage)]
    return [f"  {line}" for line in lines if line]


def show_object(results: Results, trial: TrialData, confirmation: Confirmation | None = None) -> dict[str, Any]:
    """Everything about one trial as plain values; of arrays the name, path, shape, dtype and units."""
    return {
        **with_config(results, trial.record, trial_object(trial.record, confirmation, results.meta.stage)),
        **lineage_object(results.meta),
        "traceback": trial.record.traceback,
        "place": trial_location(results, trial.record.number),
        "attributes": dict(trial.attributes),
        "lost": trial.lost,
        "dropped": trial.dropped,
        "curve": dict(trial.curve),
        "image": None if trial.image is None else list(trial.image.data.shape),
        "arrays": [_array_object(name, info) for name, info in trial.arrays.items()],
        "snapshots": {
            str(step): [_array_object(name, info) for name, info in arrays.items()]
            for step, arrays in trial.snapshots.items()
        },
        "log": trial.log,
        "command": trial.command,
        "artifacts": [{"path": path, "size": file.size} for path, file in trial.artifacts.items()],
        "left_out": list(trial.left_out),
    }


def show_text(
    results: Results, trial: TrialData, confirmation: Confirmation | None = None, *, terminal: bool, blocks: bool
) -> str:
    """Everything about one trial for a person; curves are drawn where it is a terminal."""
    record = trial.record
    location = f"  {trial_location(results, record.number)}"
    merged = [f"  merged: it was {trial.merged}"] if trial.merged else []
    not_kept = [message for message in (trial.lost, trial.dropped, *trial.left_out) if message]
    sections = [
        ("", [_headline(record, results.meta.metric), *_attempt_lines(record, results.meta), location, *merged]),
        ("", _lineage_lines(record, results.meta)),
        ("parameters", _aligned_pairs(record.params)),
        ("constants", _aligned_pairs(_sweep_constants(results))),
        ("metrics", _metric_lines(record, results.meta.engine)),
        (WITH_OTHER_SEEDS, _repeat_lines(record, confirmation)),
        (
            f"gradient of {results.meta.metric}",
            _aligned_pairs(record.gradient, _slope_units(record, results.meta.engine)),
        ),
        ("curve", _curve_lines(trial.curve, blocks if terminal else None)),
        ("attributes", _aligned_pairs(trial.attributes)),
        ("arrays", _array_lines(trial.arrays)),
        ("snapshots", [f"  step {step}: {', '.join(arrays)}" for step, arrays in sorted(trial.snapshots.items())]),
        ("image", [] if trial.image is None else [f"  {_image_text(trial.image)}"]),
        ("artifacts", _artifact_lines(trial.artifacts)),
        ("not kept", [f"  {printable_text(message)}" for message in not_kept]),
        *_program_sections(trial, account=results.meta.engine == "command"),
    ]
    blocks_of_text = ["\n".join([title, *lines] if title else lines) for title, lines in sections if lines]
    return "\n\n".join(blocks_of_text) + "\n"


def _program_sections(trial: TrialData, *, account: bool) -> list[tuple[str, list[str]]]:
    """Command, log and traceback; an ``account`` of what went wrong has the log's end and the command itself."""
    traceback = trial.record.traceback
    wrong = [f"  {inert_text(line)}".rstrip() for line in traceback.rstrip().splitlines()]
    if account and trial.command and trial.command in traceback:
        return [("what went wrong", wrong)]
    return [
        ("command", [f"  {inert_text(shell_line(trial.command))}"] if trial.command else []),
        ("log", _tail_lines(trial.log)),
        ("what went wrong" if account else "traceback", wrong),
    ]


def _headline(record: TrialRecord, metric: str) -> str:
    error = f"{metric} {error_text(record.error)}" if metric else ""
    return f"trial {record.number}  {state_text(record)}  {error}".rstrip()


def _attempt_lines(record: TrialRecord, meta: StudyMeta) -> list[str]:
    """Why it failed, whose values these were, when, where and how long it ran."""
    lines = [f"  {printable_text(record.message)}"] if record.message else []
    facts = [duration_text(record.seconds) + (" in all attempts" if record.attempt > 1 else "")]
    named = {"from": record.started, "": record.device, "host": record.host, "worker": record.worker, "job": record.job}
    if record.iterations is not None:
        text = f"{value_text(record.iterations)} iterations"
        part = meta.engine == "ptyrad" and record.last_step is not None and record.iterations < record.last_step
        facts.append(f"{record.last_step} iterations over a part of the scan, as much as {text}" if part else text)
    if record.relative_decrease is not None:
        facts.append(_rest_text(record.relative_decrease))
    facts += [f"{name} {value}".strip() for name, value in named.items() if value]
    lines.append("  " + ", ".join(map(printable_text, facts)))
    attempt = f"attempt {record.attempt}"
    if record.retry_of is not None:
        attempt += f" (trial {record.retry_of} tried again)"
    lines.append(f"  values from: {gains.origin_text(record, meta)}, {attempt}, seed {record.seed}")
    return lines


def _rest_text(relative_decrease: float) -> str:
    """How far a trial was from rest."""
    word = "better" if relative_decrease >= 0 else "worse"
    return f"{abs(100 * relative_decrease):.2g} % {word} by the last step"


def _metric_lines(record: TrialRecord, engine: str) -> list[str]:
    units = {name: unit for name in record.metrics if (unit := metric_unit(name, engine))}
    return _aligned_pairs({name: error_text(value) for name, value in record.metrics.items()}, units)


def _repeat_lines(record: TrialRecord, confirmation: Confirmation | None) -> list[str]:
    """Means over the repeats of a confirmed trial, its repeats that failed, and the FRC of its halves."""
    lines = _aligned_pairs(_repeated_metrics(record, confirmation))
    if confirmation is None:
        return lines
    for repeat in confirmation.failed:
        if repeat.trial == record.number:
            lines.append(f"  seed {repeat.seed} failed: {printable_text(repeat.record.message)}")
    ring = confirmation.frc.get(record.number)
    return [*lines, f"  FRC of two halves: {ring.describe()}"] if ring is not None else lines


def _slope_units(record: TrialRecord, engine: str) -> dict[str, str]:
    """What each slope is per: the parameter's unit, where it has one."""
    units = {name: tunables.unit_of(name, engine) for name in record.gradient}
    return {name: f"per {unit}" for name, unit in units.items() if unit}


def _aligned_pairs(values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> list[str]:
    """``  name  value  note``, the values in one column."""
    texts = {printable_text(name): value_text(value) for name, value in values.items()}
    names = max(map(len, texts), default=0)
    cells = max(map(len, texts.values()), default=0)
    remarks = {printable_text(name): note for name, note in (notes or {}).items()}
    return [
        f"  {name.ljust(names)}  {text.ljust(cells)}  {remarks.get(name, '')}".rstrip() for name, text in texts.items()
    ]


def _curve_lines(curve: Mapping[str, Any], blocks: bool | None) -> list[str]:
    """Each column of the curve: where it began and ended, and a drawing unless ``blocks`` is None."""
    columns = {name: [float(v) for v in values] for name, values in curve.items() if name != "step"}
    lines = []
    for name, values in columns.items():
        if not values:
            continue
        text = f"  {name}  {error_text(values[0])} -> {error_text(values[-1])} in {len(values)} steps"
        if blocks is not None:
            text += f"  {sparkline(values, SPARKLINE, blocks=blocks)}"
        lines.append(text.rstrip())
    return lines


def _array_lines(arrays: Mapping[str, Any]) -> list[str]:
    names = max((len(name) for name in arrays), default=0)
    return [
        f"  {name.ljust(names)}  {_shape_text(info.shape)}  {info.dtype}  {printable_text(info.units)}".rstrip()
        for name, info in arrays.items()
    ]


def _sweep_constants(results: Results) -> dict[str, Any]:
    """What every trial of a sweep was given besides the tuned parameters."""
    from ptydask.analysis import sweep

    return sweep.constants(results.meta) if sweep.is_sweep(results.meta) else {}


def _artifact_lines(files: Mapping[str, StoredFile]) -> list[str]:
    """The files of a program with their sizes; of many the first."""
    sizes = [(printable_text(path), size_text(file.size)) for path, file in files.items()]
    width = max((len(path) for path, _ in sizes[:FILES]), default=0)
    lines = [f"  {path.ljust(width)}  {size}" for path, size in sizes[:FILES]]
    return [*lines, f"  and {len(sizes) - FILES} more"] if len(sizes) > FILES else lines


def _array_object(name: str, info: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(info.shape), "dtype": str(info.dtype), "units": info.units}


def _image_text(image: Image) -> str:
    """``96 x 96, rad, 24.4 by 24.4 angstrom``."""
    text = _shape_text(image.data.shape) + (f", {image.units}" if image.units else "")
    if not len(image.y) or not len(image.x):
        return text
    spans = " by ".join(value_text(float(axis[-1]) - float(axis[0])) for axis in (image.y, image.x))
    return printable_text(f"{text}, {spans} {image.axis_units}")


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _tail_lines(log: str) -> list[str]:
    lines = [f"  {inert_text(line)}".rstrip() for line in log.rstrip().splitlines()]
    left_out = len(lines) - LOG_TAIL
    return lines if left_out <= 1 else [f"  ... {left_out} lines before, see --log", *lines[-LOG_TAIL:]]
