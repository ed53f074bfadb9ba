"""Every tunable, alone, in a real reconstruction: it runs, and it makes a difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import engine_cases as cases
import pytest

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import Scalar
from ptydask.space.tunables import PARAMETERS

pytestmark = pytest.mark.ptyrad

CHANGES: dict[str, Any] = {
    "init_params.obj_Nlayer": 2,
    "model_params.update_params.obj_tilts": {"start_iter": 1, "lr": 1e-4},
    "model_params.update_params.slice_thickness": {"start_iter": 1, "lr": 1e-4},
}
VALUES: dict[str, Scalar] = {
    "optimizer": "SGD",
    "batch_size": 8,
    "plr": 1e-2,
    "oalr": 1e-2,
    "oplr": 1e-2,
    "slr": 1e-2,
    "tlr": 10.0,
    "dzlr": 1e-1,
    "dx": 0.24,
    "pmode_max": 1,
    "conv_angle": 22.0,
    "C10": 30.0,
    "z_shift": 40.0,
    "Nlayer": 3,
    "dz": 9.0,
    "scale": 1.1,
    "asymmetry": 0.1,
    "rotation": 3.0,
    "shear": 4.0,
    "tilt_y": 20.0,
    "tilt_x": -20.0,
    **{name: 200.0 for name in PARAMETERS if name.startswith(("C12", "C2"))},
    **{name: 2e4 for name in PARAMETERS if name.startswith("C3")},
    **{name: 1e6 for name in PARAMETERS if name.startswith("C4")},
    **{name: 5e7 for name in PARAMETERS if name.startswith("C5")},
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PtyradSession]:
    release.installed()
    data = cases.write_patterns(tmp_path_factory.mktemp("data"))
    opened = PtyradSession(cases.plan(cases.params(data, CHANGES)), cases.SLOT)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def untuned(session: PtyradSession) -> list[float]:
    """The loss of every iteration with the file's own values."""
    return list(session.run(cases.trial(), cases.go_on, cases.NEVER).curve["loss"])


def test_the_list_is_complete() -> None:
    """No tunable is left out here."""
    assert set(VALUES) == set(PARAMETERS)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_it_makes_a_difference(name: str, session: PtyradSession, untuned: list[float]) -> None:
    """With another value of this one parameter the loss becomes another one."""
    losses = list(session.run(cases.trial({name: VALUES[name]}), cases.go_on, cases.NEVER).curve["loss"])
    assert len(losses) == len(untuned) == 3
    assert losses != untuned
