"""What a person sees of a run: a snapshot as lines of text, for any width. Pure functions.

The live view, the log and ``ptydask status`` all speak in these lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ptydask.engines import repeat
from ptydask.formatting import (
    NOTHING,
    counted,
    duration_text,
    error_text,
    params_text,
    printable_text,
    shorten_text,
    state_text,
    value_text,
    work_text,
)
from ptydask.model import (
    BY_SLOPES,
    FROM_EARLIER,
    GUESSED,
    NEAR_VALUES,
    OWN_VALUES,
    TRIED,
    TrialRecord,
    TrialState,
)
from ptydask.run_snapshot import RunningTrial, RunSnapshot

Span = tuple[str, str]
"""A piece of text and its style in rich's words, empty for plain."""
Line = tuple[Span, ...]

MOST_RUNNING = 16
"""Rows of running trials, however tall the window is."""
_WORTH_SAYING = 1800.0
"""Seconds of workers below which nobody asks what a run costs."""
_STATES = (("complete", "green"), ("pruned", "yellow"), ("failed", "red"), ("running", "cyan"))


Glyphs = tuple[str, str]
"""The characters of the full and of the empty part of a progress bar."""
BLOCKS: Glyphs = ("━", "─")
ASCII: Glyphs = ("#", "-")


def text_of(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line)


