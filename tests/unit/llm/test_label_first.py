"""Answers that begin with the diagnosis: the first one counts, and the rationale is what follows it."""

from __future__ import annotations

import math

import pytest

from clinical_reasoner.llm.answers import Answer, ParseFailure, TokenLogprobs, option_probabilities, parse_answer
from clinical_reasoner.task import DiagnosisTask


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Diagnosis: (A) Alzheimer's disease\n\nLow MMSE.", Answer("Low MMSE.", "AD")),
        (
            "**Diagnosis: B**\n**Supporting findings:**\n- Low MMSE.",
            Answer("**Supporting findings:**\n- Low MMSE.", "MCI"),
        ),
        ("Diagnosis:\n(C) normal cognition\n* High MMSE.", Answer("* High MMSE.", "NC")),
        ("The diagnosis is (A) Alzheimer's disease.\nLow MMSE.", Answer("Low MMSE.", "AD")),
        # The first line counts, whatever comes later, and what stands before it is no rationale.
        ("Diagnosis: (A)\nLow MMSE.\nDiagnosis: (B)", Answer("Low MMSE.\nDiagnosis: (B)", "AD")),
        ("Here you are.\n\nDiagnosis: (A)\n\nLow MMSE.", Answer("Low MMSE.", "AD")),
        (
            "Diagnosis: (A)\n\nThe diagnosis is hard to make with an MMSE of 20.",
            Answer("The diagnosis is hard to make with an MMSE of 20.", "AD"),
        ),
        ("<think>Or (B)?\nDiagnosis: (B)</think>\nDiagnosis: (A)\nLow MMSE.", Answer("Low MMSE.", "AD")),
        ("Diagnosis: (A) Alzheimer's disease", ParseFailure("no rationale after the diagnosis")),
        ("Low MMSE.\n\nDiagnosis: (A)\n\n", ParseFailure("no rationale after the diagnosis")),
        ("Diagnosis: unclear\nLow MMSE.\nDiagnosis: (A)", ParseFailure("diagnosis is not one of the options")),
        ("Diagnosis: (A) or (B)\nLow MMSE.", ParseFailure("more than one option")),
        ("Low MMSE.", ParseFailure("no diagnosis line")),
        ("", ParseFailure("empty answer")),
        ("Diagnosis: (A)\nLow MMSE.<think>Or", ParseFailure("thinking was cut")),
    ],
)
def test_label_first(task: DiagnosisTask, text: str, answer: Answer | ParseFailure) -> None:
    assert parse_answer(text, "diagnose_label_first", task) == answer


def test_the_first_diagnosis_counts_where_the_label_is_asked_for_first(task: DiagnosisTask) -> None:
    logprobs: TokenLogprobs = [
        ("Diagnosis:", {}),
        (" A", {" A": math.log(0.9), " B": math.log(0.1)}),
        ("\nLow MMSE.\nDiagnosis:", {}),
        (" B", {" A": math.log(0.3), " B": math.log(0.6)}),
    ]
    assert option_probabilities(logprobs, task, label_first=True) == pytest.approx((0.9, 0.1, 0.0))
    assert option_probabilities(logprobs[:2], task, label_first=True) == option_probabilities(logprobs[:2], task)
    assert option_probabilities([("Low MMSE.", {})], task, label_first=True) is None
