"""What the engine ``command`` decides and says: messages, limits, which program, which files. No program runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptydask.engines.command import folder, limits, log, messages, program, removal
from ptydask.engines.command.limits import ExceededLimit, TimeLimits
from ptydask.engines.command.process import ProgramExit
from ptydask.errors import ConfigError


def test_the_exception_is_found_wherever_it_is() -> None:
    """The last traceback's last line: before buffered output, in a group, of a rank, with a cause; else nothing."""
    heading = "Traceback (most recent call last):\n"
    where = '  File "x.py", line 1, in <module>\n    1/0\n    ~^~\n'
    assert log.find_exception(f"{heading}{where}ZeroDivisionError: division by zero\nbuffered\n") == (
        "ZeroDivisionError: division by zero"
    )
    first, second = f"{heading}{where}KeyError: 'a'\n", f"{heading}{where}torch.OutOfMemoryError: no memory\n"
    assert log.find_exception(first + "\nDuring handling ...:\n\n" + second) == "torch.OutOfMemoryError: no memory"
    ranked = "".join(f"[rank0]: {line}\n" for line in f"{heading}{where}ValueError: x".split("\n"))
    assert log.find_exception(ranked) == "ValueError: x"
    assert log.find_exception(f"{heading}{where}KeyboardInterrupt\n") == "KeyboardInterrupt"
    assert log.find_exception("Error: all is lost\n") == ""
    assert log.find_exception(f"{heading}{where}") == ""


# --- messages and limits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "text", "message"),
    [
        (
            ProgramExit(1, None, 12.3),
            "Traceback (most recent call last):\n  x\nZeroDivisionError: float division by zero\n",
            "train exited 1 after 12 s: ZeroDivisionError: float division by zero",
        ),
        (ProgramExit(1, None, 0.26), "", "train exited 1 after 0.3 s: it wrote nothing"),
        (ProgramExit(3, None, 4000.0), "so\nit ends\n", "train exited 3 after 1 h 7 min: it ends"),
        (
            ProgramExit(2, None, 3.0),
            "usage: train\ntrain: error: unrecognized arguments: --x\n",
            "train exited 2 after 3 s: the program rejected its arguments: train: error: unrecognized arguments: --x",
        ),
        (
            ProgramExit(2, None, 3.0),
            "usage: train\ntrain: error: argument --amp: ignored explicit argument 'False'\n",
            "train exited 2 after 3 s: the program rejected its arguments: train: error: argument --amp: "
            "ignored explicit argument 'False'; write ${args_no_boolean_flags} for ${args} in command: true is passed "
            "as --amp, false not at all",
        ),
        (
            ProgramExit(2, None, 3.0),
            "Traceback (most recent call last):\n  x\nValueError: y\n",
            "train exited 2 after 3 s: ValueError: y",
        ),
        (ProgramExit(None, 11, 5.0), "epoch 1\n", "train was ended by SIGSEGV after 5 s: epoch 1"),
        (
            ProgramExit(None, 9, 5.0),
            "",
            "train was ended by SIGKILL after 5 s; perhaps the machine ran out of memory",
        ),
        (
            ProgramExit(None, 9, 5.0, lost=True),
            "",
            "train was killed with the process that watches over it, after 5 s",
        ),
    ],
)
def test_the_message_of_a_bad_end(ended: ProgramExit, text: str, message: str) -> None:
    """Program, code or signal, seconds, and what it said last."""
    assert messages.ended_badly("train", ended, text) == message


FLAGS = {
    "argument --amp/--no-amp: ignored explicit argument 'True'": ("as --amp,", "tune no-amp"),
    "argument --amp, --no-amp: ignored explicit argument 'False'": ("as --amp,", "tune no-amp"),
    "argument -a/--use-amp/--no-use-amp: ignored explicit argument 'True'": ("as --use-amp,", "tune no-use-amp"),
    "argument --model.amp/--no-model.amp: ignored explicit argument 'True'": ("as --model.amp,", "tune no-model.amp"),
    "argument -a/--amp: ignored explicit argument 'True'": ("as --amp,", ""),
    "argument --amp: ignored explicit argument '3'": ("", ""),
    "argument --amp: expected one argument": ("", ""),
}


