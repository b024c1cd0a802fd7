"""`POST /fhir/$diagnose` and `GET /fhir/metadata`: FHIR R4 in and out, refusals as OperationOutcome."""

# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from python_multipart.multipart import parse_options_header

from clinical_reasoner.serving.fhir_capability import FHIR_MEDIA_TYPE, capabilities
from clinical_reasoner.serving.fhir_codes import FhirCodes
from clinical_reasoner.serving.fhir_json import BundleError, parse_json
from clinical_reasoner.serving.fhir_outcome import outcome
from clinical_reasoner.serving.fhir_reading import BundleReading, read_bundle
from clinical_reasoner.serving.fhir_resources import MOST_ENTRIES, TYPES
from clinical_reasoner.serving.fhir_writing import write_report
from clinical_reasoner.serving.schema import DiagnoseRequest, DiagnoseResponse, ModelChoice, Problem
from serve.access import Caller
from serve.answering import answer, recorded
from serve.bodies import read_json
from serve.desk import Desk
from serve.guard import guarded_route
from serve.ledger import Visit, request_id_of
from serve.problems import Refused, headers_of, refuse

MEDIA_TYPES = (FHIR_MEDIA_TYPE, "application/json")
EXAMPLE_FILE = "fhir_example.json"
"""Beside the file of codes; without it the documentation has no example."""


class FhirResponse(JSONResponse):
    media_type = FHIR_MEDIA_TYPE


def add_fhir_routes(api: FastAPI, desk: Desk, codes: FhirCodes) -> None:
    router = APIRouter(route_class=guarded_route(desk, "fhir", _refusal), default_response_class=FhirResponse)
    started = datetime.now(UTC)

    @router.post("/fhir/$diagnose", responses=_documented(), openapi_extra=_documented_request(desk))
    async def diagnose_bundle(
        request: Request,
        caller: Annotated[Caller, Depends(desk.door.enter)],
        model: Annotated[ModelChoice, Query(description="Who answers, as in `/v1/diagnose`.")] = "auto",
    ) -> Response:
        """A Bundle with one Patient and its Observations in, a Bundle with a DiagnosticReport out."""
        visit = Visit(desk, caller, request_id_of(request), "fhir")
        async with recorded(visit):
            reading, body = await _read(request, visit, codes, model)
        report: dict[str, Any] = {}

        async def write(response: DiagnoseResponse) -> None:
            written = (response, reading, codes, desk.panel.task, datetime.now(UTC), caller.key_id)
            report.update(await asyncio.to_thread(write_report, *written))

        await answer(visit, body, finish=write)
        return FhirResponse(report)

    @router.get("/fhir/metadata", responses={200: _content("CapabilityStatement", "What is offered.")})
    async def fhir_metadata() -> Response:
        """CapabilityStatement."""
        return FhirResponse(capabilities(started))

    api.include_router(router)


async def _read(
    request: Request, visit: Visit, codes: FhirCodes, model: ModelChoice
) -> tuple[BundleReading, DiagnoseRequest]:
    """Raises Refused and UploadError."""
    desk = visit.desk
    _check_media_type(request)
    content = await read_json(request, desk.limits.max_body_mib, desk.limits.request_timeout_s)
    try:
        # Hundreds of Observations take a fraction of a second, which other requests need not wait for.
        return await asyncio.to_thread(_understood, content, desk, codes, model)
    except BundleError as error:
        raise Refused(error.problem) from None


def _understood(
    content: bytes, desk: Desk, codes: FhirCodes, model: ModelChoice
) -> tuple[BundleReading, DiagnoseRequest]:
    reading = read_bundle(parse_json(content), desk.panel.task, codes, desk.norms, desk.cut_points)
    return reading, reading.request(desk.body_model, model)


def _check_media_type(request: Request) -> None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind.decode("latin-1") not in MEDIA_TYPES or options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise refuse(415, f"send JSON in UTF-8, with content-type: {' or '.join(MEDIA_TYPES)}")


def _refusal(content: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return FhirResponse(outcome(content), content.status, headers_of(content, headers))


def _documented() -> dict[int | str, dict[str, Any]]:
    statuses = (400, 401, 403, 408, 413, 415, 422, 429, 500, 502, 503, 504)
    text = "Bundle of DiagnosticReport, Observations, Device, Provenance and an OperationOutcome with warnings."
    refusals: dict[int | str, dict[str, Any]] = {
        status: _content("OperationOutcome", "Refused.") for status in statuses
    }
    return {200: _content("Bundle", text), **refusals}


def _content(resource: str, description: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": {"type": "string", "enum": [resource]}},
    }
    return {"description": description, "content": {FHIR_MEDIA_TYPE: {"schema": schema}}}


def _documented_request(desk: Desk) -> dict[str, Any]:
    resource = {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"type": "string"}}}
    entry = {"type": "object", "required": ["resource"], "properties": {"resource": resource}}
    schema = {
        "type": "object",
        "required": ["resourceType", "type", "entry"],
        "properties": {
            "resourceType": {"type": "string", "enum": ["Bundle"]},
            "type": {"type": "string", "enum": list(TYPES)},
            "timestamp": {"type": "string", "format": "date-time"},
            "entry": {"type": "array", "items": entry, "minItems": 1, "maxItems": MOST_ENTRIES},
        },
    }
    file = Path(desk.limits.fhir_codes).with_name(EXAMPLE_FILE) if desk.limits.fhir_codes else None
    example = {"example": json.loads(file.read_text(encoding="utf-8"))} if file and file.is_file() else {}
    content = {kind: {"schema": schema, **example} for kind in MEDIA_TYPES}
    return {"requestBody": {"required": True, "content": content}}
