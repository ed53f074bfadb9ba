"""What the tests with ldct-benchmark share: its parser, its data, and an environment in which its programs run."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MENDED = ROOT / "jobs" / "torchvision_on_cpu"
SCRIPT = ROOT / "jobs" / "ldct_data.py"


def environment(data: Path | None = None) -> dict[str, str]:
    """The environment of a shell in which ldctbench's programs run: theirs on PATH, torchvision mended, offline."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join([str(MENDED), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = {**os.environ, "PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    return found if data is None else {**found, "LDCTBENCH_DATAFOLDER": str(data)}


def python(code: str, *args: object, cwd: Path, data: Path | None = None) -> str:
    """What a Python program that may import ldctbench prints; fails with what it said where it fails."""
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env=environment(data), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def parser() -> argparse.ArgumentParser:
    """The parser of ldctbench-train, made by its own file; the package around it would load torch and wandb."""
    package = importlib.util.find_spec("ldctbench")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "utils" / "argparser.py"
    spec = importlib.util.spec_from_file_location("ldctbench_argparser", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: argparse.ArgumentParser = module.make_parser()
    return made
