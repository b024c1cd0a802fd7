"""`/v1/chat/completions` and `/v1/models` in OpenAI's form, for both models. Knows no Ray."""

# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, Field, ValidationError

from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.serving.chat import (
    CHAT_NAMES,
    ChatCompletion,
    ChatError,
    ChatRequest,
    check_pictures,
    engine_request,
    sent_chunk,
)
from clinical_reasoner.serving.panel import ModelUnavailableError
from clinical_reasoner.serving.schema import AnsweredBy, FieldError, field_errors
from serve.access import Caller
from serve.answering import place, recorded
from serve.bodies import check_fields, read_json
from serve.desk import Desk
from serve.guard import guarded_route
from serve.ledger import Visit, request_id_of
from serve.openai_form import chat_docs, error_docs, openai_error, respond_openai
from serve.problems import Refused, failure_of, refuse
from serve.streams import SSE_MEDIA_TYPE, ClosingStream

OWNER = "clinical-reasoner"
_DONE = "data: [DONE]\n\n"
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "A chunk as JSON, an error as JSON, or `[DONE]`."}},
}
_STREAM_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "With `stream`: chunks as server-sent events, and `[DONE]` at the end.",
        "content": {SSE_MEDIA_TYPE: {"schema": _EVENT}},
    }
}
_CHAT_FAILURES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504)


class ModelCard(BaseModel):
    id: AnsweredBy = Field(description="What `model` in a request is called.")
    object: Literal["model"] = "model"
    created: int = Field(description="When this endpoint started, seconds since 1970.")
    owned_by: str = OWNER
    name: str = Field(description="Of the model: arm of the student, name of the teacher.")
    ask: str = Field(description="How `/v1/diagnose` asks it.")
    prompt_version: str
    operating_point: str | None = Field(description="Version of the file with thresholds and temperatures.")
    sees_pictures: bool


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


def add_openai_routes(api: FastAPI, desk: Desk) -> None:
    router = APIRouter(route_class=guarded_route(desk, "chat", respond_openai), tags=["OpenAI"])
    lists = APIRouter(route_class=guarded_route(desk, told=respond_openai), tags=["OpenAI"])
    entered = Annotated[Caller, Depends(desk.door.enter)]
    started = int(time.time())

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={**_STREAM_DOCS, **error_docs(*_CHAT_FAILURES)},
        openapi_extra=chat_docs(),
    )
    async def create_chat_completion(request: Request, caller: entered) -> Any:
        """The messages as they are, without a prompt of this endpoint: no diagnosis, no calibration, no referral."""
        visit = Visit(desk, caller, request_id_of(request), "chat")
        async with recorded(visit):
            body = await _read(request, visit)
        if not body.stream:
            return await _whole(visit, body)
        chunks = _generate(visit, body)
        first = await anext(chunks)  # what is refused at once still has its own status
        return ClosingStream(_events(first, chunks, body, visit), chunks, SSE_MEDIA_TYPE)

    @lists.get("/v1/models", responses=error_docs(401, 429))
    async def list_models(caller: entered) -> ModelList:
        """Both models, or those that the API key may ask."""
        return ModelList(data=[_card(desk, name, started) for name in desk.engines if name in caller.models])

    @lists.get("/v1/models/{model}", responses=error_docs(401, 404, 429))
    async def retrieve_model(model: str, caller: entered) -> ModelCard:
        """One of them."""
        for name in desk.engines:
            if name == model and name in caller.models:
                return _card(desk, name, started)
        raise refuse(404, "no such model; GET /v1/models lists them")

    api.include_router(router)
    api.include_router(lists)


def _card(desk: Desk, name: AnsweredBy, started: int) -> ModelCard:
    role, point = desk.panel.role(name), desk.panel.operating_point
    return ModelCard(
        id=name,
        created=started,
        name=role.model,
        ask=role.ask,
        prompt_version=PROMPT_VERSION,
        operating_point=point.version if point else None,
        sees_pictures=role.sees_picture,
    )


