"""A confirmation in its study's file: put in, taken out, kept by all that writes the file anew, killed on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import confirm_cases as cases
import h5py
import numpy as np
import pytest
import store_crashes
from confirm_cases import GRID, confirmed, curve, read_repeats, run_repeats
from store_cases import damage, full_disk, meta, output, pack_copy, packed, put, rebuild_elsewhere, record
from store_crashes import deaths

from ptydask.analysis.half_rings import correlate_halves
from ptydask.cli import main
from ptydask.errors import StoreError
from ptydask.model import Image
from ptydask.ring_correlation import FourierRing
from ptydask.store import Store, confirmation, contents, digest, isolated, names, packed_study, reader
from ptydask.store.upkeep import embedding, info, merge, merge_plan, packing, rebuild, retention, verify


@pytest.fixture(autouse=True)
def questions_answered_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound files need no process of their own to be read."""
    monkeypatch.setattr(isolated.ChildReader, "ask", store_crashes.asked_here)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three trials, which nobody changes."""
    return packed(tmp_path_factory.mktemp("finished") / "results.h5", [record(number) for number in range(3)])


@pytest.fixture
def study(tmp_path: Path, finished: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(finished, tmp_path))


def numbers(path: Path) -> list[int]:
    with reader.open(path) as results:
        return [made.number for made in results.records()]


# --- in and out ---------------------------------------------------------------------------------------


def test_repeats_are_found_beside_the_file_and_then_in_it(study: Path) -> None:
    """The same repeats, records and arrays; the companion is gone, the study's own trials are as they were."""
    assert read_repeats(study) == {}
    companion = run_repeats(study)
    assert read_repeats(study) == {number: (item, companion) for number, item in enumerate(GRID)}
    with reader.open(study) as results:
        before = results.records(), results.id
    embedding.embed(study, {2: curve()})
    assert read_repeats(study) == {number: (item, study) for number, item in enumerate(GRID)}
    assert [path.name for path in study.parent.iterdir()] == ["results.h5"]
    with reader.open(study) as results:
        assert (results.records(), results.id) == before
        assert results.best() == record(2)


def test_layout(study: Path) -> None:
    """A second NXentry of the same layout, named by the root; plots and links in it lead within it."""
    confirmed(study)
    with h5py.File(study) as file:
        name = file.attrs["confirmation"].decode()
        assert name == "tBL_WSe2 confirmation"
        group = file[name]
        assert file.attrs["default"] == b"tBL_WSe2"
        assert group.attrs["NX_class"] == b"NXentry"
        assert set(file["tBL_WSe2"]) <= set(group)
        assert group["best"].name.startswith(f"/{name}/")
        assert len(group["by_error"]) == len(GRID)
        plot = group["frc/trial_000002"]
        assert plot.attrs["NX_class"] == b"NXdata"
        assert (plot.attrs["resolution"], plot.attrs["area"], plot.attrs["units"]) == (
            curve().resolution,
            curve().area,
            b"nm",
        )
        assert plot["spatial_frequency"].attrs["units"] == b"1/nm"
        assert digest.read_digest(group) == digest.group_digest(group)


@pytest.mark.parametrize("ring", [curve(1), curve(2)], ids=["above the line", "crossing"])
def test_curves_come_back(study: Path, ring: FourierRing) -> None:
    run_repeats(study)
    embedding.embed(study, {2: ring})
    with reader.open(study) as results:
        repeats = results.confirmation()
        assert repeats is not None
        with repeats:
            found = repeats.ring_curves()
        assert results.ring_curves() == {}
    assert list(found) == [2]
    for name in ("spatial_frequency", "correlation", "half_bit", "pixels", "crossing", "resolution", "length_unit"):
        np.testing.assert_array_equal(getattr(found[2], name), getattr(ring, name))


def test_it_grows(study: Path) -> None:
    """Taken out, it goes on under its numbers and its store's id; earlier curves stay where no newer are given."""
    confirmed(study)
    with h5py.File(study) as file:
        store_id = file[cases.repeats_meta("").name].attrs["store_id"]
    embedding.take_out(study)
    companion = confirmation.companion_of(study)
    assert numbers(companion) == list(range(len(GRID)))
    assert read_repeats(study)[0][1] == companion  # as many as in the file: the companion goes on
    more = (*GRID, (1, 7, 0), (2, 7, 0))
    run_repeats(study, more)
    embedding.embed(study, {1: curve(1)})
    assert {number: item for number, (item, _) in read_repeats(study).items()} == dict(enumerate(more))
    with h5py.File(study) as file:
        group = file[file.attrs["confirmation"]]
        assert group.attrs["store_id"] == store_id
        assert set(group["frc"]) == {"trial_000001", "trial_000002"}


