"""What the page's form is made of: the task's fields, findings and labels, with the bounds that the request has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.serving.schema import RESEARCH_USE_ONLY, DiagnoseRequest
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField

YEARS = "_years"
"""End of the name of a field in years."""


class Choice(BaseModel):
    value: str | int
    """As it stands in a request."""
    label: str
    hint: str
    """How the description says it."""


class FormField(BaseModel):
    name: str
    kind: Literal["number", "choice"]
    label: str
    unit: str = ""
    hint: str = ""
    """How the description says it."""
    whole: bool = False
    """Only whole numbers are taken."""
    minimum: float | int | None = None
    maximum: float | int | None = None
    choices: tuple[Choice, ...] = ()


class FormFinding(BaseModel):
    name: str
    term: str


class FormLabel(BaseModel):
    name: str
    text: str


def page_form(
    task: DiagnosisTask, body_model: type[DiagnoseRequest], limits: ServingConfig, examples: Mapping[str, Any]
) -> dict[str, Any]:
    """The form as JSON. A disease is data: the page knows none.

    `grades` run from unaffected to most affected, the first of `models` is preset, and `examples` are bodies of
    requests about nobody, by name.
    """
    properties = body_model.model_json_schema()["$defs"]["Patient"]["properties"]
    return {
        "title": task.title,
        "research_use_only": RESEARCH_USE_ONLY,
        "labels": [{"name": label.name, "text": label.text} for label in task.labels],
        "fields": [_field(field, _bounds(properties[field.name])).model_dump() for field in task.fields],
        "findings_heading": task.findings_heading.rstrip(":"),
        "findings": [{"name": finding.name, "term": finding.term} for finding in task.findings],
        "grades": list(task.grade_names),
        "models": ["auto", "student", "teacher"],
        "keys_needed": limits.api_keys is not None,
        "max_description_chars": limits.max_description_chars,
        "max_file_mib": limits.uploads.max_file_mib,
        "max_pictures": limits.uploads.max_pictures,
        "examples": dict(examples),
    }


def _field(field: NumberField | ChoiceField, bounds: Mapping[str, Any]) -> FormField:
    whole = bounds.get("type") == "integer"
    if isinstance(field, NumberField):
        return FormField(
            name=field.name,
            kind="number",
            label=_label(field.name, field.clause),
            unit="years" if field.name.endswith(YEARS) else "",
            hint=field.clause.replace("{value}", "…"),
            whole=whole,
            minimum=bounds.get("minimum"),
            maximum=bounds.get("maximum"),
        )
    choices = tuple(
        Choice(value=int(value) if whole else value, label=_capital(value.replace("_", " ")), hint=clause)
        for value, clause in field.clauses.items()
    )
    return FormField(
        name=field.name, kind="choice", label=_label(field.name, " ".join(field.clauses.values())), choices=choices
    )


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Type and bounds of a field that may be null, from its JSON schema."""
    known = next(one for one in schema["anyOf"] if one.get("type") != "null")
    return {**schema, **known}


def _label(name: str, clauses: str) -> str:
    """`apoe4_copies` -> `APOE4 copies`: a word that the clauses write in capitals is written so."""
    capitals = {word.lower(): word for word in re.findall(r"\w+", clauses) if word.isupper()}
    words = name.removesuffix(YEARS).split("_")
    return _capital(" ".join(capitals.get(word, word) for word in words))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
