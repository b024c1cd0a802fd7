"""A desk over engines that are plain objects; everything else on it is real."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.serving.audit import AuditRow
from clinical_reasoner.serving.audit_log import open_audit_log
from clinical_reasoner.serving.audit_reading import find_records, make_query
from clinical_reasoner.serving.fhir_codes import read_codes
from clinical_reasoner.serving.panel import Engine, Panel
from clinical_reasoner.serving.schema import AnsweredBy
from clinical_reasoner.serving.uploads import UploadRules
from serve.access import Door
from serve.desk import Desk
from serve.recording import Recorder
from serve.scans import ScanRoom
from serve.telemetry import Meters

CUT_POINTS = (-1.5, -2.5)
"""Of w-scores, one fewer than the task has grades."""


def plain_desk(panel: Panel, engines: Mapping[AnsweredBy, Engine], folder: Path, **limits: Any) -> Desk:
    """Without API keys and norms; audit records go below `folder`."""
    config = ServingConfig(**limits)
    rules = UploadRules(task=panel.task, cut_points=CUT_POINTS, limits=config.uploads)
    return Desk(
        panel=panel,
        engines=engines,
        limits=config,
        example=load_exemplars(panel.task.exemplars, panel.task)[0],
        door=Door(config, None),
        recorder=Recorder(open_audit_log(config.audit, str(folder))),
        audit_key=bytes(32),
        meters=Meters(),
        scans=ScanRoom(rules),
        codes=read_codes(config.fhir_codes, panel.task),
        norms=rules.norms,
        cut_points=CUT_POINTS,
        warm=True,
    )


def records_in(folder: Path) -> list[AuditRow]:
    """What a desk over this folder has recorded so far, in the order of time."""
    return list(find_records(ServingConfig().audit, str(folder), make_query(None, None, None, None)))


def send(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(sent())


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint")
