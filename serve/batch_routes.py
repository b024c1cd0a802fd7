"""`POST /v1/diagnose/batch`: many patients as lines of JSON, answered in their order, each with its own status."""

# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from clinical_reasoner.serving.schema import DiagnoseResponse, Problem
from clinical_reasoner.serving.uploads import UploadError
from serve.access import Caller
from serve.answering import answer
from serve.bodies import read_json
from serve.desk import Desk
from serve.diagnose_routes import validated
from serve.ledger import Visit, request_id_of
from serve.problems import Refused, problem_docs, refuse
from serve.streams import ClosingStream
from serve.upload_problems import refused as upload_refused

NDJSON = "application/x-ndjson"
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

    @api.post(
        "/v1/diagnose/batch",
        response_class=StreamingResponse,
        responses={
            200: {"model": BatchLine, "description": "A line for each patient, in their order.", "content": content},
            **problem_docs(400, 401, 403, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def diagnose_many(request: Request, caller: Annotated[Caller, Depends(desk.door.enter)]) -> Any:
        """Many patients, one request of `/v1/diagnose` a line; what is wrong with one does not touch the others."""
        request_id = request_id_of(request)
        lines = await _read_lines(request, Visit(desk, caller, request_id, "batch"))
        visits = [Visit(desk, caller, request_id, "batch", item) for item in range(len(lines))]
        answered = _answered(lines, visits)
        return ClosingStream(answered, answered, NDJSON)


async def _read_lines(request: Request, visit: Visit) -> list[bytes]:
    desk = visit.desk
    try:
        most = desk.limits.max_batch
        content = await read_json(request, most * LINE_KIB / 1024)
        lines = [line for line in content.split(b"\n") if line.strip()]
        if not lines:
            raise refuse(422, "the batch has no line; send one JSON request on each")
        if len(lines) > most:
            raise refuse(413, f"the batch has {len(lines)} patients, at most {most} are taken")
        desk.door.charge(visit.caller, len(lines))
        return lines
    except UploadError as error:
        refusal = upload_refused(error)
        await visit.refused(refusal)
        raise refusal from None
    except Refused as refusal:
        await visit.refused(refusal)
        raise


async def _answered(lines: list[bytes], visits: list[Visit]) -> AsyncGenerator[str]:
    """As many at a time as `serving.batch_at_a_time`, given out in their order."""
    waiting: deque[asyncio.Task[BatchLine]] = deque()
    at_a_time = visits[0].desk.limits.batch_at_a_time
    try:
        for line, visit in zip(lines, visits, strict=True):
            waiting.append(asyncio.create_task(_answer_line(line, visit)))
            if len(waiting) >= at_a_time:
                yield _json(await waiting[0])
                waiting.popleft()
        while waiting:
            yield _json(await waiting[0])
            waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _answer_line(line: bytes, visit: Visit) -> BatchLine:
    try:
        body = await _validated(line, visit)
        return BatchLine(index=visit.item or 0, status=200, answer=await answer(visit, body))
    except Refused as refusal:
        return BatchLine(index=visit.item or 0, status=refusal.problem.status, problem=refusal.problem)


async def _validated(line: bytes, visit: Visit) -> Any:
    try:
        if len(line) > visit.desk.limits.max_body_mib * 2**20:
            raise refuse(413, f"the line is longer than {visit.desk.limits.max_body_mib:g} MiB")
        return validated(line, visit.desk)
    except Refused as refusal:
        await visit.refused(refusal)
        raise


def _json(line: BatchLine) -> str:
    return line.model_dump_json(exclude_none=False) + "\n"


def _example(desk: Desk) -> str:
    return "\n".join(json.dumps(body) for body in desk.examples().values())
