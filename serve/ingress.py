"""The ingress deployment: the API over the two engines, which are warm before it takes requests."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from clinical_reasoner.serving.schema import AnsweredBy
from serve.api import build_api
from serve.bodies import remove_leftovers
from serve.engines import DeployedEngine
from serve.run_parts import Parts, make_desk
from serve.upkeep import keep_up

LOG = logging.getLogger("ray.serve")
_AGAIN_S = 5.0
"""Between two tries to warm up an engine that did not answer."""


class DiagnosisIngress:
    """`serve.ingress()` asks it for the ASGI app when a replica starts; the replica is ready when that returns."""

    def __init__(self, parts: Parts, student: DeploymentHandle[Any], teacher: DeploymentHandle[Any]) -> None:
        config = parts.config
        self._engines: dict[AnsweredBy, DeployedEngine] = {
            "student": DeployedEngine("student", student, config.student.engine, config.student.sampling),
            "teacher": DeployedEngine("teacher", teacher, config.teacher.engine, config.teacher.sampling),
        }
        self._parts = parts
        remove_leftovers()
        self._desk = make_desk(parts, self._engines, serve.get_replica_context().replica_tag)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __serve_build_asgi_app__(self) -> FastAPI:
        api = build_api(self._desk)
        self._desk.scans.warm()
        warm = await asyncio.gather(*(engine.warm_up() for engine in self._engines.values()))
        for engine, is_warm in zip(self._engines.values(), warm, strict=True):
            if not is_warm:  # the other one answers meanwhile
                LOG.warning("engine-%s does not answer yet", engine.role)
                self._tasks.add(asyncio.create_task(_warm_up_later(engine)))
        self._desk.warm = True
        self._tasks.add(asyncio.create_task(keep_up(self._desk, self._parts.points)))
        return api

    async def __del__(self) -> None:
        """Ray Serve calls it once the requests in work are done."""
        for task in self._tasks:
            task.cancel()
        self._desk.scans.close()
        await self._desk.recorder.close()


async def _warm_up_later(engine: DeployedEngine) -> None:
    while not await engine.warm_up():
        await asyncio.sleep(_AGAIN_S)
    LOG.warning("engine-%s answers", engine.role)
