"""Where a text speaks for or against a diagnosis, in its order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from clinical_reasoner.evidence.language import (
    any_of,
    any_phrase,
    label_mentions,
    load_language,
    longest_of,
    plain_text,
)
from clinical_reasoner.task import DiagnosisTask

Side = Literal["rejects", "argues", "supports"]
_SENTENCE = re.compile(r"[^.!?;]+(?:[.!?;](?!\s|$)[^.!?;]*)*")


@dataclass(frozen=True)
class Stance:
    label: str
    """Table name of the diagnosis."""
    side: Side
    """`rejects` leaves no room for it, `argues` counts against it, `supports` for it."""
    sentence: int
    start: int
    conceded: bool
    """Granted on the way to another conclusion: `although ... argues against it`."""


@dataclass(frozen=True)
class _Patterns:
    sides: tuple[tuple[Side, re.Pattern[str]], ...]
    mention: re.Pattern[str]
    clause: re.Pattern[str]
    if_words: re.Pattern[str]
    conceding: re.Pattern[str]
    alone: re.Pattern[str]
    nothing: re.Pattern[str]
    labels: dict[str, str]


@lru_cache(maxsize=4)
def stances(text: str, task: DiagnosisTask) -> tuple[Stance, ...]:
    """Every stance of a text; what a clause only supposes ("would point to ...") is none."""
    patterns = _patterns(task)
    found: list[Stance] = []
    for number, sentence in enumerate(_SENTENCE.finditer(plain_text(text))):
        if not patterns.mention.search(sentence.group()):
            continue
        start = sentence.start()
        for clause in _clauses(sentence.group(), patterns):
            found += _of_clause(clause, number, start, patterns)
            start += len(clause)
    return tuple(sorted(found, key=lambda stance: stance.start))


def labels_named_after(text: str, sentence: int, task: DiagnosisTask) -> set[str]:
    """Diagnoses that later sentences name, and say nothing against."""
    patterns = _patterns(task)
    against = {(stance.label, stance.sentence) for stance in stances(text, task) if stance.side != "supports"}
    return {
        label
        for number, part in enumerate(_SENTENCE.finditer(plain_text(text)))
        if number > sentence and not patterns.if_words.search(part.group())
        for label in _names(part, patterns)
        if (label, number) not in against
    }


def _clauses(sentence: str, patterns: _Patterns) -> list[str]:
    starts = [0, *(match.start() for match in patterns.clause.finditer(sentence) if match.start()), len(sentence)]
    return [sentence[first:last] for first, last in pairwise(starts)]


def _of_clause(clause: str, number: int, start: int, patterns: _Patterns) -> Iterator[Stance]:
    taken: list[tuple[int, int]] = []
    alone = patterns.alone.search(clause) is not None
    for side, pattern in patterns.sides:
        for match in pattern.finditer(clause):
            if any(match.start() < last and first < match.end() for first, last in taken):
                continue
            taken.append(match.span())
            if patterns.if_words.search(clause, 0, match.start()):
                continue
            real: Side = "argues" if side == "supports" and patterns.nothing.search(clause, 0, match.start()) else side
            conceded = alone or patterns.conceding.search(clause, 0, match.start()) is not None
            for name in _names(match, patterns):
                yield Stance(name, real, number, start + match.start(), conceded)


def _names(match: re.Match[str], patterns: _Patterns) -> set[str]:
    named = (name.group().casefold() for name in patterns.mention.finditer(match.group()))
    # A pattern takes letters for one another that folding does not, such as a dotted I.
    return {patterns.labels[name] for name in named if name in patterns.labels}


@lru_cache(maxsize=8)
def _patterns(task: DiagnosisTask) -> _Patterns:
    language = load_language(task.language)
    labels = label_mentions(task)
    slots = {"label": label_source(task)}
    return _Patterns(
        sides=(
            ("rejects", any_phrase(language.rejects, slots)),
            ("argues", any_phrase(language.argues, slots)),
            ("supports", any_phrase(language.supports, slots)),
        ),
        mention=_words(labels),
        clause=re.compile(longest_of(language.clause_starts), re.IGNORECASE),
        if_words=_words(language.if_words, before=r"(?<!\bI )(?<!\bwe )"),
        conceding=_words(language.conceding, after=r"[^,]*$"),
        alone=_words(language.alone),
        nothing=_words(language.nothing, after=r"(?: \w+){0,3} $"),
        labels=labels,
    )


def _words(words: Iterable[str], before: str = "", after: str = "") -> re.Pattern[str]:
    return re.compile(rf"{before}(?<!\w)(?:{any_of(words)})(?!\w){after}", re.IGNORECASE)


@lru_cache(maxsize=8)
def label_source(task: DiagnosisTask) -> str:
    """Source of a pattern that finds any name of any diagnosis, with the words that may introduce it."""
    before = any_of(load_language(task.language).before_labels)
    return rf"(?:(?:{before}) )*(?:{any_of(label_mentions(task))})"
