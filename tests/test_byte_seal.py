"""The last line of files that are made in memory: whoever trusts it reads no trial, so it is not right by chance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from store_cases import meta, output, packed, put, record

from ptydask.errors import StoreError
from ptydask.model import KeepOptions
from ptydask.store import Store, byte_seal, digest, index, isolated, packed_study, reader, shard
from ptydask.store.upkeep import packing, retention, verify


def write_trial(folder: Path, number: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    return shard.write(folder, record(number), output(number), KeepOptions(), direction="minimize", metric="loss").path


def cut_line(*paths: Path) -> None:
    for path in paths:
        os.truncate(path, path.stat().st_size - byte_seal.SIZE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the other process is asked."""
    questions: list[str] = []
    answer = isolated.ChildReader.ask

    def ask(child: isolated.ChildReader, **question: Any) -> isolated.Answer:
        questions.append(question["what"])
        return answer(child, **question)

    monkeypatch.setattr(isolated.ChildReader, "ask", ask)
    return questions


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A study that was stopped, of four trials."""
    store = Store.open(tmp_path / "s.h5", meta())
    for number in range(4):
        put(store, record(number, 0.1 * number), output(number))
    store.refresh(force=True)
    store.close()
    return store.path


def test_a_trials_file_says_which_trial_it_holds(tmp_path: Path) -> None:
    path = write_trial(tmp_path / "s")
    with h5py.File(path) as file:
        assert byte_seal.read_content(path) == digest.read_digest(file["trial"]) != ""


def test_any_change_of_a_byte_is_seen(tmp_path: Path) -> None:
    """Also in the line itself, and in bytes that HDF5 never looks at."""
    path = write_trial(tmp_path / "s")
    data = path.read_bytes()
    places = [*range(0, len(data), len(data) // 60), *range(len(data) - byte_seal.SIZE, len(data))]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert byte_seal.read_content(path) is None, place


def test_what_has_no_line_is_unknown(tmp_path: Path) -> None:
    path = write_trial(tmp_path / "s")
    data = path.read_bytes()
    for changed in (b"", b"x", data[:-1], data + b"\n", data[1:], data[-byte_seal.SIZE :], data[: -byte_seal.SIZE]):
        path.write_bytes(changed)
        assert byte_seal.read_content(path) is None
    assert byte_seal.read_content(tmp_path) is None
    assert byte_seal.read_content(tmp_path / "nowhere") is None


def test_whoever_opens_a_file_to_write_takes_the_line_away(tmp_path: Path) -> None:
    """The file is as readable as before, and its digests say the rest."""
    path = packed(tmp_path / "s.h5", [record(0), record(1)])
    assert byte_seal.read_content(path) == ""
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "mine"
    assert byte_seal.read_content(path) is None
    assert not verify.verify(path).intact
    with reader.open(path) as results:
        assert len(results.records()) == 2


@pytest.mark.parametrize("limit", [1 << 28, -1])
def test_only_what_was_made_in_memory_has_a_line(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_study, "_IN_MEMORY", limit)
    path = packed(tmp_path / "s.h5", [record(0)])
    assert (byte_seal.read_content(path) is not None) == (limit > 0)
    assert verify.verify(path).intact


def test_trials_of_intact_files_are_not_asked_for(stopped: Path, asked: list[str]) -> None:
    """An index with its trials, a packed file; and without the line every one of them."""
    files = [stopped, *stopped.with_name("s.trials").glob("*.h5")]
    whole = packing.pack(stopped, out=stopped.with_name("p.h5")).path
    assert "facts" not in asked
    for path, parts in ((stopped, files), (whole, [whole])):
        asked.clear()
        assert verify.verify(path).intact
        assert not {"compared", "seal", "links"} & set(asked)
        cut_line(*parts)
        asked.clear()
        report = verify.verify(path)
        assert (report.intact, report.trials, asked.count("compared")) == (True, 4, 4)


def test_one_trials_file_without_a_line_is_read(stopped: Path, asked: list[str]) -> None:
    cut_line(stopped.with_name("s.trials") / "000002.h5")
    assert verify.verify(stopped).trials == 4
    assert asked.count("compared") == 1


def test_an_intact_file_in_the_place_of_another_is_found(stopped: Path, tmp_path: Path) -> None:
    """A trial under another's number, and one of the same number from another study."""
    folder = stopped.with_name("s.trials")
    other = write_trial(tmp_path / "other", 3)
    shutil.copy(folder / "000001.h5", folder / "000002.h5")
    shutil.copy(other, folder / "000003.h5")
    assert verify.verify(stopped).damaged == (2, 3)
    assert not verify.verify(shutil.copy(other, tmp_path / "000007.h5")).intact


