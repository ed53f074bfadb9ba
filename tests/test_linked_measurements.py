"""Measurement files whose data lie in other files: what is missing is named, and never read as zeros."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_cases
import yaml
from engine_cases import SLOT, params, plan, write_patterns

from ptydask.analysis.export import params as trial_params
from ptydask.config import Overrides
from ptydask.driver import provenance
from ptydask.driver.prepare import complete_plan
from ptydask.engines.ptyrad import datafiles, hdf5_patterns, release
from ptydask.errors import ConfigError, DataError
from ptydask.model import StudyMeta
from ptydask.store.foreign import links, measurement_headers

DATA = np.arange(1, 129, dtype="f4").reshape(8, 4, 4)
FITS = (8, 4, 4)
OFF = (("hypertune_params.if_hypertune", False),)


def fits(shape: tuple[int, ...]) -> bool:
    return shape == FITS


def write(path: Path, **datasets: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def virtual(path: Path, *sources: tuple[str, str, int], rows: int = 8) -> Path:
    """A virtual dataset ``p`` of parts along the first axis: file, dataset, rows."""
    with h5py.File(path, "w") as file:
        layout, start = h5py.VirtualLayout((rows, 4, 4), "f4"), 0
        for name, dataset, count in sources:
            layout[start : start + count] = h5py.VirtualSource(name, dataset, (count, 4, 4), "f4")
            start += count
        file.create_virtual_dataset("p", layout)
    return path


def numbered(path: Path) -> Path:
    """A virtual dataset of part_0.h5, part_1.h5, as many as there are, four rows each."""
    with h5py.File(path, "w") as file:
        every = h5py.h5s.UNLIMITED
        space = h5py.h5s.create_simple((8, 4, 4), (every, 4, 4))
        blocks = space.copy()
        blocks.select_hyperslab((0, 0, 0), (every, 1, 1), (4, 1, 1), (4, 4, 4))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_virtual(blocks, b"part_%b.h5", b"d", h5py.h5s.create_simple((4, 4, 4)))
        h5py.h5d.create(file.id, b"p", h5py.h5t.IEEE_F32LE, space, dcpl=properties)
    return path


def external(path: Path, content: bytes | None, name: str = "raw.bin") -> Path:
    """A dataset ``p`` whose bytes are in a file beside it."""
    with h5py.File(path, "w") as file:
        file.create_dataset("p", FITS, "f4", external=[(name, 0, DATA.nbytes)])
    if content is not None:
        (path.parent / name).write_bytes(content)
    return path


def linking(path: Path, **targets: h5py.SoftLink | h5py.ExternalLink) -> Path:
    with h5py.File(path, "w") as file:
        for name, link in targets.items():
            file[name.replace("__", "/")] = link
    return path


# --- what is missing ----------------------------------------------------------------------------------


def _nested(folder: Path) -> Path:
    virtual(folder / "inner.h5", ("gone.h5", "d", 8))
    return virtual(folder / "v.h5", ("inner.h5", "p", 8))


def _circle(folder: Path) -> Path:
    virtual(folder / "a.h5", ("v.h5", "p", 8))
    return virtual(folder / "v.h5", ("a.h5", "p", 8))


def _linked_source(folder: Path) -> Path:
    linking(folder / "s.h5", d=h5py.ExternalLink("gone.h5", "/x"))
    return virtual(folder / "v.h5", ("s.h5", "d", 8))


def _link_to_virtual(folder: Path) -> Path:
    virtual(folder / "v.h5", ("gone.h5", "d", 8))
    return linking(folder / "m.h5", p=h5py.ExternalLink("v.h5", "/p"))


def _chain(folder: Path) -> Path:
    linking(folder / "b.h5", x=h5py.ExternalLink("gone.h5", "/x"))
    return linking(folder / "m.h5", p=h5py.SoftLink("/q"), q=h5py.ExternalLink("b.h5", "/x"))


def _text_source(folder: Path) -> Path:
    (folder / "s.h5").write_text("no HDF5")
    return virtual(folder / "v.h5", ("s.h5", "d", 8))


def _two_of_three(folder: Path) -> Path:
    write(folder / "s.h5", d=DATA[:2])
    return virtual(folder / "v.h5", ("s.h5", "d", 2), ("gone.h5", "d", 3), ("gone2.h5", "d", 3))


def _short_source(folder: Path) -> Path:
    write(folder / "s.h5", d=DATA[:3])
    return virtual(folder / "v.h5", ("s.h5", "d", 8))


def _short_slice(folder: Path) -> Path:
    write(folder / "s.h5", d=DATA[:3])
    with h5py.File(folder / "v.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 4, 4), "f4")
        layout[:] = h5py.VirtualSource("s.h5", "d", (8, 4, 4), "f4")[4:6]
        file.create_virtual_dataset("p", layout)
    return folder / "v.h5"


MISSING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a source of two": (_two_of_three, r"3 files; missing is gone\.h5, the first of 2"),
    "a source in another folder": (lambda f: virtual(f / "v.h5", ("raw/gone.h5", "d", 8)), r"copy it to .*/raw"),
    "a source by its whole path": (lambda f: virtual(f / "v.h5", ("/old/gone.h5", "d", 8)), "beside the file"),
    "a dataset of a source": (
        lambda f: virtual(f / "v.h5", (write(f / "s.h5", e=DATA).name, "d", 8)),
        r"d in .*s\.h5.*no such dataset",
    ),
    "the end of a source": (_short_source, r"s\.h5, which has the shape \(3, 4, 4\)"),
    "the end of a part of a source": (_short_slice, r"s\.h5, which has the shape \(3, 4, 4\)"),
    "a source of a source": (_nested, r"inner\.h5 takes .*gone\.h5"),
    "a virtual dataset of itself": (_circle, "itself"),
    "a source behind a link": (_linked_source, r"s\.h5 is a link to /x in the file gone\.h5"),
    "a source that is no HDF5": (_text_source, r"s\.h5, which cannot be read"),
    "a source of what a link leads to": (_link_to_virtual, r"v\.h5 takes .*gone\.h5"),
    "the file of a link": (lambda f: linking(f / "m.h5", p=h5py.ExternalLink("gone.h5", "/d")), r"gone\.h5"),
    "the dataset of a link": (
        lambda f: linking(f / "m.h5", p=h5py.ExternalLink(write(f / "s.h5", e=DATA).name, "/d")),
        r"/d in .*s\.h5, where there is no such",
    ),
    "the end of a chain of links": (_chain, r"b\.h5 is a link to /x in the file gone\.h5"),
    "the end of a soft link": (lambda f: linking(f / "m.h5", p=h5py.SoftLink("/q/r")), "/p .*link to /q/r"),
    "a link to itself": (lambda f: linking(f / "m.h5", p=h5py.SoftLink("/p")), "circle"),
    "a file of bytes": (lambda f: external(f / "x.h5", None), r"raw\.bin, which is not there"),
    "the end of a file of bytes": (lambda f: external(f / "x.h5", bytes(100)), "of 512 bytes 100 are there"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key and without one, by the driver and by the worker."""
    monkeypatch.chdir(tmp_path)
    make, words = MISSING[what]
    path = make(tmp_path)
    for call in (
        lambda: hdf5_patterns.find_patterns(path, "p", fits),
        lambda: hdf5_patterns.find_patterns(path, None, fits),
        lambda: hdf5_patterns.require_whole(path, "p"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert caught.value.key.startswith("init_params.meas_params.")


def test_a_file_of_bytes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 looks for it in the working directory, unless it is told to look beside the file."""
    path = external(tmp_path / "x.h5", DATA.tobytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="HDF5_EXTFILE_PREFIX"):
        hdf5_patterns.find_patterns(path, "p", fits)
    monkeypatch.setenv("HDF5_EXTFILE_PREFIX", "${ORIGIN}")
    assert hdf5_patterns.find_patterns(path, "p", fits).shape == FITS


def test_a_filter_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and number, and the package that brings it; where that is there, what else to do."""
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("p", data=DATA, chunks=(1, 4, 4), compression="gzip")
    virtual(tmp_path / "v.h5", ("c.h5", "p", 8))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    for installed, hint in ((None, "pip install hdf5plugin"), (object(), "HDF5_PLUGIN_PATH")):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, installed=installed: installed)
        for file in (path, tmp_path / "v.h5"):
            with pytest.raises(DataError, match=rf"deflate \(1\); .*{hint}"):
                hdf5_patterns.find_patterns(file, "p", fits)


def test_filters_of_hdf5plugin_are_there(tmp_path: Path) -> None:
    """Where the package is installed, importing it is nobody's own task."""
    plugin = pytest.importorskip("hdf5plugin", reason="hdf5plugin has the filter")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("p", data=DATA, chunks=(1, 4, 4), **plugin.Bitshuffle())
    assert hdf5_patterns.find_patterns(tmp_path / "c.h5", "p", fits).shape == FITS


# --- what is said --------------------------------------------------------------------------------------


def test_what_nobody_wrote_is_said(tmp_path: Path) -> None:
    """Chunks that were never written, a part of a virtual dataset that no file has: legal, and read as zeros."""
    with h5py.File(tmp_path / "half.h5", "w") as file:
        file.create_dataset("p", FITS, "f4", chunks=(1, 4, 4))[:3] = 1
    notices = hdf5_patterns.find_patterns(tmp_path / "half.h5", "p", fits).notices
    assert len(notices) == 1
    assert "of 8 chunks 5 were never written" in notices[0]
    write(tmp_path / "s.h5", d=DATA[:6])
    virtual(tmp_path / "v.h5", ("s.h5", "d", 6))
    assert "25 %" in " ".join(hdf5_patterns.find_patterns(tmp_path / "v.h5", "p", fits).notices)
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file.create_dataset("p", FITS, "f4")
    assert "nothing was ever written" in hdf5_patterns.find_patterns(tmp_path / "u.h5", "p", fits).notices[0]
    virtual(tmp_path / "x.h5", ("u.h5", "p", 8))
    assert "u.h5: nothing was ever" in hdf5_patterns.find_patterns(tmp_path / "x.h5", "p", fits).notices[0]
    assert hdf5_patterns.find_patterns(write(tmp_path / "w.h5", p=DATA), "p", fits).notices == ()


def test_numbered_files(tmp_path: Path) -> None:
    """Of ``part_%b.h5`` there are as many as there are: the first that is missing is named."""
    write(tmp_path / "part_0.h5", d=DATA[:4])
    found = hdf5_patterns.find_patterns(numbered(tmp_path / "v.h5"), "p", fits)
    assert found.shape == (4, 4, 4)
    assert "part_1.h5, which is not there" in found.notices[-1]


# --- without a key ---------------------------------------------------------------------------------------


def test_the_dataset_is_found_behind_links(tmp_path: Path) -> None:
    """A detector's master: its one dataset is in another file; the key that PtyRAD gets is said."""
    write(tmp_path / "data.h5", entry__data=DATA, mask=np.zeros((4, 4)))
    master = linking(tmp_path / "m.h5", entry__data__data_000001=h5py.ExternalLink("data.h5", "/entry/data"))
    found = hdf5_patterns.find_patterns(master, None, fits)
    assert (found.shape, found.key) == (FITS, "entry/data/data_000001")
    assert "entry/data/data_000001" in found.notices[0]


def test_a_plain_file_needs_no_key(tmp_path: Path) -> None:
    """PtyRAD finds it: the settings stay as they were, and studies that have begun go on."""
    found = hdf5_patterns.find_patterns(write(tmp_path / "d.h5", dp=DATA, x=np.zeros(3)), None, lambda shape: False)
    assert (found.shape, found.key, found.notices) == (FITS, None, ())


def test_of_several_the_one_that_fits(tmp_path: Path) -> None:
    """A second name of it, links in a circle and a link that leads nowhere do not matter."""
    path = write(tmp_path / "d.h5", a__dark=DATA[:2], a__dp=DATA)
    with h5py.File(path, "a") as file:
        file["b"], file["second"], file["nothing"] = h5py.SoftLink("/a/dp"), file["a/dp"], h5py.SoftLink("/none")
        file["a/up"] = h5py.SoftLink("/")
    assert hdf5_patterns.find_patterns(path, None, fits).key in ("a/dp", "second")


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ({"a": DATA, "b": DATA, "dark": DATA[:1]}, "one of the 2 that fit the scan .*file has a, b$"),
        ({"a": DATA[:2], "b": DATA[:3]}, "one of the 2 datasets of 3 or 4 dimensions .*a, b"),
        ({"d_1": DATA[:3], "d_2": DATA[3:]}, "in 2 datasets .*join d_1, d_2"),
        ({"x": np.zeros(3)}, "one of the 0 datasets .*file has x"),
        ({}, "the file has no dataset"),
    ],
)
def test_several_are_named(datasets: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        hdf5_patterns.find_patterns(write(tmp_path / "d.h5", **datasets), None, fits)


def test_a_key_of_a_group_or_of_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "d.h5", entry__data__dp=DATA)
    assert hdf5_patterns.find_patterns(path, "entry.data.dp", fits).shape == FITS
    with pytest.raises(DataError, match="a group, with entry/data/dp"):
        hdf5_patterns.find_patterns(path, "/entry/data", fits)
    with pytest.raises(DataError, match="did you mean 'entry/data/dp'"):
        hdf5_patterns.find_patterns(path, "entry/data/dpp", fits)
    dotted = write(tmp_path / "e.h5", **{"scan.1": DATA, "dark": DATA[:1]})
    with pytest.raises(DataError, match=r"'scan\.1', which PtyRAD cannot name"):
        hdf5_patterns.find_patterns(dotted, None, fits)


