"""What the endpoint takes and returns: requests, responses, and problem details (RFC 9457).

The request is built from the task and from `PatientRow`: patient fields with the bounds of the table, findings and
grades of the vocabulary. A problem names fields and what is allowed there, and repeats no value that was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from http.client import responses
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from clinical_reasoner.evidence.claims import Verdict
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField

ModelChoice = Literal["student", "teacher", "auto"]
AnsweredBy = Literal["student", "teacher"]

RESEARCH_USE_ONLY = (
    "Research use only. This is not a medical device, and its answers must not be used to diagnose or treat anyone."
)
PROBLEM_MEDIA_TYPE = "application/problem+json"
WHOLE_BODY = "(body)"
"""Field of an error that is in no single field."""
UNKNOWN = "(unknown)"
"""Part of a place that is no name of the request's own: whoever sent it made it up."""
MOST_ERRORS = 50
"""That are told of one request."""
_NO_OBJECT = "should be a JSON object"
NOT_JSON = "not valid JSON"
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "json_invalid": NOT_JSON,
    "missing": "missing",
    "model_attributes_type": _NO_OBJECT,
    "model_type": _NO_OBJECT,
}
"""By pydantic's error type, where its own words would puzzle a client."""


class _Body(BaseModel):
    # Strict: "24" is no MMSE score, and neither is true.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PatientInput(_Body):
    """What is known about a patient. What is unknown is null or left out."""

    findings: dict[str, str | None] = {}

    @model_validator(mode="after")
    def _says_something(self) -> PatientInput:
        values = [value for name, value in self if name != "findings"]
        if all(value is None for value in (*values, *self.findings.values())):
            raise PydanticCustomError("empty_patient", "nothing is known; give at least one field or finding")
        return self