def test_a_trial_that_changed_is_neither_packed_nor_thinned(tmp_path: Path) -> None:
    """Of a file whose line is gone every trial is held against its digest, as ever."""
    path = packed(tmp_path / "s.h5", [record(0, 0.5), record(1, 0.25)])
    with h5py.File(path, "r+") as file:
        index.study_of(file)["trials/000000"].attrs["seed"] = 99
    for rule in (retention.ALL, retention.parse("best:1")):
        with pytest.raises(StoreError, match="SHA-256"):
            packing.pack(path, rule, out=tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()


CHANGES: dict[str, Callable[[h5py.Group], None]] = {
    "an attribute": lambda trial: trial.attrs.__setitem__("seed", 99),
    "a value": lambda trial: trial["object_phase"].__setitem__((0, 0, 0, 0), 7.0),
    "more": lambda trial: trial.__setitem__("note", "mine"),
    "less": lambda trial: trial.__delitem__("object_phase"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_vouch_for_what_changed_before_it(stopped: Path, change: str) -> None:
    """It packs an earlier driver's trial as it is: verify has to find what it would have found before."""
    with h5py.File(stopped.with_name("s.trials") / "000001.h5", "r+") as file:
        CHANGES[change](file["trial"])
    store = Store.open(stopped, meta())
    put(store, record(4), output(4))
    store.finish()
    assert verify.verify(stopped).damaged == (1,)


@pytest.mark.parametrize("rule", [retention.ALL, retention.parse("best:1")], ids=str)
def test_packing_does_not_vouch_for_a_table_that_changed(rule: retention.RetentionRule, tmp_path: Path) -> None:
    """Its trials are as they were, and are copied; what the table says of one is not what the trial says."""
    path, out = packed(tmp_path / "s.h5", [record(0, 0.5), record(1, 0.25)]), tmp_path / "out.h5"
    with h5py.File(path, "r+") as file:
        texts = index.study_of(file)["table/record_json"]
        texts[texts[()].tobytes().index(b"node1") + 4] = ord("2")
    packing.pack(path, rule, out=out)
    assert verify.verify(out).damaged == (0,)


def test_a_run_vouches_for_trials_of_an_earlier_driver(stopped: Path) -> None:
    store = Store.open(stopped, meta())
    put(store, record(4), output(4))
    store.finish()
    assert byte_seal.read_content(stopped) == ""


def test_packing_intact_files_gives_what_packing_others_gives(stopped: Path) -> None:
    """Numbers, arrays and digests, whole and thinned."""
    copies = []
    for name in ("trusted", "checked"):
        whole = packing.pack(stopped, out=stopped.with_name(f"{name}.h5")).path
        thin = packing.pack(whole, retention.parse("best:1"), out=stopped.with_name(f"{name}-thin.h5")).path
        copies.append([index.read_rows(path) for path in (whole, thin)])
        assert verify.verify(thin).intact
        if name == "trusted":  # what is made of others has none
            cut_line(thin)
            assert verify.verify(thin).intact
        cut_line(stopped, *stopped.with_name("s.trials").glob("*.h5"))
    for one, other in zip(*copies, strict=True):
        assert [(row.sha256, row.json, row.tile) for row in one] == [(row.sha256, row.json, row.tile) for row in other]