def test_a_file_that_somebody_has_open(tmp_path: Path) -> None:
    """This process may hold the file, however it was opened."""
    path = write(tmp_path / "d.h5", p=DATA)
    for locking in (None, True, False):
        with h5py.File(path, "r", locking=locking):
            assert measurement_headers.read_header(path, "p") == measurement_headers.ArrayHeader(FITS)


def test_where_hdf5_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole name, its last part beside the file, the folders of the variable, a link's target: as HDF5 itself."""
    write(tmp_path / "real" / "d.h5", d=DATA)
    holder = virtual(tmp_path / "real" / "v.h5", ("d.h5", "d", 8))
    (tmp_path / "v.h5").symlink_to(holder)
    for path in (holder, tmp_path / "v.h5"):
        assert links.find_referenced("d.h5", path, "HDF5_VDS_PREFIX") is not None
        with h5py.File(path) as file:
            assert file["p"][()].sum() == DATA.sum()
    moved = virtual(tmp_path / "w.h5", ("/old/d.h5", "d", 8))
    with pytest.raises(DataError):
        hdf5_patterns.find_patterns(moved, "p", fits)
    monkeypatch.setenv("HDF5_VDS_PREFIX", f"/nowhere:{tmp_path / 'real'}")
    assert hdf5_patterns.find_patterns(moved, "p", fits).shape == FITS


