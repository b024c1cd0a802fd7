"""From a request to a response: what the models are asked, how their replies are read, who answers."""

from __future__ import annotations

import asyncio
from math import log
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner import __version__
from clinical_reasoner.llm.prompting import Message, load_exemplars, render_answer
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.records import Ask
from clinical_reasoner.serving.diagnosis import diagnose, example_requests, read_case
from clinical_reasoner.serving.panel import (
    ModelUnavailableError,
    Panel,
    Reply,
    Role,
    Unreadable,
    read_reply,
    student_role,
    teacher_role,
)
from clinical_reasoner.serving.schema import DiagnoseResponse, request_model
from clinical_reasoner.task import load_task
from tests.unit.conftest import always, student_of

TASK = load_task("configs/tasks/alzheimers.yaml")
MODEL = request_model(TASK, max_description_chars=8000)
EXEMPLARS = load_exemplars(TASK.exemplars, TASK)
FIXED = always(EXEMPLARS)
PATIENT = {
    "age_years": 74.6,
    "sex": "female",
    "mmse": 22,
    "findings": {"frontal_atrophy": "No", "hippocampal_atrophy": "Severe"},
}
FULL = ModelUnavailableError("student", 422, "the prompt does not fit into 2048 tokens")
DOWN = ModelUnavailableError("teacher", 503, "no answer (ActorDiedError)")
RATIONALE = "The MMSE score of 22 out of 30 is low. The MRI shows mild hippocampal atrophy and severe amygdala atrophy."
PANEL = Panel(
    TASK,
    student_role(student_of("rationale_then_label")),
    teacher_role("someone/teacher", FIXED, "50 to 120"),
    threshold=0.8,
)


def reply(ask: Ask, label: str, confidence: float) -> Reply:
    """An answer as the models write it, and the option letter's candidates."""
    text = render_answer(ask, RATIONALE, label, TASK)
    before, after = text.rsplit("(", 1)
    others = [option for option in TASK.options if option != after[0]]
    candidates = {after[0]: log(confidence), **{option: log((1 - confidence) / 2) for option in others}}
    return Reply(
        text, [(before, {before: 0.0}), ("(", {"(": 0.0}), (after[0], candidates), (after[1:], {after[1:]: 0.0})]
    )


def ask(
    model: str, replies: dict[str, Reply | ModelUnavailableError], panel: Panel = PANEL
) -> tuple[DiagnoseResponse | Unreadable, list[str]]:
    """The outcome of a request to `model`, and which roles were asked."""
    asked: list[str] = []

    async def ask_model(role: Role, messages: list[Message]) -> Reply:
        asked.append(role.name)
        assert [message["role"] for message in messages] == [
            "system",
            *["user", "assistant"] * role.exemplars.shots,
            "user",
        ]
        assert ("in 50 to 120 words" in messages[0]["content"]) == (role.name == "teacher")
        answer = replies[role.name]
        if isinstance(answer, ModelUnavailableError):
            raise answer
        return answer

    request = MODEL.model_validate({"patient": PATIENT, "model": model})
    return asyncio.run(diagnose(request, panel, ask_model, "id-1")), asked


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


@pytest.mark.parametrize("ending", ["", f"\n\n{TASK.question_text()}"])
def test_ready_description_gets_the_question_once_and_is_read_back(ending: str) -> None:
    case = read_case(
        MODEL.model_validate({"description": f"The patient is 74 years old.\nMild frontal atrophy.{ending}"}), TASK
    )
    assert case.description == f"The patient is 74 years old.\nMild frontal atrophy.\n\n{TASK.question_text()}"
    assert case.evidence.grades == {"frontal_atrophy": "Mild"}


@pytest.mark.parametrize(
    ("model", "student", "teacher", "answered_by", "routing", "asked"),
    [
        ("student", reply("diagnose", "AD", 0.4), None, "student", "student asked for", ["student"]),
        ("teacher", None, reply("diagnose", "NC", 0.9), "teacher", "teacher asked for", ["teacher"]),
        ("auto", reply("diagnose", "AD", 0.91), None, "student", "student confident: 0.91 >= 0.80", ["student"]),
        (
            "auto", reply("diagnose", "AD", 0.55), reply("diagnose", "MCI", 0.7),
            "teacher", "student below threshold: 0.55 < 0.80", ["student", "teacher"],
        ),
        (
            "auto", Reply("I do not know.", []), reply("diagnose", "MCI", 0.7),
            "teacher", "student gave no usable answer", ["student", "teacher"],
        ),
        (
            "auto", Reply(reply("diagnose", "AD", 0.9).text, []), reply("diagnose", "MCI", 0.7),
            "teacher", "student gave no usable answer", ["student", "teacher"],
        ),
        (
            "auto", FULL, reply("diagnose", "MCI", 0.7),
            "teacher", "student not available", ["student", "teacher"],
        ),
    ],
)  # fmt: skip
def test_who_answers(
    model: str, student: Reply, teacher: Reply, answered_by: str, routing: str, asked: list[str]
) -> None:
    outcome, was_asked = ask(model, {"student": student, "teacher": teacher})
    assert isinstance(outcome, DiagnoseResponse)
    assert (outcome.answered_by, outcome.routing, was_asked) == (answered_by, routing, asked)
    assert not outcome.degraded
    assert outcome.model == {"student": "rationale_then_label", "teacher": "someone/teacher"}[answered_by]


