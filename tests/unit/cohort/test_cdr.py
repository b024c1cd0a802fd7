"""The CDR as a proxy of the diagnosis, whole numbers, and what makes a row of a single table a visit."""

from __future__ import annotations

import pytest

from clinical_reasoner.cohort.cdr import cdr_label, mmse_points, visit_per_row, whole_number
from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow


def row(**values: str | None) -> StudyRow:
    return StudyRow("table.csv:2", values)


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        ("0", "NC"),
        ("0.0", "NC"),
        ("0.5", "MCI"),
        (".5", "MCI"),
        ("0.50", "MCI"),
        ("1", "AD"),
        ("2.0", "AD"),
        ("3", "AD"),
    ],
)
def test_cdr_maps_to_a_label(rating: str, label: str) -> None:
    assert cdr_label(row(CDR=rating), "CDR") == label


@pytest.mark.parametrize(
    ("rating", "reason"),
    [
        (None, "no CDR, so no diagnosis"),
        ("0.25", "CDR is none of 0, 0.5, 1, 2, 3"),
        ("1.5", "CDR is none of 0, 0.5, 1, 2, 3"),
        ("18", "CDR is outside 0 to 3"),
        ("-0.5", "CDR is outside 0 to 3"),
        ("NAN", "CDR is outside 0 to 3"),
        ("mild", "CDR is not a number"),
    ],
)
def test_other_ratings_are_no_diagnosis(rating: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        cdr_label(row(CDR=rating), "CDR")


def test_mmse_is_whole_points() -> None:
    assert mmse_points(row(MMSE="0"), "MMSE") == 0
    assert mmse_points(row(MMSE="30.0"), "MMSE") == 30
    assert mmse_points(row(MMSE="88"), "MMSE", (88,)) is None
    assert mmse_points(row(MMSE=None), "MMSE") is None
    with pytest.raises(ValueError, match=r"^MMSE is not a whole number$"):
        mmse_points(row(MMSE="20.5"), "MMSE")
    with pytest.raises(ValueError, match=r"^MMSE is outside 0 to 30$"):
        mmse_points(row(MMSE="88"), "MMSE")


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400"])
def test_what_is_not_finite_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match=r"^n is outside 0 to 9$"):
        whole_number(row(n=text), "n", 0, 9)


def test_one_visit_once_and_one_sex_per_person() -> None:
    def parse(line: StudyRow) -> Visit:
        if line.text("id") is None:
            raise ValueError("no id")
        return Visit.model_validate(
            {"patient_id": line.text("id"), "visit_id": line.text("visit"), "sex": line.text("sex")}
            | {"cohort": "x", "source": line.place}
        )

    lines = ["a v1 female", "a v1 female", "b v1 male", "a v2 male", "a v3 female", "- v1 male", "b v2 -"]
    cells = [[None if cell == "-" else cell for cell in line.split()] for line in lines]
    rows = [
        StudyRow(f"t.csv:{number}", dict(zip(("id", "visit", "sex"), one, strict=True)))
        for number, one in enumerate(cells, start=2)
    ]
    found = list(visit_per_row(rows, parse))
    assert [(one.patient_id, one.visit_id) for one in found if isinstance(one, Visit)] == [
        ("a", "v1"),
        ("b", "v1"),
        ("a", "v3"),
        ("b", "v2"),
    ]
    assert [(one.source, one.reason) for one in found if isinstance(one, RejectedRow)] == [
        ("t.csv:3", "the same subject and visit as an earlier row"),
        ("t.csv:5", "sex differs from that of an earlier row of the same person"),
        ("t.csv:7", "no id"),
    ]
