"""A program that does what its first argument says, none of it nice. Values go where PTYDASK_METRICS says."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["PTYDASK_FOLDER"])


def log(step: int, **values: float) -> None:
    with Path(os.environ["PTYDASK_METRICS"]).open("a") as file:
        file.write(json.dumps({"step": step, "metrics": values}) + "\n")


def well() -> None:
    print("to the one", flush=True)
    print("to the other", file=sys.stderr)
    for step in range(1, 4):
        log(step, loss=1 / step, accuracy=step / 4)


def raises() -> None:
    print("buffered until the end")
    log(1, loss=0.5)
    print(1 / 0)


def rejects() -> None:
    argparse.ArgumentParser("misbehaving.py").parse_args(["--no-such-flag=3"])


def hangs_at_once() -> None:
    time.sleep(1000)


def hangs_later() -> None:
    print("epoch 1", flush=True)
    log(1, loss=0.5)
    time.sleep(1000)


def silent() -> None:
    run = FOLDER / "wandb" / "offline-run-1"
    run.mkdir(parents=True)
    (run / "run-1.wandb").write_bytes(b"")
    time.sleep(1.0)
    log(1, loss=0.5)


def gigabytes() -> None:
    line = b"0123456789abcde\n" * 65536
    os.write(1, b"the very first line\n")
    for _ in range(400):
        os.write(1, line)
    log(1, loss=0.5)
    os.write(1, b"the very last line\n")


def another_metric() -> None:
    log(1, Loss=0.5, accuracy=0.1)


def nothing() -> None:
    pass


def nan() -> None:
    log(1, loss=0.5)
    log(2, loss=float("nan"))


def forks() -> None:
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(1000)
    log(1, loss=0.5)


def _ignore_everything() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            (FOLDER / "daemon").write_text(str(os.getpid()))
            time.sleep(1000)
        time.sleep(1000)
    while not (FOLDER / "daemon").exists():
        time.sleep(0.01)
    log(1, loss=0.5)


def daemon_and_waits() -> None:
    _ignore_everything()
    daemon()
    time.sleep(1000)


def stubborn() -> None:
    _ignore_everything()
    daemon()
    step = 1
    while True:
        step += 1
        with contextlib.suppress(OSError):
            log(step, loss=float(step))
        time.sleep(0.02)


def gentle() -> None:
    """Says at Ctrl-C what it has, and exits with 3."""
    try:
        for step in range(1, 100_000):
            log(step, loss=1.0)
            time.sleep(0.02)
    except KeyboardInterrupt:
        log(7, loss=float("nan"), stopped=1.0)
        sys.exit(3)


def links() -> None:
    files = FOLDER / "wandb" / "offline-run-1" / "files"
    files.mkdir(parents=True)
    (files / "own.bin").write_bytes(bytes(range(256)))
    (files / "within").symlink_to("own.bin")
    outside = Path(os.environ["OUTSIDE"])
    (files / "secret").symlink_to(outside / "secret")
    (files / "folder").symlink_to(outside)
    (files / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(files / "pipe")
    locked = FOLDER / "locked"
    locked.mkdir()
    (locked / "link").symlink_to(outside)
    (locked / "file").write_text("x")
    locked.chmod(0o500)
    log(1, loss=0.5)


def large() -> None:
    files = FOLDER / "wandb" / "offline-run-1" / "files"
    files.mkdir(parents=True)
    (files / "a_large.pt").write_bytes(b"x" * 2000)
    (files / "small.yaml").write_bytes(b"y" * 100)
    with (files / "sparse").open("wb") as file:
        file.truncate(2**40)
    log(1, loss=0.5)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def killed() -> None:
    log(1, loss=0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def million() -> None:
    with Path(os.environ["PTYDASK_METRICS"]).open("w") as file:
        for step in range(1_000_000):
            file.write(f'{{"step": {step}, "loss": {1_000_000 - step}}}\n')


def rubbish() -> None:
    os.write(1, bytes(range(256)) * 10 + b"\n\x1b[31mRed\x1b[0m\r50%\r100%\n")
    with Path(os.environ["PTYDASK_METRICS"]).open("wb") as file:
        file.write(b'\x00\xff\n[1]\n{"loss": 0.5}\n{"loss": \n')


def closes() -> None:
    os.close(1)
    os.close(2)
    log(1, loss=0.5)
    time.sleep(0.3)
    log(2, loss=0.25)


def reads() -> None:
    log(1, loss=float(len(sys.stdin.read())))


def environment() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    said = {
        "environ": dict(os.environ),
        "cwd": str(Path.cwd()),
        "argv": sys.argv[2:],
        "blocked": [int(number) for number in blocked],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "group": os.getpgid(0) == os.getsid(0) == os.getpid(),
    }
    print(json.dumps(said))
    log(1, loss=0.5)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
