"""``export``: results in the formats of other programs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.cli import arguments, artifacts, formats, inspect, trial_argument
from ptydask.errors import StoreError, UsageError, nearest_hint
from ptydask.model import TrialRecord

if TYPE_CHECKING:
    from ptydask.store.reader import Results, TrialData

PARTS = ("image", "phase", "amplitude", "probe")
BITS = ("8", "16", "32", "raw")
_STDOUT = Path("-")

_EPILOG = """\
ptydask export FILE.h5 KIND --help says what a kind can do. The paths of what was written are on stdout.
A file that is there already is not replaced without --force; pictures and tables under the names that ptydask
chooses itself are."""

_TIFF_EPILOG = """\
parts:
  image      phase of the scanned region, summed over depth
  phase      phase of the whole object, a page for each slice
  amplitude  amplitude of the whole object, a page for each slice
  probe      amplitude of the probe, a page for each mode
Fiji and ImageJ show lengths in angstrom, greys in rad, and the trial's parameters with Image > Show Info."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add export to the command line; each of its kinds sets ``handler(args) -> int``."""
    does = "write tables, pictures, params files, programs' files and PtyRAD's model files of trials"
    parser = arguments.add_command(subparsers, "export", does, more=_EPILOG)
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)

    for name, more in (("csv", ", as of 'ptydask ls --format csv'"), ("parquet", ", a type for each column")):
        table = _add_kind(kinds, name, f"the table of trials{more}", run_table, f"NAME.{name}")
        _add_selection(table, "all")
        table.add_argument(
            "--curves", action="store_true", help="every iteration of the trials instead: trial, step, ..."
        )
        table.set_defaults(format=name)

    tiff = _add_kind(
        kinds, "tiff", "pictures of object and probe, calibrated", run_tiff, "the folder NAME-tiff", _TIFF_EPILOG
    )
    _add_selection(tiff, "the best one")
    tiff.add_argument("--parts", type=_subset_parser(PARTS), metavar="A,B", help="which parts (default: all)")
    tiff.add_argument("--bits", type=_subset_parser(BITS), metavar="A,B", help="8, raw (default: 8,raw)")
    tiff.add_argument("--ptyrad-names", action="store_true", help="the files that PtyRAD itself would have left")

    params = _add_kind(
        kinds,
        "params",
        "the params file with a trial's values, for 'ptyrad run'; of a sweep all parameters",
        run_params,
        "NAME-trial12.yaml",
    )
    model = _add_kind(kinds, "model", "PtyRAD's model file of a trial", run_model, "NAME-trial12.hdf5")
    does = "a folder with a model file and the params file that goes on from it with 'ptyrad run'"
    resume = _add_kind(kinds, "resume", does, run_resume, "the folder NAME-trial12-resume")
    for kind in (params, model, resume):
        trial_argument.add_option(kind)
    params.add_argument(
        "--iterations", type=_parse_iterations, metavar="N|own", help="NITER: a number, or as many as the trial did"
    )
    resume.add_argument(
        "--iterations", type=arguments.parse_count, metavar="N", help="so many more (default: what is left)"
    )
    artifacts.add_kinds(kinds)


# --- handlers ----------------------------------------------------------------------------------------


