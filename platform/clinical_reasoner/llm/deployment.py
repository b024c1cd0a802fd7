"""A teacher that Ray Serve already runs in the cluster: batch and endpoint then share one engine."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from clinical_reasoner.config.teacher import DeploymentConfig
from clinical_reasoner.llm.endpoint import chat_request, read_completion
from clinical_reasoner.llm.engine import ENGINE_ERROR, read_error
from clinical_reasoner.llm.generation import Generation, Model, NoAnswerError, Row, Steps, failed

_KIND = "ChatCompletionRequest"
_SIDE_BY_SIDE = 4
"""Batches that Ray Data runs at a time in a stage of this kind."""


def check_deployment(deployment: DeploymentConfig) -> None:
    """Raises NoAnswerError, before anything is asked, when no such deployment runs in the cluster."""
    from ray import serve

    applications = serve.status().applications
    found = applications.get(deployment.application)
    if found is None:
        there = ", ".join(sorted(applications)) or "none; set RAY_ADDRESS to join the cluster that serves it"
        raise NoAnswerError(
            f"teacher.deployment.application {deployment.application!r} does not run here; found: {there}"
        )
    if deployment.name not in found.deployments:
        there = ", ".join(sorted(found.deployments))
        raise NoAnswerError(
            f"teacher.deployment.name {deployment.name!r} is not in {deployment.application}; it has {there}"
        )


def build_deployment_processor(steps: Steps) -> Any:
    """A Ray Data processor: chat requests, and the deployment that answers them."""
    from ray.data.llm import ServeDeploymentProcessorConfig, build_processor
    from ray.serve.llm.openai_api_models import ChatCompletionRequest

    deployment = steps.model.deployment
    if deployment is None:
        raise ValueError("the model has no deployment")

    def preprocess(row: Row) -> Row:
        # Ids must differ from those of the endpoint's own requests, and say nothing of the patient.
        request = {**chat_request(steps, row), "model": steps.model.source, "request_id": str(uuid4())}
        return {**row, "method": "chat", "dtype": _KIND, "request_kwargs": request}

    config = ServeDeploymentProcessorConfig(
        deployment_name=deployment.name,
        app_name=deployment.application,
        dtype_mapping={_KIND: ChatCompletionRequest},
        batch_size=max(1, deployment.at_a_time // _SIDE_BY_SIDE),
        concurrency=1,
        should_continue_on_error=True,
        request_timeout_s=deployment.timeout_s,
    )
    light = {"num_cpus": 0.1}
    return build_processor(config, preprocess=preprocess, preprocess_map_kwargs=light, postprocess_map_kwargs=light)


def read_response(row: Row, model: Model) -> Generation:
    """The deployment's columns of a row."""
    if row.get(ENGINE_ERROR):
        return read_error(row[ENGINE_ERROR])
    error = row.get("error")
    if error:
        return failed(f"{error.get('type') or 'error'} {error.get('code') or ''}".strip(), error.get("message") or "")
    return read_completion(row)
