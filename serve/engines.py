"""The two vLLM engines behind the endpoint: how they are deployed, and what is asked of a deployed one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.openai_api_models import ChatCompletionRequest

from clinical_reasoner.cluster import QUIET
from clinical_reasoner.config.serving import ReplicasConfig, ServingConfig
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.engine import engine_environment, served_engine_arguments, worker_bundle
from clinical_reasoner.serving.panel import ModelUnavailableError, Prompt, Reply
from clinical_reasoner.serving.schema import AnsweredBy
from serve.answer_server import AnswerServer
from serve.engine_replies import Piece, items_of, read_chunk

TOP_LOGPROBS = 5
"""Candidates per token; the options of the question must be among them to get a probability above 0."""
STATUS_TIMEOUT_S = 5.0
STATUS_KEPT_S = 1.0
"""Serve's controller is asked no more often than this, however many ask for the health."""
HEALTH_PERIOD_S = 2.0
"""Three failures in a row, and Serve puts a new engine in place of one whose process has died."""
HEALTH_TIMEOUT_S = 30.0
"""An engine that is busy answers late; one whose process has died answers at once."""
DRAIN_SPARE_S = 5.0
"""Added to the longest request: how long a replica that is to stop may finish what it has."""
_UNKNOWN = "UNKNOWN"
"""State of an application of which Serve's controller says nothing."""
WARM_UP = Prompt([{"role": "user", "content": "Ready?"}], pattern="(Yes|No)", max_tokens=4)
WARM_UP_TIMEOUT_S = 120.0


def engine_deployment(role: AnsweredBy, source: str, engine: EngineConfig, serving: ServingConfig) -> serve.Application:
    """vLLM engines with the model at `source` (absolute path, hub name or `s3://` address), as `engine-ROLE`."""
    config = LLMConfig(
        model_loading_config={"model_id": role, "model_source": source},
        engine_kwargs=served_engine_arguments(engine),
        placement_group_config={"bundle_per_worker": worker_bundle(engine)},
        runtime_env={"env_vars": {**QUIET, **engine_environment(engine, source)}},
        deployment_config=deployment_options(role, engine, serving),
    )
    return build_llm_deployment(config, name_prefix="engine-", deployment_cls=AnswerServer)


def deployment_options(role: AnsweredBy, engine: EngineConfig, serving: ServingConfig) -> dict[str, Any]:
    """Options of Ray Serve's deployment of one model."""
    replicas = serving.student_replicas if role == "student" else serving.teacher_replicas
    return {
        **replica_options(replicas, engine),
        "max_ongoing_requests": engine.max_num_seqs,
        "max_queued_requests": serving.max_queued_requests,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": serving.request_timeout_s + DRAIN_SPARE_S,
        "ray_actor_options": {"num_cpus": 0},  # the bundle has the engine's CPUs
    }


def replica_options(replicas: ReplicasConfig, engine: EngineConfig) -> dict[str, Any]:
    """A fixed number of engines, or the limits between which Serve follows the requests in work."""
    if replicas.least == replicas.most:
        return {"num_replicas": replicas.least}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.least,
            "initial_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": replicas.target_ongoing_requests or engine.max_num_seqs / 2,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
        }
    }


