"""A trial's group composed in memory: what is said of it is what is read of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_cases import failed, full_disk, meta, output, put, record

from ptydask.model import Image, KeepOptions, Quantity, TrialOutput, TrialRecord
from ptydask.store import Store, contents, digest, draft, index, layout, root, shard
from ptydask.store.trialgroup import read_record

KEEP = KeepOptions()
TEXTS = ("", "one", "Å ≤ 3", "a/b %", "two\nlines", "x" * 20_000, "nul\0", "lone \ud800", "naïve\u0301")
NUMBERS = (0, -1, 2**63 - 1, 2**70, 1.5, float("nan"), float("-inf"), -0.0, True, False, None)
TYPES = ("<f4", "<f8", ">f8", "<f2", "<i8", "<u2", "|i1", "<c8", "<c16", "|b1", ">i4", "|S5", "<U3")
SHAPES = ((), (0,), (1,), (3,), (4, 1), (2, 3, 5), (1, 40, 50), (600, 2), (0, 3), (70, 80))


def draw_array(chance: np.random.Generator) -> np.ndarray[Any, Any]:
    """Numbers or texts of any type and shape, in any order in memory."""
    shape = SHAPES[chance.integers(len(SHAPES))]
    data = (100 * chance.normal(size=shape)).astype(TYPES[chance.integers(len(TYPES))])
    return [data, np.asfortranarray(data), data[..., ::-1] if data.ndim else data, data.T][chance.integers(4)]


def draw_name(chance: np.random.Generator) -> str:
    return f"{TEXTS[chance.integers(1, 5)]}{chance.integers(99)}"


def draw_values(chance: np.random.Generator) -> dict[str, Any]:
    values = (*TEXTS, *NUMBERS)
    return {draw_name(chance): values[chance.integers(len(values))] for _ in range(chance.integers(12))}


def draw_trial(seed: int) -> tuple[TrialRecord, TrialOutput]:
    """A trial of which anything may be missing, and anything of any type."""
    chance = np.random.default_rng(seed)
    length = int(chance.integers(1, 900))
    columns = {
        name: chance.normal(size=length) for name in ("loss", "title", "contrast", "é", "gradient", "gradient/x")
    }
    curve = {"step": np.arange(length), "said": [str(step) for step in range(length)], **columns}
    curve = {name: column for name, column in curve.items() if chance.random() < 0.7}
    names_of_arrays = [draw_name(chance) for _ in range(chance.integers(5))]
    given = TrialOutput(
        metrics={},
        curve=curve,
        arrays={name: Quantity(draw_array(chance), "Å", draw_name(chance)) for name in names_of_arrays},
        image=Image(chance.normal(size=(9, 7)), np.arange(9.0), np.arange(7), "rad", "Å", "π") if seed % 3 else None,
        snapshots={step: {"probe": Quantity(draw_array(chance))} for step in range(chance.integers(3))},
        attributes=draw_values(chance),
        log=TEXTS[chance.integers(len(TEXTS))],
        command=TEXTS[chance.integers(len(TEXTS))],
        left_out=TEXTS[: chance.integers(3)],
        artifacts={draw_name(chance): chance.bytes(int(size)) for size in chance.integers(9000, size=seed % 3)},
        units={"loss": "1"} if seed % 2 else {},
    )
    make = record if seed % 4 else failed
    return make(seed, params=draw_values(chance), metrics=draw_values(chance), gradient={"x": 1.5}), given


def check_digests(written: shard.Shard) -> None:
    """Each digest in a trial's file is that of what is read there."""
    with h5py.File(written.path) as file:
        trial = file[layout.TRIAL]
        assert written.seal == digest.read_digest(trial) == digest.group_digest(trial)
        assert digest.read_digest(file["/"]) == digest.group_digest(file["/"], {layout.TRIAL})


def write(folder: Path, made: TrialRecord, given: TrialOutput | None) -> shard.Shard:
    return shard.write(folder, made, given, KEEP, direction="minimize", metric="loss")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("in_memory", [1 << 30, -1], ids=["memory", "disk"])
def test_the_digest_is_that_of_what_is_read(
    seed: int, in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "_IN_MEMORY", in_memory)
    made, given = draw_trial(seed)
    written = write(tmp_path, made, given)
    assert written.lost == ""
    check_digests(written)
    assert written.sha256 == contents.files.sha256(written.path)


