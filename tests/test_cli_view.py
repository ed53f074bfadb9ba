"""The words for values, the frame of a run, the live view on a terminal, the lines of a log."""

from __future__ import annotations

import io
import math
import os
import re
import termios
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

import pytest

from ptydask import formatting
from ptydask.cli.status import StatusReport, snapshot_from, status_lines, status_object, study_status, with_records
from ptydask.driver.contract import snapshot_of_records
from ptydask.lineage import StageLineage
from ptydask.model import Reason, StudyMeta, TrialRecord, TrialState
from ptydask.progress import frame, view
from ptydask.ranking import best_of
from ptydask.run_snapshot import RunningTrial, RunSnapshot

UTF8 = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


def trial(number: int, error: float | None = 0.5, state: TrialState = TrialState.COMPLETE, **facts) -> TrialRecord:
    params = {"scale": 0.98, "rotation": -1.5}
    return TrialRecord(number, state, error, facts.pop("params", params), seconds=34.12, **facts)


def running(count: int) -> tuple[RunningTrial, ...]:
    return tuple(
        RunningTrial(i, {"scale": 1.02, "rotation": float(i)}, i % 21, 0.25 if i else None, f"worker-{i}", 3.0)
        for i in range(count)
    )


def snapshot(**changes) -> RunSnapshot:
    counts = {"complete": 10, "pruned": 1, "failed": 1, "running": 2, "lost": 0}
    standard = RunSnapshot(
        study="tBL_WSe2",
        results=Path("results.h5"),
        total=200,
        counts=counts,
        best=trial(4, 0.01234),
        running=running(2),
        workers=2,
        seconds=725.0,
        remaining=3840.0,
        iterations=20,
        metric="loss",
        direction="minimize",
    )
    return replace(standard, **changes)


