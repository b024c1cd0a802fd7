"""Training examples: who is in, with which rationale and picture, and always with the recorded diagnosis."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from clinical_reasoner.distillation.examples import EXAMPLES, count_tokens, make_examples, make_prompts
from clinical_reasoner.distillation.students import Student
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.llm.prompting import render_messages
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.records import (
    FINDINGS,
    RATIONALES,
    Ask,
    Candidates,
    FindingsRow,
    RationaleRow,
    RejectedRow,
    Selected,
    Split,
    to_table,
)
from clinical_reasoner.serving import panel
from clinical_reasoner.task import DiagnosisTask
from tests.unit.conftest import ROOT, student_of

ARMS = ("label_only", "rationale_then_label", "label_then_rationale", "multi_task")
RATIONALE_ARMS = ("rationale_then_label", "label_then_rationale")
PICTURE_ONLY = "The MRI of the patient is shown in the picture."


def findings_table(task: DiagnosisTask) -> pa.Table:
    def visit(patient: str, split: Split, label: str | None, visit_id: str = "bl", picture: bool = True) -> FindingsRow:
        return FindingsRow(
            patient_id=patient,
            visit_id=visit_id,
            split=split,
            label=label,
            description=with_question(f"The patient is {patient}.", task),
            picture_path=f"pictures/{patient}-{visit_id}.png" if picture else None,
        )

    visits = [
        visit("anna", "train", "AD"),
        visit("bert", "test", "MCI"),
        visit("carl", "train", "NC"),
        visit("dora", "train", "MCI"),
        visit("emma", "train", "AD", picture=False),
        visit("anna", "train", "AD", "m06"),
        visit("finn", "validation", "NC"),
        visit("gina", "train", "NC", "m12"),
        visit("hugo", "train", None),
        visit("ines", "validation", "AD", picture=False),
        visit("jane", "validation", None),
    ]
    return to_table(visits, FINDINGS)


def written(patient: str, selected: Selected | None = "hinted", **given: Any) -> RationaleRow:
    return RationaleRow(
        **{
            "row_id": f"{patient} {selected} {given}",
            "patient_id": patient,
            "visit_id": "bl",
            "split": "train",
            "label": "NC",
            "ask": "rationalize",
            "sample": 0,
            "model": "m",
            "prompt_version": "v1",
            "shots": 3,
            "seed": 0,
            "text": "raw",
            "rationale": f"Why {patient}, {selected or 'unselected'}.",
            "predicted": "NC",
            "claims_supported": 1,
            "claims_contradicted": 0,
            "claims_not_in_evidence": 0,
            "accepted": selected is not None,
            "selected": selected,
            "prompt_tokens": 1,
            "output_tokens": 1,
        }
        | given
    )


RATIONALE_ROWS = [
    written("anna", None, rationale="The first, not selected."),
    written("anna", sample=1),
    written("anna", sample=2, rationale="A later one."),
    written("bert", split="test"),
    written("carl", None),
    written("carl", None, sample=1, rationale="A later one."),
    written("dora", "hinted"),
    written("dora", "reasoned", ask="diagnose"),
    written("emma", None, ask="direct", rationale=None),
    written("finn", split="validation"),
    written("gina", visit_id="m12"),
]


def made(
    task: DiagnosisTask, student: Student, split: Split = "train", rows: list[RationaleRow] | None = None
) -> tuple[list[dict[str, Any]], list[RejectedRow]]:
    rationales = to_table(RATIONALE_ROWS if rows is None else rows, RATIONALES).to_pylist()
    examples, rejected = make_examples(findings_table(task).to_pylist(), rationales, student, split, task)
    assert examples.schema.equals(EXAMPLES)
    assert {row.stage for row in rejected} <= {student.stage}
    return examples.to_pylist(), rejected


def visits_of(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["patient_id"], row["visit_id"]) for row in rows]


def own_arm(arm: str, *overrides: str) -> Student:
    return student_of("own", f"more_arms.own={arm}", *overrides)


def reasons(rejected: list[RejectedRow]) -> dict[str, str]:
    return {row.source.removeprefix("findings row "): row.reason for row in rejected}


TRAINED = [("anna", "bl"), ("carl", "bl"), ("dora", "bl"), ("emma", "bl"), ("anna", "m06"), ("gina", "m12")]


def test_label_only_keeps_every_visit_of_the_split_that_has_a_diagnosis(task: DiagnosisTask) -> None:
    examples, rejected = made(task, student_of("label_only"))
    assert visits_of(examples) == TRAINED
    assert reasons(rejected) == {"9": "no diagnosis"}


@pytest.mark.parametrize("arm", RATIONALE_ARMS)
def test_arm_of_rationales_has_the_visits_that_have_one(task: DiagnosisTask, arm: str) -> None:
    examples, rejected = made(task, student_of(arm))
    assert visits_of(examples) == [("anna", "bl"), ("dora", "bl"), ("gina", "m12")]
    none = "no rationale (reasoned, hinted)"
    assert reasons(rejected) == {"3": none, "5": none, "6": none, "9": "no diagnosis"}


def test_a_visit_without_rationale_keeps_the_tasks_that_need_none(task: DiagnosisTask) -> None:
    examples, rejected = made(task, student_of("multi_task"))
    asks = [(*visit, row["ask"]) for visit, row in zip(visits_of(examples), examples, strict=True)]
    assert asks == [
        ("anna", "bl", "direct"),
        ("anna", "bl", "explain"),
        ("carl", "bl", "direct"),
        ("dora", "bl", "direct"),
        ("dora", "bl", "explain"),
        ("emma", "bl", "direct"),
        ("anna", "m06", "direct"),
        ("gina", "m12", "direct"),
        ("gina", "m12", "explain"),
    ]
    assert reasons(rejected) == {"9": "no diagnosis"}
    contents = [row["completion"][0]["content"] for row in examples if row["patient_id"] == "dora"]
    assert contents == ["Diagnosis: (B) mild cognitive impairment", "Why dora, reasoned."]


@pytest.mark.parametrize(
    ("sources", "rationales"),
    [
        ("[reasoned, hinted]", {"anna": "Why anna, hinted.", "dora": "Why dora, reasoned."}),
        ("[hinted, reasoned]", {"anna": "Why anna, hinted.", "dora": "Why dora, hinted."}),
        ("[reasoned]", {"dora": "Why dora, reasoned."}),
        ("[unselected]", {"anna": "The first, not selected.", "carl": "Why carl, unselected."}),
        (
            "[reasoned, unselected, hinted]",
            {"anna": "The first, not selected.", "carl": "Why carl, unselected.", "dora": "Why dora, reasoned."},
        ),
    ],
)
def test_the_first_rationale_of_the_best_source(task: DiagnosisTask, sources: str, rationales: dict[str, str]) -> None:
    student = own_arm(f"{{answers: diagnose, tasks: {{diagnose: 1}}, rationales: {sources}}}")
    examples, rejected = made(task, student)
    found = {row["patient_id"]: row["completion"][0]["content"] for row in examples if row["visit_id"] == "bl"}
    assert {patient: text.split("\n")[0] for patient, text in found.items()} == rationales
    assert f"no rationale ({sources[1:-1]})" in reasons(rejected).values()


def test_examples_weigh_as_much_as_their_task(task: DiagnosisTask) -> None:
    student = own_arm("{answers: direct, tasks: {direct: 2, explain: 0.25}}")
    weights = {(row["ask"], row["weight"]) for row in made(task, student)[0]}
    assert weights == {("direct", 2.0), ("explain", 0.25)}


def test_soft_labels_are_the_mean_of_all_answers_of_the_teacher(task: DiagnosisTask) -> None:
    rows = [
        written("anna", None, ask="direct", rationale=None, probabilities=(1.0, 0.0, 0.0)),
        written("anna", "reasoned", ask="diagnose", probabilities=(0.5, 0.5, 0.0)),
        written("anna", "hinted", probabilities=None),
        written("dora", "hinted", probabilities=(0.0, 0.25, 0.75), visit_id="m99"),
        written("gina", "hinted", visit_id="m12"),
    ]
    student = own_arm("{answers: direct, tasks: {direct: 1, explain: 1}, soft_labels: 0.5}")
    soft = {
        (row["patient_id"], row["visit_id"], row["ask"]): row["soft_label"]
        for row in made(task, student, "train", rows)[0]
    }
    assert soft["anna", "bl", "direct"] == pytest.approx([0.75, 0.25, 0.0])
    assert {key: value for key, value in soft.items() if value is not None}.keys() == {("anna", "bl", "direct")}
    assert {("anna", "bl", "explain"), ("gina", "m12", "direct")} <= soft.keys(), "an explanation names no diagnosis"
    hard = own_arm("{answers: direct, tasks: {direct: 1}}")
    assert {row["soft_label"] for row in made(task, hard, "train", rows)[0]} == {None}


@pytest.mark.parametrize(
    ("arm", "split", "patients"),
    [("label_only", "test", ["bert"]), ("rationale_then_label", "validation", ["finn"])],
)
def test_only_the_asked_split(task: DiagnosisTask, arm: str, split: Split, patients: list[str]) -> None:
    examples, _ = made(task, student_of(arm), split)
    assert [row["patient_id"] for row in examples] == patients


@pytest.mark.parametrize("arm", ARMS)
def test_answer_is_the_recorded_diagnosis_and_can_be_parsed(task: DiagnosisTask, arm: str) -> None:
    recorded = {row["patient_id"]: row["label"] for row in findings_table(task).to_pylist()}
    rationales = {"anna": "Why anna, hinted.", "dora": "Why dora, reasoned.", "gina": "Why gina, hinted."}
    examples, _ = made(task, student_of(arm))
    assert examples
    for row in examples:
        (answer,) = row["completion"]
        assert answer["role"] == "assistant"
        patient, ask = row["patient_id"], row["ask"]
        expected = Answer(
            None if ask == "direct" else rationales[patient], None if ask == "explain" else recorded[patient]
        )
        assert parse_answer(answer["content"], ask, task) == expected
        assert row["label"] == recorded[patient]


@pytest.mark.parametrize("arm", ARMS)
def test_student_is_trained_on_the_prompt_that_it_is_asked_with(task: DiagnosisTask, arm: str) -> None:
    student = student_of(arm)
    asked = panel.student_role(student)
    assert (asked.ask, asked.model, asked.exemplars, asked.words) == (student.arm.answers, arm, NO_EXEMPLARS, None)
    descriptions = {row["patient_id"]: row["description"] for row in findings_table(task).to_pylist()}
    examples, _ = made(task, student)
    assert asked.ask in {row["ask"] for row in examples}
    for row in examples:
        assert row["prompt"] == render_messages(row["ask"], descriptions[row["patient_id"]], task)
        assert "Why" not in str(row["prompt"])
        assert row["picture"] is None


@pytest.mark.parametrize(("inputs", "reads_text"), [("image", False), ("both", True)])
def test_student_that_sees_pictures(task: DiagnosisTask, inputs: str, reads_text: bool) -> None:
    examples, rejected = made(task, student_of("label_only", f"student.inputs={inputs}"))
    assert visits_of(examples) == [visit for visit in TRAINED if visit[0] != "emma"]
    assert reasons(rejected) == {"5": "no picture of the MRI", "9": "no diagnosis"}
    for row in examples:
        assert row["picture"] == f"pictures/{row['patient_id']}-{row['visit_id']}.png"
        asked = row["prompt"][-1]["content"]
        assert asked.endswith(task.question_text())
        assert (f"The patient is {row['patient_id']}." in asked) == reads_text
        assert (PICTURE_ONLY in asked) != reads_text
        assert row["patient_id"] not in str(row["prompt"]) or reads_text


@pytest.mark.parametrize(
    ("arm", "inputs", "ask", "patients"),
    [
        ("label_only", "text", "direct", ["finn", "ines"]),
        ("rationale_then_label", "both", "diagnose", ["finn"]),
        ("multi_task", "image", "direct", ["finn"]),
        ("label_then_rationale", "text", "diagnose_label_first", ["finn", "ines"]),
    ],
)
def test_validation_prompts_are_those_of_the_finished_student(
    task: DiagnosisTask, arm: str, inputs: str, ask: Ask, patients: list[str]
) -> None:
    student = student_of(arm, f"student.inputs={inputs}")
    prompts = make_prompts(findings_table(task).to_pylist(), student, "validation", task)
    assert prompts.schema.equals(EXAMPLES)
    rows = prompts.to_pylist()
    assert [row["patient_id"] for row in rows] == patients, "those with a diagnosis, and a picture where it is seen"
    labels = {"finn": "NC", "ines": "AD"}
    for row in rows:
        assert (row["ask"], row["label"], row["completion"]) == (ask, labels[row["patient_id"]], None)
        assert (row["picture"] is None) == (inputs == "text")
        description = with_question(PICTURE_ONLY if inputs == "image" else f"The patient is {row['patient_id']}.", task)
        assert row["prompt"] == render_messages(ask, description, task)


def test_examples_of_an_arm_that_learns_from_the_teachers_tokens(task: DiagnosisTask) -> None:
    kept = (Candidates(ids=(7, 8), logprobs=(-0.1, -2.5)),)
    rows = [
        written("anna", None, sample=1, token_ids=(1,), candidates=kept),
        written("anna", "hinted", sample=2, token_ids=(7,), candidates=kept),
        written("gina", "reasoned", visit_id="m12"),
    ]
    student = own_arm(
        "{answers: direct, tasks: {direct: 1, explain: 1}, token_distillation: 0.5}", "rationales.token_candidates=2"
    )
    examples, _ = made(task, student, "train", rows)
    found = {(row["patient_id"], row["visit_id"], row["ask"]): row for row in examples}
    anna = found["anna", "bl", "explain"]
    assert anna["teacher_ids"] == [7], "of the rationale that it learns from"
    assert anna["teacher_candidates"] == [{"ids": [7, 8], "logprobs": [-0.1, -2.5]}]
    none = [row for key, row in found.items() if key != ("anna", "bl", "explain")]
    assert ("gina", "m12", "explain") in found
    assert {(row["teacher_ids"], row["teacher_candidates"]) for row in none} == {(None, None)}
    plain, _ = made(task, own_arm("{answers: direct, tasks: {direct: 1, explain: 1}}"), "train", rows)
    assert {(row["teacher_ids"], row["teacher_candidates"]) for row in plain} == {(None, None)}


def test_tokens_are_counted_over_prompt_and_answer(task: DiagnosisTask) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "platform/clinical_reasoner/reference/models/student")
    examples, _ = made(task, student_of("multi_task"))
    expected = [
        len(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=True, return_dict=False))
        for row in examples
    ]
    assert len(set(expected)) > 2
    table = pa.Table.from_pylist(examples, schema=EXAMPLES)
    assert count_tokens(table, tokenizer) == expected
    assert count_tokens(table, tokenizer, of_picture=64) == [length + 64 for length in expected]
