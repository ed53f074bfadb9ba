"""The scripts in jobs/: what they say and do on machines without a usable Python, and after an interruption."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("bash", "basename", "cat", "cksum", "dirname", "env", "head", "mkdir", "mv", "rm", "tail", "touch")

# A Python that makes environments and "installs" by noting that it was asked to.
FAKE = """#!/usr/bin/env bash
here=$(cd -- "$(dirname -- "${{BASH_SOURCE[0]}}")" && pwd)
case "$*" in
    *version_info*) exit {too_old} ;;
    *"import ensurepip, venv"*) exit {no_venv} ;;
    --version) echo "Python 3.12.0" ;;
    "-m venv --clear "*) mkdir -p "$4/bin"; cat "$0" >"$4/bin/python"; chmod +x "$4/bin/python" ;;
    "-m pip --version") ;;
    "-m pip install "*) echo "$*" >>"$CALLS"; test ! -e "$CALLS.fail" ;;
    "-m ptydask "*) shift 2; echo "ptydask $*" >>"$CALLS" ;;
    *"/benchmarks/"*.py*) echo "$* threads=${{OMP_NUM_THREADS:-}}" >>"$CALLS" ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the parts of the repository that the scripts use, in a folder with a blank in its name."""
    tree = tmp_path / "a checkout"
    shutil.copytree(ROOT / "jobs", tree / "jobs")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tree)
    (tmp_path / "bin").mkdir()
    for tool in (*TOOLS, "chmod"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return tree


def fake_python(checkout: Path, name: str = "python3", *, too_old: int = 0, no_venv: int = 0) -> Path:
    path = checkout.parent / "bin" / name
    path.write_text(FAKE.format(too_old=too_old, no_venv=no_venv))
    path.chmod(0o755)
    return path


def demo(checkout: Path, cwd: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """jobs/demo.sh with nothing on PATH but the fakes and the tools."""
    return job("demo", checkout, cwd, *args, **env)


def job(script: str, checkout: Path, cwd: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(checkout.parent / "bin"), "CALLS": str(checkout.parent / "calls"), **env}
    command = [str(shutil.which("bash")), str(checkout / f"jobs/{script}.sh"), *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def calls(checkout: Path) -> list[str]:
    file = checkout.parent / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_no_python(checkout: Path) -> None:
    """Without a Python the script says what is needed, and makes nothing."""
    said = demo(checkout, checkout)
    assert said.returncode == 1
    assert "needs a Python >= 3.11" in said.stderr
    assert not (checkout / ".venv").exists()


def test_an_old_python_is_passed_over(checkout: Path) -> None:
    """A Python on PATH that is too old, or a shim that does not run, is not taken when another one will do."""
    fake_python(checkout, "python3.13", too_old=1)
    fake_python(checkout, "python3.11")
    said = demo(checkout, checkout)
    assert said.returncode == 0, said.stderr


def test_no_venv_module(checkout: Path) -> None:
    """A Python without venv (Debian) gives the package to install."""
    fake_python(checkout, no_venv=1)
    said = demo(checkout, checkout)
    assert said.returncode == 1
    assert "python3-venv" in said.stderr


def test_python_variable_is_honoured(checkout: Path) -> None:
    """PYTHON names the Python to use; one that will not do is an error, not passed over."""
    fake_python(checkout)
    mine = fake_python(checkout, "mypython")
    assert demo(checkout, checkout, PYTHON=str(mine)).returncode == 0
    shutil.rmtree(checkout / ".venv")
    said = demo(checkout, checkout, PYTHON="no-such-python")
    assert said.returncode == 1
    assert "PYTHON=no-such-python is not a Python >= 3.11" in said.stderr


def test_demo_from_another_folder(checkout: Path, tmp_path: Path) -> None:
    """From any folder: installs with the constraints, then demo, run, best, plot, report on the folder given."""
    fake_python(checkout)
    said = demo(checkout, tmp_path, "my data")
    assert said.returncode == 0, said.stderr
    install, *rest = calls(checkout)
    assert "-c constraints.txt -e .[ptyrad,analysis]" in install
    assert rest == [
        "ptydask demo my data",
        "ptydask run my data/params.yaml --cluster local --workers 2 --until-settled",
        "ptydask best my data/demo.h5",
        "ptydask plot my data/demo.h5 slopes",
        "ptydask report my data/demo.h5",
    ]


def test_installs_once(checkout: Path) -> None:
    """The second run installs nothing; changed constraints install again."""
    fake_python(checkout)
    demo(checkout, checkout)
    demo(checkout, checkout)
    assert sum("pip install" in call for call in calls(checkout)) == 1
    (checkout / "constraints.txt").write_text("numpy==2.0\n")
    demo(checkout, checkout)
    assert sum("pip install" in call for call in calls(checkout)) == 2


def test_extras_add_up(checkout: Path) -> None:
    """What was installed for one script is there for it after another one; new requirements begin anew."""
    fake_python(checkout)
    environment = {"PATH": str(checkout.parent / "bin"), "CALLS": str(checkout.parent / "calls")}

    def prepare(extras: str) -> int:
        command = f"set -euo pipefail; source jobs/environment.sh; prepare {extras}"
        bash = str(shutil.which("bash"))
        subprocess.run([bash, "-c", command], cwd=checkout, env=environment, capture_output=True, check=True)
        return sum("pip install" in call for call in calls(checkout))

    assert [prepare(extras) for extras in ("ptyrad,analysis", "ldct", "ptyrad,analysis", "ldct", "analysis,ldct")] == [
        *(1, 2, 2, 2, 2)
    ]
    assert prepare("ldct,gp") == 3
    (checkout / "constraints.txt").write_text("numpy==2.0\n")
    assert [prepare(extras) for extras in ("ldct", "ptyrad,analysis")] == [4, 5]


def test_interrupted_installation_is_taken_up_again(checkout: Path) -> None:
    """An installation that failed half-way does not count as done, and nothing runs on it."""
    fake_python(checkout)
    fails = checkout.parent / "calls.fail"
    fails.touch()
    assert demo(checkout, checkout).returncode != 0
    assert [call for call in calls(checkout) if call.startswith("ptydask")] == []
    fails.unlink()
    assert demo(checkout, checkout).returncode == 0
    assert sum("pip install" in call for call in calls(checkout)) == 2


def test_half_made_environment_is_made_anew(checkout: Path) -> None:
    """A .venv whose Python does not run is replaced."""
    fake_python(checkout)
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").write_text("#!/usr/bin/env bash\nexit 1\n")
    (checkout / ".venv/bin/python").chmod(0o755)
    said = demo(checkout, checkout)
    assert said.returncode == 0, said.stderr


def test_versions_that_cannot_be_installed(checkout: Path) -> None:
    """Each combination is tried although the one before failed, is told of in the table, and fails the script."""
    bins = checkout.parent / "bin"
    for tool in ("grep", "sed"):
        (bins / tool).symlink_to(shutil.which(tool) or tool)
    fake_python(checkout, "python3.11")
    (checkout.parent / "calls.fail").touch()
    environment = {"PATH": str(bins), "CALLS": str(checkout.parent / "calls"), "PYTHON312": "no-such-python"}
    command = [str(shutil.which("bash")), str(checkout / "jobs/test-versions.sh")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    table = [line.split() for line in said.stdout.splitlines() if line]
    assert [row[0] for row in table] == ["Python", "3.11", "3.11", "3.12", "3.12"]
    assert all(row[4:] == ["-"] * 4 for row in table[1:])
    assert said.stderr.count("no-such-python is no Python 3.12 that runs; set PYTHON312=") == 2
    installed = [re.search(r"-c (.+) -e ", call) for call in calls(checkout)]
    pins = [re.findall(r"^(?:optuna|h5py)==(.+)", Path(file[1]).read_text(), re.M) for file in installed if file]
    assert pins == [["3.16.0", "4.5.0"], ["3.15.1", "5.0.0"]]


@pytest.mark.parametrize(
    ("args", "program"),
    [
        ((), "page.py threads="),
        (("vs_ptyrad",), "vs_ptyrad.py threads="),
        (("orchestration", "--trials", "5"), "orchestration.py --trials 5 threads="),
        (("staged", "--write"), "staged.py --write threads=1"),
    ],
)
def test_bench_starts_the_program(checkout: Path, args: tuple[str, ...], program: str) -> None:
    """The one that is named, with its arguments, and without a name all of the page."""
    fake_python(checkout)
    said = job("bench", checkout, checkout, *args)
    assert said.returncode == 0, said.stderr
    assert calls(checkout)[-1] == f"{checkout}/benchmarks/{program}"


@pytest.mark.parametrize("name", ["no-such", "sections", "--trials", ""])
def test_bench_knows_its_programs(checkout: Path, name: str) -> None:
    """What is no benchmark starts nothing."""
    fake_python(checkout)
    said = job("bench", checkout, checkout, name)
    assert said.returncode == 2
    assert f"no benchmark is called {name};" in said.stderr
    assert {"vs_ptyrad,", "store,", "guess_large,", "upkeep"} <= set(said.stderr.split())
    assert calls(checkout) == []


def test_scripts_can_be_run() -> None:
    """Every script that a person or CI starts is executable."""
    names = ("demo", "ldct-demo", "test", "test-versions", "bench")
    scripts = [ROOT / ".ci/run", *(ROOT / "jobs" / f"{name}.sh" for name in names)]
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []
