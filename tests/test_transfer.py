"""Files of workers that do not see the results' folder, over a real Dask connection."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import get_worker

from ptydask.clusters import ClusterRequest
from ptydask.clusters.local import ThisMachine
from ptydask.clusters.local_workers import LocalWorkers
from ptydask.errors import StoreError
from ptydask.model import StudyMeta
from ptydask.store import checkpoints, contents, names
from ptydask.worker import transfer

ID = "0123abcd"


def send(size: int) -> tuple[str, str, list[str]]:
    """Runs on a worker: a checkpoint and a trial's file of random bytes; returns their digests."""
    shelf = transfer.OverTheConnection()
    data = secrets.token_bytes(size)
    shelf.save(7, data)
    names.shard_path(shelf.folder, 8).write_bytes(data[::-1])
    shelf.deliver(8)
    left = [path.name for path in shelf.folder.iterdir()]
    inside = shelf.folder.is_relative_to(get_worker().local_directory)
    shelf.close()
    return hashlib.sha256(data).hexdigest(), hashlib.sha256(data[::-1]).hexdigest(), [*left, *([] if inside else ["?"])]


def fetch(number: int) -> str | None:
    """Runs on a worker: the digest of a checkpoint."""
    data = transfer.OverTheConnection().load(number)
    return None if data is None else hashlib.sha256(data).hexdigest()


def refused(kind: str, upload: str) -> str:
    """Runs on a worker: what an upload that is not whole, or not named as one, is told."""
    try:
        transfer._ask_scheduler(kind=kind, number=1, offset=0, piece=b"abc", upload=upload, sha256="0" * 64)
    except StoreError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalWorkers]:
    with ThisMachine().open(ClusterRequest(1, 1)) as running:
        running.client.wait_for_workers(1, timeout=60)
        yield running


@pytest.fixture
def folder(cluster: LocalWorkers, tmp_path: Path) -> Iterator[Path]:
    contents.write_card(tmp_path, ID, StudyMeta("s", "minimize", "loss", "toy", "", "yaml", "{}", "{}"))
    cluster.client.register_plugin(transfer.FileService(tmp_path, ID))
    yield tmp_path
    cluster.client.unregister_scheduler_plugin(transfer.FileService.name_for(ID))


@pytest.mark.parametrize("size", [0, 5, transfer.PIECE, 2 * transfer.PIECE + 7])
@pytest.mark.slow
def test_files_arrive_whole(cluster: LocalWorkers, folder: Path, size: int) -> None:
    """Of any size, in pieces; nothing is left aside, nor on the worker; a checkpoint comes back."""
    sent, trial, left = cluster.client.submit(send, size, pure=False).result(timeout=60)
    assert left == []
    assert hashlib.sha256(checkpoints.read(folder, 7) or b"").hexdigest() == sent
    assert hashlib.sha256(names.shard_path(folder, 8).read_bytes()).hexdigest() == trial
    assert sorted(p.name for p in folder.iterdir()) == ["000007.checkpoint", "000008.h5", contents.CARD]
    if size:
        assert cluster.client.submit(fetch, 7, pure=False).result(timeout=60) == sent
    assert cluster.client.submit(fetch, 9, pure=False).result(timeout=60) is None


def test_what_is_damaged_or_misnamed_is_refused(cluster: LocalWorkers, folder: Path) -> None:
    """Bytes that changed on the way do not become a file; no name leads out of the folder."""
    said = cluster.client.submit(refused, "trial", "0123456789ab", pure=False).result(timeout=60)
    assert "did not arrive whole" in said
    said = cluster.client.submit(refused, "checkpoint", "../../../etc", pure=False).result(timeout=60)
    assert "not the name of an upload" in said
    assert [p.name for p in folder.iterdir()] == [contents.CARD]


def test_who_sees_the_folder(tmp_path: Path) -> None:
    """The folder of this very store, and writable; another one's, or none, is not seen."""
    assert not transfer.folder_visible(tmp_path / "none", ID)
    assert not transfer.folder_visible(tmp_path, ID)
    contents.write_card(tmp_path, ID, StudyMeta("s", "minimize", "loss", "toy", "", "yaml", "{}", "{}"))
    assert transfer.folder_visible(tmp_path, ID)
    assert not transfer.folder_visible(tmp_path, "another")
    assert isinstance(transfer.choose_shelf(tmp_path, ID), transfer.SharedFolder)


def test_a_scheduler_that_does_not_see_the_folder_says_so(cluster: LocalWorkers, tmp_path: Path) -> None:
    """It cannot serve it."""
    with pytest.raises(StoreError, match="does not see this folder"):
        cluster.client.register_plugin(transfer.FileService(tmp_path / "elsewhere", ID))


def test_a_full_disk_keeps_no_half_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of it so far would only take more of the room that is missing."""
    service, upload = transfer.FileService(folder, ID), "0123456789ab"
    path = names.checkpoint_path(folder, 1)
    service._put(path, upload, 0, b"abc", "")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        service._put(path, upload, 3, b"def", hashlib.sha256(b"abcdef").hexdigest())
    assert [p.name for p in folder.iterdir()] == [contents.CARD]


def lend(number: int, store_id: str) -> str:
    """Runs on a worker: what the upload of a checkpoint is told."""
    try:
        transfer.OverTheConnection(store_id).save(number, b"abc")
    except StoreError as error:
        return str(error)
    return ""


def test_a_trial_that_outlived_its_run_leaves_no_file_with_another(cluster: LocalWorkers, folder: Path) -> None:
    """Its number is that of one of the other study's trials as well."""
    said = cluster.client.submit(lend, 1, "fedc3210", pure=False).result(timeout=60)
    assert "serves another study now" in said
    assert cluster.client.submit(lend, 2, ID, pure=False).result(timeout=60) == ""
    assert sorted(p.name for p in folder.iterdir()) == ["000002.checkpoint", contents.CARD]


def test_a_folder_of_another_study_is_left_alone(tmp_path: Path) -> None:
    """A worker that was given up ends its trial in the next stage, whose trials have the same numbers and folder."""
    meta = StudyMeta("s", "minimize", "loss", "toy", "", "yaml", "{}", "{}")
    contents.write_card(tmp_path, ID, meta)
    shelf = transfer.choose_shelf(tmp_path, ID)
    assert shelf.folder == tmp_path
    shelf.check()
    contents.write_card(tmp_path, "the next", meta)
    with pytest.raises(StoreError, match="another study"):
        shelf.check()
