"""Results that were copied or renamed: file, folder, or both; nothing is lost, and what is missing is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_cases import meta, output, packed, phase, put, record, stopped

from ptydask.errors import NoResults, StoreError, UnusableResults
from ptydask.store import Store, lock, reader
from ptydask.store.upkeep import info, merge, packing, rebuild, verify

COUNT = 3


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A study of three trials that was stopped: ``old.h5`` and ``old.trials``."""
    return stopped(tmp_path / "old.h5", range(COUNT))


def folder(path: Path) -> Path:
    return path.with_suffix(".trials")


def rename_file(old: Path, new: Path) -> None:
    old.rename(new)


def rename_both(old: Path, new: Path) -> None:
    old.rename(new)
    folder(old).rename(folder(new))


def rename_folder(old: Path, new: Path) -> None:
    old.unlink()
    folder(old).rename(folder(new))


def copy_both(old: Path, new: Path) -> None:
    shutil.copy(old, new)
    shutil.copytree(folder(old), folder(new))


def rename_folder_alone(old: Path, new: Path) -> None:
    old.rename(new)
    folder(old).rename(old.with_name("elsewhere.trials"))


@pytest.mark.parametrize("move", [rename_file, rename_both, rename_folder, copy_both, rename_folder_alone])
def test_a_study_goes_on(old: Path, move: object) -> None:
    """Under its new name the study has all its trials, and packs all of them."""
    new = old.with_name("new name.h5")
    move(old, new)  # type: ignore[operator]
    store = Store.open(new, meta())
    assert len(store.records) == COUNT
    assert bool(store.notices) == (move in (rename_file, rename_folder_alone))
    put(store, record(COUNT), output(COUNT))
    store.finish()
    assert store.damaged == ()
    assert not folder(new).exists()
    with reader.open(new) as results:
        for number in range(COUNT + 1):
            np.testing.assert_array_equal(results.trial(number).arrays["object_phase"].read(), phase(number))


@pytest.mark.parametrize("move", [rename_file, rename_both, copy_both, rename_folder_alone])
def test_it_is_read(old: Path, move: object) -> None:
    """Reading needs no run first: trials, verify, info and merge find the folder; nothing is renamed for it."""
    new = old.with_name("new.h5")
    move(old, new)  # type: ignore[operator]
    before = sorted(path.name for path in new.parent.iterdir())
    with reader.open(new) as results:
        np.testing.assert_array_equal(results.trial(1).arrays["object_phase"].read(), phase(1))
        assert not results.live
    assert verify.verify(new).intact
    assert info.collect_info(new)["trials"]["with_arrays"] == COUNT
    assert len(merge.read([new])[0].trials) == COUNT
    assert packing.pack(new, dry_run=True).trials == COUNT
    assert sorted(path.name for path in new.parent.iterdir()) == before


@pytest.mark.parametrize("command", [packing.pack, rebuild.rebuild])
def test_upkeep_takes_the_folder_along(old: Path, command: object) -> None:
    """Packing and rebuilding a renamed file use the folder under its old name."""
    new = old.rename(old.with_name("new.h5"))
    report = command(new)  # type: ignore[operator]
    assert report.trials == COUNT
    assert not folder(old).exists()


def test_copy_of_the_index(old: Path) -> None:
    """Of a copy without its folder the trials are read; who goes on is told what to copy, as they are another's."""
    new = Path(shutil.copy(old, old.with_name("new.h5")))
    with reader.open(new) as results:
        assert results.trial(0).record == record(0)
    before = old.read_bytes()
    with pytest.raises(UnusableResults, match=r"cp -r \S*old\.trials \S*new\.trials"):
        Store.open(new, meta())
    assert new.read_bytes() == old.read_bytes() == before
    assert not folder(new).exists()