def run_table(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 csv|parquet``: 0."""
    from ptydask.analysis import data as study
    from ptydask.analysis.export import table

    with inspect.open_results(args.file, args.stage) as results:
        data = study.load_study(results, curves=args.curves, on_all_cores=True)
        if args.top or args.trial:
            data = table.select_trials(data, [record.number for record in _choose_trials(args, results)])
    path = _output_path(args, "-curves" if args.curves else "", f".{args.format}", ours=True, text=args.format == "csv")
    if args.format == "parquet" and args.curves:
        table.write_curves(path, data)
    elif args.format == "parquet":
        table.write(path, data)
    elif args.curves:
        _write_text(path, formats.csv_text(table.curve_columns(data.curves), table.curve_rows(data.curves)))
    else:
        _write_text(path, formats.trials_csv(data.records, data.confirmation, data.meta.stage))
    _print_path(path)
    return 0


def run_tiff(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 tiff``: 0; 1 where no trial has a picture."""
    from ptydask.analysis.export import place, tiff

    _check_tiff(args)
    folder = args.out or arguments.path_beside_file(args, "-tiff")
    written, without = 0, []
    with inspect.open_results(args.file, args.stage) as results:
        _require_ptyrad(results, "tiff")
        for record in _choose_trials(args, results):
            try:
                trial = results.trial(record.number)
                pictures = _trial_pictures(args, results, trial)
            except StoreError as error:
                without.append(str(error))
                continue
            place.ensure_folder(folder)
            for picture in pictures:
                path = folder / picture.picture.name
                place.check_output_path(path, replace=args.force or args.out is None or tiff.is_ours(path))
                tiff.write(path, picture, results.meta, trial)
                _print_path(path)
                written += 1
    _print_notes(without)
    return 0 if written else 1


def run_params(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 params``: 0."""
    from ptydask.analysis.export import model, params

    with inspect.open_results(args.file, args.stage) as results:
        record = trial_argument.find_trial(args.trial, results)
        own = args.iterations == "own"
        steps = model.count_iterations(results.trial(record.number)) if own else args.iterations
        if own and not steps:
            raise UsageError(f"--iterations own: trial {record.number} did no iteration")
        exported = params.of_trial(
            results.meta, record, near=results.path, steps=steps, command=inspect.command_of(results, record)
        )
    path = _output_path(args, f"-trial{record.number}", ".yaml", ours=False, text=True)
    _write_text(path, exported.text)
    _print_path(path)
    _print_notes(exported.notes)
    return 0


def run_model(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 model``: 0."""
    from ptydask.analysis.export import model

    with inspect.open_results(args.file, args.stage) as results:
        _require_ptyrad(results, "model")
        trial = trial_argument.read_trial(args.trial, results)
        model.check_exportable(results.meta, trial)
        path = _output_path(args, f"-trial{trial.record.number}", ".hdf5", ours=True)
        if path.suffix.lower() not in (".hdf5", ".h5"):
            raise UsageError(f"{path}: PtyRAD tells a model file by its name, which has to end in .hdf5")
        derived = model.write(path, results.meta, trial)
    _print_path(path)
    _print_notes(f"not kept by this trial, derived: {line}" for line in derived)
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """``ptydask export FILE.h5 resume``: 0."""
    from ptydask.analysis.export import model, params, place

    with inspect.open_results(args.file, args.stage) as results:
        _require_ptyrad(results, "resume")
        trial = trial_argument.read_trial(args.trial, results)
        model.check_exportable(results.meta, trial)
        folder = place.ensure_folder(
            args.out or arguments.path_beside_file(args, f"-trial{trial.record.number}-resume")
        )
        done = model.kept_iteration(trial)
        hdf5 = place.check_output_path(folder / f"model_iter{done:04d}.hdf5", replace=args.force)
        yaml = place.check_output_path(folder / "params.yaml", replace=args.force)
        exported = params.resume_params(results.meta, trial, hdf5, near=results.path, done=done, steps=args.iterations)
        derived = model.write(hdf5, results.meta, trial)
    _write_text(yaml, exported.text)
    _print_path(hdf5)
    _print_path(yaml)
    _print_notes(exported.notes)
    _print_notes(f"not kept by this trial, derived: {line}" for line in derived)
    formats.print_stderr(f"to go on: ptyrad run {formatting.shell_path(yaml)}")
    return 0


# --- which trials -------------------------------------------------------------------------------------


def _choose_trials(args: argparse.Namespace, results: Results) -> list[TrialRecord]:
    """The trials that --trial, --top or --all name; the best one where none does."""
    if args.all:
        return results.records()
    if args.top:
        return trial_argument.completed_trials(results)[: args.top]
    chosen = [trial_argument.find_trial(trial, results) for trial in args.trial or ["best"]]
    return list({record.number: record for record in chosen}.values())


def _require_ptyrad(results: Results, kind: str) -> None:
    """Raises StoreError for a sweep: what PtyRAD makes of a trial, its program does not."""
    from ptydask.analysis import sweep

    if sweep.is_sweep(results.meta):
        program = formatting.printable_text(sweep.program(results.meta)) or "another program"
        raise StoreError(
            f"{results.path}: 'export {kind}' is of PtyRAD's reconstructions, and this study ran {program}; "
            "'export run' and 'export artifacts' write the files that it left"
        )


def _trial_pictures(args: argparse.Namespace, results: Results, trial: TrialData) -> Sequence[Any]:
    from ptydask.analysis.export import tiff

    if args.ptyrad_names:
        return tiff.as_ptyrad(results.meta, trial, args.bits)
    return tiff.of_trial(results.meta, trial, args.parts or PARTS, args.bits or ("8", "raw"))


def _check_tiff(args: argparse.Namespace) -> None:
    if args.ptyrad_names and args.parts:
        raise UsageError("--parts: with --ptyrad-names the params file says which (save_result, result_modes)")
    if not args.ptyrad_names and set(args.bits or ()) & {"16", "32"}:
        raise UsageError("--bits 16 and 32 are PtyRAD's: give --ptyrad-names with them")


# --- where it goes ------------------------------------------------------------------------------------


def _output_path(args: argparse.Namespace, tag: str, suffix: str, *, ours: bool, text: bool = False) -> Path:
    """The file to write, or ``-`` for stdout. ``ours``: one under our own name may be replaced."""
    from ptydask.analysis.export import place

    if args.out == _STDOUT:
        if not text:
            raise UsageError("-: this is no text; give the name of a file")
        return _STDOUT
    if args.out is None:
        return place.check_output_path(arguments.path_beside_file(args, tag + suffix), replace=args.force or ours)
    return place.check_output_path(args.out, replace=args.force)


def _write_text(path: Path, text: str) -> None:
    if path == _STDOUT:
        formats.print_text(text)
        return
    from ptydask.store import files

    files.write_text(path, text, durable=False)


def _print_path(path: Path) -> None:
    if path != _STDOUT:
        formats.print_text(f"{path}\n")


def _print_notes(lines: Iterable[str]) -> None:
    for line in lines:
        formats.print_stderr(line)


# --- pieces -------------------------------------------------------------------------------------------


def _add_kind(
    kinds: argparse._SubParsersAction[Any],
    name: str,
    does: str,
    handler: Callable[[argparse.Namespace], int],
    default: str,
    epilog: str = "",
) -> argparse.ArgumentParser:
    parser = arguments.add_command(kinds, name, does, more=epilog, file=False)
    text = ", - for stdout" if name in ("csv", "params") else ""
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="OUT", help=f"where to (default: {default}, beside FILE.h5{text})"
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    arguments.add_stage(parser)
    parser.set_defaults(handler=handler, elsewhere=f"place: ptydask export FILE.h5 {name} OUT")
    return parser


def _add_selection(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--trial",
        type=trial_argument.parse_trial,
        action="append",
        metavar="N|best",
        help=f"this trial; may be given several times (default: {default})",
    )
    group.add_argument("--top", type=arguments.parse_count, metavar="K", help="the K best")
    group.add_argument("--all", action="store_true", help="every trial")


def _subset_parser(words: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Some of ``words``, with commas between them, for argparse."""

    def some(text: str) -> tuple[str, ...]:
        chosen = tuple(word.strip() for word in text.split(","))
        for word in chosen:
            if word not in words:
                raise argparse.ArgumentTypeError(f"{word!r}: {nearest_hint(word, words)}")
        return chosen

    return some


def _parse_iterations(text: str) -> int | str:
    """A count of iterations, or ``own``, for argparse."""
    return text if text == "own" else arguments.parse_count(text)
