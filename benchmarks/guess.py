"""How near the guesses come to the truth, on lists of twelve planted scans: a table, by method.

    python benchmarks/guess.py ["tuned" | "held out" | SET ...]

Needs the extra ``guess``. A set's detector may be mirrored or on its side: rotation and flips are compared together,
as what they do to the patterns and the scan.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import yaml
from guess_sets import LISTS, Flips, PlantedSet, write

from ptydask.guess.measuring import guess_params
from ptydask.guess.patterns import flip
from ptydask.guess.report import Report
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
    "trust",
    "verdict",
    "why",
)
NEAR = 2.0
"""Degree within which a rotation is right."""
CHOSEN = "chosen"


def turn_off(planted: PlantedSet, flips: Flips, rotation: float) -> float | None:
    """By how many degrees flips and rotation together are off; None where the patterns stay mirrored."""
    apart = np.array([[1.0, 2.0], [3.0, 4.0]])
    wanted, given = flip(apart, planted.flips), flip(apart, flips)
    # Patterns that are a quarter (y, x) -> (-x, y) further are those of a scan whose rotation is 90 more.
    quarter = next((n for n in range(4) if np.array_equal(np.rot90(wanted, n), given)), None)
    if quarter is None:
        return None
    return (rotation - planted.rotation - 90 * quarter + 180) % 360 - 180


def judge(planted: PlantedSet, of: Mapping[str, Guess]) -> tuple[float | None, str]:
    """By how many degrees the rotation is off, and in a word what it is worth: WRONG is off and yet trusted."""
    turn, flips, c10 = of.get("rotation"), of.get("meas_flipT"), of.get("C10")
    if turn is None or not isinstance(turn.value, float) or not turn.counts:
        return None, "refused"
    given = planted_flips(flips)
    off = turn_off(planted, given, turn.value)
    sign_wrong = c10 is not None and isinstance(c10.value, float) and c10.counts and c10.value * planted.C10 < 0
    if off is not None and abs(off) <= NEAR and not sign_wrong:
        return off, "right"
    trusted = turn.trust == "good" or (sign_wrong and c10 is not None and c10.trust == "good")
    return off, "WRONG" if trusted else "fair, but off"


def planted_flips(flips: Guess | None) -> Flips:
    """The guessed flips, or those of the file: none."""
    return flips.value if flips is not None and flips.counts and isinstance(flips.value, tuple) else (0, 0, 0)


def rows(planted: PlantedSet, report: Report) -> list[tuple[str, ...]]:
    """Of the table, one for each method, and one for what is chosen of them."""
    truth = f"{planted.flips}, {planted.rotation:g}, {planted.C10:g}, {planted.C12a:g} {planted.C12b:g}"
    methods = dict.fromkeys(one.method for one in report.guesses if one.parameter == "rotation")
    by_method = {name: {one.parameter: one for one in report.guesses if one.method == name} for name in methods}
    lines = []
    for method, of in {**by_method, CHOSEN: report.chosen()}.items():
        off, verdict = judge(planted, of)
        wrong = "mirrored" if verdict != "refused" else "-"
        trust = ", ".join(of[name].trust for name in ("rotation", "C10") if name in of)
        astigmatism = " ".join(_text(of.get(name)) for name in ("C12a", "C12b"))
        turn = of.get("rotation")
        lines.append(
            (
                *(planted.name, truth, method, str(planted_flips(of.get("meas_flipT"))), _text(turn)),
                *(wrong if off is None else f"{off:.1f}", _text(of.get("C10")), astigmatism, trust, verdict),
                turn.why if turn is not None else "",
            )
        )
    return lines


def _text(guess: Guess | None) -> str:
    if guess is None or guess.value is None or isinstance(guess.value, tuple):
        return "-"
    return f"{guess.value:.1f} +- {guess.deviation:.1f}"


def main(names: Sequence[str]) -> None:
    """Print the lists that are named, or the sets; all lists where none is."""
    for title, every in LISTS.items():
        sets = [one for one in every if not names or title in names or one.name in names]
        if not sets:
            continue
        print(f"\n{title}\n\n| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
        verdicts: dict[str, Counter[str]] = {}
        cpu = time.process_time()
        for planted in sets:
            init = yaml.safe_load(write(planted).read_text())["init_params"]
            for line in rows(planted, guess_params(init, parallax=True).report):
                verdicts.setdefault(line[2], Counter())[line[-2]] += 1
                print("| " + " | ".join(line) + " |", flush=True)
        print(f"\n{(time.process_time() - cpu) / len(sets):.0f} s of CPU each, with what had to be simulated")
        for method, counts in verdicts.items():
            print(f"{method}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="LIST or SET")
    main(parser.parse_args().names)