def test_folder_left_behind(old: Path, tmp_path: Path) -> None:
    """An index alone is never taken for a study without trials: it is refused, and left as it is."""
    (tmp_path / "apart").mkdir()
    new = old.rename(tmp_path / "apart" / "new.h5")
    before = new.read_bytes()
    for begin in (lambda: Store.open(new, meta()), lambda: packing.pack(new)):
        with pytest.raises(UnusableResults, match=r"new\.trials") as caught:
            begin()
        assert "rebuild" in str(caught.value)
    with reader.open(new) as results:
        assert len(results.records()) == COUNT
        with pytest.raises(StoreError, match=r"new\.trials") as unread:
            results.trial(1)
    assert "no trial 1" not in str(unread.value)
    assert new.read_bytes() == before
    assert not folder(new).exists()
    assert rebuild.rebuild(new).numbers_only == (0, 1, 2)


def test_file_left_behind(old: Path) -> None:
    """A folder alone is named, with what makes the file of it."""
    old.unlink()
    with pytest.raises(NoResults, match=r"old\.trials"):
        reader.open(old)
    assert packing.pack(old).trials == COUNT


def test_folder_copied_in_part(old: Path) -> None:
    """Of trials whose files are missing the numbers stay, and it is said which."""
    (folder(old) / "000001.h5").unlink()
    store = Store.open(old, meta())
    assert len(store.records) == COUNT
    assert "000001.h5" in store.damaged[0]
    put(store, record(COUNT), output(COUNT))
    store.refresh(force=True)
    store.finish()
    with reader.open(old) as results:
        assert results.records() == [record(number) for number in range(COUNT + 1)]
        assert results.trial(1).lost
        assert not results.trial(2).lost


def test_pack_left_behind(tmp_path: Path) -> None:
    """The same of the older pack of a study that goes on."""
    path = packed(tmp_path / "s.h5", [record(0), record(1)])
    store = Store.open(path, meta())
    put(store, record(2), output(2))
    store.close()
    for older in folder(path).glob("packed-*.h5"):
        older.unlink()
    store = Store.open(path, meta())
    assert sorted(store.records) == [0, 1, 2]
    assert len(store.damaged) == 2
    store.close()


def test_folder_of_another_study(old: Path, tmp_path: Path) -> None:
    """A folder beside it that belongs to other results is not taken."""
    other = Store.open(tmp_path / "other.h5", meta())
    put(other, record(0), output(0))
    other.close()
    shutil.rmtree(folder(old))
    with pytest.raises(UnusableResults):
        Store.open(old, meta())
    assert folder(other.path).exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "old.h5", meta())
    put(store, record(0), output(0))
    store.refresh(force=True)
    yield store
    store.close()


def test_copy_of_a_running_study(running: Store) -> None:
    """A copy of the folder holds a copy of the lock, which is nobody's: it is not running, and can be gone on with."""
    new = running.path.with_name("new.h5")
    copy_both(running.path, new)
    assert lock.owner_of(running.folder) is not None
    assert lock.owner_of(folder(new)) is None
    with reader.open(new) as results:
        assert not results.live
    store = Store.open(new, meta())
    assert len(store.records) == 1
    store.close()


def test_copy_of_a_running_study_on_another_host(running: Store) -> None:
    """Nor is the other host's driver waited for."""
    new = running.path.with_name("new.h5")
    copy_both(running.path, new)
    copied = folder(new) / lock.NAME
    copied.write_text(json.dumps({**json.loads(copied.read_text()), "host": "elsewhere"}))

    def sleep(seconds: float) -> None:
        raise AssertionError("waited for a driver that is not there")

    lock.acquire(folder(new), sleep=sleep).release()


def test_renamed_under_a_running_study(running: Store) -> None:
    """Nobody takes the folder of a study that is being run."""
    new = running.path.rename(running.path.with_name("new.h5"))
    with pytest.raises(UnusableResults, match="being run"):
        Store.open(new, meta())
    new.rename(running.path)


def test_packed_files_need_no_folder(tmp_path: Path) -> None:
    """A copy of a finished study is complete by itself, also while the first one goes on."""
    path = packed(tmp_path / "s.h5", [record(0)])
    copy = Path(shutil.copy(path, tmp_path / "copy.h5"))
    store = Store.open(path, meta())
    put(store, record(1), output(1))
    with reader.open(copy) as results:
        assert results.records() == [record(0)]
    store.close()
    other = Store.open(copy, meta())
    assert sorted(other.records) == [0]
    other.close()