@dataclass(eq=False)
class DeployedEngine:
    """A deployed model, as the ingress sees it. Where the one who asks stops listening (`aclose`, or cancelled), the
    generation ends in the engine too."""

    role: AnsweredBy
    handle: DeploymentHandle[Any]
    engine: EngineConfig
    sampling: SamplingConfig
    _seen: tuple[float, str, bool] = field(default=(float("-inf"), _UNKNOWN, False), init=False)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _refresh: asyncio.Task[Any] | None = field(default=None, init=False)

    async def stream(self, prompt: Prompt, *, piecewise: bool) -> AsyncGenerator[Reply]:
        """Greedy answer with the candidates of each token; of a whole one, those that may be options. Raises
        ModelUnavailableError."""
        kwargs: dict[str, Any] = {"structured_outputs": {"regex": prompt.pattern}} if prompt.pattern else {}
        if piecewise:
            kwargs |= {"stream": True, "stream_options": {"include_usage": True}}
        request = self._request(
            messages=prompt.messages,
            max_tokens=prompt.max_tokens or self.sampling.max_tokens,
            temperature=0.0,
            seed=self.sampling.seed,
            logprobs=True,
            top_logprobs=TOP_LOGPROBS,
            **kwargs,
        )
        answers = self._answers(request, "chat" if piecewise else "answer")
        try:
            async for piece in answers:
                yield read_chunk(piece) if piecewise else piece[0]
        finally:
            await answers.aclose()

    async def chat(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """A checked request of OpenAI's form; one response, or the chunks of one. Raises ModelUnavailableError."""
        answers = self._answers(self._request(**request), "chat")
        try:
            async for piece in answers:
                for one in piece:
                    yield one
        finally:
            await answers.aclose()

    async def is_running(self) -> bool:
        """Whether Ray Serve, which checks the engine process itself, has a running replica.

        Asked of Serve's controller: a call to the engine would wait behind the patients.
        """
        return (await self._status())[1]

    async def warm_up(self, prompt: Prompt = WARM_UP) -> bool:
        """Ask it once, so that the first patient waits for nothing that is done once: the structured output of this
        tokenizer, compiled kernels, the prefix of `prompt`. While the application starts, the engine is waited for.
        False where it is not running, or did not answer."""
        while True:
            application, running = await self._status()
            if running or application != "DEPLOYING":
                break
            await asyncio.sleep(STATUS_KEPT_S)
        if not running:
            return False
        try:
            async with asyncio.timeout(WARM_UP_TIMEOUT_S):
                async for _ in self.stream(prompt, piecewise=False):
                    pass
        except (ModelUnavailableError, TimeoutError):
            return False
        return True

    def _request(self, **kwargs: Any) -> Any:
        return ChatCompletionRequest(
            **{
                **kwargs,
                "model": self.role,
                "chat_template_kwargs": self.engine.chat_template_kwargs or None,
                "request_id": str(uuid4()),  # else Ray Serve sets the client's, which may not be unique
            }
        )

    async def _answers(self, request: Any, method: Literal["answer", "chat"]) -> AsyncGenerator[Piece]:
        """What this method of AnswerServer sends, as it arrives. Raises ModelUnavailableError."""
        await self._refuse_if_down()
        stream: Any = self.handle.options(stream=True, method_name=method).remote(request)
        is_live, is_begun = True, False
        try:
            while is_live:
                sent = await self._next(stream)
                items, is_last, code = items_of(sent)
                if code is not None:
                    raise self._refusal(code)
                is_live = not (sent is None or is_last or not request.stream)
                if items:
                    is_begun = True
                    yield items
            if not is_begun:
                raise ModelUnavailableError(self.role, 503, "no answer (it was empty)")
        except ModelUnavailableError:
            is_live = False  # the call has ended by itself
            raise
        finally:
            if is_live:
                stream.cancel()

    async def _next(self, stream: Any) -> Any:
        """What comes next; None at the end."""
        try:
            return await anext(stream, None)
        except BackPressureError as error:
            raise ModelUnavailableError(self.role, 503, "too many requests are waiting") from error
        except Exception as error:
            # Of Ray, or with its gRPC transport whatever the engine raised. Its message may quote the prompt.
            raise ModelUnavailableError(self.role, 503, f"no answer ({_kind(error)})") from None

    async def _refuse_if_down(self) -> None:
        """Raises ModelUnavailableError where no replica runs: a call would wait for one until its deadline.

        Where one ran when last looked, the next look does not hold up the request.
        """
        seen_s, _, running = self._seen
        if time.monotonic() - seen_s >= STATUS_KEPT_S:
            if not running:
                await self._status()
            elif self._refresh is None or self._refresh.done():
                self._refresh = asyncio.create_task(self._status())
        _, application, running = self._seen
        if application != _UNKNOWN and not running:
            raise ModelUnavailableError(self.role, 503, "not running")

    async def _status(self) -> tuple[str, bool]:
        """State of the application, and whether a replica of this engine runs."""
        async with self._looking:
            seen_s, application, running = self._seen
            if time.monotonic() - seen_s >= STATUS_KEPT_S:
                application, running = await self._look()
                self._seen = (time.monotonic(), application, running)
            return application, running

    async def _look(self) -> tuple[str, bool]:
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                status = await asyncio.to_thread(serve.status)
        except (RayError, RayServeException, TimeoutError):
            return _UNKNOWN, False
        application = status.applications.get(self.handle.app_name)
        if application is None:
            return _UNKNOWN, False
        deployment: Any = application.deployments.get(self.handle.deployment_name)
        running = deployment is not None and deployment.replica_states.get("RUNNING", 0) > 0
        return application.status.value, running

    def _refusal(self, code: int) -> ModelUnavailableError:
        if code == 400:
            reason = f"the prompt does not fit into {self.engine.max_model_len} tokens"
            return ModelUnavailableError(self.role, 422, reason)
        return ModelUnavailableError(self.role, 502, f"engine error {code}")


def _kind(error: Exception) -> str:
    """Class of an error; of one that Ray wraps, Ray's own."""
    return type(error).__name__.partition("(")[0]
