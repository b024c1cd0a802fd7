"""A diagnosis task as data: labels, option letters, question and evidence vocabulary, read from YAML.

No other module names a disease. Everything that is written into a description, and everything that is later
looked for in a rationale, comes from here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinical_reasoner.errors import UserError


class TaskError(UserError):
    """A task or exemplar file cannot be used; the message names the file, the place and the fix."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Strict):
    name: str
    """Short name as stored in tables, e.g. `AD`."""
    option: str = Field(pattern=r"^[A-Z]$")
    """Letter of the option in the question."""
    text: str
    """Full name as written in the question and in answers."""
    aliases: tuple[str, ...] = ()
    """Other ways in which a file or an answer names this diagnosis."""
    mentions: tuple[str, ...] = ()
    """Besides its full name, how a rationale calls this diagnosis; none of them may mean something else."""


class Grade(_Strict):
    name: str
    """Word that starts a finding's statement, e.g. `Mild`."""
    words: tuple[str, ...]
    """Lower-case words or phrases by which a text expresses this grade."""


class NumberField(_Strict):
    name: str
    """Column of the `patients` table."""
    kind: Literal["number"]
    clause: str = Field(pattern=r"\{value\}")
    """Verb phrase with a `{value}` slot; follows "The patient"."""
    whole: bool = False
    """Written in completed whole units, as ages are."""
    open_clause: str | None = Field(default=None, pattern=r"\{value\}")
    """Clause of a value that stands for itself and everything above: "90+" is 90 or more."""
    mentions: tuple[str, ...] = ()
    """Other phrases with a `{value}` that state the same fact. `[a|b]` may stand there, `(a|b)` as one of both."""


class ChoiceField(_Strict):
    name: str
    """Column of the `patients` table."""
    kind: Literal["choice"]
    clauses: dict[str, str]
    """One verb phrase for each value."""
    mentions: dict[str, tuple[str, ...]] = {}
    """Other phrases, with the same marks, that state the value; under `1|2` those that leave open which of the two."""


PatientField = Annotated[NumberField | ChoiceField, Field(discriminator="kind")]


class RegionalMeasure(_Strict):
    """What a finding's w-score is computed from: measures of the `patients` table, by name."""

    regions: tuple[str, ...] = Field(min_length=1)
    """Added up."""
    over: tuple[str, ...] = ()
    """Added up, they divide the first sum."""
    worse: Literal["low", "high"]
    """The affected side."""


class RatingScale(_Strict):
    """A visual rating that gives the finding's grade where no measure does."""

    name: str
    """Measure of the `patients` table with the unit `rating`."""
    lowest: dict[str, dict[float, float]]
    """Grade -> lowest age in years -> lowest rating of that grade from that age on."""


class Change(_Strict):
    """What can be the matter with a place, in the words of free text."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...] = ()
    """The place is so: there is a finding, of a grade that other words give."""
    unaffected: tuple[str, ...] = ()
    """The place is so: the finding has the first grade."""
    spared: tuple[str, ...] = ()
    """The place is so: the finding has not the last grade."""
    measured: tuple[str, ...] = ()
    """What is said of the place's size: `SITE volume is reduced`."""


class Finding(_Strict):
    name: str
    """Key in the `findings` table."""
    term: str
    """What the statement says after its grade, e.g. `hippocampal atrophy`."""
    synonyms: tuple[str, ...] = ()
    """Other names of the same finding in free text."""
    change: str | None = None
    """Of `changes`: what has happened to the sites, which makes terms such as SITE atrophy, atrophy of SITE."""
    sites: tuple[str, ...] = ()
    """Nouns and adjectives of the place."""
    measure: RegionalMeasure | None = None
    rating: RatingScale | None = None


