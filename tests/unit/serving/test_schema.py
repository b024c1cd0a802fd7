"""What a request may hold, and what a client is told when it holds something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.records import PatientRow
from clinical_reasoner.serving.schema import (
    MOST_ERRORS,
    DiagnoseRequest,
    field_errors,
    names_in,
    problem,
    request_model,
)
from clinical_reasoner.task import load_task

TASK = load_task("configs/tasks/alzheimers.yaml")
MODEL = request_model(TASK, max_description_chars=200)
CANARY = "Zebulon Quackenbush of Ulverston"


def errors_of(body: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        MODEL.model_validate(body)
    return {error.field: error.message for error in field_errors(caught.value.errors(), names_in(MODEL))}


@pytest.mark.parametrize(
    "body",
    [
        {"description": "The patient is 74 years old."},
        {"patient": {"age_years": 74}, "model": "teacher"},
        {"patient": {"age_years": None, "mmse": 24, "findings": {}}},
        {"patient": {"findings": {"hippocampal_atrophy": "Severe", "frontal_atrophy": None}}, "model": "student"},
    ],
)
def test_good_requests(body: dict[str, Any]) -> None:
    assert isinstance(MODEL.model_validate(body), DiagnoseRequest)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "patient", "either patient or description"),
        ({"patient": {"mmse": 24}, "description": "x"}, "description", "not both"),
        ({"patient": {}}, "patient", "at least one field or finding"),
        ({"patient": {"mmse": None, "findings": {"frontal_atrophy": None}}}, "patient", "at least one"),
        ({"description": " \n"}, "description", "blank"),
        ({"description": "x" * 201}, "description", "at most 200 characters"),
        ({"description": 7}, "description", "valid string"),
        ({"description": "x", "model": "oracle"}, "model", "'student', 'teacher' or 'auto'"),
        ({"description": "x", "label": "AD"}, "(unknown)", "unknown field"),
        ({"patient": {"mmse": 31}}, "patient.mmse", "less than or equal to 30"),
        ({"patient": {"mmse": -1}}, "patient.mmse", "greater than or equal to 0"),
        ({"patient": {"mmse": 24.5}}, "patient.mmse", "valid integer"),
        ({"patient": {"mmse": "24"}}, "patient.mmse", "valid integer"),
        ({"patient": {"mmse": True}}, "patient.mmse", "valid integer"),
        ({"patient": {"age_years": 131}}, "patient.age_years", "less than or equal to 130"),
        ({"patient": {"age_years": float("nan")}}, "patient.age_years", "130"),
        ({"patient": {"education_years": 41}}, "patient.education_years", "less than or equal to 40"),
        ({"patient": {"apoe4_copies": 3}}, "patient.apoe4_copies", "less than or equal to 2"),
        ({"patient": {"sex": "f"}}, "patient.sex", "'female' or 'male'"),
        ({"patient": {"marital_status": "single"}}, "patient.marital_status", "'never_married'"),
        ({"patient": {"label": "AD"}}, "patient.(unknown)", "unknown field"),
        ({"patient": {"findings": {"atrophy": "No"}}}, "patient.findings.(unknown)", "'frontal_atrophy'"),
        ({"patient": {"findings": {"frontal_atrophy": "no"}}}, "patient.findings.frontal_atrophy", "'No', 'Mild'"),
        ({"patient": {"findings": {CANARY: "No"}}}, "patient.findings.(unknown)", "'frontal_atrophy'"),
        ({"patient": "x"}, "patient", "JSON object"),
        ([], "(body)", "JSON object"),
    ],
)
def test_bad_requests_name_the_field_and_what_is_allowed(body: Any, field: str, message: str) -> None:
    errors = errors_of(body)
    assert list(errors) == [field]
    assert message in errors[field]


def test_all_errors_come_together() -> None:
    body = {"patient": {"mmse": 99, "sex": "x", "findings": {"frontal_atrophy": "Huge"}}, "model": "x"}
    assert set(errors_of(body)) == {"patient.mmse", "patient.sex", "patient.findings.frontal_atrophy", "model"}


@pytest.mark.parametrize(
    "body",
    [
        CANARY,
        [CANARY],
        {CANARY: 1},
        {"description": [CANARY]},
        {"description": CANARY * 20},
        {"description": CANARY, "patient": {"mmse": 24}},
        {"description": CANARY, "model": CANARY},
        {"patient": CANARY},
        {"patient": {CANARY: CANARY}},
        {"patient": {"Zebulon": 1, "Quackenbush_of_Ulverston": 2}, "Zebulon": 3},
        {"patient": {"age_years": CANARY, "sex": CANARY, "mmse": CANARY, "apoe4_copies": CANARY}},
        {"patient": {"findings": CANARY}},
        {"patient": {"findings": {"frontal_atrophy": CANARY, CANARY: CANARY}}},
    ],
)
def test_problems_repeat_nothing_that_was_sent(body: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        MODEL.model_validate(body)
    told = problem(
        422, "the request cannot be used", field_errors(caught.value.errors(), names_in(MODEL))
    ).model_dump_json()
    assert not [word for word in CANARY.split() if word in told]


def test_of_many_errors_the_first_are_told_and_the_others_counted() -> None:
    with pytest.raises(ValidationError) as caught:
        MODEL.model_validate({"patient": {"mmse": 99, **{f"key_{number}": number for number in range(1000)}}})
    errors = field_errors(caught.value.errors(), names_in(MODEL))
    assert len(errors) == MOST_ERRORS + 1
    assert errors[0].field == "patient.mmse"
    assert (errors[-1].field, errors[-1].message) == ("(body)", f"{1001 - MOST_ERRORS} more errors")


def test_a_body_that_is_no_json_has_no_field() -> None:
    with pytest.raises(ValidationError) as caught:
        MODEL.model_validate_json(f'{{"description": "{CANARY}')
    (error,) = field_errors(caught.value.errors(), names_in(MODEL))
    assert (error.field, error.message) == ("(body)", "not valid JSON")


def test_problem_is_rfc_9457() -> None:
    told = json.loads(problem(422, "the request cannot be used").model_dump_json())
    assert told == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "the request cannot be used",
        "errors": [],
    }


def test_patient_has_the_fields_of_the_task_with_the_bounds_of_the_table() -> None:
    patient = MODEL.model_json_schema()["$defs"]["Patient"]["properties"]
    assert set(patient) == {"findings", *(field.name for field in TASK.fields)}
    table = PatientRow.model_json_schema()["properties"]
    for field in TASK.fields:
        assert patient[field.name]["anyOf"] == table[field.name]["anyOf"], field.name
    assert patient["findings"]["propertyNames"]["enum"] == [finding.name for finding in TASK.findings]


def test_a_value_that_the_task_has_no_words_for_is_refused() -> None:
    sentences = TASK.model_dump()["sentences"]
    for field in sentences[0]:
        if field["name"] == "marital_status":
            field["clauses"] = {"married": "is married"}
    narrow = request_model(TASK.model_validate({**TASK.model_dump(), "sentences": sentences}), 200)
    with pytest.raises(ValidationError) as caught:
        narrow.model_validate({"patient": {"marital_status": "widowed"}})
    (error,) = field_errors(caught.value.errors(), names_in(MODEL))
    assert (error.field, error.message) == ("patient.marital_status", "should be one of married")
