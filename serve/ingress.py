"""The ingress deployment: the API over the two engines, which are warm before it takes requests."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.serving.panel import Panel
from serve.api import Desk, build_api
from serve.engines import DeployedEngine

LOG = logging.getLogger("ray.serve")
_AGAIN_S = 5.0
"""Between two tries to warm up an engine that did not answer."""


class DiagnosisIngress:
    """`serve.ingress()` asks it for the ASGI app when a replica starts; the replica is ready when that returns."""

    def __init__(
        self,
        config: PipelineConfig,
        panel: Panel,
        example: Exemplar,
        student: DeploymentHandle[Any],
        teacher: DeploymentHandle[Any],
    ) -> None:
        engines = (
            DeployedEngine("student", student, config.student.engine, config.student.sampling),
            DeployedEngine("teacher", teacher, config.teacher.engine, config.teacher.sampling),
        )
        self._engines = engines
        self._desk = Desk(panel, {engine.role: engine for engine in engines}, config.serving, example)
        self._later: set[asyncio.Task[None]] = set()

    async def __serve_build_asgi_app__(self) -> FastAPI:
        api = build_api(self._desk)
        warm = await asyncio.gather(*(engine.warm_up() for engine in self._engines))
        for engine, is_warm in zip(self._engines, warm, strict=True):
            if not is_warm:  # the other one answers meanwhile
                LOG.warning("engine-%s does not answer yet", engine.role)
                self._later.add(asyncio.create_task(_warm_up_later(engine)))
        return api


async def _warm_up_later(engine: DeployedEngine) -> None:
    while not await engine.warm_up():
        await asyncio.sleep(_AGAIN_S)
    LOG.warning("engine-%s answers", engine.role)
