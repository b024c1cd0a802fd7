"""A text as tokens: each word or phrase that a task or its language knows has a letter for its kind, others an X.

Patterns over these letters are then the grammar, so that what a sentence may look like is said apart from its words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from clinical_reasoner.evidence.language import Language, label_mentions, load_language, longest_of
from clinical_reasoner.task import DiagnosisTask

ZERO, GRADE, PRESENT, SITE, NOUN, TERM, ADJECTIVE, UNAFFECTED, SPARED, MEASURED = "ZGPSHTAIJL"
DENIAL, VERB, SEEN, INTRODUCTION, LINK, RANGE, MARK, AT_MOST, AT_LEAST, INSTEAD, CONTRAST, OF = "NVEWCRKQDMBO"
FILLER, OWNER, CLAUSE, RELATIVE, SUPPOSING, OTHER, STOP = "FU/>?X."
_PLAIN = re.compile(r"(?!.*\b(?:of|relative|with|or|and)\b)[\w-]+(?: [\w-]+)*")
"""A site in one piece, which may share its noun with others."""
_OF = re.compile(r"^.+? of (?:the )?")


class Token(NamedTuple):
    kind: str
    text: str
    """In lower case."""
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    pattern: re.Pattern[str]
    kinds: Mapping[str, str]
    """Phrase in lower case -> kind."""
    grades: Mapping[str, int]
    """Word -> place of its grade in the task."""
    terms: Mapping[str, str]
    """Whole term -> finding."""
    places: Mapping[tuple[str, str], str]
    """(change, site) -> finding."""
    changes: Mapping[str, frozenset[str]]
    """Noun, adjective or other state -> the changes that it may stand for."""

    def tokens(self, text: str) -> list[Token]:
        """All tokens of a text on one line."""
        tokens = []
        for match in self.pattern.finditer(text):
            found = match.group().lower()
            kind = self.kinds.get(found) or (STOP if match["stop"] else OTHER)
            tokens.append(Token(kind, found, *match.span()))
        return tokens


@lru_cache(maxsize=8)
def lexicon(task: DiagnosisTask) -> Lexicon:
    """Of a task and its language. Where a word has several kinds, the task's own win."""
    language = load_language(task.language)
    terms, places, changes = _places(task)
    grades = {word.lower(): place for place, grade in enumerate(task.grades) for word in grade.words}
    kinds = _kinds_of_language(language, task)
    for name, change in task.changes.items():
        for kind, words in (
            (ADJECTIVE, change.adjectives),
            (UNAFFECTED, change.unaffected),
            (SPARED, change.spared),
            (MEASURED, change.measured),
        ):
            for word in words:
                kinds[word.lower()] = kind
                changes.setdefault(word.lower(), set()).add(name)
    kinds |= dict.fromkeys((site for _, site in places), SITE)
    kinds |= {noun: NOUN for noun in changes if kinds.get(noun) not in (ADJECTIVE, UNAFFECTED, SPARED, MEASURED)}
    kinds |= dict.fromkeys(terms, TERM)
    kinds |= {word: GRADE if place else ZERO for word, place in grades.items()}
    source = rf"{longest_of(kinds)}|(?P<stop>[.!?;]+(?!\w))|[^\W_]+(?:[-'.][^\W_]+)*|[^\w\s]"
    frozen = {word: frozenset(names) for word, names in changes.items()}
    return Lexicon(re.compile(source, re.IGNORECASE), kinds, grades, terms, places, frozen)


def _kinds_of_language(language: Language, task: DiagnosisTask) -> dict[str, str]:
    groups = {
        FILLER: language.fillers,
        OWNER: language.owners,
        OF: language.of,
        MARK: language.marks,
        LINK: language.links,
        RANGE: language.ranges,
        VERB: language.verbs,
        INTRODUCTION: language.introductions,
        PRESENT: language.present,
        SEEN: language.seen,
        AT_MOST: language.at_most,
        AT_LEAST: language.at_least,
        INSTEAD: language.instead,
        CONTRAST: language.contrast,
        DENIAL: language.denials,
        CLAUSE: language.clause_starts,
        RELATIVE: language.relatives,
        SUPPOSING: language.supposing,
    }
    kinds = {word.lower(): kind for kind, words in groups.items() for word in words}
    for name in label_mentions(task):
        kinds |= {f"{name} {verb}": SUPPOSING for verb in language.general_verbs}
        kinds |= {f"{word} {name}": SUPPOSING for word in language.general_in}
    for link in [word for word in language.links if word != ","]:
        kinds[f", {link}"] = LINK
    return kinds


def _places(task: DiagnosisTask) -> tuple[dict[str, str], dict[tuple[str, str], str], dict[str, set[str]]]:
    """Whole terms, (change, site) -> finding, and noun -> changes. A term of several words that is a site and a noun is
    read as these two, so that it can share its noun with others: `hippocampal and entorhinal atrophy`."""
    terms: dict[str, str] = {}
    places: dict[tuple[str, str], str] = {}
    nouns: dict[str, set[str]] = {}
    for name, words in task.changes.items():
        for noun in words.nouns:
            nouns.setdefault(noun.lower(), set()).add(name)
    known = sorted(nouns, key=len, reverse=True)
    for finding in task.findings:
        for site in finding.sites if finding.change else ():
            places[(finding.change or "", site.lower())] = finding.name
        for term in (finding.term.lower(), *(word.lower() for word in finding.synonyms)):
            noun = next((noun for noun in known if term.endswith(f" {noun}")), term.rpartition(" ")[2])
            site = term.removesuffix(noun).strip()
            change = (finding.change or "") if noun in known else noun
            whole = not _PLAIN.fullmatch(site) or (noun in known and change not in nouns[noun])
            if not whole:
                nouns.setdefault(noun, set()).add(change)
                places[(change, site)] = finding.name
            elif (finding.change or "", _OF.sub("", term)) not in places:
                terms[term] = finding.name
    return terms, places, nouns
