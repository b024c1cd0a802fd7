"""OASIS-3: an invented download; joins by subject and day, never by day alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.nacc import NOT_AD, NOT_MCI
from clinical_reasoner.cohort.oasis3 import read_oasis3
from clinical_reasoner.cohort.visits import REGIONS, Visit
from clinical_reasoner.records import RejectedRow
from tests.unit.cohort.fixtures.oasis3 import (
    CDR,
    DEMOGRAPHICS,
    DIAGNOSES,
    HEADERS,
    MARITAL,
    VOLUMES,
    Lines,
    diagnosis,
    marital,
    person,
    scan,
    visit,
    write,
)

ANN, BOB = "OAS39001", "OAS39002"


def read(folder: Path, tables: Mapping[str, Lines]) -> tuple[list[Visit], list[RejectedRow]]:
    rows = list(read_oasis3(write(folder, tables)))
    return [row for row in rows if isinstance(row, Visit)], [row for row in rows if isinstance(row, RejectedRow)]


def test_every_table_joined(tmp_path: Path) -> None:
    tables = {
        DEMOGRAPHICS: (person(ANN),),
        CDR: (visit(ANN, 0), visit(ANN, 339, age="72.1", mmse="22", cdr="1")),
        MARITAL: (marital(ANN, 0, "1"), marital(ANN, 339, "2")),
        DIAGNOSES: (diagnosis(ANN, 0, MCIAMEM="1"), diagnosis(ANN, 339, DEMENTED="1", PROBAD="1")),
        VOLUMES: (scan(ANN, 129),),
    }
    (first, second), rejected = read(tmp_path, tables)
    assert rejected == []
    measures = {one.name: one.value for one in first.measures}
    assert first.model_copy(update={"measures": ()}) == Visit(
        patient_id=ANN,
        visit_id="d0000",
        cohort="OASIS-3",
        label="MCI",
        label_source="UDS form D1",
        age_years=71.2,
        sex="female",
        education_years=16,
        marital_status="married",
        mmse=27,
        apoe4_copies=1,
        segmenter="freesurfer-5.3",
        source=f"{CDR}.csv:2",
    )
    assert set(measures) == set(REGIONS)
    assert (second.visit_id, second.label, second.mmse, second.age_years) == ("d0339", "AD", 22, 72.1)
    assert (second.marital_status, second.measures, second.segmenter) == ("widowed", (), None)
    assert second.years_from_baseline == pytest.approx(339 / 365.25)


def test_two_people_on_the_same_days_keep_their_own(tmp_path: Path) -> None:
    # A join by day alone gives both what the first one has.
    tables = {
        DEMOGRAPHICS: (person(ANN), person(BOB, sex="1", education="12", apoe="33")),
        CDR: (visit(ANN, 0, mmse="30", cdr="0"), visit(BOB, 0, mmse="17", cdr="1")),
        MARITAL: (marital(BOB, 0, "3"), marital(ANN, 0, "5")),
        DIAGNOSES: (diagnosis(BOB, 0, DEMENTED="1", alzdis="1"), diagnosis(ANN, 0, NORMCOG="1")),
        VOLUMES: (scan(BOB, 0, IntraCranialVol="1700000"),),
    }
    visits, rejected = read(tmp_path, tables)
    assert rejected == []
    assert [
        (one.label, one.mmse, one.sex, one.education_years, one.marital_status, one.apoe4_copies) for one in visits
    ] == [
        ("NC", 30, "female", 16, "never_married", 1),
        ("AD", 17, "male", 12, "divorced", 0),
    ]
    assert visits[0].measures == ()
    assert visits[1].measures[-1].value == 1.7e6


def test_scan_goes_to_the_nearest_visit_of_its_person_within_the_window(tmp_path: Path) -> None:
    tables = {
        DEMOGRAPHICS: (person(ANN), person(BOB)),
        CDR: (visit(ANN, 0), visit(ANN, 400), visit(BOB, 1500)),
        VOLUMES: (
            scan(ANN, 200, IntraCranialVol="1000000"),  # as far from both: the earlier
            scan(ANN, 410, IntraCranialVol="1100000"),
            scan(ANN, 430, IntraCranialVol="1200000"),  # another is nearer
            scan(ANN, 766, IntraCranialVol="1300000"),  # 366 days
            scan(BOB, 401),  # Ann's visit is no visit of Bob's
            scan("OAS39003", 0),
        ),
    }
    visits, rejected = read(tmp_path, tables)
    assert [(one.visit_id, one.measures[-1].value if one.measures else None) for one in visits] == [
        ("d0000", 1.0e6),
        ("d0400", 1.1e6),
        ("d1500", None),
    ]
    far = "no clinical visit of this person within 365 days"
    assert sorted((row.source, row.reason) for row in rejected) == [
        (f"{VOLUMES}.csv:4", "another row is nearer to the same visit"),
        (f"{VOLUMES}.csv:5", far),
        (f"{VOLUMES}.csv:6", far),
        (f"{VOLUMES}.csv:7", far),
    ]


@pytest.mark.parametrize(
    ("flags", "label"),
    [
        ({"NORMCOG": "1"}, "NC"),
        ({"NORMCOG": "1", "PROBAD": ""}, "NC"),
        ({"MCIAMEM": "1"}, "MCI"),
        ({"MCIAPLUS": "1", "PROBAD": "1"}, "MCI"),
        ({"MCINON1": "1"}, "MCI"),
        ({"MCINON2": "1.0"}, "MCI"),
        ({"MCIAMEM": "1", "MCIAPLUS": "1"}, "MCI"),
        ({"DEMENTED": "1", "PROBAD": "1"}, "AD"),
        ({"DEMENTED": "1", "POSSAD": "1"}, "AD"),
        ({"DEMENTED": "1", "PROBAD": "", "POSSAD": "", "alzdis": "1"}, "AD"),
    ],
)
def test_diagnosis_of_the_form(tmp_path: Path, flags: dict[str, str], label: str) -> None:
    # The CDR says MCI; it is not asked.
    tables = {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0),), DIAGNOSES: (diagnosis(ANN, 0, **flags),)}
    (only,), rejected = read(tmp_path, tables)
    assert (only.label, only.label_source, rejected) == (label, "UDS form D1", [])


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"IMPNOMCI": "1"}, NOT_MCI),
        ({"DEMENTED": "1"}, NOT_AD),
        ({"DEMENTED": "1", "PROBAD": "", "POSSAD": ""}, NOT_AD),
    ],
)
def test_state_that_is_no_label_is_not_asked_of_the_cdr(tmp_path: Path, flags: dict[str, str], reason: str) -> None:
    tables = {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0, cdr="1"),), DIAGNOSES: (diagnosis(ANN, 0, **flags),)}
    visits, rejected = read(tmp_path, tables)
    assert visits == []
    assert [(row.source, row.reason) for row in rejected] == [(f"{CDR}.csv:2", reason)]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({}, "the form marks no cognitive state"),
        ({"NORMCOG": "1", "DEMENTED": "1"}, "the form marks several cognitive states"),
        ({"DEMENTED": "2"}, "DEMENTED has an unknown code; known are 0, 1"),
    ],
)
def test_form_that_contradicts_itself_is_set_aside_and_its_visit_too(
    tmp_path: Path, flags: dict[str, str], reason: str
) -> None:
    tables = {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0),), DIAGNOSES: (diagnosis(ANN, 0, **flags),)}
    visits, rejected = read(tmp_path, tables)
    assert visits == []
    assert [(row.source, row.reason) for row in rejected] == [
        (f"{DIAGNOSES}.csv:2", reason),
        (f"{CDR}.csv:2", "no form D1 of this day that could be used, so no diagnosis"),
    ]


def test_diagnosis_of_a_later_day_is_not_that_of_the_visit(tmp_path: Path) -> None:
    form = diagnosis(ANN, 340, DEMENTED="1", PROBAD="1")
    visits, rejected = read(tmp_path, {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0),), DIAGNOSES: (form,)})
    assert visits == []
    assert [row.reason for row in rejected] == [
        "no clinical visit of this person on that day",
        "no form D1 of this day that could be used, so no diagnosis",
    ]


@pytest.mark.parametrize(("cdr", "label"), [("0", "NC"), ("0.5", "MCI"), ("1", "AD"), ("3", "AD")])
def test_without_the_form_the_cdr_is_a_proxy(tmp_path: Path, cdr: str, label: str) -> None:
    (only,), _ = read(tmp_path, {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0, cdr=cdr),)})
    assert (only.label, only.label_source) == (label, "CDR (proxy)")


@pytest.mark.parametrize(
    ("apoe", "copies"),
    [("22", 0), ("23", 0), ("33", 0), ("24", 1), ("34", 1), ("44", 2), ("0", None), ("#N/A", None), ("", None)],
)
def test_apoe(tmp_path: Path, apoe: str, copies: int | None) -> None:
    (only,), rejected = read(tmp_path, {DEMOGRAPHICS: (person(ANN, apoe=apoe),), CDR: (visit(ANN, 0),)})
    assert (only.apoe4_copies, rejected) == (copies, [])


def test_missing_codes(tmp_path: Path) -> None:
    tables = {
        DEMOGRAPHICS: (person(ANN, sex="", education="99", apoe="", age=""),),
        CDR: tuple(visit(ANN, day, age="", mmse=code) for day, code in enumerate(("88", "95", "96", "97", "98", "-4"))),
        MARITAL: tuple(marital(ANN, day, code) for day, code in enumerate(("4", "6", "8", "9", "-4", ""))),
    }
    visits, rejected = read(tmp_path, tables)
    assert rejected == []
    assert len(visits) == 6
    unknown = [
        (one.mmse, one.age_years, one.sex, one.education_years, one.apoe4_copies, one.marital_status) for one in visits
    ]
    assert set(unknown) == {(None,) * 6}


def test_age_that_a_form_does_not_tell_is_that_at_entry_and_the_time_since(tmp_path: Path) -> None:
    tables = {DEMOGRAPHICS: (person(ANN, age="129.5"),), CDR: (visit(ANN, 100, age=""), visit(ANN, 731, age=""))}
    (only,), rejected = read(tmp_path, tables)
    assert only.age_years == pytest.approx(129.5 + 100 / 365.25)
    assert [row.reason for row in rejected] == ["the age on the day of the visit is outside 0 to 130"]


def test_day_before_entry_though_minus_one_is_the_code_of_a_missing_value(tmp_path: Path) -> None:
    early = f"{ANN},{ANN}_UDSb4_d-0001,-1,71.1,28,0.5,1,0,No dementia"
    (first, second), rejected = read(tmp_path, {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 365), early)})
    assert rejected == []
    assert (first.visit_id, first.years_from_baseline) == ("d-001", 0)
    assert second.years_from_baseline == pytest.approx(366 / 365.25)


def test_session_label_need_not_be_there(tmp_path: Path) -> None:
    headers = HEADERS | {CDR: HEADERS[CDR].replace("OASIS_session_label,", "")}
    line = visit(ANN, 30).replace(f"{ANN}_UDSb4_d0030,", "")
    lost = f"{ANN},-1,71.1,28,0.5,1,0,No dementia"
    write(tmp_path, {DEMOGRAPHICS: (person(ANN),), CDR: (line, lost)}, headers)
    rows = list(read_oasis3(tmp_path))
    assert [row.visit_id for row in rows if isinstance(row, Visit)] == ["d0030"]
    assert [row.reason for row in rows if isinstance(row, RejectedRow)] == [
        "neither days_to_visit nor a session tells the day"
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (visit(ANN, 0, age="-47.25"), "age at visit is outside 0 to 130"),
        (f"{ANN},{ANN}_UDSb4_d-39520,-39520,60,29,0,0,0,x", "days_to_visit is outside -1826 to 20000"),
        (visit(ANN, 0, mmse="31"), "MMSE is outside 0 to 30"),
        (visit(ANN, 0, cdr=""), "no CDRTOT, so no diagnosis"),
        (visit(ANN, 50, mmse="1"), "the same subject and day as an earlier row"),
    ],
)
def test_visit_that_cannot_be_used_is_set_aside_alone(tmp_path: Path, line: str, reason: str) -> None:
    tables = {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 50), line)}
    (only,), (rejected,) = read(tmp_path, tables)
    assert (only.visit_id, only.mmse) == ("d0050", 27)
    assert (rejected.source, rejected.reason) == (f"{CDR}.csv:3", reason)
    assert "OAS39" not in rejected.model_dump_json()


def test_people_who_are_told_twice(tmp_path: Path) -> None:
    tables = {
        DEMOGRAPHICS: (person(ANN), person(ANN), person(BOB, sex="1"), person(BOB), person("OAS39003"), person("x")),
        CDR: (visit(ANN, 0), visit(BOB, 0)),
    }
    (ann, bob), rejected = read(tmp_path, tables)
    assert (ann.sex, ann.education_years) == ("female", 16)
    assert (bob.sex, bob.education_years, bob.apoe4_copies) == (None, None, None)
    assert sorted((row.source.rpartition(":")[2], row.reason) for row in rejected) == [
        ("3", "the same person as an earlier row"),
        ("4", "rows about one person differ"),
        ("5", "rows about one person differ"),
        ("6", "no clinical visit of this person"),
        ("7", "the subject is not of the form OAS3NNNN"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (scan(ANN, 0, quality="Quarantined"), "FS QC Status says that the segmentation failed"),
        (scan(ANN, 0, IntraCranialVol="1500"), "IntraCranialVol is outside 900000 to 2.2e+06"),
        (scan(ANN, 0, lh_entorhinal_volume="-5"), "lh_entorhinal_volume is outside 0 to 2.2e+06"),
        (scan(ANN, 0).replace("_MR_", "-MR-"), "the session is not of the form"),
    ],
)
def test_scan_that_failed_leaves_the_visit_to_another(tmp_path: Path, line: str, reason: str) -> None:
    good = scan(ANN, 90, quality="passed WITH edits")
    (only,), (rejected,) = read(tmp_path, {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0),), VOLUMES: (line, good)})
    assert len(only.measures) == len(REGIONS)
    assert rejected.source == f"{VOLUMES}.csv:2" and rejected.reason.startswith(reason)


def test_rows_in_are_visits_and_rejected_and_what_was_joined(tmp_path: Path) -> None:
    people = tuple(f"OAS3{number:04d}" for number in range(40))
    tables = {
        DEMOGRAPHICS: tuple(person(id_) for id_ in people),
        CDR: tuple(visit(id_, day, cdr="" if day == 800 else "0") for id_ in people for day in (0, 400, 800)),
        VOLUMES: tuple(scan(id_, day) for id_ in people for day in (10, 20, 3000)),
    }
    visits, rejected = read(tmp_path, tables)
    assert len(visits) == 80
    assert len(rejected) == 40 + 80  # visits without a rating; scans too far and not the nearest
    assert sum(bool(one.measures) for one in visits) == 40


def test_header_in_another_case_and_a_second_download(tmp_path: Path) -> None:
    tables = {DEMOGRAPHICS: (person(ANN),), CDR: (visit(ANN, 0),), VOLUMES: (scan(ANN, 3),)}
    expected = read(tmp_path / "a", tables)
    write(tmp_path / "b", tables, {name: header.upper() for name, header in HEADERS.items()})
    file = next((tmp_path / "b").rglob(f"{VOLUMES}.csv"))
    file.rename(file.with_name(f"{VOLUMES} (1).csv".lower()))
    assert list(read_oasis3(tmp_path / "b")) == expected[0]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (DEMOGRAPHICS, "GENDER"),
        (DEMOGRAPHICS, "APOE"),
        (CDR, "CDRTOT"),
        (CDR, "days_to_visit"),
        (CDR, "age at visit"),
        (MARITAL, "MARISTAT"),
        (DIAGNOSES, "alzdis"),
        (DIAGNOSES, "MCINON2"),
        (VOLUMES, "lh_frontalpole_volume"),
        (VOLUMES, "MR_session"),
    ],
)
def test_missing_column_is_refused_by_name(tmp_path: Path, table: str, column: str) -> None:
    tables = dict.fromkeys((DEMOGRAPHICS, CDR, MARITAL, DIAGNOSES, VOLUMES), ())
    write(tmp_path, tables, HEADERS | {table: HEADERS[table].replace(column, "renamed")})
    with pytest.raises(StudyFileError, match=rf"{table}\.csv: no column {column}"):
        list(read_oasis3(tmp_path))