def test_taking_out_twice_changes_nothing(study: Path) -> None:
    """Also where a companion with more trials is there already."""
    confirmed(study)
    embedding.take_out(study)
    run_repeats(study, (*GRID, (0, 5, 0)))
    embedding.take_out(study)
    assert len(read_repeats(study)) == len(GRID) + 1


def test_an_older_companion_does_not_hide_what_is_in_the_file(study: Path) -> None:
    """As where somebody put back a copy: the one with more trials counts."""
    run_repeats(study, GRID[:2])
    companion = confirmation.companion_of(study)
    old = companion.read_bytes()
    run_repeats(study)
    embedding.embed(study, {})
    companion.write_bytes(old)
    assert {path for _, path in read_repeats(study).values()} == {study}
    assert len(read_repeats(study)) == len(GRID)


@pytest.mark.parametrize("what", ["another study's repeats", "another study", "no HDF5", "a folder", "nothing"])
def test_a_companion_that_is_none(what: str, study: Path) -> None:
    """A file of that name that belongs to something else is no confirmation, and is left alone."""
    companion = confirmation.companion_of(study)
    if what == "another study's repeats":
        other = packed(study.with_name("other.h5"), [record(0)])
        shutil.move(run_repeats(other), companion)
    elif what == "another study":
        packed(companion, [record(0)])
    elif what == "no HDF5":
        companion.write_text("notes")
    elif what == "a folder":
        companion.mkdir()
    assert read_repeats(study) == {}


def test_a_study_that_is_not_packed_keeps_its_repeats_beside_it(tmp_path: Path) -> None:
    """In words: which file it is, and what to do; the companion stays."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    put(store, record(0), output(0))
    store.close()
    companion = run_repeats(path, [(0, 5, 0)])
    with pytest.raises(StoreError, match=r"results.h5: is not in one file yet"):
        embedding.embed(path, {})
    assert companion.exists()
    assert len(read_repeats(path)) == 1


def test_while_a_driver_has_the_study(study: Path) -> None:
    run_repeats(study)
    store = Store.open(study, meta())
    with pytest.raises(StoreError, match="is being run"):
        embedding.embed(study, {})
    store.close()
    assert len(read_repeats(study)) == len(GRID)


# --- all that writes the file anew ------------------------------------------------------------------------


def go_on(path: Path) -> Path:
    """Another trial, and packed again."""
    store = Store.open(path, meta())
    put(store, record(3), output(3))
    store.refresh(force=True)
    assert len(read_repeats(path)) == len(GRID)  # in the older pack, while the file is an index
    return store.finish()


def stop_and_pack(path: Path) -> Path:
    store = Store.open(path, meta())
    put(store, record(3), output(3))
    store.close()
    assert len(read_repeats(path)) == len(GRID)
    packing.pack(path)
    return path


def pack_copy_of_index(path: Path) -> Path:
    store = Store.open(path, meta())
    put(store, record(3), output(3))
    store.close()
    return pack_copy(path)


def merge_first(path: Path) -> Path:
    other = packed(path.with_name("other.h5"), [record(7)])
    out = path.with_name("merged.h5")
    merge.write(out, merge_plan.plan_merge(merge.read([path, other]), "refuse"))
    return out


def rebuild_damaged(path: Path) -> Path:
    """One of the study's own trials is damaged, in a file beside whose folder is another trial."""
    store = Store.open(path, meta())
    put(store, record(3), output(3))
    store.close()
    (pack,) = contents.pack_files(names.folder_of(path))
    damage(pack, f"{meta().name}/trials/000001/positions")
    rebuild.rebuild(path)
    assert len(read_repeats(path)) == len(GRID)
    packing.pack(path)
    return path


