"""Damaged results: ``verify`` finds every flipped byte and cut, reading names the trial and never ends the process."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_cases import failed, meta, output, packed, phase, put, record

from ptydask.errors import StoreError
from ptydask.model import KeepOptions, Reason, TrialState
from ptydask.store import Store, byte_seal, checks, digest, files, isolated, names, reader, shard, trialgroup
from ptydask.store.upkeep import packing, retention, verify

pytestmark = pytest.mark.slow

RECORDS = [
    record(0, 0.5),
    record(1, 0.25),
    failed(2),
    record(3, 0.1, state=TrialState.PRUNED, reason=Reason.PRUNED),
    record(4, 0.01),
]
STUDY = "tBL_WSe2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed study of three completed trials with arrays, a failed and a pruned one."""
    return packed(tmp_path_factory.mktemp("whole") / "results.h5", RECORDS)


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(whole, tmp_path))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A study that goes on: an index, five trials' files, and a pack of two older ones."""
    path = tmp_path / "results.h5"
    packed(path, [record(10), record(11)])
    store = Store.open(path, meta())
    for made in RECORDS:
        put(store, made, output(made.number) if made.state is TrialState.COMPLETE else None)
    store.refresh(force=True)
    store.close()
    return path


def lines(path: Path, **more: Any) -> list[str]:
    return [str(problem) for problem in verify.verify(path, **more).problems]


# --- what is whole --------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_packed_file(results: Path) -> None:
    """Every trial is read, and nothing found."""
    told: list[tuple[int, int]] = []
    report = verify.verify(results, progress=lambda done, total: told.append((done, total)))
    assert (report.kind, report.trials, report.files, report.problems) == ("packed", 5, 1, ())
    assert (report.intact, report.damaged, report.advice) == (True, (), "")
    assert told == [(n, 5) for n in range(6)]


def test_nothing_is_wrong_with_a_study_that_goes_on(index: Path) -> None:
    """The index, each trial's file, also one that ended since, and the older pack."""
    store = Store.open(index, meta())
    put(store, record(5), output(5))  # not in the index yet
    report = verify.verify(index)
    assert (report.kind, report.trials, report.files, report.problems) == ("index", 8, 8, ())
    one = verify.verify(names.shard_path(store.folder, 5))
    assert (one.kind, one.trials, one.problems) == ("trial", 1, ())
    store.close()


def test_values_of_every_kind_are_no_damage(tmp_path: Path) -> None:
    """Texts with NUL, huge integers, NaN, missing parameters, long messages: written and stored forms agree."""
    rows: list[dict[str, Any]] = [
        {"f": 0.1, "i": 1, "b": True, "s": "Adam", "mixed": "a", "huge": 2**70, "some": 1, "null": None, "one": "x"},
        {
            "f": float("nan"),
            "i": -1,
            "b": False,
            "s": "ä\0",
            "mixed": 3,
            "huge": 1,
            "some": 2.5,
            "null": None,
            "a/b": "",
        },
    ]
    made = [record(n, params=params, message="ä" * 50_000 + "\0") for n, params in enumerate(rows)]
    path = packed(tmp_path / "r.h5", made)
    assert lines(path) == []
    with reader.open(path) as found:
        columns = found.columns()
        assert columns["message"].tolist() == [one.message for one in made]
        assert columns["params/mixed"].tolist() == ["a", 3]
        assert columns["params/huge"].tolist() == [2**70, 1]
        assert columns["params/one"].tolist() == ["x", None]
        assert columns["params/b"].dtype == bool
        np.testing.assert_array_equal(columns["params/some"], [1, 2.5])


# --- one damage after the other -------------------------------------------------------------------------


