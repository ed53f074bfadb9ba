"""Which stage comes next, what it has from those before it, and what is refused. No file, no Dask, no Optuna."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_plan_text import plan

from ptydask.config.stages import Stage
from ptydask.driver import stage_order
from ptydask.driver.stage_order import BegunStage, check_stages, require_best, trace_all, trace_lineage
from ptydask.errors import ConfigError, PtydaskError
from ptydask.lineage import StageLineage
from ptydask.model import Direction, Scalar, StudyMeta, TrialRecord, TrialState

FILE = Path("s.h5")
NAMES = ("dz", "scan", "tilt", "final")
DONE, CUT, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def record(number: int, error: float | None, state: TrialState = DONE, **params: Scalar) -> TrialRecord:
    return TrialRecord(number=number, state=state, error=error, params=params)


def begun(name: str, *records: TrialRecord, direction: Direction = "minimize", **lineage: object) -> BegunStage:
    of = StageLineage(name, NAMES, **lineage)  # type: ignore[arg-type]
    meta = StudyMeta(f"s {name}", direction, "loss", "toy", "", "yaml", "{}", "{}", lineage=of)
    return BegunStage(name, meta, records)


DZ = begun("dz", record(0, 0.5, dz=1.0), record(1, 0.3, dz=2.0), record(2, 0.1, CUT, dz=9.0))
SCAN = begun("scan", record(0, 0.2, scale=1.1, rotation=3.0), record(1, None, FAILED, scale=1.0, rotation=0.0))
AGAIN = begun("tilt", record(4, 0.1, tilt_x=1.0, scale=1.2))


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ((), ()),
        (("dz",), ("dz",)),
        (("dz", "scan"), ("dz",)),
        (("dz", "scan", "final"), ("dz", "scan")),
        (("dz", "other", "names"), ("dz",)),
    ],
)
def test_a_file_that_can_be_gone_on_with(asked: tuple[str, ...], there: tuple[str, ...]) -> None:
    """Stages are added at the end; those that have not begun may be others."""
    check_stages(asked, there, file=FILE)


@pytest.mark.parametrize(
    ("asked", "there", "word"),
    [
        (("dz",), (), "without stages"),
        ((), ("dz",), "none are asked for"),
        ((), ("geometry", "final"), "--stages recommended"),
        ((), ("dz", "scan"), "dz, scan"),
        (("scan", "dz"), ("dz", "scan"), "stage 1"),
        (("dz", "tilt"), ("dz", "scan"), "'tilt'"),
        (("dz",), ("dz", "scan"), "missing"),
        (("dz", "tilt", "final"), ("dz", "final"), "stage 2"),
        (("new", "dz"), ("dz",), "'new'"),
        (("DZ",), ("dz",), "'DZ'"),
    ],
)
def test_a_file_with_other_stages_is_refused(asked: tuple[str, ...], there: tuple[str, ...], word: str) -> None:
    """In one line, which names the key and what to do."""
    with pytest.raises(ConfigError, match=word) as refused:
        check_stages(asked, there, file=FILE)
    assert refused.value.key == "ptydask.stages"
    assert refused.value.file == FILE
    assert "--results" in refused.value.hint
    assert "\n" not in str(refused.value)


def test_a_notice_names_the_stages_that_it_is_of() -> None:
    """Not where it is of all of them, nor where it names its stage already."""
    notices = [("all", "one"), ("all", "two"), ("all", "two", "dz: not tuned in stage tilt")]
    assert stage_order.name_stages(("dz", "scan", "tilt"), notices) == [
        ("all", "stage dz: one"),
        ("all", "stages scan, tilt: two"),
        ("all", "stages scan, tilt: two", "dz: not tuned in stage tilt"),
    ]


def test_nothing_is_added_after_the_final_reconstruction() -> None:
    """The hint does not say that it can be."""
    for asked, there, words in (
        (("dz", "tilt", "final"), ("dz", "final"), "none can be added"),
        (("tilt", "final"), ("dz", "final"), "none can be added"),
        (("dz", "tilt"), ("dz", "scan"), "may be added after it"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_stages(asked, there, file=FILE)
        assert words in refused.value.hint


def test_best_values_flow_on() -> None:
    """Of every stage those of its best completed trial; the later ones win, and each says where it is from."""
    tilt = trace_lineage(Stage("tilt"), NAMES, (DZ, SCAN))
    assert tilt.values == {"dz": 2.0, "scale": 1.1, "rotation": 3.0}
    assert tilt.origins == {"dz": ("dz", 1), "scale": ("scan", 0), "rotation": ("scan", 0)}
    assert (tilt.from_stage, tilt.from_trial, tilt.number) == ("scan", 0, 3)
    assert (tilt.start_stage, tilt.start_trial) == ("", None)
    final = trace_lineage(Stage("final"), NAMES, (DZ, SCAN, AGAIN))
    assert final.values == {"dz": 2.0, "scale": 1.2, "rotation": 3.0, "tilt_x": 1.0}
    assert final.origins["scale"] == ("tilt", 4)
    assert final.from_trial == 4


def test_the_best_is_that_of_each_stages_own_direction() -> None:
    """One stage looks for the least loss, another for the most contrast."""
    contrast = begun("scan", record(0, 0.2, scale=1.1), record(1, 0.4, scale=1.3), direction="maximize")
    assert trace_lineage(Stage("tilt"), NAMES, (DZ, contrast)).values == {"dz": 2.0, "scale": 1.3}


def test_the_first_stage_has_nothing_from_anybody() -> None:
    """Whatever has begun after it."""
    first = trace_lineage(Stage("dz"), NAMES, (DZ, SCAN))
    assert first == StageLineage("dz", NAMES)
    assert first.number == 1


@pytest.mark.parametrize(
    ("stage", "known", "expected"),
    [
        (Stage("scan", start_from="dz"), (DZ,), ("dz", 1)),
        (Stage("tilt", start_from="dz"), (DZ, SCAN), ("dz", 1)),
        (Stage("tilt", start_from="scan"), (DZ, SCAN), ("scan", 0)),
        (Stage("tilt", start_from="scan"), (DZ,), ("scan", None)),
    ],
)
def test_what_a_stage_starts_from(
    stage: Stage, known: tuple[BegunStage, ...], expected: tuple[str, int | None]
) -> None:
    """The best trial of the stage that it names, once there is one."""
    traced = trace_lineage(stage, NAMES, known)
    assert (traced.start_stage, traced.start_trial) == expected


def test_stages_that_have_begun_keep_their_lineage() -> None:
    """As it is recorded, whatever the best trials would say now; only the stages to come may be others."""
    old = begun("scan", record(0, 0.2, scale=1.1), from_stage="dz", from_trial=0, values={"dz": 1.0})
    traced = trace_all([Stage("dz"), Stage("scan"), Stage("more")], (DZ, old), (DZ, old))
    assert [lineage.stages for lineage in traced] == [("dz", "scan", "more")] * 3
    assert traced[1].values == {"dz": 1.0}
    assert traced[1].from_trial == 0
    assert traced[2].values == {"dz": 2.0, "scale": 1.1}


def test_stages_to_come_have_what_is_known() -> None:
    """A stage under way may still find something better: it gives nothing on so far."""
    traced = trace_all([Stage(name) for name in NAMES], (DZ, SCAN), (DZ,))
    assert traced[2].values == {"dz": 2.0}
    assert (traced[2].from_stage, traced[2].from_trial) == ("scan", None)
    assert traced[3].values == {"dz": 2.0}


@pytest.mark.parametrize(
    "records",
    [(), (record(0, None, FAILED, dz=1.0),), (record(0, 0.3, CUT, dz=1.0),), (record(0, float("nan"), dz=1.0),)],
)
def test_a_stage_without_a_completed_trial_has_no_next(records: tuple[TrialRecord, ...]) -> None:
    """One line: which stage, which one cannot begin, what to do."""
    with pytest.raises(PtydaskError, match="stage dz: none") as refused:
        require_best(begun("dz", *records), "scan", file=FILE)
    assert "stage scan" in str(refused.value)
    assert "\n" not in str(refused.value)
    require_best(DZ, "scan", file=FILE)


def test_words() -> None:
    """What is said of a stage names it, its place, and its best trial."""
    text = stage_order.ended_text(DZ)
    assert "stage 1 of 4: dz" in text
    assert "trial 1" in text
    assert "dz=2" in text
    assert "best" not in stage_order.ended_text(begun("dz", record(0, None, FAILED)))
    assert "12" in stage_order.more_asked_text("dz", 12, 20)
    told = plan(lineage=StageLineage("scan", NAMES, values={"dz": 2.0}, start_stage="dz", start_trial=1))
    assert "each from the reconstruction of trial 1" in stage_order.begins_text(told, 20)
    assert "each" not in stage_order.begins_text(told, 1)
