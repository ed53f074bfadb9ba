"""PtyRAD imports beside a torch that torchvision was not built for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


IMPORTED = """
import gc, sys
import ptydask.engines.ptyrad.imported
from importlib.util import find_spec
from ptydask.engines.ptyrad import put_off
heavy = {"sklearn", "pandas", "matplotlib.figure", "torch._inductor.cudagraph_trees"}
print(sorted(heavy & set(sys.modules)), gc.isenabled(), find_spec("matplotlib.pyplot").name)
with put_off.without_clustering("random"):
    from sklearn.cluster import MiniBatchKMeans
print(MiniBatchKMeans, sorted(heavy & set(sys.modules)))
with put_off.without_clustering("compact"):
    from sklearn.cluster import MiniBatchKMeans
from ptyrad.solver.reconstruction import plt
print(MiniBatchKMeans.__name__)
{use}
import matplotlib.pyplot
print(plt is matplotlib.pyplot, "subplots" in vars(plt), type(plt).__name__)
"""
USES_OF_PYPLOT = [
    "plt.subplots",
    "from matplotlib.pyplot import *; figure()",
    "plt.close = len; assert plt.figure() and plt.close([]) == 0",
    "from unittest.mock import patch\nwith patch('matplotlib.pyplot.figure'): plt.figure.return_value",
    "assert 'figure' in dir(plt)",
    """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as threads:
    assert len(set(threads.map(lambda name: getattr(plt, name), 8 * ['figure']))) == 1
try:
    plt.figur
except AttributeError as error:
    assert error.name == "figur"
""",
]


@pytest.mark.slow
@pytest.mark.parametrize("use", USES_OF_PYPLOT)
def test_what_ptyrad_does_not_use_is_imported_when_it_is_used(use: str) -> None:
    """scikit-learn is there for compact batches; pyplot for who draws with it, one module whatever is done first."""
    done = _fresh_python(IMPORTED.replace("{use}", use))
    expected = ["[] True matplotlib.pyplot", "None []", "MiniBatchKMeans", "True True module"]
    assert done.stdout.splitlines() == expected, done.stderr
