"""What a text says about the patient, compared with the evidence.

Deterministic; the vocabulary comes from the task. A claim is a value of a patient field ("an MMSE score of 24") or a
grade of a finding ("severe hippocampal and entorhinal atrophy", "the ventricle enlargement is mild").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from clinical_reasoner.evidence.description import NUMBER, Evidence
from clinical_reasoner.task import DiagnosisTask, NumberField

Verdict = Literal["supported", "contradicted", "not_in_evidence"]
_VERBS = "is|are|was|were|appears|appear|seems"
_DENIALS = r"(?:no|not|without)(?: evidence of| signs? of)?"
"""Words that deny the grade after them: what is then left of "no severe atrophy" may be mild or none."""


@dataclass(frozen=True)
class Claim:
    name: str
    """Patient field or finding."""
    value: str
    """Field value or grade name, as the description would write it."""
    start: int
    """Character offset in the text with every run of whitespace collapsed to one space."""


@dataclass(frozen=True)
class ClaimCounts:
    supported: int = 0
    contradicted: int = 0
    not_in_evidence: int = 0

    @property
    def total(self) -> int:
        return self.supported + self.contradicted + self.not_in_evidence


def extract_claims(text: str, task: DiagnosisTask) -> list[Claim]:
    """All claims of a text, in its order. One stretch of text gives at most one claim per field or finding."""
    plain = " ".join(text.split())
    taken: list[tuple[int, int]] = []
    claims: list[Claim] = []
    for pattern, name, value in _field_patterns(task):
        for match in pattern.finditer(plain):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            claims.append(Claim(name, value if value is not None else match.group(1), match.start()))
    claims.extend(_finding_claims(plain, task))
    return sorted(claims, key=lambda claim: claim.start)


def judge_claim(claim: Claim, evidence: Evidence) -> Verdict:
    """Whether the evidence says the same, something else, or nothing."""
    known = evidence.fields.get(claim.name, evidence.grades.get(claim.name))
    if known is None:
        return "not_in_evidence"
    return "supported" if _same(known, claim.value) else "contradicted"


def count_claims(claims: Sequence[Claim], evidence: Evidence) -> ClaimCounts:
    verdicts = [judge_claim(claim, evidence) for claim in claims]
    return ClaimCounts(*(verdicts.count(kind) for kind in ("supported", "contradicted", "not_in_evidence")))


def _same(known: str, claimed: str) -> bool:
    try:
        if known.endswith("+"):
            return float(claimed) >= float(known[:-1])
        return float(known) == float(claimed)
    except ValueError:
        return known == claimed


@lru_cache(maxsize=8)
def _field_patterns(task: DiagnosisTask) -> tuple[tuple[re.Pattern[str], str, str | None], ...]:
    """(pattern, field, value or None where the pattern captures it), longest wording first."""
    wordings: list[tuple[str, str, str | None]] = []
    for field in task.fields:
        if isinstance(field, NumberField):
            open_clause = (field.open_clause,) if field.open_clause else ()
            wordings += [(phrase, field.name, None) for phrase in (field.clause, *open_clause, *field.mentions)]
        else:
            wordings += [(clause, field.name, value) for value, clause in field.clauses.items()]
            wordings += [(phrase, field.name, value) for value, group in field.mentions.items() for phrase in group]
    wordings.sort(key=lambda wording: -len(wording[0]))
    return tuple(
        (re.compile(rf"(?<![\w.]){_escape(phrase)}(?!\w|\.\d)", re.IGNORECASE), name, value)
        for phrase, name, value in wordings
    )


def _escape(phrase: str) -> str:
    return re.escape(phrase).replace(re.escape("{value}"), NUMBER)


@dataclass(frozen=True)
class _FindingPatterns:
    before: re.Pattern[str]
    """<grade> <term>[, <term> ...][ and <term>]"""
    after: re.Pattern[str]
    """<term> is <grade>"""
    shared_head: re.Pattern[str]
    """<grade> <modifier>[, <modifier> ...] and <modifier> <head>"""
    term: re.Pattern[str]
    split: re.Pattern[str]
    denied: re.Pattern[str]
    """<denial>[ <grade> or], at the end"""
    names: dict[str, str]
    """Lower-case term -> finding."""
    grades: dict[str, str]
    """Lower-case word -> grade name."""


@lru_cache(maxsize=8)
def _finding_patterns(task: DiagnosisTask) -> _FindingPatterns:
    names = {term.lower(): finding.name for finding in task.findings for term in (finding.term, *finding.synonyms)}
    grades = {word.lower(): grade.name for grade in task.grades for word in grade.words}
    term = _any_of(names)
    grade = _any_of(grades)
    plain = [name for name in names if " " in name and " of " not in name and " relative " not in name]
    heads = sorted({re.escape(name.rsplit(" ", 1)[1]) for name in plain})
    modifier = _any_of(name.removesuffix(f" {head}") for head in heads for name in names if name.endswith(f" {head}"))
    series = rf"(?:,? and |,? or |, )(?:{modifier})"
    return _FindingPatterns(
        before=re.compile(rf"\b({grade}) ((?:{term})(?:(?:,? and |,? or |, )(?:{term}))*)\b", re.IGNORECASE),
        after=re.compile(rf"\b({term}) (?:{_VERBS}) ({grade})\b", re.IGNORECASE),
        shared_head=re.compile(rf"\b({grade}) ((?:{modifier})(?:{series})+) ({'|'.join(heads)})\b", re.IGNORECASE),
        term=re.compile(term, re.IGNORECASE),
        split=re.compile(r",? and |,? or |, "),
        denied=re.compile(rf"\b{_DENIALS} (?:(?:{grade}) (?:or|to) )?$", re.IGNORECASE),
        names=names,
        grades=grades,
    )


def _any_of(words: Iterator[str] | dict[str, str]) -> str:
    return "|".join(re.escape(word) for word in sorted(set(words), key=lambda word: (-len(word), word)))


def _finding_claims(text: str, task: DiagnosisTask) -> Iterator[Claim]:
    patterns = _finding_patterns(task)
    for match in patterns.shared_head.finditer(text):
        for modifier in patterns.split.split(match.group(2)):
            yield from _claim(f"{modifier} {match.group(3)}", match.group(1), match.start(), text, patterns)
    for match in patterns.before.finditer(text):
        for term in patterns.term.findall(match.group(2)):
            yield from _claim(term, match.group(1), match.start(), text, patterns)
    for match in patterns.after.finditer(text):
        yield from _claim(match.group(1), match.group(2), match.start(), text, patterns)


def _claim(term: str, grade: str, start: int, text: str, patterns: _FindingPatterns) -> Iterator[Claim]:
    """The claim, unless its grade is denied, or its letters only look like those of the task (as a long s does)."""
    name, value = patterns.names.get(term.lower()), patterns.grades.get(grade.lower())
    if name and value and not patterns.denied.search(text, max(0, start - 60), start):
        yield Claim(name, value, start)