def test_a_flipped_bit_in_an_array(results: Path) -> None:
    """HDF5's own checksum names the array; the other arrays and trials are read."""
    with h5py.File(results) as file:
        data = file[f"{STUDY}/trials/000001/positions"]
        at = data.id.get_chunk_info(0).byte_offset + 7
    flip(results, at)
    report = verify.verify(results)
    [problem] = report.problems
    assert (problem.trial, problem.where, report.damaged) == (1, "positions", (1,))
    assert re.search(r"ptydask rebuild .*results\.h5$", report.advice)
    with reader.open(results) as found:
        with pytest.raises(StoreError, match=r"trial 1 is damaged .*verify"):
            found.trial(1).arrays["positions"].read()
        assert found.trial(1).arrays["probe"].read().shape == (2, 8, 8)
        assert (found.trial(0).arrays["object_phase"].read() == phase(0)).all()


def change(path: Path, edit: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "a", libver=files.LIBVER) as file:
        edit(file)


def _other_parameter(file: h5py.File) -> None:
    trial = file[f"{STUDY}/trials/000001"]
    trial["params"].attrs["scale"] = 0.5
    digest.seal(trial)


def _numbers_exchanged(file: h5py.File) -> None:
    file.move(f"{STUDY}/trials/000000", f"{STUDY}/x")
    file.move(f"{STUDY}/trials/000001", f"{STUDY}/trials/000000")
    file.move(f"{STUDY}/x", f"{STUDY}/trials/000001")


def _replaced(file: h5py.File) -> None:
    """By a trial with the same record and other arrays, sealed as it should be."""
    del file[f"{STUDY}/trials/000001"]
    other = trialgroup.compose("000001", RECORDS[1], output(7), KeepOptions(), direction="minimize", metric="loss")
    digest.save_sealed(file[f"{STUDY}/trials"], other, "000001")


def _error_in_table(file: h5py.File) -> None:
    file[f"{STUDY}/table/error"][0] = 0.75


def _link(file: h5py.File) -> None:
    del file[f"{STUDY}/best"]
    file[f"{STUDY}/best"] = h5py.SoftLink(f"/{STUDY}/trials/000001")


def _by_error(file: h5py.File) -> None:
    links = file[f"{STUDY}/by_error"]
    name = next(iter(links))
    del links[name]
    links[name] = h5py.SoftLink(f"/{STUDY}/trials/000777")


def _gone(file: h5py.File) -> None:
    del file[f"{STUDY}/trials/000001"]


def _one_more(file: h5py.File) -> None:
    file.copy(f"{STUDY}/trials/000001", f"{STUDY}/trials/000009")


def _picture(file: h5py.File) -> None:
    file[f"{STUDY}/thumbnails"][1] = 77


def _invented(file: h5py.File) -> None:
    """A picture for the trial that failed."""
    file[f"{STUDY}/thumbnails"][2] = 77


def _history(file: h5py.File) -> None:
    file[f"{STUDY}/history/best_so_far"][0] = 0.0


def _config(file: h5py.File) -> None:
    file[f"{STUDY}/config"][()] = "init_params: []\n"


def _direction(file: h5py.File) -> None:
    file[STUDY].attrs["direction"] = np.bytes_("maximize")
    digest.seal(file["/"], {f"{STUDY}/trials", f"{STUDY}/thumbnails"})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_other_parameter, "trial 1"),
        (_numbers_exchanged, "trial 0: says that it is trial 1"),
        (_replaced, "trial 1 is another one than the table knows"),
        (_error_in_table, "table/error does not say what record_json says"),
        (_link, "all but the trials is not what was written"),
        (_by_error, "where no such trial is"),
        (_gone, "trial 1 cannot be read"),
        (_one_more, "trials/000009 is not in the table"),
        (_picture, "trial 1: thumbnail is not the one in thumbnails"),
        (_invented, "trial 2: thumbnail is not the one in thumbnails"),
        (_history, "history/best_so_far does not say what the table says"),
        (_config, "all but the trials is not what was written"),
        (_direction, "direction is not what study_json says"),
    ],
)
def test_what_was_changed_is_named(results: Path, edit: Callable[[h5py.File], None], words: str) -> None:
    """A change that HDF5 sees nothing wrong in is found, and named."""
    change(results, edit)
    assert any(re.sub(r"(trial \d):( says)", r"\1\2", words) in line for line in lines(results)), lines(results)


