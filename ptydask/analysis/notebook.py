"""Studies and trials as a notebook shows them: HTML in which every text from the file is only text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ptydask.analysis import greys
from ptydask.analysis.stages import stage_text
from ptydask.errors import PtydaskError
from ptydask.formatting import counted, uncertain_text
from ptydask.model import Image, StudyMeta

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ptydask.analysis.results import StudyResults
    from ptydask.analysis.trial import Trial

_SIDE = 240
"""Pixels of an image on the screen, at most."""
_MOST = 512
"""Pixels of an image in the page, at most: a notebook is saved with it."""
_SHOWN = 12
"""Rows of trials that are shown with their image."""


def study_html(study: StudyResults) -> str:
    """Name, counts, and the best trial with its image and parameters."""
    meta = study.meta
    stage = "" if meta.lineage is None else f" · {escape(stage_text(meta.lineage))}"
    head = (
        f"<b>{escape(meta.name)}</b>{stage}<br>{escape(str(study.status))}<br>"
        f"<small>{escape(meta.direction)} {escape(meta.metric)} · {escape(str(study.path))}</small>"
    )
    if meta.lineage is not None:
        head += study.stages._repr_html_()
    best = study.best(1)
    if not best:
        return f"<div>{head}</div>"
    return f"<div>{head}{_trial_summary(best[0], meta.metric, 'Best trial', _optimum_notes(study, best[0]))}</div>"


def _optimum_notes(study: StudyResults, best: Trial) -> dict[str, str]:
    """What is said beside the best trial's parameters; nothing where the slopes tell of no optimum, or another's."""
    from ptydask.analysis.optimum import optimum_texts

    optimum = study.optimum()
    if optimum is None or optimum.trial != best.number:
        return {}
    return {name: f"optimum {text} by the slopes" for name, text in optimum_texts(optimum, study.meta).items()}


def trial_html(trial: Trial, metric: str) -> str:
    """A trial with its image, parameters and metrics."""
    return f"<div>{_trial_summary(trial, metric, 'Trial')}</div>"


def _confirmed_html(trial: Trial) -> list[str]:
    """Mean and standard deviation of the error over other seeds; nothing of a trial that was not confirmed."""
    with suppress(PtydaskError):
        if known := trial.confirmed:
            text = escape(uncertain_text(known.mean, known.sd))
            return [f"<small>{text} with {counted(known.n, 'other seed')}</small>"]
    return []


def trials_html(trials: Sequence[Trial], meta: StudyMeta) -> str:
    """A table of trials, the first dozen with their images; of more than 50 the last are left out, and damaged ones."""
    readable = [trial for trial in trials[:50] if _is_readable(trial)]
    names = list(dict.fromkeys(name for trial in readable for name in trial.params))
    rows = [
        [_image_tag(trial, 96) if i < _SHOWN else "", str(trial.number), trial.state.word, _number_html(trial.error)]
        + [_number_html(trial.params[name]) if name in trial.params else "" for name in names]
        for i, trial in enumerate(readable)
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "trial", "state", meta.metric, *names))
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    rest = f"<small>{len(trials) - len(readable)} are not shown</small>" if len(trials) > len(readable) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _is_readable(trial: Trial) -> bool:
    try:
        return trial.record is not None
    except PtydaskError:
        return False


def encode_png(image: Image) -> bytes | None:
    """The image in grey as a PNG, its few darkest and brightest pixels clipped; None without Matplotlib."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        return None
    if image.data.ndim != 2:
        return None
    data = greys.binned(np.asarray(image.data, dtype=np.float32), greys.binning(image.data.shape, _MOST))
    ends = greys.grey_limits(data)
    if ends is None:
        return None
    low, high = ends
    out = io.BytesIO()
    pixels = np.where(np.isfinite(data), data, low)
    imsave(out, pixels, cmap="gray", vmin=low, vmax=high, format="png")
    return out.getvalue()


def make_displayable(figure: Figure) -> Figure:
    """The figure, which a notebook shows as a picture also where nobody has imported pyplot."""
    open_to_more: Any = figure
    open_to_more._repr_png_ = partial(_figure_png, figure)
    return figure


def _figure_png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _trial_summary(trial: Trial, metric: str, word: str, notes: Mapping[str, str] | None = None) -> str:
    """The image on the left, the numbers on the right; the reason where the trial is damaged."""
    try:
        trial.record  # noqa: B018
    except PtydaskError as damaged:
        return f"<div><b>{word} {trial.number}</b> · {escape(str(damaged))}</div>"
    error = "" if trial.error is None else f" · {escape(metric)} {_number_html(trial.error)}"
    lines = [f"<b>{word} {trial.number}</b> · {trial.state.word}{error}"]
    lines += _confirmed_html(trial)
    if trial.message:
        lines.append(f"<code>{escape(trial.message)}</code>")
    metrics = {name: value for name, value in trial.metrics.items() if name != metric}
    lines.append(_values_table(trial.params, metrics, notes or {}))
    numbers = "".join(f"<div>{line}</div>" for line in lines if line)
    style = "display:flex;gap:1em;align-items:flex-start;margin-top:.5em"
    return f'<div style="{style}">{_image_tag(trial, _SIDE)}<div>{numbers}</div></div>'


def _image_tag(trial: Trial, side: int) -> str:
    """The trial's image as an ``<img>``; nothing where it has none, as the numbers are worth showing anyhow."""
    try:
        image = trial.image
        png = encode_png(image) if image is not None else None
    except PtydaskError:
        return ""
    if image is None or png is None:
        return ""
    text = base64.b64encode(png).decode("ascii")
    height, width = image.data.shape
    style = f"width:{side}px;height:auto" if width >= height else f"height:{side}px;width:auto"
    title = escape(f"trial {trial.number}: {image.title}{_extent_text(image)}", quote=True)
    return f'<img src="data:image/png;base64,{text}" alt="{title}" title="{title}" style="{style}">'


def _extent_text(image: Image) -> str:
    if len(image.y) < 2 or len(image.x) < 2:
        return ""
    spans = (f"{abs(float(axis[-1] - axis[0]) + float(axis[1] - axis[0])):.4g}" for axis in (image.y, image.x))
    return f", {' x '.join(spans)} {image.axis_units}"


def _values_table(params: Mapping[str, Any], metrics: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """Parameters, with ``notes`` beside them, and below them, paler, what else was measured."""
    cell = '<td style="text-align:left;padding:0 .8em 0 0">'
    rows = [
        f'<tr style="opacity:{opacity}">{cell}{escape(name)}</td>{cell}{_number_html(value)}</td>'
        f"{f'{cell}{escape(beside[name])}</td>' if name in beside else ''}</tr>"
        for values, opacity, beside in ((params, 1, notes), (metrics, 0.6, {}))
        for name, value in values.items()
    ]
    return f'<table style="margin:0">{"".join(rows)}</table>' if rows else ""


def _number_html(value: object) -> str:
    """A value with six significant digits, as text for HTML."""
    return escape(f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value))
