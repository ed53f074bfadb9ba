"""The journal file and what stock Optuna makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from ptydask.errors import ConfigError, StorageError
from ptydask.storage import journal as journal_module
from ptydask.storage import urls
from ptydask.storage.journal import JournalFile, decode, encode, must_last

LINE = b'{"op_code":0,"worker_id":"a"}'


def test_lines_come_back(tmp_path: Path) -> None:
    """What was appended is there after a new opening, in order."""
    journal = JournalFile(tmp_path / "deep" / "j.journal")
    journal.append([LINE, LINE])
    journal.close()
    again = JournalFile(tmp_path / "deep" / "j.journal")
    assert again.since(0) == [LINE, LINE]
    assert again.since(1) == [LINE]
    assert len(again) == 2
    again.close()


@pytest.mark.parametrize("cut", range(1, len(LINE) + 1))
def test_torn_end_is_dropped(tmp_path: Path, cut: int) -> None:
    """Cut anywhere in its last line, the file opens with all the lines before, and goes on cleanly."""
    path = tmp_path / "j"
    path.write_bytes(LINE + b"\n" + LINE[:cut])
    journal = JournalFile(path)
    journal.append([LINE])
    journal.close()
    assert path.read_bytes() == LINE + b"\n" + LINE + b"\n"


def test_a_write_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    """All lines of an append or none: after a full disk the file is what it was, and goes on."""
    path = tmp_path / "j"
    code = """
import resource, signal, sys
from pathlib import Path
from ptydask.errors import StorageError
from ptydask.storage.journal import JournalFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = JournalFile(Path(sys.argv[1]))
line = b'{"op_code":0,"worker_id":"a"}'
journal.append([line])
resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 2, resource.RLIM_INFINITY))
try:
    journal.append([line, line, line])
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([line])
assert len(journal) == 2
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert path.read_bytes() == (LINE + b"\n") * 2


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    """A second run on the same journal is refused, and the first is undisturbed."""
    first = JournalFile(tmp_path / "j")
    with pytest.raises(StorageError, match="another run is writing this journal"):
        JournalFile(tmp_path / "j")
    first.append([LINE])
    first.close()
    JournalFile(tmp_path / "j").close()


@pytest.mark.parametrize("content", [b"not json\n", b'{"a": 1}\n', b"[1]\n", b"\x89HDF\r\n\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no Optuna journal is named, with its line, and left as it was."""
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"j:1: not a line of an Optuna journal"):
        JournalFile(path)
    assert path.read_bytes() == content


def test_ends_of_trials_must_last() -> None:
    """Only what says that a trial ended has to reach the disk before anybody is told."""
    assert must_last([{"op_code": 6, "state": 1}])
    assert must_last([{"op_code": 7}, {"op_code": 4, "state": 3}])
    assert not must_last([{"op_code": 6, "state": 0}])
    assert not must_last([{"op_code": 7, "intermediate_value": 1.0}])


def test_encoding_is_optunas_own() -> None:
    """Compact JSON, one entry a line, NaN as Optuna writes it."""
    logs = [{"op_code": 7, "value": float("inf"), "name": "é"}]
    assert encode(logs) == [json.dumps(logs[0], separators=(",", ":")).encode()]
    assert [*decode(encode(logs))] == logs


@pytest.mark.parametrize(
    ("url", "kind", "journal", "mirror"),
    [
        (None, "journal", "out/s.journal", None),
        ("journal:///here.journal", "journal", "here.journal", None),
        ("journal:////abs/j", "journal", "/abs/j", None),
        ("sqlite:///h.sqlite3", "journal", "out/s.journal", "sqlite:///h.sqlite3"),
    ],
)
def test_file_urls(url: str | None, kind: str, journal: str, mirror: str | None) -> None:
    """Where the journal lies, and what is mirrored."""
    spec = urls.parse(url, Path("out/s.h5"))
    assert (spec.kind, str(spec.journal), spec.mirror) == (kind, journal, mirror)


@pytest.mark.parametrize("url", ["nonsense", "sqlit:///x", "ftp://host/x", "postgresql://", "://x"])
def test_bad_urls(url: str) -> None:
    """One line that names the key."""
    with pytest.raises(ConfigError, match="storage_path"):
        urls.parse(url, Path("s.h5"))


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@db/x", "redis://:s3cret@db:6379/0", "mysql://me:s3:cr@t@db/x"])
def test_passwords_are_never_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the repr of a spec nor its description holds the password."""
    monkeypatch.setattr(urls, "require", lambda *_: None)
    spec = urls.parse(url, Path("s.h5"))
    assert "cr" not in repr(spec)
    assert "cr" not in spec.shown
    assert "***" in spec.shown


@pytest.mark.slow
def test_nothing_listens_there(tmp_path: Path) -> None:
    """A server that does not answer is one line without the password."""
    pytest.importorskip("psycopg", reason="needs the package psycopg")
    spec = urls.parse("postgresql://me:s3cret@127.0.0.1:1/x", tmp_path / "s.h5")
    with pytest.raises(StorageError) as caught:
        urls.connect(spec)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_that_an_editor_of_windows_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found where it is, however many are before it."""
    monkeypatch.setattr(journal_module, "RECENT", 1)
    path = tmp_path / "j"
    path.write_bytes(b"".join(LINE[:-1] + b',"n":%d}\r\n' % n for n in range(5)))
    journal = JournalFile(path)
    assert [[entry["n"] for entry in decode(journal.since(n))] for n in (1, 4)] == [[1, 2, 3, 4], [4]]
    journal.close()


@pytest.mark.parametrize("size", [0, 1, len(LINE), 2 * len(LINE)])
def test_lines_that_somebody_else_has_cut_off(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No others are given in their place."""
    monkeypatch.setattr(journal_module, "RECENT", 1)
    path = tmp_path / "j"
    path.write_bytes(5 * (LINE + b"\n"))
    journal = JournalFile(path)
    os.truncate(path, size)
    with pytest.raises(StorageError, match="journal"):
        journal.since(1)
    journal.append([LINE])
    assert journal.since(5) == [LINE]
    journal.close()


@pytest.mark.parametrize("number", range(13))
def test_lines_that_are_not_in_memory_are_read(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long journal the latest lines are kept, all others are in the file: those of an earlier run, too."""
    monkeypatch.setattr(journal_module, "RECENT", 2)
    lines = [LINE[:-1] + b',"n":%d}' % 10**n for n in range(11)]
    path = tmp_path / "j"
    path.write_bytes(b"".join(line + b"\n" for line in lines[:5]))
    journal = JournalFile(path)
    for first in range(5, 11, 2):
        journal.append(lines[first : first + 2])
    assert len(journal) == 11
    assert journal.since(number) == lines[number:]
    journal.close()


def test_lines_that_are_kept_in_memory_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth more than are promised, however long the journal is."""
    monkeypatch.setattr(journal_module, "RECENT", 100)
    journal = JournalFile(tmp_path / "j")
    tracemalloc.start()
    try:
        for number in range(299):
            journal.append([LINE[:-1] + b',"n":%0999d}' % number])
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 100_000 < size < 130_000
    journal.close()
