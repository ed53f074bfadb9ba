"""Data are known by their bytes: at another path they are the same, and others at the same path are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_plans import made

from ptydask.driver import provenance
from ptydask.engines.fingerprint import sha256
from ptydask.errors import ConfigError
from ptydask.model import StudyMeta


def study(init: Mapping[str, Any], **recorded: str) -> StudyMeta:
    """A study of PtyRAD's engine, and what its results say of the data."""
    config = json.dumps({"init_params": dict(init), "recon_params": {}, "hypertune_params": {}})
    return StudyMeta("s", "minimize", "loss", "ptyrad", "", "ptyrad", config, "{}", provenance=recorded)


def patterns(path: Path | str) -> dict[str, Any]:
    return {"meas_params": {"path": str(path), "key": "patterns"}}


def compare(old: StudyMeta, new: StudyMeta) -> list[str]:
    return provenance.compare(old, new, file=Path("s.h5"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "old" / "patterns.h5"
    path.parent.mkdir()
    path.write_bytes(b"patterns")
    return path


def test_patterns_that_moved(data: Path, tmp_path: Path) -> None:
    """The study goes on with the same bytes at another path, and says so with both paths."""
    old = study(patterns(data), data_sha256=sha256(data))
    moved = data.rename(tmp_path / "renamed.h5")
    (notice,) = compare(old, study(patterns(moved)))
    assert str(moved) in notice
    assert str(data) in notice
    assert "meas_params.path" in notice


@pytest.mark.parametrize("old_place", ["relative", "link", "other spelling"])
def test_another_name_of_the_same_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_place: str
) -> None:
    """A relative path, a link, a detour: the bytes count."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.h5").symlink_to(data)
    name = {"relative": "old/patterns.h5", "link": "link.h5", "other spelling": f"{tmp_path}/old/../old/patterns.h5"}
    old = study(patterns(name[old_place]), data_sha256=sha256(data))
    assert len(compare(old, study(patterns(data)))) == 1


def test_other_patterns_at_another_path(data: Path, tmp_path: Path) -> None:
    """Other bytes are other data, before any worker starts."""
    old = study(patterns(data), data_sha256=sha256(data))
    (tmp_path / "other.h5").write_bytes(b"others")
    with pytest.raises(ConfigError, match="other data") as caught:
        compare(old, study(patterns(tmp_path / "other.h5")))
    assert caught.value.key == "init_params.meas_params.path"


def test_results_that_know_no_sum(data: Path, tmp_path: Path) -> None:
    """Of such results the file at the old path is compared; where it is gone, a link is the way out."""
    copy = Path(shutil.copy(data, tmp_path / "copy with blank.h5"))
    old, new = study(patterns(data)), study(patterns(copy))
    assert len(compare(old, new)) == 1
    data.unlink()
    with pytest.raises(ConfigError) as caught:
        compare(old, new)
    assert f"ln -s '{copy}' {data}" in caught.value.hint


@pytest.mark.parametrize("key", ["init_params.probe_params", "init_params.pos_params.path"])
def test_further_files(data: Path, tmp_path: Path, key: str) -> None:
    """Probe, positions and all other files that the params name are known like the patterns."""
    part = key.split(".")[1]
    named: Any = {"path": str(data)} if key.endswith(".path") else str(data)
    other: Any = {"path": str(tmp_path / "new.h5")} if key.endswith(".path") else str(tmp_path / "new.h5")
    old = study({part: named}, **{f"sha256 {key}": sha256(data)})
    data.rename(tmp_path / "new.h5")
    (notice,) = compare(old, study({part: other}))
    assert notice.startswith(key)
    (tmp_path / "new.h5").write_bytes(b"another probe")
    with pytest.raises(ConfigError, match="other data"):
        compare(old, study({part: other}))


def test_folders_that_moved(tmp_path: Path) -> None:
    """A folder counts by sizes and times: moved it is the same; a copy without its times is told how to be made."""
    folder = tmp_path / "data.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "0").write_bytes(b"chunk")
    old = study(patterns(folder), data_sha256=sha256(folder))
    moved = folder.rename(tmp_path / "moved.zarr")
    assert len(compare(old, study(patterns(moved)))) == 1
    shutil.copytree(moved, tmp_path / "copied.zarr", copy_function=shutil.copyfile)
    with pytest.raises(ConfigError) as caught:
        compare(old, study(patterns(tmp_path / "copied.zarr")))
    assert "cp -a" in caught.value.hint


def test_two_changes_at_once(data: Path, tmp_path: Path) -> None:
    """What else changed is refused as ever, by its own key."""
    old = study({**patterns(data), "probe_kv": 80}, data_sha256=sha256(data))
    moved = data.rename(tmp_path / "renamed.h5")
    with pytest.raises(ConfigError) as caught:
        compare(old, study({**patterns(moved), "probe_kv": 300}))
    assert caught.value.key == "init_params.probe_kv"


@pytest.mark.parametrize(("key", "name"), [("data", "data_sha256"), ("init_params.probe_params",) * 2])
def test_other_bytes_at_the_same_path(key: str, name: str) -> None:
    """What a worker reads is compared with what the trials were made of."""
    name = name if name == key + "_sha256" else f"sha256 {name}"
    with pytest.raises(ConfigError) as caught:
        provenance.compare_data(study({}, **{name: "a"}), {name: "b"}, file=Path("s.h5"))
    assert caught.value.key == key
    assert provenance.compare_data(study({}), {name: "b"}, file=Path("s.h5")) == []
    moved = study({}, data="/a", **{name: "a"})
    assert provenance.compare_data(moved, {"data": "/b", name: "a"}, file=Path("s.h5")) == []


def test_program_of_a_sweep(tmp_path: Path) -> None:
    """A program that moved is the same program; another one at another path is refused."""
    for folder, text in (("a", "print()"), ("b", "print()"), ("c", "print(1)")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_text(text)
    metas = {
        folder: provenance.study_meta(made(tmp_path, program=str(tmp_path / folder / "train.py"))) for folder in "abc"
    }
    (notice,) = compare(metas["a"], metas["b"])
    assert notice.startswith("program")
    with pytest.raises(ConfigError) as caught:
        compare(metas["a"], metas["c"])
    assert caught.value.key == "program"


def test_file_of_a_sweep(tmp_path: Path) -> None:
    """A fixed parameter that names a file is compared by its bytes while the old one is there."""
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).write_bytes(b"1")
    lr = {"min": 0.0, "max": 1.0}
    old, new = (
        provenance.study_meta(made(tmp_path, {"lr": lr, "data": {"value": str(tmp_path / name)}}))
        for name in ("a.npy", "b.npy")
    )
    assert len(compare(old, new)) == 1


def measured(**own: str) -> StudyMeta:
    """A study with metrics of its own, scored by ``mine.py``."""
    return replace(study({}, **{"metric b sha256": sha256(Path("mine.py"))}), own_metrics=own)


@pytest.mark.parametrize("now", ["gone.py:good", "deep/er.py:good", "gone:good", "{here}/gone.py:good"])
def test_a_metrics_function_that_moved(now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by the bytes of its source, as a file or as a module, whether the old one is there or not."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def good(trial):\n    return 1.0\n")
    old = measured(b="mine.py:good")
    Path("deep").mkdir()
    for name in ("gone.py", "deep/er.py"):
        shutil.copy("mine.py", name)
    Path("mine.py").unlink()
    now = now.replace("{here}", str(tmp_path))
    (notice,) = compare(old, replace(old, own_metrics={"b": now}))
    assert notice.startswith("ptydask.metrics.b: ")
    assert "mine.py:good" in notice


@pytest.mark.parametrize("now", ["other.py:good", "mine.py:better", "nowhere.py:good", "mine.py"])
def test_another_function_is_another_metric(now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def good(trial):\n    return 1.0\ndef better(trial):\n    return 2.0\n")
    Path("other.py").write_text("def good(trial):\n    return 2.0\n")
    old = measured(b=f"{tmp_path}/mine.py:good")
    with pytest.raises(ConfigError) as caught:
        compare(old, replace(old, own_metrics={"b": now}))
    assert caught.value.key == "ptydask.metrics.b"
    assert "ln -s" not in caught.value.hint


def test_a_function_of_a_sweep_that_moved(tmp_path: Path) -> None:
    for name, text in (("fit.py", "def fit(p): ..."), ("moved.py", "def fit(p): ..."), ("other.py", "def fit(p): 1")):
        (tmp_path / name).write_text(text)
    metas = [
        provenance.study_meta(made(tmp_path, program=..., engine={"callable": f"{tmp_path}/{name}.py:fit"}))
        for name in ("fit", "moved", "other")
    ]
    old = replace(metas[0], provenance={**metas[0].provenance, "callable_sha256": sha256(tmp_path / "fit.py")})
    (notice,) = compare(old, metas[1])
    assert notice.startswith("engine.callable")
    with pytest.raises(ConfigError):
        compare(old, metas[2])
