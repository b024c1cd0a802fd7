"""What a text says about the patient, compared with the evidence.

Deterministic; the vocabulary comes from the task and its language. A claim is a value of a patient field ("an MMSE of
24") or a grade of a finding ("severe hippocampal and entorhinal atrophy", "the ventricles are not enlarged"). What a
text says of other patients, or supposes, is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from clinical_reasoner.evidence.description import NUMBER, Evidence
from clinical_reasoner.evidence.grades import graded_findings
from clinical_reasoner.evidence.language import any_of, load_language, phrase_source, plain_text
from clinical_reasoner.evidence.lexicon import Token, lexicon
from clinical_reasoner.evidence.scope import Span, inside, supposed_spans
from clinical_reasoner.task import DiagnosisTask, NumberField

Verdict = Literal["supported", "contradicted", "not_in_evidence"]


@dataclass(frozen=True)
class Claim:
    name: str
    """Patient field or finding."""
    value: str
    """Field value or grade name, as the description would write it; `No or Mild` where the text leaves it open."""
    start: int
    """Character offset in the text with every run of whitespace collapsed to one space."""
    end: int
    """Of the stretch that says it, in the same text."""
    one_of: tuple[str, ...] = ()
    """Where the text leaves it open: the values that would make it true."""


@dataclass(frozen=True)
class ClaimCounts:
    supported: int = 0
    contradicted: int = 0
    not_in_evidence: int = 0

    @property
    def total(self) -> int:
        return self.supported + self.contradicted + self.not_in_evidence


def extract_claims(text: str, task: DiagnosisTask) -> list[Claim]:
    """All claims of a text, in its order. What it says twice is one claim."""
    plain = plain_text(text)
    tokens = lexicon(task).tokens(plain)
    supposed = supposed_spans(tokens)
    found = [*_field_claims(plain, supposed, task), *_finding_claims(tokens, supposed, task)]
    claims: dict[tuple[str, str], Claim] = {}
    for claim in sorted(found, key=lambda claim: claim.start):
        claims.setdefault((claim.name, claim.value), claim)
    return list(claims.values())


def judge_claim(claim: Claim, evidence: Evidence) -> Verdict:
    """Whether the evidence says the same, something else, or nothing."""
    known = evidence.fields.get(claim.name, evidence.grades.get(claim.name))
    if known is None:
        return "not_in_evidence"
    values = claim.one_of or (claim.value,)
    return "supported" if any(_same(known, value) for value in values) else "contradicted"


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


def _claim(name: str, values: Sequence[str], start: int, end: int) -> Claim:
    return Claim(name, " or ".join(values), start, end, tuple(values) if len(values) > 1 else ())


def _finding_claims(tokens: Sequence[Token], supposed: Sequence[Span], task: DiagnosisTask) -> Iterator[Claim]:
    names = task.grade_names
    for said in graded_findings(tokens, lexicon(task), len(names)):
        if said.owned or not inside(said.start, supposed):
            yield _claim(said.finding, [names[place] for place in sorted(said.grades)], said.start, said.end)


def _field_claims(text: str, supposed: Sequence[Span], task: DiagnosisTask) -> Iterator[Claim]:
    """One stretch of text gives at most one claim per field: that of the longest wording."""
    before, after = _bounds(task)
    for field, patterns in _field_patterns(task).items():
        found = [(match, value) for pattern, value in patterns for match in pattern.finditer(text)]
        found.sort(key=lambda one: (one[0].start() - one[0].end(), one[0].start()))
        taken: list[Span] = []
        for match, value in found:
            start, end = match.span()
            if any(start < last and first < end for first, last in taken):
                continue
            taken.append((start, end))
            if value is None and (before.search(text, 0, match.start(1)) or after.match(text, end)):
                continue
            owned = _owner(task).search(text, 0, start) or _owner(task).fullmatch(f"{match.group()} ")
            if owned or not inside(start, supposed):
                yield _claim(field, [match.group(1)] if value is None else value.split("|"), start, end)


@lru_cache(maxsize=8)
def _field_patterns(task: DiagnosisTask) -> dict[str, tuple[tuple[re.Pattern[str], str | None], ...]]:
    """Field -> (pattern, value or None where the pattern captures it)."""
    patterns: dict[str, tuple[tuple[re.Pattern[str], str | None], ...]] = {}
    for field in task.fields:
        if isinstance(field, NumberField):
            clauses: list[tuple[str, str | None]] = [
                (clause, None) for clause in (field.clause, field.open_clause) if clause
            ]
            mentions: list[tuple[str, str | None]] = [(phrase, None) for phrase in field.mentions]
        else:
            clauses = [(clause, value) for value, clause in field.clauses.items()]
            mentions = [(phrase, value) for value, group in field.mentions.items() for phrase in group]
        patterns[field.name] = (
            *((_pattern(re.escape(clause).replace(r"\{value\}", NUMBER)), value) for clause, value in clauses),
            *(
                (_pattern(_respelled(phrase_source(phrase, {"value": NUMBER}), task)), value)
                for phrase, value in mentions
            ),
        )
    return patterns


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.]){source}(?!\w|\.\d)", re.IGNORECASE)


def _respelled(source: str, task: DiagnosisTask) -> str:
    for word, others in task.spellings.items():
        source = source.replace(re.escape(word), f"(?:{any_of([word, *others])})")
    return source


@lru_cache(maxsize=8)
def _bounds(task: DiagnosisTask) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What makes a number a limit: before it, and after its wording."""
    language = load_language(task.language)
    before = re.compile(rf"(?:(?<!\w)(?:{any_of(language.bounds_before)})) ?$", re.IGNORECASE)
    after = re.compile(rf" ?(?:(?:{any_of(language.bounds_after)})\b|[-\u2013] ?\d)", re.IGNORECASE)
    return before, after


@lru_cache(maxsize=8)
def _owner(task: DiagnosisTask) -> re.Pattern[str]:
    """The word before a claim that says it is the patient's."""
    return re.compile(rf"\b(?:{any_of(load_language(task.language).owners)}) $", re.IGNORECASE)
