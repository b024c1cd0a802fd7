"""Sources of patterns from lists of words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.evidence.language import any_of, any_phrase, longest_of

WORDS = st.lists(st.text("ab -", min_size=1, max_size=5), min_size=1, max_size=8)


@given(WORDS, st.text("ab -", max_size=12))
def test_any_of_finds_what_the_words_one_by_one_would_the_longest_first(words: list[str], text: str) -> None:
    plain = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    for guard in ("", r"(?!\w)"):
        found = [match.span() for match in re.finditer(rf"(?:{any_of(words)}){guard}", text)]
        assert found == [match.span() for match in re.finditer(rf"(?:{plain}){guard}", text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [("an atom", ["an"]), ("not only, but", ["not only", ", but"]), ("nothing", []), ("not onlyx", ["not"])],
)
def test_longest_of_finds_whole_words(text: str, found: list[str]) -> None:
    assert re.findall(longest_of(["not", "not only", ", but", "an"]), text) == found


def test_phrases_are_whole_words() -> None:
    pattern = any_phrase(["rule[s] out", "is (a|an) {label}"], {"label": "MCI"})
    found = [
        match.group() for match in pattern.finditer("It rules out this, rules outright, is an mci; this is a MCI2.")
    ]
    assert found == ["rules out", "is an mci"]
