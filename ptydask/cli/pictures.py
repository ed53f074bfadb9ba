"""``plot`` and ``montage``: a study as figures, and the images of its trials side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.analysis.figures import KINDS
from ptydask.cli import arguments, columns, formats, inspect
from ptydask.cli.where import select_where
from ptydask.errors import UsageError, nearest_hint
from ptydask.model import TrialRecord, TrialState

if TYPE_CHECKING:
    from ptydask.analysis.montage.sheet_layout import MontageSheet
    from ptydask.store.reader import Results

PICTURES = ("png", "svg", "pdf", "tif", "tiff", "jpg", "eps")
_DPI = arguments.number(20, 2400, "dots per inch, 20 to 2400")
_PART = arguments.number(0.01, 1, "a part of the image, 0.01 to 1")
_PICTURES, _STRIPS = 25, 1
"""Trials that are shown where nobody says how many: those of which each has many pictures are fewer."""
_IN_STRIP = 8
"""Pictures of a trial, for want of knowledge, where the pixels of all are shared out."""
_SHOWN = 20
"""As many trials that had to be left out are named one by one."""
_STATES = {TrialState.COMPLETE.word: TrialState.COMPLETE, TrialState.PRUNED.word: TrialState.PRUNED, "all": None}

_PLOT_EPILOG = (
    "kinds:\n"
    + "\n".join(f"  {kind:<11} {shows}" for kind, shows in KINDS.items())
    + """

Without KIND, all for which there are trials enough. The paths of what was written are on stdout."""
)
_MONTAGE_EPILOG = """\
what is shown:
  phase             of the scanned region, summed over depth, less its median (also: object)
  amplitude         of the object in that region, the mean over depth
  slices            the phase of every slice, a row a trial
  spectrum          the power spectrum of the phase, with rings in 1/angstrom and angstrom
  probe             its amplitude, all modes together, and the modes' shares
  modes             the amplitude of every probe mode with its share of the intensity, a row a trial
  probe-reciprocal  the probe in the plane of the aperture, with rings in mrad
  positions         arrows from the nominal positions to the refined ones
  difference        the phase less that of the first trial, after their shift and mean were taken out

All images have one scale, whatever their pixel size, and one colour scale. Each has its rank among the completed
trials, its error, and the parameters in which the trials differ. The path is on stdout.

examples:
  ptydask montage demo.h5 -k 12
  ptydask montage demo.h5 --sort rotation --where "scale > 1 and loss < 0.07"
  ptydask montage demo.h5 --trials 3,14,15 --what probe -o probes.pdf
  ptydask montage demo.h5 -k 1 --what slices
  ptydask montage demo.h5 --trials 14,3 --what difference
  ptydask montage demo.h5 --snapshots 14"""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add plot and montage to the command line; each sets ``handler(args) -> int``."""
    plot = arguments.add_command(subparsers, "plot", "draw figures of a study", more=_PLOT_EPILOG)
    plot.add_argument("kinds", nargs="*", metavar="KIND", help="which figures (default: all that can be drawn)")
    _add_output(plot, "a folder, or a file if one KIND is named (default: NAME-KIND.png beside FILE.h5)")
    plot.add_argument("--format", choices=PICTURES, help="of the files in a folder (default: png)")
    plot.add_argument("--params", type=_parse_names, metavar="A,B", help="only these parameters, in this order")
    plot.add_argument("--metric", metavar="NAME", help="by this metric, not by the one that was tuned: entropy")
    arguments.add_stage(plot, arguments.LAST_TUNED)
    plot.add_argument("--size", type=_parse_size, metavar="WxH", help="width and height, inches: 3.4x2.6")
    plot.set_defaults(handler=run_plot)

    montage = arguments.add_command(
        subparsers, "montage", "put the images of trials side by side", more=_MONTAGE_EPILOG
    )
    which = montage.add_argument_group("which trials")
    most = f"so many at most (default: {_PICTURES}; of slices and modes {_STRIPS})"
    which.add_argument("-k", type=arguments.parse_count, metavar="K", help=most)
    which.add_argument("--sort", default="error", metavar="BY", help="error (default, best first), number, a parameter")
    which.add_argument("--reverse", action="store_true", help="turn the order round")
    which.add_argument("--state", choices=_STATES, help="only trials that ended so (default: complete)")
    which.add_argument("--where", metavar="CONDITION", help='such as "scale < 1 and error < 0.02", as of ls')
    which.add_argument("--trials", type=_parse_numbers, metavar="N,N", help="these, in this order")
    which.add_argument(
        "--snapshots", type=arguments.natural, metavar="N", help="the snapshots of trial N, by iteration"
    )
    arguments.add_stage(montage)
    how = montage.add_argument_group("how they are shown")
    how.add_argument("--what", "--array", metavar="WHAT", default="phase", help="what is shown (default: phase)")
    how.add_argument("--crop", type=_PART, default=1.0, metavar="PART", help="the middle of each side: 0.5 is a half")
    how.add_argument("--scale", choices=("common", "each"), default="common", help="grey scale (default: common)")
    how.add_argument("--columns", type=arguments.parse_count, metavar="N", help="images in a row")
    _add_output(how, "the picture: png, tif, pdf, ... (default: NAME-montage.png beside FILE.h5)", "FILE")
    montage.set_defaults(handler=run_montage)


