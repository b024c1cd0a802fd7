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

from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.evidence.fields import stated_fields
from clinical_reasoner.evidence.grades import graded_findings
from clinical_reasoner.evidence.language import any_of, load_language, plain_text
from clinical_reasoner.evidence.lexicon import Token, lexicon
from clinical_reasoner.evidence.scope import Span, inside, supposed_spans
from clinical_reasoner.task import DiagnosisTask

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
    for field, (match, value) in stated_fields(text, task):
        if value is None and _is_bound(match, text, task):
            continue
        if not inside(match.start(), supposed) or _is_owned(match, text, task):
            yield _claim(field, [match.group(1)] if value is None else value.split("|"), *match.span())


def _is_bound(match: re.Match[str], text: str, task: DiagnosisTask) -> bool:
    """Whether the number is a limit or a range, by what stands before it or behind its wording."""
    before, after, reach = _bounds(task)
    number = match.start(1)
    return bool(before.search(text, max(0, number - reach), number) or after.match(text, match.end()))


@lru_cache(maxsize=8)
def _bounds(task: DiagnosisTask) -> tuple[re.Pattern[str], re.Pattern[str], int]:
    """What makes a number a limit: before it, and after its wording; and how many characters the former can have."""
    language = load_language(task.language)
    before = re.compile(rf"(?:(?<!\w)(?:{any_of(language.bounds_before)})) ?$", re.IGNORECASE)
    after = re.compile(rf" ?(?:(?:{any_of(language.bounds_after)})\b|[-\u2013] ?\d)", re.IGNORECASE)
    return before, after, max(map(len, language.bounds_before), default=0) + 1


def _is_owned(match: re.Match[str], text: str, task: DiagnosisTask) -> bool:
    """Whether a word before or within the claim says that it is the patient's."""
    owner = _owner(task)
    return bool(owner.search(text, 0, match.start()) or owner.fullmatch(f"{match.group()} "))


@lru_cache(maxsize=8)
def _owner(task: DiagnosisTask) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{any_of(load_language(task.language).owners)}) $", re.IGNORECASE)