async def _read(request: Request, visit: Visit) -> ChatRequest:
    """The validated body. Raises Refused and UploadError."""
    limits = visit.desk.limits
    body = _validated(await read_json(request, limits.max_body_mib, limits.request_timeout_s))
    visit.desk.door.require_model(visit.caller, body.model)
    role = visit.desk.panel.role(body.model)
    try:
        check_pictures(body, role.sees_picture, limits.uploads)
    except ChatError as error:
        raise _invalid([FieldError(field=error.param, message=error.message)]) from error
    return body


def _validated(content: bytes) -> ChatRequest:
    """Raises Refused and UploadError."""
    check_fields(content)
    try:
        return ChatRequest.model_validate_json(content)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        found = field_errors(errors, CHAT_NAMES)
        if any(one["loc"] == ("model",) and one["type"] == "literal_error" for one in errors):
            raise refuse(404, "no such model; GET /v1/models lists them", errors=found) from None
        raise _invalid(list(found)) from None


def _invalid(errors: list[FieldError]) -> Refused:
    return refuse(400, "the request cannot be used", errors=errors)


async def _whole(visit: Visit, body: ChatRequest) -> ChatCompletion:
    async with aclosing(_generate(visit, body)) as pieces:
        whole: list[ChatCompletion] = [piece async for piece in pieces]  # there is one; it ends once that is recorded
    return whole[0]


async def _generate(visit: Visit, body: ChatRequest) -> AsyncGenerator[Any]:
    """What the engine sends, in the form in which it goes out: one ChatCompletion, or chunks. It ends once the end is
    recorded. Raises Refused."""
    desk, role = visit.desk, visit.desk.panel.role(body.model)
    said = {
        "model_asked": body.model,
        "input_hmac": desk.input_hmac(body),
        "model": role.model,
        "model_fingerprint": role.fingerprint or None,
    }
    deadline = asyncio.get_running_loop().time() + visit.left_s
    usage: dict[str, Any] = {}
    count = 0
    async with recorded(visit, said), place(visit):
        try:
            async with aclosing(desk.engines[body.model].chat(engine_request(body, role.control_tokens))) as pieces:
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    usage = piece.get("usage") or usage
                    count += 1
                    yield sent_chunk(piece, body.model) if body.stream else ChatCompletion.model_validate(piece)
            if not count:
                raise ModelUnavailableError(body.model, 502, "the engine sent nothing")
        except ModelUnavailableError as error:
            raise _unavailable(error, visit, body) from error
        except TimeoutError:
            late = ModelUnavailableError(body.model, 504, f"no answer within {desk.limits.request_timeout_s:g} s")
            raise _unavailable(late, visit, body) from late
        tokens = {"prompt_tokens": usage.get("prompt_tokens"), "output_tokens": usage.get("completion_tokens")}
        await visit.close(200, "answered", **said, answered_by=body.model, routing="asked_for", **tokens)


def _unavailable(error: ModelUnavailableError, visit: Visit, body: ChatRequest) -> Refused:
    visit.desk.meters.unavailable(error.role, error.status)
    reason = error.reason
    if error.status == 422:
        also = ", or response_format is of a kind that the engine does not know" if body.response_format else ""
        return _invalid([FieldError(field="messages", message=f"{reason}{also}")])
    return refuse(error.status, f"{error.role}: {reason}", retry_after_s=1 if error.status in (429, 503) else None)


async def _events(
    first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any]], body: ChatRequest, visit: Visit
) -> AsyncGenerator[str]:
    shows_usage = body.stream_options is not None and body.stream_options.include_usage
    try:
        yield _event(first)
        async for chunk in chunks:
            if chunk["choices"] or shows_usage:
                yield _event(chunk)
    except Refused as refusal:
        yield _event(openai_error(refusal.problem).model_dump())
        return
    except Exception as error:
        yield _event(openai_error(failure_of(error, visit.request_id).problem).model_dump())
        return
    yield _DONE


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