# --- plot --------------------------------------------------------------------------------------------


def run_plot(args: argparse.Namespace) -> int:
    """``ptydask plot``: 0; 1 where no figure can be drawn."""
    for kind in args.kinds:
        if kind not in KINDS:
            raise UsageError(f"there is no figure {kind!r}; {nearest_hint(kind, KINDS)}")
    kinds = list(dict.fromkeys(args.kinds))
    place = figure_destination(args, kinds)
    from ptydask.analysis import data, figures, forks, stages

    figures.need_matplotlib()
    with stages.open_tuned(args.file, args.stage) as results:
        study = data.load_study(results, curves=not kinds or "curves" in kinds, on_all_cores=True)
        if not args.stage and (not kinds or "history" in kinds):
            study = replace(study, stages=stages.load_stages(results, curves=False))
    study = study if args.metric is None else study.by_metric(args.metric)
    chosen = kinds or figures.drawable_kinds(study)
    if not chosen:
        formats.print_stderr(f"{args.file}: nothing to draw so far ({len(study.records)} trials recorded)")
        return 1

    def save_figure(index: int) -> Path:
        path = place(chosen[index])
        figure = figures.draw(chosen[index], study, parameters=args.params, size=args.size)
        figures.save(figure, path, dpi=args.dpi or 200)
        return path

    with forks.shared_with_forks(save_figure, len(chosen)) as saved:
        for path in saved():
            formats.print_text(f"{path}\n")
    return 0


def figure_destination(args: argparse.Namespace, kinds: Sequence[str]) -> Callable[[str], Path]:
    """The function from a kind to the path of its picture. Raises UsageError where ``--output`` cannot be meant."""
    output: Path | None = args.output

    def path_of(kind: str) -> Path:
        return arguments.path_beside_file(args, f"-{kind}.{args.format or 'png'}")

    if output is None:
        return path_of
    if output.suffix and not output.is_dir():
        _check_writable(output)
        if len(kinds) != 1:
            raise UsageError(f"-o {output}: a file holds one figure; name one KIND, or a folder")
        if args.format and output.suffix.lower() != f".{args.format}":
            raise UsageError(f"-o {output}: --format {args.format} says otherwise; give one of the two")
        return lambda _kind: output
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: there is a file of this name, and it is no picture")
    return lambda kind: output / path_of(kind).name


# --- montage -----------------------------------------------------------------------------------------


def run_montage(args: argparse.Namespace) -> int:
    """``ptydask montage``: 0; 1 where no trial has an image to show."""
    path: Path = args.output or arguments.path_beside_file(args, "-montage.png")
    _check_writable(path)
    _check_conflicts(args)
    from ptydask.analysis import figures
    from ptydask.analysis.montage import picture_kinds, sheet_layout, trial_images

    figures.need_matplotlib()
    args.what = picture_kinds.parse_kind(args.what)
    with inspect.open_results(args.file, args.stage) as results:
        why = trial_images.why_no_images(results)
        if why:
            formats.print_stderr(f"{args.file}: {why}")
            return 1
        sheet, title = _read_snapshots(results, args) if args.snapshots is not None else _read_sheet(results, args)
    for number, why in list(sheet.lost.items())[:_SHOWN]:
        formats.print_stderr(why if args.snapshots is not None else f"trial {number} left out: {why}")
    if len(sheet.lost) > _SHOWN:
        formats.print_stderr(f"and {len(sheet.lost) - _SHOWN} more")
    if not sheet.pictures:
        formats.print_stderr(f"{args.file}: no trial has {sheet_layout.missing_words(args.what)} to show")
        return 1
    common = args.scale == "common"
    figure = trial_images.draw_sheet(sheet, columns=args.columns, common=common, dpi=args.dpi, title=title)
    figures.save(figure, path, dpi=figure.dpi)
    formats.print_text(f"{path}\n")
    return 0


def _check_conflicts(args: argparse.Namespace) -> None:
    """Options that choose trials in ways that exclude each other."""
    if args.trials is not None and (args.where or args.sort != "error" or args.state or args.reverse):
        rule = "--trials names the trials and their order; --where, --sort, --state and --reverse do not go with it"
        raise UsageError(rule)
    if args.snapshots is not None and (args.trials is not None or args.where):
        raise UsageError("--snapshots is of one trial; --trials and --where do not go with it")


