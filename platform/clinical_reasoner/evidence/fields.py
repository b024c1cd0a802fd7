"""Where a text states a field of the patient, in any of the wordings that the task has for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clinical_reasoner.evidence.description import NUMBER
from clinical_reasoner.evidence.language import any_of, phrase_source
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField

Stated = tuple[re.Match[str], str | None]
"""A wording, and the value that it states; None where that is the number in its first group."""


@dataclass(frozen=True)
class _Wordings:
    """The wordings of a field."""

    begins: re.Pattern[str]
    """Finds each place where one of them begins."""
    patterns: tuple[tuple[re.Pattern[str], str | None], ...]
    """(wording, value), as in `Stated`."""

    def matches(self, text: str, places: Sequence[int]) -> Iterator[Stated]:
        """What `finditer` gives for each wording, which is tried at those places alone."""
        own = [place for place in places if self.begins.match(text, place)]
        for pattern, value in self.patterns if own else ():
            end = 0
            for place in own:
                match = pattern.match(text, place) if place >= end else None
                if match:
                    end = match.end()
                    yield match, value


def stated_fields(text: str, task: DiagnosisTask) -> Iterator[tuple[str, Stated]]:
    """Fields with what states them. A stretch of text states a field once: by the longest wording."""
    begins, fields = _wordings(task)
    places = [found.start() for found in begins.finditer(text)]
    for name, wordings in fields.items():
        taken: list[tuple[int, int]] = []
        for match, value in sorted(wordings.matches(text, places), key=_longest_first):
            start, end = match.span()
            if not any(start < last and first < end for first, last in taken):
                taken.append((start, end))
                yield name, (match, value)


def _longest_first(stated: Stated) -> tuple[int, int]:
    start, end = stated[0].span()
    return start - end, start


@lru_cache(maxsize=8)
def _wordings(task: DiagnosisTask) -> tuple[re.Pattern[str], dict[str, _Wordings]]:
    """What finds each place where any field is stated, and the wordings of each field."""
    sources = {field.name: list(_sources(field, task)) for field in task.fields}
    wordings = {
        name: _Wordings(
            _begins(source for source, _ in known),
            tuple((re.compile(source, re.IGNORECASE), value) for source, value in known),
        )
        for name, known in sources.items()
    }
    return _begins(source for known in sources.values() for source, _ in known), wordings


def _sources(field: NumberField | ChoiceField, task: DiagnosisTask) -> Iterator[tuple[str, str | None]]:
    """Each wording as the source of a pattern, with its value."""
    if isinstance(field, NumberField):
        written = [clause for clause in (field.clause, field.open_clause) if clause]
        clauses: list[tuple[str, str | None]] = [(clause, None) for clause in written]
        mentions: list[tuple[str, str | None]] = [(phrase, None) for phrase in field.mentions]
    else:
        clauses = [(clause, value) for value, clause in field.clauses.items()]
        mentions = [(phrase, value) for value, group in field.mentions.items() for phrase in group]
    for clause, value in clauses:
        yield _whole(re.escape(clause).replace(r"\{value\}", NUMBER)), value
    for phrase, value in mentions:
        yield _whole(_respelled(phrase_source(phrase, {"value": NUMBER}), task)), value


def _begins(sources: Iterable[str]) -> re.Pattern[str]:
    """Matches nothing, in front of each place where one of these does."""
    return re.compile(rf"(?<![\w.])(?={'|'.join(sources)})", re.IGNORECASE)


def _whole(source: str) -> str:
    """Up to the end of its last word or number."""
    return rf"{source}(?!\w|\.\d)"


def _respelled(source: str, task: DiagnosisTask) -> str:
    for word, others in task.spellings.items():
        source = source.replace(re.escape(word), f"(?:{any_of([word, *others])})")
    return source
