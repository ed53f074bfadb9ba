"""``status``: how a running or finished study stands, seen from another shell."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptydask import formatting
from ptydask.cli import arguments, formats
from ptydask.cli.formats import trial_object
from ptydask.driver.contract import snapshot_of_records
from ptydask.formatting import duration_text
from ptydask.model import StudyMeta, TrialRecord, TrialState
from ptydask.progress.frame import ASCII, BLOCKS, Glyphs, Line, render_frame, text_of, wrap_words
from ptydask.progress.screen import Screen, can_redraw
from ptydask.run_snapshot import RunningTrial, RunSnapshot

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation
    from ptydask.analysis.stages import Stages
    from ptydask.store.reader import Results

Word = Literal["running", "gone", "stopped", "finished"]


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How a study stands: one word for programs, one line for a person."""

    state: Word
    text: str


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ``status`` to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="show how a running or finished study stands",
        description="Show how a running or finished study stands, from any shell that sees the file.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.h5", help="the results file")
    parser.add_argument("--format", choices=formats.FORMATS, default="table", help="how to print (default: table)")
    parser.add_argument(
        "--watch",
        type=arguments.number(math.ulp(0.0), 86400, "a number of seconds above 0, and at most a day"),
        metavar="SECONDS",
        help="show it again every so often until the run has ended",
    )
    parser.set_defaults(handler=run_status)


def run_status(args: argparse.Namespace) -> int:
    """``ptydask status``: 0; 130 where --watch was ended by Ctrl-C."""
    try:
        if args.watch is None:
            _print_status(read_status(args.file, time.time()), args.format)
        else:
            _watch_status(args.file, args.watch, args.format)
    except KeyboardInterrupt:
        return 130
    return 0


# --- decisions ---------------------------------------------------------------------------------------


def study_status(
    driver: str, *, live: bool, packed: bool, unfinished: int | None, to_come: bool = False
) -> StudyStatus:
    """How a study stands.

    ``driver`` names who said something last, empty once a driver ended in peace; ``live`` whether one holds the study;
    ``packed`` whether all that was recorded is in one file; ``unfinished`` how many trials are to go, where known;
    ``to_come`` whether stages are.
    """
    if live:
        return StudyStatus("running", f"running: {driver}" if driver else "running")
    # A driver that was to add trials leaves the file packed until its first.
    if packed and not unfinished and not to_come:
        return StudyStatus("finished", "finished: everything is in this one file")
    left = formatting.counted(unfinished, "trial") if unfinished else "stages" if to_come else ""
    todo = f" with {left} to go" if left else ""
    go_on = "the same command goes on from here"
    if driver:
        return StudyStatus("gone", f"its driver is gone{todo} ({driver}); {go_on}")
    return StudyStatus("stopped", f"stopped{todo}; {go_on}")


def parse_timestamp(value: object) -> float:
    """Seconds since 1970 of a time stamp, a number or ISO 8601; of none at all, 0."""
    if isinstance(value, int | float):
        return float(value)
    try:
        stamp = datetime.fromisoformat(str(value))
    except ValueError:
        return 0.0
    return (stamp if stamp.tzinfo else stamp.astimezone()).timestamp()


def snapshot_from(status: Mapping[str, Any]) -> RunSnapshot:
    """The snapshot that a driver wrote down as plain values."""
    running = [RunningTrial(**_known_fields(RunningTrial, item)) for item in status.get("running", ())]
    best = status.get("best")
    if best is not None:
        best = TrialRecord(**{**_known_fields(TrialRecord, best), "state": TrialState(best["state"])})
    return RunSnapshot(
        study=str(status.get("study", "")),
        results=Path(status.get("results", "")),
        total=int(status.get("total", 0)),
        counts=dict(status.get("counts", {})),
        best=best,
        running=tuple(running),
        workers=int(status.get("workers", 0)),
        seconds=float(status.get("seconds", 0.0)),
        remaining=status.get("remaining"),
        work=status.get("work"),
        on_gpus=bool(status.get("on_gpus")),
        iterations=status.get("iterations"),
        metric=str(status.get("metric", "error")),
        direction="maximize" if status.get("direction") == "maximize" else "minimize",
        repeats=bool(status.get("repeats")),
        stage=str(status.get("stage") or ""),
    )


