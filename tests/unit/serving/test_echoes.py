"""An answer may repeat the patient, and neither its instructions nor an exemplar."""

from __future__ import annotations

import pytest

from clinical_reasoner.llm.prompting import load_exemplars, render_answer, render_messages
from clinical_reasoner.serving.echoes import PromptWords
from tests.unit.serving.engines import RATIONALE, TASK

EXEMPLARS = load_exemplars(TASK.exemplars, TASK)
QUESTION = f"The patient is 74 years old.\n\n{TASK.question_text()}"
MESSAGES = render_messages("diagnose", QUESTION, TASK, exemplars=EXEMPLARS[:2])
HIDDEN = PromptWords(MESSAGES)


@pytest.mark.parametrize(
    "text",
    [
        MESSAGES[0]["content"],
        f"Certainly: {MESSAGES[0]['content'][:120].upper()}",
        "As I was told: write the clinical rationale first, using only what is stated about the patient",
        EXEMPLARS[0].description,
        f"The first example was: {EXEMPLARS[1].description}",
    ],
)
def test_instructions_and_exemplars_are_found(text: str) -> None:
    assert HIDDEN.in_text(text)


@pytest.mark.parametrize(
    "text", [RATIONALE, render_answer("diagnose", RATIONALE, "AD", TASK), QUESTION, "The patient is 74 years old.", ""]
)
def test_an_answer_about_the_patient_is_none(text: str) -> None:
    assert not HIDDEN.in_text(text)


def test_what_the_patient_says_too_is_no_secret() -> None:
    own = render_messages("diagnose", f"{EXEMPLARS[0].description}", TASK, exemplars=EXEMPLARS[:1])
    assert not PromptWords(own).in_text(EXEMPLARS[0].description)
