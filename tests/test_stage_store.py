"""A study of several stages in one file: begun, kept by all that writes the file anew, killed on the way, damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_crashes
from confirm_cases import curve, read_repeats, repeat_record, repeats_meta
from staged_store_cases import COUNTS, STAGES, arrays_kept, read_stages, run_stage, stage_meta, stage_record, staged
from store_cases import damage, full_disk, output, pack_copy, packed, put, rebuild_elsewhere, record

from ptydask.cli import main
from ptydask.errors import StoreError, UsageError
from ptydask.store import Store, confirmation, contents, digest, embedded, isolated, lock, names, packed_study, reader
from ptydask.store.upkeep import embedding, info, merge, merge_plan, packing, rebuild, retention, staging, verify

ALL = {"dz": [0, 1, 2], "scan": [0, 1], "final": [0]}


@pytest.fixture(autouse=True)
def questions_answered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound files need no process of their own to be read."""
    monkeypatch.setattr(isolated.ChildReader, "ask", store_crashes.asked_here)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three stages, which nobody changes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(isolated.ChildReader, "ask", store_crashes.asked_here)
        return staged(tmp_path_factory.mktemp("finished") / "results.h5")


@pytest.fixture
def study(tmp_path: Path, finished: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(finished, tmp_path))


def problems(path: Path) -> list[str]:
    return [str(problem) for problem in verify.verify(path).problems]


# --- reading ------------------------------------------------------------------------------------------


def test_every_stage_is_read_like_a_study(study: Path) -> None:
    """Opened without a name the latest; each with its own records, id, lineage and best trial; none is live."""
    assert read_stages(study) == ALL
    with reader.open(study) as results:
        assert results.stage_names() == STAGES
        assert results.lineage == stage_meta("final").lineage
        with results.stage("scan") as scan:
            assert scan.lineage is not None
            assert (scan.lineage.from_stage, scan.lineage.from_trial, scan.lineage.number) == ("dz", 2, 2)
            assert scan.best() == stage_record("scan", 1)
            assert scan.stage_names() == STAGES
            assert (scan.path, scan.live, scan.status(), scan.last_words()) == (study, False, None, None)
            assert len({results.id, scan.id, reader.open(study, stage="dz").id}) == 3
    with reader.open(study, stage="final") as final:
        assert final.records() == [stage_record("final", 0)]


@pytest.mark.parametrize(("name", "word"), [("finale", "'final'"), ("x", "dz, final, scan"), ("Scan", "'scan'")])
def test_a_stage_that_there_is_not(name: str, word: str, study: Path) -> None:
    with pytest.raises(StoreError, match=f"no stage '{name}'.*{word}"):
        reader.open(study, stage=name)


def test_a_study_without_stages(tmp_path: Path) -> None:
    """It has no names, no lineage, and no attribute more than it ever had."""
    path = packed(tmp_path / "results.h5", [record(0)])
    with reader.open(path) as results:
        assert (results.stage_names(), results.lineage) == ((), None)
    with pytest.raises(StoreError, match="without stages"):
        reader.open(path, stage="dz")
    with h5py.File(path) as file:
        assert "stages" not in file.attrs
        assert not {"stage", "from_stage", "values"} & set(file["tBL_WSe2"].attrs)
    assert "stages" not in info.collect_info(path)


def test_layout(study: Path) -> None:
    """Groups of one layout, each sealed with its ids; the root lists the earlier ones and opens with the latest."""
    with h5py.File(study) as file:
        assert file.attrs["stages"].tolist() == [b"tBL_WSe2 dz", b"tBL_WSe2 scan"]
        assert file.attrs["default"] == b"tBL_WSe2 final"
        for name in ("tBL_WSe2 dz", "tBL_WSe2 scan"):
            group = file[name]
            assert set(group) == set(file["tBL_WSe2 final"])
            assert len(group.attrs["store_id"]) == len(group.attrs["pack_id"]) == 16
            assert digest.read_digest(group) == digest.group_digest(group, ("trials", "thumbnails"))
            assert group.get("best", getlink=True).path.startswith(f"/{name}/trials/")
        facts = file["tBL_WSe2 final"].attrs
        assert (facts["stage"], facts["from_stage"], facts["from_trial"]) == ("final", "scan", 1)
        assert facts["values"] == '{"dz": 1.5, "scan": 2.5}'


