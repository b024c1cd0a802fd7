"""Values as ADNI and AIBL write them."""

from __future__ import annotations

from datetime import date

import pytest

from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.study_fields import (
    age_at,
    apoe4_copies,
    birth,
    months_of,
    read_date,
    study_visit,
    subject_number,
    years_from_baseline,
)


def row(**values: str | None) -> StudyRow:
    return StudyRow("table.csv:2", values)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("bl", ("bl", False)),
        ("BL", ("bl", False)),
        ("m0", ("bl", False)),
        ("m06", ("m06", False)),
        ("M6", ("m06", False)),
        ("m120", ("m120", False)),
        ("sc", ("bl", True)),
        ("scmri", ("bl", True)),
    ],
)
def test_visit_codes(code: str, expected: tuple[str, bool]) -> None:
    assert study_visit(row(VISCODE=code)) == expected


@pytest.mark.parametrize("code", ["f", "nv", "uns1", "v03", "4_bl", "y1", "m", "m1234", "baseline", None])
def test_what_is_no_visit_of_the_study(code: str | None) -> None:
    with pytest.raises(ValueError, match="VISCODE is no visit of the study"):
        study_visit(row(VISCODE=code))


def test_the_common_count_of_visits_goes_before_that_of_the_phase() -> None:
    assert study_visit(row(VISCODE="v03", VISCODE2="bl")) == ("bl", False)
    assert study_visit(row(VISCODE="m12", VISCODE2="m72")) == ("m72", False)
    assert study_visit(row(VISCODE="m12", VISCODE2=None)) == ("m12", False)


def test_months() -> None:
    assert [months_of(visit_id) for visit_id in ("bl", "m06", "m120")] == [0, 6, 120]


@pytest.mark.parametrize("text", ["2005-09-08", "09/08/2005", "9/8/2005", "2005-09-08 00:00:00", "2005-09-08T10:00"])
def test_dates(text: str) -> None:
    assert read_date(row(EXAMDATE=text), "EXAMDATE") == date(2005, 9, 8)


@pytest.mark.parametrize(
    "text", ["2005", "31/12/2005", "9/8/05", "1900-01-01", "0005-09-08", "yesterday", "2005-02-30"]
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError, match="EXAMDATE is no date") as error:
        read_date(row(EXAMDATE=text), "EXAMDATE")
    assert text not in str(error.value)


def test_missing_date_is_unknown() -> None:
    assert read_date(row(EXAMDATE=None), "EXAMDATE") is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PTDOB": "/1935"}, (1935, None)),
        ({"PTDOB": "1935"}, (1935, None)),
        ({"PTDOB": "09/1935"}, (1935, 9)),
        ({"PTDOB": "9/15/1935"}, (1935, 9)),
        ({"PTDOBYY": "1935"}, (1935, None)),
        ({"PTDOBYY": "1935.0", "PTDOBMM": "9"}, (1935, 9)),
        ({"PTDOB": None, "PTDOBYY": "1935"}, (1935, None)),
        ({}, (None, None)),
    ],
)
def test_birth(values: dict[str, str | None], expected: tuple[int | None, int | None]) -> None:
    assert birth(row(**values)) == expected


@pytest.mark.parametrize("text", ["35", "/35", "13/1935", "00/1935", "/2035", "/1700", "1935-09", "//1935"])
def test_what_is_no_birth(text: str) -> None:
    with pytest.raises(ValueError, match="PTDOB is no month and year of birth"):
        birth(row(PTDOB=text))


def test_age() -> None:
    assert age_at(1935, None, date(2005, 1, 2)) == 70
    assert age_at(1935, 9, date(2005, 9, 15)) == 70
    assert age_at(1935, 9, date(2006, 3, 15)) == 70.5
    assert age_at(None, 9, date(2005, 9, 15)) is None
    assert age_at(1935, 9, None) is None


def test_time_since_baseline_is_from_dates_or_else_from_the_name() -> None:
    assert years_from_baseline("m12", date(2006, 9, 8), date(2005, 9, 8)) == pytest.approx(365 / 365.25)
    assert years_from_baseline("m18", None, date(2005, 9, 8)) == 1.5
    assert years_from_baseline("m18", date(2005, 9, 8), None) == 1.5


@pytest.mark.parametrize(
    ("values", "copies"),
    [
        ({"GENOTYPE": "3/4"}, 1),
        ({"GENOTYPE": "4/4"}, 2),
        ({"GENOTYPE": "2/4"}, 1),
        ({"GENOTYPE": "2/3"}, 0),
        ({"GENOTYPE": "E3/E4"}, 1),
        ({"APGEN1": "3", "APGEN2": "4"}, 1),
        ({"APGEN1": "4", "APGEN2": "2"}, 1),
        ({"APGEN1": "4.0", "APGEN2": "4.0"}, 2),
        ({"APGEN1": "3", "APGEN2": "3"}, 0),
        ({"APGEN1": "4", "APGEN2": None}, None),
        ({"GENOTYPE": None}, None),
        ({}, None),
    ],
)
def test_e4_is_counted_over_the_pair(values: dict[str, str | None], copies: int | None) -> None:
    assert apoe4_copies(row(**values)) == copies


@pytest.mark.parametrize(
    "values", [{"GENOTYPE": "4-Mar"}, {"GENOTYPE": "34"}, {"GENOTYPE": "3/5"}, {"APGEN1": "5", "APGEN2": "3"}]
)
def test_what_is_no_genotype(values: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match=r"GENOTYPE is not two|APGEN1 has an unknown code"):
        apoe4_copies(row(**values))


def test_subject_number() -> None:
    assert subject_number(row(RID="295")) == 295
    assert subject_number(row(RID="295.0", PTID="002_S_0295")) == 295
    assert subject_number(row(RID="10001", PTID="002_S_10001")) == 10001


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"RID": None}, "RID is missing"),
        ({"RID": "0"}, "RID is outside"),
        ({"RID": "2.5"}, "RID is not a whole number"),
        ({"RID": "abc"}, "RID is not a number"),
        ({"RID": "295", "PTID": "002_S_0296"}, "PTID and RID name different subjects"),
    ],
)
def test_what_is_no_subject(values: dict[str, str | None], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        subject_number(row(**values))
