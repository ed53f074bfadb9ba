"""The scheduler that the workers of jobs reach: its keys, its doors, and who gets in."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ptydask.clusters import ClusterRequest
from ptydask.clusters.jobqueue import launch
from ptydask.clusters.jobqueue.profile import Profile
from ptydask.errors import ClusterError


def request(folder: Path) -> ClusterRequest:
    return ClusterRequest(4, 4, folder=folder, label="study")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.slow
def test_a_scheduler_its_keys_and_its_jobs(tmp_path: Path) -> None:
    """The job's script is the promised one; its workers join with TLS; whoever has no certificate stays out."""
    from distributed import Client

    asked = request(tmp_path / "a b" / "study.trials")
    job = Profile(gpus=2, cpus=2, interface="lo")
    keys = launch.keys_folder(job, asked)
    with launch.open_scheduler(job, asked) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://127.0.0.1:")
        assert cluster.scheduler.http_server.port
        assert re.match(r"http://(127\.0\.0\.1|localhost):", cluster.dashboard_link)
        assert (mode(keys), sorted(mode(path) for path in keys.iterdir())) == (0o700, [0o600, 0o600])
        spec = cluster.new_spec
        script = spec["cls"](address, name="job1", **spec["options"]).job_script()
        assert script == launch.job_script(job, asked).replace("tls://<address-of-the-scheduler>", address)
        with open(tmp_path / "log", "w") as log:  # noqa: PTH123
            worker = subprocess.Popen(["bash", "-c", script], stdout=log, stderr=log)
        try:
            with Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
                workers = client.scheduler_info()["workers"]
                assert sorted(info["name"] for info in workers.values()) == ["job1-0", "job1-1"]
                assert all(found.startswith("tls://") for found in workers)
                assert client.run(lambda: os.environ["OMP_NUM_THREADS"]) == dict.fromkeys(workers, "1")
                for port in client.run(lambda dask_worker: dask_worker.http_server.port).values():
                    with pytest.raises(HTTPError, match="404"):
                        urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
                for found in (address, *workers):
                    strangers_stay_out(found, tmp_path)
        finally:
            worker.terminate()
            worker.wait(30)
    assert not keys.exists()
    assert (asked.folder / "jobs").is_dir()


def strangers_stay_out(address: str, folder: Path) -> None:
    """Neither without TLS, nor with TLS and no certificate, nor with a certificate of one's own."""
    from distributed import Security

    host, port = address.removeprefix("tls://").split(":")
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    foreign.check_hostname, foreign.verify_mode = False, ssl.CERT_NONE
    made = Security.temporary()
    (folder / "foreign.pem").write_text(made.tls_client_cert + made.tls_client_key)
    foreign.load_cert_chain(folder / "foreign.pem")
    for context in (None, plain, foreign):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            assert said_to(raw, context) == b""


def said_to(raw: socket.socket, context: ssl.SSLContext | None) -> bytes:
    """What a Dask server lets a connection read, TLS alerts aside."""
    if context is None:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n" * 20)
        try:
            said = raw.recv(1)
        except ConnectionError:
            return b""
        return b"" if said == b"\x15" else said
    try:
        with context.wrap_socket(raw) as wrapped:
            return wrapped.recv(1)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.slow
def test_the_keys_are_removed_after_an_error(tmp_path: Path) -> None:
    asked = request(tmp_path)
    job = Profile(interface="lo")
    with pytest.raises(ZeroDivisionError), launch.open_scheduler(job, asked):  # noqa: PT012
        assert launch.keys_folder(job, asked).exists()
        raise ZeroDivisionError
    assert not launch.keys_folder(job, asked).exists()


def test_a_scheduler_that_does_not_start_is_one_line_and_leaves_no_keys(tmp_path: Path) -> None:
    job = Profile(interface="nosuch0")
    with (
        pytest.raises(ClusterError, match=r"^the scheduler did not start: .*nosuch0"),
        launch.open_scheduler(job, request(tmp_path)),
    ):
        pass
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("name", ["back\\slash", "two\nlines"])
def test_a_path_that_slurm_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(ClusterError, match="no backslash and no line break"),
        launch.open_scheduler(Profile(interface="lo"), request(tmp_path / name)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_keys_are_not_written_through_a_link(tmp_path: Path) -> None:
    """Somebody else may own where it leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ClusterError, match="is a link"),
        launch.open_scheduler(Profile(interface="lo"), request(tmp_path)),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())