def test_a_stage_keeps_its_ids_and_its_digest(tmp_path: Path) -> None:
    """From stage to stage: the ids that it was packed with; once embedded it says the same whatever comes after."""
    path = run_stage(tmp_path / "results.h5", "dz")
    with h5py.File(path) as file:
        ids = file.attrs["store_id"], file.attrs["pack_id"]
    seals = []
    for name in ("scan", "final"):
        run_stage(path, name)
        with h5py.File(path) as file:
            assert (file["tBL_WSe2 dz"].attrs["store_id"], file["tBL_WSe2 dz"].attrs["pack_id"]) == ids
            assert file.attrs["store_id"] not in ids
            seals.append(file["tBL_WSe2 dz"].attrs["sha256"])
    assert seals[0] == seals[1]


@pytest.mark.parametrize(
    "stages",
    [("a/b", "a%2Fb"), ("x", "x "), ("é", "é"), ("A", "a"), ("%", "%25", "."), ("n\n", "n\\n", "n\x00")],
    ids=ascii,
)
def test_names_that_look_alike(stages: tuple[str, ...], tmp_path: Path) -> None:
    """Each is a group of its own, found by its own name."""
    path = staged(tmp_path / "results.h5", stages)
    assert read_stages(path) == {name: [0] for name in stages}
    assert verify.verify(path).intact


# --- begin_stage --------------------------------------------------------------------------------------


