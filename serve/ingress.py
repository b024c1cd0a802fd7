"""The HTTP side: routes, time limit, and every failure as problem details without patient text."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from clinical_reasoner import __version__
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.llm.prompting import Exemplar, Message
from clinical_reasoner.serving.diagnosis import Panel, Reply, Role, Unreadable, diagnose, example_requests
from clinical_reasoner.serving.schema import (
    PROBLEM_MEDIA_TYPE,
    RESEARCH_USE_ONLY,
    AnsweredBy,
    DiagnoseRequest,
    DiagnoseResponse,
    FieldError,
    Problem,
    field_errors,
    problem,
    request_model,
)
from serve.engines import Engine, EngineError, ask_engine, engine_answers

# No `from __future__ import annotations` here: FastAPI reads the type of the body, which is made at run time.

LOG = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Desk:
    """Everything that answers a request."""

    panel: Panel
    engines: Mapping[AnsweredBy, Engine]
    limits: ServingConfig
    example: Exemplar
    """For the documentation."""


class DiagnosisIngress:
    """The ingress deployment; `serve.ingress()` asks it for the ASGI app when a replica starts."""

    def __init__(
        self,
        config: PipelineConfig,
        panel: Panel,
        example: Exemplar,
        student: DeploymentHandle[Any],
        teacher: DeploymentHandle[Any],
    ) -> None:
        engines: dict[AnsweredBy, Engine] = {
            "student": Engine(student, config.student.sampling, config.student.engine.max_model_len),
            "teacher": Engine(teacher, config.teacher.sampling, config.teacher.engine.max_model_len),
        }
        self._desk = Desk(panel, engines, config.serving, example)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._desk)


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
    api.add_exception_handler(HTTPException, _refused)

    @api.post("/v1/diagnose", response_model=DiagnoseResponse, responses=_problems(422, 500, 502, 503, 504))
    async def diagnose_patient(
        request: Request,
        body: Annotated[body_model, Body(openapi_examples=examples)],  # type: ignore[valid-type]
    ) -> Any:
        """One patient in, one reasoned diagnosis out."""
        # Ray Serve's proxy gives every request an id (UUID 4, or the client's own) and returns it in the same header.
        return await _answer(body, desk, request.headers.get("x-request-id") or str(uuid4()))

    @api.get("/healthz", response_model=dict[str, str], responses=_problems(503))
    async def healthz() -> Any:
        """200 when both engines answer."""
        answers = await asyncio.gather(*(engine_answers(engine) for engine in desk.engines.values()))
        silent = [name for name, answer in zip(desk.engines, answers, strict=True) if not answer]
        if silent:
            return _respond(problem(503, f"no answer from: {', '.join(silent)}"))
        return {"status": "ok", **dict.fromkeys(desk.engines, "ok"), "version": __version__}

    return api


async def _answer(body: DiagnoseRequest, desk: Desk, request_id: str) -> DiagnoseResponse | JSONResponse:
    async def ask_model(role: Role, messages: list[Message]) -> Reply:
        return await ask_engine(role.name, desk.engines[role.name], messages)

    try:
        async with asyncio.timeout(desk.limits.request_timeout_s):
            outcome = await diagnose(body, desk.panel, ask_model, request_id)
    except TimeoutError:
        return _respond(problem(504, f"no answer within {desk.limits.request_timeout_s:g} s"))
    except EngineError as error:
        field = "patient" if body.patient else "description"
        errors = [FieldError(field=field, message=error.reason)] if error.status == 422 else []
        return _respond(problem(error.status, f"{error.role}: {error.reason}", errors))
    except Exception as error:
        # Its message may hold the patient, and Ray Serve would log it: only its class goes out of here.
        LOG.error("request %s failed: %s", request_id, type(error).__name__)
        return _respond(problem(500, "the request failed; the log has the kind of error"))
    if isinstance(outcome, Unreadable):
        return _respond(problem(502, f"the {outcome.role}'s answer could not be read: {outcome.reason}"))
    return outcome


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error.errors())
    return _respond(problem(422, "the request cannot be used; `errors` names each field and what is allowed", errors))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _respond(problem(error.status_code, "see /docs for what this endpoint offers"), error.headers)


def _respond(content: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(content.model_dump(), content.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of failures."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": Problem, "content": dict(content)} for status in statuses}
