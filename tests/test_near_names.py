"""Which file somebody may have meant."""

import pytest

from ptydask.errors import ConfigError, FilesRefused, StudiesFailed, nearest_files, raise_all


@pytest.mark.parametrize(
    ("name", "others", "near"),
    [
        ("parms.yaml", ["params.yaml", "tuned.yaml"], ["params.yaml"]),
        ("params.yml", ["params.yaml"], ["params.yaml"]),
        ("nope.yaml", ["tuned.yaml"], []),
        ("scan-b.h5", ["scan-c.h5", "scan-a.h5"], []),
        ("scan-12.h5", ["scan-13.h5"], []),
        ("scn-12.h5", ["scan-12.h5"], ["scan-12.h5"]),
        ("dat.h5", ["data.csv", "data.h5", "data.npy"], ["data.h5"]),
        ("demo.h5", [], []),
    ],
)
def test_only_a_slip_is_named(name: str, others: list[str], near: list[str]) -> None:
    """Neither another word with the same ending, nor the next one of a series."""
    assert nearest_files(name, others) == near


def test_each_file_that_is_refused_has_a_line() -> None:
    """One alone is raised as it is, and the same twice is one."""
    one, two = ConfigError("is empty", file="a.yaml"), ConfigError("is empty", file="b.yaml")
    raise_all([])
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        raise_all([one, ConfigError("is empty", file="a.yaml")])
    with pytest.raises(FilesRefused) as refused:
        raise_all([one, two])
    assert str(refused.value).splitlines()[1:] == [str(one), str(two)]


def test_a_failed_study_names_its_file_once() -> None:
    error = StudiesFailed({"a.yaml": ConfigError("is damaged", file="a.yaml")}, 2)  # type: ignore[dict-item]
    assert str(error).count("a.yaml") == 1