@pytest.mark.parametrize(
    ("teacher", "reason"), [(DOWN, "not available"), (Reply("I do not know.", []), "gave no usable answer")]
)
def test_an_unsure_student_stands_in_for_the_teacher(teacher: Reply | ModelUnavailableError, reason: str) -> None:
    outcome, asked = ask("auto", {"student": reply("diagnose", "AD", 0.55), "teacher": teacher})
    assert isinstance(outcome, DiagnoseResponse)
    assert (outcome.answered_by, outcome.degraded, asked) == ("student", True, ["student", "teacher"])
    assert outcome.routing == f"student below threshold: 0.55 < 0.80; teacher {reason}"


@pytest.mark.parametrize(
    ("model", "student", "teacher", "told"),
    [
        ("student", FULL, None, FULL),
        ("teacher", None, DOWN, DOWN),
        ("auto", FULL, DOWN, DOWN),
        ("auto", Reply("I do not know.", []), DOWN, DOWN),
    ],
)
def test_without_any_answer_the_last_model_says_why(
    model: str, student: Reply, teacher: Reply, told: ModelUnavailableError
) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        ask(model, {"student": student, "teacher": teacher})
    assert caught.value is told


def test_response_says_everything_about_the_answer() -> None:
    outcome, _ = ask("teacher", {"teacher": reply("diagnose", "MCI", 0.7)})
    assert isinstance(outcome, DiagnoseResponse)
    assert (outcome.diagnosis, outcome.option, outcome.diagnosis_text) == ("MCI", "B", "mild cognitive impairment")
    assert outcome.probabilities == pytest.approx({"AD": 0.15, "MCI": 0.7, "NC": 0.15})
    assert outcome.rationale == RATIONALE
    assert [(claim.name, claim.value, claim.verdict) for claim in outcome.claims] == [
        ("mmse", "22", "supported"),
        ("hippocampal_atrophy", "Mild", "contradicted"),
        ("amygdala_atrophy", "Severe", "not_in_evidence"),
    ]
    assert (outcome.version, outcome.request_id, outcome.prompt_version) == (__version__, "id-1", "v1")
    assert "Research use only" in outcome.research_use_only


def test_label_only_student_is_asked_directly_and_has_no_rationale() -> None:
    panel = Panel(TASK, student_role(student_of("label_only")), PANEL.teacher, threshold=0.8)
    outcome, _ = ask("student", {"student": reply("direct", "NC", 0.6)}, panel)
    assert panel.student.ask == "direct"
    assert isinstance(outcome, DiagnoseResponse)
    assert (outcome.diagnosis, outcome.rationale, outcome.claims) == ("NC", None, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty answer"),
        ("Zebulon has mild atrophy.", "no diagnosis line"),
        ("Zebulon has it.\n\nDiagnosis: (A) normal cognition", "option letter and diagnosis disagree"),
        ("Zebulon has it.\n\nDiagnosis: Zebulonitis", "diagnosis is not one of the options"),
        ("Diagnosis: (A) Alzheimer's disease", "no rationale before the diagnosis"),
    ],
)
def test_unreadable_replies_give_a_reason_without_their_text(text: str, reason: str) -> None:
    assert read_reply(Reply(text, []), PANEL.teacher, TASK) == Unreadable("teacher", reason)
    assert ask("teacher", {"teacher": Reply(text, [])}) == (Unreadable("teacher", reason), ["teacher"])


def test_teacher_is_called_by_its_hub_name_or_its_folder(tmp_path: Path) -> None:
    assert teacher_role("Qwen/Qwen3-8B", NO_EXEMPLARS).model == "Qwen/Qwen3-8B"
    (tmp_path / "teacher").mkdir()
    assert teacher_role(f"{tmp_path}/teacher/", NO_EXEMPLARS).model == "teacher"


def test_examples_of_the_documentation_are_good_requests_about_the_same_patient() -> None:
    examples: dict[str, Any] = example_requests(MODEL, EXEMPLARS[0], TASK)
    cases = [read_case(MODEL.model_validate(body), TASK) for body in examples.values()]
    assert set(examples) == {"patient", "description"}
    assert cases[0].evidence == cases[1].evidence
