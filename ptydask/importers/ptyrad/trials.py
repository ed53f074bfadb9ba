"""The trials of a folder one after the other, as records and arrays; what is wrong with a file is said, not raised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptydask.analysis.export import ptyrad_names
from ptydask.engines.ptyrad import image_metrics
from ptydask.errors import StoreError, one_line
from ptydask.importers.ptyrad import description, matching, output
from ptydask.importers.ptyrad.description import StudyDescription
from ptydask.importers.ptyrad.matching import ImportedTrial
from ptydask.model import Quantity, Reason, Scalar, TrialOutput, TrialRecord, TrialState
from ptydask.space import tunables
from ptydask.space.metric_facts import to_angstrom
from ptydask.store.foreign import ptyrad_model
from ptydask.store.foreign.ptyrad_model import PtyradModel

ORIGIN = "imported"


@dataclass
class ImportSummary:
    """What became of the trials, for the report."""

    states: dict[str, int] = field(default_factory=dict)
    """``complete``, ``pruned``, ``failed``, ``interrupted``: how many."""
    sources: dict[str, int] = field(default_factory=dict)
    """Where the values of so many trials come from."""
    arrays: int = 0
    earlier: int = 0
    """Trials whose arrays are of an iteration before their last, as PtyRAD saved no later one."""
    pictures: int = 0
    """Trials that have a TIFF instead of arrays."""
    snapshots: int = 0
    rounded: set[str] = field(default_factory=set)
    """Parameters that are known to three digits only."""
    rounded_trials: int = 0
    renumbered: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)

    def note(self, record: TrialRecord, trial: ImportedTrial) -> None:
        """Count a trial."""
        word = "interrupted" if record.reason is Reason.INTERRUPTED else record.state.word
        self.states[word] = self.states.get(word, 0) + 1
        self.sources[trial.source] = self.sources.get(trial.source, 0) + 1
        self.rounded |= trial.rounded
        self.rounded_trials += bool(trial.rounded)
        self.renumbered += trial.original is not None


def recover_from_models(
    trials: Sequence[ImportedTrial], about: StudyDescription, tally: ImportSummary
) -> list[ImportedTrial]:
    """The trials with what their model files know better than the files' names. Raises nothing."""
    recovered = []
    for rough in trials:
        trial = matching.recover_exact_values(rough, about.space, {}, {})
        model = _read_model(trial.model, tally, large=False) if trial.rounded and trial.model is not None else None
        if model is not None:
            exact, close = output.exact_values(model), output.close_values(model)
            trial = matching.recover_exact_values(trial, about.space, exact, close)
        recovered.append(_complete_from_models(trial, about, tally) if trial.source == matching.FILE else trial)
    return recovered


def _complete_from_models(trial: ImportedTrial, about: StudyDescription, tally: ImportSummary) -> ImportedTrial:
    """A trial that has only a folder: its error and what can be told of its values are in its last file."""
    for file in sorted(trial.saved, key=lambda file: -file.iteration):
        model = _read_model(file.path, tally, whole=True)
        if model is None:
            continue
        value = _model_value(model, about)
        exact, close = output.exact_values(model), output.close_values(model)
        own_params = description.params_from_model(model)
        exact |= {name: tunables.current_value(own_params, name) for name in about.space if name in _IN_PARAMS}
        values = {name: value for name, value in {**close, **exact}.items() if value is not None}
        params = {name: values[name] for name in about.space if name in values}
        inexact = frozenset(name for name in about.space if name not in exact)
        return replace(trial, value=value, params=params, rounded=inexact, iteration=file.iteration)
    return trial


_IN_PARAMS = ("batch_size", "optimizer")
"""Tuned values that PtyRAD puts into the params of a trial's model file."""


def _is_same_loss(loss: float, other: float) -> bool:
    """A reconstruction that diverged has NaN in its file as in the database."""
    return loss == other or (math.isnan(loss) and math.isnan(other))


def _last_loss(model: PtyradModel) -> float | None:
    return float(model.losses[-1, 1]) if len(model.losses) else None


def _model_value(model: PtyradModel, about: StudyDescription) -> float | None:
    """What PtyRAD minimised, as the model has it."""
    if about.metric == "loss":
        return _last_loss(model)
    contrast = output.contrast(model)
    return None if contrast is None else about.sign * contrast


