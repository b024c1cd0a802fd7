"""Training examples: who is in, with which rationale, and always with the recorded diagnosis."""

from __future__ import annotations

import pyarrow as pa
import pytest

from clinical_reasoner.config.student import Arm
from clinical_reasoner.distillation.examples import ARM_ASKS, EXAMPLES, count_tokens, make_examples
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.llm.prompting import render_messages
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.records import (
    FINDINGS,
    RATIONALES,
    Ask,
    FindingsRow,
    RationaleRow,
    RejectedRow,
    Selected,
    Split,
    to_table,
)
from clinical_reasoner.serving import panel
from clinical_reasoner.task import DiagnosisTask


def findings_table(task: DiagnosisTask) -> pa.Table:
    def visit(patient: str, split: Split, label: str, visit_id: str = "bl") -> FindingsRow:
        description = with_question(f"The patient is {patient}.", task)
        return FindingsRow(patient_id=patient, visit_id=visit_id, split=split, label=label, description=description)

    visits = [
        visit("anna", "train", "AD"),
        visit("bert", "test", "MCI"),
        visit("carl", "train", "NC"),
        visit("dora", "train", "MCI"),
        visit("emma", "train", "AD"),
        visit("anna", "train", "AD", "m06"),
        visit("finn", "validation", "NC"),
        visit("gina", "train", "NC", "m12"),
    ]
    return to_table(visits, FINDINGS)


def rationales_table() -> pa.Table:
    def one(
        patient: str,
        *,
        visit_id: str = "bl",
        ask: Ask = "rationalize",
        sample: int = 0,
        selected: Selected | None = "hinted",
        split: Split = "train",
    ) -> RationaleRow:
        return RationaleRow(
            row_id=f"{patient}|{visit_id}|{ask}|{sample}",
            patient_id=patient,
            visit_id=visit_id,
            split=split,
            label="NC",
            ask=ask,
            sample=sample,
            model="m",
            prompt_version="v1",
            shots=3,
            seed=0,
            text="raw",
            rationale=f"Why {patient}." if sample < 2 else "Another why.",
            predicted="NC",
            claims_supported=1,
            claims_contradicted=0,
            claims_not_in_evidence=0,
            accepted=selected is not None,
            selected=selected,
            prompt_tokens=1,
            output_tokens=1,
        )

    rows = [
        one("anna", selected=None),
        one("anna", sample=1),
        one("anna", sample=2),
        one("bert", split="test"),
        one("carl", selected=None),
        one("dora", ask="diagnose", selected="reasoned"),
        one("finn", split="validation"),
        one("gina", visit_id="m12"),
    ]
    return to_table(rows, RATIONALES)


def made(task: DiagnosisTask, arm: Arm, split: Split = "train") -> tuple[pa.Table, list[RejectedRow]]:
    examples, rejected = make_examples(findings_table(task), rationales_table(), arm, split, task)
    assert examples.schema.equals(EXAMPLES)
    return examples, rejected


def test_label_only_keeps_every_visit_of_the_split(task: DiagnosisTask) -> None:
    examples, rejected = made(task, "label_only")
    keys = [(row["patient_id"], row["visit_id"]) for row in examples.to_pylist()]
    assert keys == [("anna", "bl"), ("carl", "bl"), ("dora", "bl"), ("emma", "bl"), ("anna", "m06"), ("gina", "m12")]
    assert rejected == []


def test_rationale_arm_has_the_first_selected_rationale_of_the_visit(task: DiagnosisTask) -> None:
    examples, rejected = made(task, "rationale_then_label")
    assert [(row["patient_id"], row["visit_id"]) for row in examples.to_pylist()] == [
        ("anna", "bl"),
        ("dora", "bl"),
        ("gina", "m12"),
    ]
    assert [row.source for row in rejected] == [f"findings row {number}" for number in (3, 5, 6)]
    assert {(row.stage, row.reason) for row in rejected} == {("students/rationale_then_label", "no selected rationale")}


@pytest.mark.parametrize(
    ("arm", "split", "patient"), [("label_only", "test", "bert"), ("rationale_then_label", "validation", "finn")]
)
def test_only_the_asked_split(task: DiagnosisTask, arm: Arm, split: Split, patient: str) -> None:
    examples, rejected = made(task, arm, split)
    assert examples.column("patient_id").to_pylist() == [patient]
    assert rejected == []


@pytest.mark.parametrize("arm", ["label_only", "rationale_then_label"])
def test_answer_is_the_recorded_diagnosis_and_can_be_parsed(task: DiagnosisTask, arm: Arm) -> None:
    recorded = {row["patient_id"]: row["label"] for row in findings_table(task).to_pylist()}
    for row in made(task, arm)[0].to_pylist():
        (answer,) = row["completion"]
        assert answer["role"] == "assistant"
        patient = row["patient_id"]
        rationale = None if arm == "label_only" else f"Why {patient}."
        assert parse_answer(answer["content"], ARM_ASKS[arm], task) == Answer(rationale, recorded[patient])


@pytest.mark.parametrize("arm", ["label_only", "rationale_then_label"])
def test_student_is_trained_on_the_prompt_that_it_is_asked_with(task: DiagnosisTask, arm: Arm) -> None:
    asked = panel.student_role(arm)
    assert (asked.ask, asked.exemplars, asked.words) == (ARM_ASKS[arm], NO_EXEMPLARS, None)
    descriptions = {row["patient_id"]: row["description"] for row in findings_table(task).to_pylist()}
    for row in made(task, arm)[0].to_pylist():
        assert row["prompt"] == render_messages(asked.ask, descriptions[row["patient_id"]], task)
        assert "Why" not in str(row["prompt"])


def test_tokens_are_counted_over_prompt_and_answer(task: DiagnosisTask) -> None:
    class Words:
        """A tokenizer with one token per word."""

        def apply_chat_template(self, chat: list[dict[str, str]], *, tokenize: bool, return_dict: bool) -> list[int]:
            assert tokenize and not return_dict
            return [0 for message in chat for _ in message["content"].split()]

    examples, _ = made(task, "label_only")
    expected = [
        sum(len(message["content"].split()) for message in [*row["prompt"], *row["completion"]])
        for row in examples.to_pylist()
    ]
    assert count_tokens(examples, Words()) == expected