# --- other files that PtyRAD reads ----------------------------------------------------------------------------------

INIT = {"pos_N_scan_slow": 2, "pos_N_scan_fast": 4, "meas_Npix": 4}


def test_matlab_files(tmp_path: Path) -> None:
    """Of version 7.3, which is HDF5, as of HDF5; of older ones the array that fits, too."""
    scipy_io = pytest.importorskip("scipy.io", reason="scipy writes the files")
    path = tmp_path / "old.mat"

    def found(key: str | None = None, file: Path = path) -> hdf5_patterns.StoredPatterns:
        return datafiles.check_measurements({**INIT, "meas_params": {"path": str(file), "key": key}})

    scipy_io.savemat(path, {"dp": DATA, "dx": 0.5})
    assert (found().shape, found().key, found("dp").shape) == (FITS, None, FITS)
    scipy_io.savemat(path, {"dp": DATA, "dark": DATA[:2]})
    assert found().key == "dp"
    scipy_io.savemat(path, {"dp": DATA, "dp2": DATA})
    with pytest.raises(DataError, match=r"one of the 2 that fit the scan .*dp, dp2"):
        found()
    with pytest.raises(DataError, match="did you mean 'dp'"):
        found("dpp")
    new = virtual(tmp_path / "new.mat", ("gone.mat", "dp", 8))
    with pytest.raises(DataError, match=r"gone\.mat, which is not there"):
        found("p", new)