# --- words for values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (-3, "0.0 s"),
        (34.12, "34.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (725, "12 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3840, "1 h 04 min"),
        (86399, "1 d 00 h"),
        (183600, "2 d 03 h"),
        (math.inf, "-"),
        (math.nan, "-"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """A time span is said in two units at most, and carries when it rounds up."""
    assert formatting.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (0.01234, "0.0123400"),
        (0.012345678, "0.0123457"),
        (5.0, "5.00000"),
        (123456.0, "123456"),
        (1234567.0, "1.23457e+06"),
        (-0.5, "-0.500000"),
        (None, "-"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_errors_have_six_digits(error: float | None, text: str) -> None:
    """An error has six significant digits, trailing zeros included."""
    assert formatting.error_text(error) == text


def test_parameters_in_words() -> None:
    """Parameters are name=value, at most six digits, with nothing that could move the cursor."""
    params = {"scale": 0.30000000000000004, "n": 512, "on": True, "none": None, "optimizer": "Adam\x1b[2J\nx"}
    assert formatting.params_text(params) == "scale=0.3 n=512 on=true none=null optimizer=Adam?[2J x"


@pytest.mark.parametrize(
    ("environ", "ready"),
    [
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LC_CTYPE": "de_DE.utf8", "LANG": "C"}, True),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),
        ({"LC_ALL": "C.UTF-8"}, True),
        ({}, False),
    ],
)
def test_blocks_need_a_locale_that_has_them(environ: dict[str, str], ready: bool) -> None:
    """Block characters are used where the locale says UTF-8, not where Python coerced the C locale."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert formatting.unicode_ready(stream, environ) is ready
    assert not formatting.unicode_ready(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), environ)


def test_sparkline() -> None:
    """A curve falls from high to low, has gaps where it is not finite, and never is wider than asked."""
    assert formatting.sparkline([4, 3, math.nan, 1], 10, blocks=True) == "█▆ ▁"
    assert formatting.sparkline([1.0, 1.0], 10, blocks=False) == "__"
    assert formatting.sparkline([math.nan], 10, blocks=False) == " "
    assert formatting.sparkline([], 10, blocks=True) == ""
    drawn = formatting.sparkline([float(1000 - i) for i in range(1000)], 48, blocks=False)
    assert len(drawn) == 48
    assert drawn[-1] == "_"
    assert drawn.isascii()


# --- the frame -----------------------------------------------------------------------------------------


def text(lines: list[frame.Line]) -> str:
    return "\n".join(frame.text_of(line) for line in lines)


@pytest.mark.parametrize("width", [12, 20, 39, 40, 80, 160, 300])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 60])
@pytest.mark.parametrize("count", [0, 1, 54])
@pytest.mark.parametrize("over", ["", "took 12 min 05 s, and then some"])
def test_a_frame_fits_its_window(width: int, height: int, count: int, over: str) -> None:
    """No line is wider and no frame is taller than the window, whatever it has to say."""
    long_name = {"study": "a very long study name " * 5, "metric": "loss"}
    params = {f"parameter_{i}": 1.23456789e-5 for i in range(20)}
    lines = frame.render_frame(
        snapshot(running=running(count), best=trial(4, 0.1, params=params), **long_name),
        width,
        height,
        frame.ASCII,
        over=over,
    )
    assert 1 <= len(lines) <= height
    assert max(len(frame.text_of(line)) for line in lines) <= width
    assert text(lines).isascii()


def test_what_a_frame_says() -> None:
    """Progress, states, the best with its parameters, each running trial, workers, time left are there."""
    shown = text(frame.render_frame(snapshot(), 100, 24, frame.BLOCKS))
    assert "12/200 trials" in shown
    assert "10 complete  1 pruned  1 failed  2 running" in shown
    assert "best  trial 4  0.0123400  scale=0.98  rotation=-1.5" in shown
    assert re.search(r"^1  \S+ +1/20 +0\.250000  worker-1  scale=1.02 rotation=1$", shown, re.M)
    assert "2 workers, 12 min 05 s so far, 1 h 04 min left" in shown


def test_a_frame_of_the_first_second() -> None:
    """Before anything ended, with no workers yet and unknown steps, it says so."""
    first = snapshot(counts={}, best=None, running=running(1), workers=0, remaining=None, iterations=None)
    shown = text(frame.render_frame(first, 80, 24, frame.ASCII))
    assert "none completed yet" in shown
    assert "waiting for workers" in shown
    assert "time left not known yet" in shown
    assert "step 0" in shown
    assert text(frame.render_frame(replace(first, total=0), 80, 24, frame.ASCII)).count("0 trials recorded") == 1


def test_many_running_trials_are_counted() -> None:
    """Of more running trials than there is room for, the first are shown and the others counted."""
    shown = text(frame.render_frame(snapshot(running=running(54)), 80, 24, frame.ASCII))
    rows = re.findall(r"^ *\d+  [#-]{16} ", shown, re.M)
    more = re.search(r"^\.\.\. and (\d+) more$", shown, re.M)
    assert more is not None
    assert len(rows) + int(more[1]) == 54


def test_bar() -> None:
    """A bar is as long as asked, full at the end only, and bears nonsense."""
    assert frame.progress_bar(0.5, 4, frame.ASCII) == ("##", "--")
    assert frame.progress_bar(0.99, 4, frame.ASCII) == ("###", "-")
    assert frame.progress_bar(7.0, 4, frame.ASCII) == ("####", "")
    assert frame.progress_bar(math.nan, 4, frame.ASCII) == ("", "----")


# --- the log -----------------------------------------------------------------------------------------


class Clock:
    """Time that moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def log_of(stream: TextIO, clock: Clock | None = None) -> view.View:
    return view.make_view(stream, environ={}, clock=clock or Clock())


def test_the_line_of_a_finished_trial() -> None:
    """State, error, whether it is the best, parameters, time, and how far the run is."""
    out = io.StringIO()
    log_of(out).finished(trial(12, 0.01234), True, snapshot())
    expected = "trial 12 complete  loss 0.0123400 (best)  scale=0.98 rotation=-1.5  34.1 s  12/200\n"
    assert out.getvalue() == expected


def test_the_line_of_a_failed_trial() -> None:
    """A failed trial says why, on one line without escape codes, and which attempt it was."""
    out = io.StringIO()
    record = trial(
        7, None, TrialState.FAIL, reason=Reason.FAILED, message="RuntimeError: \x1b[31mout\rof\nmemory", attempt=2
    )
    log_of(out).finished(record, False, snapshot())
    said = out.getvalue()
    assert said.startswith("trial 7 failed  RuntimeError: out of memory  scale=0.98")
    assert "attempt 2" in said
    assert said.count("\n") == 1
    lost = replace(record, reason=Reason.LOST)
    assert frame.finished_line(lost, False, snapshot()).startswith("trial 7 failed (lost)")


def test_a_heartbeat_a_minute() -> None:
    """However often it is updated, a log gets one line a minute."""
    out, clock = io.StringIO(), Clock()
    watch = log_of(out, clock)
    for second in range(601):
        clock.now = float(second)
        watch.update(snapshot())
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == (
        "12/200 trials: 10 complete, 1 pruned, 1 failed, 2 running (trial 0 at 0/20, 1 at 1/20); "
        "best 0.0123400 (trial 4); 2 workers; 12 min 05 s so far; 1 h 04 min left"
    )


def test_a_log_has_no_control_characters() -> None:
    """Whatever it is told, a log holds plain lines."""
    out = io.StringIO()
    watch = log_of(out)
    watch.plan(["plan:", "  two\tblanks stay\r"])
    watch.notice("one\x1b[2J\ntwo\x07")
    watch.finished(trial(1, params={"opt\r": "\x1b]0;x\x07"}), False, snapshot())
    watch.close(snapshot())
    watch.close(snapshot())
    assert not re.search(r"[^\n\x20-\x7e]", out.getvalue())
    lines = out.getvalue().splitlines()
    assert lines[1] == "  two blanks stay"
    assert [line for line in lines if line.startswith("tBL_WSe2: 12/200 trials in 12 min 05 s")] == lines[-1:]
    assert lines[-1].endswith("best loss 0.0123400 (trial 4)  scale=0.98 rotation=-1.5")


def repeats(**changes) -> RunSnapshot:
    """Repeats under way, the second one of a half."""
    under_way = tuple(
        RunningTrial(n, {"trial": 5, "seed": 8 + n, "half": n}, 3, 0.25, f"worker-{n}", 3.0) for n in range(2)
    )
    return snapshot(study="WSe2 confirmation", total=14, best=None, running=under_way, repeats=True, **changes)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"trial": 5, "seed": 8, "half": 0}, "repeat 12/14: trial 5, seed 8  "),
        ({"trial": 5, "seed": 8, "half": 1}, "repeat 12/14: first half of trial 5, seed 8  "),
        ({"trial": 0, "seed": 0, "half": 2}, "repeat 12/14: second half of trial 0, seed 0  "),
    ],
)
def test_a_repeat_is_told_as_what_it_repeats(params: dict[str, int], words: str) -> None:
    """Not as a trial with a number of its own, nor by parameters that are nobody's."""
    line = frame.finished_line(trial(3, params=params), False, repeats())
    assert line.startswith(f"{words}complete  loss 0.5")
    assert "half=" not in line
    failed = frame.finished_line(trial(3, None, TrialState.FAIL, params=params, message="dead"), False, repeats())
    assert failed.startswith(f"{words}failed  dead")