def _read_sheet(results: Results, args: argparse.Namespace) -> tuple[MontageSheet, str]:
    from ptydask.analysis.montage import picture_kinds, sheet_layout, trial_images

    look = picture_kinds.LOOKS[args.what]
    records = results.records()
    if args.trials is not None:
        chosen = _records_by_number(records, args.trials, args.file)
        title, most = "", len(args.trials)
    else:
        args.state = args.state or ("all" if "state" in (args.where or "") else "complete")
        state = _STATES[args.state]
        if args.where:
            confirmation = inspect.read_confirmation(results)
            hints = columns.absent_hints(results.meta.engine, args.file, confirmation)
            records = select_where(records, args.where, columns.more_columns(confirmation), hints)
        direction = results.meta.direction
        chosen = trial_images.ordered(records, sort=args.sort, direction=direction, state=state, reverse=args.reverse)
        most = args.k or (_STRIPS if look.strip else _PICTURES)
        if not chosen and args.where:
            which = "trial" if args.state == "all" else f"{args.state} trial"
            raise UsageError(f"--where {args.where!r} holds for no {which} of {args.file}")
        title = _sheet_title(args, min(most, len(chosen)), len(chosen))
    pictures = min(most, len(chosen)) * (_IN_STRIP if look.strip else 1)
    pixels = sheet_layout.cell_pixels(pictures, args.dpi, look.cell)
    sheet = trial_images.read(results, chosen, what=args.what, crop=args.crop, pixels=pixels, most=most)
    return sheet, title


def _sheet_title(args: argparse.Namespace, count: int, total: int) -> str:
    """``the best 12 of 40 complete trials``."""
    trial = "trial" if args.state == "all" else f"{args.state} trial"
    title = formatting.counted(total, trial)
    if count < total:
        title = f"{count} of {total} {trial}s"
        if args.sort == "error" and not args.reverse:
            title = f"the best {title}" if count > 1 else f"the best of {total} {trial}s"
    if args.sort != "error":
        title += f" by {args.sort}"
    return f"{title}, {args.where}" if args.where else title


def _read_snapshots(results: Results, args: argparse.Namespace) -> tuple[MontageSheet, str]:
    from ptydask.analysis.montage import sheet_layout, trial_images

    _records_by_number(results.records(), [args.snapshots], args.file)
    pixels = sheet_layout.cell_pixels(16, args.dpi)
    return trial_images.read_snapshots(results, args.snapshots, what=args.what, crop=args.crop, pixels=pixels), ""


def _records_by_number(records: Sequence[TrialRecord], numbers: Sequence[int], file: Path) -> list[TrialRecord]:
    """The records of these numbers. Raises UsageError for one that is not there."""
    by_number = {record.number: record for record in records}
    for number in numbers:
        if number not in by_number:
            span = f"its trials are {min(by_number)} to {max(by_number)}" if by_number else "it has none yet"
            raise UsageError(f"{file}: there is no trial {number}; {span}")
    return [by_number[number] for number in numbers]


# --- pieces ------------------------------------------------------------------------------------------


def _add_output(parser: Any, text: str, name: str = "PATH") -> None:
    parser.add_argument("-o", "--output", type=Path, metavar=name, help=text)
    parser.set_defaults(elsewhere=f"place with -o {name}")
    parser.add_argument("--dpi", type=_DPI, metavar="N", help="dots per inch")


def _check_writable(path: Path) -> None:
    """Raises UsageError for a name that is no picture's, so that nothing else is ever overwritten."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in PICTURES:
        reason = f"{path.suffix!r} is no kind of picture" if suffix else "the name of a picture ends in its kind"
        raise UsageError(f"-o {path}: {reason}; known: {', '.join(PICTURES)}")
    if path.is_dir():
        raise UsageError(f"-o {path}: this is a folder")


def _parse_names(text: str) -> list[str]:
    """``scale,rotation`` as a list, for argparse."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _parse_numbers(text: str) -> list[int]:
    """``3,14,15`` as a list, for argparse."""
    numbers = [arguments.digits(part) for part in _parse_names(text)]
    if not numbers or None in numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of trials' numbers, such as 3,14,15")
    return [number for number in dict.fromkeys(numbers) if number is not None]


def _parse_size(text: str) -> tuple[float, float]:
    """``3.4x2.6``: inches."""
    parts = text.lower().split("x")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and a height in inches, such as 3.4x2.6")
    width, height = map(arguments.number(1, 100, "a size in inches, 1 to 100"), parts)
    return width, height
