"""``ls``, ``best`` and ``show``: trials of a results file, of a finished or a running study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask import formatting
from ptydask.analysis.gain import baseline_trial
from ptydask.cli import arguments, columns, formats, status, trial_argument, where
from ptydask.cli.formats import FORMATS, Table
from ptydask.errors import StoreError, UsageError
from ptydask.model import Direction, Optimum, TrialRecord, TrialState
from ptydask.ranking import best_of, in_order, metric_names, parameter_names, ranked, why_none_is_best
from ptydask.space.metrics import is_minor

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation
    from ptydask.store.reader import Results, TrialData

STATES = ("all", *(state.word for state in TrialState))

_LS_FORMATS = """\
formats:
  table  for a person: 6 significant digits, what fits the terminal; all columns in a pipe; of PtyRAD's
         metrics loss, contrast and held-out ones, and what --sort and --where name
  json   a list of objects: number, state, error, params, metrics, gradient, iterations,
         relative_decrease, attempt, seconds, reason, message, retry_of, origin, started, worker,
         host, job, device, seed; NaN is null; after ptydask confirm also confirmed: mean, sd, n;
         of a study with stages also stage
  csv    the same, one column per parameter, metric and slope: params.scale, metrics.loss, gradient.scale
  yaml   the same as json
json, csv and yaml keep every digit. Of a study with stages the table comes below a list of them."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ls, best, show and status to the command line; each sets ``handler(args) -> int``."""
    ls = _add_parser(subparsers, "ls", "list the trials of a results file", _LS_FORMATS)
    ls.add_argument("--sort", default="number", metavar="COLUMN", help=_SORT_HELP)
    ls.add_argument("--reverse", action="store_true", help="turn the order round")
    ls.add_argument("--state", choices=STATES, default="all", help="only trials that ended so")
    ls.add_argument("--where", metavar="CONDITION", help=_WHERE_HELP)
    ls.add_argument("--top", type=arguments.parse_count, metavar="K", help="only the first K")
    ls.set_defaults(handler=run_ls)

    best = _add_parser(subparsers, "best", "show the best trials of a results file", _BEST_FORMATS)
    best.add_argument("-k", type=arguments.parse_count, metavar="K", help="so many trials, best first (default: 1)")
    best.set_defaults(handler=run_best)

    show = _add_parser(subparsers, "show", "show everything about one trial", _SHOW_FORMATS)
    show.add_argument(
        "number", type=trial_argument.parse_trial, metavar="NUMBER|best", help="the trial's number, or best"
    )
    show.add_argument("--log", action="store_true", help="its whole log, as it was written, and nothing else")
    show.set_defaults(handler=run_show)

    status.add_parser(subparsers)


_SORT_HELP = (
    "number (default), error (best first), confirmed (the mean over other seeds, best first), confirmed.sd,"
    " confirmed.n, seconds, iterations, attempt, state, origin, started, worker, a parameter or a metric by its name"
    " (params.NAME, metrics.NAME where that is not clear), gradient.NAME; metrics of PtyRAD's trials come best first,"
    " what else there is smallest first, what has no value last"
)
_WHERE_HELP = (
    "only trials that fulfil it, for example 'scale > 1.02 and state == \"complete\"': columns as of --sort, also"
    " message, reason and device; ==, !=, <, <=, >, >=, in, and, or, not; null for what is not there; names with blanks"
    " or hyphens between backticks"
)
_BEST_FORMATS = """\
formats:
  table  for a person, with the gain over the file's own values, where the image is, and, where trials have
         slopes, where the optimum lies between the points that were tried
  yaml   the params file with the best trial's values put in place, ready for 'ptyrad run', and
         with what earlier stages found; of a sweep all parameters of its program, tuned or not
  json   as of 'ptydask ls', with 'optimum' and its 'deviation'; of a sweep with 'config': all parameters,
         tuned or not
  csv    as of 'ptydask ls'"""