def test_files_of_a_folder(index: Path) -> None:
    """A trial's file that is gone, another's file in its place, a flipped bit, a broken older pack."""
    folder = index.with_name("results.trials")
    shutil.copy(folder / "000000.h5", folder / "000001.h5")
    (folder / "000002.h5").unlink()
    with h5py.File(folder / "000004.h5") as file:
        at = file["trial/positions"].id.get_chunk_info(0).byte_offset
    flip(folder / "000004.h5", at)
    [pack] = folder.glob("packed-*.h5")
    with h5py.File(pack) as file:
        at = file[f"{STUDY}/trials/000011/positions"].id.get_chunk_info(0).byte_offset
    flip(pack, at)
    report = verify.verify(index)
    assert report.damaged == (1, 2, 4, 11)
    said = [str(problem) for problem in report.problems]
    assert any(line.startswith("000001.h5: trial 1 says that it is trial 0") for line in said)
    assert any(line == "000002.h5: trial 2 is in the table, but its file is not there" for line in said)
    shutil.rmtree(folder)
    assert lines(index) == ["results.trials: is not there: the trials are in it"]


def test_trials_beside_a_packed_file(results: Path) -> None:
    """A study that takes more trials, before its first index: their files are read too, and the folder's card."""
    store = Store.open(results, meta())
    written = shard.write(store.folder, record(9), output(9), KeepOptions(), direction="minimize", metric="loss")
    assert verify.verify(results).trials == 6
    with h5py.File(written.path) as file:
        at = file["trial/positions"].id.get_chunk_info(0).byte_offset
    flip(written.path, at)
    (store.folder / "store.json").write_text("{")
    report = verify.verify(results)
    store.close()
    assert [(p.file.name, p.trial) for p in report.problems] == [("store.json", None), ("000009.h5", 9)]


@pytest.mark.parametrize(("when", "sealed"), [("links", False), ("rows", True), ("compared", False)])
def test_a_study_that_goes_on_meanwhile(index: Path, monkeypatch: pytest.MonkeyPatch, when: str, sealed: bool) -> None:
    """The index is replaced between two looks at it; the study ends, and its trials move into one file: no damage."""
    for file in () if sealed else (index, *index.with_name("results.trials").glob("*.h5")):
        os.truncate(file, file.stat().st_size - byte_seal.SIZE)
    store, answer, happened = Store.open(index, meta()), isolated.ChildReader.ask, False

    def ask(child: isolated.ChildReader, **question: Any) -> isolated.Answer:
        nonlocal happened
        if question["what"] == when and not happened:
            happened = True
            put(store, record(7), output(7))
            if when != "compared":
                store.refresh(force=True)
            else:
                store.finish()
        return answer(child, **question)

    monkeypatch.setattr(isolated.ChildReader, "ask", ask)
    report = verify.verify(index)
    store.close()
    assert (happened, report.problems, report.trials) == (True, (), 8)
    assert report.kind == ("packed" if when == "compared" else "index")


def test_a_damaged_thumbnail_spoils_no_other(index: Path) -> None:
    """It is not copied into the packed file; damaged there, the others are still to be had."""
    folder = index.with_name("results.trials")
    with h5py.File(folder / "000001.h5") as file:
        at = file["trial/thumbnail"].id.get_chunk_info(0).byte_offset
    flip(folder / "000001.h5", at + 5)
    assert packing.pack(index).damaged
    assert lines(index) == []
    with reader.open(index) as found:
        assert sorted(found.pictures()) == [0, 4, 10, 11]
    with h5py.File(index) as file:
        at = file[f"{STUDY}/thumbnails"].id.get_chunk_info_by_coord((0, 0, 0)).byte_offset
    flip(index, at + 5)
    with reader.open(index) as found:
        assert sorted(found.pictures()) == [4, 10, 11]
    assert [line for line in lines(index) if "thumbnails[0]" in line]


