"""The page of benchmarks: its sections, its programs one after another, and what is made of a study's samples."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules of the page, which is written into a folder of its own."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("sections", "page", "contenders", "orchestration", "vs_ptyrad")
    modules = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    monkeypatch.setattr(modules.sections, "FOLDER", tmp_path / "tables")
    monkeypatch.setattr(modules.sections, "PAGE", tmp_path / "page.md")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "introduction.md").write_text("# Benchmarks\n\nWhat this is.\n")
    return modules


# --- Sections -------------------------------------------------------------------------------------------


def test_table_is_markdown(bench: SimpleNamespace) -> None:
    """Words to the left, numbers to the right."""
    table = bench.sections.Table(("", "ms"), (("one", "1.5"), ("two", "20.0")))
    assert str(table).splitlines() == ["|  | ms |", "| --- | ---: |", "| one | 1.5 |", "| two | 20.0 |"]


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [
        ([4.0], 1, "4.0"),
        ([4.6, 3.9, 4.1], 1, "4.1 (3.9-4.6)"),
        ([1.0, 2.0], 0, "2 (1-2)"),
        ([0.5, 0.5], 2, "0.50 (0.50-0.50)"),
    ],
)
def test_spread(bench: SimpleNamespace, values: list[float], digits: int, text: str) -> None:
    assert bench.sections.spread(values, digits) == text


def test_sections_stand_in_order(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Whatever order they are written in; a section that is written again takes its own place."""
    last, first = bench.sections.ORDER[-1], bench.sections.ORDER[0]
    bench.sections.write_section(last, "The last", "Old words.")
    bench.sections.write_section(first, "The first", "Words.", bench.sections.Table(("a", "b"), (("1", "2"),)))
    bench.sections.write_section(last, "The last", "New words.")
    text = (tmp_path / "page.md").read_text()
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == ["# Benchmarks", "## The first", "## The last"]
    assert "New words." in text
    assert "Old words." not in text
    assert re.findall(r"`\./jobs/bench\.sh (\w+)`; \d{4}-\d\d-\d\d, \d+ cores", text) == [first, last]


