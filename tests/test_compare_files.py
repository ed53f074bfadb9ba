"""Files and folders that are compared, files that cannot be read, and the page."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import h5py
import pytest
import staged_store_cases
import store_cases
from comparison_cases import DATA, compare, study

import ptydask
from ptydask import cli
from ptydask.analysis.montage import trial_images
from ptydask.analysis.montage.study_images import read_study_images
from ptydask.analysis.report import comparison_page
from ptydask.comparing import compare_studies
from ptydask.errors import StoreError, UsageError
from ptydask.model import TrialState

MADE = datetime(2025, 1, 2, tzinfo=UTC)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """A command's exit code, what it prints, what it says on stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        return cli.main(["compare", *map(str, args)]), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.h5`` and ``b.h5`` of one study, ``staged.h5`` with a final stage, ``none.h5`` without a complete trial."""
    folder = tmp_path_factory.mktemp("compare")
    store_cases.packed(folder / "a.h5", [store_cases.record(0), store_cases.record(1)], provenance=DATA)
    store_cases.packed(folder / "b.h5", [store_cases.record(n) for n in range(4)], provenance=DATA)
    store_cases.packed(folder / "none.h5", [store_cases.failed(0)], provenance=DATA)
    staged_store_cases.staged(folder / "staged.h5")
    (folder / "broken.h5").write_bytes((folder / "a.h5").read_bytes()[:2000])
    return folder


# --- files --------------------------------------------------------------------------------------------


def test_a_staged_study_has_what_all_stages_found(folder: Path) -> None:
    compared = compare_studies([folder / "staged.h5", folder / "a.h5"])
    staged, plain = compared.studies
    assert staged.meta.stage == "final"
    assert {"dz", "scan"} <= staged.values.keys()
    assert {"dz", "scan"} <= set(staged.tuned)
    assert staged.name == plain.name
    assert compared.columns[1] == "stage"


def test_a_stage_without_a_complete_trial_gives_way_to_the_one_before(tmp_path: Path) -> None:
    path, stages = tmp_path / "s.h5", staged_store_cases.STAGES
    for name, count in {"dz": 3, "scan": 2, "final": 0}.items():
        staged_store_cases.run_stage(path, name, stages, count)
    [known] = compare_studies([path]).studies
    assert (known.meta.stage, known.problem) == ("scan", "")


def test_good_files_are_compared_where_one_is_broken(folder: Path, call: Call) -> None:
    code, out, err = call(folder / "a.h5", folder / "broken.h5", folder / "gone.h5", folder / "b.h5")
    assert code == 1
    assert len(err.splitlines()) == 2
    assert "broken.h5" in err
    assert "b.h5" in out
    assert f"best loss: {folder / 'b.h5'}, trial 3" in out


def test_where_none_can_be_read_the_first_is_named(folder: Path, call: Call) -> None:
    code, out, err = call(folder / "broken.h5", folder / "gone.h5")
    assert code != 0
    assert not out
    assert "broken.h5" in err
    with pytest.raises(StoreError, match=r"gone\.h5"):
        ptydask.compare([folder / "gone.h5"])
    with pytest.raises(UsageError, match="results files"):
        ptydask.compare([])