def test_a_cut_file_says_how_much_is_left(results: Path) -> None:
    """The end is missing: so many bytes of so many."""
    size = results.stat().st_size - byte_seal.SIZE
    os.truncate(results, size - 1000)
    assert lines(results) == [f"results.h5: is cut off: of {size} bytes {size - 1000} are there"]


@pytest.mark.parametrize(("text", "words"), [(None, "there is no such results file"), ("a text", "not an HDF5 file")])
def test_what_is_no_results_file_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    """One line, no report."""
    path = tmp_path / "r.h5"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=words):
        verify.verify(path)
    with h5py.File(path, "w") as file:
        file["data"] = 1
    with pytest.raises(StoreError, match="not one with the results of ptydask") as refusal:
        verify.verify(path)
    assert refusal.value.exit_code == 1


def test_a_file_that_hdf5_hangs_on(tmp_path: Path) -> None:
    """Texts of varying length, as others write them, may keep HDF5 for ever: one trial costs its patience, no more."""
    path = packed(tmp_path / "r.h5", RECORDS)

    change(path, _note)
    spoil_facts(path)
    report = verify.verify(path, patience=3.0)
    assert report.damaged == (0,)
    assert report.trials == 5


def _note(file: h5py.File) -> None:
    file[f"{STUDY}/trials/000000"].attrs["note"] = "of varying length"


def spoil_facts(path: Path) -> None:
    """HDF5 never returns from reading texts of varying length: an object of no length, again and again."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"GCOL") + 16
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)


@pytest.mark.slow
def test_a_driver_does_not_hang_on_damaged_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is written without them, and of that trial the numbers are packed; in an older pack it is named."""
    monkeypatch.setattr(isolated.ChildReader, "__init__", partialmethod(isolated.ChildReader.__init__, patience=4.0))
    path = tmp_path / "r.h5"
    store = Store.open(path, meta())
    put(store, record(0, 0.5), output(0))
    put(store, record(1, 0.1), output(1), check=False)
    spoil_facts(names.shard_path(store.folder, 1))
    store.refresh(force=True)
    with h5py.File(path) as file:
        best = dict(file[f"{STUDY}/best"].attrs)
    assert (best["number"], best["state"], best["pixel_size"], best["default"]) == (1, "COMPLETE", 0.15, b"image")
    store.finish()
    assert [line.split(":")[0] for line in store.damaged] == ["trial 1"]
    with reader.open(path) as found:
        assert (list(found.trial(1).arrays), len(found.trial(0).arrays)) == ([], 4)
    change(path, _note)
    spoil_facts(path)
    with pytest.raises(StoreError, match=r"r.h5: trial 0 cannot be read from it: HDF5 crashes or hangs"):
        packing.pack(path, retention.parse("none"))


