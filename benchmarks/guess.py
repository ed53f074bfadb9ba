"""How near the guesses come to the truth, on twelve planted scans: a table, by method.

    python benchmarks/guess.py [SET ...]

Needs the extra ``guess``. A set's detector may be mirrored or on its side: rotation and flips are compared together,
as what they do to the patterns and the scan.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import yaml
from guess_sets import SETS, Flips, PlantedSet, write

from ptydask.guess.measuring import guess_params
from ptydask.guess.patterns import flip
from ptydask.guess.table import Guess

HEAD = (
    "set",
    "truth: flips, rotation, C10, C12",
    "method",
    "flips",
    "rotation",
    "off",
    "C10",
    "C12",
    "trust: rotation, C10",
    "why",
    "s",
)


def turn_off(planted: PlantedSet, flips: Flips, rotation: float) -> float | None:
    """By how many degrees flips and rotation together are off; None where the patterns stay mirrored."""
    apart = np.array([[1.0, 2.0], [3.0, 4.0]])
    wanted, given = flip(apart, planted.flips), flip(apart, flips)
    # Patterns that are a quarter (y, x) -> (-x, y) further are those of a scan whose rotation is 90 more.
    quarter = next((n for n in range(4) if np.array_equal(np.rot90(wanted, n), given)), None)
    if quarter is None:
        return None
    return (rotation - planted.rotation - 90 * quarter + 180) % 360 - 180


def rows(planted: PlantedSet, guesses: Sequence[Guess], seconds: float) -> list[tuple[str, ...]]:
    """Of the table, one for each method."""
    truth = f"{planted.flips}, {planted.rotation:g}, {planted.C10:g}, {planted.C12a:g} {planted.C12b:g}"
    lines = []
    for method in dict.fromkeys(one.method for one in guesses if one.parameter == "rotation"):
        of = {one.parameter: one for one in guesses if one.method == method}
        turn, flips = of["rotation"], of["meas_flipT"]
        off = None if turn.value is None or flips.value is None else turn_off(planted, flips.value, turn.value)
        wrong = "mirrored" if turn.counts else "refused"
        trust = ", ".join(of[name].trust for name in ("rotation", "C10") if name in of)
        astigmatism = " ".join(_text(of.get(name)) for name in ("C12a", "C12b"))
        lines.append(
            (
                *(planted.name, truth, method, str(flips.value), _text(turn)),
                *(wrong if off is None else f"{off:.1f}", _text(of.get("C10")), astigmatism, trust, turn.why),
                f"{seconds:.0f}",
            )
        )
    return lines


def _text(guess: Guess | None) -> str:
    if guess is None or guess.value is None or isinstance(guess.value, tuple):
        return "-"
    return f"{guess.value:.1f} +- {guess.deviation:.1f}"


def main(names: Sequence[str]) -> None:
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for planted in SETS:
        if names and planted.name not in names:
            continue
        init = yaml.safe_load(write(planted).read_text())["init_params"]
        start = time.perf_counter()
        guesses = guess_params(init, parallax=True).report.guesses
        for line in rows(planted, guesses, time.perf_counter() - start):
            print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET")
    main(parser.parse_args().names)