def test_a_stage_that_has_just_begun(tmp_path: Path) -> None:
    """One packed file without trials of its own, and nothing beside it; arrays lie there compressed as before."""
    path = run_stage(tmp_path / "results.h5", "dz")
    with h5py.File(path) as file:
        chunk = file["tBL_WSe2 dz/trials/000001/positions"].id.read_direct_chunk((0, 0))
    staging.begin_stage(path, stage_meta("scan"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.h5"]
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": []}
    assert verify.verify(path).intact
    with h5py.File(path) as file:
        assert file["tBL_WSe2 dz/trials/000001/positions"].id.read_direct_chunk((0, 0)) == chunk
    assert info.collect_info(path)["kind"] == "packed"


def test_no_array_is_unpacked_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when a stage begins nor when it ends: what is hashed of earlier stages are tables and links."""
    path = staged(tmp_path / "results.h5", ("dz", "scan"))
    hashed: list[bytes] = []
    hash_dataset = digest._hash_dataset

    def told(sha: object, data: h5py.h5d.DatasetID) -> None:
        hashed.append(h5py.h5i.get_name(data))
        hash_dataset(sha, data)  # type: ignore[arg-type]

    monkeypatch.setattr(digest, "_hash_dataset", told)
    staging.begin_stage(path, stage_meta("final"))
    store = Store.open(path, stage_meta("final"))
    store.finish()
    assert not [name for name in hashed if b"/trials/" in name or b"thumbnails" in name]


@pytest.mark.parametrize("what", ["a driver", "an index", "the name", "an earlier name", "no file", "another format"])
def test_what_is_refused(what: str, tmp_path: Path) -> None:
    """In one line, and all is as it was."""
    path = run_stage(tmp_path / "results.h5", "dz")
    if what == "an earlier name":
        run_stage(path, "scan")
    if what == "an index":
        store = Store.open(path, stage_meta("dz"))
        put(store, record(7), output(7))
        store.close()
    if what == "no file":
        path.unlink()
    if what == "another format":
        path.write_text("notes")
    before = path.read_bytes() if path.exists() else None
    name = "dz" if "name" in what else "final"
    word = {
        "a driver": "is being run",
        "an index": "not in one file yet",
        "the name": "'tBL_WSe2 dz' already",
        "an earlier name": "'tBL_WSe2 dz' already",
        "no file": "there is no",
        "another format": "not",
    }[what]
    held = lock.acquire(names.folder_of(path)) if what == "a driver" else None
    with pytest.raises(StoreError, match=word) as raised:
        staging.begin_stage(path, stage_meta(name))
    assert "\n" not in str(raised.value)
    assert (path.read_bytes() if path.exists() else None) == before
    if held is not None:
        held.release()


def test_what_the_last_stage_left_in_its_folder_goes_away(tmp_path: Path) -> None:
    """Checkpoints and the card are of trials that nobody goes on with; logs of jobs and damaged files stay."""
    path = run_stage(tmp_path / "results.h5", "dz")
    store = Store.open(path, stage_meta("dz"))
    names.checkpoint_path(store.folder, 5).write_bytes(b"half a trial")
    (store.folder / "jobs").mkdir()
    store.close()
    staging.begin_stage(path, stage_meta("scan"))
    assert {entry.name for entry in names.folder_of(path).iterdir()} - {lock.NAME} == {"jobs"}
    run_stage_on(path, "scan", 1)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}


def run_stage_on(path: Path, name: str, count: int) -> None:
    """More trials of the stage that the file is of, and packed again."""
    store = Store.open(path, stage_meta(name))
    for number in range(len(store.records), len(store.records) + count):
        put(store, stage_record(name, number), output(number))
    store.finish()


@pytest.mark.parametrize(("k", "in_memory"), [(0, 1 << 28), (1, 1 << 28), (0, -1), (7, -1), (40, -1)])
def test_a_full_disk(k: int, in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write fails, the file is as it was; with room again the stage begins."""
    monkeypatch.setattr(packed_study, "_IN_MEMORY", in_memory)
    path = staged(tmp_path / "results.h5", ("dz", "scan"))
    before = path.read_bytes()
    with full_disk(k), pytest.raises(StoreError, match="No space left on device; everything is as it was"):
        staging.begin_stage(path, stage_meta("final"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.h5"]
    staging.begin_stage(path, stage_meta("final"))
    assert read_stages(path) == {**ALL, "final": []}


def test_a_run_does_not_vouch_for_an_earlier_stage(tmp_path: Path) -> None:
    """A trial that changed is taken over as it is, so that a later stage can be packed; verify goes on finding it."""
    path = staged(tmp_path / "results.h5", ("dz", "scan"))
    with h5py.File(path, "r+") as file:
        file["tBL_WSe2 dz/trials/000001"].attrs["seed"] = 99
    run_stage_on(path, "scan", 1)
    assert any("trials/000001" in problem.where for problem in verify.verify(path).problems)


# --- all that writes the file anew --------------------------------------------------------------------


def go_on(path: Path) -> Path:
    run_stage_on(path, "final", 1)
    return path


def stop_and_pack(path: Path) -> Path:
    store = Store.open(path, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.close()
    assert read_stages(path) == {**ALL, "final": [0, 1]}
    assert verify.verify(path).intact
    packing.pack(path)
    return path


def pack_copy_of_index(path: Path) -> Path:
    store = Store.open(path, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.close()
    return pack_copy(path)


def merge_first(path: Path) -> Path:
    other, out = path.with_name("other.h5"), path.with_name("merged.h5")
    store = Store.open(other, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.finish()
    merge.write(out, merge_plan.plan_merge(merge.read([path, other]), "refuse"))
    return out


def rebuild_damaged(path: Path) -> Path:
    """A trial of the latest stage is damaged, in a file beside whose folder is another trial."""
    store = Store.open(path, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.close()
    (pack,) = contents.pack_files(names.folder_of(path))
    damage(pack, "tBL_WSe2 final/trials/000000/positions")
    rebuild.rebuild(path)
    assert read_stages(path) == {**ALL, "final": [0, 1]}
    packing.pack(path)
    return path


def begin_another(path: Path) -> Path:
    stages = (*STAGES, "more")
    staging.begin_stage(path, stage_meta("more", stages))
    return path


@pytest.mark.parametrize(
    "rewrite",
    [
        *(go_on, stop_and_pack, pack_copy, pack_copy_of_index, merge_first, rebuild_elsewhere, rebuild_damaged),
        begin_another,
    ],
    ids=lambda rewrite: rewrite.__name__,
)
def test_earlier_stages_stay(rewrite: Callable[[Path], Path], study: Path) -> None:
    """Whatever makes a new file of the study: every trial with its arrays, ids and digests; the file is intact."""
    with h5py.File(study) as file:
        seals = [file[name].attrs["sha256"] for name in ("tBL_WSe2 dz", "tBL_WSe2 scan")]
    out = rewrite(study)
    found = read_stages(out)
    assert {name: found[name] for name in ("dz", "scan")} == {"dz": [0, 1, 2], "scan": [0, 1]}
    assert arrays_kept(out, "dz") == [0, 1, 2]
    with h5py.File(out) as file:
        assert [file[name].attrs["sha256"] for name in ("tBL_WSe2 dz", "tBL_WSe2 scan")] == seals
    assert verify.verify(out).intact


def test_merged_files_of_different_stages_are_refused(study: Path, tmp_path: Path) -> None:
    sources = merge.read([study, staged(tmp_path / "other.h5", ("dz", "scan"))])
    assert any(text.startswith("study") for text in merge_plan.differences(sources[0].meta, sources[1].meta))


def test_stages_of_another_store_are_not_merged(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two runs of the same stages the trials of the last one come together; a notice says what is left out."""
    other, out = staged(tmp_path / "other.h5"), tmp_path / "merged.h5"
    assert main(["merge", str(out), str(study), str(other)]) == 0
    said = capsys.readouterr()
    assert "earlier stages are not merged" in said.err
    assert "2 trials of stage final, all of dz, scan" in said.out
    with reader.open(out) as results, results.stage("dz") as dz, reader.open(study, stage="dz") as own:
        assert (len(results.records()), dz.id) == (2, own.id)
    assert verify.verify(out).intact


def test_merged_copies_have_what_any_of_them_has_of_earlier_stages(study: Path, tmp_path: Path) -> None:
    """Arrays that one copy has dropped, and repeats that the other has, whichever is named first."""
    whole, thin = tmp_path / "whole.h5", tmp_path / "thin.h5"
    shutil.copy(study, whole)
    shutil.copy(study, thin)
    confirm(thin, "dz")
    packing.pack(thin, retention.parse("best:1"))
    for place, pair in enumerate(([thin, whole], [whole, thin])):
        out = tmp_path / f"merged{place}.h5"
        merge.write(out, merge_plan.plan_merge(merge.read(pair)))
        assert arrays_kept(out, "dz") == arrays_kept(whole, "dz")
        with reader.open(out, stage="dz") as dz:
            repeats = dz.confirmation()
            assert repeats is not None
            repeats.close()
        assert list(read_stages(out)) == list(read_stages(study))
        assert verify.verify(out).intact


def test_arrays_dropped_of_earlier_stages_too(study: Path) -> None:
    """``pack --arrays best:1`` keeps those of each stage's best trial, for the next stage may start from it."""
    report = packing.pack(study, retention.parse("best:1"), dry_run=True)
    assert (report.trials, report.earlier_trials, report.earlier_dropped, report.earlier_with_arrays) == (1, 5, 3, 2)
    packing.pack(study, retention.parse("best:1"))
    assert [arrays_kept(study, name) for name in STAGES] == [[2], [1], [0]]
    assert verify.verify(study).intact
    assert not packing.pack(study, retention.parse("best:1")).changed


def test_the_best_trial_of_an_earlier_stage_is_not_forgotten_unasked(study: Path) -> None:
    """Trial 1 is the best of stage scan, and none of each third."""
    with pytest.raises(UsageError, match=r"of stage (dz|scan) would"):
        packing.pack(study, retention.parse("every:3"))


def test_info_lists_stages(study: Path) -> None:
    facts = info.collect_info(study)
    assert [(one["name"], one["trials"]) for one in facts["stages"]] == list(COUNTS.items())
    assert facts["stages"][1]["from"] == {"stage": "dz", "trial": 2}
    assert facts["stages"][1]["best"]["number"] == 1
    assert facts["trials"]["total"] == 1
    assert facts["bytes"]["kinds"]["earlier stages"] > 0


# --- confirmations ------------------------------------------------------------------------------------


def confirm(path: Path, name: str) -> None:
    """The repeat of a trial of the stage ``name``, into the file."""
    with reader.open(path, stage=name) as stage:
        said = repeats_meta(stage.id, [(0, 5, 0)])
    store = Store.open(confirmation.companion_of(path), replace(said, name=f"tBL_WSe2 {name} confirmation"))
    put(store, repeat_record(0, (0, 5, 0)), output(0))
    store.finish()
    embedding.embed(path, {0: curve(1)})


def confirmed_stages(path: Path) -> list[str]:
    """The stages that have a confirmation of their own."""
    found = []
    with reader.open(path) as results:
        for name in results.stage_names():
            with results.stage(name) as stage:
                repeats = stage.confirmation()
                if repeats is not None:
                    assert confirmation.is_of(repeats.meta, stage.id)
                    assert len(repeats.records()) == 1
                    found.append(name)
    return found


def test_a_confirmation_stays_with_its_stage(tmp_path: Path) -> None:
    """That of the stage that the file is of goes with it into the next; those of several stages are side by side."""
    path = run_stage(tmp_path / "results.h5", "dz")
    confirm(path, "dz")
    assert confirmed_stages(path) == ["dz"]
    run_stage(path, "scan")
    assert confirmed_stages(path) == ["dz"]
    with reader.open(path, stage="dz") as dz, dz.confirmation() as repeats:  # type: ignore[union-attr]
        assert list(repeats.ring_curves()) == [0]
    assert read_repeats(path) == {}
    confirm(path, "scan")
    run_stage(path, "final")
    assert confirmed_stages(path) == ["dz", "scan"]
    assert verify.verify(path).intact
    damage(path, "tBL_WSe2 scan confirmation/trials/000000/positions")
    assert any("scan confirmation" in text for text in problems(path))


def test_an_earlier_stage_is_confirmed(study: Path) -> None:
    """While it is under way in a file beside, once it is in the file, and taken out to grow."""
    confirm(study, "scan")
    assert confirmed_stages(study) == ["scan"]
    with reader.open(study, stage="scan") as scan:
        embedding.take_out(study, scan.id)
    assert confirmation.companion_of(study).exists()
    assert confirmed_stages(study) == ["scan"]
    packing.pack(study, retention.parse("best:1"))
    with reader.open(study, stage="scan") as scan, scan.confirmation() as repeats:  # type: ignore[union-attr]
        assert repeats.path == confirmation.companion_of(study)
    confirmation.companion_of(study).unlink()
    with reader.open(study, stage="scan") as scan, scan.confirmation() as repeats:  # type: ignore[union-attr]
        assert not repeats.trial(0).arrays  # trial 0 of stage scan, which it repeats, is not the best there
    assert verify.verify(study).intact


def test_a_stage_that_is_called_like_a_confirmation(tmp_path: Path) -> None:
    """Its group would be that of the confirmation of stage dz: refused, whichever comes second."""
    path = run_stage(tmp_path / "results.h5", "dz")
    confirm(path, "dz")
    with pytest.raises(StoreError, match="already"):
        staging.begin_stage(path, stage_meta("dz confirmation", ("dz", "dz confirmation")))
    other = staged(tmp_path / "other.h5", ("dz", "dz confirmation"))
    with pytest.raises(StoreError, match="two studies"):
        confirm(other, "dz")
    assert read_stages(other) == {"dz": [0, 1, 2], "dz confirmation": [0]}


# --- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dataset",
    ["trials/000001/positions", "trials/000002/snapshots/iter_0000020/object_phase", "thumbnails", "table/sha256"],
)
def test_verify_sees_one_byte_in_an_earlier_stage(dataset: str, study: Path) -> None:
    """It says where; none of the latest stage's own trials is concerned."""
    flip(study, f"tBL_WSe2 dz/{dataset}")
    report = verify.verify(study)
    assert any(f"tBL_WSe2 dz/{dataset}" in str(problem) for problem in report.problems)
    assert report.damaged == ()


def flip(path: Path, dataset: str) -> None:
    """Flip a bit of a dataset, also of one that lies in its header."""
    with h5py.File(path) as file:
        if file[dataset].chunks is not None:
            return damage(path, dataset)
        offset, data = file[dataset].id.get_offset(), file[dataset][()].tobytes()
    whole = bytearray(path.read_bytes())
    offset = whole.index(data) if offset is None else offset
    whole[offset] ^= 1
    path.write_bytes(whole)
    return None


def test_verify_sees_damage_while_the_next_stage_runs(study: Path) -> None:
    store = Store.open(study, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.close()
    (pack,) = contents.pack_files(names.folder_of(study))
    damage(pack, "tBL_WSe2 dz/trials/000001/positions")
    assert any("tBL_WSe2 dz/trials/000001/positions" in text for text in problems(study))


@pytest.mark.parametrize("own_trials", [0, 1])
def test_what_is_whole_of_a_damaged_stage_is_kept(own_trials: int, tmp_path: Path) -> None:
    """A rebuilt file has the numbers of the damaged trial, and all of the others; of all other stages everything."""
    path = staged(tmp_path / "results.h5", ("dz", "scan"))
    staging.begin_stage(path, stage_meta("final"))
    run_stage_on(path, "final", own_trials)
    damage(path, "tBL_WSe2 dz/trials/000001/positions")
    out = tmp_path / "rebuilt.h5"
    report = rebuild.rebuild(path, out)
    assert any("tBL_WSe2 dz" in line and "trial 1" in line for line in report.trouble)
    assert read_stages(out) == {**ALL, "final": [*range(own_trials)]}
    assert [arrays_kept(out, name) for name in ("dz", "scan")] == [[0, 2], [0, 1]]
    assert verify.verify(out).intact


def test_a_damaged_stage_of_one_that_has_just_begun(tmp_path: Path) -> None:
    """The older pack has no trial of the latest stage: what is whole of the stage in it goes into another."""
    path = run_stage(tmp_path / "results.h5", "dz")
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    put(store, stage_record("scan", 0), output(0))
    store.close()
    (pack,) = contents.pack_files(names.folder_of(path))
    damage(pack, "tBL_WSe2 dz/trials/000001/positions")
    rebuild.rebuild(path)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}
    run_stage_on(path, "scan", 1)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0, 1]}
    assert arrays_kept(path, "dz") == [0, 2]
    assert verify.verify(path).intact


def test_a_stage_that_cannot_be_read_keeps_the_run_from_its_end(study: Path) -> None:
    """The pack in which it is would go away: it stays, with every trial, and the error names it."""
    store = Store.open(study, stage_meta("final"))
    put(store, stage_record("final", 1), output(1))
    store.refresh(force=True)
    (pack,) = contents.pack_files(store.folder)
    flip(pack, "tBL_WSe2 dz/table/record_json")
    with pytest.raises(StoreError, match=f"{pack.name}.*nothing is lost"):
        store.finish()
    store.close()
    assert pack.exists()
    rebuild.rebuild(study)
    run_stage_on(study, "final", 1)
    found = read_stages(study)
    assert (found["scan"], found["final"]) == ([0, 1], [0, 1, 2])
    assert arrays_kept(study, "dz") == [0, 1, 2]


# --- older packs --------------------------------------------------------------------------------------


def test_an_older_pack_without_trials_is_kept_while_it_alone_has_the_stages(tmp_path: Path) -> None:
    """A stage has just begun, and is gone on with; somebody puts a packed file without the stages in its place."""
    path = run_stage(tmp_path / "results.h5", "dz")
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    put(store, stage_record("scan", 0), output(0))
    store.refresh(force=True)
    (pack,) = contents.pack_files(store.folder)
    assert embedded.find_in([pack]).stages
    store.close()
    alone = tmp_path / "alone.h5"
    packing.pack(path, out=alone)
    with h5py.File(alone, "r+") as file:
        del file.attrs["stages"], file["tBL_WSe2 dz"]
    alone.replace(path)
    run_stage_on(path, "scan", 0)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}
    assert not names.folder_of(path).exists()


@pytest.mark.parametrize("finish", [Store.finish, Store.close], ids=["finished", "closed"])
def test_a_second_name_left_by_a_killed_driver(finish: Callable[[Store], object], tmp_path: Path) -> None:
    """The packed file has another name in the folder already, and no trial: whatever comes, nothing is lost."""
    path = run_stage(tmp_path / "results.h5", "dz")
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    store._move_pack_aside()
    store._lock.release()
    finish(Store.open(path, stage_meta("scan")))
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": []}
    run_stage_on(path, "scan", 1)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}


def test_two_older_packs(tmp_path: Path) -> None:
    """One has the stages, the other trials alone: both are there until one file has all."""
    path = run_stage(tmp_path / "results.h5", "dz")
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    put(store, stage_record("scan", 0), output(0))
    store.close()
    folder = names.folder_of(path)
    shutil.copy(path, tmp_path / "index.h5")
    packing.pack(path, out=tmp_path / "copy.h5")
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        del file.attrs["stages"], file["tBL_WSe2 dz"]
    shutil.move(tmp_path / "copy.h5", contents.pack_path(folder, "f" * 16))
    (folder / "000000.h5").unlink()
    assert len(contents.pack_files(folder)) == 2
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}
    run_stage_on(path, "scan", 1)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0, 1]}
    assert verify.verify(path).intact


def test_a_folder_left_by_the_stage_before(tmp_path: Path) -> None:
    """A driver was killed after the next stage began, before the folder was gone: it is of nobody any more."""
    path = run_stage(tmp_path / "results.h5", "dz")
    folder = names.folder_of(path)
    with reader.open(path) as results:
        store_id = results.id
    staging.begin_stage(path, stage_meta("scan"))
    folder.mkdir()
    contents.write_card(folder, store_id, stage_meta("dz"))
    names.checkpoint_path(folder, 4).write_bytes(b"half a trial")
    run_stage_on(path, "scan", 1)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0]}
    assert not folder.exists()


