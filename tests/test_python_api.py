"""``ptydask.run`` and ``ptydask.validate``: what the command does, from a script and from a notebook."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptydask
from ptydask.errors import ConfigError, NoResults, PtydaskError, UnusableResults, UsageError
from ptydask.store import reader

Params = Callable[..., Path]

RUN = """
import ptydask
study = ptydask.run({params!r}, engine="toy", workers=1, cluster="local", results={results!r}, **{more!r})
print(len(study), study.best().number)
"""


def run_command(params: Path, results: Path, *more: str) -> None:
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--workers", "1"]
    subprocess.run([*command, "--cluster", "local", "--results", str(results), *more], check=True, timeout=120)


def contents(results: Path) -> dict[int, Mapping[str, Any]]:
    """All that a trial's numbers and arrays are, by trial; what differs from run to run (times, names) left out."""
    with reader.open(results) as study:
        return {
            record.number: {
                "state": record.state,
                "error": record.error,
                "params": dict(record.params),
                "metrics": dict(record.metrics),
                "origin": record.origin,
                "seed": record.seed,
                "curve": {name: list(values) for name, values in study.trial(record.number).curve.items()},
                "arrays": {name: array.read().tobytes() for name, array in study.trial(record.number).arrays.items()},
            }
            for record in study.records()
        }


def same_but_times(results: Path) -> dict[str, str]:
    with reader.open(results) as study:
        meta = study.meta
        return {
            "name": meta.name,
            "config": meta.config_json,
            "space": meta.search_space_json,
            "text": meta.config_text,
        }


@pytest.mark.slow
def test_a_script_gives_what_the_command_gives(toy_params: Params, tmp_path: Path) -> None:
    """Bit for bit, from a script without a guard around its main part; going on and finished studies too."""
    params = toy_params(n_trials=5, walk=True)
    command, script = tmp_path / "command.h5", tmp_path / "script.h5"
    run_command(params, command, "--trials", "3")
    run_command(params, command)
    source = tmp_path / "tune.py"
    source.write_text(RUN.format(params=str(params), results=str(script), more={"trials": 3, "progress": False}))
    first = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=120, check=True)
    assert first.stdout.split()[0] == "3"
    assert first.stderr == ""
    source.write_text(RUN.format(params=str(params), results=str(script), more={}))
    then = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=120, check=True)
    assert then.stdout.split()[0] == "5"
    assert "3 recorded already" in then.stderr
    assert contents(script) == contents(command)
    assert same_but_times(script) == same_but_times(command)
    again = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=120, check=True)
    assert "nothing left to do" in again.stderr
    assert again.stdout == then.stdout
    with reader.open(script) as study:
        assert study.meta.provenance["command"].startswith("ptydask.run(")


@pytest.mark.slow
def test_a_script_that_gets_sigterm_ends_by_it(toy_params: Params, tmp_path: Path) -> None:
    """As any process would, but with everything closed: the same call goes on to exactly its total."""
    params, results = toy_params(n_trials=200, sleep=0.02), tmp_path / "script.h5"
    source = tmp_path / "tune.py"
    source.write_text(RUN.format(params=str(params), results=str(results), more={}))
    process = subprocess.Popen([sys.executable, source], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "trial 3 " not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert "goes on from here" in err
    assert "Traceback" not in err
    done = RUN.format(params=str(params), results=str(results), more={"trials": 30, "timeout": 60.0})
    source.write_text(done)
    then = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=120, check=True)
    assert int(then.stdout.split()[0]) >= 30


