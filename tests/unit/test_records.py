"""The tables between stages: every row goes through Arrow and comes back as it was."""

from __future__ import annotations

from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from clinical_reasoner.records import (
    FINDINGS,
    PATIENTS,
    PREDICTIONS,
    RATIONALES,
    REJECTED,
    FindingsRow,
    FindingValue,
    Measure,
    PatientRow,
    PredictionRow,
    RationaleRow,
    RejectedRow,
    Split,
    to_table,
)

VISIT: dict[str, Any] = {"patient_id": "p1", "visit_id": "bl", "split": "train"}
RATIONALE: dict[str, Any] = {
    **VISIT,
    "row_id": "p1|bl|diagnose|0",
    "ask": "diagnose",
    "sample": 0,
    "model": "m",
    "prompt_version": "v1",
    "shots": 3,
    "seed": 0,
    "text": "",
    "claims_supported": 4,
    "claims_contradicted": 0,
    "claims_not_in_evidence": 1,
    "accepted": False,
    "prompt_tokens": 10,
    "output_tokens": 5,
}
GRADED = (
    FindingValue(name="a", grade="No", source="cohort"),
    FindingValue(name="b", value=-1.5, unit="w", w_score=-1.5, grade="Mild", source="w-score"),
)

ROWS = [
    (PatientRow(**VISIT, cohort="c"), PATIENTS),
    (
        PatientRow(
            **VISIT,
            cohort="c",
            label="AD",
            age_years=75.5,
            sex="female",
            education_years=12.0,
            marital_status="never_married",
            mmse=0,
            apoe4_copies=0,
            measures=(Measure(name="a", value=-1.25, unit="w"), Measure(name="b", value=3100.0, unit="mm3")),
            image_path="t1.nii.gz",
            segmentation_path="seg.nii.gz",
        ),
        PATIENTS,
    ),
    (FindingsRow(**VISIT, description=""), FINDINGS),
    (FindingsRow(**VISIT, label="AD", description="d\n\nq", slice_paths=("a.png", "b.png"), findings=GRADED), FINDINGS),
    (RationaleRow(**RATIONALE), RATIONALES),
    (
        RationaleRow(
            **RATIONALE | {"accepted": True, "text": "w\nDiagnosis: (A)"},
            label="AD",
            rationale="w",
            predicted="AD",
            probabilities=(0.5, 0.25, 0.25),
            reject_reason="none",
            exemplars=("a", "b", "c"),
        ),
        RATIONALES,
    ),
    (PredictionRow(**VISIT, model="m", arm="direct", label="AD"), PREDICTIONS),
    (
        PredictionRow(
            **VISIT,
            model="m",
            arm="direct",
            label="AD",
            predicted="NC",
            probabilities=(0.0, 1.0),
            rationale="because",
            seconds=0.5,
            confidence=0.6,
            seed=3,
        ),
        PREDICTIONS,
    ),
    (RejectedRow(source="file.csv:3", stage="patients", reason="mmse: too large"), REJECTED),
]


@pytest.mark.parametrize(("row", "schema"), ROWS, ids=lambda value: type(value).__name__)
def test_row_comes_back_from_parquet_as_it_was(row: BaseModel, schema: pa.Schema) -> None:
    stream = pa.BufferOutputStream()
    pq.write_table(to_table([row], schema), stream)
    (read,) = pq.read_table(pa.BufferReader(stream.getvalue())).cast(schema).to_pylist()
    assert type(row).model_validate(read) == row
    for name, value in row.model_dump().items():
        assert (read[name] is None) == (value is None), name


@pytest.mark.parametrize(("row", "schema"), ROWS[::2], ids=lambda value: type(value).__name__)
def test_table_has_the_columns_of_the_row_also_when_empty(row: BaseModel, schema: pa.Schema) -> None:
    assert schema.names == list(type(row).model_fields)
    assert to_table([], schema).schema.equals(schema)
    assert to_table([], schema).num_rows == 0
    assert to_table([row, row], schema).schema.equals(schema)


@given(
    age=st.none() | st.floats(0, 130),
    mmse=st.none() | st.integers(0, 30),
    split=st.sampled_from(get_args(Split)),
    patient=st.text(st.characters(exclude_categories=["Cs"])),
    w_scores=st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_any_patient_comes_back(
    age: float | None, mmse: int | None, split: Split, patient: str, w_scores: list[float]
) -> None:
    measures = tuple(Measure(name=f"m{index}", value=value, unit="w") for index, value in enumerate(w_scores))
    row = PatientRow(
        patient_id=patient, visit_id="bl", cohort="c", split=split, age_years=age, mmse=mmse, measures=measures
    )
    (read,) = to_table([row], PATIENTS).to_pylist()
    assert PatientRow.model_validate(read) == row


@pytest.mark.parametrize(
    "values",
    [
        {"mmse": 31},
        {"mmse": -1},
        {"mmse": 20.5},
        {"apoe4_copies": 3},
        {"age_years": -4.0},
        {"age_years": 131.0},
        {"age_years": float("nan")},
        {"education_years": 41.0},
        {"sex": "F"},
        {"marital_status": "Married"},
        {"split": "dev"},
        {"weight_kg": 70.0},
    ],
)
def test_code_numbers_and_unknown_values_are_no_patient(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PatientRow(**{**VISIT, "cohort": "c", **values})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_measure_is_a_number(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Measure(name="a", value=value, unit="w")


def test_rows_are_frozen() -> None:
    row = PatientRow(**VISIT, cohort="c")
    with pytest.raises(ValidationError, match="frozen"):
        row.split = "test"  # type: ignore[misc]
