"""The diagnosis endpoint as a Ray Serve application: an HTTP ingress, a student engine and a teacher engine.

    serve run serve.app:build config=configs/demo.yaml [overrides="dotted.key=value ..."]

`jobs/serve_endpoint.py` does the same and honours `serving.host` and `serving.port`.
"""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import field_validator
from ray import serve
from ray.serve.config import BackpressureConfig

from clinical_reasoner.cluster import QUIET, local_or_name
from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.stage import model_folder
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.rationales.stage import chosen_exemplars
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.diagnosis import Panel, student_role, teacher_role
from clinical_reasoner.task import load_task
from serve.engines import engine_deployment
from serve.ingress import DiagnosisIngress

RETRY_AFTER_S = 1.0


class EndpointArgs(StrictConfig):
    """What `build` takes."""

    config: str
    """YAML file of the run."""
    overrides: tuple[str, ...] = ()
    """`dotted.key=value`, in order; one text with spaces between them, as `serve run` gives it, is taken too."""

    @field_validator("overrides", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(shlex.split(value)) if isinstance(value, str) else value


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a finished run. Raises UserError where the run has no student yet."""
    endpoint = EndpointArgs.model_validate(args)
    config = load_config(PipelineConfig, endpoint.config, endpoint.overrides)
    student, teacher = find_student(config), local_or_name(config.teacher.model)
    task = load_task(config.task.file)
    panel = Panel(
        task,
        student_role(config.serving.student_arm),
        teacher_role(config.teacher.model, chosen_exemplars(config, task)),
        config.serving.threshold,
    )
    example = load_exemplars(config.task.exemplars or task.exemplars, task)[0]
    return _ingress(config.serving.max_ongoing_requests, config.serving.max_queued_requests).bind(
        config,
        panel,
        example,
        student=engine_deployment("student", student, config.student.engine, config.serving),
        teacher=engine_deployment("teacher", teacher, config.teacher.engine, config.serving),
    )


def find_student(config: PipelineConfig) -> str:
    """Path or `s3://` address of the run's student. Raises UserError where the run has none."""
    run, folder = RunFolder(config.run.path), model_folder(config.serving.student_arm)
    if not run.exists(f"{folder}/config.json"):
        raise UserError(
            f"{run.child(folder)}: no student there (run.path, serving.student_arm); run `make demo` first, "
            "or jobs/run_pipeline.py with this config"
        )
    return run.child(folder)


def _ingress(ongoing: int, queued: int) -> serve.Deployment:
    configured: Any = serve.deployment(
        name="diagnosis",
        num_replicas=1,
        max_ongoing_requests=ongoing,
        max_queued_requests=queued,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        # No CPU of its own: with one per engine, `serve run` then fits on two cores.
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": dict(QUIET)}},
    )
    deployment: serve.Deployment = configured(serve.ingress()(DiagnosisIngress))
    return deployment