IN_ONE_PROCESS = """
import asyncio, logging, multiprocessing, os, signal, sys, threading
import ptydask
from ptydask.errors import ConfigError, PtydaskError

NAMES = ("distributed", "asyncio", "tornado", "optuna")
def state():
    levels = [logging.getLogger(name).level for name in NAMES]
    main = sys.modules["__main__"]
    method = multiprocessing.get_start_method(allow_none=True)
    return dict(os.environ), method, levels, signal.getsignal(signal.SIGTERM), main.__spec__, main.__file__

def run(**more):
    return ptydask.run({params!r}, **{{"engine": "toy", "workers": 2, "cluster": "local", "results": "~/a.h5", **more}})

ptydask.run
before = state()
study = run(trials=2)
assert state() == before
try:
    run(results="~/b.h5", set={{"init_params.fail": 2.0}})
except PtydaskError as error:
    print("failed alike" in str(error))
assert state() == before
async def in_a_loop():
    return run(trials=3, progress=False)
assert len(asyncio.run(in_a_loop())) == 3 and len(study) == 2
runs = []
threads = [threading.Thread(target=lambda n=n: runs.append(run(results=f"~/t{{n}}.h5", trials=1))) for n in (1, 2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert [len(one) for one in runs] == [1, 1]
assert state() == before
sys.stderr = None
empty = run(results="~/c.h5", timeout=1e-9)
print(len(empty), empty.status.state)
assert state() == before
"""


def test_variables_that_imports_set_are_put_back(toy_params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """PtyRAD's own set one, for this process and all that it starts; one that the caller has set stays."""
    params = toy_params()

    def complete(*_: object) -> tuple[()]:
        os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "True")
        raise ConfigError("no")

    monkeypatch.setattr("ptydask.driver.stages.plan_stages", complete)
    for before in (None, "FALSE"):
        monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
        if before is not None:
            monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", before)
        with pytest.raises(ConfigError):
            ptydask.validate(params)
        assert os.environ.get("KMP_DUPLICATE_LIB_OK") == before


