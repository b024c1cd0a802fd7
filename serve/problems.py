"""Refusals as problem details (RFC 9457): raised anywhere in the HTTP side, sent in one form. Knows no Ray."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.responses import JSONResponse

from clinical_reasoner.serving.schema import PROBLEM_MEDIA_TYPE, FieldError, Problem, problem
from serve.telemetry import Limit

LOG = logging.getLogger("ray.serve")
RETRY_AFTER_S = 1
"""What a client is told with a 503 that names no other time, seconds."""


class Refused(Exception):  # noqa: N818 -- an outcome like a response, not an error of the program
    """A request that is not answered. No field repeats what was sent."""

    def __init__(
        self,
        content: Problem,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        limit: Limit | None = None,
        key_id: str | None = None,
    ) -> None:
        super().__init__(content.status, content.detail)
        self.problem = content
        self.retry_after_s = retry_after_s
        """Seconds, for the header `Retry-After`."""
        self.headers: dict[str, str] = dict(headers or {})
        """Of the response, `Retry-After` among them."""
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)
        self.limit = limit
        """Which limit refused it, for `/metrics`; None: none."""
        self.key_id = key_id
        """Whose request the door turned away, which no route has seen and recorded; else None."""


def refuse(
    status: int,
    detail: str,
    *,
    errors: Iterable[FieldError] = (),
    retry_after_s: int | None = None,
    headers: Mapping[str, str] | None = None,
    limit: Limit | None = None,
    key_id: str | None = None,
) -> Refused:
    """The exception to raise. `detail` and `errors` hold no patient text."""
    return Refused(problem(status, detail, errors), retry_after_s, headers, limit, key_id)


def failure_of(error: Exception, request_id: str) -> Refused:
    """What to raise or send for an error of the program. Its message may hold the patient, and Ray Serve would log it:
    only its class goes out of here."""
    LOG.error("request %s failed: %s", request_id, type(error).__name__)
    return refuse(500, "the request failed; the log has the kind of error")


def headers_of(content: Problem, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of the response of a problem, in any form; every 503 says when to try again."""
    sent = dict(headers or {})
    if content.status == 503 and not any(name.lower() == "retry-after" for name in sent):
        sent["retry-after"] = str(RETRY_AFTER_S)
    return sent


def respond(content: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response of a problem."""
    sent = headers_of(content, headers)
    return JSONResponse(content.model_dump(), content.status, sent, media_type=PROBLEM_MEDIA_TYPE)


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of failures, for FastAPI's `responses=`."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": Problem, "content": dict(content)} for status in statuses}
