"""The HTTP side: routes, limits, and every failure as problem details without patient text. Knows no Ray."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol
from uuid import uuid4

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from clinical_reasoner import __version__
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.llm.prompting import Exemplar, Message
from clinical_reasoner.serving.diagnosis import diagnose, example_requests
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel, Reply, Role, Unreadable
from clinical_reasoner.serving.schema import (
    NOT_JSON,
    PROBLEM_MEDIA_TYPE,
    RESEARCH_USE_ONLY,
    WHOLE_BODY,
    AnsweredBy,
    DiagnoseRequest,
    DiagnoseResponse,
    FieldError,
    field_errors,
    problem,
    request_model,
)
from serve.problems import Refused, problem_docs, respond

# No `from __future__ import annotations` here: FastAPI reads the type of the body, which is made at run time.

LOG = logging.getLogger("ray.serve")


class Engine(Protocol):
    """A model that can be asked."""

    async def ask(self, messages: list[Message]) -> Reply:
        """Raises ModelUnavailableError."""

    async def is_running(self) -> bool:
        """Without waiting behind the patients."""


@dataclass(frozen=True)
class Desk:
    """Everything that answers a request."""

    panel: Panel
    engines: Mapping[AnsweredBy, Engine]
    limits: ServingConfig
    example: Exemplar
    """For the documentation, which everybody can read: no patient."""


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        for path in schema["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    if PROBLEM_MEDIA_TYPE in response["content"]:  # FastAPI adds the media type of good responses
                        response["content"].pop("application/json", None)
        return schema


def build_api(desk: Desk) -> FastAPI:
    """The FastAPI app, with the request of the panel's task."""
    task = desk.panel.task
    body_model = request_model(task, desk.limits.max_description_chars)
    examples: Any = {name: {"value": body} for name, body in example_requests(body_model, desk.example, task).items()}
    summary = f"Reasoned answers: {task.title}."
    api = _Api(title="clinical-reasoner", version=__version__, summary=summary, description=RESEARCH_USE_ONLY)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _not_offered)
    api.add_exception_handler(Refused, _refused)
    places = asyncio.Semaphore(desk.limits.max_ongoing_requests)

    @api.post("/v1/diagnose", response_model=DiagnoseResponse, responses=problem_docs(422, 500, 502, 503, 504))
    async def diagnose_patient(
        request: Request,
        body: Annotated[body_model, Body(openapi_examples=examples)],  # type: ignore[valid-type]
    ) -> Any:
        """One patient in, one reasoned diagnosis out."""
        if places.locked():
            return respond(problem(503, "too many requests are in work"))
        async with places:
            # Ray Serve's proxy gives every request an id (UUID 4, or the client's own), returned in the same header.
            return await _answer(body, desk, request.headers.get("x-request-id") or str(uuid4()))

    @api.get("/healthz", response_model=dict[str, str], responses=problem_docs(503))
    async def healthz() -> Any:
        """200 when both engines run, however busy they are."""
        running = await asyncio.gather(*(engine.is_running() for engine in desk.engines.values()))
        stopped = [name for name, runs in zip(desk.engines, running, strict=True) if not runs]
        if stopped:
            return respond(problem(503, f"not running: {', '.join(stopped)}"))
        return {"status": "ok", **dict.fromkeys(desk.engines, "ok"), "version": __version__}

    return api


async def _answer(body: DiagnoseRequest, desk: Desk, request_id: str) -> DiagnoseResponse | JSONResponse:
    limit_s = desk.limits.request_timeout_s
    deadline = asyncio.get_running_loop().time() + limit_s

    async def ask_model(role: Role, messages: list[Message]) -> Reply:
        try:
            async with asyncio.timeout_at(deadline):
                return await desk.engines[role.name].ask(messages)
        except TimeoutError as error:
            raise ModelUnavailableError(role.name, 504, f"no answer within {limit_s:g} s") from error

    try:
        outcome = await diagnose(body, desk.panel, ask_model, request_id)
    except ModelUnavailableError as error:
        field = "patient" if body.patient else "description"
        errors = [FieldError(field=field, message=error.reason)] if error.status == 422 else []
        return respond(problem(error.status, f"{error.role}: {error.reason}", errors))
    except Exception as error:
        # Its message may hold the patient, and Ray Serve would log it: only its class goes out of here.
        LOG.error("request %s failed: %s", request_id, type(error).__name__)
        return respond(problem(500, "the request failed; the log has the kind of error"))
    if isinstance(outcome, Unreadable):
        return respond(problem(502, f"the {outcome.role}'s answer could not be read: {outcome.reason}"))
    return outcome


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _unusable(field_errors(error.errors()))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return respond(error.problem, error.headers)


async def _not_offered(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI could not decode the body
        return _unusable([FieldError(field=WHOLE_BODY, message=NOT_JSON)])
    return respond(problem(error.status_code, "see /docs for what this endpoint offers"), error.headers)


def _unusable(errors: Iterable[FieldError]) -> JSONResponse:
    return respond(problem(422, "the request cannot be used; `errors` names each field and what is allowed", errors))
