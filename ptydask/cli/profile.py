"""``profile``: the profiles of clusters that come with ptydask, and the driver's job script."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ptydask.cli import arguments
from ptydask.errors import UsageError
from ptydask.formatting import shell_path

_EXAMPLES = """\
examples:
  ptydask profile                          what there is
  ptydask profile --write a100.yaml        a SLURM cluster with A100 GPUs; then: run ... --cluster a100.yaml
  ptydask profile mig --write site.yaml    MIG slices, in a file of another name
  ptydask profile --write driver.sbatch    the driver itself as a SLURM job
"""


def add_parsers(commands: Any) -> None:
    """Add profile to the command line."""
    does = "list the profiles of clusters to begin with, print one, or write it into a file"
    parser = arguments.add_command(commands, "profile", does, more=_EXAMPLES, file=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help="which (default: the one that FILE is called after)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it; a file that is there is left alone")
    parser.set_defaults(handler=profile_command)


def profile_command(args: argparse.Namespace) -> int:
    """``ptydask profile``."""
    from ptydask.clusters.jobqueue import starters

    path: Path | None = args.write
    if args.name is None and path is None:
        names = starters.starter_names()
        for name in names:
            print(f"{name:{max(map(len, names))}}  {starters.starter_about(name)}")
        print("write one with: ptydask profile --write a100.yaml", file=sys.stderr)
        return 0
    name = args.name or starters.name_of_file(path or Path())
    text = starters.starter_text(name)
    if path is None:
        print(text, end="")
        return 0
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            if text.startswith("#!"):
                os.fchmod(file.fileno(), 0o755)
    except FileExistsError:
        raise UsageError(f"{path} is there already; give another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    print(path)
    print(_next_step(shell_path(path), is_script=text.startswith("#!")), file=sys.stderr)
    return 0


def _next_step(file: str, *, is_script: bool) -> str:
    if is_script:
        return f"now: sbatch {file} params.yaml --cluster PROFILE.yaml"
    return f"now: set its queue and account, then: python -m ptydask run params.yaml --cluster {file} --dry-run"
