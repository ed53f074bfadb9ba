"""What a person sees of several studies at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from earlier_cases import plan
from queue_cases import SNAPSHOT, Told

from ptydask.driver.queue import label_studies
from ptydask.lineage import StageLineage
from ptydask.model import SourceFile, StudyPlan
from ptydask.progress.frame import render_frame, text_of
from ptydask.progress.queue_view import QueueView


def test_the_first_study_under_way_is_shown_and_the_others_in_a_line_each() -> None:
    """Until it ends; then the next one is. The view itself stays open."""
    view = Told()
    first, second, _ = QueueView(view, ["gold", "iron", "lead"]).views
    demo = replace(SNAPSHOT, study="demo")  # as a file has it, of which another has the same
    first.update(SNAPSHOT)
    second.update(replace(SNAPSHOT, study="iron"))
    assert [shown.study for shown in view.shown] == ["gold"]
    assert (view.shown[0].queue, len(view.shown[0].others)) == ("1 of 3: gold", 2)
    first.close(demo)
    first.close(demo)
    second.update(replace(SNAPSHOT, study="iron"))
    last = view.shown[-1]
    assert last.queue == "2 of 3: iron"
    assert [line.split()[0] for line in last.others] == ["lead:", "gold:"], "those that are over come last"
    assert "waits" in last.others[0]
    assert "2/6" in last.others[1]
    second.notice("a worker was lost")
    text = view.stream.getvalue()
    assert text.count("gold") == 1
    assert "iron: a worker was lost" in text


def test_a_frame_of_a_queue_fits_any_window() -> None:
    """The lines of the others go before those of the study itself."""
    snapshot = replace(SNAPSHOT, queue="1 of 9: gold", others=tuple(f"study-{i}: waits" for i in range(8)))
    for height in (1, 3, 6, 12, 40):
        lines = [text_of(line) for line in render_frame(snapshot, 60, height, ("#", "-"))]
        assert len(lines) <= height
        assert "study 1 of 9: gold" in lines[0]
        assert ("study-7: waits" in lines) == (height == 40)
        assert any("more studies" in line for line in lines) == (height == 12)


def test_studies_of_one_name_are_called_as_their_files() -> None:
    """Those that were given; a stage is called as its study."""

    def named(name: str, file: str, **more: Any) -> StudyPlan:
        return replace(plan(), name=name, source=SourceFile(Path(file), "", "yaml"), **more)

    plans = [
        named("demo", "a/params.yaml"),
        named("demo rough", "base.yaml", lineage=StageLineage("rough", ("rough", "fine"))),
        named("lead fine", "c.yaml", lineage=StageLineage("fine", ("rough", "fine"))),
        named("iron", "d.yaml"),
    ]
    plans[1] = replace(plans[1], own_file=SourceFile(Path("b.yaml"), "", "yaml"))
    assert label_studies(plans) == ["a/params.yaml", "b.yaml", "lead", "iron"]
