"""A trial in the middle as bytes, and when a lost attempt counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ptydask.store import checkpoints
from ptydask.trial import checkpoint
from ptydask.trial.checkpoint import CheckpointData, StepReport

SAVED = CheckpointData(
    7,
    {"scale": 0.98, "kind": "a\nb", "n": 3},
    (StepReport(1, {"loss": 0.5}), StepReport(7, {"loss": 0.25}, {"scale": -0.125, "n": 1e-300})),
    12.5,
    b"\n\x00state\n",
)


def test_pack_and_unpack() -> None:
    """Everything comes back, line ends in values and state included."""
    assert checkpoint.unpack(checkpoint.pack(SAVED)) == SAVED


def test_numbers_that_json_does_not_have() -> None:
    """A loss of NaN or infinity survives."""
    saved = CheckpointData(2, {}, (StepReport(1, {"loss": math.inf}), StepReport(2, {"loss": math.nan})), 0.0, b"")
    back = checkpoint.unpack(checkpoint.pack(saved))
    assert back.reports[0].metrics["loss"] == math.inf
    assert math.isnan(back.reports[1].metrics["loss"])


def test_a_checkpoint_of_before_slopes_is_read() -> None:
    """As it was written then: a report was a step and its metrics; and one without slopes is written so today."""
    sha = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    head = (
        f'{{"params": {{"x": 1}}, "reports": [[1, {{"loss": 0.5}}]], "seconds": 2.0, "length": 0, "sha256": "{sha}"}}'
    )
    old = f"ptydask checkpoint 1, after step 1\n{head}\n".encode()
    saved = checkpoint.unpack(old)
    assert saved == CheckpointData(1, {"x": 1}, (StepReport(1, {"loss": 0.5}),), 2.0, b"")
    assert checkpoint.pack(saved) == old


def test_the_step_is_in_the_first_line() -> None:
    """The driver reads a few bytes of a large file."""
    data = checkpoint.pack(SAVED)
    assert checkpoint.step_of(data[: checkpoint.FIRST_LINE]) == 7
    assert [checkpoint.step_of(d) for d in (b"", b"nonsense\n", data[:20])] == [0, 0, 0]


def test_every_damage_is_found() -> None:
    """Cut anywhere, or any byte changed in step, head or state: no wrong state is ever given."""
    data = checkpoint.pack(SAVED)
    for end in range(len(data)):
        with pytest.raises(ValueError):  # noqa: PT011 - of json or ours
            checkpoint.unpack(data[:end])
    state = data.index(SAVED.state)
    for at in range(state, len(data)):
        with pytest.raises(ValueError):  # noqa: PT011 - of json or ours
            checkpoint.unpack(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_the_folder(tmp_path: Path) -> None:
    """Written whole, read, asked for its step, dropped; absent is None, 0 and no error."""
    assert checkpoints.read(tmp_path, 3) is None
    assert checkpoints.step(tmp_path, 3) == 0
    checkpoints.write(tmp_path, 3, checkpoint.pack(SAVED))
    assert checkpoints.step(tmp_path, 3) == 7
    assert checkpoint.unpack(checkpoints.read(tmp_path, 3) or b"") == SAVED
    assert [p.name for p in tmp_path.iterdir()] == ["000003.checkpoint"]
    checkpoints.drop(tmp_path, 3)
    checkpoints.drop(tmp_path, 3)
    assert not list(tmp_path.iterdir())