def test_a_run_of_repeats_has_no_best() -> None:
    """While it runs, at its end, and for ``status``; one that has no parameters yet has its number."""
    text = "\n".join(frame.text_of(line) for line in frame.render_frame(repeats(), 100, 30, frame.ASCII))
    ended = "\n".join(frame.text_of(line) for line in frame.render_frame(repeats(), 100, 30, frame.ASCII, over="took"))
    lines = (text, ended, frame.heartbeat_line(repeats()), frame.closing_line(repeats()))
    for words in lines:
        assert "best" not in words
        assert "half=" not in words
        assert "12/14 repeats" in words
        assert "none completed" not in words
    for words in (lines[0], lines[2]):
        assert "trial 5, seed 8" in words
        assert "first half of trial 5, seed 9" in words
    bare = repeats()
    bare = replace(bare, running=(replace(bare.running[0], params={}),))
    assert "None" not in frame.heartbeat_line(bare)


def test_what_was_recorded_of_repeats_has_no_best() -> None:
    meta = StudyMeta("s", "minimize", "loss", "repeat", "", "yaml", "{}", "{}")
    records = [trial(0, params={"trial": 5, "seed": 8, "half": 0})]
    read = snapshot_of_records(records, meta, Path("s.h5"), complete=True)
    assert (read.best, read.repeats) == (None, True)
    read = snapshot_of_records(records, replace(meta, engine="ptyrad"), Path("s.h5"), complete=True)
    assert (read.best, read.repeats) == (records[0], False)
    assert snapshot_from(asdict(repeats())).repeats