def test_an_index_whose_folder_is_elsewhere(tmp_path: Path) -> None:
    """Of a stage without trials so far: the stages before it are in the folder, and not to be done without."""
    path = run_stage(tmp_path / "results.h5", "dz")
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    store._move_pack_aside()
    store.refresh(force=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(path, tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"stages before scan .*results\.trials"):
        Store.open(tmp_path / "elsewhere" / "results.h5", stage_meta("scan"))
    with reader.open(path, stage="dz") as dz:
        assert dz.file == contents.pack_files(store.folder)[0]
    packing.pack(path, out=tmp_path / "copy.h5")
    assert read_stages(tmp_path / "copy.h5") == {"dz": [0, 1, 2], "scan": []}
    store.close()
    packing.pack(path)
    assert read_stages(path) == {"dz": [0, 1, 2], "scan": []}


def test_no_trials_are_added_to_an_earlier_stage(study: Path) -> None:
    before = study.read_bytes()
    with pytest.raises(StoreError, match="'tBL_WSe2 dz' that is not the latest"):
        Store.open(study, stage_meta("dz"))
    assert study.read_bytes() == before
    assert not names.folder_of(study).exists()


def test_logs_of_jobs_that_go_on_stay_from_stage_to_stage(tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    store = Store.open(path, stage_meta("dz"))
    log = store.folder / contents.JOBS / "job-1.out"
    log.parent.mkdir()
    log.write_text("a line\n")
    put(store, stage_record("dz", 0), output(0))
    store.finish(keep=(contents.DAMAGED, contents.JOBS))
    staging.begin_stage(path, stage_meta("scan"))
    store = Store.open(path, stage_meta("scan"))
    assert log.read_text() == "a line\n"
    store.finish()
    assert not store.folder.exists()


def test_trials_of_the_stage_before_are_not_removed(tmp_path: Path) -> None:
    """Its folder came back, with a trial: refused, for nobody knows whether it is kept elsewhere."""
    path = run_stage(tmp_path / "results.h5", "dz")
    store = Store.open(path, stage_meta("dz"))
    put(store, stage_record("dz", 3), output(3))
    store.refresh(force=True)
    folder = shutil.copytree(store.folder, tmp_path / "back")
    store.finish()
    staging.begin_stage(path, stage_meta("scan"))
    shutil.move(folder, names.folder_of(path))
    with pytest.raises(StoreError, match="another study"):
        Store.open(path, stage_meta("scan"))
    assert (names.folder_of(path) / "000003.h5").exists()


# --- killed on the way --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.timeout(600)
def test_killed_before_every_step_of_a_transition(tmp_path: Path) -> None:
    """From the end of a stage over the next one's beginning to its end: every trial of every stage, at every moment.

    The next attempt does what is left, and ends as it should have.
    """
    path = tmp_path / "run" / "results.h5"
    path.parent.mkdir()
    stages = ("dz", "scan", "final")
    staged(path, stages[:2])
    store = Store.open(path, stage_meta("scan"))
    put(store, stage_record("scan", 2), output(2, snapshots={}))
    store.close()

    def go_on() -> None:
        with reader.open(path) as results:
            name = results.lineage.name  # type: ignore[union-attr]
        if name == "scan":
            Store.open(path, stage_meta("scan")).finish()
            staging.begin_stage(path, stage_meta("final"))
        store = Store.open(path, stage_meta("final"))
        if not store.records:
            put(store, stage_record("final", 0), output(0, snapshots={}))
            store.refresh(force=True)
        store.finish()

    def look() -> None:
        found = read_stages(path)
        assert found["dz"] == [0, 1, 2]
        assert found["scan"] == [0, 1, 2]
        assert found.get("final", []) in ([], [0])
        go_on()
        assert read_stages(path) == {"dz": [0, 1, 2], "scan": [0, 1, 2], "final": [0]}
        assert [entry.name for entry in path.parent.iterdir()] == ["results.h5"]

    assert store_crashes.deaths(path, go_on, look) > 40


@pytest.mark.slow
def test_readers_find_every_stage_while_the_file_is_replaced(tmp_path: Path) -> None:
    """A process goes from stage to stage meanwhile: a reader never meets an error, and never misses a stage."""
    path = run_stage(tmp_path / "results.h5", "dz")
    stages = ("dz", *(f"stage {n}" for n in range(3)))
    child = os.fork()
    if child == 0:
        for name in stages[1:]:
            staging.begin_stage(path, stage_meta(name, stages))
            for _ in range(3):
                store = Store.open(path, stage_meta(name, stages))
                number = len(store.records)
                put(store, stage_record(name, number, stages), output(number, snapshots={}))
                store.refresh(force=True)
                store.finish()
        os._exit(0)
    reads, ended = 0, 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        with reader.open(path) as results:
            seen = results.stage_names()
            assert seen == stages[: len(seen)]
            with results.stage("dz") as dz:
                assert len(dz.records()) == 3
                np.testing.assert_array_equal(dz.trial(1).arrays["positions"].read()[-1], [598.0, 599.0])
        reads += 1
    assert os.waitstatus_to_exitcode(status) == 0
    assert reads > 5
    assert len(seen) == len(stages)
