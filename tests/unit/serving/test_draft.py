"""Which part of an answer is shown while it is written, however it is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.records import Ask
from clinical_reasoner.serving.draft import Draft
from tests.unit.serving.engines import TASK

FIRST = "Diagnosis: (B) mild cognitive impairment\n\nThe score is low.\nThe answer is not certain."
SHOWN_LAST = "The score is low.\n\nThe diagnosis of memory loss is old.\nFinally, severe atrophy."
LAST = f"{SHOWN_LAST}\n\nDiagnosis: (A) Alzheimer's disease"
SHOWN_FIRST = "The score is low.\nThe answer is not certain."


def written(ask: Ask, parts: list[str]) -> str:
    draft = Draft(ask, TASK)
    return "".join(draft.add(part) for part in parts)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.integers(0, 500), max_size=30))
def test_the_cuts_change_nothing_of_a_rationale_before_its_diagnosis(places: list[int]) -> None:
    assert written("diagnose", cut(LAST, places)) == SHOWN_LAST


@given(st.lists(st.integers(0, 500), max_size=30))
def test_the_cuts_change_nothing_of_a_rationale_behind_its_diagnosis(places: list[int]) -> None:
    # The last line might become an answer line until it ends.
    assert written("diagnose_label_first", cut(FIRST + "\n", places)) == SHOWN_FIRST


@pytest.mark.parametrize(
    ("ask", "text", "shown"),
    [
        ("direct", "Diagnosis: (A) Alzheimer's disease\n", ""),
        ("diagnose", "\n\n  The score is low.", "The score is low."),
        ("diagnose", "<think>Who knows.\n\nPerhaps.</think>\nThe score is low.\n", "The score is low."),
        ("diagnose", "The score", "The score"),
        ("diagnose", "The diag", ""),
        ("diagnose_label_first", "The score is low.\n", ""),
        ("explain", "The score is low.\nMild atrophy.", "The score is low.\nMild atrophy."),
    ],
)
def test_only_rationales_are_shown(ask: Ask, text: str, shown: str) -> None:
    assert written(ask, list(text)) == shown


def test_the_label_is_there_once_its_line_has_ended() -> None:
    draft = Draft("diagnose_label_first", TASK)
    draft.add("Diagnosis: (B) mild cognitive impairment")
    assert not draft.has_label
    draft.add("\n")
    assert draft.has_label
    assert Draft("diagnose", TASK).has_label