UNUSUAL: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "fields": lambda: np.array([(1, 2.5)], [("a", "<i2"), ("b", "<f8")]),
    "fields with a gap": lambda: np.zeros(3, np.dtype([("a", "|i1"), ("b", "<f8")], align=True)),
    "an enumeration": lambda: np.array([1, 2], h5py.enum_dtype({"ON": 1, "OFF": 2})),
    "another enumeration": lambda: np.array([1, 2], h5py.enum_dtype({"OFF": 1, "ON": 2})),
    "bytes of no type": lambda: np.array([b"abc"], "V3"),
    "ASCII": lambda: np.array([b"abc"], h5py.string_dtype("ascii", 3)),
    "UTF-8": lambda: np.array(["å".encode()], h5py.string_dtype("utf-8", 3)),
    "texts": lambda: np.array(["å", None, 3], object),
    "a masked array": lambda: np.ma.masked_less(np.arange(5.0), 2),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_array_of_an_unusual_type_is_digested_as_it_is_read(kind: str, tmp_path: Path) -> None:
    data = UNUSUAL[kind]()
    written = write(tmp_path, record(1), output(1, arrays={"plain": Quantity(np.ones(3)), "unusual": Quantity(data)}))
    assert written.lost == ""
    check_digests(written)
    with h5py.File(written.path) as file:
        stored = file["trial/unusual"]
        assert stored.shape == data.shape
        if data.dtype.kind != "O":
            assert stored.dtype == data.dtype
            assert h5py.check_enum_dtype(stored.dtype) == h5py.check_enum_dtype(data.dtype)
            assert h5py.check_string_dtype(stored.dtype) == h5py.check_string_dtype(data.dtype)


def test_what_hdf5_has_no_type_for_is_lost_and_the_numbers_are_kept(tmp_path: Path) -> None:
    written = write(tmp_path, record(1), output(1, arrays={"when": Quantity(np.array(["2025-01-01"], "M8[D]"))}))
    assert "when" in written.lost
    check_digests(written)


def test_two_members_of_one_name_are_an_error() -> None:
    group = draft.Group()
    group.create_dataset("a", data=np.ones(1))
    with pytest.raises(ValueError, match="a"):
        group.create_group("a")
    with pytest.raises(ValueError, match="a"):
        group["a"] = h5py.SoftLink("b")


@pytest.mark.parametrize("count", [7, 60, 500])
def test_a_trial_of_many_parameters(count: int, tmp_path: Path) -> None:
    params = {f"parameter {number}": 1.5 * number for number in range(count)}
    written = write(tmp_path, record(1, params=params), output(1))
    check_digests(written)
    with h5py.File(written.path) as file:
        assert read_record(file[layout.TRIAL]).params == params
        assert dict(file["trial/params"].attrs.items()) == params


def test_a_file_made_in_memory_leaves_nothing_where_the_disk_is_full(tmp_path: Path) -> None:
    with full_disk(0), pytest.raises(contents.StoreError, match="No space left"):
        write(tmp_path, record(1), output(1))
    assert list(tmp_path.iterdir()) == []
    check_digests(write(tmp_path, record(1), output(1)))


def test_a_file_stays_open_until_it_is_replaced_or_read_often(tmp_path: Path) -> None:
    path, recent = tmp_path / "a.h5", contents.files.RecentFile()
    contents.files.write_image(path, lambda file: file.create_group("old"))
    opened = recent.open(path)
    assert recent.open(path) is opened
    contents.files.write_image(path, lambda file: file.create_group("new"))
    assert list(recent.open(path)) == ["new"]
    assert not opened
    path.unlink()
    with pytest.raises(FileNotFoundError):
        recent.open(path)
    recent.close()
    recent.close()


MEMBERS = ("params", "curve", "image", "record_json", "object_phase", "not there")


@pytest.mark.parametrize("without", [(), MEMBERS[:1], MEMBERS[1:4], MEMBERS])
def test_a_copy_is_sealed_by_what_is_read_of_the_whole(without: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, record(1), output(1)).path
    with h5py.File(path, "r+") as file:
        source, copy = file[layout.TRIAL], file.create_group("copy")
        for name in set(source) - set(without):
            source.copy(name, copy)
        digest.seal_copy(copy, source, without, {"own": "1.5", "default": None})
        assert digest.read_digest(copy) == digest.group_digest(copy)
        assert set(copy.attrs) == {*source.attrs, "own"} - {"default"}
        assert all(copy.attrs[name] == source.attrs[name] for name in set(copy.attrs) - {"own", "sha256"})
        source.attrs["seed"] = 77
        with pytest.raises(ValueError, match="SHA-256"):
            digest.seal_copy(file.create_group("changed"), source, without, {})
        digest.seal_copy(anew := file.create_group("trusted"), source, set(source), {}, intact=True)
        assert anew.attrs["seed"] == 77
        assert digest.read_digest(anew) == digest.group_digest(anew)


@pytest.mark.parametrize("in_memory", [1 << 30, -1], ids=["memory", "disk"])
def test_index_and_pack_are_sealed_by_what_is_read(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_IN_MEMORY", in_memory)
    store = Store.open(tmp_path / "s.h5", meta("a/b %", keep=KeepOptions(params_in_names=True)))
    for number in range(7):
        params = {"a/b": number % 2, "Å": "é" * number, "": float("nan")}
        made = record(number, params=params) if number % 3 else failed(number, params=params)
        put(store, made, output(number))
    store.refresh(force=True)
    check_seal(store.path)
    check_seal(store.finish())


def check_seal(path: Path) -> None:
    with h5py.File(path) as file:
        assert len(list(index.study_of(file)["by_params"])) > 1
        assert digest.read_digest(file["/"]) == digest.group_digest(file["/"], root.unsealed_paths(file))
