"""``ptydask export run`` and ``artifacts``: a program's files on the disk again, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import store_cases
import sweep_cases as cases
from sweep_cases import said

from ptydask.analysis.export import run as files_of
from ptydask.model import KeepOptions
from ptydask.store import Store, reader


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four complete trials and a failed one; tests read it only."""
    return cases.packed(tmp_path_factory.mktemp("sweep") / "s.h5")


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own."""
    copy = tmp_path / "s.h5"
    copy.write_bytes(made.read_bytes())
    return copy


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_export_run_lays_out_what_ldctbench_looks_for(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """wandb/NAME/files/..., byte for byte, the command and the log; the line says how the test finds it."""
    folder = path.parent / "wandb" / "tuned"
    code, out, err = said(capsys, "export", path, "run", "--trial", "best", folder)
    assert (code, out) == (0, f"{folder}\n")
    wanted = {n.partition("/files/")[2]: c for n, c in cases.artifacts().items() if "/files/" in n}
    assert tree(folder) == {
        **{f"files/{name}": content for name, content in wanted.items()},
        "command.txt": f"{cases.COMMAND}\n".encode(),
        "log.txt": cases.output(3).log.encode(),
    }
    assert err.splitlines() == [
        "trial 3: 4 files (102 kB), command.txt and log.txt",
        f"to test it: ldctbench-test --methods tuned, in the folder {path.parent}",
    ]


def test_export_run_takes_the_last_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that began W&B twice: the later run, and a line that says so."""
    artifacts = {f"wandb/offline-run-2025010{day}_000000-x/files/a.txt": str(day).encode() for day in (1, 2)}
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(0), cases.output(0, artifacts=artifacts))
    _, _, err = said(capsys, "export", store.finish(), "run", tmp_path / "r")
    assert (tmp_path / "r/files/a.txt").read_bytes() == b"2"
    assert "the last of the 2 W&B runs that the trial began" in err
    assert "ldctbench-test" not in err


def test_export_artifacts_as_they_are(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files under their own paths; with patterns those that fit a path or a name."""
    assert said(capsys, "export", path, "artifacts", path.parent / "all")[0] == 0
    assert tree(path.parent / "all") == cases.artifacts()
    assert (
        said(capsys, "export", path, "artifacts", "--trial", "0", path.parent / "some", "*.pt", "wandb/*/args.*")[0]
        == 0
    )
    assert set(tree(path.parent / "some")) == {f"{cases.RUN}/best_SSIM.pt", f"{cases.RUN}/args.yaml"}
    code, _, err = said(capsys, "export", path, "artifacts", path.parent / "none", "history.json")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean 'history.jsonl'" in err
    assert not (path.parent / "none").exists()


def test_a_folder_with_other_files_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --force nothing is written into it; with it, what is not of the trial stays."""
    folder = path.parent / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years")
    code, out, err = said(capsys, "export", path, "artifacts", folder)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "holds 'thesis.tex' already" in err
    assert set(tree(folder)) == {"thesis.tex"}
    (folder / "history.jsonl").write_text("old")
    assert said(capsys, "export", path, "artifacts", folder, "--force")[0] == 0
    assert tree(folder) == {**cases.artifacts(), "thesis.tex": b"years"}
    assert said(capsys, "export", path, "run", path)[0] == 2  # a file, and no folder
    assert path.stat().st_size > 0


BAD = {
    "../above": b"x",
    "a/../../above": b"x",
    "/absolute": b"x",
    "a//b": b"x",
    "./c": b"x",
    "nul\0": b"x",
    "n" * 256: b"x",
    "lone \ud800": b"x",
}


def test_nothing_is_written_outside_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that lead out, or are none, are named and left out; 255 bytes, unicode and leading dots are fine."""
    good = {"n" * 255: b"1", ".hidden/.x": b"2", "日本/ü b.txt": b"3", "-rf": b"4", "empty": b""}
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(0), cases.output(0, artifacts={**good, **BAD}))
    results = store.finish()
    before = set(tmp_path.iterdir())
    code, _, err = said(capsys, "export", results, "artifacts", tmp_path / "out" / "deep")
    assert code == 1
    assert tree(tmp_path / "out" / "deep") == good
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["deep"]
    assert sum("leads out of the folder or is none here" in line for line in err.splitlines()) == len(BAD)


def test_no_link_in_the_folder_is_followed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --force into a folder that has links: one in the way is refused, one under a file's name is replaced."""
    folder, elsewhere = path.parent / "out", path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    folder.mkdir()
    (folder / "history.jsonl").symlink_to(elsewhere / "kept")
    assert said(capsys, "export", path, "artifacts", folder, "history.jsonl", "--force")[0] == 0
    assert (folder / "history.jsonl").read_bytes() == cases.artifacts()["history.jsonl"]
    (folder / "wandb").symlink_to(elsewhere)
    code, _, err = said(capsys, "export", path, "artifacts", folder, "--force")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "is a link that leads elsewhere" in err
    assert tree(elsewhere) == {"kept": b"kept"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"artifacts": {}}, "core.dump: larger than what is left of engine.outputs_limit"),
        ({"artifacts": {}, "left_out": ()}, "its program wrote none that engine.outputs of the sweep file names"),
        ({"artifacts": {"history.jsonl": b""}}, "'export artifacts' writes the others, 1"),
    ],
)
def test_a_trial_without_a_run_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], why: str
) -> None:
    """One line, and no folder is made."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(0), cases.output(0, **changes))
    code, out, err = said(capsys, "export", store.finish(), "run", tmp_path / "r")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert why in err
    assert not (tmp_path / "r").exists()


def test_other_reasons_for_no_files(tmp_path: Path) -> None:
    """A study without arrays, one of a function, one of PtyRAD, a trial that was thinned: each says which it is."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(0), cases.output(0, artifacts={}, left_out=()))
    with reader.open(store.finish()) as results:
        trial = results.trial(0)
    said_of = {
        "numbers and curves only": cases.meta(keep=KeepOptions(arrays=False)),
        "of a Python function": cases.meta(engine="callable"),
        "PtyRAD ran it": store_cases.meta(),
    }
    for words, meta in said_of.items():
        assert words in str(files_of.no_files_error(meta, trial))
