"""PtyRAD imports beside a torch that torchvision was not built for, and without what it has no use for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptydask.engines.ptyrad import put_off

pytestmark = pytest.mark.ptyrad

IMPORT = "from ptydask.engines.ptyrad.torchvision_schema import make_importable as m; print(m(), m())"


def _fresh_python(code: str, *first_on_path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, first_on_path))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


@pytest.mark.slow
def test_ptyrads_blur_works_with_the_installed_torchvision() -> None:
    """After the import PtyRAD's only use of torchvision works, whether or not schemas had to be declared."""
    blur = "from torchvision.transforms.functional import gaussian_blur as g; import torch"
    done = _fresh_python(f"{IMPORT}\n{blur}\nprint(float(g(torch.ones(1, 9, 9), kernel_size=5).mean()))")
    assert done.stderr == ""
    declared, mean = done.stdout.splitlines()
    assert declared in ("True True", "False False")
    assert float(mean) == pytest.approx(1.0)


@pytest.mark.slow
def test_schemas_are_declared_only_where_the_import_fails(tmp_path: Path) -> None:
    """A torchvision that imports is left alone; one that fails for another reason fails as it did."""
    works, broken = tmp_path / "works", tmp_path / "broken"
    for folder, text in ((works, ""), (broken, "raise RuntimeError('compiled for another CUDA')")):
        (folder / "torchvision").mkdir(parents=True)
        (folder / "torchvision" / "__init__.py").write_text(text)
    left_alone = _fresh_python(f"{IMPORT}\nimport torch; print(hasattr(torch.ops.torchvision, 'nms'))", works)
    assert left_alone.stdout.splitlines() == ["False False", "False"]
    assert "compiled for another CUDA" in _fresh_python(IMPORT, broken).stderr


@pytest.mark.slow
def test_what_ptyrad_does_not_use_is_imported_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyplot is there for who draws with it, scikit-learn for compact batches; a cache for who compiles."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    code = """
import gc, sys
import ptydask.engines.ptyrad.imported
from ptydask.engines.ptyrad import put_off
heavy = {"sklearn", "pandas", "matplotlib.figure", "torch._inductor.cudagraph_trees"}
print(sorted(heavy & set(sys.modules)), gc.isenabled())
with put_off.without_clustering("random"):
    from sklearn.cluster import MiniBatchKMeans
print(MiniBatchKMeans, sorted(heavy & set(sys.modules)))
with put_off.without_clustering("compact"):
    from sklearn.cluster import MiniBatchKMeans
from ptyrad.solver.reconstruction import plt
import matplotlib.pyplot
print(MiniBatchKMeans.__name__, plt is matplotlib.pyplot, "figure" in vars(plt))
plt.close(plt.figure())
"""
    done = _fresh_python(code)
    assert done.stdout.splitlines() == ["[] True", "None []", "MiniBatchKMeans True False"], done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stays", ["chosen", "used"])
def test_a_cache_that_is_chosen_or_used_stays(stays: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptydask.engines.ptyrad import imported

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if stays == "used":
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        (tmp_path / "kernel.so").touch()
    with imported._without_empty_cache():
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert tmp_path.exists()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One that is put off; its first line of code is slow, and looks at itself."""
    (tmp_path / "drawing").mkdir()
    (tmp_path / "drawing" / "__init__.py").touch()
    code = "import time, drawing.plot\ntime.sleep(0.05)\nbackend = getattr(drawing.plot, 'backend', 'none')\n"
    (tmp_path / "drawing" / "plot.py").write_text(code + "def draw(): return backend\ndef close(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("drawing")
    put_off.put_off("drawing.plot")
    yield importlib.import_module("drawing.plot")
    for name in ("drawing", "drawing.plot"):
        sys.modules.pop(name, None)


def _executed(module: Any) -> bool:
    return "draw" in vars(module)


def test_importing_it_is_no_use(module: Any) -> None:
    """Nor is looking whether there is such a module, or for its file."""
    import drawing.plot
    from drawing import plot

    spec = importlib.util.find_spec("drawing.plot")
    assert spec is not None
    assert spec.origin == module.__file__
    assert drawing.plot is plot is module
    assert not _executed(module)


@pytest.mark.parametrize(
    "use",
    [
        lambda module: module.draw() == "none",
        lambda module: "draw" in dir(module),
        lambda module: hasattr(module, "draw") and not hasattr(module, "drew"),
        lambda module: pickle.loads(pickle.dumps(module.draw)) is module.draw,
        lambda module: importlib.reload(module).draw() == "none",
        lambda module: not exec("from drawing.plot import *; draw()", {}),
        lambda module: setattr(module, "close", len) or module.close(()) == 0,
        lambda module: len(set(ThreadPoolExecutor(8).map(lambda _: module.draw, range(8)))) == 1,
    ],
)
def test_using_it_executes_it_once(module: Any, use: Callable[[Any], bool]) -> None:
    """The module is the same one before and after, so that what is written into it stays there."""
    assert use(module)
    assert _executed(module)
    assert sys.modules["drawing.plot"] is module
    assert type(module) is ModuleType


def test_what_fails_is_tried_again(module: Any) -> None:
    """As an import statement would: the error is that of the module."""
    file = Path(module.__file__)
    code = file.read_text()
    file.write_text("raise OSError('no display')")
    for _ in range(2):
        with pytest.raises(OSError, match="no display"):
            module.draw()
    file.write_text(code)
    assert module.draw() == "none"