_SHOW_FORMATS = """\
formats:
  table       for a person
  json, yaml  one object: what 'ls' prints, and traceback, curve, arrays, snapshots, attributes,
              log, command, artifacts, left_out; of a sweep 'config': all parameters, tuned or not
  csv         the curve, one line a step"""


# --- handlers ----------------------------------------------------------------------------------------


def run_ls(args: argparse.Namespace) -> int:
    """``ptydask ls``: 0, also where no trial is listed."""
    results = open_results(args.file, args.stage)
    records, direction, metric = results.records(), results.meta.direction, results.meta.metric
    stage = results.meta.stage
    confirmation = read_confirmation(results)
    more, hints = columns.more_columns(confirmation), columns.absent_hints(results.meta.engine, args.file, confirmation)
    meant, asked = records, [args.sort]
    if args.where is not None:
        meant = where.select_where(records, args.where, more, hints)
        asked += where.named_columns(records, args.where, more)
    order = {"sort": args.sort, "reverse": args.reverse, "direction": direction, "metric": metric}
    order |= {"engine": results.meta.engine, "hints": hints}
    chosen = select_trials(meant, state=args.state, top=args.top, confirmation=confirmation, **order)
    if args.format == "csv":
        formats.print_text(formats.trials_csv(chosen, confirmation, stage))
        return 0
    if args.format != "table":
        rows = [formats.trial_object(record, confirmation, stage) for record in chosen]
        formats.print_text(formats.object_text(rows, args.format))
        return 0
    formats.print_report(_stages_text(results))
    if not chosen:
        which = f" that are {args.state}" if records and args.state != "all" else ""
        which += f" where {args.where}" if records and args.where is not None else ""
        formats.print_stderr(f"{args.file}: no trials{which} so far")
        return 0
    from ptydask.analysis import sweep

    shown = {name.removeprefix("metrics.") for name in asked}
    hidden = {name for name in metric_names(records) if is_minor(name, results.meta.engine)} - shown
    best, error = best_of(records, direction), sweep.error_word(results.meta)
    table = ls_table(chosen, best, metric, error, confirmation, hidden, asked)
    left_out = formats.write_table(table, sys.stdout)
    if left_out:
        formats.print_stderr(f"no room for {', '.join(left_out)}: widen the window, or choose --format csv")
    return 0


def run_best(args: argparse.Namespace) -> int:
    """``ptydask best``: 0; 1 where no trial completed."""
    if args.format == "yaml" and (args.k or 1) > 1:
        raise UsageError(f"-k {args.k}: a params file holds one trial's values; choose --format json")
    results = open_results(args.file, args.stage)
    records, stage = results.records(), results.meta.stage
    chosen = ranked(records, results.meta.direction)[: args.k or 1]
    if not chosen:
        before = "" if results.lineage is None else results.lineage.from_stage
        formats.print_stderr(f"{args.file}: {why_none_is_best(results.meta.metric, len(records), before)}")
        return 1
    from ptydask.cli import describe

    confirmation = read_confirmation(results)
    other = describe.better_by_mean_text(confirmation, results)
    if other and args.format != "table":
        formats.print_stderr(other)
    if args.format == "yaml":
        formats.print_text(_params_file(results, chosen[0]))
    elif args.format == "table":
        own, optimum = baseline_trial(records), _locate_optimum(results, records)
        texts = [describe.best_text(results, record, own, optimum, confirmation) for record in chosen]
        formats.print_report("\n".join([*texts, *([f"{other}\n"] if other else [])]))
    elif args.format == "json":
        optimum = _locate_optimum(results, records)
        rows = [
            formats.trial_object(record, confirmation, stage)
            | describe.optimum_object(record, optimum, results.meta)
            | describe.lineage_object(results.meta)
            for record in chosen
        ]
        objects = [describe.with_config(results, record, row) for record, row in zip(chosen, rows, strict=True)]
        formats.print_text(formats.json_text(objects))
    else:
        formats.print_text(formats.trials_csv(chosen, confirmation, stage))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """``ptydask show``: 0; 1 for ``--log`` of a trial without one; UsageError for a number that is not there."""
    from ptydask.cli import describe

    if args.log and args.format != "table":
        raise UsageError(f"--log is the log as it was written; leave out --format {args.format}, or --log")
    results = open_results(args.file, args.stage)
    trial = trial_argument.read_trial(args.number, results)
    if args.log:
        return _write_log(trial)
    if args.format == "csv":
        formats.print_text(_curve_csv(trial))
        return 0
    confirmation = read_confirmation(results)
    if args.format == "table":
        look = {"terminal": sys.stdout.isatty(), "blocks": formatting.unicode_ready(sys.stdout)}
        formats.print_report(describe.show_text(results, trial, confirmation, **look))
    else:
        formats.print_text(formats.object_text(describe.show_object(results, trial, confirmation), args.format))
    return 0