@pytest.mark.parametrize(
    "rewrite",
    [go_on, stop_and_pack, pack_copy, pack_copy_of_index, merge_first, rebuild_elsewhere, rebuild_damaged],
    ids=lambda rewrite: rewrite.__name__,
)
def test_it_stays(rewrite: Callable[[Path], Path], study: Path) -> None:
    """Whatever makes a new file of the study: every repeat with its arrays, and the curves; the file is intact."""
    out = rewrite(confirmed(study))
    assert read_repeats(out) == {number: (item, out) for number, item in enumerate(GRID)}
    with reader.open(out) as results:
        repeats = results.confirmation()
        assert repeats is not None
        with repeats:
            assert list(repeats.ring_curves()) == [2]
            assert len(repeats.curves()) == len(GRID)
    assert verify.verify(out).intact


def test_it_survives_from_pack_to_pack(study: Path) -> None:
    """Gone on with twice without an end: in the folder are older packs, of which one has it."""
    confirmed(study)
    for number in (3, 4):
        store = Store.open(study, meta())
        put(store, record(number), output(number))
        store.close()
        assert len(read_repeats(study)) == len(GRID)
    store = Store.open(study, meta())
    store.finish()
    assert len(read_repeats(study)) == len(GRID)
    assert numbers(study) == [0, 1, 2, 3, 4]


def test_arrays_go_with_those_of_the_trial(study: Path) -> None:
    """``pack --arrays best:1``: trial 2, the best, keeps its own, and those of its repeats."""
    confirmed(study)
    packing.pack(study, retention.parse("best:1"))
    with reader.open(study) as results:
        repeats = results.confirmation()
        assert repeats is not None
        with repeats:
            kept = {r.number for r in repeats.records() if repeats.trial(r.number).arrays}
    assert kept == {number for number, (trial, _, _) in enumerate(GRID) if trial == 2}
    assert verify.verify(study).intact


