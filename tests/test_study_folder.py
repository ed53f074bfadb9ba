"""``ptydask run FOLDER/``: which of its files are studies, in which order, and when it is refused."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ptydask.config.folder import read_folder
from ptydask.errors import ConfigError

PROFILES = Path(__file__).parents[1] / "ptydask" / "clusters" / "jobqueue" / "profiles"
SWEEP = {"program": "train.py", "method": "random", "parameters": {"lr": {"values": [1, 2]}}}


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_its_studies_in_the_order_in_which_a_person_counts(tmp_path: Path) -> None:
    """Params and sweep files of every ending; not what lies in folders below, nor hidden files, nor backups."""
    for name in ("scan-10.yaml", "scan-2.yml", "scan-1.json", "Scan-3.YAML"):
        write(tmp_path, name, '{"init_params": {}}')
    write(tmp_path, "train.yaml", SWEEP)
    for name in (".hidden.yaml", "scan-1.yaml~", "notes.txt", "data.h5"):
        write(tmp_path, name, "{")
    (tmp_path / "out.yaml").mkdir()
    write(tmp_path / "out.yaml", "below.yaml", "{")
    names = [path.name for path in read_folder(tmp_path).files]
    assert names == ["Scan-3.YAML", "scan-1.json", "scan-2.yml", "scan-10.yaml", "train.yaml"]


@pytest.mark.parametrize("other", [*sorted(PROFILES.glob("*.yaml")), "name: env\ndependencies: []\n"])
def test_files_that_are_no_study_are_left_out(other: Path | str, tmp_path: Path) -> None:
    """Profiles of clusters, settings of other programs: each is named."""
    study, stranger = write(tmp_path, "gold.yaml", {"init_params": {}}), tmp_path / "a.yaml"
    if isinstance(other, Path):
        shutil.copy(other, stranger)
    else:
        stranger.write_text(other)
    folder = read_folder(tmp_path)
    assert folder.files == (study,)
    assert list(folder.others) == [stranger]


def test_a_params_file_that_another_names_is_no_study_of_its_own(tmp_path: Path) -> None:
    """One base for two studies is run as these two."""
    base = write(tmp_path, "base.yaml", {"init_params": {}})
    own = [write(tmp_path, name, {"params": "base.yaml", "search": "file"}) for name in ("a.yaml", "z.yaml")]
    folder = read_folder(tmp_path)
    assert folder.files == tuple(own)
    assert "z.yaml" in folder.others[base]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("notes.txt", "hello", "without"),
        ("env.yaml", "name: env", "without"),
        ("broken.yaml", "init_params: {", "broken.yaml"),
        ("broken.json", '{"init_params": ', "broken.json"),
        ("twice.yaml", "init_params: {}\ninit_params: {}", "twice.yaml"),
        ("list.yaml", "[1, 2]", "list.yaml"),
        ("empty.yaml", "", "empty.yaml"),
        ("own.yaml", "params: gone.yaml", "gone.yaml"),
    ],
)
def test_what_is_refused(name: str, content: str, word: str, tmp_path: Path) -> None:
    """A folder without a study, and a file that cannot be read: it may be a study."""
    write(tmp_path, name, content)
    with pytest.raises(ConfigError, match=word):
        read_folder(tmp_path)


def test_from_the_command_line(
    ptydask: Callable[..., subprocess.CompletedProcess[str]], toy_params: Callable[..., Path], tmp_path: Path
) -> None:
    """A folder and a file; nothing starts where one of the folder's files breaks a rule."""
    folder = tmp_path / "monday"
    folder.mkdir()
    for name in ("gold-2", "gold-10"):
        toy_params(name=name).rename(folder / f"{name}.yaml")
    write(folder, "cluster.yaml", "extends: slurm\n")
    options = ("--engine", "toy", "--cluster", "local", "--dry-run")
    done = ptydask("run", "monday/", toy_params(name="last"), *options)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("study") and " of 3: " in line]
    heads = [line.split()[4].rstrip(",") for line in lines]
    assert heads == ["gold-2", "gold-10", "last"]
    assert "cluster.yaml is no params or sweep file" in done.stderr
    write(folder, "bad.yaml", {"init_params": {}, "hypertune_params": {"if_hypertune": 3}})
    refused = ptydask("run", "monday/", *options)
    assert refused.returncode == 2
    assert "bad.yaml" in refused.stderr
