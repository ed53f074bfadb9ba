"""A study as one web page that needs no network: summary, table, plots, images, and a page for each trial."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ptydask.analysis import stages
from ptydask.analysis.data import load_study
from ptydask.analysis.figures import need_matplotlib
from ptydask.analysis.report import page, pictures, plots, trial_album
from ptydask.errors import UsageError
from ptydask.store import files
from ptydask.store.reader import Results

IMAGES = 100
"""Trials that have a large image on the page, if nothing else is said."""

__all__ = ["IMAGES", "render", "write"]


def render(results: Results, *, images: int = IMAGES, made: datetime | None = None) -> str:
    """The page of a finished or running study, HTML.

    The ``images`` best trials come with a large image and probe, all others with a thumbnail. Two pages of the same
    file differ in ``made`` alone (now, if not given). Of a study with stages the page is of one, the figures after a
    final reconstruction are of the stage before it. Raises StoreError, and MissingDependency without matplotlib
    or Pillow.
    """
    need_matplotlib()
    pictures.import_pillow()
    from ptydask.analysis.optimum import study_importances
    from ptydask.analysis.report.collect import collect_page_data  # imports Matplotlib

    study = searched = load_study(results, on_all_cores=True)
    if tuned := results.tuned_before():
        with results.stage(tuned) as before:
            searched = load_study(before, on_all_cores=True)
    study_importances(searched)  # kept in it: figures and advice, made by two processes, both ask for them
    of_all = replace(searched, stages=stages.load_stages(results, curves=False))
    of_all.importances.update(searched.importances)
    with plots.drawn_meanwhile(of_all, of_page=searched is study) as drawn:
        album = trial_album.read(results, study, images=images)
        # Before its first trial a run has not said anything yet.
        running = results.status() or ({} if results.live else None)
        data = collect_page_data(study, album, running, stages.read_stages(results), searched)
        figures = drawn()
    return page.render(data, figures, source=results.path.name, made=made or datetime.now(UTC))


def write(results: Results, path: Path, *, images: int = IMAGES, made: datetime | None = None) -> Path:
    """Write the page of :func:`render` to ``path``, which is there whole or not at all; returns it.

    Raises UsageError for a name that is no page's, so that nothing else is ever overwritten.
    """
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"{path}: a report is a web page, a file whose name ends in .html")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = render(results, images=images, made=made)
    files.write_text(path, text, durable=False)
    return path
