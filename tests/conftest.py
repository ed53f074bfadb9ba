"""What several test modules share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import forked
import pytest
import yaml
from slurm_sandbox import slurm, slurm_sandbox  # noqa: F401

PLUGINS = Path(__file__).parent / "plugins"
GOLDEN = Path(__file__).parent / "fixtures" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/fixtures/golden/ as commands speak now")


@pytest.fixture(scope="session", autouse=True)
def toy_engine() -> Iterator[None]:
    """Installs the engine ``toy`` of tests/plugins as any other package would, for worker processes too."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *([before] if before else [])])
    sys.path.insert(0, str(PLUGINS))
    yield
    sys.path.remove(str(PLUGINS))
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Runs that the tests start hear Ctrl-C, also where the tests themselves were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def toy_params(tmp_path: Path) -> Callable[..., Path]:
    """Writes a params file for the engine ``toy``: ``toy_params(n_trials=8, sleep=0.1)``."""

    def write(n_trials: int = 6, name: str = "toy", hypertune: dict[str, object] | None = None, **toy: object) -> Path:
        params = {
            "init_params": toy,
            "hypertune_params": {
                "if_hypertune": True,
                "n_trials": n_trials,
                "study_name": name,
                "pruner_params": None,
                "sampler_params": {"name": "RandomSampler"},
                "tune_params": {
                    "scale": {
                        "state": True,
                        "suggest": "float",
                        "kwargs": {"low": 0.8, "high": 1.2, "step": 0.02},
                    },
                    "rotation": {"state": True, "suggest": "float", "kwargs": {"low": -4, "high": 4}},
                },
                **(hypertune or {}),
            },
            "recon_params": {"output_dir": str(tmp_path / "out")},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        return path

    return write


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Mapping[str, str]], None]:
    """Compares what a command prints, by its arguments, with the whole text in fixtures/golden/COMMAND.txt."""

    def check(command: str, said: Mapping[str, str]) -> None:
        text = "".join(f"$ ptydask {line}\n{printed}\n" for line, printed in said.items())
        text, file = text.replace(str(tmp_path), "FOLDER"), GOLDEN / f"{command}.txt"
        if request.config.getoption("--rewrite-golden"):
            file.write_text(text)
        assert text == file.read_text()

    return check


@pytest.fixture
def without_parallax(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where fast-acbf is not installed, whose guesses are tested in test_parallax.py."""
    from ptydask.guess import measuring

    monkeypatch.setattr(measuring, "has_parallax", lambda: False)


@pytest.fixture(scope="session")
def commands(toy_engine: None) -> Iterator[forked.Commands]:
    """Runs command lines in forked processes."""
    with forked.commands() as started:
        yield started


@pytest.fixture
def ptydask(
    tmp_path: Path, commands: forked.Commands, request: pytest.FixtureRequest
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a process of its own, in ``tmp_path``."""
    imports = forked.PTYRAD if request.node.get_closest_marker("ptyrad") else ()

    def call(
        *args: object, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return commands.run([*map(str, args)], tmp_path, os.environ if env is None else env, timeout, imports)

    return call
