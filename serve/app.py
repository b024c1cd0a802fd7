"""The diagnosis endpoint as a Ray Serve application: an HTTP ingress, a student engine and a teacher engine.

    serve run serve.app:build config=configs/demo.yaml [overrides="dotted.key=value ..."]

`jobs/serve_endpoint.py` does the same and honours `serving.host`, `serving.port` and `serving.tls`; `serve run` and a
RayService take these from their own options (`http_options`). On a cluster that runs already, and for a RayService, the
variables of configs/runtime-env.yaml must be in the environment of the Ray nodes themselves: Ray's proxy and log
settings come from there, and a job's or a deployment's variables do not reach the proxy.
"""

from __future__ import annotations

import logging
import os
import shlex
from contextlib import suppress
from typing import Any

from pydantic import field_validator
from ray import serve
from ray.serve.config import BackpressureConfig

from clinical_reasoner.cluster import QUIET, local_or_name
from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.stages import model_fingerprint
from serve.engines import DRAIN_SPARE_S, engine_deployment
from serve.ingress import DiagnosisIngress
from serve.problems import RETRY_AFTER_S
from serve.run_parts import find_student, make_parts

APPLICATION = "diagnosis"
"""Its name in Ray Serve."""
LOG = logging.getLogger("ray.serve")
SPARE_PLACES = 16
"""In the ingress beyond those of patients, so that `/healthz` and refusals never wait behind patients."""


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


def build(args: dict[str, Any], *, listens: bool = False) -> serve.Application:
    """The application of a finished run. Raises UserError where the run has no finished student.

    `listens`: whether the caller starts Ray Serve's proxy by `serving.host`, `serving.port` and `serving.tls`.
    """
    os.environ.update(QUIET)  # `serve run` builds the application before it starts Ray
    endpoint = EndpointArgs.model_validate(args)
    config = load_config(PipelineConfig, endpoint.config, endpoint.overrides)
    if config.teacher.base_url or config.teacher.deployment:
        raise UserError(
            "the endpoint runs its teacher in an engine: give teacher.model, and neither teacher.base_url nor "
            "teacher.deployment"
        )
    if config.serving.tls is not None and not listens:
        LOG.warning("serving.tls is not used here: give the files to Ray Serve itself (http_options.ssl_certfile)")
    model_fingerprint(config.teacher.model)  # says at once where a folder is mistyped
    student, teacher = find_student(config), local_or_name(config.teacher.model)
    return _ingress(config.serving).bind(
        make_parts(config, student),
        student=engine_deployment("student", student, config.student.engine, config.serving),
        teacher=engine_deployment("teacher", teacher, config.teacher.engine, config.serving),
    )


def _ingress(serving: ServingConfig) -> serve.Deployment:
    configured: Any = serve.deployment(
        name="diagnosis",
        num_replicas=serving.ingress_replicas,
        max_ongoing_requests=serving.max_ongoing_requests + SPARE_PLACES,
        max_queued_requests=serving.max_queued_requests,
        graceful_shutdown_timeout_s=serving.request_timeout_s + DRAIN_SPARE_S,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        # No CPU of its own: with one per engine, `serve run` then fits on two cores.
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": dict(QUIET)}},
    )
    deployment: serve.Deployment = configured(serve.ingress()(DiagnosisIngress))
    return deployment


def stop(*, alone: bool) -> None:
    """Stop the application once its requests in work are done, or after a minute; the rest of Serve too where it is
    `alone` in the cluster, as it is in one that it has started."""
    with suppress(TimeoutError):
        serve.delete(APPLICATION)
    if alone:
        serve.shutdown()  # type: ignore[no-untyped-call]
