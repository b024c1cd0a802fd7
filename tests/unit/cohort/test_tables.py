"""A cohort from a table of one's own: what is read, and what is said about each row that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clinical_reasoner.cohort.files import FEWEST_CODES, CohortError
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.config.cohort import DeidentifyConfig, TableCohort
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Measure, PatientRow, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask
from tests.unit.cohort.fixtures.collected import read_study

SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "test": 0.3}
HEADER = "patient_id,visit_id,label,age_years,sex,education_years,marital_status,mmse,apoe4_copies,hippocampal_atrophy"
GOOD = "007,bl,AD,75.2,female,12,widowed,20,1,-1.5"


def read(path: Path, task: DiagnosisTask) -> tuple[list[PatientRow], list[RejectedRow]]:
    return read_study(TableCohort(kind="table", path=str(path), name="mine", seed=3), task, SHARES)


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
        ("patient_id", "  ", "patient_id is empty"),
        ("visit_id", " ", "visit_id is empty"),
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
    assert value.strip() in ("", "None", "inf", "-1", "-4", "F") or value not in rejected.reason


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


def test_split_stated_at_one_visit_holds_for_the_person(tmp_path: Path, task: DiagnosisTask) -> None:
    other = next(split for split in SHARES if split != split_of("1", SHARES, 3))
    lines = [f"1,m06,{other}", "1,bl,", "2,bl,", f"1 ,m12, {other} "]
    patients, rejected = read(csv(tmp_path, *lines, header="patient_id,visit_id,split"), task)
    assert rejected == []
    splits = [(patient.patient_id, patient.split) for patient in patients]
    assert splits == [("1", other)] * 3 + [("2", split_of("2", SHARES, 3))], "the visits of a person together"


def test_split_stated_by_a_row_that_is_rejected_still_holds(tmp_path: Path, task: DiagnosisTask) -> None:
    other = next(split for split in SHARES if split != split_of("1", SHARES, 3))
    lines = [f"1,bl,{other},99", "1,m06,,20"]
    (patient,), _ = read(csv(tmp_path, *lines, header="patient_id,visit_id,split,mmse"), task)
    assert (patient.visit_id, patient.split) == ("m06", other)


def test_person_in_two_stated_splits_is_refused_and_not_named(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = ["ann,bl,test", "ann,m06,train", "bob,bl,test"]
    with pytest.raises(CohortError, match=r"cohort\.csv: column 'split' puts 1 people into two splits") as error:
        read(csv(tmp_path, *lines, header="patient_id,visit_id,split"), task)
    assert "ann" not in str(error.value)


def test_padded_ids_are_one_person_and_one_visit(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = [GOOD, GOOD.replace("007,bl", " 007 ,m06"), GOOD.replace("007,bl", "007 ,bl\t")]
    patients, (rejected,) = read(csv(tmp_path, *lines), task)
    assert [(patient.patient_id, patient.visit_id) for patient in patients] == [("007", "bl"), ("007", "m06")]
    assert rejected.reason == "the same patient_id and visit_id as an earlier row"


def test_whole_numbers_as_ids_have_no_decimals(tmp_path: Path, task: DiagnosisTask) -> None:
    file = tmp_path / "cohort.parquet"
    pd.DataFrame({"patient_id": [1.0, np.nan, 2.5], "visit_id": [6, 12, 18], "mmse": [20, 21, 22]}).to_parquet(file)
    patients, (rejected,) = read(file, task)
    assert [(patient.patient_id, patient.visit_id) for patient in patients] == [("1", "6"), ("2.5", "18")]
    assert (rejected.source, rejected.reason) == ("cohort.parquet:3", "patient_id is empty")


def test_comma_at_the_end_of_each_line_shifts_nothing(tmp_path: Path, task: DiagnosisTask) -> None:
    other = GOOD.replace("007", "008")
    expected = read(csv(tmp_path, GOOD, other), task)
    assert read(csv(tmp_path, f"{GOOD},", f"{other},"), task) == expected
    assert [patient.patient_id for patient in expected[0]] == ["007", "008"]


@pytest.mark.parametrize("lines", [[f"{GOOD},x", f"{GOOD},y"], [f"{GOOD},,", f"{GOOD},,"], [f"{GOOD},x", GOOD]])
def test_more_fields_than_the_header_names_are_refused(tmp_path: Path, task: DiagnosisTask, lines: list[str]) -> None:
    with pytest.raises(CohortError, match=r"cohort\.csv: lines have more fields than the header; name every column"):
        read(csv(tmp_path, *lines), task)


@pytest.mark.parametrize("lines", [[GOOD, f"{GOOD},"], [GOOD, f"{GOOD},x"]])
def test_one_longer_line_is_refused(tmp_path: Path, task: DiagnosisTask, lines: list[str]) -> None:
    with pytest.raises(CohortError, match=r"cohort\.csv: not readable as csv"):
        read(csv(tmp_path, *lines), task)


def finding_column(tmp_path: Path, *values: str) -> Path:
    rows = [f"{number},{value}" for number, value in enumerate(values)]
    return csv(tmp_path, *rows, header="patient_id,frontal_atrophy")


@pytest.mark.parametrize("values", [("0", "1", "2"), ("2", "", "2", "2"), ("0", "0", "0"), ("1.0", "0", "2", "NA")])
def test_grade_codes_are_not_taken_for_w_scores(tmp_path: Path, task: DiagnosisTask, values: tuple[str, ...]) -> None:
    with pytest.raises(CohortError, match="'frontal_atrophy' looks like grade codes; write No, Mild, Severe"):
        read(finding_column(tmp_path, *values), task)


@pytest.mark.parametrize("values", [("0", "1"), ("0", "1", "-1"), ("0", "1", "2", "3"), ("0", "1", "2", "0.5")])
def test_numbers_that_are_no_codes_are_w_scores(tmp_path: Path, task: DiagnosisTask, values: tuple[str, ...]) -> None:
    assert FEWEST_CODES == 3
    patients, rejected = read(finding_column(tmp_path, *values), task)
    assert rejected == []
    expected = [(Measure(name="frontal_atrophy", value=float(value), unit="w"),) for value in values]
    assert [patient.measures for patient in patients] == expected


@pytest.mark.parametrize("values", [("True", "False"), ("True", ""), ("false", "true", "NA")])
def test_truth_values_are_neither_grades_nor_w_scores(
    tmp_path: Path, task: DiagnosisTask, values: tuple[str, ...]
) -> None:
    with pytest.raises(CohortError, match="'frontal_atrophy' holds true or false; write No, Mild, Severe or a w-score"):
        read(finding_column(tmp_path, *values), task)


def test_truth_values_of_a_parquet_file(tmp_path: Path, task: DiagnosisTask) -> None:
    file = tmp_path / "cohort.parquet"
    pd.DataFrame({"patient_id": ["a", "b"], "frontal_atrophy": [True, None]}).to_parquet(file)
    with pytest.raises(CohortError, match="'frontal_atrophy' holds true or false"):
        read(file, task)


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
    row = "1;2" if ";" in header else "1,2"
    with pytest.raises(CohortError, match=message):
        read(csv(tmp_path, row, header=header), task)


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


def test_two_sexes_of_a_person_are_set_aside(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = ["1,bl,female", "1,m12,male", "2,bl,male"]
    patients, rejected = read(csv(tmp_path, *lines, header="patient_id,visit_id,sex"), task)
    assert [(patient.patient_id, patient.visit_id) for patient in patients] == [("1", "bl"), ("2", "bl")]
    assert [(row.source, row.reason) for row in rejected] == [
        ("cohort.csv:3", "sex differs from that of an earlier row of the same person")
    ]


@pytest.mark.parametrize(
    ("encoding", "header", "message"),
    [
        ("utf-16", HEADER, "not UTF-8"),
        ("utf-8", HEADER.replace(",", ";"), "part fields by commas alone"),
        ("utf-8", ",".join(["patient_id", *(f"c{number}" for number in range(100_000))]), "unknown column 'c0'"),
    ],
    ids=["utf-16", "semicolons", "100,000 columns"],
)
def test_tables_that_are_refused_whole(
    tmp_path: Path, task: DiagnosisTask, encoding: str, header: str, message: str
) -> None:
    file = tmp_path / "cohort.csv"
    file.write_text(f"{header}\n{GOOD}\n", encoding=encoding)
    with pytest.raises(CohortError, match=message):
        read(file, task)


def test_ages_and_ids_of_a_table_as_configured(
    tmp_path: Path, task: DiagnosisTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = csv(tmp_path, "John Smith,95,AD", "Ann,70,NC", header="patient_id,age_years,label")
    kept, _ = read(file, task)
    assert [(one.patient_id, one.age_years, one.at_least) for one in kept] == [
        ("John Smith", 90.0, ("age_years",)),
        ("Ann", 70.0, ()),
    ]
    monkeypatch.setenv("CLINICAL_REASONER_ID_KEY", "0123456789abcdef" * 2)
    hidden = TableCohort(kind="table", path=str(file), name="mine", deidentify=DeidentifyConfig())
    patients, _ = read_study(hidden, task, SHARES)
    assert "John" not in "".join(patient.model_dump_json() for patient in patients)
    assert [patient.patient_id for patient in patients] == sorted(patient.patient_id for patient in patients)
