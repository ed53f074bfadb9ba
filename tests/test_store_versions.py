"""Files that earlier versions wrote: all that was in them is read, for ever. ``fixtures/make.py`` made them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from ptydask.errors import StoreError
from ptydask.model import Reason, TrialState
from ptydask.store import Store, layout, reader
from ptydask.store.upkeep import verify

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fixtures_make", FIXTURES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "f", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path / "f"


@pytest.mark.parametrize("version", range(1, layout.FORMAT_VERSION + 1))
@pytest.mark.parametrize("kind", ["packed", "index"])
def test_every_value_is_read(copies: Path, make: ModuleType, version: int, kind: str) -> None:
    """Records, columns, curves, arrays, images, snapshots, texts: as on the day they were written."""
    wanted = json.loads((copies / f"format-{version}.json").read_text(encoding="utf-8"))
    with reader.open(copies / f"format-{version}-{kind}.h5") as results:
        assert results.packed == (kind == "packed")
        found = json.loads(json.dumps(make.everything(results)))
    if kind == "index":  # it has no picture yet of a trial that ended since
        del found["thumbnails"], wanted["thumbnails"]
    assert found.keys() == wanted.keys()
    for part, value in wanted.items():
        assert found[part] == value, part


@pytest.mark.slow
@pytest.mark.parametrize("version", range(1, layout.FORMAT_VERSION + 1))
@pytest.mark.parametrize("kind", ["packed", "index"])
def test_they_are_verified(copies: Path, version: int, kind: str) -> None:
    """A later version finds nothing wrong with them."""
    report = verify.verify(copies / f"format-{version}-{kind}.h5")
    assert (report.kind, report.trials, report.problems) == (kind, 5, ())


def test_what_format_1_says(copies: Path) -> None:
    """Some of it in plain words, apart from what reading gave then."""
    with reader.open(copies / "format-1-packed.h5") as results:
        assert results.meta.name == "WSe2 50/50 µ."
        states = [(r.state, r.reason) for r in results.records()]
        assert states[0] == (TrialState.COMPLETE, Reason.NONE)
        assert states[2:4] == [(TrialState.PRUNED, Reason.PRUNED), (TrialState.FAIL, Reason.FAILED)]
        assert results.records()[0].params["huge"] == 2**70
        assert results.best() == results.records()[1]
        trial = results.trial(0)
        assert trial.attributes["large"] == 2**65
        assert trial.arrays["positions"][399].tolist() == [798.0, 799.0]
        assert (trial.arrays["probe"].read() == np.complex64(1 + 2j)).all()
        assert trial.curve["contrast"].tolist() == [1 / 3, 0.2, 0.5]
        assert len(results.records()[3].message) == 314


@pytest.mark.parametrize("kind", ["packed", "index"])
def test_a_study_of_an_earlier_version_goes_on(copies: Path, make: ModuleType, kind: str) -> None:
    """Opened by a driver, packed by this version: nothing is lost."""
    path = copies / f"format-1-{kind}.h5"
    store = Store.open(path, make.META)
    assert sorted(store.records) == [0, 1, 2, 3, 4]
    assert store.damaged == ()
    store.refresh(force=True)
    store.finish()
    assert verify.verify(path).problems == ()
    wanted = json.loads((copies / "format-1.json").read_text(encoding="utf-8"))
    with reader.open(path) as results:
        assert json.loads(json.dumps(make.everything(results))) == wanted


def test_the_script_still_writes_what_it_says(tmp_path: Path, make: ModuleType) -> None:
    """Written today, read today: the same as on that day, so the script is what made the files."""
    make.main(tmp_path)
    today = json.loads((tmp_path / f"format-{layout.FORMAT_VERSION}.json").read_text(encoding="utf-8"))
    assert today == json.loads((FIXTURES / f"format-{layout.FORMAT_VERSION}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["packed", "index"])
def test_a_later_format_is_refused(copies: Path, kind: str) -> None:
    """One line that says which ptydask wrote it, and what this one reads."""
    path = copies / f"format-1-{kind}.h5"
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = layout.FORMAT_VERSION + 1
    words = rf"{path.name}: written in format {layout.FORMAT_VERSION + 1} by ptydask .*, this ptydask reads up to "
    for refuse in (reader.open, verify.verify):
        with pytest.raises(StoreError, match=words) as error:
            refuse(path)
        assert "\n" not in str(error.value)


def test_they_are_small() -> None:
    """They are kept in the repository."""
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 700_000
