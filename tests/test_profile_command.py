"""``ptydask profile``: what comes with the package is what lies in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ptydask import cli
from ptydask.clusters.jobqueue import profile_file, starters

ROOT = Path(__file__).parents[1]
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: Output, *args: str) -> tuple[int, str, str]:
    code = cli.main(["profile", *args])
    return code, *capsys.readouterr()


def test_they_are_listed(capsys: Output) -> None:
    code, out, _ = call(capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == starters.starter_names()
    assert all(len(line.split()) > 3 for line in out.splitlines())


@pytest.mark.parametrize("name", starters.starter_names())
def test_each_is_written_and_read(name: str, capsys: Output, folder: Path) -> None:
    """By the name of the file; what is printed is what is written, and one that is there is left alone."""
    file = folder / (name if "." in name else f"{name}.yaml")
    code, out, said = call(capsys, "--write", file.name)
    assert (code, out) == (0, f"{file.name}\n")
    assert file.name in said
    assert call(capsys, name)[1] == file.read_text()
    if file.suffix == ".yaml":
        assert profile_file.read(file).queue
    else:
        assert os.access(file, os.X_OK)
    file.write_text("mine")
    code, _, said = call(capsys, "--write", file.name)
    assert (code, "is there already" in said, file.read_text()) == (2, True, "mine")


def test_another_name_for_the_file(capsys: Output, folder: Path) -> None:
    assert call(capsys, "mig", "--write", "site.yaml")[0] == 0
    assert (folder / "site.yaml").read_text() == starters.starter_text("mig")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--write", "a10.yaml"], "did you mean 'a100'?"),
        (["nothing"], "known: a100"),
        (["--write", "site.yaml"], "'site'"),
        (["a100", "--write", "missing/a100.yaml"], "missing/a100.yaml"),
    ],
)
def test_what_is_refused(args: list[str], said: str, capsys: Output) -> None:
    code, out, error = call(capsys, *args)
    assert code == 2
    assert out == ""
    assert said in error


def test_nothing_is_kept_twice() -> None:
    """The repository's folders have links to the package's own files."""
    links = [*(ROOT / "configs").glob("cluster-*.yaml"), ROOT / "jobs" / "driver.sbatch"]
    assert {link.resolve().name for link in links} == {
        name if "." in name else f"{name}.yaml" for name in starters.starter_names()
    }
    assert all(link.is_symlink() for link in links)
