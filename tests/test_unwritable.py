"""Full disks and read-only folders: the file is named, and how to write somewhere else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from store_cases import meta, output, packed, put, record, stopped

from ptydask.cli import main
from ptydask.errors import StoreError
from ptydask.store import Store, files

CONFIG = '{"init_params": {"probe_kv": 80}, "recon_params": {}, "hypertune_params": {"tune_params": {}}}'


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return packed(tmp_path / "p.h5", [record(n) for n in range(3)], config_json=CONFIG)


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    return stopped(tmp_path / "u.h5", [0], config_json=CONFIG)


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def unwritable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on a disk takes nothing: a write tells no name, what makes a file does."""
    code: int = request.param

    def refuse(path: Path, *_: object) -> None:
        names = (str(path),) if code == errno.EROFS else ()
        raise OSError(code, os.strerror(code), *names)

    return lambda: monkeypatch.setattr(Path, "replace", refuse)


@pytest.mark.parametrize(
    ("command", "file", "way"),
    [
        ("export p.h5 csv", "p.csv", "export FILE.h5 csv OUT"),
        ("export p.h5 params", "p-trial2.yaml", "export FILE.h5 params OUT"),
        ("export p.h5 tiff", "p-tiff/", "export FILE.h5 tiff OUT"),
        ("report p.h5", "p.html", "-o NAME.html"),
        ("montage p.h5", "p-montage.png", "-o"),
        ("plot p.h5 history", "p-history.png", "-o"),
        ("rebuild p.h5 -o n.h5", "n.h5", "-o OUT.h5"),
        ("merge m.h5 p.h5", "m.h5", "OUT.h5"),
        ("pack p.h5 --arrays none -o n.h5", "n.h5", "-o OUT.h5"),
        ("pack u.h5", "u.h5", "-o OUT.h5"),
        ("demo new", "new", "demo DIR"),
    ],
)
def test_the_way_out_is_said(
    results: Path,
    unfinished: Path,
    unwritable: Callable[[], None],
    capfd: pytest.CaptureFixture[str],
    command: str,
    file: str,
    way: str,
) -> None:
    """One line: the file, the system's reason, the option that puts it elsewhere; nothing half-written stays."""
    before = sorted(path.name for path in results.parent.iterdir())
    unwritable()
    words = command.replace("merge m.h5 p.h5", "merge m.h5 p.h5 u.h5 --conflicts both").split()
    assert main(words) != 0
    (line,) = capfd.readouterr().err.splitlines()[-1:]
    assert file in line
    assert "another" in line
    assert way in line
    left = sorted(path.name for path in results.parent.iterdir() if path.name not in ("p-tiff", "new"))
    assert left == before


def test_folders_that_nothing_can_be_made_in(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Found out before the work: the folder is named, whichever path was given."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["export", "p.h5", "csv"]) == 2
    line = capfd.readouterr().err
    assert str(results.parent) in line
    assert "another place" in line


def test_a_full_stdout_has_no_other_place(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what is printed there is no file to name."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ptydask.cli.formats.print_text", fail)
    assert main(["ls", "p.h5"]) == 1
    assert capfd.readouterr().err == "ptydask: the output: No space left on device\n"


def test_results_that_cannot_be_packed(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a run: nothing is lost, and the file can be made on another disk."""
    store = Store.open(unfinished, meta(config_json=CONFIG))
    put(store, record(1), output(1))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "pwrite", full)
        with pytest.raises(StoreError, match=r"ptydask pack .*u\.h5 -o OUT\.h5"):
            store.finish()
    store.finish()