@pytest.mark.slow
def test_the_callers_process_is_left_as_it_was(toy_params: Params, tmp_path: Path) -> None:
    """Environment, log levels, handlers, main module; after runs that fail, in threads, in a loop, without stderr."""
    source, home = tmp_path / "tune.py", tmp_path / "home"
    home.mkdir()
    source.write_text(IN_ONE_PROCESS.format(params=str(toy_params(n_trials=4))))
    done = subprocess.run(
        [sys.executable, source], capture_output=True, text=True, timeout=200, env={**os.environ, "HOME": str(home)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "0", "finished"]
    assert {path.name for path in home.glob("*.h5")} == {"a.h5", "b.h5", "c.h5", "t1.h5", "t2.h5"}


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["lambda *_: (print('heard', flush=True), exit(7))", "signal.SIG_IGN"])
def test_sigterm_goes_to_the_handler_that_was_there(handler: str, toy_params: Params, tmp_path: Path) -> None:
    """Where it does not end the process, the call ends with StoppedEarly; nobody is deaf afterwards."""
    params, results = toy_params(n_trials=200, sleep=0.02), tmp_path / "script.h5"
    run = RUN.format(params=str(params), results=str(results), more={}).replace("\n", "\n    ")
    source = tmp_path / "tune.py"
    source.write_text(
        f"import signal\nsignal.signal(signal.SIGTERM, {handler})\nbefore = signal.getsignal(signal.SIGTERM)\n"
        f"try:{run}\nexcept Exception as error:\n"
        "    print(type(error).__name__, signal.getsignal(signal.SIGTERM) == before)\n"
    )
    process = subprocess.Popen([sys.executable, source], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "trial 3 " not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    out, _ = process.communicate(timeout=60)
    heard = "print" in handler
    assert (out.split(), process.returncode) == ((["heard"], 7) if heard else (["StoppedEarly", "True"], 0))


@pytest.mark.slow
def test_that_the_time_is_over_is_said_last(toy_params: Params, tmp_path: Path) -> None:
    """After the best trial and the results, by the command as well."""
    params = toy_params(n_trials=100, sleep=0.2)
    words = ["run", str(params), "--engine", "toy", "--workers", "1", "--cluster", "local", "--timeout", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "ptydask", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 75
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("the time is over")
    assert lines[-2].startswith("results ")
    assert lines[-3].startswith("best ")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a kernel with the environment of the tests."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_an_executed_notebook_gives_what_the_command_gives(toy_params: Params, tmp_path: Path) -> None:
    """Bit for bit; the progress is one output below the cell, as it was at the end."""
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    params = toy_params(n_trials=4, walk=True)
    command, results = tmp_path / "command.h5", tmp_path / "notebook.h5"
    run_command(params, command)
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(RUN.format(params=str(params), results=str(results), more={})),
            nbformat.v4.new_code_cell("study"),
            nbformat.v4.new_code_cell(
                "try:\n    ptydask.run('missing.yaml')\nexcept ptydask.errors.ConfigError as error:\n    print(error)"
            ),
        ]
    )
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert contents(results) == contents(command)
    shown = [output for output in book.cells[0].outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    page = shown[0].data["text/html"]
    assert "4/4 trials" in page
    assert "took" in page
    assert "study" in page
    assert re.search(r"toy", book.cells[1].outputs[0].data["text/html"])
    assert "missing.yaml" in book.cells[2].outputs[0].text
    assert not [output for cell in book.cells for output in cell.outputs if output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_interrupting_a_notebook_leaves_a_resumable_study(toy_params: Params, tmp_path: Path, kernel: Any) -> None:
    """The cell ends with KeyboardInterrupt, no worker is left, and the same cell goes on to exactly its total."""
    manager, client = kernel
    params, results = toy_params(n_trials=12, sleep=0.1), tmp_path / "notebook.h5"
    cell = RUN.format(params=str(params), results=str(results), more={})
    request = client.execute(cell)
    deadline = time.monotonic() + 60
    while not list(results.with_name("notebook.trials").glob("0*.h5")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=60)
    while reply["parent_header"]["msg_id"] != request:
        reply = client.get_shell_msg(timeout=60)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    with reader.open(results) as study:
        recorded = len(study.records())
        assert 0 < recorded < 12
    said: list[str] = []
    reply = client.execute_interactive(
        cell, timeout=120, output_hook=lambda message: said.append(str(message["content"].get("text", "")))
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    assert "".join(said).split()[0] == "12"


# --- arguments and errors ------------------------------------------------------------------------------


def test_validate_returns_the_plan(toy_params: Params) -> None:
    """With what the call says beside the file."""
    plan = ptydask.validate(
        toy_params(),
        engine="toy",
        trials=np.int64(7),  # type: ignore[arg-type]
        seed=np.arange(4)[3],
        timeout=np.float32(60),  # type: ignore[arg-type]
        set={"init_params.iterations": np.int64(9), "hypertune_params.tune_params.scale.kwargs.high": np.float64(1.5)},
        tries=[{"scale": np.float64(1.02), "rotation": -1}],
        results="elsewhere.h5",
    )
    assert plan.iterations == 9
    assert plan.space["scale"].high == 1.5  # type: ignore[union-attr]
    assert plan.budget.trials(5) == 7
    assert (plan.seed, plan.budget.timeout) == (3, 60.0)
    assert plan.results == Path("elsewhere.h5")
    assert dict(plan.points[0].params) == {"scale": 1.02, "rotation": -1}
    assert type(plan.config["init_params"]["iterations"]) is int


def test_what_is_said_beside_the_file_is_what_the_command_says(toy_params: Params) -> None:
    """The same plan from ``--set``, ``--try`` and the like, and from arguments."""
    from ptydask.cli import build_parser
    from ptydask.cli.run import _make_overrides
    from ptydask.driver.prepare import complete_plan

    params = toy_params()
    words = ["validate", str(params), "--engine", "toy", "--trials", "7", "--timeout", "60", "--seed", "3"]
    words += ["--set", "init_params.iterations=9", "--try", "scale=1.02 rotation=-1", "--sampler", "TPESampler"]
    from_command = complete_plan(params, _make_overrides(build_parser().parse_args(words)))
    from_python = ptydask.validate(
        params,
        engine="toy",
        trials=7,
        timeout=60,
        seed=3,
        set={"init_params.iterations": 9},
        tries=[{"scale": 1.02, "rotation": -1}],
        sampler="TPESampler",
    )
    assert from_python == from_command


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 2.0}, "workers"),
        ({"workers": True}, "workers"),
        ({"trials": -1}, "trials"),
        ({"trials": "7"}, "trials"),
        ({"adapt": (3, 2)}, "adapt"),
        ({"adapt": (0, 0)}, "adapt"),
        ({"adapt": 5}, "adapt"),
        ({"adapt": "0:3"}, "adapt"),
        ({"storage": Path("a.db")}, "storage"),
        ({"sampler": 5}, "sampler"),
        ({"tries": 5}, "tries"),
        ({"set": [("a", 1)]}, "set"),
        ({"set": {1: 2}}, "set"),
        ({"set": {"init_params..iterations": 2}}, "set"),
        ({"set": {"init_params": {1: 2}}}, "init_params"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"workers_per_gpu": 0}, "workers_per_gpu"),
        ({"retries": -1}, "retries"),
        ({"checkpoint_every": "often"}, "checkpoint_every"),
        ({"seed": -1}, "seed"),
        ({"tries": ["scale=1"]}, "tries"),
        ({"tries": [{}]}, "tries"),
        ({"tries": [{"scale": object()}]}, "tries.scale"),
        ({"tries": [{"scale": 3}]}, "scale"),
        ({"set": {"init_params.iterations": {1, 2}}}, "init_params.iterations"),
        ({"set": {"init_params.iterations.x": 1}, "engine": "toy"}, "init_params.iterations.x"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], key: str, toy_params: Params) -> None:
    """As ConfigError, before anything is started."""
    params = toy_params(iterations=3)
    with pytest.raises(ConfigError) as caught:
        ptydask.run(params, **{"engine": "toy", "progress": False, **arguments})
    assert key in caught.value.key
    assert not params.with_name("out").exists()