def test_what_takes_long_gives_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A large trial on a slow disk is no damage: an empty line now and then, which is no result."""
    monkeypatch.setattr(isolated, "_OFTEN", -1.0)
    made = isolated.HeartbeatSha256()
    made.update(b"12")
    assert (made.hexdigest(), capsys.readouterr().out) == (hashlib.sha256(b"12").hexdigest(), "\n")


def test_a_task_that_ends_the_process_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks before and after it are done."""
    (tmp_path / "deadly.py").write_text(
        "import os, time\nfrom ptydask.store import isolated\n"
        "def work(n):\n    print()\n    if n == 1: os.abort()\n    if n == 3: time.sleep(60)\n"
        "    return [n * 10, os.getpid()]\n"
        "isolated.serve(work)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with isolated.ChildReader("deadly", patience=2.0) as child:
        said = [child.ask(n=n) for n in (0, 1, 2, 5, 3, 4)]
        assert [one if one is isolated.DEAD else one[0] for one in said] == [
            *(0, isolated.DEAD, 20, 50, isolated.DEAD, 40)
        ]
        assert said[2][1] == said[3][1], "another process for each question"
        os.kill(said[5][1], signal.SIGKILL)
        assert child.ask(n=6)[0] == 60, "a process that somebody else ended is no damage"


@pytest.mark.parametrize("cores", [1, 2])
def test_many_questions_are_answered_side_by_side_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    (tmp_path / "several.py").write_text(
        "import os, time\nfrom ptydask.store import isolated\n"
        "def work(n):\n    if n == 3: os.abort()\n    if n == 99: time.sleep(60)\n"
        "    time.sleep(0.05 * (n % 2))\n    return [n * 10, os.getpid()]\n"
        "isolated.serve(work)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(isolated, "_WORTH", 4)
    monkeypatch.setattr(isolated.os, "sched_getaffinity", lambda pid: set(range(cores)))
    with isolated.ChildReader("several", patience=30.0) as child:
        assert child.ask(n=1)[0] == 10
        with closing(child.ask_each([{"n": n} for n in range(9)])) as answers:
            said = list(answers)
        assert said[3] is isolated.DEAD
        sound = [one for one in said if one is not isolated.DEAD]
        assert [one[0] for one in sound] == [0, 10, 20, 40, 50, 60, 70, 80]
        assert len({one[1] for one in sound}) > 1
        if cores > 1:  # one question would keep its process for a minute: nobody waits for it
            begin = time.monotonic()
            with closing(child.ask_each([{"n": n} for n in (0, 99, 2, 4, 6, 8, 10, 12)])) as answers:
                assert next(answers)[0] == 0
            assert time.monotonic() - begin < 20
        assert child.ask(n=5)[0] == 50


# --- any damage -----------------------------------------------------------------------------------------


def flip(path: Path, at: int, bits: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        [old] = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ bits]))


def content(path: Path) -> str:
    """A digest of all that is in the file, "" where it cannot be read."""
    try:
        with files.open_read_only(path) as file:
            return digest.group_digest(file["/"])
    except files.BROKEN:
        return ""


def found(path: Path) -> bool:
    """Whether the checks of ``verify``, in this process, find anything."""
    head = checks.check("head", str(path))
    if head["problems"] or head.get("kind") == "trial":
        place = {"group": "/trial", "number": names.shard_number(path)}
        return bool(head["problems"] or checks.check("compared", str(path), **place)["problems"])
    parts = {what: checks.check(what, str(path)) for what in ("seal", "rows", "images")}
    if any(part["problems"] for part in parts.values()):
        return True
    rows = parts["rows"]["rows"]
    if checks.check("links", str(path), numbers=[row[0] for row in rows])["problems"]:
        return True
    if head["kind"] == "index":
        return False
    return any(
        checks.check(
            "compared", str(path), group=f"/{STUDY}/trials/{n:06d}", number=n, seal=seal, text=text, image=image
        )["problems"]
        for (n, seal, text), image in zip(rows, parts["images"]["images"], strict=True)
    )


def _bytes(array: reader.StoredArray) -> bytes:
    return array.read().tobytes()


def look(path: Path) -> dict[str, Any]:
    """All that reading gives, each value or the one line that is said instead."""
    gave: dict[str, Any] = {}

    def note(key: str, read: Callable[[], Any]) -> Any:
        try:
            value = read()
            gave[key] = repr(value)
            return value
        except StoreError as error:
            gave[key] = f"StoreError: {error}"
            return None

    results = note("open", lambda: reader.open(path))
    if results is None:
        return gave
    del gave["open"]
    with results:
        note("records", results.records)
        note("best", lambda: results.ranked(3))
        note("columns", lambda: [(name, column.tolist()) for name, column in results.columns().items()])
        for made in RECORDS:
            trial = note(f"trial {made.number}", partial(results.trial, made.number))
            gave.pop(f"trial {made.number}", None) if trial is not None else None
            if trial is None:
                continue
            gave[f"trial {made.number}"] = repr((trial.record, trial.curve, trial.attributes, trial.log, trial.lost))
            gave[f"trial {made.number} image"] = "" if trial.image is None else repr(trial.image.data.tobytes())
            for name, array in trial.arrays.items():
                note(f"trial {made.number} {name}", partial(_bytes, array))
    return gave


