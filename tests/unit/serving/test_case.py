"""From the body of a request to what the models read."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.serving.case import example_requests, read_case
from clinical_reasoner.serving.schema import request_model
from tests.unit.serving.engines import TASK

MODEL = request_model(TASK, max_description_chars=8000)
PATIENT = {
    "age_years": 74.6,
    "sex": "female",
    "mmse": 22,
    "findings": {"frontal_atrophy": "No", "hippocampal_atrophy": "Severe"},
}


def test_structured_patient_becomes_the_description_of_the_batch_stages() -> None:
    case = read_case(MODEL.model_validate({"patient": PATIENT}), TASK)
    assert case.description.split("\n") == [
        "The patient is 74 years old and is a woman. "
        "The patient scored 22 out of 30 on the Mini-Mental State Examination (MMSE).",
        "",
        "Brain MRI:",
        "Severe hippocampal atrophy.",
        "No frontal atrophy.",
        "",
        TASK.question_text(),
    ]
    assert case.evidence.fields == {"age_years": "74", "sex": "female", "mmse": "22"}
    assert not case.free_text


@pytest.mark.parametrize("ending", ["", f"\n\n{TASK.question_text()}"])
def test_ready_description_gets_the_question_once_and_is_read_back(ending: str) -> None:
    body = {"description": f"The patient is 74 years old.\nMild frontal atrophy.{ending}"}
    case = read_case(MODEL.model_validate(body), TASK)
    assert case.description == f"The patient is 74 years old.\nMild frontal atrophy.\n\n{TASK.question_text()}"
    assert case.evidence.grades == {"frontal_atrophy": "Mild"}
    assert case.free_text


def test_what_the_client_says_stands_before_a_label_map() -> None:
    grades = {"hippocampal_atrophy": "No", "amygdala_atrophy": "Mild"}
    case = read_case(MODEL.model_validate({"patient": PATIENT}), TASK, grades=grades, warnings=("no face",))
    assert case.evidence.grades == {
        "hippocampal_atrophy": "Severe", "amygdala_atrophy": "Mild", "frontal_atrophy": "No",
    }  # fmt: skip
    assert case.grades == {"amygdala_atrophy": "Mild"}
    assert case.warnings == ("no face",)


def test_a_label_map_beside_a_ready_description_is_not_passed_over_in_silence() -> None:
    body = MODEL.model_validate({"description": "The patient is 74 years old."})
    case = read_case(body, TASK, grades={"amygdala_atrophy": "Mild"})
    assert "amygdala" not in case.description
    assert any("were not used" in warning for warning in case.warnings)


def test_examples_of_the_documentation_are_good_requests_about_the_same_patient() -> None:
    exemplar = load_exemplars(TASK.exemplars, TASK)[0]
    examples: dict[str, Any] = example_requests(MODEL, exemplar, TASK)
    cases = [read_case(MODEL.model_validate(body), TASK) for body in examples.values()]
    assert set(examples) == {"patient", "description"}
    assert cases[0].evidence == cases[1].evidence
