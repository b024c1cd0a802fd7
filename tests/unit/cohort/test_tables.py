"""A cohort from a table of one's own: what is read, and what is said about each row that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.tables import GRADE_UNIT, CohortError, read_cohort
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Measure, PatientRow, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask

SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "test": 0.3}
HEADER = "patient_id,visit_id,label,age_years,sex,education_years,marital_status,mmse,apoe4_copies,hippocampal_atrophy"
GOOD = "007,bl,AD,75.2,female,12,widowed,20,1,-1.5"


def read(path: Path, task: DiagnosisTask) -> tuple[list[PatientRow], list[RejectedRow]]:
    return read_cohort(str(path), "mine", task, SHARES, 3)


def csv(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    file = tmp_path / "cohort.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def test_full_row(tmp_path: Path, task: DiagnosisTask) -> None:
    patients, rejected = read(csv(tmp_path, GOOD), task)
    assert rejected == []
    assert patients == [
        PatientRow(
            patient_id="007",
            visit_id="bl",
            cohort="mine",
            split=split_of("007", SHARES, 3),
            label="AD",
            age_years=75.2,
            sex="female",
            education_years=12.0,
            marital_status="widowed",
            mmse=20,
            apoe4_copies=1,
            measures=(Measure(name="hippocampal_atrophy", value=-1.5, unit="w"),),
        )
    ]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "NaN", "nan"])
def test_missing_value_is_unknown_and_the_other_rows_keep_theirs(
    tmp_path: Path, task: DiagnosisTask, missing: str
) -> None:
    gaps = ",".join(["008", *[missing] * 9])
    patients, rejected = read(csv(tmp_path, GOOD, gaps), task)
    assert rejected == []
    assert patients[0].mmse == 20 and patients[0].apoe4_copies == 1
    assert patients[1] == PatientRow(patient_id="008", visit_id="bl", cohort="mine", split=split_of("008", SHARES, 3))


def test_only_the_id_is_needed(tmp_path: Path, task: DiagnosisTask) -> None:
    (patient,), _ = read(csv(tmp_path, "x1", header="patient_id"), task)
    assert (patient.patient_id, patient.visit_id, patient.label, patient.measures) == ("x1", "bl", None, ())


@pytest.mark.parametrize(
    ("value", "measure"),
    [
        ("No", (0.0, GRADE_UNIT)),
        ("Mild", (1.0, GRADE_UNIT)),
        ("Severe", (2.0, GRADE_UNIT)),
        ("severe", (2.0, GRADE_UNIT)),
        (" MILD ", (1.0, GRADE_UNIT)),
        ("-2.25", (-2.25, "w")),
        ("0", (0.0, "w")),
    ],
)
def test_finding_is_a_grade_or_a_w_score(
    tmp_path: Path, task: DiagnosisTask, value: str, measure: tuple[float, str]
) -> None:
    header = "patient_id,frontal_atrophy"
    # A second row of the other kind makes the column mixed, as people's tables are.
    (patient, _), rejected = read(csv(tmp_path, f"1,{value}", "2,Mild", header=header), task)
    assert rejected == []
    assert patient.measures == (Measure(name="frontal_atrophy", value=measure[0], unit=measure[1]),)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("label", "delirium", "label is none of AD, MCI, NC"),
        ("age_years", "-4", "age_years: "),
        ("age_years", "old", "age_years: "),
        ("sex", "F", "sex: .*'female' or 'male'"),
        ("marital_status", "cohabiting", "marital_status: .*'never_married'"),
        ("mmse", "31", "mmse: .*less than or equal to 30"),
        ("mmse", "-1", "mmse: .*greater than or equal to 0"),
        ("mmse", "20.5", "mmse: .*fractional|mmse: .*integer"),
        ("apoe4_copies", "34", "apoe4_copies: .*less than or equal to 2"),
        ("hippocampal_atrophy", "moderate", "hippocampal_atrophy: neither a grade .No, Mild, Severe. nor a w-score"),
        ("hippocampal_atrophy", "None", "hippocampal_atrophy: neither a grade"),
        ("hippocampal_atrophy", "inf", "hippocampal_atrophy: beyond"),
        ("patient_id", "", "patient_id is empty"),
    ],
)
def test_bad_value_rejects_its_row_alone_and_is_not_repeated(
    tmp_path: Path, task: DiagnosisTask, name: str, value: str, reason: str
) -> None:
    fields = dict(zip(HEADER.split(","), GOOD.replace("007", "secret-id").split(","), strict=True))
    bad = ",".join((fields | {name: value}).values())
    patients, (rejected,) = read(csv(tmp_path, GOOD, bad, GOOD.replace("007", "009")), task)
    assert [patient.patient_id for patient in patients] == ["007", "009"]
    assert rejected.source == "cohort.csv:3"
    assert rejected.stage == "patients"
    assert pd.Series([rejected.reason]).str.match(reason).all(), rejected.reason
    assert "secret-id" not in rejected.model_dump_json()
    assert value in ("", "None", "inf", "-1", "-4", "F") or value not in rejected.reason


def test_repeated_visit_is_rejected_and_a_further_visit_is_not(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = [GOOD, GOOD.replace("75.2", "75.3"), GOOD.replace("bl", "m06"), GOOD.replace("007", "7")]
    patients, rejected = read(csv(tmp_path, *lines), task)
    assert [(patient.patient_id, patient.visit_id) for patient in patients] == [
        ("007", "bl"),
        ("007", "m06"),
        ("7", "bl"),
    ]
    assert [(row.source, row.reason) for row in rejected] == [
        ("cohort.csv:3", "the same patient_id and visit_id as an earlier row")
    ]
    assert patients[0].split == patients[1].split


def test_rows_in_are_rows_out_plus_rejected(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = [GOOD.replace("007", f"{number:03d}").replace(",20,", f",{number},") for number in range(50)]
    patients, rejected = read(csv(tmp_path, *lines), task)
    assert [patient.mmse for patient in patients] == list(range(31))
    assert [row.source for row in rejected] == [f"cohort.csv:{line}" for line in range(33, 52)]


def test_empty_lines_are_no_rows_but_count_as_lines(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = ["", GOOD, "", ",,,,,,,,,", GOOD.replace("20", "31"), "", ""]
    patients, (rejected,) = read(csv(tmp_path, *lines), task)
    assert patients == read(csv(tmp_path, GOOD), task)[0]
    assert rejected.source == "cohort.csv:6"


def test_given_split_is_kept(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = ["1,test", "2,train", "3,", "4,dev"]
    patients, (rejected,) = read(csv(tmp_path, *lines, header="patient_id,split"), task)
    assert [patient.split for patient in patients] == ["test", "train", split_of("3", SHARES, 3)]
    assert rejected.source == "cohort.csv:5" and rejected.reason.startswith("split: ")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("patient_id,mmse_total", r"cohort\.csv: unknown column 'mmse_total'; known columns are .*mmse"),
        ("patient_id,Hippocampal_atrophy", "unknown column 'Hippocampal_atrophy'"),
        ("subject,mmse", "unknown column 'subject'"),
        ("visit_id,mmse", "no column 'patient_id'"),
        ("patient_id;mmse", "unknown column 'patient_id;mmse'"),
    ],
)
def test_wrong_header_names_the_column(tmp_path: Path, task: DiagnosisTask, header: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read(csv(tmp_path, "1,2", header=header), task)


def test_parquet_is_read_like_csv(tmp_path: Path, task: DiagnosisTask) -> None:
    file = tmp_path / "cohort.parquet"
    frame = pd.DataFrame(
        {
            "patient_id": ["a", "b", "c"],
            "mmse": [20.0, np.nan, 20.0],
            "label": ["CN", None, "AD"],
            "frontal_atrophy": ["Mild", None, "NaN"],
            "temporal_atrophy": [np.nan, -1.0, 0.0],
        }
    )
    frame.to_parquet(file)
    (first, second), (rejected,) = read(file, task)
    assert rejected.reason.startswith("frontal_atrophy: beyond")
    assert (first.mmse, first.label, len(first.measures)) == (20, "NC", 1)
    assert (second.mmse, second.label) == (None, None)
    assert second.measures == (Measure(name="temporal_atrophy", value=-1.0, unit="w"),)


@pytest.mark.parametrize(
    ("name", "message"), [("none.csv", "no file at"), ("cohort.xlsx", r"\.xlsx ending; use \.csv")]
)
def test_file_that_cannot_be_read(tmp_path: Path, task: DiagnosisTask, name: str, message: str) -> None:
    (tmp_path / "cohort.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, task)