@pytest.mark.parametrize("said", FLAGS)
def test_the_hint_for_flags(said: str) -> None:
    """A flag is passed for true and not for false; one that is true by default has another flag for false."""
    message = messages.ended_badly("train", ProgramExit(2, None, 3.0), f"usage: train\ntrain: error: {said}\n")
    flag, other = FLAGS[said]
    assert flag in message
    assert ("args_no_boolean_flags" in message) is bool(flag)
    assert other in message
    assert ("tune no-" in message) is bool(other)


SERVER = {
    "a call of sweep": (
        "  File 't.py', line 9, in <module>\n    i = wandb.sweep(config, project='x')\n",
        "wandb.sweep",
    ),
    "a call of agent": ("  File 't.py', line 9\n    wandb.agent(i, function=train, count=3)\n", "wandb.agent"),
    "a login": ("  File 't.py', line 9\n    wandb.login()\n", "mode='online'"),
    "an online run": ("  File 't.py', line 9\n    run = wandb.init(mode='online')\n", "mode='online'"),
}


@pytest.mark.parametrize("what", SERVER)
def test_a_program_that_asks_the_server(what: str) -> None:
    """It is told what to do, not to log in."""
    line, words = SERVER[what]
    text = (
        f"Traceback (most recent call last):\n{line}wandb.errors.UsageError: No API key configured. Use `wandb login`\n"
    )
    message = messages.ended_badly("t.py", ProgramExit(1, None, 3.0), text)
    assert words in message.partition("; ")[2]
    assert ("engine.callable" in message) is what.startswith("a call")


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("wandb.agent(i, train)", "wandb.agent"),
        ("if x:\n    sweep_id = wandb.sweep(c)\n", "wandb.sweep"),
        ("# wandb.agent(i, train)", ""),
        ("wandb.init()\nagent(i)", ""),
        ("my_wandb.agent(i)", ""),
    ],
)
def test_an_agent_in_a_program(source: str, call: str) -> None:
    """It is noticed before anything runs."""
    notice = messages.agent_notice("t.py", source)
    assert call in notice
    assert bool(notice) is bool(call)


def test_the_messages_of_the_others() -> None:
    """No metric, NaN, silence."""
    assert messages.no_metric("train", "SSIM", ["SSIM_val", "PSNR"]) == (
        "train exited 0 but never logged 'SSIM'; it logged: SSIM_val, PSNR; did you mean 'SSIM_val'?"
    )
    nothing = (
        "train exited 0 but never logged {!r}; it logged nothing at all; log it with wandb, or with ptydask.report({})"
    )
    for name, call in (("SSIM", "step, SSIM=..."), ("val/loss", "..."), ("lambda", "..."), ("step", "...")):
        assert messages.no_metric("train", name, []) == nothing.format(name, call)
    many = messages.no_metric("train", "SSIM", [f"m{n}" for n in range(20)])
    assert many.endswith("m10, m11 and 8 more")
    assert messages.not_finite("train", "SSIM", float("nan"), "last") == (
        "train exited 0 but the last value that it logged of 'SSIM' is NaN"
    )
    assert messages.too_long("train", ExceededLimit("start_timeout", 600)) == (
        "train hung at its start: no output and no logged value for 10 min, and was stopped (engine.start_timeout)"
    )


def test_limits_are_kept_apart() -> None:
    """Silence at the start, silence later, and the whole time; each can be without a limit."""
    some = TimeLimits(start_timeout=10, idle_timeout=5, trial_timeout=100)
    assert limits.find_exceeded(some, 9.9, None) is None
    assert limits.find_exceeded(some, 10.1, None) == ExceededLimit("start_timeout", 10)
    assert limits.find_exceeded(some, 14.0, 9.0) is None
    assert limits.find_exceeded(some, 14.1, 9.0) == ExceededLimit("idle_timeout", 5)
    assert limits.find_exceeded(some, 100.1, 100.0) == ExceededLimit("trial_timeout", 100)
    assert limits.find_exceeded(TimeLimits(), 1e9, None) is None


# --- the program ----------------------------------------------------------------------------------


