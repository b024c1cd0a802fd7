"""What a text says about the findings of a task: a grammar over the kinds of its tokens.

The letters are those of `lexicon.py`. A grade may be one ("severe"), several ("no or mild", "at most mild"), denied
("no sign of severe ..." leaves the others) or only said to be one of the affected ("the ventricles are enlarged").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clinical_reasoner.evidence.lexicon import (
    ADJECTIVE,
    AT_LEAST,
    AT_MOST,
    NOUN,
    OWNER,
    PRESENT,
    SITE,
    SPARED,
    TERM,
    UNAFFECTED,
    Lexicon,
    Token,
)

_F = "[FU]*"
_SITES = rf"(?:S(?:C{_F}S)*)"
_PLACE = rf"(?:{_SITES}L?)"
_ONE = rf"(?:T|{_SITES}H|H(?:V?{_F}E)?O{_F}{_SITES})"
_NAMES = rf"(?P<names>{_ONE}(?:C{_F}{_ONE})*)"
_GRADES = rf"(?P<grades>(?:[QD]{_F})?[GP](?:[CR]{_F}[GP])*)"
_DENIED = rf"(?P<denied>[ZN]{_F})"
_LED = rf"(?:CF+C)?{_F}"
"""Behind a name that its verb follows: `, however,`."""
_END = rf"(?!{_F}[SHTA])"
"""Behind a grade that stands after its finding: it is not that of the next one."""
_FREE = rf"(?!{_F}V{_F}[NQD]?{_F}[GP])"
"""Behind a finding that has its grade before it."""

_ATTRIBUTES = "GPQDAJ"
"""Behind an owner, they say what the patient has: `her severe ...`, but not `the absence of ...`."""

_USED = "#"
_GRAMMAR = tuple(
    re.compile(pattern)
    for pattern in (
        # mild rather than severe TERM; not severe but mild TERM; the same behind TERM is
        rf"(?P<grades>[GP])[M](?:{_F})[GP]{_F}{_NAMES}",
        rf"N{_F}[GP][B]{_F}(?P<grades>[GP]){_F}{_NAMES}",
        rf"{_NAMES}{_F}V{_F}(?P<grades>[GP])M{_F}[GP]{_END}",
        rf"{_NAMES}{_F}V{_F}N{_F}[GP]B{_F}(?P<grades>[GP]){_END}",
        # no or mild TERM; no sign of severe TERM; severe TERM [is absent]; no TERM
        rf"(?P<grades>Z(?:[CR]{_F}[GP])+){_F}{_NAMES}{_FREE}",
        rf"{_DENIED}{_GRADES}{_F}{_NAMES}{_FREE}",
        rf"{_GRADES}{_F}{_NAMES}C?[>/][^.]{{1,12}}?C(?P<denied>V{_F}(?:N{_F}E|Z))",
        rf"{_GRADES}{_F}{_NAMES}(?P<denied>{_F}V{_F}(?:N{_F}E|Z){_F}){_END}",
        rf"{_GRADES}{_F}{_NAMES}{_FREE}",
        rf"(?P<zero>[ZN]){_F}{_NAMES}(?!{_F}V{_F}[NQDZ]?{_F}[GPZ])",
        # TERM is [not] severe; TERM (severe); TERM is absent; TERM is [not] seen; TERM, which is severe
        rf"{_NAMES}[OFU]+{_GRADES}F",
        rf"{_NAMES}{_LED}(?:V|K|C>V){_F}{_DENIED}?{_GRADES}{_END}",
        rf"{_NAMES}{_F}(?P<zero>V{_F}Z|(?:V{_F})?N{_F}E|KZ){_END}",
        rf"{_NAMES}{_F}V{_F}(?P<present>E)",
        # PLACE shows [no] severe NOUN; PLACE: no NOUN
        rf"(?P<names>{_PLACE}){_F}[VWK]{_F}{_DENIED}?{_GRADES}{_F}H(?!O)",
        rf"(?P<names>{_PLACE}){_F}(?:[VWK]{_F}[ZN]|N){_F}(?P<zero>H)(?!O)",
        rf"H{_F}V{_F}{_DENIED}?{_GRADES}{_F}(?P<names>O{_F}{_SITES})",
        # PLACE is [not] severely ADJECTIVE; PLACE is enlarged to a mild degree; PLACE is preserved
        rf"(?P<names>{_PLACE}){_LED}[VK]?{_F}{_DENIED}?{_GRADES}{_F}A",
        rf"(?P<names>{_PLACE}){_F}V?{_F}A{_F}{_GRADES}F",
        rf"(?P<names>{_PLACE}){_LED}V?{_F}(?P<denied>[ZN]{_F})?(?P<state>[AIJ])(?!{_F}S)",
        # [no] severely ADJECTIVE PLACE; preserved PLACE
        rf"{_DENIED}?{_GRADES}{_F}A{_F}(?P<names>{_PLACE})(?!H)",
        rf"(?P<denied>[ZN]{_F})?(?P<state>[AJ]){_F}(?P<names>{_PLACE})(?!H)",
        rf"(?P<state>I){_F}(?P<names>{_PLACE})(?![HX])",
        # there is TERM
        rf"W{_F}(?P<present>){_NAMES}{_FREE}",
    )
)


@dataclass(frozen=True)
class Graded:
    """What a stretch of text says of one finding."""

    finding: str
    grades: frozenset[int]
    """Places, in the task, of the grades that would make it true."""
    start: int
    end: int
    owned: bool
    """It begins as something that the patient has: `her severe ...`."""


def graded_findings(tokens: Sequence[Token], lexicon: Lexicon, count: int) -> Iterator[Graded]:
    """All that the tokens say of findings; `count` is the number of grades. No token is used twice."""
    kinds = "".join(token.kind for token in tokens)
    free = kinds
    for pattern in _GRAMMAR:
        for match in pattern.finditer(free):
            first, last = match.span()
            grades = _grades(match, tokens, lexicon, count)
            names = list(_findings(match, tokens, lexicon))
            if not names or not 0 < len(grades) < count:
                continue
            free = free[:first] + _USED * (last - first) + free[last:]
            owned = first > 0 and kinds[first - 1] == OWNER and kinds[first] in _ATTRIBUTES
            for name in names:
                yield Graded(name, grades, tokens[first].start, tokens[last - 1].end, owned)


def _grades(match: re.Match[str], tokens: Sequence[Token], lexicon: Lexicon, count: int) -> frozenset[int]:
    """Places of the grades that the match leaves open."""
    found = match.groupdict()
    every = frozenset(range(count))
    if found.get("zero") is not None:
        return frozenset({0})
    denied = bool(found.get("denied"))
    if found.get("state") is not None:
        stated = _of_state(found["state"], count)
        return every - stated if denied else stated
    if found.get("grades") is None:
        return every - {0}
    said = tokens[match.start("grades") : match.end("grades")]
    grades = _of_words(said, lexicon, count)
    if denied and any(token.kind == PRESENT for token in said):
        return every - {count - 1}  # "no significant atrophy" may be mild
    return every - grades if denied else grades


def _of_state(kind: str, count: int) -> frozenset[int]:
    states = {ADJECTIVE: range(1, count), UNAFFECTED: range(1), SPARED: range(count - 1)}
    return frozenset(states[kind])


def _of_words(said: Sequence[Token], lexicon: Lexicon, count: int) -> frozenset[int]:
    grades: set[int] = set()
    for token in said:
        if token.kind == PRESENT:
            grades |= set(range(1, count))
        elif token.text in lexicon.grades:
            grades.add(lexicon.grades[token.text])
    kinds = {token.kind for token in said}
    if grades and "R" in kinds:
        grades = set(range(min(grades), max(grades) + 1))
    if grades and AT_MOST in kinds:
        grades = set(range(max(grades) + 1))
    if grades and AT_LEAST in kinds:
        grades = set(range(min(grades), count))
    return frozenset(grades)


def _findings(match: re.Match[str], tokens: Sequence[Token], lexicon: Lexicon) -> Iterator[str]:
    """Findings that the names of a match stand for. A site needs a noun or a state that says what is the matter."""
    names = tokens[match.start("names") : match.end("names")]
    state = next((token for token in tokens[match.start() : match.end()] if token.kind in "AIJH"), None)
    waiting: list[str] = []
    change: frozenset[str] = frozenset()
    for index, token in enumerate(names):
        if token.kind == TERM:
            yield lexicon.terms[token.text]
        elif token.kind == NOUN:
            change = lexicon.changes.get(token.text, frozenset())
            yield from _resolve(waiting, change, lexicon)
            before = index == 0 or names[index - 1].kind != SITE
            waiting = []
            change = change if before else frozenset()
        elif token.kind == SITE:
            if change:
                yield from _resolve([token.text], change, lexicon)
            else:
                waiting.append(token.text)
    if waiting and state is not None:
        yield from _resolve(waiting, lexicon.changes.get(state.text, frozenset()), lexicon)


def _resolve(sites: Sequence[str], changes: frozenset[str], lexicon: Lexicon) -> Iterator[str]:
    for site in sites:
        for change in sorted(changes):
            if (change, site) in lexicon.places:
                yield lexicon.places[(change, site)]
