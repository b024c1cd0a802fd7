"""OASIS-3's files, days and joins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.columns import StudyFileError, StudyRow
from clinical_reasoner.cohort.oasis3_tables import (
    ByDay,
    Dated,
    day_of,
    find_files,
    join_nearest,
    read_dated,
    subject_of,
)
from clinical_reasoner.records import RejectedRow

ANN, BOB = "OAS39001", "OAS39002"


def row(subject: str | None = ANN, session: str | None = None, days: str | None = None) -> StudyRow:
    return StudyRow("t.csv:2", {"subject": subject, "session": session, "days_to_visit": days})


@pytest.mark.parametrize(
    ("session", "days", "day"),
    [
        (f"{ANN}_UDSb4_d0339", "339", 339),
        (f"{ANN}_UDSd1_d0339", "0339", 339),
        (f"{ANN}_UDSb4_d0339", None, 339),
        (None, "0", 0),
        (f"{ANN}_MR_d12345", None, 12345),
        (f"{ANN}_UDSb4_d-0101", "-101", -101),
        (f"{ANN}_UDSb4_d-0001", None, -1),  # the table says -1, which reads as missing
        (f"{ANN.lower()}_Freesurfer53_D0129", None, 129),
    ],
)
def test_day(session: str | None, days: str | None, day: int) -> None:
    assert day_of(row(ANN.lower(), session, days)) == day


@pytest.mark.parametrize(
    ("session", "days", "reason"),
    [
        (None, None, "neither days_to_visit nor a session tells the day"),
        (f"{BOB}_UDSb4_d0339", "339", "the session is not of the form OAS3NNNN_NAME_dNNNN, or another subject's"),
        (f"{ANN}_UDSb4", "339", "the session is not of the form OAS3NNNN_NAME_dNNNN, or another subject's"),
        (f"{ANN}_UDSb4_dXXXX", None, "the session is not of the form OAS3NNNN_NAME_dNNNN, or another subject's"),
        (f"{ANN}_MR_d٩٩٩٩", None, "the session is not of the form OAS3NNNN_NAME_dNNNN, or another subject's"),
        (f"{ANN}_UDSb4_d0339", "338", "days_to_visit is not the day of the session"),
        (f"{ANN}_UDSb4_d-39520", None, "the day of the session is outside -1826 to 20000"),
        (None, "-39520", "days_to_visit is outside -1826 to 20000"),
        (None, "33.9", "days_to_visit is not a whole number"),
        (None, "d0339", "days_to_visit is not a number"),
    ],
)
def test_day_that_is_none(session: str | None, days: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        day_of(row(ANN, session, days))


@pytest.mark.parametrize("subject", [None, "OAS1_9001", "OAS3900", "OAS390011", "sub-OAS39001", "OAS3٩٩٩٩"])
def test_subject_that_is_none(subject: str | None) -> None:
    with pytest.raises(ValueError, match=r"^the subject is not of the form OAS3NNNN$"):
        subject_of(row(subject))


def test_first_of_two_rows_of_a_day_is_read_unless_it_cannot_be() -> None:
    def parse(line: StudyRow) -> str:
        if line.place == "t.csv:1":
            raise ValueError("torn")
        return line.place

    rejected: list[RejectedRow] = []
    lines = [StudyRow(f"t.csv:{number}", row(days="5").values) for number in (1, 2, 3)]
    dated = read_dated(lines, parse, rejected)
    assert dated == {ANN: {5: Dated(lines[1], "t.csv:2")}}
    assert [(one.source, one.reason) for one in rejected] == [
        ("t.csv:1", "torn"),
        ("t.csv:3", "the same subject and day as an earlier row"),
    ]


def by_day(days: Mapping[str, list[int]]) -> ByDay[int]:
    return {
        subject: {day: Dated(StudyRow(f"{subject}:{day}", {}), day) for day in own} for subject, own in days.items()
    }


def test_join_is_by_subject_and_nearest_day() -> None:
    rejected: list[RejectedRow] = []
    rows = by_day({ANN: [200, 410, 430, 766], BOB: [401], "OAS39003": [0]})
    joined = join_nearest(rows, by_day({ANN: [0, 400], BOB: [1500]}), 365, rejected)
    assert joined == {(ANN, 0): 200, (ANN, 400): 410}  # 200 is as far from both
    assert {one.source: one.reason for one in rejected} == {
        f"{ANN}:430": "another row is nearer to the same visit",
        f"{ANN}:766": "no clinical visit of this person within 365 days",
        f"{BOB}:401": "no clinical visit of this person within 365 days",
        "OAS39003:0": "no clinical visit of this person within 365 days",
    }


def test_join_of_one_day() -> None:
    rejected: list[RejectedRow] = []
    assert join_nearest(by_day({ANN: [0, 1]}), by_day({ANN: [0, 2]}), 0, rejected) == {(ANN, 0): 0}
    assert [one.reason for one in rejected] == ["no clinical visit of this person on that day"]


@given(
    st.dictionaries(st.sampled_from([ANN, BOB]), st.lists(st.integers(-500, 4000), unique=True, max_size=8)),
    st.dictionaries(st.sampled_from([ANN, BOB]), st.lists(st.integers(-500, 4000), unique=True, max_size=8)),
    st.integers(0, 800),
)
def test_every_row_is_joined_once_or_set_aside(
    rows: dict[str, list[int]], visits: dict[str, list[int]], max_days: int
) -> None:
    rejected: list[RejectedRow] = []
    joined = join_nearest(by_day(rows), by_day(visits), max_days, rejected)
    used = [f"{subject}:{day}" for (subject, _), day in joined.items()]
    assert sorted(used + [one.source for one in rejected]) == sorted(
        f"{one}:{day}" for one in rows for day in rows[one]
    )
    for (subject, visit), day in joined.items():
        assert visit in visits[subject] and abs(day - visit) <= max_days
        assert abs(day - visit) == min(abs(day - other) for other in visits[subject])


def test_files_are_found_below_the_folder_in_any_case(tmp_path: Path) -> None:
    first, second = tmp_path / "scans" / "a" / "OASIS3_A.csv", tmp_path / "oasis3_b (1).CSV"
    first.parent.mkdir(parents=True)
    for file in (first, second, tmp_path / "OASIS3_A.csv.bak", tmp_path / "my_OASIS3_A.csv"):
        file.touch()
    assert find_files(tmp_path, ("OASIS3_A", "OASIS3_B", "OASIS3_C"), ("OASIS3_A",)) == {
        "OASIS3_A": first,
        "OASIS3_B": second,
    }


def test_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"no folder at .* give the one that holds A\.csv"):
        find_files(tmp_path / "none", ("A",), ("A",))
    with pytest.raises(StudyFileError, match=r"no A\.csv in it or in a folder below it"):
        find_files(tmp_path, ("A",), ("A",))
    for name in ("A.csv", "A (1).csv"):
        (tmp_path / name).touch()
    with pytest.raises(StudyFileError, match=r"A\.csv is there twice"):
        find_files(tmp_path, ("A",), ("A",))


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "A.csv").touch()
    (inside / "below").symlink_to(outside)
    with pytest.raises(StudyFileError, match="no A"):  # links to folders are not followed
        find_files(inside, ("A",), ("A",))
    (inside / "A.csv").symlink_to(outside / "A.csv")
    with pytest.raises(StudyFileError, match="a link that leaves the folder"):
        find_files(inside, ("A",), ("A",))