class DiagnoseRequest(_Body):
    """One patient, as structured fields or as a ready description."""

    patient: PatientInput | None = None
    description: str | None = None
    model: ModelChoice = Field(
        default="auto", description="Who answers. `auto`: the student, and the teacher where the student is unsure."
    )

    @field_validator("description")
    @classmethod
    def _not_blank(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise PydanticCustomError("blank", "the description is blank")
        return text

    @model_validator(mode="after")
    def _one_of_both(self) -> DiagnoseRequest:
        if self.patient is None and self.description is None:
            raise PydanticCustomError("one_of", "give either patient or description", {"field": "patient"})
        if self.patient is not None and self.description is not None:
            raise PydanticCustomError("one_of", "give patient or description, not both", {"field": "description"})
        return self


class JudgedClaim(BaseModel):
    """Something that the rationale says about the patient, compared with what is known."""

    name: str = Field(description="Patient field or finding.")
    value: str = Field(description="Value or grade that the rationale states.")
    verdict: Verdict
    start: int = Field(description="Where it stands in the rationale: offset of its first character.")
    end: int = Field(description="Offset behind its last character.")


class DiagnoseResponse(BaseModel):
    diagnosis: str = Field(description="Name of the label.")
    diagnosis_text: str
    option: str = Field(description="Letter of the option in the question.")
    probabilities: dict[str, float] | None = Field(
        description="Probability of each label, from the option letter's log-probabilities; null where none was found."
    )
    calibrated: bool = Field(
        description="Whether the probabilities were calibrated on patients that the models had not seen."
    )
    prediction_set: tuple[str, ...] | None = Field(
        description="Labels that cannot be ruled out at the configured coverage, the most probable first; null where "
        "there are no calibrated probabilities, or too few patients to calibrate on."
    )
    coverage: float | None = Field(description="Share of patients whose true label is in such a set.")
    refer: bool = Field(
        description="True where neither model is sure, or the only sure one could not be had: refer to a clinician."
    )
    rationale: str | None = Field(description="Null where the model answers without reasoning.")
    claims: tuple[JudgedClaim, ...]
    answered_by: AnsweredBy
    routing: str = Field(description="Why this model answered.")
    degraded: bool = Field(
        description="True where `auto` should have given the teacher's answer, but had only that of an unsure student."
    )
    model: str
    prompt_version: str
    operating_point: str | None = Field(
        description="Version of the file with threshold, temperatures and quantiles; null where there is none."
    )
    version: str = Field(description="Version of this software.")
    request_id: str
    warnings: tuple[str, ...] = Field(default=(), description="What a reader should know about a scan that was sent.")
    findings: dict[str, str] = Field(
        default={}, description="Grades that came from a label map that was sent; the client's own stand before them."
    )
    research_use_only: str = RESEARCH_USE_ONLY


class FieldError(BaseModel):
    field: str = Field(description="Dotted place in the request, e.g. `patient.mmse`.")
    message: str


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


def problem(status: int, detail: str, errors: Iterable[FieldError] = ()) -> Problem:
    return Problem(title=responses.get(status, "Not Answered"), status=status, detail=detail, errors=tuple(errors))


def field_errors(errors: Collection[ErrorDetails], known: Collection[str]) -> tuple[FieldError, ...]:
    """Place and message of the first MOST_ERRORS pydantic errors, without the input; one more says how many are left.

    A place is made of list positions and of `known`, such as `names_in` gives them.
    """
    told = tuple(FieldError(field=_place(one, known), message=_message(one)) for one in islice(errors, MOST_ERRORS))
    left = len(errors) - len(told)
    return (*told, FieldError(field=WHOLE_BODY, message=f"{left} more errors")) if left else told


def parameter_errors(errors: Collection[ErrorDetails]) -> tuple[FieldError, ...]:
    """`field_errors` of FastAPI, which looks at declared parameters alone: their places hold no name of a client's."""
    return field_errors(errors, {part for one in errors for part in one["loc"] if isinstance(part, str)})


@lru_cache(maxsize=16)
def names_in(model: type[BaseModel]) -> frozenset[str]:
    """Of all fields of a request and of the parts in it, and of the keys and kinds that they may have."""
    return frozenset(_names(model.model_json_schema()))


def request_model(task: DiagnosisTask, max_description_chars: int) -> type[DiagnoseRequest]:
    """The request about a patient of this task."""
    fields = {field.name: _column(field) for field in task.fields}
    names, grades = tuple(finding.name for finding in task.findings), task.grade_names
    vocabulary: Any = dict[Literal[names], Literal[grades] | None]  # type: ignore[valid-type]
    findings: Any = (vocabulary, Field(default={}, description="Finding -> grade."))
    patient = create_model("Patient", __base__=PatientInput, **fields, findings=findings)
    text = Field(
        default=None,
        max_length=max_description_chars,
        description="Ready description; the question is added where it is missing.",
    )
    return create_model(
        "DiagnoseRequest", __base__=DiagnoseRequest, patient=(patient | None, None), description=(str | None, text)
    )


def _column(field: NumberField | ChoiceField) -> Any:
    """Type and field of a patient field, as in the `patients` table and with the values that the task has words for."""
    column = PatientRow.model_fields[field.name]
    if isinstance(field, NumberField):
        checks, description = [*column.metadata], field.clause
    else:
        checks = [*column.metadata, AfterValidator(_one_of(field.clauses))]
        description = "; ".join(f"{value}: {clause}" for value, clause in field.clauses.items())
    annotation: Any = column.annotation
    for check in checks:
        annotation = Annotated[annotation, check]
    return (annotation, Field(default=None, description=description))


def _one_of(clauses: Mapping[str, str]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value is not None and str(value) not in clauses:
            raise PydanticCustomError("no_clause", "should be one of {allowed}", {"allowed": ", ".join(clauses)})
        return value

    return check


def _names(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from schema.get("properties", ())
        yield from schema.get("propertyNames", {}).get("enum", ())
        yield from schema.get("discriminator", {}).get("mapping", ())
    if isinstance(schema, Mapping | list):
        for part in schema.values() if isinstance(schema, Mapping) else schema:
            yield from _names(part)


def _message(error: ErrorDetails) -> str:
    if error["type"] == "union_tag_invalid":  # pydantic's own words repeat the tag that was sent
        return f"should be one of {error['ctx']['expected_tags']}"
    return _MESSAGES.get(error["type"], error["msg"])


def _place(error: ErrorDetails, known: Collection[str]) -> str:
    if error["type"] == "json_invalid":  # its place is a number of characters
        return WHOLE_BODY
    parts = [part for part in error["loc"] if part not in ("body", "[key]")]
    shown = [str(part) if isinstance(part, int) or part in known else UNKNOWN for part in parts]
    return ".".join(shown) or str(error.get("ctx", {}).get("field", WHOLE_BODY))
