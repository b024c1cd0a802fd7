"""Training text of the reference models: rationales written from evidence by rules, with wording from YAML.

This is the text that a stand-in learns to imitate. A real teacher does not use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evidence.description import Evidence, join_words
from clinical_reasoner.task import DiagnosisTask


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelText(_Strict):
    level: str
    sentences: tuple[str, ...]


class FieldText(_Strict):
    at_least: dict[float, LevelText] = {}
    """Number field: lowest value of each level."""
    values: dict[str, LevelText] = {}
    """Choice field: one entry per value."""


class GroupLevel(_Strict):
    level: str
    at_least: float
    """Lowest mean grade of this level; grades count 0, 1, 2, ... in the order of the task."""


class GroupText(_Strict):
    findings: tuple[str, ...]
    sentences: tuple[str, ...]
    levels: tuple[GroupLevel, ...]


class LabelText(_Strict):
    support: dict[str, tuple[str, ...]]
    """Factor -> levels that speak for the label."""


class Conclusions(_Strict):
    with_support: tuple[str, ...]
    without_support: tuple[str, ...]
    contrast: tuple[str, ...]


class Wording(_Strict):
    """The YAML file of the wording."""

    fields: dict[str, FieldText]
    groups: dict[str, GroupText]
    factors: dict[str, dict[str, str]]
    labels: dict[str, LabelText]
    conclusions: Conclusions = Field()


@dataclass(frozen=True)
class Said:
    sentences: list[str]
    levels: dict[str, str]
    """Factor -> level that was found."""


def write_rationale(evidence: Evidence, label: str, task: DiagnosisTask, wording: Wording, rng: Random) -> str:
    """A rationale that restates the evidence and weighs it towards `label`."""
    said = restate(evidence, task, wording, rng)
    return " ".join([*said.sentences, _conclude(said.levels, label, task, wording, rng)])


def write_unweighed(evidence: Evidence, label: str, task: DiagnosisTask, wording: Wording, rng: Random) -> str:
    """As `write_rationale`, but the conclusion weighs levels picked at random: language without knowledge."""
    said = restate(evidence, task, wording, rng)
    levels = {name: rng.choice(list(texts)) for name, texts in wording.factors.items()}
    other = rng.choice(list(wording.labels))
    return " ".join([*said.sentences, _conclude(levels, label, task, wording, rng, judged_as=other)])


def restate(evidence: Evidence, task: DiagnosisTask, wording: Wording, rng: Random) -> Said:
    """The evidence in the sentences of the wording, with the level of each factor."""
    said = Said([], {})
    for name, field in wording.fields.items():
        if name in evidence.fields:
            value = evidence.fields[name]
            text = field.values[value] if field.values else _by_threshold(field, float(value))
            said.levels[name] = text.level
            said.sentences.append(rng.choice(text.sentences).replace("{value}", value))
    for name, group in wording.groups.items():
        grades = {finding: evidence.grades[finding] for finding in group.findings if finding in evidence.grades}
        if grades:
            ranks = [task.grade_names.index(grade) for grade in grades.values()]
            mean = sum(ranks) / len(ranks)
            level = next(entry.level for entry in group.levels if mean >= entry.at_least)
            said.levels[name] = level
            sentence = rng.choice(group.sentences)
            said.sentences.append(sentence.format(claims=claims_text(grades, task), level=level))
    return said


def _by_threshold(field: FieldText, value: float) -> LevelText:
    return next(text for lowest, text in sorted(field.at_least.items(), reverse=True) if value >= lowest)


def claims_text(grades: dict[str, str], task: DiagnosisTask) -> str:
    """Graded findings as one phrase, in the order given: `severe hippocampal atrophy and no amygdala atrophy`."""
    terms = {finding.name: finding.term for finding in task.findings}
    return join_words([f"{grade.lower()} {terms[name]}" for name, grade in grades.items()])


def _conclude(
    levels: dict[str, str],
    label: str,
    task: DiagnosisTask,
    wording: Wording,
    rng: Random,
    judged_as: str | None = None,
) -> str:
    support, contrary = weigh(levels, judged_as or label, wording)
    contrast = rng.choice(wording.conclusions.contrast).format(contrary=join_words(contrary)) if contrary else ""
    sentences: Sequence[str] = wording.conclusions.with_support if support else wording.conclusions.without_support
    return rng.choice(sentences).format(
        support=join_words(support) if support else "", label=task.label(label).text, contrast=contrast
    )


def weigh(levels: dict[str, str], label: str, wording: Wording) -> tuple[list[str], list[str]]:
    """Factors that speak for the label, and those that do not."""
    rules = wording.labels[label].support
    support = [
        wording.factors[name][levels[name]] for name in wording.factors if levels.get(name) in rules.get(name, ())
    ]
    contrary = [
        wording.factors[name][levels[name]]
        for name in wording.factors
        if name in levels and levels[name] not in rules.get(name, ())
    ]
    return support, contrary
