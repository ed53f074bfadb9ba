"""docs/results-file.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_cases import meta, output, phase, put, record

from ptydask.model import Quantity
from ptydask.store import Store

PAGE = Path(__file__).parents[1] / "docs" / "results-file.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study ``results.h5`` in the working directory."""
    store = Store.open(tmp_path / "results.h5", meta("STUDY"))
    for number in (0, 3, 12):
        given = output(number)
        arrays = {**given.arrays, "object_amplitude": Quantity(phase(number, (1, 2, 24, 16)))}
        arrays["object_tilts"] = Quantity(np.zeros((1, 2)), "mrad")
        arrays["crop_positions"] = Quantity(np.zeros((300, 2), np.int64), "pixel")
        arrays |= {name: Quantity(np.arange(300)) for name in ("scan_indices", "heldout_indices")}
        program = {"command": "train --x=1", "artifacts": {"a/b.pt": b"1"}, "left_out": ("c: too large",)}
        put(
            store,
            record(number, traceback="Traceback", gradient={"scale": 0.5}),
            output(number, arrays=arrays, **program),
        )
    monkeypatch.chdir(tmp_path)
    return store.finish()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippets_run(results: Path, snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python example on the page runs as it stands, and finds the best trial."""
    if "h5netcdf" in snippet:
        pytest.importorskip("h5netcdf")
    found: dict[str, object] = {}
    exec(compile(snippet, str(PAGE), "exec"), found)
    if "image" in found:
        assert "best trial: 12" in capsys.readouterr().out
        np.testing.assert_array_equal(found["phase"], phase(12)[0])
    if "order" in found:
        assert list(np.asarray(found["error"])) == [1 / 3, 1 / 6, 1 / 15]
    if "by_error" in found:
        assert capsys.readouterr().out.startswith("000001 error=0.0666")


def test_page_names_what_is_there(results: Path) -> None:
    """Every path of the page's overview is in the file, and every group of the file is on the page."""
    overview = PAGE.read_text(encoding="utf-8").split("## What is where")[1].split("- `by_error`")[0]
    study = [line.split()[0] for line in overview.splitlines() if re.match(r" {6}\w", line)]
    trial = [
        name.strip(",") for line in overview.splitlines() if re.match(r" {8}\w", line) for name in line.split()[:1]
    ]
    with h5py.File(results) as file:
        for name in study:
            assert name in file["STUDY"], name
        for name in trial:
            assert name in file["STUDY/trials/000012"], name
        assert {name.split("/")[0] for name in study} == set(file["STUDY"]) - {"study_json"}
        named = {name.split("/")[0] for name in trial} | {"traceback"}
        assert set(file["STUDY/trials/000012"]) - named == {
            "record_json",
            "attributes_json",
            "thumbnail",
        }


def test_there_are_snippets() -> None:
    """The page has examples for h5py and for ptydask."""
    assert len(SNIPPETS) >= 6
