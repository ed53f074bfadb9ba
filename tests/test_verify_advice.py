"""What ``verify`` advises: a rebuild where one helps, and what helps where it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest
from store_cases import meta, output, packed, put, record, stopped

from ptydask.errors import StoreError
from ptydask.formatting import shell_path
from ptydask.store import Store
from ptydask.store.upkeep import rebuild, verify

STUDY = "tBL_WSe2"


def overwrite(path: Path, address: int, count: int = 400) -> None:
    with path.open("r+b") as raw:
        raw.seek(address)
        raw.write(b"\x5a" * count)


def address_of(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return int(h5py.h5o.get_info(file[name].id).addr)


def advice(path: Path) -> str:
    report = verify.verify(path)
    assert not report.intact
    return report.advice


def test_damage_that_a_rebuild_mends(tmp_path: Path) -> None:
    """A damaged trial among whole ones, in one file and in a folder; a table that cannot be read."""
    one = packed(tmp_path / "one.h5", [record(0), record(1)])
    overwrite(one, address_of(one, f"{STUDY}/trials/000001"))
    assert f"ptydask rebuild {shell_path(one)}" in advice(one)
    assert rebuild.rebuild(one).trials == 1
    table = packed(tmp_path / "table.h5", [record(0), record(1)])
    overwrite(table, address_of(table, f"{STUDY}/table"))
    assert f"ptydask rebuild {shell_path(table)}" in advice(table)
    assert rebuild.rebuild(table).trials == 2
    many = stopped(tmp_path / "many.h5", range(2))
    overwrite(many.with_suffix(".trials") / "000001.h5", 60)
    assert f"ptydask rebuild {shell_path(many)}" in advice(many)
    assert rebuild.rebuild(many).trials == 1


@pytest.mark.parametrize("kept", [60, 0.5])
def test_files_in_which_nothing_can_be_read(tmp_path: Path, kept: float) -> None:
    """Cut off anywhere, HDF5 opens none of it: only a copy helps, and a rebuild is not advised."""
    path = packed(tmp_path / "s.h5", [record(0)])
    size = int(kept if kept > 1 else kept * path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    assert "rebuild" not in advice(path).replace("rebuilt", "")
    assert "copy" in advice(path)
    with pytest.raises(StoreError):
        rebuild.rebuild(path)


def test_root_that_cannot_be_read(tmp_path: Path) -> None:
    """The same where the file's root is overwritten; with the trials' own files beside it a rebuild helps."""
    path = stopped(tmp_path / "s.h5", range(2))
    overwrite(path, address_of(path, "/"))
    assert f"ptydask rebuild {shell_path(path)}" in advice(path)
    shutil.rmtree(path.with_suffix(".trials"))
    assert "ptydask rebuild" not in advice(path)


def test_folder_that_is_missing(tmp_path: Path) -> None:
    """An index alone is not damaged: its folder is asked for."""
    path = stopped(tmp_path / "s.h5", range(2))
    shutil.rmtree(path.with_suffix(".trials"))
    assert "rebuild" not in advice(path)
    assert "s.trials" in advice(path)


def test_folder_of_another_study(tmp_path: Path) -> None:
    """Whoever mixed up two folders is told so."""
    path, other = stopped(tmp_path / "s.h5", range(2)), stopped(tmp_path / "other.h5", range(2))
    shutil.rmtree(path.with_suffix(".trials"))
    other.with_suffix(".trials").rename(path.with_suffix(".trials"))
    assert "rebuild" not in advice(path)
    assert "s.trials" in advice(path)


def test_file_that_somebody_writes(tmp_path: Path) -> None:
    """What is open for writing may be half changed: close it first."""
    path = packed(tmp_path / "s.h5", [record(0)])
    with h5py.File(path, "r+") as file:
        file[STUDY].attrs["mine"] = 1
        file.flush()
        said = advice(path)
    assert "rebuild" not in said
    assert "close it" in said


def test_study_that_runs(tmp_path: Path) -> None:
    """Nobody rebuilds under a driver."""
    store = Store.open(tmp_path / "s.h5", meta())
    written = put(store, record(0), output(0))
    overwrite(written.path, 60)
    assert "rebuild" not in advice(store.path)
    assert "being run" in advice(store.path)
    store.close()
