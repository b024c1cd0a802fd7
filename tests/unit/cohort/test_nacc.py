"""NACC Uniform Data Set: invented rows in the released coding."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.nacc import NOT_AD, NOT_MCI, read_nacc
from clinical_reasoner.cohort.visits import Visit, choose_visits
from clinical_reasoner.records import RejectedRow
from tests.unit.cohort.fixtures.nacc import CELLS, write

READ = ("NACCID", "NACCVNUM", "VISITYR", "NACCAGE", "SEX", "EDUC", "MARISTAT", "NACCMMSE", "NACCUDSD", "NACCALZD")


def read(tmp_path: Path, *changes: dict[str, str]) -> tuple[list[Visit], list[RejectedRow]]:
    rows = list(read_nacc(write(tmp_path, *changes)))
    return [row for row in rows if isinstance(row, Visit)], [row for row in rows if isinstance(row, RejectedRow)]


def test_full_row(tmp_path: Path) -> None:
    assert read(tmp_path, {}) == (
        [
            Visit(
                patient_id="NACC900001",
                visit_id="v1",
                cohort="NACC",
                label="MCI",
                label_source="NACCUDSD, NACCALZD",
                age_years=75,
                sex="female",
                education_years=16,
                marital_status="widowed",
                mmse=27,
                apoe4_copies=1,
                source="investigator_nacc70.csv:2",
            )
        ],
        [],
    )


@pytest.mark.parametrize(
    ("state", "cause", "label"), [("1", "8", "NC"), ("3", "0", "MCI"), ("3", "1", "MCI"), ("4", "1", "AD")]
)
def test_label_is_the_cognitive_status_of_the_visit(tmp_path: Path, state: str, cause: str, label: str) -> None:
    # A CDR that says otherwise changes nothing.
    (visit,), _ = read(tmp_path, {"NACCUDSD": state, "NACCALZD": cause, "CDRGLOB": "2"})
    assert visit.label == label


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NACCUDSD": "2"}, NOT_MCI),
        ({"NACCUDSD": "4", "NACCALZD": "0"}, NOT_AD),
        ({"NACCUDSD": "4", "NACCALZD": "8"}, NOT_AD),
        ({"NACCUDSD": "4", "NACCALZD": "-4"}, NOT_AD),
        ({"NACCUDSD": "-4"}, "no NACCUDSD, so no diagnosis"),
        ({"NACCUDSD": "5"}, "NACCUDSD has an unknown code; known are 1, 2, 3, 4"),
        ({"NACCALZD": "7"}, "NACCALZD has an unknown code; known are 0, 1, 8"),
        ({"NACCID": ""}, "NACCID is not of the form NACCNNNNNN"),
        ({"NACCID": "NACC12"}, "NACCID is not of the form NACCNNNNNN"),
        ({"NACCVNUM": ""}, "NACCVNUM is empty"),
        ({"NACCVNUM": "1.5"}, "NACCVNUM is not a whole number"),
        ({"VISITYR": "-4"}, "no VISITYR, VISITMO and VISITDAY, so no place among the person's visits"),
        ({"VISITYR": "1012"}, "VISITYR is outside 2005 to 2060"),
        ({"VISITMO": "2", "VISITDAY": "30"}, "VISITYR, VISITMO and VISITDAY are no date"),
        ({"SEX": "3"}, "SEX has an unknown code; known are 1, 2"),
        ({"MARISTAT": "7"}, "MARISTAT has an unknown code; known are 1, 2, 3, 5"),
        ({"EDUC": "37"}, "EDUC is outside 0 to 36"),
        ({"NACCMMSE": "31"}, "NACCMMSE is outside 0 to 30"),
        ({"NACCNE4S": "3"}, "NACCNE4S is outside 0 to 2"),
        ({"NACCAGE": "888"}, "NACCAGE is outside 0 to 130"),
    ],
)
def test_row_that_cannot_be_used_is_set_aside_alone(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    visits, rejected = read(tmp_path, change, {"NACCID": "NACC900002"})
    assert [visit.patient_id for visit in visits] == ["NACC900002"]
    assert [(row.source, row.reason) for row in rejected] == [("investigator_nacc70.csv:2", reason)]
    assert "NACC9" not in rejected[0].model_dump_json()


@pytest.mark.parametrize(
    ("column", "code", "field"),
    [
        *[("NACCMMSE", code, "mmse") for code in ("88", "95", "96", "97", "98", "-4", "-4.0", "")],
        *[("EDUC", code, "education_years") for code in ("99", "-4", "")],
        *[("MARISTAT", code, "marital_status") for code in ("4", "6", "8", "9", "-4", "")],
        *[("NACCNE4S", code, "apoe4_copies") for code in ("9", "-4", "")],
        *[("NACCAGE", code, "age_years") for code in ("-4", "")],
        ("SEX", "-4", "sex"),
    ],
)
def test_missing_codes(tmp_path: Path, column: str, code: str, field: str) -> None:
    (visit,), rejected = read(tmp_path, {column: code})
    assert rejected == []
    assert getattr(visit, field) is None


@pytest.mark.parametrize(
    ("code", "status"), [("1", "married"), ("2", "widowed"), ("3", "divorced"), ("5.0", "never_married")]
)
def test_marital_status(tmp_path: Path, code: str, status: str) -> None:
    assert read(tmp_path, {"MARISTAT": code})[0][0].marital_status == status


def test_mmse_of_zero_is_a_score(tmp_path: Path) -> None:
    assert read(tmp_path, {"NACCMMSE": "0"})[0][0].mmse == 0


def test_time_counts_from_the_first_visit_of_the_person_wherever_it_stands(tmp_path: Path) -> None:
    second = {"NACCVNUM": "2", "VISITYR": "2013", "NACCAGE": "76", "NACCMMSE": "25"}
    stranger = {"NACCID": "NACC900002", "NACCVNUM": "2", "VISITYR": "2009", "NACCMMSE": "11"}
    third = {"NACCVNUM": "3", "VISITYR": "2014", "NACCAGE": "77", "NACCUDSD": "4"}
    visits, rejected = read(tmp_path, second, stranger, third, {})
    assert rejected == []
    assert [(visit.patient_id[-1], visit.visit_id, visit.mmse, visit.label) for visit in visits] == [
        ("1", "v2", 25, "MCI"),
        ("2", "v2", 11, "MCI"),
        ("1", "v3", 27, "AD"),
        ("1", "v1", 27, "MCI"),
    ]
    assert [round(visit.years_from_baseline, 2) for visit in visits] == [1.0, 0.0, 2.0, 0.0]
    assert [visit.visit_id for visit in choose_visits(visits, "baseline")] == ["v1", "v2"]


def test_first_visit_counts_though_it_has_no_diagnosis(tmp_path: Path) -> None:
    (visit,), _ = read(tmp_path, {"NACCUDSD": "2"}, {"NACCVNUM": "2", "VISITYR": "2013"})
    assert visit.years_from_baseline == pytest.approx(1, abs=0.01)


def test_duplicates_and_a_second_sex_are_set_aside(tmp_path: Path) -> None:
    visits, rejected = read(tmp_path, {}, {"NACCVNUM": "1.0", "NACCMMSE": "3"}, {"NACCVNUM": "2", "SEX": "1"})
    assert [visit.mmse for visit in visits] == [27]
    assert [row.reason for row in rejected] == [
        "the same subject and visit as an earlier row",
        "sex differs from that of an earlier row of the same person",
    ]


@pytest.mark.parametrize("name", READ)
def test_missing_column_is_refused_by_name(tmp_path: Path, name: str) -> None:
    header = [f"{one}_OLD" if one == name else one for one in CELLS]
    with pytest.raises(StudyFileError, match=rf"investigator_nacc70\.csv: no column {name}"):
        list(read_nacc(write(tmp_path, {}, header=header)))


def test_lower_case_header(tmp_path: Path) -> None:
    expected = read(tmp_path, {})[0]
    assert list(read_nacc(write(tmp_path, {}, header=[name.lower() for name in CELLS]))) == expected
