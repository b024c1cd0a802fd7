"""The two vLLM engines behind the endpoint: how they are deployed, and one call to one of them."""

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
from clinical_reasoner.llm.batch import engine_arguments, engine_environment, worker_bundle
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.serving.diagnosis import Reply
from clinical_reasoner.serving.schema import AnsweredBy

TOP_LOGPROBS = 5
"""Candidates per token; the options of the question must be among them to get a probability above 0."""
HEALTH_TIMEOUT_S = 5.0


class EngineError(Exception):
    """An engine gave no text. Neither field holds what was asked or what the engine said about it."""

    def __init__(self, role: AnsweredBy, status: int, reason: str) -> None:
        super().__init__(role, status, reason)
        self.role = role
        self.status = status
        """HTTP status for the client."""
        self.reason = reason


@dataclass(frozen=True)
class Engine:
    """A deployed engine, as the ingress sees it."""

    handle: DeploymentHandle[Any]
    sampling: SamplingConfig
    context_tokens: int


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


async def ask_engine(role: AnsweredBy, engine: Engine, messages: list[Message]) -> Reply:
    """Greedy answer with the candidates of each token. Raises EngineError."""
    request = ChatCompletionRequest(
        model=role,
        messages=messages,
        max_tokens=engine.sampling.max_tokens,
        temperature=0.0,
        seed=engine.sampling.seed,
        logprobs=True,
        top_logprobs=TOP_LOGPROBS,
        request_id=str(uuid4()),  # else Ray Serve sets the client's, which may not be unique
    )
    stream: Any = engine.handle.options(stream=True).chat.remote(request)
    try:
        response = await anext(stream)
    except BackPressureError as error:
        raise EngineError(role, 503, "too many requests are waiting") from error
    except (RayError, RayServeException, StopAsyncIteration) as error:
        raise EngineError(role, 503, f"no answer ({type(error).__name__})") from error
    except asyncio.CancelledError:
        stream.cancel()
        raise
    if hasattr(response, "error"):  # an ErrorResponse, but not of the class that ray.serve.llm exports
        raise _refusal(role, response, engine)
    choice = response.choices[0]
    places = choice.logprobs.content if choice.logprobs else []
    tokens = [(place.token, {one.token: one.logprob for one in place.top_logprobs}) for place in places or []]
    return Reply(choice.message.content or "", tokens)


async def engine_answers(engine: Engine) -> bool:
    """Whether the replica answers and its engine process is alive."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            await engine.handle.check_health.remote()
    except (RayError, RayServeException, TimeoutError):
        return False
    return True


def _refusal(role: AnsweredBy, response: Any, engine: Engine) -> EngineError:
    if response.error.code == 400:
        return EngineError(role, 422, f"the prompt does not fit into {engine.context_tokens} tokens")
    return EngineError(role, 502, f"engine error {response.error.code}")
