"""OperationOutcome: what went wrong with a FHIR request, in FHIR's own form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clinical_reasoner.serving.schema import FieldError, Problem

_CODES = {
    400: "structure",
    401: "login",
    403: "forbidden",
    408: "timeout",
    413: "too-long",
    415: "not-supported",
    422: "invalid",
    429: "throttled",
    502: "transient",
    503: "transient",
    504: "timeout",
}
"""HTTP status -> code of http://hl7.org/fhir/issue-type."""


def outcome(problem: Problem) -> dict[str, Any]:
    """An issue for each error, or one for the whole problem. A place that is no FHIRPath has no `expression`."""
    code = _CODES.get(problem.status, "exception")
    severity = "fatal" if problem.status == 500 else "error"
    errors = problem.errors or (FieldError(field="", message=""),)
    issues = [
        {
            "severity": severity,
            "code": code,
            "diagnostics": f"{problem.detail}: {error.message}" if error.message else problem.detail,
            **({"expression": [error.field]} if error.field.startswith("Bundle") else {}),
        }
        for error in errors
    ]
    return {"resourceType": "OperationOutcome", "issue": issues}


def warned(warnings: Iterable[str]) -> dict[str, Any]:
    """Warnings beside an answer. Without any, FHIR still wants one issue."""
    issues = [{"severity": "warning", "code": "incomplete", "diagnostics": text} for text in warnings]
    nothing = [{"severity": "information", "code": "informational", "diagnostics": "no warning"}]
    return {"resourceType": "OperationOutcome", "issue": issues or nothing}
