"""OASIS-1: invented rows in the released format, and the released file itself where it lies beside the repository."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from clinical_reasoner.cohort import oasis1
from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.oasis1 import EDITED, FILLED_IN, OASIS1_SHA256, read_oasis1
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import Measure, RejectedRow
from tests.unit.cohort.fixtures.released import released_oasis1

HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
GOOD = "OAS1_9001_MR1,F,R,74,2,3,29,0,1344,0.743,1.306,N/A"


def split(found: Iterable[Visit | RejectedRow]) -> tuple[list[Visit], list[RejectedRow]]:
    rows = list(found)
    return [row for row in rows if isinstance(row, Visit)], [row for row in rows if isinstance(row, RejectedRow)]


def read(tmp_path: Path, *lines: str, header: str = HEADER) -> tuple[list[Visit], list[RejectedRow]]:
    file = tmp_path / "oasis_cross-sectional.csv"
    file.write_text("\r\n".join([header, *lines]) + "\r\n", encoding="utf-8", newline="")
    return split(read_oasis1(file))


def with_cell(column: str, value: str) -> str:
    cells = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    return ",".join((cells | {column: value}).values())


def test_full_row(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == (
        [
            Visit(
                patient_id="OAS1_9001",
                visit_id="MR1",
                cohort="OASIS-1",
                label="NC",
                label_source="CDR (proxy)",
                age_years=74,
                sex="female",
                education_level="high_school",
                mmse=29,
                measures=(
                    Measure(name="icv", value=1344e3, unit="mm3"),
                    Measure(name="whole_brain", value=0.743 * 1344 * 1000, unit="mm3"),
                ),
                warnings=(EDITED,),
                source="oasis_cross-sectional.csv:2",
            )
        ],
        [],
    )


@pytest.mark.parametrize(
    ("code", "level"),
    [
        ("1", "less_than_high_school"),
        ("2", "high_school"),
        ("3.0", "some_college"),
        ("4", "college_graduate"),
        ("5", "beyond_college"),
        ("", None),
    ],
)
def test_education_is_a_level_and_never_years(tmp_path: Path, code: str, level: str | None) -> None:
    (visit,), _ = read(tmp_path, with_cell("Educ", code))
    assert (visit.education_level, visit.education_years) == (level, None)


@pytest.mark.parametrize(("cdr", "label"), [("0", "NC"), ("0.5", "MCI"), ("1", "AD"), ("2", "AD")])
def test_label_is_the_cdr_as_a_proxy(tmp_path: Path, cdr: str, label: str) -> None:
    (visit,), _ = read(tmp_path, with_cell("CDR", cdr))
    assert (visit.label, visit.label_source) == (label, "CDR (proxy)")


def test_rescans_and_people_without_a_cdr_are_set_aside_with_two_reasons(tmp_path: Path) -> None:
    rescan = "OAS1_9001_MR2,F,R,74,,,,,1340,0.741,1.309,22"
    young = "OAS1_9002_MR1,M,R,28,,,,,1588,0.803,1.105,N/A"
    visits, rejected = read(tmp_path, GOOD, rescan, young)
    assert [visit.patient_id for visit in visits] == ["OAS1_9001"]
    assert [(row.source, row.reason) for row in rejected] == [
        ("oasis_cross-sectional.csv:3", "a rescan to test reliability, without clinical data of its own"),
        ("oasis_cross-sectional.csv:4", "no CDR, so no diagnosis"),
    ]
    assert {row.stage for row in rejected} == {"patients"}


@pytest.mark.parametrize("missing", ["", "N/A", "NA", "NaN", "nan", ".", " "])
@pytest.mark.parametrize("column", ["M/F", "Age", "Educ", "MMSE", "eTIV", "nWBV", "SES", "ASF", "Delay"])
def test_missing_value_is_unknown_and_the_row_is_used(tmp_path: Path, column: str, missing: str) -> None:
    (visit,), rejected = read(tmp_path, with_cell(column, missing))
    field = {"M/F": "sex", "Age": "age_years", "Educ": "education_level", "MMSE": "mmse"}.get(column)
    assert rejected == []
    assert field is None or getattr(visit, field) is None
    assert [one.name for one in visit.measures] == {"eTIV": [], "nWBV": ["icv"]}.get(column, ["icv", "whole_brain"])


def test_nothing_that_the_study_does_not_tell(tmp_path: Path) -> None:
    (visit,), _ = read(tmp_path, GOOD)
    assert (visit.marital_status, visit.apoe4_copies, visit.segmenter, visit.field_strength_t) == (None,) * 4
    assert visit.years_from_baseline == 0


def test_wrong_asf_is_not_read(tmp_path: Path) -> None:
    # One row of the released file has an ASF that is not 1755 / eTIV.
    assert read(tmp_path, with_cell("ASF", "1.441")) == read(tmp_path, GOOD)


def test_cdr_that_an_editor_filled_in_is_pointed_out(tmp_path: Path) -> None:
    (visit,), _ = read(tmp_path, "OAS1_9002_MR1,M,R,28,,,,0,1588,0.803,1.105,N/A")
    assert visit.warnings == (EDITED, FILLED_IN)


def test_released_file_is_told_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, GOOD)
    file = tmp_path / "oasis_cross-sectional.csv"
    monkeypatch.setattr(oasis1, "OASIS1_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    (visit,), _ = split(read_oasis1(file))
    assert visit.warnings == ()
    (edited,), _ = read(tmp_path, with_cell("SES", ""))
    assert edited == visit.model_copy(update={"warnings": (EDITED,)})


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("ID", "", "ID is not of the form OAS1_NNNN_MRN"),
        ("ID", "OAS2_9001_MR1", "ID is not of the form OAS1_NNNN_MRN"),
        ("ID", "OAS1_9001", "ID is not of the form OAS1_NNNN_MRN"),
        ("ID", "OAS1_9001_MR1; DROP", "ID is not of the form OAS1_NNNN_MRN"),
        ("ID", "OAS1_٩٩٩٩_MR1", "ID is not of the form OAS1_NNNN_MRN"),
        ("M/F", "X", "M/F has an unknown code; known are F, M"),
        ("Age", "740", "Age is outside 0 to 130"),
        ("Age", "old", "Age is not a number"),
        ("Educ", "16", "Educ has an unknown code; known are 1, 2, 3, 4, 5"),
        ("MMSE", "31", "MMSE is outside 0 to 30"),
        ("MMSE", "28.5", "MMSE is not a whole number"),
        ("CDR", "0.7", "CDR is none of 0, 0.5, 1, 2, 3"),
        ("CDR", "7", "CDR is outside 0 to 3"),
        ("eTIV", "1344000", "eTIV is outside 900 to 2200"),
        ("eTIV", "134", "eTIV is outside 900 to 2200"),
        ("eTIV", "inf", "eTIV is outside 900 to 2200"),
        ("nWBV", "74.3", "nWBV is outside 0.3 to 1"),
    ],
)
def test_bad_value_sets_its_row_alone_aside_and_is_not_repeated(
    tmp_path: Path, column: str, value: str, reason: str
) -> None:
    other = GOOD.replace("9001", "9003")
    visits, rejected = read(tmp_path, with_cell(column, value), other)
    assert [visit.patient_id for visit in visits] == ["OAS1_9003"]
    assert [(row.source, row.reason) for row in rejected] == [("oasis_cross-sectional.csv:2", reason)]


def test_duplicate_is_set_aside_and_case_and_order_do_not_matter(tmp_path: Path) -> None:
    columns = HEADER.lower().split(",")[::-1]
    reordered = ",".join(GOOD.split(",")[::-1])
    visits, rejected = read(
        tmp_path, reordered, reordered.replace("OAS1_9001_MR1", "oas1_9001_mr1"), header=",".join(columns)
    )
    assert visits == read(tmp_path, GOOD)[0]
    assert [row.reason for row in rejected] == ["the same subject and visit as an earlier row"]


def test_columns_that_others_added_are_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, f"{GOOD},disc1,CLASS", header=f"{HEADER},DISC,CLASS") == read(tmp_path, GOOD)


@pytest.mark.parametrize("name", ["ID", "M/F", "Age", "Educ", "MMSE", "CDR", "eTIV", "nWBV"])
def test_renamed_column_is_refused_by_name(tmp_path: Path, name: str) -> None:
    header = ",".join(f"{one}_new" if one == name else one for one in HEADER.split(","))
    with pytest.raises(StudyFileError, match=rf"oasis_cross-sectional\.csv: no column {name}"):
        read(tmp_path, GOOD, header=header)


def test_file_of_oasis_2_is_refused(tmp_path: Path) -> None:
    header = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"
    with pytest.raises(StudyFileError, match="no column ID; it has Subject ID"):
        read(tmp_path, header=header)


def test_released_file() -> None:
    file = released_oasis1()
    if file is None:
        pytest.skip("no shared/data/oasis_cross-sectional.csv beside the repository; OASIS-1 is not ours to ship")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == OASIS1_SHA256
    visits, rejected = split(read_oasis1(file))
    assert len(visits) + len(rejected) == 436
    assert sorted(Counter(row.reason for row in rejected).values()) == [20, 181]
    assert not any("OAS1" in row.model_dump_json() for row in rejected)
    assert len(visits) == len({visit.patient_id for visit in visits}) == 235
    assert Counter(visit.label for visit in visits) == {"NC": 135, "MCI": 70, "AD": 30}
    assert Counter(visit.label for visit in visits if (visit.age_years or 0) >= 60) == {"NC": 98, "MCI": 70, "AD": 30}
    assert all(visit.education_level and visit.mmse is not None and visit.sex for visit in visits)
    assert {(visit.education_years, visit.marital_status, visit.apoe4_copies) for visit in visits} == {(None,) * 3}
    assert {tuple(one.name for one in visit.measures) for visit in visits} == {("icv", "whole_brain")}
    assert {visit.warnings for visit in visits} == {()}
