"""What the client gets: calibrated probabilities, the set of labels, and each claim judged at its place."""

from __future__ import annotations

import pytest

from clinical_reasoner import __version__
from clinical_reasoner.operating_point import OperatingPoint, Tier
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.cascade import Routing
from clinical_reasoner.serving.case import read_case
from clinical_reasoner.serving.panel import Panel, Reading, student_role, teacher_role
from clinical_reasoner.serving.response import judged_claims, response_of
from clinical_reasoner.serving.schema import request_model
from tests.unit.conftest import student_of
from tests.unit.serving.engines import RATIONALE, TASK

MODEL = request_model(TASK, max_description_chars=8000)
CASE = read_case(MODEL.model_validate({"patient": {"mmse": 22, "findings": {"hippocampal_atrophy": "Severe"}}}), TASK)
POINT = OperatingPoint(
    task=TASK.name,
    labels=TASK.label_names,
    prompt_version="v1",
    student=Tier(model="rationale_then_label", ask="diagnose", temperature=2.0, quantile=0.8, visits=100),
    threshold=0.7,
    refer_below=0.5,
    coverage=0.9,
    target="test",
)
PANEL = Panel(
    TASK, student_role(student_of("rationale_then_label")), teacher_role("someone/teacher", NO_EXEMPLARS), 0.8, POINT
)
ALONE = Routing("student", "asked_for", "student asked for")


def test_response_says_everything_about_the_answer() -> None:
    response = response_of(CASE, PANEL, Reading("MCI", RATIONALE, (0.15, 0.7, 0.15)), ALONE, "id-1")
    assert (response.diagnosis, response.option, response.diagnosis_text) == ("MCI", "B", "mild cognitive impairment")
    assert response.probabilities == {"AD": 0.15, "MCI": 0.7, "NC": 0.15}
    assert (response.prediction_set, response.coverage, response.calibrated) == (("MCI",), 0.9, True)
    assert [(claim.name, claim.value, claim.verdict) for claim in response.claims] == [
        ("mmse", "22", "supported"),
        ("hippocampal_atrophy", "Mild", "contradicted"),
        ("amygdala_atrophy", "Severe", "not_in_evidence"),
    ]
    assert (response.version, response.request_id, response.prompt_version) == (__version__, "id-1", "v1")
    assert response.operating_point == POINT.version
    assert "Research use only" in response.research_use_only


@pytest.mark.parametrize(
    ("probabilities", "admitted"),
    [((0.5, 0.3, 0.2), ("AD", "MCI", "NC")), ((0.6, 0.25, 0.15), ("AD", "MCI")), ((0.1, 0.1, 0.8), ("NC",))],
)
def test_the_set_has_what_cannot_be_ruled_out(probabilities: tuple[float, ...], admitted: tuple[str, ...]) -> None:
    response = response_of(CASE, PANEL, Reading("AD", None, probabilities), ALONE, "id-1")
    assert response.prediction_set == admitted


def test_a_model_that_was_not_calibrated_has_no_set() -> None:
    routing = Routing("teacher", "asked_for", "teacher asked for")
    response = response_of(CASE, PANEL, Reading("AD", None, (0.8, 0.1, 0.1)), routing, "id-1")
    assert (response.calibrated, response.prediction_set, response.coverage) == (False, None, None)


@pytest.mark.parametrize("text", [RATIONALE, RATIONALE.replace(" ", "\n  "), f"  {RATIONALE}\n"])
def test_claims_are_found_where_they_stand(text: str) -> None:
    stretches = [" ".join(text[claim.start : claim.end].split()) for claim in judged_claims(text, CASE.evidence, TASK)]
    plain = " ".join(text.split())
    assert len(stretches) == 3
    assert all(stretch and stretch in plain for stretch in stretches)
    assert "22" in stretches[0] and "hippocampal atrophy" in stretches[1] and "severe amygdala" in stretches[2]
