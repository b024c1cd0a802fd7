"""A desk with everything real but the engines, which are plain objects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.serving.audit import AuditRow
from clinical_reasoner.serving.audit_reading import find_records, make_query
from clinical_reasoner.serving.panel import Engine
from clinical_reasoner.serving.schema import AnsweredBy
from serve.api import build_api
from serve.desk import Desk
from serve.run_parts import Parts, make_desk, make_panel, make_parts, shown_exemplar
from tests.unit.serving.engines import PlainEngine, Said

STUDENT = "platform/clinical_reasoner/reference/models/student"


@contextmanager
def desk_of(student: Said, teacher: Said, running: tuple[bool, bool] = (True, True), **serving: Any) -> Iterator[Desk]:
    """A warm desk whose student answers with the label alone. Its records are closed at the end."""
    with TemporaryDirectory() as folder:
        parts = parts_of(f"run.path={folder}", *(f"serving.{name}={value}" for name, value in serving.items()))
        engines: dict[AnsweredBy, Engine] = {
            "student": PlainEngine(student, running[0]),
            "teacher": PlainEngine(teacher, running[1]),
        }
        desk = make_desk(parts, engines, "0")
        desk.warm = True
        try:
            yield desk
        finally:
            desk.scans.close()


def parts_of(*overrides: str) -> Parts:
    options = ["student.arms=[label_only]", "serving.student_arm=label_only", *overrides]
    return make_parts(load_config(PipelineConfig, "configs/demo.yaml", options), STUDENT)


def records_of(desk: Desk) -> list[AuditRow]:
    """What was recorded so far, in its order."""
    return list(find_records(desk.limits.audit, desk.run_path, make_query(None, None, None, None)))


def send(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(sent())


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint")