# --- decisions ---------------------------------------------------------------------------------------


def select_trials(
    records: Sequence[TrialRecord],
    *,
    sort: str,
    reverse: bool = False,
    state: str = "all",
    top: int | None = None,
    direction: Direction = "minimize",
    metric: str = "",
    engine: str = "",
    confirmation: Confirmation | None = None,
    hints: Mapping[str, str] | None = None,
) -> list[TrialRecord]:
    """The trials that ended as ``state``, in order, the first ``top`` of them.

    What is known to be better where it is larger begins with the largest. What has no value in the column, or NaN,
    comes last in either order. Raises UsageError for a column that no trial has.
    """
    column = columns.column_of(records, sort, columns.more_columns(confirmation), hints)
    largest_first = columns.is_larger_better(records, sort, direction, metric, engine)
    ended = [record for record in records if state in ("all", record.state.word)]
    return in_order(ended, column, reverse=reverse != largest_first)[:top]


def ls_table(
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    metric: str,
    error: str = "error",
    confirmation: Confirmation | None = None,
    hidden: Collection[str] = (),
    asked: Collection[str] = (),
) -> Table:
    """One row a trial: number, state, error (the ``metric``), parameters, time, then what matters less.

    ``confirmed`` (mean over other seeds, standard deviation, number of repeats), ``attempt``, ``iterations``,
    ``origin`` and ``message`` have a column where they tell something; metrics that are ``hidden`` have none. Facts and
    slopes that are ``asked`` for have one.
    """
    params = parameter_names(records)
    metrics = [name for name in metric_names(records) if name != metric and name not in hidden]
    retried = any(record.attempt > 1 for record in records)
    with_messages = any(record.message for record in records) or "message" in asked
    counted = any(record.iterations is not None for record in records)
    several_origins = len({record.origin for record in records}) > 1 or "origin" in asked
    further = [name for name in dict.fromkeys(asked) if name in columns.ON_REQUEST or name.startswith("gradient.")]
    ranked_by = [error] if metric else []  # without a metric there is nothing in that column
    confirmed = _confirmed_texts(records, confirmation)
    ranked_by += [columns.CONFIRMED] if confirmed else []
    names = ["trial", "state", *ranked_by, *params, *(["attempt"] if retried else []), "time"]
    names += [*(["iterations"] if counted else []), *metrics, *further]
    numbers = frozenset(range(len(names))) - {names.index("state")}
    if several_origins:
        names.append("origin")
    if with_messages:
        names.append("message")
    rows, styles = [], []
    for record in records:
        cells = [str(record.number), formatting.state_text(record)]
        cells += [formatting.error_text(record.error)] if metric else []
        cells += [confirmed.get(record.number, formatting.NOTHING)] if confirmed else []
        for name in params:
            cells.append(formatting.value_text(record.params[name]) if name in record.params else formatting.NOTHING)
        if retried:
            cells.append(str(record.attempt))
        cells.append(formatting.duration_text(record.seconds))
        if counted:
            computed = record.iterations
            cells.append(formatting.NOTHING if computed is None else formatting.value_text(computed))
        cells += [formatting.error_text(record.metrics.get(name)) for name in metrics]
        cells += [columns.fact_text(record, name) for name in further]
        if several_origins:
            cells.append(formatting.printable_text(record.origin))
        if with_messages:
            cells.append(formatting.printable_text(record.message))
        rows.append(tuple(cells))
        is_best = best is not None and record.number == best.number
        styles.append("best" if is_best else record.state.word)
    return Table(tuple(map(formatting.printable_text, names)), tuple(rows), numbers, tuple(styles))


