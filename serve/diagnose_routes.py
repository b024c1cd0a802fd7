"""`POST /v1/diagnose`: one patient, as JSON or with a scan, answered at once or as a stream of events."""

# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import ValidationError

from clinical_reasoner.serving.events import Answered, Event, ProbabilitiesEvent, TextEvent, TierEvent
from clinical_reasoner.serving.schema import DiagnoseRequest, DiagnoseResponse, field_errors, names_in
from clinical_reasoner.serving.uploads import Upload, UploadError
from serve.access import Caller
from serve.answering import answer, events, recorded
from serve.bodies import FormParts, check_fields, is_form, read_json, read_parts
from serve.desk import Desk
from serve.form_docs import form_schema
from serve.guard import INVALID, guarded_route
from serve.ledger import Visit, request_id_of
from serve.problems import Refused, failure_of, problem_docs, refuse
from serve.streams import SSE_MEDIA_TYPE, ClosingStream

_NAMES: dict[type[Any], str] = {TierEvent: "tier", ProbabilitiesEvent: "probabilities", TextEvent: "text"}


def add_diagnose_routes(api: FastAPI, desk: Desk) -> None:
    router = APIRouter(route_class=guarded_route(desk, "diagnose"))
    enter = desk.door.enter

    @router.post(
        "/v1/diagnose",
        response_model=DiagnoseResponse,
        responses={
            **_documented_response(),
            **problem_docs(400, 401, 403, 408, 413, 415, 422, 429, 500, 502, 503, 504),
        },
        openapi_extra=_documented_request(desk),
    )
    async def diagnose_patient(
        request: Request,
        caller: Annotated[Caller, Depends(enter)],
        stream: Annotated[
            bool, Query(description="Server-sent events: whose answer, its probabilities, the rationale as written.")
        ] = False,
    ) -> Any:
        """One patient in, one reasoned diagnosis out."""
        visit = Visit(desk, caller, request_id_of(request), "stream" if stream else "diagnose")
        async with recorded(visit):
            body, upload = await _read(request, visit)
        if not stream:
            return await answer(visit, body, upload)
        steps = events(visit, body, upload)
        begun = await _begun(steps)
        return ClosingStream(_sent(begun, steps, visit), steps, SSE_MEDIA_TYPE)

    api.include_router(router)


async def _read(request: Request, visit: Visit) -> tuple[DiagnoseRequest, Upload | None]:
    """The validated body, and what was read in the files that came with it. Raises Refused and UploadError."""
    desk = visit.desk
    if not is_form(request):
        content = await read_json(request, desk.limits.max_body_mib, desk.limits.request_timeout_s)
        return validated(content, desk), None
    with desk.scans.place():
        async with read_parts(request, desk.limits) as parts:
            if parts.request_json is None:
                raise UploadError("request", "missing: the part with the request as JSON")
            body = validated(parts.request_json, desk)
            return body, await _read_files(parts, body, visit)


def validated(content: bytes | bytearray, desk: Desk) -> DiagnoseRequest:
    """Raises Refused (422), with the fields and none of their values, and UploadError (413) for too many of them."""
    check_fields(content)
    try:
        return desk.body_model.model_validate_json(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise refuse(422, INVALID, errors=field_errors(found, names_in(desk.body_model))) from None


def patient_fields(body: DiagnoseRequest) -> dict[str, Any]:
    """Columns of the structured patient; none of a ready description."""
    return body.patient.model_dump(exclude={"findings"}, exclude_none=True) if body.patient else {}


async def _read_files(parts: FormParts, body: DiagnoseRequest, visit: Visit) -> Upload | None:
    if not parts.sent.has_files:
        return None
    return await visit.desk.scans.read(parts.sent, patient_fields(body), visit.left_s)


async def _begun(steps: AsyncGenerator[Event]) -> Sequence[Event]:
    """Up to the first event that a model has said something for: what fails before it has a status of its own. Raises
    Refused."""
    begun: list[Event] = []
    async for event in steps:
        begun.append(event)
        if not isinstance(event, TierEvent):
            break
    return begun


async def _sent(begun: Sequence[Event], steps: AsyncIterator[Event], visit: Visit) -> AsyncIterator[str]:
    try:
        for event in begun:
            yield _line(event)
        async for event in steps:
            yield _line(event)
    except Refused as refusal:
        yield _problem(refusal)
    except Exception as error:
        yield _problem(failure_of(error, visit.request_id))


def _problem(refusal: Refused) -> str:
    return _event("problem", refusal.problem.model_dump(mode="json"))


def _line(event: Event) -> str:
    if isinstance(event, Answered):
        return _event("answer", event.response.model_dump(mode="json"))
    return _event(_NAMES[type(event)], event.model_dump(mode="json"))


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _documented_response() -> dict[int | str, dict[str, Any]]:
    text = "With `stream`: events `tier`, `probabilities`, `text`, and at the end one `answer` or `problem`."
    event = {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": [*_NAMES.values(), "answer", "problem"]},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
    }
    return {200: {"description": text, "content": {SSE_MEDIA_TYPE: {"schema": event}}}}


def _documented_request(desk: Desk) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{desk.body_model.__name__}"}
    examples = {name: {"value": body} for name, body in desk.examples().items()}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "examples": examples},
                "multipart/form-data": {"schema": form_schema()},
            },
        }
    }