def test_where_a_program_is_found(tmp_path: Path) -> None:
    """In PATH, beside the interpreter, in the directory; a script by its interpreter; a module not at all."""
    script = tmp_path / "train.py"
    script.write_text("")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o700)
    environ = program.build_environment({"PATH": "/usr/bin:/bin"}, {})
    assert environ["PATH"].split(":")[-1] == str(Path(sys.executable).parent)

    def found(*argv: str, name: str | None = None) -> program.Program:
        return program.find(argv, tmp_path, environ, name)

    assert found("/usr/bin/env", sys.executable, "train.py", "--lr=1").file == script
    assert found(sys.executable, "-u", "train.py").name == "train.py"
    assert found("python3", "-m", "package.train", name="package.train").file is None
    assert found("tool").executable == str(tool)
    assert found("./tool").executable == str(tmp_path / "tool")
    assert found("sh", "-c", "exit").name == "sh"
    assert found("/usr/bin/env", "LR=1", "sh").name == "sh"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("ldctbench-trian",), "there is no such program"),
        (("/usr/bin/env", "ldctbench-train"), r"no such program; pip install 'ptydask\[ldct\]'"),
        (("/usr/bin/env", "train.py"), "there is no such program"),
        (("./nothing",), "there is no such file"),
        (("./train.py",), "cannot be executed; put"),
        (("./folder",), "is a folder, no program"),
        ((sys.executable, "other.py"), "there is no such file"),
        ((sys.executable, "folder"), "is a folder, no program"),
        (("/usr/bin/env",), "names no program"),
        ((), "is empty"),
    ],
)
def test_a_program_that_cannot_run_is_refused(tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    """Before any worker starts, by a line that names it."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=said):
        program.find(argv, tmp_path, {"PATH": "/usr/bin:/bin"}, None)


# --- the folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "pattern", "match"),
    [
        ("wandb/offline-run-1/files/a.pt", "wandb/offline-run-*/files/**", True),
        ("wandb/offline-run-1/files/sub/a.pt", "wandb/offline-run-*/files/**", True),
        ("wandb/offline-run-1/logs/a", "wandb/offline-run-*/files/**", False),
        ("a.pt", "**", True),
        ("a.pt", "**/*.pt", True),
        ("x/y/a.pt", "**/*.pt", True),
        ("x/a.pt", "*.pt", False),
        ("x/a.pt", "x/[ab].p?", True),
        ("x/a.PT", "x/*.pt", False),
    ],
)
def test_patterns(path: str, pattern: str, match: bool) -> None:
    """Part by part, ``**`` for any number of them."""
    assert folder.matches(path.split("/"), pattern.split("/")) == match


def test_few_sentences_for_many_files(tmp_path: Path) -> None:
    """What does not fit is named with its size, twenty of them."""
    for n in range(50):
        (tmp_path / f"{n:02d}").write_bytes(b"x" * (10 + n))
    kept = folder.collect_files(tmp_path, ["*"], 100)
    assert list(kept.artifacts) == [f"{n:02d}" for n in range(7)]
    assert kept.size <= 100
    said = kept.sentences()
    assert said[0] == "07: its 17 bytes are beyond the outputs_limit of 100 bytes for all files of a trial"
    assert (len(said), said[-1]) == (21, "23 more files were left out")


def test_files_that_the_program_did_not_write(tmp_path: Path) -> None:
    """They are not kept, however wide the pattern; others of that name further down are."""
    (tmp_path / "below").mkdir()
    for name in ("program.log", "below/program.log", "model.pt"):
        (tmp_path / name).write_text(name)
    kept = folder.collect_files(tmp_path, ["**"], 100, ("program.log",))
    assert sorted(kept.artifacts) == ["below/program.log", "model.pt"]


def test_a_folder_is_removed_whatever_is_in_it(tmp_path: Path) -> None:
    """Folders that nobody may write in or read; links go, what they lead to stays."""
    tmp_path.chmod(0o777)
    (tmp_path / "kept").write_text("kept")
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    deep = tmp_path / "own" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "link").symlink_to(outside)
    (deep / "other").symlink_to(tmp_path / "kept")
    root = os.geteuid() == 0
    for path in (deep, deep.parent, tmp_path / "own"):
        if root:  # whom no permission stops: somebody else removes it
            os.chown(path, 65534, 65534)
        path.chmod(0)
    source = Path(removal.__file__).read_text() + "\nimport sys\nsys.exit(not remove('own'))\n"
    python = ["/usr/bin/env", "python3", "-I", "-S", "-c", source]
    subprocess.run(python, cwd=tmp_path, check=True, **({"user": 65534} if root else {}))
    assert not (tmp_path / "own").exists()
    assert outside.stat().st_mode & 0o777 == 0o500
    assert (tmp_path / "kept").read_text() == "kept"
    assert removal.remove(tmp_path / "own"), "what is not there is gone"
