"""``demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ptydask.cli import arguments
from ptydask.formatting import shell_path


def add_parsers(commands: Any) -> None:
    """Add the command of this module."""
    demo = commands.add_parser(
        "demo",
        help="write a small synthetic data set and its params file",
        description="Write a small synthetic 4D-STEM data set with a known geometry, and a params file to find it.",
    )
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"), metavar="DIR", help="default: ./demo")
    demo.add_argument("--seed", type=arguments.natural, default=1, metavar="N", help="of the noise (default: 1)")
    demo.add_argument(
        "--geometry",
        metavar="'NAME=VALUE ...'",
        help="plant another truth, which the params file looks for: scale, asymmetry, rotation, shear, C10, tilt_y, "
        "tilt_x, dz",
    )
    demo.add_argument(
        "--slices",
        type=arguments.parse_count,
        metavar="N",
        help="layers of the specimen (default: 1; with a tilt or dz: 6)",
    )
    demo.add_argument(
        "--electrons",
        type=arguments.parse_count,
        metavar="N",
        help="in a pattern (default: 1000000)",
    )
    demo.set_defaults(handler=demo_command, elsewhere="folder: ptydask demo DIR")


def demo_command(args: argparse.Namespace) -> int:
    """``ptydask demo``."""
    from ptydask import demo
    from ptydask.demo import geometry

    planted = None if args.geometry is None else geometry.parse_geometry(args.geometry)
    params = demo.write(args.folder, args.seed, planted, args.slices, args.electrons)
    print(params)
    print(f"now: python -m ptydask run {shell_path(params)} --workers 2 --until-settled", file=sys.stderr)
    return 0