def test_what_a_driver_recorded_after_its_last_words_counts() -> None:
    """Of one that was killed: as many trials, and the best of them, as the results have; under way is none of these."""
    meta = StudyMeta("s", "minimize", "loss", "ptyrad", "", "yaml", "{}", "{}")
    records = [trial(0), trial(1)]
    under_way = tuple(replace(repeats().running[0], number=number) for number in (1, 2))
    last = replace(repeats(), repeats=False, total=8, counts={"running": 2, "lost": 1}, best=None, running=under_way)
    run = with_records(last, records, meta)
    assert (run.recorded, run.total, run.counts["lost"], run.best) == (2, 8, 1, best_of(records, "minimize"))
    assert [one.number for one in run.running] == [2]
    assert "2/8" in "\n".join(frame.text_of(line) for line in frame.render_frame(run, 100, 30, frame.ASCII, over="ran"))
    assert with_records(run, records, meta) is run
    assert with_records(run, records[:1], meta) is run
    assert with_records(last, records, replace(meta, engine="repeat")).best is None


def test_an_ascii_log_takes_any_name() -> None:
    """A character that the log's encoding lacks becomes a question mark."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    log_of(out).finished(trial(1, params={"Δf": 1}), False, snapshot())
    assert b"?f=1" in raw.getvalue()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(), ValueError("closed")])
def test_a_log_that_cannot_be_written_ends_nothing(error: Exception) -> None:
    """A full disk or a closed stream does not end the run that is watched."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    watch = log_of(Full())
    watch.plan(["a"])
    watch.finished(trial(1), True, snapshot())
    watch.close(snapshot())


# --- stages ------------------------------------------------------------------------------------------

AFFINE = StageLineage("affine", ("dz", "affine", "final"), from_stage="dz", from_trial=3)


def test_a_stage_is_named_wherever_a_run_is_shown() -> None:
    """Title, trial, heartbeat and end; nothing where there are no stages."""
    staged = snapshot(study="WSe2 affine", stage=AFFINE.place)
    assert AFFINE.place == "2 of 3: affine"
    lines = [
        text(frame.render_frame(staged, 80, 24, frame.ASCII)).splitlines()[0],
        text(frame.render_frame(staged, 80, 24, frame.ASCII, over="took 1 s")).splitlines()[0],
        frame.finished_line(trial(12), False, staged),
        frame.heartbeat_line(staged),
        frame.closing_line(staged),
    ]
    assert all("stage 2 of 3: affine" in line for line in lines)
    assert lines[0] == "WSe2 affine  stage 2 of 3: affine  loss"
    unstaged = snapshot()
    for line in (
        text(frame.render_frame(unstaged, 80, 24, frame.ASCII)),
        frame.finished_line(trial(12), False, unstaged),
        frame.heartbeat_line(unstaged),
        frame.closing_line(unstaged),
    ):
        assert "stage" not in line


@pytest.mark.parametrize("name", ["dz", "all of the scan affine " * 8, "a\x1b[2Jb\nc", "läuft"])
@pytest.mark.parametrize("width", [12, 40, 100])
def test_any_name_of_a_stage_fits(name: str, width: int) -> None:
    """It is cut, and moves no cursor."""
    staged = snapshot(stage=StageLineage(name, ("a", name)).place)
    lines = frame.render_frame(staged, width, 24, frame.ASCII)
    assert max(len(frame.text_of(line)) for line in lines) <= width
    assert frame.text_of(lines[0]).isprintable()
    assert frame.heartbeat_line(staged).isprintable()


