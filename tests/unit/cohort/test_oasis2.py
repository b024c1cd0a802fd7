"""OASIS-2: invented rows in the released format; the label is that of the visit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clinical_reasoner.cohort import oasis2
from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.oasis1 import EDITED
from clinical_reasoner.cohort.oasis2 import read_oasis2
from clinical_reasoner.cohort.visits import Visit, choose_visits
from clinical_reasoner.records import Measure, RejectedRow

HEADER = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"
FIRST = "OAS2_9001,OAS2_9001_MR1,Converted,1,0,F,R,74,12,3,29,0,1344,0.743,1.306"
THIRD = "OAS2_9001,OAS2_9001_MR3,Converted,3,731,F,R,76,12,3,24,0.5,1346,0.731,1.304"


def read(tmp_path: Path, *lines: str, header: str = HEADER) -> tuple[list[Visit], list[RejectedRow]]:
    file = tmp_path / "oasis_longitudinal.csv"
    file.write_text("\r\n".join([header, *lines]) + "\r\n", encoding="utf-8", newline="")
    rows = list(read_oasis2(file))
    return [row for row in rows if isinstance(row, Visit)], [row for row in rows if isinstance(row, RejectedRow)]


def with_cell(column: str, value: str) -> str:
    cells = dict(zip(HEADER.split(","), FIRST.split(","), strict=True))
    return ",".join((cells | {column: value}).values())


def test_full_rows_of_one_person(tmp_path: Path) -> None:
    visits, rejected = read(tmp_path, FIRST, THIRD)
    assert rejected == []
    assert visits[0] == Visit(
        patient_id="OAS2_9001",
        visit_id="MR1",
        cohort="OASIS-2",
        label="NC",
        label_source="CDR (proxy)",
        age_years=74,
        sex="female",
        education_years=12,
        mmse=29,
        measures=(
            Measure(name="icv", value=1344e3, unit="mm3"),
            Measure(name="whole_brain", value=0.743 * 1344 * 1000, unit="mm3"),
        ),
        warnings=(EDITED,),
        source="oasis_longitudinal.csv:2",
    )
    later = visits[1]
    assert (later.visit_id, later.label, later.age_years, later.mmse) == ("MR3", "MCI", 76, 24)
    assert later.years_from_baseline == pytest.approx(731 / 365.25)
    assert (later.education_level, later.marital_status, later.apoe4_copies) == (None, None, None)


def test_released_file_is_told_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, FIRST)
    released = hashlib.sha256((tmp_path / "oasis_longitudinal.csv").read_bytes()).hexdigest()
    monkeypatch.setattr(oasis2, "OASIS2_SHA256", released)
    assert read(tmp_path, FIRST)[0][0].warnings == ()
    assert [one.warnings for one in read(tmp_path, FIRST, THIRD)[0]] == [(EDITED,)] * 2


@pytest.mark.parametrize("group", ["Converted", "Nondemented", "Demented", "", "a new group"])
@pytest.mark.parametrize(("cdr", "label"), [("0", "NC"), ("0.5", "MCI"), ("1", "AD"), ("2", "AD")])
def test_group_is_never_used(tmp_path: Path, group: str, cdr: str, label: str) -> None:
    line = with_cell("CDR", cdr).replace("Converted", group)
    (visit,), _ = read(tmp_path, line)
    assert visit.label == label
    assert read(tmp_path, line.replace(f",{group},1,0,", ",Converted,1,0,", 1))[0] == [visit]


def test_group_need_not_be_there(tmp_path: Path) -> None:
    header = HEADER.replace("Group,Visit,", "")
    assert read(tmp_path, FIRST.replace("Converted,1,", ""), header=header) == read(tmp_path, FIRST)


def test_visits_are_ordered_by_delay_and_not_by_line(tmp_path: Path) -> None:
    visits, _ = read(tmp_path, THIRD, FIRST)
    assert [visit.visit_id for visit in choose_visits(visits, "baseline")] == ["MR1"]
    assert [visit.visit_id for visit in choose_visits(visits, "last")] == ["MR3"]


def test_visits_of_two_people_with_the_same_number_are_not_mixed(tmp_path: Path) -> None:
    other = FIRST.replace("9001", "9002").replace(",29,0,", ",17,1,").replace(",F,", ",M,")
    visits, rejected = read(tmp_path, FIRST, other, THIRD, THIRD.replace("9001", "9002").replace(",F,", ",M,"))
    assert rejected == []
    assert [(visit.patient_id, visit.visit_id, visit.mmse, visit.sex) for visit in visits] == [
        ("OAS2_9001", "MR1", 29, "female"),
        ("OAS2_9002", "MR1", 17, "male"),
        ("OAS2_9001", "MR3", 24, "female"),
        ("OAS2_9002", "MR3", 24, "male"),
    ]


@pytest.mark.parametrize("missing", ["", "N/A", "NA", "NaN", "."])
@pytest.mark.parametrize(
    ("column", "field"), [("SES", None), ("MMSE", "mmse"), ("EDUC", "education_years"), ("M/F", "sex")]
)
def test_missing_value_is_unknown_and_the_row_is_used(
    tmp_path: Path, column: str, field: str | None, missing: str
) -> None:
    (visit,), rejected = read(tmp_path, with_cell(column, missing))
    assert rejected == []
    assert field is None or getattr(visit, field) is None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("MRI ID", "", "MRI ID is not of the form OAS2_NNNN_MRN"),
        ("MRI ID", "OAS1_9001_MR1", "MRI ID is not of the form OAS2_NNNN_MRN"),
        ("MRI ID", "OAS2_9009_MR1", "Subject ID and MRI ID name different subjects"),
        ("Subject ID", "", "Subject ID and MRI ID name different subjects"),
        ("MR Delay", "", "no MR Delay, so no place among the person's visits"),
        ("MR Delay", "-20", "MR Delay is outside 0 to 21900"),
        ("MR Delay", "1e9", "MR Delay is outside 0 to 21900"),
        ("CDR", "", "no CDR, so no diagnosis"),
        ("CDR", "0.3", "CDR is none of 0, 0.5, 1, 2, 3"),
        ("EDUC", "99", "EDUC is outside 0 to 40"),
        ("M/F", "female", "M/F has an unknown code; known are F, M"),
        ("eTIV", "0.1", "eTIV is outside 900 to 2200"),
    ],
)
def test_bad_value_sets_its_row_alone_aside(tmp_path: Path, column: str, value: str, reason: str) -> None:
    visits, rejected = read(tmp_path, with_cell(column, value), THIRD)
    assert [visit.visit_id for visit in visits] == ["MR3"]
    assert [(row.source, row.reason) for row in rejected] == [("oasis_longitudinal.csv:2", reason)]


def test_duplicates_and_a_second_sex_are_set_aside(tmp_path: Path) -> None:
    lines = (FIRST, FIRST.lower().replace(",f,", ",F,"), THIRD.replace(",F,", ",M,"))
    visits, rejected = read(tmp_path, *lines)
    assert [visit.visit_id for visit in visits] == ["MR1"]
    assert [row.reason for row in rejected] == [
        "the same subject and visit as an earlier row",
        "sex differs from that of an earlier row of the same person",
    ]


@pytest.mark.parametrize("header", [HEADER.upper(), HEADER.lower(), HEADER.replace(" ", ".").replace("/", ".")])
def test_case_and_what_r_makes_of_names(tmp_path: Path, header: str) -> None:
    assert read(tmp_path, FIRST, header=header) == read(tmp_path, FIRST)


@pytest.mark.parametrize("name", ["Subject ID", "MRI ID", "MR Delay", "EDUC", "CDR"])
def test_missing_column_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyFileError, match=rf"oasis_longitudinal\.csv: no column {name}"):
        read(tmp_path, FIRST, header=HEADER.replace(name, "other"))


def test_file_of_oasis_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="no column Subject ID"):
        read(tmp_path, header="ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay")
