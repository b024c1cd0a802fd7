"""Wordings of patient fields in a text."""

from __future__ import annotations

import pytest

from clinical_reasoner.evidence.fields import stated_fields
from clinical_reasoner.task import DiagnosisTask


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("", []),
        ("No field is stated.", []),
        # two fields from one place on
        ("A woman of 74 years.", [("age_years", "woman of 74 years", None), ("sex", "woman", "female")]),
        # the longest wording, once
        ("She scored 24 of 30 points.", [("sex", "She", "female"), ("mmse", "scored 24 of 30 points", None)]),
        # twice in a text, in any spelling
        (
            "No APOE-ε4 allele; an APOE4 non-carrier.",
            [("apoe4_copies", "No APOE-ε4 allele", "0"), ("apoe4_copies", "APOE4 non-carrier", "0")],
        ),
        # within a longer word or number
        ("Sheep aged 74.5.1 and others.", []),
    ],
)
def test_stated_fields(task: DiagnosisTask, text: str, stated: list[tuple[str, str, str | None]]) -> None:
    assert [(name, match.group(), value) for name, (match, value) in stated_fields(text, task)] == stated
