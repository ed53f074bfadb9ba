"""What the viewers that people have make of a results file, by their own code: silx, h5grove (h5web), nexusformat."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from confirm_cases import confirmed, repeats_meta
from staged_store_cases import stage_meta, stage_record, staged
from store_cases import failed, meta, output, packed, phase, put, record

from ptydask.store import Store
from ptydask.store.upkeep.staging import begin_stage

pytest.importorskip("silx", reason="silx reads no file where it is not installed")
pytest.importorskip("h5grove", reason="h5grove serves no file where it is not installed")
pytest.importorskip("nexusformat", reason="nexusformat loads no file where it is not installed")

ODD = "a/b %é study."
BEST = 2


@pytest.fixture(params=["packed", "running", "odd names, packed", "odd names, running"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A finished study, and the index of one that runs; trial 2 is the best, trial 3 failed."""
    odd, running = "odd" in request.param, "running" in request.param
    path = tmp_path / ("odd name %41.é.h5" if odd else "results.h5")
    said: dict[str, Any] = {"search_space_json": '{"a/b": {}, "x y": {}}'} if odd else {}
    changes: dict[str, Any] = {"params": {"a/b": 1.0, "x y": "u/v%"}} if odd else {}
    if not running:
        packed(
            path, [*(record(n, **changes) for n in range(BEST + 1)), failed(3)], **said, name=ODD if odd else "plain"
        )
        yield path
        return
    store = Store.open(path, meta(ODD if odd else "plain", **said))
    for number in range(BEST + 1):
        put(store, record(number, **changes), output(number))
    put(store, failed(3))
    store.refresh(force=True)
    yield path
    store.close()