class DiagnosisTask(_Strict):
    name: str
    title: str
    """One line that says what is being told apart."""
    role: str
    """Whom the model is asked to be; completes "You are ...". """
    question: str
    exemplars: str
    """Path of the JSON file with the expert exemplars."""
    language: str = "en"
    """Of all its words: a file of `evidence/languages/`."""
    spellings: dict[str, tuple[str, ...]] = {}
    """Word of the `mentions` -> other ways to write it."""
    changes: dict[str, Change] = {}
    """By name, for `findings.change`."""
    labels: tuple[Label, ...] = Field(min_length=2)
    controls: str | None = None
    """Label of the unaffected people on whom norms are fitted."""
    grades: tuple[Grade, ...] = Field(min_length=2)
    """From unaffected to most affected."""
    sentences: tuple[tuple[PatientField, ...], ...]
    """Fields of the patient paragraph, one inner list per sentence."""
    findings_heading: str
    findings: tuple[Finding, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> DiagnosisTask:
        for kind, names in {
            "label": [label.name for label in self.labels],
            "option": [label.option for label in self.labels],
            "grade": [grade.name for grade in self.grades],
            "field": [field.name for field in self.fields],
            "finding": [finding.name for finding in self.findings],
        }.items():
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} {twice[0]!r} stands there twice")
        if self.controls is not None and self.controls not in self.label_names:
            raise ValueError(f"controls {self.controls!r} is no label; labels are {', '.join(self.label_names)}")
        for finding in self.findings:
            if finding.change is not None and finding.change not in self.changes:
                raise ValueError(f"finding {finding.name!r}: change {finding.change!r} is not one of `changes`")
        return self

    def __hash__(self) -> int:
        """By name, so that a task can key a cache; equality compares everything."""
        return hash(self.name)

    @property
    def fields(self) -> tuple[NumberField | ChoiceField, ...]:
        """All patient fields in the order of the paragraph."""
        return tuple(field for sentence in self.sentences for field in sentence)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(label.option for label in self.labels)

    @property
    def grade_names(self) -> tuple[str, ...]:
        return tuple(grade.name for grade in self.grades)

    def label(self, name: str) -> Label:
        """The label with this table name. Raises KeyError for any other text."""
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(f"label {name!r} is not one of {', '.join(self.label_names)}")

    def question_text(self) -> str:
        """The question with its options, as it ends every description."""
        options = " ".join(f"({label.option}) {label.text}" for label in self.labels)
        return f"{self.question} {options}"

    def answer_text(self, name: str) -> str:
        """How an answer names a diagnosis: its option letter in brackets, then its full text."""
        label = self.label(name)
        return f"({label.option}) {label.text}"

    def read_label(self, text: str) -> str | None:
        """Table name of a diagnosis as people write it (`A`, `(A)`, name, full text or alias); None if unknown."""
        plain = _straight(" ".join(text.strip().strip(".").split()))
        option = re.fullmatch(r"\(?([A-Za-z])\)?", plain)
        with_option = re.fullmatch(r"\(([A-Z])\)\s*(.+)", plain)
        for label in self.labels:
            if option and option.group(1).upper() == label.option:
                return label.name
            known = (label.name, label.text, f"{label.text} ({label.name})", *label.aliases)
            names = {_straight(name).lower() for name in known}
            if plain.lower() in names:
                return label.name
            if with_option and with_option.group(1) == label.option and with_option.group(2).lower() in names:
                return label.name
        return None


def _straight(text: str) -> str:
    """With the apostrophe of a keyboard for that of a word processor."""
    return text.replace("\u2019", "'")


@lru_cache(maxsize=16)
def load_task(path: str) -> DiagnosisTask:
    """Read a task file. Raises TaskError with the file, the place and the reason."""
    file = Path(path)
    if not file.is_file():
        raise TaskError(f"task.file: no file at {path!r} (looked in {Path.cwd()})")
    try:
        return DiagnosisTask.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise TaskError(f"{path}: not readable as YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise TaskError(f"{path}: {place}: {first['msg']}") from error