def _known_fields(kind: type[RunningTrial | TrialRecord], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that this version has a field for: the driver may be of a later one."""
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}


# --- what is shown -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RepeatsStatus:
    """How far the confirmation of a study is."""

    recorded: int
    missing: int
    live: bool
    """Whether a driver has it."""

    @property
    def text(self) -> str:
        """In words; empty where nothing is missing."""
        if not self.missing:
            return ""
        total = self.recorded + self.missing
        go_on = "it is being run" if self.live else "the same `ptydask confirm` goes on from here"
        return f"its confirmation has {self.recorded} of {formatting.counted(total, 'repeat')}: {go_on}"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A study at one moment: how it stands, and its numbers."""

    standing: StudyStatus
    run: RunSnapshot
    updated: str
    """When the driver wrote the numbers down; empty where they are from the results themselves."""
    age: float
    """Seconds since then."""
    confirmation: Confirmation | None = None
    """What other seeds say of the best trials."""
    repeats: RepeatsStatus | None = None
    """How far their confirmation is; None where there is none."""
    stages: Stages | None = None
    """Those that have begun; None for a study without stages."""


def read_status(file: Path, now: float) -> StatusReport:
    """Read a results file and what its driver says beside it. Raises StoreError."""
    from ptydask.analysis.data import are_to_come, read_confirmation
    from ptydask.analysis.stages import read_stages
    from ptydask.store import reader

    with reader.open(file) as results:
        written = results.last_words() or {}
        run = snapshot_from(written["run"]) if written.get("run") else None
        driver = ""
        if written.get("pid") is not None:
            driver = f"process {written.get('pid')} on {formatting.printable_text(str(written.get('host')))}"
            driver += f" since {written.get('since')}"
        if run is not None and not results.live:  # its driver may have recorded more than it wrote down
            run = with_records(run, results.records(), results.meta)
        unfinished = None if run is None else max(0, run.total - run.recorded)
        to_come = are_to_come(results)
        standing = study_status(
            driver, live=results.live, packed=results.packed, unfinished=unfinished, to_come=to_come
        )
        if run is None:
            run = snapshot_of_records(results.records(), results.meta, file, complete=results.packed)
        confirmation, repeats = read_confirmation(results), read_repeats_status(results)
        stages = read_stages(results) if results.meta.lineage is not None else None
    updated = str(written.get("updated", ""))
    age = max(0.0, now - parse_timestamp(updated)) if updated else 0.0
    return StatusReport(standing, run, updated, age, confirmation, repeats, stages)


def with_records(run: RunSnapshot, records: Sequence[TrialRecord], meta: StudyMeta) -> RunSnapshot:
    """What a driver that is gone wrote down last, with the trials that it recorded after that."""
    if len(records) <= run.recorded:
        return run
    known = snapshot_of_records(records, meta, run.results, complete=False)
    numbers = {record.number for record in records}
    running = tuple(trial for trial in run.running if trial.number not in numbers)
    return replace(run, counts={**run.counts, **known.counts}, best=known.best, running=running)


def read_repeats_status(results: Results) -> RepeatsStatus | None:
    """How far the confirmation of a study is; None where it has none that can be read."""
    from ptydask.errors import StoreError
    from ptydask.store.confirmation import find_missing

    try:
        confirmed = results.confirmation()
        if confirmed is None:
            return None
        with confirmed:
            records = confirmed.records()
            return RepeatsStatus(len(records), len(find_missing(confirmed.meta, records)), confirmed.live)
    except StoreError:
        return None


def status_object(report: StatusReport) -> dict[str, Any]:
    """What ``--format json`` prints."""
    from ptydask.analysis.stages import stage_object

    run, stages = report.run, report.stages
    running = report.standing.state == "running"
    return {
        "study": run.study,
        "stage": run.stage or None,
        "state": report.standing.state,
        "text": report.standing.text,
        "results": str(run.results),
        "total": run.total or None,
        "recorded": run.recorded,
        "counts": {**run.counts, "running": run.counts.get("running", 0) if running else 0},
        "metric": run.metric,
        "direction": run.direction,
        "best": None if run.best is None else trial_object(run.best, report.confirmation),
        "running": [{f.name: getattr(t, f.name) for f in fields(t)} for t in run.running] if running else [],
        "iterations": run.iterations,
        "workers": run.workers if running else 0,
        "seconds": run.seconds,
        "remaining": run.remaining if running else None,
        "updated": report.updated or None,
        "repeats": None if report.repeats is None else report.repeats.recorded,
        "repeats_missing": None if report.repeats is None else report.repeats.missing,
        **({} if stages is None else {"stages": [stage_object(stage) for stage in stages.values()]}),
    }


def status_lines(report: StatusReport, width: int, height: int, *, glyphs: Glyphs) -> list[Line]:
    """What a person is shown, in at most ``height`` lines of at most ``width`` characters."""
    running = report.standing.state == "running"
    style = {"running": "green", "finished": "bold"}.get(report.standing.state, "yellow")
    listed = [] if report.stages is None else report.stages.lines()
    head: list[Line] = [((formatting.shorten_text(line, width), ""),) for line in listed]
    head += wrap_words(report.standing.text.split(" "), width, style, " ")
    span = duration_text(report.run.seconds)
    over = f"its last driver ran {span}" if report.updated else f"{span} in all trials together"
    foot = [line for text in _confirmed_lines(report) for line in wrap_words(text.split(" "), width, "", " ")]
    if report.updated:
        foot += wrap_words([f"as of {report.updated}", f"{duration_text(report.age)} ago"], width, "dim")
    room = max(1, height - len(head) - len(foot))
    return [*head, *render_frame(report.run, width, room, glyphs, over="" if running else over), *foot]


def _confirmed_lines(report: StatusReport) -> list[str]:
    """How many repeats are missing, and what the best trial has with other seeds, or that another is better by that."""
    from ptydask.analysis.confirmation import better_by_mean_text

    confirmation, best = report.confirmation, report.run.best
    todo = [report.repeats.text] if report.repeats is not None and report.repeats.text else []
    if confirmation is None or best is None:
        return todo
    if other := better_by_mean_text(confirmation):
        return [*todo, other]
    text = confirmation.mean_text(best.number)
    return [*todo, f"with other seeds trial {best.number} has {text}"] if text else todo


def _print_status(report: StatusReport, form: str) -> bool:
    """Print it; False when nobody reads any more."""
    if form == "table":
        width = formatting.window_size(sys.stdout)[0] - 1 if sys.stdout.isatty() else 100
        glyphs = BLOCKS if formatting.unicode_ready(sys.stdout) else ASCII
        lines = status_lines(report, width, 10_000, glyphs=glyphs)
        return formats.print_text("".join(f"{text_of(line)}\n" for line in lines))
    if form == "csv":
        values = status_object(report)
        flat = {k: v for k, v in values.items() if not isinstance(v, dict | list)}
        flat |= {f"counts.{word}": count for word, count in values["counts"].items()}
        flat["best"] = None if report.run.best is None else report.run.best.number
        return formats.print_text(formats.csv_text(list(flat), [flat]))
    return formats.print_text(formats.object_text(status_object(report), form))


def _watch_status(file: Path, interval: float, form: str) -> None:
    """Show it again and again until the run has ended: in place on a terminal."""
    screen = Screen(sys.stdout, os.environ) if form == "table" and can_redraw(sys.stdout, os.environ) else None
    try:
        while True:
            report = read_status(file, time.time())
            if screen is not None:
                screen.draw(partial(status_lines, report, glyphs=screen.glyphs))
            elif not _print_status(report, form):
                return
            if report.standing.state != "running":
                return
            time.sleep(interval)
    finally:
        if screen is not None:
            screen.close()