def plots(group: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every NXdata group within reach, by its path; folders of links to trials apart."""
    for name in group:
        item = group[name]
        if not hasattr(item, "keys") or name in ("by_error", "by_params", "snapshots"):
            continue
        cls = item.attrs.get("NX_class", "")
        if (cls.decode() if isinstance(cls, bytes) else str(cls)) == "NXdata":
            yield f"{at}/{name}", item
        else:
            yield from plots(item, f"{at}/{name}")


# --- silx view ---------------------------------------------------------------------------------------


def test_silx_opens_with_the_best_phase(results: Path) -> None:
    """What silx view shows first is the best trial's phase image, over y and x in angstrom, with its number."""
    import silx.io
    from silx.io.nxdata import get_default

    with silx.io.open(str(results)) as file:
        shown = get_default(file)
        assert shown is not None
        assert shown.is_valid
        assert shown.is_image
        np.testing.assert_array_equal(shown.signal[()], phase(BEST).sum((0, 1)))
        assert shown.axes_dataset_names == ["y", "x"]
        assert [str(np.char.decode(axis.attrs["units"])) for axis in shown.axes] == ["angstrom", "angstrom"]
        np.testing.assert_allclose(np.diff(shown.axes[0][()]), 0.15)
        assert shown.title == f"trial {BEST}: phase, summed over depth"
        assert shown.signal_name == "phase, summed over depth"


def test_silx_finds_every_plot_valid(results: Path) -> None:
    """History, images and curves are all plots by silx's own rules, none with an issue."""
    import silx.io
    from silx.io.nxdata import NXdata

    found: dict[str, list[list[str]]] = {}
    with silx.io.open(str(results)) as file:
        for path, group in plots(file):
            data = NXdata(group)
            assert data.is_valid, (path, data.issues)
            last = path.rpartition("/")[2]
            assert data.is_image if last == "image" else data.is_curve, path
            found.setdefault(last, []).append(data.auxiliary_signals_dataset_names)
    assert found == {
        "history": [["best_so_far"]],
        "image": [[]] * (BEST + 2),  # of each trial, and of the best again
        "curve": [["contrast"]] * (BEST + 2),
    }


def test_silx_finds_the_plots_of_a_confirmation(tmp_path: Path) -> None:
    """The same of a second study in the file, and of the curves in it; what opens is the study's own best trial."""
    import silx.io
    from silx.io.nxdata import NXdata, get_default

    path = confirmed(packed(tmp_path / "results.h5", [record(number) for number in range(BEST + 1)]))
    with silx.io.open(str(path)) as file:
        found = dict(plots(file))
        assert all(NXdata(group).is_valid for group in found.values())
        shown = get_default(file)
        assert shown is not None
        assert shown.title == f"trial {BEST}: phase, summed over depth"
        ring = NXdata(found[f"/{repeats_meta('').name}/frc/trial_000002"])
        assert (ring.signal_dataset_name, ring.auxiliary_signals_dataset_names) == ("correlation", ["half_bit"])
        assert ring.axes_dataset_names == ["spatial_frequency"]


@pytest.mark.parametrize("running", [False, True], ids=["packed", "running"])
def test_silx_opens_with_the_best_phase_of_the_latest_stage(running: bool, tmp_path: Path) -> None:
    """Earlier stages are further groups, each with its own best trial and valid plots; while a stage runs they are in
    the older pack."""
    import silx.io
    from silx.io.nxdata import NXdata, get_default

    path = staged(tmp_path / "results.h5", ("dz", "scan"))
    if running:
        begin_stage(path, stage_meta("final"))
        store = Store.open(path, stage_meta("final"))
        put(store, stage_record("final", 0), output(0))
        store.refresh(force=True)
    with silx.io.open(str(path)) as file:
        assert all(NXdata(group).is_valid for _, group in plots(file))
        shown = get_default(file)
        assert shown is not None
        best = 0 if running else 1
        assert shown.title == f"trial {best}: phase, summed over depth"
        np.testing.assert_array_equal(shown.signal[()], phase(best).sum((0, 1)))
        if not running:
            assert get_default(file["tBL_WSe2 dz"]).title == "trial 2: phase, summed over depth"
    if running:
        store.finish()


def test_h5web_and_nexusformat_open_a_study_of_stages(tmp_path: Path) -> None:
    """With the latest stage's best trial; the groups of all stages are listed."""
    from nexusformat.nexus import nxload

    path = staged(tmp_path / "results.h5")
    with h5py.File(path, "r") as file:
        assert H5web(file).default() == "/tBL_WSe2 final/best/image"
        assert {child["name"] for child in H5web(file).entity("/")["children"]} == {
            f"tBL_WSe2 {name}" for name in ("dz", "scan", "final")
        }
    root = nxload(str(path))
    np.testing.assert_array_equal(np.asarray(root.plottable_data.nxsignal.nxdata), phase(0).sum((0, 1)))


def test_viewers_open_a_stage_that_has_just_begun(tmp_path: Path) -> None:
    """It has no picture so far, and its history no point: nothing is shown at first, and nothing is wrong."""
    import silx.io
    from silx.io.nxdata import get_default

    path = staged(tmp_path / "results.h5", ("dz",))
    begin_stage(path, stage_meta("scan"))
    with silx.io.open(str(path)) as file:
        shown = get_default(file)
        assert shown is None or shown.is_valid
    with h5py.File(path, "r") as file:
        assert H5web(file).default() == "/tBL_WSe2 scan/history"


def test_silx_plots_history_and_curve(results: Path) -> None:
    """The history is error and best so far over the trial's number; a curve is the tuned metric over the step."""
    import silx.io
    from silx.io.nxdata import NXdata

    with silx.io.open(str(results)) as file:
        for path, group in plots(file):
            data = NXdata(group)
            if path.endswith("/history"):
                assert (data.signal_dataset_name, data.axes_dataset_names) == ("error", ["number"])
                np.testing.assert_array_equal(data.signal[()], [1 / 3, 1 / 4, 1 / 5, np.nan])
                np.testing.assert_array_equal(data.auxiliary_signals[0][()], [1 / 3, 1 / 4, 1 / 5, 1 / 5])
                assert data.signal_name == "loss"
            if path.endswith("/best/curve"):
                assert (data.signal_dataset_name, data.axes_dataset_names) == ("loss", ["step"])
                np.testing.assert_array_equal(data.signal[()], [0.9, 0.7, 0.5])
                assert data.title == f"trial {BEST}"


# --- h5web -------------------------------------------------------------------------------------------


class H5web:
    """Asks h5grove what h5web asks it, and takes the answers as JSON from the wire."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def _ask(self, path: str, what: str) -> Any:
        from h5grove import create_content
        from h5grove.encoders import encode

        content = create_content(self._file, path)
        return json.loads(encode(getattr(content, what)(), "json").content)

    def entity(self, path: str) -> Any:
        """Kind, shape, children."""
        return self._ask(path, "metadata")

    def attributes(self, path: str) -> Any:
        """Attribute name -> value."""
        return self._ask(path, "attributes")

    def values(self, path: str) -> Any:
        """All of a dataset."""
        return self._ask(path, "data")

    def default(self) -> str:
        """The path of what h5web shows first: ``default`` followed from the root, as h5web does."""
        path = ""
        while name := self.attributes(path or "/").get("default"):
            path = name if name.startswith("/") else f"{path}/{name}"
        return path


@pytest.fixture
def h5web(results: Path) -> Iterator[H5web]:
    """The file as the server opens it."""
    gc.collect()  # what another viewer left open decides how HDF5 opens the files behind external links
    with h5py.File(results, "r") as file:
        yield H5web(file)


def test_h5web_opens_with_the_best_phase(h5web: H5web) -> None:
    """Following ``default`` over soft and external links ends at the best trial's image, with all it takes to plot."""
    path = h5web.default()
    assert path.endswith("/best/image")
    said = h5web.attributes(path)
    assert (said["NX_class"], said["signal"], said["axes"]) == ("NXdata", "data", ["y", "x"])
    signal = h5web.entity(f"{path}/data")
    assert (signal["kind"], signal["shape"]) == ("dataset", [24, 16])
    np.testing.assert_allclose(h5web.values(f"{path}/data"), phase(BEST).sum((0, 1)), rtol=1e-6)
    assert h5web.attributes(f"{path}/data")["units"] == "rad"
    for axis, size in (("y", 24), ("x", 16)):
        assert h5web.attributes(f"{path}/{axis}")["units"] == "angstrom"
        np.testing.assert_allclose(h5web.values(f"{path}/{axis}"), 0.15 * np.arange(size))
    assert h5web.values(f"{path}/title") == f"trial {BEST}: phase, summed over depth"


def test_h5web_follows_every_link(h5web: H5web) -> None:
    """Every child of the study, of its folders of links and of its trials is there: no broken link is shown."""
    study = "/" + h5web.attributes("/")["default"]
    kinds: dict[str, int] = {}

    def visit(path: str) -> None:
        entity = h5web.entity(path)
        kinds[entity["kind"]] = kinds.get(entity["kind"], 0) + 1
        for child in entity.get("children", ()):
            visit(f"{path}/{child['name']}")

    visit(study)
    assert kinds.keys() == {"group", "dataset"}
    assert kinds["group"] > 20
    assert kinds["dataset"] > 100
    for name in h5web.entity(f"{study}/by_error")["children"]:
        assert h5web.attributes(f"{study}/by_error/{name['name']}")["state"] == "COMPLETE"
    assert h5web.values(f"{study}/table/state") == ["COMPLETE"] * (BEST + 1) + ["FAIL"]


# --- nexusformat -------------------------------------------------------------------------------------


def test_nexusformat_plots_the_best(results: Path) -> None:
    """nexusformat finds the best trial's phase as what is to be plotted, with its axes, and the history."""
    from nexusformat.nexus import nxload

    root = nxload(str(results))
    shown = root.plottable_data
    np.testing.assert_array_equal(np.asarray(shown.nxsignal.nxdata), phase(BEST).sum((0, 1)))
    assert [axis.nxname for axis in shown.nxaxes] == ["y", "x"]
    assert [axis.attrs["units"] for axis in shown.nxaxes] == ["angstrom", "angstrom"]
    study = root[root.attrs["default"]]
    assert study.nxclass == "NXentry"
    history = study["history"]
    assert (history.nxsignal.nxname, history.nxaxes[0].nxname) == ("error", "number")
    np.testing.assert_array_equal(history["best_so_far"].nxdata, [1 / 3, 1 / 4, 1 / 5, 1 / 5])
    curve = study["best/curve"]
    np.testing.assert_array_equal(np.asarray(curve.nxsignal.nxdata), [0.9, 0.7, 0.5])
