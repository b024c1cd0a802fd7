"""Failures and documentation in OpenAI's form, for the routes that its client calls. Knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from clinical_reasoner.serving.chat import ChatRequest
from clinical_reasoner.serving.schema import Problem
from serve.problems import headers_of

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class ErrorContent(BaseModel):
    message: str
    type: str = Field(description="`invalid_request_error`, `authentication_error`, `rate_limit_error`, ...")
    param: str | None = Field(default=None, description="Dotted place in the request.")
    code: str | None = None


class OpenAiError(BaseModel):
    """OpenAI's form of a failure; it repeats nothing that was sent."""

    error: ErrorContent


def respond_openai(content: Problem, headers: Mapping[str, str]) -> Response:
    """The response of a refusal in OpenAI's form."""
    return JSONResponse(openai_error(content).model_dump(), content.status, headers_of(content, headers))


def openai_error(content: Problem) -> OpenAiError:
    fields = [f"{one.field}: {one.message}" for one in content.errors]
    return OpenAiError(
        error=ErrorContent(
            message="; ".join(fields) or content.detail,
            type=_type(content.status),
            param=content.errors[0].field if content.errors else None,
            code=_CODES.get(content.status),
        )
    )


def error_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For FastAPI's `responses=`; with `default`, as FastAPI would document a 422 of its own."""
    return {**{status: {"model": OpenAiError} for status in statuses}, "default": {"model": OpenAiError}}


def chat_docs() -> dict[str, Any]:
    """`openapi_extra` of the chat route, which reads its body itself, within limits."""
    messages = [{"role": "user", "content": "Which regions does Alzheimer's disease reach first?"}]
    asked = {"model": "teacher", "messages": messages, "max_completion_tokens": 64}
    examples = {"whole": {"value": asked}, "stream": {"value": {**asked, "stream": True}}}
    schema = ChatRequest.model_json_schema()
    content = {"schema": _inlined(schema, schema.pop("$defs")), "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """A schema with what it refers to in place; none of them refers to itself."""
    if isinstance(value, list):
        return [_inlined(one, definitions) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(one, definitions) for key, one in value.items() if key != "discriminator"}


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
