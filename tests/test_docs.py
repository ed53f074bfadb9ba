"""Every command and every snippet on the pages does what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest

from ptydask import demo

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/first-steps.md",
    "docs/guess.md",
    "docs/metrics.md",
    "docs/params-file.md",
    "docs/search.md",
    "docs/where-to-start.md",
    "docs/many-data-sets.md",
    "docs/stages.md",
    "docs/sweeps.md",
    "docs/clusters.md",
    "docs/scale.md",
    "docs/after-the-run.md",
    "docs/compare.md",
    "docs/confirm.md",
    "docs/python.md",
    "docs/own-metrics.md",
    "docs/fourier-ring.md",
]
STUDY = ["python -m ptydask run demo/params.yaml --workers 2 --trials 12"]
BEFORE = {
    "docs/after-the-run.md": STUDY,
    "docs/compare.md": STUDY,
    "docs/confirm.md": STUDY,
    "docs/metrics.md": ["python -m ptydask run demo/params.yaml --workers 2 --trials 4"],
    "docs/fourier-ring.md": ["python -m ptydask run demo/params.yaml --workers 2 --trials 2"],
}
"""What a page takes for granted."""
ELSEWHERE = ("./jobs/", "pip install", "source ", "ptyrad run", "silx ", "sbatch ")
"""Commands that the tests of the scripts run, that change the environment, or that are other people's."""

HEAVY = (*forked.PTYRAD, "pandas", "plotly.graph_objects")

pytestmark = [pytest.mark.ptyrad, pytest.mark.slow, pytest.mark.second]


def commands_of(page: str) -> list[str]:
    """The commands of a page's console blocks, continuation lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.removeprefix("$ ").split("  #")[0].strip() for line in lines if line.startswith("$ ")]
    return [command for command in found if not command.startswith(ELSEWHERE) and not _needs_a_cluster(command)]


def _needs_a_cluster(command: str) -> bool:
    """A run that would submit jobs, or look for somebody's scheduler: the tests on the SLURM sandbox have those."""
    where = re.search(r"--cluster (\S+)", command)
    return where is not None and where[1] not in ("auto", "local") and "--dry-run" not in command


def snippets(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def write_files(page: str, folder: Path) -> None:
    """The YAML blocks of a page that begin with a file's name, made small: two iterations, two trials.

    Those that a command on the page writes itself are left to it.
    """
    whole = (ROOT / page).read_text()
    for name, text in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", whole, re.DOTALL):
        if f"--write {name}" not in whole:
            (folder / name).write_text(re.sub(r"((?:iterations|trials): )\d+", r"\g<1>2", text))


def quick(text: str, output: Path | str, name: str) -> str:
    """The demo's params file made small: two iterations, one trial a worker."""
    text = re.sub(r"(NITER *: )\d+", r"\g<1>2", text)
    text = re.sub(r"(n_trials *: )\d+", r"\g<1>1", text)
    text = re.sub(r"(pruner_params *: ).*", r"\g<1>null", text)
    text = re.sub(r"(study_name *: ).*", rf"\g<1>{name}", text)
    return re.sub(r"(output_dir *: ).*", rf"\g<1>'{output}'", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the demo, and params.yaml for data of one's own."""
    params = demo.write(tmp_path / "demo")
    text = params.read_text()
    params.write_text(quick(text, tmp_path / "demo", "demo"))
    (tmp_path / "params.yaml").write_text(quick(text, "output", "tBL_WSe2"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


@pytest.fixture
def shell(folder: Path, commands: forked.Commands) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Gives a line to a shell; a command of ptydask that needs none of a shell's arts, to a forked process."""
    environ = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line, comments=True)
        if words[:3] == ["python", "-m", "ptydask"] and not re.search(r"[|&;<>$*`]", re.sub(r'"[^"$`]*"', "", line)):
            return commands.run(words[3:], folder, environ, 280, HEAVY)
        return subprocess.run(
            ["bash", "-ec", line], capture_output=True, text=True, cwd=folder, check=False, env=environ
        )

    return run


@pytest.mark.timeout(900)  # the longest page has sixty commands
@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_right(
    page: str, folder: Path, shell: Callable[[str], subprocess.CompletedProcess[str]], commands: forked.Commands
) -> None:
    """All commands in their order, then all snippets, in one working directory."""
    assert commands_of(page) or snippets(page), "nothing was found on the page"
    write_files(page, folder)
    for line in [*BEFORE.get(page, ()), *commands_of(page)]:
        done = shell(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for code in snippets(page):
        done = commands.run([], folder, imports=HEAVY, code=code)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_every_tunable_is_on_its_page() -> None:
    """docs/params-file.md lists each tunable with where it goes and its unit, as the code has them."""
    from ptydask.space.tunables import TUNABLES

    page = (ROOT / "docs" / "params-file.md").read_text()
    for tunable in TUNABLES.values():
        assert f"| `{tunable.name}` | `{tunable.where}` | {tunable.unit} | {tunable.meaning} |" in page


def test_every_command_is_documented() -> None:
    """README or a page names every command of the parser."""
    from ptydask.cli import build_parser

    text = "".join((ROOT / page).read_text() for page in PAGES)
    actions = [a for a in build_parser()._actions if a.choices]
    for name in actions[0].choices or ():
        assert re.search(rf"(ptydask|`)\s?{name}\b", text), name


def test_everything_of_a_sweep_is_on_its_page() -> None:
    """docs/sweeps.md names each top-level key, distribution, macro, setting and example, as the code has them."""
    from ptydask.config.sweep import distributions, engine_section, sweep_file
    from ptydask.engines.command import arguments

    page = (ROOT / "docs" / "sweeps.md").read_text()
    wanted = [f"`{key}`" for key in sweep_file.KEYS]
    wanted += [f"`{name}`" for name in distributions.FIELDS if name != "categorical_w_probabilities"]
    wanted += [f"`${{{macro}}}`" for macro in arguments.MACROS if macro != "args_dict"]  # W&B does not document it
    wanted += [f"\n  {setting}: " for setting in engine_section.DEFAULTS]
    wanted += [f"`{path.name}`" for path in (ROOT / "configs" / "sweeps").iterdir() if path.suffix]
    assert [word for word in wanted if word not in page] == []


def test_the_settings_on_the_page_are_valid() -> None:
    """The block with every setting of ``engine`` is accepted, and its defaults are those of the code."""
    import yaml

    from ptydask.config.sweep import engine_section

    page = (ROOT / "docs" / "sweeps.md").read_text()
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "outputs_limit" in text]
    made = engine_section.read_settings(yaml.safe_load(block), {}, {})
    changed = {name for name, value in made.items() if value != engine_section.DEFAULTS[name]}
    assert changed == {"outputs", "environment"}
