"""The ingress deployment: the API over the two engines."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.serving.panel import Panel
from serve.api import Desk, build_api
from serve.engines import DeployedEngine


class DiagnosisIngress:
    """`serve.ingress()` asks it for the ASGI app when a replica starts."""

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
        self._desk = Desk(panel, {engine.role: engine for engine in engines}, config.serving, example)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._desk)
