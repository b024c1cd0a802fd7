"""What JSON from a stranger may be, before anything looks for FHIR in it."""

from __future__ import annotations

import pytest

from clinical_reasoner.serving.fhir_json import DEEPEST, MOST_VALUES, BundleError, parse_json

CANARY = "Zebulon"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": "Zebulon', "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"a": "\xff Zebulon"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": "Zebulon"}', "not valid JSON"),
        (b'["Zebulon"]', "JSON object"),
        (b'"Zebulon"', "JSON object"),
        (b'{"Zebulon": NaN}', "NaN"),
        (b'{"Zebulon": -Infinity}', "NaN"),
        (b'{"Zebulon": 1e999}', "too large"),
        (b'{"Zebulon": ' + b"1" * 5000 + b"}", "too large"),
        (b'{"Zebulon": 1, "Zebulon": 2}', "twice"),
        (b'{"a": "Zebulon \\ud800"}', "half a character"),
        (b'{"\\ud800 Zebulon": 1}', "half a character"),
        (b'{"Zebulon": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nesting"),
        (b'{"Zebulon": ' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", "nesting"),
        (b'{"Zebulon": [' + b"1, " * MOST_VALUES + b"1]}", "20000 values"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_what_is_refused_and_why(content: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_json(content)
    problem = caught.value.problem
    assert problem.status == 400
    assert message in problem.errors[0].message
    assert CANARY not in problem.model_dump_json()


def test_what_is_read() -> None:
    nested = b"[" * (DEEPEST - 2) + b"1" + b"]" * (DEEPEST - 2)
    assert parse_json(b'{"a": 1.5, "b": "\\ud83e\\udde0", "c": 123456789012345678}')["b"] == "\N{BRAIN}"
    assert "deep" in parse_json(b'{"deep": ' + nested + b"}")
