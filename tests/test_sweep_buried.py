"""Sweeps below a key, in a list or in a Python program: pointed at, whatever the file is given as."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptydask import config
from ptydask.errors import ConfigError

SWEEP = "method: random\nmetric: {name: loss}\nparameters: {lr: {min: 0, max: 1}}\n"


def indented(text: str, first: str = "    ") -> str:
    return first + "    ".join(text.splitlines(keepends=True))


FILES = {
    "below a key": ("a.yaml", f"sweep:\n{indented(SWEEP)}", "in sweep:"),
    "further down": ("a.yaml", f"wandb:\n  sweep_config:\n{indented(SWEEP)}", "in wandb.sweep_config:"),
    "beside a program": ("a.yaml", f"program: x.py\ncommand: [python]\nsweep:\n{indented(SWEEP)}", "in sweep:"),
    "in a list": ("a.yaml", indented(SWEEP, "  - "), "in [0]:"),
    "in a list below a key": ("a.yaml", f"sweeps:\n{indented(SWEEP, '  - ')}", "in sweeps[0]:"),
    "two of them": ("a.yaml", f"a:\n{indented(SWEEP)}b:\n{indented(SWEEP)}", "in a (and 1 more):"),
    "in JSON": ("a.json", '{"cfg": {"method": "grid", "parameters": {"x": {"values": [1]}}}}', "in cfg:"),
    "in a program": (
        "a.py",
        "import wandb\n\nconfig = {'method': 'random', 'parameters': {'lr': {'min': 0, 'max': 1}}}\n",
        "config in line 3",
    ),
    "in a program's call": (
        "a.py",
        "import wandb\nwandb.sweep({'method': 'grid',\n 'parameters': {}}, project='x')\n",
        "a dictionary in line 2",
    ),
    "in a program, spelled dict": ("a.py", "c = dict(method='grid', parameters=dict(x=1))", "c in line 1"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_buried_sweep_is_pointed_at(what: str, tmp_path: Path) -> None:
    """The hint says where it is; nothing is run."""
    name, text, words = FILES[what]
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / name)
    assert words in caught.value.hint
    assert "sweep" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: {parameters: 3}\nb: {method: x}\n"),
        ("a.yaml", "- 1\n- [2]\n"),
        ("a.py", "x = {'parameters': 1}\n"),
        ("a.py", "this is : no python"),
        ("a.py", ""),
    ],
)
def test_what_is_no_sweep_is_not(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / name)
    assert "is a sweep" not in caught.value.hint
    assert "there is a sweep" not in caught.value.hint