def test_errors_are_ptydasks_own(toy_params: Params, tmp_path: Path) -> None:
    """None is a SystemExit, and each is one line."""
    other = tmp_path / "other.h5"
    other.write_bytes(b"no HDF5 file")
    params = toy_params()
    cases: list[tuple[type[PtydaskError], Callable[[], object]]] = [
        (ConfigError, lambda: ptydask.run(tmp_path / "missing.yaml")),
        (UsageError, lambda: ptydask.run(params, engine="toy", cluster="nowhere", progress=False)),
        (UsageError, lambda: ptydask.run(params, engine="nothing", progress=False)),
        (UsageError, lambda: ptydask.run(params, engine="toy", workers=1, adapt=(0, 2), progress=False)),
        (UnusableResults, lambda: ptydask.run(params, engine="toy", cluster="local", results=other, progress=False)),
        (NoResults, lambda: ptydask.open(other)),
        (ConfigError, lambda: ptydask.validate(params, engine="toy", sampler="NoSampler")),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_package_itself_stays_light() -> None:
    """Programs import it to report: ``run`` comes in when it is asked for, and is seen by dir() before."""
    source = "import sys, ptydask; print('run' in dir(ptydask), 'optuna' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["True", "False", "False"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = ptydask.nothing


def test_progress_in_a_notebook_is_only_text() -> None:
    """Names from files are escaped, styles become CSS."""
    from ptydask.progress.notebook_view import in_notebook, lines_html

    page = lines_html([(("<b>", "bold green"), (" & ", "")), (("x", "dim"),)])
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "font-weight:bold" in page
    assert "<br>" in page
    assert not in_notebook()


@pytest.mark.parametrize(
    ("function", "heading"), [(ptydask.run, "What may be said"), (ptydask.confirm, "The best trials with other seeds")]
)
def test_every_argument_is_in_the_table_of_its_function(function: Callable[..., Any], heading: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    section = page.partition(f"## {heading}")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    _file, *keywords = inspect.signature(function).parameters
    assert named == set(keywords)
