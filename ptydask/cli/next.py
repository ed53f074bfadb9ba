"""``next``: what to do after a study, and the params file that does it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.cli import arguments, formats
from ptydask.errors import UsageError
from ptydask.ranking import why_none_is_best

if TYPE_CHECKING:
    from ptydask.analysis.advice import Advice
    from ptydask.store.reader import Results

_STDOUT = Path("-")
_EPILOG = """\
Advice comes from the results alone: ranges too narrow or too wide, steps too coarse or too fine, metrics that
disagree, trials too few or too short, parameters that make no difference, and what comes next in the order that
PtyRAD recommends: dz, scale with rotation, the whole affine, tilts. What the results cannot tell is not advised.
With -o: the params file that follows it, the best trial's values as the file's own, under a new study name.
Of a study with stages: of the last that tuned something, and the file has what all of them found.
json has for each piece of advice kind, parameter, text, tune (ranges), fix, settings, trials."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add next to the command line; it sets ``handler(args) -> int``."""
    parser = arguments.add_command(subparsers, "next", "say what to do after a study", more=_EPILOG)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="NEXT.yaml", help="write the params or sweep file, - for stdout"
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")
    arguments.add_stage(parser, arguments.LAST_TUNED)
    parser.set_defaults(handler=run_next)


def run_next(args: argparse.Namespace) -> int:
    """``ptydask next``: 0, also where there is nothing to advise; 1 where no new file follows from the advice."""
    from ptydask.analysis import advice, data, stages

    with stages.open_tuned(args.file, args.stage) as results:
        study = data.load_study(results, curves=False)
        facts = advice.gather_facts(study)
        given = advice.advise_by(facts)
        if args.format == "json":
            formats.print_text(formats.json_text(_study_object(study, given)))
        elif args.output != _STDOUT:
            _print_advice(args.file, study, given)
        return 0 if args.output is None else _write_params(args, results, facts, given)


def _study_object(study: Any, given: Sequence[Advice]) -> dict[str, Any]:
    return {
        "study": study.meta.name,
        **({"stage": stage} if (stage := study.meta.stage) else {}),
        "metric": study.meta.metric,
        "best": None if study.best is None else study.best.number,
        "advice": [_advice_object(one) for one in given],
    }


def _advice_object(advice: Advice) -> dict[str, Any]:
    """A piece of advice as plain values; a range by its own fields: low, high, step, log, or choices."""
    return {
        "kind": advice.kind.value,
        "parameter": advice.parameter,
        "text": advice.text,
        "tune": {name: asdict(dist) for name, dist in advice.tune.items()},
        "fix": list(advice.fix),
        "settings": dict(advice.settings),
        "trials": list(advice.trials),
    }


def _print_advice(file: Path, study: Any, given: Sequence[Advice]) -> None:
    """A paragraph for each piece."""
    best = study.best
    error = (
        "" if best is None else f", best {study.meta.metric} {formatting.error_text(best.error)} (trial {best.number})"
    )
    lines = [formatting.printable_text(f"{one.kind.value}: {one.text}") for one in given]
    nothing = "nothing in the results asks for a change"
    lines = lines or [nothing if study.meta.metric else why_none_is_best("", len(study.records))]
    stage = study.meta.stage
    of_stage = f"stage {formatting.printable_text(stage)}, " if stage else ""
    head = f"{file}: {of_stage}{formatting.counted(len(study.records), 'trial')}{error}"
    formats.print_report("".join(f"{line}\n" for line in (head, *lines)))


def _write_params(args: argparse.Namespace, results: Results, facts: Any, given: Sequence[Advice]) -> int:
    from ptydask.analysis import next_study, next_sweep, sweep
    from ptydask.analysis.export import place
    from ptydask.store import files

    meta = results.meta
    if meta.engine != "ptyrad" and not sweep.is_sweep(meta):
        raise UsageError(
            f"-o {args.output}: is for PtyRAD's params files and sweep files; this study ran {meta.engine}"
        )
    if args.output == _STDOUT and args.format == "json":
        raise UsageError("-o -: the params file takes stdout; leave out --format json")
    name = next_study.find_free_name(meta, results.path)
    following = next_study.plan_next_study(facts, given, name)
    if following is None:
        goes_on = ": the study's own goes on with more trials" if given else ""
        formats.print_stderr(f"{args.file}: no new file follows from that{goes_on}")
        return 1
    if sweep.is_sweep(meta):
        file = next_sweep.render_next_sweep(meta, facts, following, given)
    else:
        file = next_study.render_next_study(meta, following, given, near=results.path)
    if args.output == _STDOUT:
        formats.print_text(file.text)
    else:
        files.write_text(place.check_output_path(args.output, replace=args.force), file.text, durable=False)
        formats.print_stderr(f"now: ptydask run {formatting.shell_path(args.output)}")
    for note in file.notes:
        formats.print_stderr(note)
    return 0
