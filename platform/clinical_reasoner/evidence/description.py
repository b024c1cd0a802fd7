"""The patient description: deterministic text from a row, and the same evidence back from the text.

Both directions are built from the clauses and terms of the task file, so `parse_description(describe(x))` gives the
evidence of `x`. A missing value has no words in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor

from clinical_reasoner.evidence.language import any_of
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField, TaskError

SUBJECT = "The patient"
NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class Evidence:
    """What a description says: values of patient fields as written there, and the grade of each finding."""

    fields: Mapping[str, str]
    """Field name -> value as text (`74`, `female`, `1`); absent when unknown."""
    grades: Mapping[str, str]
    """Finding name -> grade name; absent when not graded."""


def check_task_fields(task: DiagnosisTask, file: str) -> None:
    """Raises TaskError, with the file and the field, unless each field is a patient column of that kind, and each value
    of a choice has a clause."""
    for field in task.fields:
        number, values = _column(field.name)
        if isinstance(field, NumberField) and not number:
            raise TaskError(f"{file}: field {field.name!r}: no column of numbers in the `patients` table")
        if isinstance(field, ChoiceField):
            if not values:
                raise TaskError(f"{file}: field {field.name!r}: no column with a choice of values in `patients`")
            silent = [value for value in values if value not in field.clauses]
            if silent:
                raise TaskError(f"{file}: field {field.name!r}: no clause for the value {silent[0]!r}")


def evidence_of(patient: PatientRow, grades: Mapping[str, str], task: DiagnosisTask) -> Evidence:
    """What a description of this patient states. Raises ValueError on an unknown finding, grade or value; the message
    holds none of the patient's values."""
    fields: dict[str, str] = {}
    for field in task.fields:
        value = getattr(patient, field.name)
        if value is None:
            continue
        text = _number_text(value, field) if isinstance(field, NumberField) else str(value)
        text += "+" if field.name in patient.at_least else ""
        if isinstance(field, ChoiceField) and text not in field.clauses:
            raise ValueError(f"{field.name}: only {', '.join(field.clauses)} have a clause in task {task.name!r}")
        fields[field.name] = text
    known = {finding.name for finding in task.findings}
    for name, grade in grades.items():
        if name not in known:
            raise ValueError(f"finding {name!r} is not in the vocabulary of task {task.name!r}")
        if grade not in task.grade_names:
            raise ValueError(f"grade {grade!r} of {name} is not one of {', '.join(task.grade_names)}")
    ordered = {finding.name: grades[finding.name] for finding in task.findings if finding.name in grades}
    return Evidence(fields, ordered)


def describe(patient: PatientRow, grades: Mapping[str, str], task: DiagnosisTask) -> str:
    """Paragraph, one statement per graded finding, then the question with its options."""
    return describe_evidence(evidence_of(patient, grades, task), task)


def describe_evidence(evidence: Evidence, task: DiagnosisTask) -> str:
    """The description of evidence that is already in text form, e.g. read back or edited."""
    sentences = []
    for sentence in task.sentences:
        clauses = [_clause(field, evidence.fields[field.name]) for field in sentence if field.name in evidence.fields]
        if clauses:
            sentences.append(f"{SUBJECT} {join_words(clauses)}.")
    parts = [" ".join(sentences)] if sentences else []
    terms = {finding.name: finding.term for finding in task.findings}
    statements = [f"{grade} {terms[name]}." for name, grade in evidence.grades.items()]
    if statements:
        parts.append("\n".join([task.findings_heading, *statements]))
    parts.append(task.question_text())
    return "\n\n".join(parts)


def statement(name: str, values: Sequence[str], task: DiagnosisTask) -> str:
    """A value of a field or a grade of a finding in the words of a description, or several that are left open:
    `is 74 years old`, `No or Mild hippocampal atrophy`."""
    terms = {finding.name: finding.term for finding in task.findings}
    if name in terms:
        return f"{' or '.join(values)} {terms[name]}"
    field = next(field for field in task.fields if field.name == name)
    return " or ".join(_clause(field, value) for value in values)


def parse_description(text: str, task: DiagnosisTask) -> Evidence:
    """Evidence stated in a description. Text in other words than the task's clauses is passed over."""
    body = without_question(text, task)
    fields: dict[str, str] = {}
    for written in _written_fields(task):
        found = written.pattern.search(body) if written.beginning in body else None
        if found:
            fields[written.field] = "".join(found.groups()) + written.value
    said: dict[str, str] = {}
    for statement in _statement(task).finditer(body):
        said.setdefault(statement["term"], statement["grade"])
    grades = {finding.name: said[finding.term] for finding in task.findings if finding.term in said}
    return Evidence(fields, grades)


def seen_description(description: str, reads_text: bool, task: DiagnosisTask) -> str:
    """What a model reads of a description: all of it, or, for one that sees the picture alone, the question."""
    return description if reads_text else with_question("The MRI of the patient is shown in the picture.", task)


def with_question(description: str, task: DiagnosisTask) -> str:
    """A ready description, ended by the task's question unless it already has it."""
    return f"{without_question(description, task)}\n\n{task.question_text()}"


def without_question(description: str, task: DiagnosisTask) -> str:
    return description.strip().removesuffix(task.question_text()).rstrip()


def join_words(words: list[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _column(name: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a column of `patients` that may be unknown holds numbers, and its values as text where they are a choice:
    words, or the whole numbers between two bounds."""
    column = PatientRow.model_json_schema()["properties"].get(name, {})
    kind = column.get("anyOf", [{}])[0]
    bounded = kind.get("type") == "integer" and {"minimum", "maximum"} <= kind.keys()
    values = range(kind["minimum"], kind["maximum"] + 1) if bounded else kind.get("enum", ())
    return kind.get("type") in ("number", "integer"), tuple(map(str, values))


def _number_text(value: float, field: NumberField) -> str:
    return str(floor(value)) if field.whole else f"{value:g}"


def _clause(field: NumberField | ChoiceField, value: str) -> str:
    if isinstance(field, ChoiceField):
        return field.clauses[value]
    if value.endswith("+") and field.open_clause:
        return field.open_clause.replace("{value}", value[:-1])
    return field.clause.replace("{value}", value)


@dataclass(frozen=True)
class _WrittenField:
    """A clause as a pattern."""

    field: str
    value: str
    """What it says of a choice; behind a number its mark."""
    beginning: str
    """Without these words in a text, the pattern finds nothing."""
    pattern: re.Pattern[str]


@lru_cache(maxsize=8)
def _written_fields(task: DiagnosisTask) -> tuple[_WrittenField, ...]:
    """In their order: of several clauses about a field, the last one counts."""
    written = []
    for field in task.fields:
        if isinstance(field, NumberField):
            values = {"": field.clause} | ({"+": field.open_clause} if field.open_clause else {})
        else:
            values = field.clauses
        for value, clause in values.items():
            pattern = re.compile(rf"\b{_source(clause)}(?=[\s,.]|$)")
            written.append(_WrittenField(field.name, value, clause.partition("{value}")[0], pattern))
    return tuple(written)


@lru_cache(maxsize=8)
def _statement(task: DiagnosisTask) -> re.Pattern[str]:
    """Of a graded finding, on a line of its own."""
    grades, terms = any_of(task.grade_names), any_of(finding.term for finding in task.findings)
    return re.compile(rf"(?m)^[-*\s]*(?P<grade>{grades}) (?P<term>{terms})\.?\s*$")


def _source(clause: str) -> str:
    return re.escape(clause).replace(re.escape("{value}"), NUMBER)