def test_zarr_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The array that fits; one that is not there is named, and chunks that are not are said."""
    zarr = pytest.importorskip("zarr", reason="PtyRAD 1.0 brings it")
    fields = ["path", "key", "selection", "zarr_kwargs"]
    monkeypatch.setattr(datafiles.schema, "known_fields", lambda *way: fields)
    group = zarr.open_group(str(tmp_path / "d.zarr"), mode="w")
    group.create_array("entry/dp", shape=FITS, chunks=(1, 4, 4), dtype="f4")[:6] = DATA[:6]
    params = {"path": str(tmp_path / "d.zarr")}

    def found(**more: object) -> hdf5_patterns.StoredPatterns:
        return datafiles.check_measurements({**INIT, "meas_params": {**params, **more}})

    assert (found().shape, found().key, found(key="/entry/dp").shape) == (FITS, None, FITS)
    assert "of 8 chunks 2 are not there" in found().notices[0]
    group.create_array("dark", shape=(2, 4, 4), dtype="f4")[:] = 1
    assert found().key == "entry/dp"
    with pytest.raises(DataError, match="did you mean 'entry/dp'"):
        found(key="entry/dpp")
    (tmp_path / "e.zarr").mkdir()
    with pytest.raises(DataError, match=r"cannot be read as \.zarr"):
        found(path=str(tmp_path / "e.zarr"))


# --- on the worker -----------------------------------------------------------------------------------------


# --- which files they are ------------------------------------------------------------------------------


def test_the_files_that_the_data_are_in(tmp_path: Path) -> None:
    """Of virtual datasets, numbered and nested ones too, of links and plain bytes; none of a file that has all."""
    for number in range(2):
        write(tmp_path / f"part_{number}.h5", d=DATA[4 * number :][:4])
    parts = [tmp_path / f"part_{number}.h5" for number in range(2)]
    inner = virtual(tmp_path / "inner.h5", ("part_0.h5", "d", 4), ("part_1.h5", "d", 4))
    assert hdf5_patterns.linked_files(inner, None) == parts
    assert hdf5_patterns.linked_files(inner, "p") == parts
    assert hdf5_patterns.linked_files(virtual(tmp_path / "outer.h5", ("inner.h5", "p", 8)), "p") == parts
    assert hdf5_patterns.linked_files(numbered(tmp_path / "n.h5"), "p") == parts
    link = linking(tmp_path / "link.h5", entry__data=h5py.ExternalLink("part_1.h5", "/d"))
    assert hdf5_patterns.linked_files(link, "entry/data") == parts[1:]
    assert hdf5_patterns.linked_files(link, "entry.data") == parts[1:]
    assert hdf5_patterns.linked_files(external(tmp_path / "e.h5", DATA.tobytes()), "p") == []
    assert hdf5_patterns.linked_files(parts[0], "d") == []
    np.save(tmp_path / "p.npy", DATA)
    assert hdf5_patterns.linked_files(tmp_path / "p.npy", None) == []


@pytest.mark.ptyrad
def test_data_behind_a_master_are_known_by_their_bytes(tmp_path: Path) -> None:
    """Other patterns behind the same master file are other data, though not a byte of that changed."""
    release.installed()
    from ptydask.engines.ptyrad import provenance as engine_provenance

    write(tmp_path / "a.h5", d=DATA)
    config = params(virtual(tmp_path / "v.h5", ("a.h5", "d", 8)))
    facts = engine_provenance.describe(config, "cpu", 1)
    assert facts == engine_provenance.describe(config, "cpu", 1)
    write(tmp_path / "a.h5", d=DATA + 1)
    other = engine_provenance.describe(config, "cpu", 1)
    assert other["data_sha256"] == facts["data_sha256"]
    old = StudyMeta("s", "minimize", "loss", "ptyrad", "", "yaml", "{}", "{}", provenance=facts)
    assert provenance.compare_data(old, facts, file=tmp_path / "s.h5") == []
    with pytest.raises(ConfigError, match=r"linked files: .*other data"):
        provenance.compare_data(old, other, file=tmp_path / "s.h5")


@pytest.mark.ptyrad
@pytest.mark.parametrize("again", [False, True])
def test_a_key_that_was_found_is_exported(tmp_path: Path, again: bool) -> None:
    """PtyRAD would not find it; so it is in the params file of a trial, and in that of the next study."""
    release.installed()
    patterns = np.load(write_patterns(tmp_path))
    write(tmp_path / "a.h5", d=patterns)
    link = linking(tmp_path / "v.h5", entry__data=h5py.ExternalLink("a.h5", "/d"))
    given = params(link)
    given["init_params"]["meas_params"] = {"path": str(link)}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(given))
    meta = provenance.study_meta(complete_plan(tmp_path / "p.yaml", Overrides(settings=OFF)))
    record = store_cases.record(3, params={})
    hypertune = {"study_name": "s-2"} if again else None
    text = trial_params.of_trial(meta, record, near=tmp_path / "s.h5", hypertune=hypertune).text
    assert yaml.safe_load(text)["init_params"]["meas_params"] == {"path": str(link), "key": "entry/data"}


@pytest.mark.ptyrad
def test_a_worker_reads_no_zeros_for_a_missing_source(tmp_path: Path) -> None:
    """A session whose machine lacks a file that the data file names is refused; with it, it has the same patterns."""
    release.installed()
    from ptydask.engines.ptyrad import measurements

    patterns = np.load(write_patterns(tmp_path))
    half, shape = len(patterns) // 2, patterns.shape[1:]
    write(tmp_path / "a.h5", d=patterns[:half])
    write(tmp_path / "b.h5", d=patterns[half:])
    with h5py.File(tmp_path / "v.h5", "w") as file:
        layout = h5py.VirtualLayout(patterns.shape, "f4")
        layout[:half] = h5py.VirtualSource("a.h5", "d", (half, *shape), "f4")
        layout[half:] = h5py.VirtualSource("b.h5", "d", (half, *shape), "f4")
        file.create_virtual_dataset("p", layout)
    config = params(tmp_path / "v.h5")
    loaded = measurements.load(config, 0, "cpu", None).variables["measurements"]
    plain = measurements.load(params(tmp_path / "patterns.npy"), 0, "cpu", None).variables["measurements"]
    assert np.array_equal(loaded, plain)
    (tmp_path / "b.h5").unlink()
    from ptydask.engines.ptyrad.session import PtyradSession

    with pytest.raises(DataError, match=r"^tiny\.yaml: .*b\.h5, which is not there"):
        PtyradSession(plan(config), SLOT)