def batch(folder: Path, tasks: list[tuple[str, int, int]]) -> None:
    """Damage a copy, look at it, mend it, and say what came of it, one line each. (In a process of its own.)"""
    whole = {name: ((folder / name).read_bytes(), content(folder / name)) for name in {task[0] for task in tasks}}
    right = look(folder / "results.h5") if (folder / "results.h5").exists() else {}
    for name, at, bits in tasks:
        path, (data, before) = folder / name, whole[name]
        path.write_bytes(data[:at] if bits == 0 else data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :])
        gave = look(folder / "results.h5")
        wrong = [key for key in gave if right.get(key) != gave[key] and not gave[key].startswith("StoreError: ")]
        said = sorted(key for key in gave if gave[key].startswith("StoreError: "))
        unnamed = [k for k in said if k.startswith("trial") and " ".join(k.split()[:2]) not in gave[k]]
        seen = found(path)
        print(json.dumps([seen, seen or content(path) == before, said, wrong, unnamed]), flush=True)
        path.write_bytes(data)


def run_batch(folder: Path, tasks: list[tuple[str, int, int]]) -> list[Any]:
    """The lines of :func:`batch`."""
    code = "import json, sys, pathlib, test_verify; test_verify.batch(pathlib.Path(sys.argv[1]), json.load(sys.stdin))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=300,
    )
    assert done.returncode == 0, f"the interpreter ended with {done.returncode}:\n{done.stderr}"
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(tasks)
    return said


def sample(folder: Path, seed: int, counts: dict[str, int]) -> list[tuple[str, int, int]]:
    """Positions by chance in each file: four in five a flip of one bit or of all of a byte, the others a cut."""
    chance = random.Random(seed)
    out = []
    for name, count in counts.items():
        size = (folder / name).stat().st_size
        for _ in range(count):
            bits = 0 if chance.random() < 0.2 else chance.choice([1 << chance.randrange(8), 255])
            out.append((name, chance.randrange(size), bits))
    return out


def judge(tasks: list[tuple[str, int, int]], said: list[Any]) -> None:
    for task, (_, accounted, _, wrong, unnamed) in zip(tasks, said, strict=True):
        assert accounted, f"{task}: not found, and not as it was"
        assert not wrong, f"{task}: read as something else, without a word: {wrong}"
        assert not unnamed, f"{task}: the trial is not named: {unnamed}"


def check_sample(packs: Path, going_on: Path, seed: int, share: float) -> None:
    tasks = sample(packs.parent, seed, {packs.name: round(300 * share)})
    said = run_batch(packs.parent, tasks)
    judge(tasks, said)
    flips = [one for one, (_, _, bits) in zip(said, tasks, strict=True) if bits]
    assert sum(one[0] for one in flips) > len(flips) / 2, "hardly anything was found: the sample misses the data"
    alone = [one for one in flips if {k.split()[1] for k in one[2] if k.startswith("trial")} and len(one[2]) < 5]
    assert alone, "no damage concerned one trial only"
    parts = ["results.h5", "results.trials/000000.h5", "results.trials/000002.h5", "results.trials/000004.h5"]
    tasks = sample(going_on.parent, seed, dict.fromkeys(parts, round(50 * share)))
    judge(tasks, run_batch(going_on.parent, tasks))


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("packed", "index"):
        (tmp_path / name).mkdir()
    path = tmp_path / "index" / "results.h5"
    store = Store.open(path, meta())
    for made in RECORDS:
        put(store, made, output(made.number) if made.state is TrialState.COMPLETE else None)
    store.refresh(force=True)
    store.close()
    return packed(tmp_path / "packed" / "results.h5", RECORDS), path


def test_a_sample_of_forty_positions(both: tuple[Path, Path]) -> None:
    """Found, or proven untouched; what is read is right or named."""
    check_sample(*both, seed=1, share=0.08)


@pytest.mark.slow
@pytest.mark.second
def test_a_sample_of_five_hundred_positions(both: tuple[Path, Path]) -> None:
    """The same at large: 300 in a packed file, 200 in an index and three trials' files."""
    check_sample(*both, seed=2, share=1.0)