@pytest.mark.parametrize("kind", ["folder", "empty", "data"])
def test_what_is_no_results_file_is_unreadable(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        with h5py.File(path, "w") as file:
            file["patterns"] = [1.0]
    compared = compare_studies([path, folder / "a.h5"])
    assert [study.path.name for study in compared.studies] == ["a.h5"]
    assert list(compared.unreadable) == [str(path)]


def test_a_folder_stands_for_its_results_files(folder: Path, tmp_path: Path, call: Call) -> None:
    """As a person counts; data, repeats of a confirmation and folders below are none; a broken file is named."""
    content = (folder / "a.h5").read_bytes()
    for name in ("scan-10.h5", "scan-2.h5", "scan-2.confirmation.h5", ".hidden.h5"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "scan-1.h5").write_bytes(content)
    (tmp_path / "notes.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "patterns.h5", "w") as file:
        file["patterns"] = [1.0]
    compared = ptydask.compare([tmp_path / "scan-10.h5", tmp_path])
    assert [study.path.name for study in compared.studies] == ["scan-10.h5", "scan-2.h5"]
    assert not compared.unreadable
    (tmp_path / "scan-3.h5").write_bytes(content[:2000])
    code, out, err = call(tmp_path)
    assert code == 1
    assert out.index("scan-2.h5") < out.index("scan-10.h5")
    assert "scan-3.h5" in err


@pytest.mark.parametrize("name", [None, "params.yaml", "below/a.h5"])
def test_a_folder_without_results_is_told(folder: Path, tmp_path: Path, call: Call, name: str | None) -> None:
    (tmp_path / "below").mkdir()
    if name is not None:
        (tmp_path / name).write_bytes((folder / "a.h5").read_bytes())
    code, out, err = call(tmp_path, folder / "a.h5")
    assert code == 1
    assert "a.h5" in out
    assert "folder without a results file" in err


def test_a_damaged_image_costs_no_other_its_place(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes((folder / "a.h5").read_bytes())
    with h5py.File(damaged, "r+") as file:
        del file[f"{store_cases.meta().name}/trials/000001"]
    compared = compare_studies([damaged, folder / "b.h5"])
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert list(images.lost) == [compared.studies[0].file]


def test_one_file_needs_no_list(folder: Path) -> None:
    assert len(ptydask.compare(folder / "a.h5").studies) == len(ptydask.compare(str(folder / "a.h5")).studies) == 1


def test_a_stopped_study_and_old_formats_are_compared(tmp_path: Path) -> None:
    stopped = store_cases.stopped(tmp_path / "stopped.h5", range(3), provenance=DATA)
    fixtures = Path(__file__).parent / "fixtures"
    old = [fixtures / f"format-{n}-{kind}.h5" for n in (1, 2) for kind in ("index", "packed")]
    compared = compare_studies([stopped, *old])
    assert not compared.unreadable
    assert len(compared.with_best) == 5
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert len(images.sheet.pictures) + len(images.lost) == 5


def test_a_file_named_twice_has_one_row(folder: Path) -> None:
    compared = ptydask.compare([folder / "a.h5", str(folder / "a.h5")])
    assert len(compared.studies) == 1


def test_no_complete_trial_is_exit_code_1(folder: Path, call: Call) -> None:
    code, out, _ = call(folder / "a.h5", folder / "none.h5")
    assert code == 1
    assert "no trial has completed" in out


def test_json_and_csv_have_every_digit(folder: Path, call: Call) -> None:
    code, out, _ = call(folder / "a.h5", folder / "staged.h5", "--format", "json")
    first, second = json.loads(out)
    assert code == 0
    assert first["error"] == store_cases.record(1).error
    assert first["values"] == store_cases.record(1).params
    assert second["stage"] == "final"
    _, out, err = call(folder / "a.h5", folder / "staged.h5", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert float(rows[0]["params.rotation"]) == -0.5
    assert rows[0]["params.dz"] == ""
    assert rows[0]["tuned"] == "scale rotation"
    assert "cannot be compared" in err


def test_pandas_has_a_row_a_study(folder: Path) -> None:
    table = ptydask.compare([folder / "a.h5", folder / "b.h5"]).table()
    assert list(table["number"]) == [1, 3]
    assert table.loc[str(folder / "b.h5"), "params.scale"] == 0.98


# --- the page -----------------------------------------------------------------------------------------


def test_the_page_has_table_notes_and_images_and_fetches_nothing(folder: Path, tmp_path: Path, call: Call) -> None:
    page = tmp_path / "new" / "compare.html"
    code, _, err = call(folder / "a.h5", folder / "b.h5", "-o", page)
    text = page.read_text()
    assert code == 0
    assert "compare.html" in err
    assert text.count('src="data:image/webp;base64,') == 3
    assert not re.search(r"https?://|<script", text)
    assert "script-src" not in text
    assert '<tr class="best">' in text
    assert page.stat().st_size < 500_000


def test_each_picture_has_its_scale_and_no_heading_of_its_own(folder: Path) -> None:
    images = read_study_images(compare_studies([folder / "a.h5", folder / "b.h5"]).studies)
    assert images.sheet is not None
    drawn = trial_images.draw_sheet(images.sheet, columns=2, title=None)
    [axes] = drawn.axes
    assert sum(patch.get_gid() == "scale bar" for patch in axes.patches) == 2
    assert not any("best" in text.get_text() for text in axes.texts)


def test_two_pages_of_the_same_files_are_alike(folder: Path) -> None:
    compared = compare_studies([folder / "a.h5", folder / "b.h5"])
    assert comparison_page.render(compared, made=MADE) == comparison_page.render(compared, made=MADE)


def test_studies_without_arrays_are_named_on_the_page(folder: Path, tmp_path: Path) -> None:
    bare = store_cases.packed(tmp_path / "bare.h5", [store_cases.record(0, state=TrialState.PRUNED)], provenance=DATA)
    compared = compare_studies([folder / "a.h5", bare, folder / "none.h5"])
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert len(images.sheet.pictures) == 1
    assert list(images.lost) == [study.file for study in compared.studies[1:]]
    alone = comparison_page.render(compare_studies([bare]), made=MADE)
    assert "No study has one." in alone


def test_names_of_files_and_parameters_are_no_markup() -> None:
    text = comparison_page.render(compare(study("<b>.h5", None), study("b.h5", None, tuned='{"<i>": {}}')), made=MADE)
    assert "<b>.h5" not in text
    assert "&lt;b&gt;.h5" in text
    assert "<i>" not in text


@pytest.mark.parametrize("name", ["a.h5", "page", "page.png"])
def test_what_is_no_page_is_not_overwritten(folder: Path, name: str, tmp_path: Path, call: Call) -> None:
    out = tmp_path / name
    out.write_text("mine")
    code, _, err = call(folder / "a.h5", folder / "b.h5", "-o", out)
    assert code == 2
    assert ".html" in err
    assert out.read_text() == "mine"