def render_frame(snapshot: RunSnapshot, width: int, height: int, glyphs: Glyphs, *, over: str = "") -> list[Line]:
    """The whole run in at most ``height`` lines of at most ``width`` characters.

    ``over``, the last line of a run that has ended, takes the place of what only a run under way has:
    running trials, workers and time left.
    """
    head = [
        _title_line(snapshot, width),
        _progress_line(snapshot, width, glyphs),
        *_count_lines(snapshot, width, bool(over)),
    ]
    best = _best_lines(snapshot, width)
    if over:
        foot = wrap_words([over], width, "dim")
        return [_clip_line(line, width) for line in [*head, *best, *foot]][: max(1, height)]
    foot = wrap_words(_footer_words(snapshot), width, "dim")
    room = min(MOST_RUNNING, height - len(head) - len(best) - len(foot))
    others = _other_rows(snapshot.others, max(0, room // 2))
    rows = _running_rows(snapshot, width, room - len(others), glyphs)
    return [_clip_line(line, width) for line in [*head, *best, *rows, *others, *foot]][: max(1, height)]


def progress_bar(done: float, width: int, glyphs: Glyphs) -> tuple[str, str]:
    """The full and the empty part of a bar of ``width`` characters; ``done`` is clipped to 0..1."""
    share = min(1.0, max(0.0, done)) if math.isfinite(done) else 0.0
    count, (full, empty) = int(share * width), glyphs
    return full * count, empty * (width - count)


def finished_line(record: TrialRecord, best: bool, snapshot: RunSnapshot) -> str:
    """A trial that ended, in one line of a log; with the origin of its point where no sampler chose it.

    Of a repeat: which one it is of all, and what it repeats.
    """
    done = f"{snapshot.recorded}/{snapshot.total}"
    if snapshot.repeats:
        parts = [f"repeat {done}: {repeat.describe(record.params)}", state_text(record)]
    else:
        parts = [f"trial {record.number} {state_text(record)}"]
    if record.state is TrialState.FAIL and record.message:
        parts.append(printable_text(record.message))
    elif snapshot.metric:
        error = f"{printable_text(snapshot.metric)} {error_text(record.error)}"
        parts.append(f"{error} (best)" if best else error)
    if record.params and not snapshot.repeats:
        parts.append(params_text(record.params))
    if _is_worth_saying(record.origin):
        parts.append(printable_text(record.origin))
    if record.attempt > 1:
        parts.append(f"attempt {record.attempt}")
    parts += [duration_text(record.seconds), *([] if snapshot.repeats else [done]), *_stage_words(snapshot)]
    return _of_study(snapshot) + "  ".join(parts)


def _of_study(snapshot: RunSnapshot) -> str:
    """``scan-b: `` of a queue, as every other line of its log begins."""
    name = printable_text(snapshot.queue).partition(": ")[2]
    return f"{name}: " if name else ""


def _is_worth_saying(origin: str) -> bool:
    return origin in (BY_SLOPES, GUESSED, OWN_VALUES, NEAR_VALUES, TRIED) or origin.startswith(FROM_EARLIER)


def heartbeat_line(snapshot: RunSnapshot) -> str:
    """The run at this moment, in one line of a log."""
    parts = [f"{snapshot.recorded}/{snapshot.total} {snapshot.noun}s: {_count_words(snapshot)}"]
    if snapshot.running:
        names = [f"{_running_name(trial, snapshot)} at {_step_text(trial, snapshot)}" for trial in snapshot.running[:4]]
        trials = "; ".join(names) if snapshot.repeats else f"trial {', '.join(names)}"
        more = len(snapshot.running) - 4
        if more > 0:
            trials += f" and {more} more"
        parts[0] += f" ({trials})"
    if snapshot.best is not None:
        parts.append(f"best {error_text(snapshot.best.error)} (trial {snapshot.best.number})")
    return _of_study(snapshot) + "; ".join([*_stage_words(snapshot), *parts, *_footer_words(snapshot)])


def closing_line(snapshot: RunSnapshot) -> str:
    """How the run ended, in one line of a log."""
    study = f"{snapshot.study} ({stage[0]})" if (stage := _stage_words(snapshot)) else snapshot.study
    text = f"{study}: {snapshot.recorded}/{snapshot.total} {snapshot.noun}s in {duration_text(snapshot.seconds)}"
    text += f": {_count_words(snapshot)}"
    best = snapshot.best
    if best is None:
        return f"{text}; none completed" if snapshot.metric and not snapshot.repeats else text
    text += f"; best {snapshot.metric} {error_text(best.error)} (trial {best.number})"
    return f"{text}  {params_text(best.params)}" if best.params else text


def _stage_words(snapshot: RunSnapshot) -> list[str]:
    """``stage 2 of 4: scan``; nothing for a study without stages."""
    return [f"stage {printable_text(snapshot.stage)}"] if snapshot.stage else []


# --- the parts of a frame ------------------------------------------------------------------------------


def _title_line(snapshot: RunSnapshot, width: int) -> Line:
    aim = "" if snapshot.direction == "minimize" else ", the larger the better"
    study = [f"study {printable_text(snapshot.queue)}"] if snapshot.queue else []
    tail = "".join(f"  {word}" for word in [*study, *_stage_words(snapshot)])
    tail += f"  {snapshot.metric}{aim}" if snapshot.metric else ""
    name = shorten_text(printable_text(snapshot.study), max(8, width - len(tail)))
    return ((name, "bold"), (tail, "dim"))


def _progress_line(snapshot: RunSnapshot, width: int, glyphs: Glyphs) -> Line:
    if snapshot.total <= 0:
        return ((f"{snapshot.recorded} {snapshot.noun}s recorded", ""),)
    done = snapshot.recorded / snapshot.total
    tail = f" {snapshot.recorded}/{snapshot.total} {snapshot.noun}s"
    full, empty = progress_bar(done, max(4, min(60, width - len(tail))), glyphs)
    return ((full, "green"), (empty, "dim"), (tail, ""))


def _count_lines(snapshot: RunSnapshot, width: int, over: bool) -> list[Line]:
    """``10 complete  1 pruned``; on as many lines as it takes."""
    states = _STATES[:-1] if over else _STATES  # nothing is running any more
    spans: list[Span] = []
    for word, style in states:
        count = snapshot.counts.get(word, 0)
        spans.append((f"{count} {word}", style if count else "dim"))
    if snapshot.counts.get("lost", 0):
        spans.append((f"{snapshot.counts['lost']} lost and run again", "magenta"))
    lines: list[Line] = []
    for span in spans:
        if lines and len(text_of(lines[-1])) + 2 + len(span[0]) <= width:
            lines[-1] = (*lines[-1], ("  ", ""), span)
        else:
            lines.append((span,))
    return lines


def _best_lines(snapshot: RunSnapshot, width: int) -> list[Line]:
    """The best trial so far with its parameters, wrapped to at most four lines; nothing of repeats."""
    best = snapshot.best
    if snapshot.repeats:
        return []
    if best is None:
        return [(("best  none completed yet" if snapshot.metric else "best  none: there is no metric", "dim"),)]
    words = [f"trial {best.number}", f"{error_text(best.error)}"]
    words += [f"{printable_text(name)}={value_text(value)}" for name, value in best.params.items()]
    words += [printable_text(best.origin)] if _is_worth_saying(best.origin) else []
    lines = wrap_words(words, max(10, width - 6), "bold green", "  ")
    if len(lines) > 4:
        lines = [*lines[:3], (("...", "dim"),)]
    return [(("best  " if i == 0 else "      ", ""), *line) for i, line in enumerate(lines)]


def _other_rows(others: Sequence[str], room: int) -> list[Line]:
    """The other studies of a queue; the last row counts those there is no room for."""
    more = len(others) - room
    listed = [*others[: room - 1], f"... and {more + 1} more studies"] if room and more > 0 else others[:room]
    return [((printable_text(line), "dim"),) for line in listed]


def _running_rows(snapshot: RunSnapshot, width: int, room: int, glyphs: Glyphs) -> list[Line]:
    """A row a running trial; the last row counts those there is no room for."""
    trials = snapshot.running
    if room < 1 or not trials:
        return []
    listed = trials if len(trials) <= room else trials[: room - 1]
    digits = max((len(_running_name(t, snapshot)) for t in listed), default=1)
    steps = max((len(_step_text(t, snapshot)) for t in listed), default=1)
    workers = min(14, max((len(printable_text(t.worker)) for t in listed), default=0))
    rows = [_running_row(t, snapshot, width, glyphs, (digits, steps, workers)) for t in listed]
    more = len(trials) - len(listed)
    return [*rows, ((f"... and {more} more", "dim"),)] if more else rows


def _running_row(
    trial: RunningTrial, snapshot: RunSnapshot, width: int, glyphs: Glyphs, columns: tuple[int, int, int]
) -> Line:
    digits, steps, workers = columns
    spans: list[Span] = [(_running_name(trial, snapshot).rjust(digits), "bold")]
    if snapshot.iterations:
        full, empty = progress_bar(trial.step / snapshot.iterations, 8 if width < 60 else 16, glyphs)
        spans += [("  ", ""), (full, "cyan"), (empty, "dim")]
    spans.append(("  " + _step_text(trial, snapshot).rjust(steps) + "  " + error_text(trial.error).rjust(11), ""))
    if workers and width >= 60:
        spans.append(("  " + shorten_text(printable_text(trial.worker), workers).ljust(workers), "dim"))
    if not snapshot.repeats and width - len(text_of(tuple(spans))) >= 16:  # room for a parameter or two
        spans.append(("  " + params_text(trial.params), ""))
    return tuple(spans)


def _running_name(trial: RunningTrial, snapshot: RunSnapshot) -> str:
    """A trial's number; what a repeat repeats."""
    return repeat.describe(trial.params) if snapshot.repeats and trial.params else str(trial.number)


def _step_text(trial: RunningTrial, snapshot: RunSnapshot) -> str:
    return f"{trial.step}/{snapshot.iterations}" if snapshot.iterations else f"step {trial.step}"


def _footer_words(snapshot: RunSnapshot) -> list[str]:
    """Workers, time so far, time left."""
    count = snapshot.workers
    workers = "waiting for workers" if count == 0 else counted(count, "worker")
    remaining = "time left not known yet"
    if snapshot.remaining is not None and math.isfinite(snapshot.remaining):
        remaining = f"{duration_text(snapshot.remaining)} left"
    waiting = [printable_text(snapshot.waiting)] if snapshot.waiting else []
    work = snapshot.work or 0.0
    pace = [f"about {work_text(work, snapshot.on_gpus)} at this pace"] if work >= _WORTH_SAYING else []
    return [workers, *waiting, f"{duration_text(snapshot.seconds)} so far", remaining, *pace]


def _count_words(snapshot: RunSnapshot) -> str:
    """``10 complete, 1 failed, 2 running``: what is not nought."""
    words = [f"{count} {word}" for word, count in snapshot.counts.items() if count]
    return ", ".join(words) or "none yet"


# --- fitting -----------------------------------------------------------------------------------------


def wrap_words(words: Iterable[str], width: int, style: str, gap: str = ", ") -> list[Line]:
    """Words joined by ``gap``, on as many lines as it takes; a word longer than a line is cut."""
    lines: list[str] = []
    for word in words:
        cut = shorten_text(word, width)
        if lines and len(lines[-1]) + len(gap) + len(cut) <= width:
            lines[-1] += gap + cut
        else:
            lines.append(cut)
    return [((line, style),) for line in lines] or [((NOTHING, style),)]


def _clip_line(line: Sequence[Span], width: int) -> Line:
    """The line cut to ``width`` characters, with ``...`` for what is missing."""
    if len(text_of(tuple(line))) <= width:
        return tuple(line)
    room, spans = max(0, width - 3), []
    for text, style in line:
        spans.append((text[:room], style))
        room = max(0, room - len(text))
    return (*(span for span in spans if span[0]), ("..."[:width], "dim"))