def test_merged_repeats_of_another_store_are_left_out(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They name trials by the numbers of that store; a notice says so."""
    other = confirmed(packed(study.with_name("other.h5"), [record(n) for n in (5, 6)]), [(5, 1, 0)])
    out = study.with_name("merged.h5")
    assert main(["merge", str(out), str(study), str(other)]) == 0
    assert "other.h5: the repeats of its trials are not merged" in capsys.readouterr().err
    assert read_repeats(out) == {}


@pytest.mark.parametrize("conflicts", ["both", "first"])
def test_merged_repeats_of_a_copy_that_went_on_are_left_out(
    conflicts: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trial 3 is another one in the copy than in the first file, which keeps the number."""
    copy, out = study.with_name("copy.h5"), study.with_name("merged.h5")
    shutil.copy(study, copy)
    for path, error in ((study, 0.5), (copy, 0.4)):
        store = Store.open(path, meta())
        put(store, record(3, error), output(3))
        store.finish()
    confirmed(copy, [(3, 1, 0)])
    assert main(["merge", str(out), str(study), str(copy), "--conflicts", conflicts]) == 0
    assert "copy.h5: the repeats of its trials are not merged" in capsys.readouterr().err
    assert read_repeats(out) == {}


def test_merged_repeats_of_a_copy_that_is_the_same_are_kept(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, out = study.with_name("copy.h5"), study.with_name("merged.h5")
    confirmed(Path(shutil.copy(study, copy)))
    assert main(["merge", str(out), str(study), str(copy)]) == 0
    assert "not merged" not in capsys.readouterr().err
    assert len(read_repeats(out)) == len(GRID)


def test_info_counts_it(study: Path) -> None:
    before = info.collect_info(study)
    after = info.collect_info(confirmed(study))
    assert "confirmation" not in before
    assert after["confirmation"] == len(GRID)
    assert after["trials"] == before["trials"]
    assert after["bytes"]["kinds"]["confirmation"] > 0


# --- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["trials/000001/positions", "thumbnails"])
def test_verify_sees_damage_in_it(dataset: str, study: Path) -> None:
    confirmed(study)
    name = cases.repeats_meta("").name
    damage(study, f"{name}/{dataset}")
    report = verify.verify(study)
    assert not report.intact
    assert any(dataset in str(problem) for problem in report.problems)
    assert report.damaged == ()  # none of the study's own trials


def test_a_damaged_one_is_left_out_of_a_rebuilt_file(study: Path) -> None:
    confirmed(study)
    damage(study, f"{cases.repeats_meta('').name}/trials/000001/positions")
    out = study.with_name("rebuilt.h5")
    report = rebuild.rebuild(study, out)
    assert (report.trials, report.numbers_only) == (3, ())
    assert report.trouble
    assert read_repeats(out) == {}
    assert verify.verify(out).intact


def test_a_damaged_repeat_does_not_keep_a_study_from_its_end(study: Path) -> None:
    """Packed once more it has its numbers only; all others are whole."""
    confirmed(study)
    damage(study, f"{cases.repeats_meta('').name}/trials/000001/positions")
    store = Store.open(study, meta())
    put(store, record(3), output(3))
    store.finish()
    with reader.open(study) as results:
        repeats = results.confirmation()
        assert repeats is not None
        with repeats:
            assert len(repeats.records()) == len(GRID)
            assert [n for n in range(len(GRID)) if not repeats.trial(n).arrays] == [1]
    assert verify.verify(study).intact


# --- killed on the way --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("grown", [False, True], ids=["first", "grown"])
def test_killed_before_every_step_of_embedding(grown: bool, tmp_path: Path) -> None:
    """A reader finds every repeat and every trial after each death; the next attempt ends as it should have."""
    grid = ((2, 5, 0), (1, 5, 0))
    path = tmp_path / "run" / "results.h5"
    path.parent.mkdir()
    packed(path, [record(number) for number in range(3)])
    if grown:
        confirmed(path, grid)
        embedding.take_out(path)
        grid = (*grid, (0, 5, 0))
    run_repeats(path, grid)
    wanted = dict(enumerate(grid))

    def look() -> None:
        assert {number: item for number, (item, _) in read_repeats(path).items()} == wanted
        assert numbers(path) == [0, 1, 2]
        if confirmation.companion_of(path).exists():
            embedding.embed(path, {2: curve()})
        assert {number: item for number, (item, _) in read_repeats(path).items()} == wanted
        left = {entry.name for entry in path.parent.rglob("*") if not entry.name.startswith(".")}
        assert left <= {"results.h5", "results.trials", "results.confirmation.trials", "driver.lock"}

    assert deaths(path, lambda: embedding.embed(path, {2: curve()}), look) > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_before_every_step_of_taking_out(tmp_path: Path) -> None:
    path = tmp_path / "run" / "results.h5"
    path.parent.mkdir()
    confirmed(packed(path, [record(number) for number in range(3)]), GRID[:2])
    wanted = dict(enumerate(GRID[:2]))

    def look() -> None:
        assert {number: item for number, (item, _) in read_repeats(path).items()} == wanted
        embedding.take_out(path)
        assert numbers(confirmation.companion_of(path)) == [0, 1]

    assert deaths(path, lambda: embedding.take_out(path), look) > 5


@pytest.mark.parametrize(("k", "in_memory"), [(0, 1 << 28), (1, 1 << 28), (0, -1), (7, -1), (40, -1)])
def test_a_full_disk_leaves_both_files(k: int, in_memory: int, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write fails, the study and its repeats are as they were; with room again they are one file."""
    companion = run_repeats(study)
    monkeypatch.setattr(packed_study, "_IN_MEMORY", in_memory)
    before = study.read_bytes(), companion.read_bytes()
    with full_disk(k), pytest.raises(StoreError, match="No space left on device"):
        embedding.embed(study, {})
    assert (study.read_bytes(), companion.read_bytes()) == before
    assert sorted(path.name for path in study.parent.iterdir()) == [companion.name, study.name]
    embedding.embed(study, {})
    assert len(read_repeats(study)) == len(GRID)


# --- halves -------------------------------------------------------------------------------------------


def test_a_damaged_half_keeps_no_other_trial_from_its_curve(study: Path) -> None:
    """Why it has none is said; so the repeats still come into the study's file."""
    pytest.importorskip("scipy")
    halves = [(trial, 5, half) for trial in (1, 2) for half in (1, 2)]
    axis = 0.15 * np.arange(128)
    noise = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    large = output(0, image=Image(noise, axis, axis, "rad", "angstrom", "phase"))
    companion = run_repeats(study, halves, large)
    damage(companion, f"{cases.repeats_meta('').name}/trials/000001/image/data")
    with reader.open(companion) as confirmation_of:
        curves, troubles = correlate_halves(confirmation_of)
    assert list(curves) == [2]
    assert [text.startswith("trial 1: no FRC") for text in troubles] == [True]
    embedding.embed(study, curves)
    assert len(read_repeats(study)) == len(halves)