def convert_trials(
    trials: Sequence[ImportedTrial], about: StudyDescription, tally: ImportSummary, progress: Callable[[int, int], None]
) -> Iterator[tuple[TrialRecord, TrialOutput | None]]:
    """Record and output of each trial, read when it is asked for."""
    last = about.iterations or max((trial.iteration or 0 for trial in trials), default=0)
    for index, trial in enumerate(trials):
        progress(index, len(trials))
        converted = _TrialConverter(trial, about, tally, last).convert()
        tally.note(converted[0], trial)
        yield converted
    progress(len(trials), len(trials))


class _TrialConverter:
    """One trial on its way into the results file."""

    def __init__(self, trial: ImportedTrial, about: StudyDescription, tally: ImportSummary, last: int) -> None:
        self.trial, self.about, self.tally, self.last = trial, about, tally, last
        self.attributes: dict[str, Scalar] = {
            "values_exact": not trial.rounded,
            "values_from": trial.source,
            **({"values_rounded": ", ".join(sorted(trial.rounded))} if trial.rounded else {}),
            **({"ptyrad_trial": trial.original} if trial.original is not None else {}),
        }

    def convert(self) -> tuple[TrialRecord, TrialOutput]:
        final, path = self._final_model()
        saved = self._saved_models(final)
        snapshots = dict(saved)
        reached = self._last_iteration(final, saved)
        if final is None and saved:
            step, (final, path) = max(saved.items())
            del snapshots[step]
            if step < reached:
                self.attributes["arrays_iteration"] = step
                self.tally.earlier += 1
        contents = self._build_output(final, snapshots, path)
        error = self._final_error(final if final is not None and final.iteration == reached else None)
        metrics = {**contents.metrics, **({} if error is None else {self.about.metric: error})}
        seconds = self.trial.seconds or float(contents.attributes.get("recon_seconds") or 0.0)
        record = self._build_record(error, metrics, reached, seconds)
        record = replace(record, last_step=reached or None, iterations=_count_iterations(reached, contents.arrays))
        if final is not None and final.seed is not None:
            record = replace(record, seed=final.seed)
        return record, replace(contents, metrics=metrics)

    def _final_model(self) -> tuple[PtyradModel | None, Path | None]:
        """The model of the last iteration, where it is there and is this trial's."""
        if self.trial.model is None:
            return None, None
        model = _read_model(self.trial.model, self.tally)
        why = "" if model is None else self._why_foreign(model)
        if why:
            self.tally.skipped[self.trial.model] = why
        if model is None or why:
            self.attributes["not_imported"] = f"{self.trial.model.name}: {self.tally.skipped[self.trial.model]}"
            return None, None
        return model, self.trial.model

    def _why_foreign(self, model: PtyradModel) -> str:
        """Why a model cannot be of this trial; "" where it can. PtyRAD writes over files of the same name."""
        reported = self.trial.reported
        if not reported or not len(model.losses):
            return ""
        if model.iteration > max(reported):
            return f"is of iteration {model.iteration}, trial {self.trial.number} ended after {max(reported)}"
        if self.about.metric == "loss":
            for step, loss in model.losses.tolist():
                if step in reported and not _is_same_loss(reported[step], loss):
                    return f"its loss at iteration {step:.0f} is {loss!r}, not the trial's {reported[step]!r}"
        return ""

    def _saved_models(self, final: PtyradModel | None) -> dict[int, tuple[PtyradModel, Path]]:
        """What was saved on the way, by iteration; without the last one where it is the final model once more."""
        saved = {}
        for file in self.trial.saved:
            model = _read_model(file.path, self.tally)
            if model is None:
                continue
            other_trial = self._why_other_trial(model, final)
            if not other_trial and final is not None and file.iteration == final.iteration:
                continue
            why = self._why_foreign(model) or other_trial
            if why:
                self.tally.skipped[file.path] = why
            else:
                saved[file.iteration] = (model, file.path)
        return saved

    def _why_other_trial(self, model: PtyradModel, final: PtyradModel | None) -> str:
        if final is None or np.array_equal(model.losses, final.losses[: len(model.losses)], equal_nan=True):
            return ""
        return f"its losses are not those of trial {self.trial.number}"

    def _last_iteration(self, final: PtyradModel | None, saved: Mapping[int, Any]) -> int:
        if final is not None:
            return final.iteration
        if self.trial.reported:
            return max(self.trial.reported)
        if self.trial.iteration is not None:
            return self.trial.iteration
        return self.last if self.trial.state is TrialState.COMPLETE else max(saved, default=0)

    def _build_output(
        self, model: PtyradModel | None, snapshots: Mapping[int, tuple[PtyradModel, Path]], path: Path | None
    ) -> TrialOutput:
        about, trial = self.about, self.trial
        if model is None:
            return self._output_from_picture()
        scale = output.find_length_scale(model, about.config, trial.params)
        self.tally.arrays += 1
        self.tally.snapshots += len(snapshots)
        self._note_source(path)
        # Of an earlier iteration, loss and contrast are not what the trial ended with.
        at_end = "arrays_iteration" not in self.attributes
        final_metrics = {"loss": _last_loss(model)} if at_end else {}
        if at_end and about.metric != "contrast":
            final_metrics["contrast"] = output.contrast(model)
        image = output.phase_image(model, scale)
        if at_end:
            final_metrics |= image_metrics.measure_image(image.data, to_angstrom(scale.dx, scale.unit))
        return TrialOutput(
            metrics={name: value for name, value in final_metrics.items() if value is not None},
            curve=output.curve(model if at_end else None, self._reported_errors(), about.metric)
            or output.curve(model, {}, about.metric),
            arrays=output.model_arrays(model, scale),
            image=image,
            snapshots={step: self._snapshot_arrays(taken) for step, (taken, _) in sorted(snapshots.items())},
            attributes={**output.trial_attributes(model, about.config, scale), **self.attributes},
        )

    def _snapshot_arrays(self, model: PtyradModel) -> dict[str, Quantity]:
        scale = output.find_length_scale(model, self.about.config, self.trial.params)
        return output.model_arrays(model, scale, scan=False)

    def _output_from_picture(self) -> TrialOutput:
        """Without a model file: the numbers, and a TIFF as the image where there is one."""
        image, chosen = None, output.choose_picture(self.trial.pictures)
        if chosen is not None:
            kind, path = chosen
            try:
                image = output.read_picture(path, kind, self.about.config, self.trial.params)
                self.tally.pictures += 1
                self._note_source(path)
            except Exception as error:  # of a damaged TIFF, tifffile raises whatever comes up
                self.tally.skipped[path] = f"not readable as an image: {one_line(str(error))[:200]}"
        curve = output.curve(None, self._reported_errors(), self.about.metric)
        return TrialOutput(metrics={}, curve=curve, image=image, attributes=self.attributes)

    def _note_source(self, path: Path | None) -> None:
        if path is not None:
            self.attributes["source"] = str(path)

    def _reported_errors(self) -> dict[int, float]:
        return {step: self.about.sign * value for step, value in self.trial.reported.items()}

    def _final_error(self, final: PtyradModel | None) -> float | None:
        """In our sign; where only the five digits of a name are known, what the model says, if it says the same."""
        trial, about = self.trial, self.about
        if trial.value is None:
            return None
        if trial.error_text and final is not None:
            exact = _model_value(final, about)
            if exact is not None and ptyrad_names.error_text(exact) == trial.error_text:
                self.attributes["error_from"] = matching.FILE
                return about.sign * exact
        if trial.error_text:
            self.attributes["error_from"] = matching.NAMES
        return about.sign * trial.value

    def _build_record(
        self, error: float | None, metrics: Mapping[str, float], reached: int, seconds: float
    ) -> TrialRecord:
        trial = self.trial
        state, reason, message = trial.state, trial.reason, trial.message
        if state is None:
            state = TrialState.COMPLETE if reached >= self.last else TrialState.PRUNED
            reason = Reason.NONE if state is TrialState.COMPLETE else Reason.PRUNED
            if error is None or not math.isfinite(error):
                state, reason, message = TrialState.FAIL, Reason.FAILED, "the error is not a number"
        return TrialRecord(
            number=trial.number,
            state=state,
            error=error,
            params=trial.params,
            metrics=metrics,
            reason=reason,
            message=message,
            origin=ORIGIN,
            started=trial.started.isoformat() if trial.started else "",
            seconds=seconds,
            seed=self.about.seed,
        )


def _count_iterations(reached: int, arrays: Mapping[str, Quantity]) -> float | None:
    """Iterations over the whole scan; None where no model file says which part each went over."""
    if "crop_positions" not in arrays:
        return None
    chosen = arrays.get("scan_indices", arrays["crop_positions"])
    return reached * len(chosen.data) / len(arrays["crop_positions"].data)


def _read_model(path: Path, tally: ImportSummary, *, whole: bool = False, large: bool = True) -> PtyradModel | None:
    """A model file; None, and said why, for one that is damaged or still being written."""
    try:
        return ptyrad_model.read(path, without=() if whole else output.HEAVY, large=large)
    except StoreError as error:
        tally.skipped[path] = str(error).removeprefix(f"{path}: ")
        return None