# --- pieces ------------------------------------------------------------------------------------------


def _confirmed_texts(records: Sequence[TrialRecord], confirmation: Confirmation | None) -> dict[int, str]:
    """Trial -> ``0.01234 +- 0.00012 (3)``, of those of the trials that were confirmed."""
    if confirmation is None:
        return {}
    texts = {record.number: confirmation.mean_text(record.number) for record in records}
    return {number: text for number, text in texts.items() if text}


def _add_parser(subparsers: arguments.Commands[Any], name: str, does: str, more: str) -> argparse.ArgumentParser:
    parser = arguments.add_command(subparsers, name, does, more=more)
    parser.add_argument("--format", choices=FORMATS, default="table", help="how to print (default: table)")
    arguments.add_stage(parser)
    return parser


def open_results(path: Path, stage: str = "") -> Results:
    """The results file at ``path``; of a study with stages the ``stage``, or the latest. Raises StoreError."""
    from ptydask.store import reader

    return reader.open(path, stage)


def _stages_text(results: Results) -> str:
    """Which stages there are, and the one whose trials follow; empty for a study without stages."""
    if results.meta.lineage is None:
        return ""
    from ptydask.analysis import stages

    lines = [*stages.read_stages(results).lines(), "", stages.stage_text(results.meta.lineage)]
    return "".join(f"{line}\n" for line in lines)


def read_confirmation(results: Results) -> Confirmation | None:
    """The study's confirmation; None without one, and where it cannot be read, which stderr says."""
    from ptydask.analysis.confirmation import Confirmation

    try:
        return Confirmation.of(results)
    except StoreError as error:
        formats.print_stderr(f"{error}")
        return None


def _locate_optimum(results: Results, records: Sequence[TrialRecord]) -> Optimum | None:
    """Where the optimum is by the slopes; None, and nothing is imported, where no trial has any."""
    if not any(record.gradient for record in records):
        return None
    from ptydask.analysis.optimum import locate_study_optimum

    return locate_study_optimum(records, results.meta)


def _params_file(results: Results, record: TrialRecord) -> str:
    """The study's params file with the trial's values; of a sweep all parameters, of other engines those tuned."""
    from ptydask.analysis.export import params

    exported = params.of_trial(results.meta, record, near=results.path, command=command_of(results, record))
    for note in exported.notes:
        formats.print_stderr(note)
    return exported.text


def command_of(results: Results, record: TrialRecord) -> str:
    """What the trial's program was started with; "" where none was, or its group is damaged."""
    try:
        return results.trial(record.number).command
    except StoreError:
        return ""


def _write_log(trial: TrialData) -> int:
    """The log to stdout; where that is a terminal, without what would move its cursor."""
    if not trial.log:
        formats.print_stderr(f"trial {trial.record.number} has no log")
        return 1
    text = trial.log
    if sys.stdout.isatty():
        text = "\n".join(map(formatting.inert_text, text.splitlines()))
    formats.print_text(text if text.endswith("\n") else f"{text}\n")
    return 0


def _curve_csv(trial: TrialData) -> str:
    columns = list(trial.curve)
    steps = zip(*(trial.curve[name].tolist() for name in columns), strict=True)
    return formats.csv_text(columns, (dict(zip(columns, row, strict=True)) for row in steps))
