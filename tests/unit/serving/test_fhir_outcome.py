"""Refusals, warnings and capabilities in FHIR's own form, valid for fhir.resources."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome

from clinical_reasoner.serving.fhir_capability import capabilities
from clinical_reasoner.serving.fhir_outcome import outcome, warned
from clinical_reasoner.serving.schema import FieldError, problem


@pytest.mark.parametrize(
    ("status", "code", "severity"),
    [
        (400, "structure", "error"),
        (401, "login", "error"),
        (403, "forbidden", "error"),
        (413, "too-long", "error"),
        (422, "invalid", "error"),
        (429, "throttled", "error"),
        (500, "exception", "fatal"),
        (503, "transient", "error"),
        (504, "timeout", "error"),
        (418, "exception", "error"),
    ],
)
def test_an_issue_for_each_status(status: int, code: str, severity: str) -> None:
    told = outcome(problem(status, "why"))
    OperationOutcome.model_validate(told)
    assert told["issue"] == [{"severity": severity, "code": code, "diagnostics": "why"}]


def test_an_issue_for_each_error_with_its_place() -> None:
    place = "Bundle.entry[2].resource.value"
    errors = [FieldError(field=place, message="too large"), FieldError(field="patient", message="too long")]
    told = outcome(problem(422, "unusable", errors))
    OperationOutcome.model_validate(told)
    assert [(one["diagnostics"], one.get("expression")) for one in told["issue"]] == [
        ("unusable: too large", [place]),
        ("unusable: too long", None),
    ]


def test_warnings() -> None:
    for texts, severities in (((), ["information"]), (("a", "b"), ["warning", "warning"])):
        told = warned(texts)
        OperationOutcome.model_validate(told)
        assert [one["severity"] for one in told["issue"]] == severities


def test_capabilities_are_those_of_r4() -> None:
    told = capabilities(datetime(2026, 3, 12, 9, 0, tzinfo=UTC))
    CapabilityStatement.model_validate(told)
    assert told["fhirVersion"] == "4.0.1"
    assert told["rest"][0]["operation"][0]["name"] == "diagnose"
