"""The language of a text as data: the words with which it denies, supposes, concludes, restates and refuses.

A task names its language; the words of the disease itself are the task's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, field_validator

from clinical_reasoner.task import DiagnosisTask, TaskError

_FOLDER = Path(__file__).parent / "languages"
Words = tuple[str, ...]


class Language(BaseModel):
    """The YAML file of a language. Phrases from `rejects` on may have marks; all others are words as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    letters: str
    """Character class of the script."""
    function_words: frozenset[str]
    """The small words of which every text of this language has many."""
    foreign_words: frozenset[str]
    """Those of other languages in the same script; what both share tells nothing."""

    fillers: Words
    """May stand between a grade and its finding."""
    owners: Words
    """Before what the patient has, also where the clause supposes something."""
    denials: Words
    present: Words
    """Say that a finding is there, but not with which grade."""
    seen: Words
    verbs: Words
    introductions: Words
    """Begin a list of what there is."""
    links: Words
    ranges: Words
    marks: Words
    at_most: Words
    at_least: Words
    instead: Words
    contrast: Words
    of: Words

    clause_starts: Words
    relatives: Words
    """Begin a clause that supposes what the one before it supposes."""
    supposing: Words
    """Make a clause speak of other patients, or of what is not so."""
    general_verbs: Words
    """With a diagnosis as their subject they do the same."""
    general_in: Words
    """Before a diagnosis, so do these."""
    bounds_before: Words
    bounds_after: Words
    """Make a number a limit, or the value of another day."""

    before_labels: Words
    """May stand before the name of a diagnosis."""
    nothing: Words
    """Before a word of support, they turn it round."""
    if_words: Words
    conceding: Words
    """Up to the next comma, what follows is granted on the way to another conclusion."""
    alone: Words
    """So does a clause with one of these."""
    rejects: Words
    """Leave no room for the diagnosis."""
    argues: Words
    """Count against the diagnosis, and may be outweighed."""
    supports: Words
    restating: Words
    refusals: Words

    @field_validator("function_words", "foreign_words", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    def __hash__(self) -> int:
        """By its patterns' source, so that a language can key a cache."""
        return hash((self.letters, self.rejects, self.refusals))


@lru_cache(maxsize=8)
def load_language(name: str) -> Language:
    """A language that ships with the package. Raises TaskError, with those that there are."""
    file = _FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
        raise TaskError(f"language {name!r}: no such file among the languages; there are: {known}")
    return Language.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def plain_text(text: str) -> str:
    """The text on one line, with every run of whitespace as one space and the apostrophe of a keyboard."""
    return " ".join(text.split()).replace("\u2019", "'")


def phrase_source(phrase: str, slots: Mapping[str, str] = {}) -> str:
    """Regular expression of a phrase with marks: `[a|b]` may stand there (`[a|b]*` up to four times), `(a|b)` as one of
    them, `{name}` is a slot, and a backslash takes a mark for itself."""
    source = ""
    for part in re.split(r"(\\.|\{\w+\}|\]\*|[\[\]()|])", phrase):
        if part.startswith("\\"):
            source += re.escape(part[1:])
        elif part.startswith("{") and part[1:-1] in slots:
            source += slots[part[1:-1]]
        else:
            source += _MARKS.get(part, re.escape(part))
    return source


_MARKS = {"[": "(?:", "]": ")?", "]*": "){0,4}", "(": "(?:", ")": ")", "|": "|"}


def any_phrase(phrases: Iterable[str], slots: Mapping[str, str] = {}) -> re.Pattern[str]:
    """Finds any of these phrases, as whole words."""
    sources = "|".join(phrase_source(phrase, slots) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{sources})(?!\w)", re.IGNORECASE)


def any_of(words: Iterable[str]) -> str:
    """Source that finds any of these words, the longest first: a tree by letters, so that few are tried."""
    return _tree_source(_tree((word, "") for word in words))


def longest_of(phrases: Iterable[str]) -> str:
    """Source that finds the longest of many phrases, as whole words where they begin and end with a letter."""
    guards: dict[str, list[tuple[str, str]]] = {r"(?<!\w)": [], "": []}
    for phrase in phrases:
        before = r"(?<!\w)" if phrase[0].isalnum() else ""
        guards[before].append((phrase, r"(?!\w)" if phrase[-1].isalnum() else ""))
    return "|".join(f"{before}{_tree_source(_tree(ends))}" for before, ends in guards.items() if ends)


def _tree(phrases: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Letter -> tree of what follows it; under the empty text, what stands behind a phrase that ends there."""
    root: dict[str, Any] = {}
    for phrase, behind in phrases:
        node = root
        for letter in phrase:
            node = node.setdefault(letter, {})
        node[""] = behind
    return root


def _tree_source(node: dict[str, Any]) -> str:
    branches = [f"{re.escape(letter)}{_tree_source(below)}" for letter, below in node.items() if letter]
    branches += [node[""]] if "" in node else []
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def label_mentions(task: DiagnosisTask) -> dict[str, str]:
    """How a text names each diagnosis, in lower case -> its table name."""
    return {plain_text(name).lower(): label.name for label in task.labels for name in (label.text, *label.mentions)}