def test_the_stage_of_a_file_without_a_driver() -> None:
    """As its study's description has it; and as a driver wrote it down, one of before there were stages too."""
    meta = StudyMeta("s affine", "minimize", "loss", "ptyrad", "", "yaml", "{}", "{}", lineage=AFFINE)
    assert snapshot_of_records([trial(0)], meta, Path("s.h5"), complete=True).stage == "2 of 3: affine"
    assert not snapshot_of_records([trial(0)], replace(meta, lineage=None), Path("s.h5"), complete=True).stage
    written = asdict(snapshot(stage=AFFINE.place))
    assert snapshot_from(written).stage == "2 of 3: affine"
    del written["stage"]
    assert snapshot_from(written).stage == ""


def test_status_names_the_stage() -> None:
    """For a program, null without stages; and for a person."""
    staged = snapshot(stage=AFFINE.place)
    standing = study_status("", live=True, packed=False, unfinished=1)
    report = StatusReport(standing, staged, "", 0.0)
    assert status_object(report)["stage"] == "2 of 3: affine"
    assert status_object(replace(report, run=snapshot()))["stage"] is None
    assert "stage 2 of 3: affine" in text(status_lines(report, 80, 24, glyphs=frame.ASCII))


# --- the terminal ------------------------------------------------------------------------------------


class Terminal:
    """A pseudo terminal that keeps what is on its screen: text, CR, LF, cursor up, erase line, wrapping."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, slave = os.openpty()
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - closed by the fixture
        self.raw = ""
        self.rows: list[str] = [""]
        self.at = [0, 0]
        self.cursor = True
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Change the window; lines that are too long for it wrap, as most terminals do."""
        self.columns = columns
        termios.tcsetwinsize(self.stream.fileno(), (lines, columns))
        wrapped = [[row[i : i + columns] for i in range(0, max(1, len(row)), columns)] for row in self.rows]
        at = sum(map(len, wrapped[: self.at[0] + 1])) - 1
        self.rows = [part for parts in wrapped for part in parts]
        self.at = [at, min(len(self.rows[at]), columns - 1)]

    def text(self) -> str:
        """What is on the screen now, and above it."""
        self.stream.flush()
        os.set_blocking(self.master, False)
        said = b""
        try:
            while chunk := os.read(self.master, 65536):
                said += chunk
        except BlockingIOError:
            pass
        self.raw += said.decode()
        for piece in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", said.decode()):
            self._take(piece)
        return "\n".join(row.rstrip() for row in self.rows)

    def _take(self, piece: str) -> None:
        row, column = self.at
        if piece == "\r":
            self.at = [row, 0]
        elif piece == "\n":
            self.rows += [""] * (row + 2 - len(self.rows))
            self.at = [row + 1, 0]
        elif piece.startswith("\x1b"):
            code, what = piece[2:-1], piece[-1]
            if what == "A":
                self.at = [max(0, row - int(code or 1)), column]
            elif what == "K":
                self.rows[row] = ""
            elif what in "hl":
                self.cursor = what == "h"
            else:
                assert what == "m", f"a code that this terminal does not know: {piece!r}"
        else:
            while piece:
                here, piece = piece[: self.columns - column], piece[self.columns - column :]
                old = self.rows[row].ljust(column)
                self.rows[row] = old[:column] + here + old[column + len(here) :]
                self.at = [row, column + len(here)]
                if piece:
                    self._take("\n")
                    row, column = self.at


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(80, 24)
    yield made
    made.stream.close()
    os.close(made.master)


