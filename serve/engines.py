"""The two vLLM engines behind the endpoint: how they are deployed, and what the API asks of a deployed one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.openai_api_models import ChatCompletionRequest

from clinical_reasoner.cluster import QUIET
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.engine import engine_arguments, engine_environment, worker_bundle
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.serving.panel import ModelUnavailableError, Reply
from clinical_reasoner.serving.schema import AnsweredBy

TOP_LOGPROBS = 5
"""Candidates per token; the options of the question must be among them to get a probability above 0."""
STATUS_TIMEOUT_S = 5.0


def engine_deployment(role: AnsweredBy, source: str, engine: EngineConfig, serving: ServingConfig) -> serve.Application:
    """One replica of a vLLM engine with the model at `source` (absolute path, hub name or `s3://` address)."""
    config = LLMConfig(
        model_loading_config={"model_id": role, "model_source": source},
        engine_kwargs=engine_arguments(engine),
        placement_group_config={"bundle_per_worker": worker_bundle(engine)},
        runtime_env={"env_vars": {**QUIET, **engine_environment(engine, source)}},
        deployment_config={
            "num_replicas": 1,
            "max_ongoing_requests": engine.max_num_seqs,
            "max_queued_requests": serving.max_queued_requests,
            "ray_actor_options": {"num_cpus": 0},  # the bundle has the engine's CPUs
        },
    )
    return build_llm_deployment(config, name_prefix="engine-")


@dataclass(frozen=True)
class DeployedEngine:
    """A deployed engine, as the ingress sees it."""

    role: AnsweredBy
    handle: DeploymentHandle[Any]
    engine: EngineConfig
    sampling: SamplingConfig

    async def ask(self, messages: list[Message]) -> Reply:
        """Greedy answer with the candidates of each token. Raises ModelUnavailableError."""
        request = ChatCompletionRequest(
            model=self.role,
            messages=messages,
            max_tokens=self.sampling.max_tokens,
            temperature=0.0,
            seed=self.sampling.seed,
            logprobs=True,
            top_logprobs=TOP_LOGPROBS,
            chat_template_kwargs=self.engine.chat_template_kwargs or None,
            request_id=str(uuid4()),  # else Ray Serve sets the client's, which may not be unique
        )
        stream: Any = self.handle.options(stream=True).chat.remote(request)
        try:
            response = await anext(stream)
        except BackPressureError as error:
            raise ModelUnavailableError(self.role, 503, "too many requests are waiting") from error
        except (RayError, RayServeException, StopAsyncIteration) as error:
            raise ModelUnavailableError(self.role, 503, f"no answer ({type(error).__name__})") from error
        except asyncio.CancelledError:
            stream.cancel()
            raise
        if hasattr(response, "error"):  # an ErrorResponse, but not of the class that ray.serve.llm exports
            raise self._refusal(response.error.code)
        choice = response.choices[0]
        places = choice.logprobs.content if choice.logprobs else []
        tokens = [(place.token, {one.token: one.logprob for one in place.top_logprobs}) for place in places or []]
        return Reply(choice.message.content or "", tokens)

    async def is_running(self) -> bool:
        """Whether Ray Serve, which checks the engine process itself, has a running replica.

        Asked of Serve's controller: a call to the engine would wait behind the patients.
        """
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                status = await asyncio.to_thread(serve.status)
        except (RayError, RayServeException, TimeoutError):
            return False
        application = status.applications.get(self.handle.app_name)
        deployment: Any = application and application.deployments.get(self.handle.deployment_name)
        return deployment is not None and deployment.replica_states.get("RUNNING", 0) > 0

    def _refusal(self, code: int) -> ModelUnavailableError:
        if code == 400:
            return ModelUnavailableError(
                self.role, 422, f"the prompt does not fit into {self.engine.max_model_len} tokens"
            )
        return ModelUnavailableError(self.role, 502, f"engine error {code}")