def test_the_page_is_what_its_programs_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on docs/benchmarks.md was written by hand: what is there is in benchmarks/tables."""
    monkeypatch.syspath_prepend(FOLDER)
    sections = importlib.import_module("sections")
    page = sections.PAGE
    monkeypatch.setattr(sections, "PAGE", tmp_path / "page.md")
    sections.write_page()
    assert page.read_text() == (tmp_path / "page.md").read_text()


def test_each_program_is_in_bench_sh(bench: SimpleNamespace) -> None:
    """With a comment, in the list of names, and with a section of its own name."""
    script = (ROOT / "jobs" / "bench.sh").read_text()
    said = re.findall(r"^# ([\w, ]+):", script, re.MULTILINE)
    commented = {name for names in said for name in names.split(", ")}
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"^    ([\w |]+)\)", script, re.MULTILINE))))
    names = bench.page.programs()
    assert set(names) <= commented & listed
    assert listed - {"page"} <= commented
    assert [name for name in names if f'"{name}"' not in (FOLDER / f"{name}.py").read_text()] == []


def test_each_section_has_a_program(bench: SimpleNamespace) -> None:
    """And every program that writes a section is on the page."""
    writing = {file.stem for file in FOLDER.glob("*.py") if "write_section(" in file.read_text()} - {"sections"}
    assert writing == set(bench.sections.ORDER)
    assert bench.page.programs() == list(bench.sections.ORDER)


# --- All programs ---------------------------------------------------------------------------------------


def test_all_are_run_whatever_fails(bench: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """One after another; the end says which failed, and the exit code."""
    codes = {"one": 0, "two": 3, "three": 0}
    ran = bench.page.run_all(list(codes), codes.__getitem__)
    assert {one.name: one.code for one in ran} == codes
    said = capsys.readouterr().out
    assert "--- two (2 of 3)" in said
    assert [line.split()[0] for line in map(str, ran) if "exit code 3" in line] == ["two"]


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 2), 1), ((1, 0), 1), ((-9, 0), 1)])
def test_exit_code_of_the_page(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, codes: tuple[int, int], expected: int
) -> None:
    each = dict(zip(("one", "two"), codes, strict=True))
    monkeypatch.setattr(bench.page, "programs", lambda: list(each))
    monkeypatch.setattr(bench.page, "run_program", each.__getitem__)
    assert bench.page.main() == expected


def test_ctrl_c_ends_the_page(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """No further program is started."""
    started = []

    def run(name: str) -> int:
        started.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.page, "programs", lambda: ["one", "two"])
    monkeypatch.setattr(bench.page, "run_program", run)
    assert bench.page.main() == 130
    assert started == ["one"]


# --- What a trial costs ---------------------------------------------------------------------------------


def samples_of(bench: SimpleNamespace, ends: list[float], every: float = 0.1) -> list[Any]:
    """What is seen of trials that end at these seconds; CPU time is half of the wall time, two calls a trial."""
    steps = int(ends[-1] / every) + 2
    moments = [i * every for i in range(steps)]
    counts = [sum(end <= at + 1e-9 for end in ends) for at in moments]
    return [bench.orchestration.Sample(at, n, at / 2, 2 * n) for at, n in zip(moments, counts, strict=True)]


def test_cost_of_a_steady_study(bench: SimpleNamespace) -> None:
    """A second for the start, then 100 ms a trial: the same early and late, without the start."""
    cost = bench.orchestration.cost_of(samples_of(bench, [1 + 0.1 * n for n in range(100)]), 100)
    assert cost.wall == pytest.approx((100, 100, 100), rel=0.01)
    assert cost.cpu == pytest.approx((50, 50, 50), rel=0.01)
    assert cost.calls == pytest.approx(2)
    assert cost.cells()[0] == "100"


def test_cost_that_grows_is_seen(bench: SimpleNamespace) -> None:
    """Trial n takes n/100 s: the last tenth is dearer than the second by their mean numbers, 95 to 15."""
    ends = [sum(range(n + 1)) / 100 for n in range(1, 101)]
    _, early, late = bench.orchestration.cost_of(samples_of(bench, ends, 0.01), 100).wall
    assert late / early == pytest.approx(95.5 / 15.5, rel=0.02)


@pytest.mark.parametrize("ended", [0, 1, 9])
def test_a_study_that_broke_off_has_no_cost(bench: SimpleNamespace, ended: int) -> None:
    samples = samples_of(bench, [0.1 * (n + 1) for n in range(ended)] or [5.0])
    with pytest.raises(ValueError, match="of 10 trials ended"):
        bench.orchestration.cost_of(samples[: -1 if not ended else None][:40], 10)


def test_trials_that_ended_are_counted_over_processes(bench: SimpleNamespace, tmp_path: Path) -> None:
    """By a file that each of them adds to."""
    ours, theirs = (bench.contenders.Work(tmp_path, "RandomSampler", 3) for _ in range(2))
    assert ours.count() == 0
    for work in (ours, theirs, ours):
        work.note_end()
    assert ours.count() == theirs.count() == 3


@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler"])
def test_contenders_do_the_same_trials(bench: SimpleNamespace, tmp_path: Path, sampler: str) -> None:
    """Six floats, at most three reports, some trials ended early; as many as asked for, all of them counted."""
    work = bench.contenders.Work(tmp_path, sampler, 12)
    address = bench.contenders.journal_of(work)
    bench.contenders.optimize(address, work, seed=1)
    trials = bench.contenders.load_study(address, sampler, 0).trials
    assert len(trials) == work.count() == 12
    assert {len(trial.params) for trial in trials} == {6}
    assert {(trial.state.name, len(trial.intermediate_values)) for trial in trials} <= {
        ("COMPLETE", 3),
        ("PRUNED", 1),
        ("PRUNED", 2),
    }
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}


def test_contenders_are_installed_once(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Into an environment of their own, anew where other packages are wanted or an installation broke off."""
    installed: list[list[str]] = []

    def create(folder: Path, **options: Any) -> None:
        bench.contenders.own_packages(folder).mkdir(parents=True, exist_ok=True)
        (folder / "ready").unlink(missing_ok=True)

    def install(command: list[Any], **options: Any) -> None:
        if "broken" in command:
            raise subprocess.CalledProcessError(1, command)
        installed.append(command[command.index("-c") + 2 :])

    monkeypatch.setattr(bench.contenders, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(bench.contenders.venv, "create", create)
    monkeypatch.setattr(bench.contenders.subprocess, "run", install)
    prepare = bench.contenders.prepare
    assert prepare(()) == Path(sys.executable)
    for requirements in (("ray[tune]",), ("ray[tune]",), ("ray[tune]", "more"), ("grpcio",), ("grpcio",)):
        assert tmp_path / "cache" in prepare(requirements).parents
    assert installed == [["ray[tune]"], ["ray[tune]", "more"], ["grpcio"]]
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            prepare(("grpcio", "broken"))


def test_a_contender_that_cannot_be_installed_has_its_reason(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(requirements: Any) -> Path:
        raise subprocess.CalledProcessError(1, "pip", stderr="Collecting\nERROR: No matching | distribution\n\n")

    monkeypatch.setattr(bench.contenders, "prepare", refuse)
    reason = bench.orchestration.measure("ray", "RandomSampler", 5)
    assert reason == "ray[tune] cannot be installed: ERROR: No matching / distribution"
    bench.orchestration.write([("ray", "RandomSampler", reason)])
    assert f"| Ray Tune, random: {reason} |" in bench.sections.PAGE.read_text()


@pytest.mark.parametrize(
    ("program", "patience", "reason"),
    [
        ("import sys; print('words'); sys.exit('out of memory')", 60, "out of memory"),
        ("raise SystemExit(3)", 60, "exited with 3"),
        ("import time; time.sleep(60)", 0.1, "not done after 0 s"),
    ],
)
def test_a_contender_that_fails_has_its_reason(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, patience: float, reason: str
) -> None:
    monkeypatch.setattr(bench.orchestration, "PATIENCE", patience)
    monkeypatch.setattr(bench.orchestration, "__file__", str(tmp_path / "program.py"))
    (tmp_path / "program.py").write_text(program)
    assert bench.orchestration.measure("optuna", "RandomSampler", 0) == reason


def test_each_tuner_gets_trials_that_its_cost_shows_in(bench: SimpleNamespace) -> None:
    options = SimpleNamespace(samplers=["RandomSampler"], only=["ptydask", "ray"], trials=9, slow_trials=4, long=20)
    assert bench.orchestration.studies(options) == [
        ("ptydask", "RandomSampler", 9),
        ("ray", "RandomSampler", 4),
        ("ptydask", "RandomSampler", 20),
    ]


def test_comparison_with_ptyrad_has_medians_and_their_ratio(bench: SimpleNamespace) -> None:
    run = bench.vs_ptyrad.Outcome(
        40, whole=60, span=50, recon=40, at_work=80, workers=2, files=244, size=1_000_000, cpu=80, start=4
    )
    twice = bench.vs_ptyrad.replace(run, whole=30, span=25)
    rows = {row[0]: row[1:] for row in bench.vs_ptyrad.compare([run, run], [twice, run, twice]).rows}
    assert rows["trials an hour, whole"] == ("2400 (2400-2400)", "4800 (2400-4800)", "2.00")
    assert rows["in recon_step, trials only"][2] == "2.00"
    assert rows["in recon_step, while at work"][1] == "0.50 (0.50-0.50)"
    assert rows["files left"] == ("244 (244-244)", "244 (244-244)", "1.00")


def test_a_workers_time_ends_with_its_own_last_trial(bench: SimpleNamespace) -> None:
    trials = [("first", 0, 10), ("second", 1, 4), ("second", 5, 9)]
    assert bench.vs_ptyrad.work_seconds(trials) == 10 + 8
