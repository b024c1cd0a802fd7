"""`POST /v1/diagnose/batch`: many patients as lines of JSON, answered in their order, each with its own status."""

# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from clinical_reasoner.serving.schema import DiagnoseResponse, Problem
from serve.access import Caller
from serve.answering import answer, recorded
from serve.bodies import read_lines
from serve.desk import Desk
from serve.diagnose_routes import validated
from serve.guard import guarded_route
from serve.ledger import Visit, request_id_of
from serve.problems import Refused, failure_of, problem_docs, refuse
from serve.streams import ClosingStream

NDJSON = "application/x-ndjson"
RETRY_AFTER_S = 5
"""A batch takes its time."""
LINE_KIB = 64
"""Most that a line takes on average; the whole body may have `serving.max_batch` of them."""


class BatchLine(BaseModel):
    """One line of the response."""

    index: int
    """Of the patient among the lines that are not blank, from 0."""
    status: int
    answer: DiagnoseResponse | None = None
    problem: Problem | None = None


def add_batch_routes(api: FastAPI, desk: Desk) -> None:
    content = {NDJSON: {"schema": {"$ref": "#/components/schemas/BatchLine"}}}
    body = {NDJSON: {"schema": {"type": "string"}, "examples": {"two": {"value": _example(desk)}}}}

    router = APIRouter(route_class=guarded_route(desk, "batch"))

    @router.post(
        "/v1/diagnose/batch",
        response_class=StreamingResponse,
        responses={
            200: {"model": BatchLine, "description": "A line for each patient, in their order.", "content": content},
            **problem_docs(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def diagnose_many(request: Request, caller: Annotated[Caller, Depends(desk.door.enter)]) -> Any:
        """Many patients, one request of `/v1/diagnose` a line; what is wrong with one does not touch the others."""
        request_id = request_id_of(request)
        visit = Visit(desk, caller, request_id, "batch")
        async with AsyncExitStack() as stack:
            async with recorded(visit):
                if desk.batches.locked():
                    raise refuse(503, "too many batches are in work", retry_after_s=RETRY_AFTER_S, limit="places")
                await stack.enter_async_context(desk.batches)
                lines = await _read_lines(request, visit)
            visits = [Visit(desk, caller, request_id, "batch", item) for item in range(len(lines))]
            answered = await stack.enter_async_context(aclosing(_answered(lines, visits)))
            return ClosingStream(answered, stack.pop_all(), NDJSON)

    api.include_router(router)


async def _read_lines(request: Request, visit: Visit) -> list[bytearray]:
    """Raises Refused and UploadError."""
    limits = visit.desk.limits
    most_mib = limits.max_batch * LINE_KIB / 1024
    lines = await read_lines(request, limits.max_batch, limits.max_body_mib, most_mib, limits.request_timeout_s)
    if not lines:
        raise refuse(422, "the batch has no line; send one JSON request on each")
    visit.desk.door.charge(visit.caller, len(lines))
    return lines


async def _answered(lines: list[bytearray], visits: list[Visit]) -> AsyncGenerator[str]:
    """As many at a time as `serving.batch_at_a_time`, given out in their order."""
    waiting: deque[asyncio.Task[str]] = deque()
    at_a_time = visits[0].desk.limits.batch_at_a_time
    try:
        for line, visit in zip(lines, visits, strict=True):
            waiting.append(asyncio.create_task(_answer_line(line, visit)))
            if len(waiting) >= at_a_time:
                yield await waiting[0]
                waiting.popleft()
        while waiting:
            yield await waiting[0]
            waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _answer_line(line: bytearray, visit: Visit) -> str:
    index = visit.item or 0
    try:
        async with recorded(visit):
            body = validated(line, visit.desk)
        return _json(BatchLine(index=index, status=200, answer=await answer(visit, body)))
    except Refused as refusal:
        problem = refusal.problem
    except Exception as error:
        problem = failure_of(error, visit.request_id).problem
    return _json(BatchLine(index=index, status=problem.status, problem=problem))


def _json(line: BatchLine) -> str:
    return line.model_dump_json(exclude_none=False) + "\n"


def _example(desk: Desk) -> str:
    return "\n".join(json.dumps(body) for body in desk.examples().values())