def test_the_frame_is_redrawn_in_place(terminal: Terminal) -> None:
    """After many updates there is one frame, and above it what was meant to stay."""
    watch = view.make_view(terminal.stream, environ=UTF8)
    watch.plan(["plan: 200 trials"])
    for done in range(5):
        watch.update(snapshot(counts={"complete": done}))
    watch.finished(trial(5, 0.01), True, snapshot(counts={"complete": 5}))
    watch.finished(trial(6, 0.9), False, snapshot(counts={"complete": 6}))
    watch.notice("a worker went away")
    shown = terminal.text()
    assert shown.count("tBL_WSe2") == 1
    assert shown.count("/200 trials") == 1
    assert "6/200 trials" in shown
    assert "trial 5 complete  loss 0.0100000 (best)" in shown
    assert "trial 6 complete" not in shown
    assert shown.index("plan: 200") < shown.index("a worker went away") < shown.index("tBL_WSe2")
    assert not terminal.cursor
    watch.close(snapshot(counts={"complete": 200}))
    watch.close()
    shown = terminal.text()
    assert "200/200 trials" in shown
    assert "worker-1" not in shown
    assert "running" not in shown
    assert shown.count("tBL_WSe2") == 1
    assert terminal.cursor


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_narrow_window(terminal: Terminal, columns: int) -> None:
    """At 40 columns too, states, best, running trials and time left are all there, and nothing wraps."""
    terminal.resize(columns, 24)
    watch = view.make_view(terminal.stream, environ=UTF8)
    for _ in range(3):
        watch.update(snapshot())
    shown = terminal.text()
    watch.close()
    for word in ("10 complete", "trial 4", "rotation=-1.5", "1/20", "2 workers", "1 h 04 min left"):
        assert shown.count(word) == 1


@pytest.mark.parametrize("sizes", [[(50, 24)], [(120, 24)], [(60, 24), (31, 24), (100, 24), (45, 10)], [(80, 6)]])
def test_a_resize_leaves_one_frame(terminal: Terminal, sizes: list[tuple[int, int]]) -> None:
    """Made narrower, wider, lower: what the terminal wrapped of the old frame is cleared."""
    watch = view.make_view(terminal.stream, environ=UTF8)
    watch.plan(["stays"])
    watch.update(snapshot())
    terminal.text()
    for columns, lines in sizes:
        terminal.resize(columns, lines)
        watch.notice(f"now {columns}")
        watch.update(snapshot())
        terminal.text()
    shown = terminal.text()
    watch.close()
    assert shown.count("tBL_WSe2") == 1
    assert shown.count("stays") == 1
    assert all(shown.count(f"now {columns}") == 1 for columns, _ in sizes)


def test_no_color(terminal: Terminal) -> None:
    """With NO_COLOR there are no colours, without it there are."""
    for environ, coloured in (({**UTF8, "NO_COLOR": "1"}, False), (UTF8, True)):
        before = len(terminal.raw)
        watch = view.make_view(terminal.stream, environ=environ)
        watch.update(snapshot())
        watch.close(snapshot())
        terminal.text()
        assert bool(re.search(r"\x1b\[[\d;]*3\d", terminal.raw[before:])) is coloured


def test_a_plain_locale_gets_plain_characters(terminal: Terminal) -> None:
    """With LANG=C the frame is ASCII."""
    watch = view.make_view(terminal.stream, environ={"TERM": "xterm", "LANG": "C"})
    watch.update(snapshot(running=running(54)))
    watch.close(snapshot())
    assert terminal.text().isascii()


def test_a_dumb_terminal_gets_lines(terminal: Terminal) -> None:
    """TERM=dumb is written to like a log."""
    watch = view.make_view(terminal.stream, environ={"TERM": "dumb"})
    watch.update(snapshot())
    watch.finished(trial(5), False, snapshot())
    assert terminal.text().startswith("trial 5 complete")
    assert "\x1b" not in terminal.raw


def test_a_terminal_that_went_away_ends_nothing() -> None:
    """The window is closed during the run: the run goes on."""
    made = Terminal(80, 24)
    watch = view.make_view(made.stream, environ=UTF8)
    watch.update(snapshot())
    os.close(made.master)
    watch.update(snapshot())
    watch.finished(trial(5), True, snapshot())
    watch.notice("still there")
    watch.close(snapshot())
    with pytest.raises(OSError, match="Input/output error"):
        made.stream.close()
