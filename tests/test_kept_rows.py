"""What a driver keeps of every trial: rows as they were put in, small; and nothing of an index that was written."""

import gc
import platform
import tracemalloc
from dataclasses import replace
from pathlib import Path

import forked
import pytest
from store_cases import failed, record

from ptydask.store import codec, names
from ptydask.store.index import TrialRow
from ptydask.store.kept_rows import KeptRows

FOLDER = Path("/data/study.trials")
OWN = TrialRow(record(3), names.shard_path(FOLDER, 3), sha256="0f" * 32, json=codec.record_to_json(record(3)))
OTHER = TrialRow(record(1), names.shard_path(FOLDER, 1), tile=b"1", json=codec.record_to_json(record(1)))
ROWS = {
    "in its own file": OWN,
    "with a thumbnail": replace(OWN, tile=b"\x00\xff" * 40),
    "in a pack": replace(OWN, file=Path("/data/study.h5"), group="/study/trials/000003"),
    "in a file of its own elsewhere": replace(OWN, file=Path("/data/other.trials/000003.h5")),
    "without a digest": replace(OWN, sha256=""),
    "with a digest that is none": replace(OWN, sha256="\udc80 é\n"),
    "with a text that has lines": replace(OWN, json='{\n"number": 3\n}'),
    "failed": TrialRow(failed(3), names.shard_path(FOLDER, 3), json=codec.record_to_json(failed(3))),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_comes_out_as_it_was_put_in(row: TrialRow) -> None:
    """Also beside others, and where it takes the place of another."""
    rows = KeptRows(FOLDER, {1: OTHER, 3: ROWS["in a pack"]})
    rows[3] = replace(row, tile=b"before")
    rows[3] = row
    assert rows[3] == row
    assert rows.records == {1: record(1), 3: row.record}
    assert list(rows) == [1, 3]
    assert rows.numbers_in(Path("/data/study.h5")) == ({3} if row is ROWS["in a pack"] else set())
    assert rows[1] == OTHER
    del rows[3]
    assert [*rows] == [*rows.records] == [1]
    with pytest.raises(KeyError):
        rows[3]


def test_a_file_may_get_another_name() -> None:
    """What lies elsewhere stays where it is."""
    rows = KeptRows(FOLDER, {1: OTHER, 3: ROWS["in a pack"], 4: ROWS["in a file of its own elsewhere"]})
    rows.rename_file(Path("/data/study.h5"), Path("/data/study.trials/packed-1.h5"))
    assert rows[3] == replace(ROWS["in a pack"], file=Path("/data/study.trials/packed-1.h5"))
    assert [rows[1], rows[4]] == [OTHER, ROWS["in a file of its own elsewhere"]]


def test_the_text_of_a_record_is_made_once() -> None:
    """A row that was read from a trial's own file has none."""
    assert KeptRows(FOLDER, {3: replace(OWN, json="")})[3] == OWN


def test_a_row_needs_little_memory() -> None:
    """Less than half a kB beside its record; a row as it is handed about has more than twice that."""
    count = 500
    made = [record(number) for number in range(count)]
    rows = KeptRows(FOLDER, {})
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number, one in enumerate(made):
            path = names.shard_path(FOLDER, number)
            rows[number] = TrialRow(one, path, sha256=f"{number**20:064x}"[:64], json=codec.record_to_json(one))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert (after - before) / count < 500
    finally:
        tracemalloc.stop()


INDEX = """
import ctypes, sys
from pathlib import Path
import numpy, psutil
sys.path.insert(0, HERE)
from store_cases import meta, put, record
from ptydask.store import Store
for option, value in ((-1, 2**30), (-3, 2**25)):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
    ctypes.CDLL(None).mallopt(option, value)
uss = lambda: psutil.Process().memory_full_info().uss
store = Store.open(Path("results.h5"), meta())
put(store, record(0))
arrays = [numpy.ones(2**17) for _ in range(50)]
del arrays
kept = uss()
store.refresh(force=True)
print((kept - uss()) // 2**20)
store.close()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not asked")
def test_an_index_leaves_no_freed_memory(commands: forked.Commands, tmp_path: Path) -> None:
    """What it was made of grows with the study, and the allocator would keep it from one index to the next."""
    done = commands.run([], tmp_path, code=f"HERE = {str(Path(__file__).parent)!r}\n{INDEX}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
