"""The teacher, its engine, and how it is sampled."""

from __future__ import annotations

from math import ceil
from typing import Any

from pydantic import Field, model_validator

from clinical_reasoner.config.base import StrictConfig

THROUGHPUT = (
    "max_num_seqs",
    "replicas",
    "batch_size",
    "concurrent_batches",
    "gpus",
    "cpus",
    "kv_cache_gib",
)
"""Fields of an engine that decide how fast its answers come and what they take, not what they say."""


class EngineConfig(StrictConfig):
    """A vLLM engine under Ray Data or Ray Serve."""

    dtype: str = "auto"
    """Weights and activations: `auto`, `bfloat16`, `float16`, `float32`."""
    max_model_len: int = Field(default=2048, ge=128)
    """Longest prompt plus answer, tokens."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Most requests in one step of the engine."""
    replicas: int = Field(default=1, ge=1)
    """Engines side by side (batch stages)."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows handed to an engine at a time; None: an eighth of `max_num_seqs`, at most 32. Many small batches keep an
    engine busier than few large ones, which wait for their longest answer."""
    concurrent_batches: int | None = Field(default=None, ge=1)
    """Batches in an engine at a time; None: as many as hold twice `max_num_seqs` rows, so that rows wait for the engine
    and never the engine for rows."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per replica; 0 runs on the CPU."""
    cpus: float = Field(default=1, gt=0)
    """Logical CPUs per replica."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """KV cache of a CPU engine, GiB; without effect on a GPU."""
    chat_template_kwargs: dict[str, Any] = {}
    """Handed to the model's chat template, e.g. `{enable_thinking: false}`."""
    engine_kwargs: dict[str, Any] = {}
    """Any further vLLM engine argument, passed through, e.g. `tensor_parallel_size`, `quantization`."""

    def identity(self) -> dict[str, Any]:
        """What its answers depend on: a run that was killed for want of memory goes on with a smaller THROUGHPUT."""
        return self.model_dump(mode="json", exclude=set(THROUGHPUT))

    def batches(self) -> tuple[int, int]:
        """Rows of a batch, and batches in an engine at a time."""
        size = self.batch_size or min(32, max(1, self.max_num_seqs // 8))
        return size, self.concurrent_batches or ceil(2 * self.max_num_seqs / size)

    @model_validator(mode="after")
    def _batches_fill_engine(self) -> EngineConfig:
        size, concurrent = self.batches()
        if size * concurrent < self.max_num_seqs:
            raise ValueError(
                f"batch_size {size} x concurrent_batches {concurrent} is below "
                f"max_num_seqs {self.max_num_seqs}: the engine would idle"
            )
        return self


class SamplingConfig(StrictConfig):
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=320, ge=8)
    """Longest answer, tokens."""
    seed: int = Field(default=0, ge=0)
    """Every answer is sampled with a seed of its own that follows from this one and the row's id."""


class EndpointConfig(StrictConfig):
    """How an OpenAI-compatible server is asked."""

    key_variable: str = Field(default="OPENAI_API_KEY", min_length=1)
    """Environment variable with the key; none is sent where it is not set."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Most requests in a minute; None sends as many as are open at a time."""
    at_a_time: int = Field(default=32, ge=1, le=1024)
    """Requests that are open at a time."""
    max_retries: int = Field(default=5, ge=0, le=50)
    """Tries after the first one, on 408, 409, 429, 5xx, time-outs and lost connections, with growing waits."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for one answer, seconds."""
    prompt_price: float | None = Field(default=None, ge=0)
    """Of a million tokens of prompts, in whichever currency; with `output_price` the run says what it has cost."""
    output_price: float | None = Field(default=None, ge=0)
    """Of a million tokens of answers."""
    logprobs: bool = True
    """Ask for the log-probabilities of tokens, which the probabilities of the labels come from; some servers refuse."""


class DeploymentConfig(StrictConfig):
    """A deployment of Ray Serve in the cluster that the job joins (RAY_ADDRESS), such as the endpoint's teacher."""

    application: str = "diagnosis"
    """Name of the Serve application."""
    name: str
    """Name of the deployment, e.g. `engine-teacher`; `serve status` lists them."""
    at_a_time: int = Field(default=16, ge=1, le=1024)
    """Most requests that are open at a time; with the endpoint's own they must fit into the deployment's
    `max_ongoing_requests` and `max_queued_requests`."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Longest wait for one answer, seconds."""


class TeacherConfig(StrictConfig):
    model: str
    """Hugging Face name or local folder; with `base_url` or `deployment` the name under which it is served. Which
    weights answer to that name is not known here: where they change, take another run folder."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """Address of an OpenAI-compatible server that answers for it, up to and with the version, e.g.
    `http://127.0.0.1:8001/v1`. Prompts hold patients: the server must be allowed to see them. None runs the teacher in
    an engine of the cluster."""
    endpoint: EndpointConfig = EndpointConfig()
    """How that server is asked."""
    deployment: DeploymentConfig | None = None
    """A running Serve deployment that answers for it, so that batch and endpoint share one engine."""
    engine: EngineConfig = EngineConfig()
    """The engine that runs it; with `base_url` or `deployment` only `chat_template_kwargs` counts."""
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _in_one_place(self) -> TeacherConfig:
        if self.base_url and self.deployment:
            raise ValueError("base_url and deployment both say where the teacher runs; give one of them")
        return self

    def identity(self) -> dict[str, Any]:
        """What its answers depend on, besides the content of the model."""
        own = {"model": self.model, "sampling": self.sampling.model_dump(mode="json"), "engine": self.engine.identity()}
        if self.base_url or self.deployment:
            own["engine"] = {"chat_template_kwargs": self.engine.chat_template_kwargs}
        if self.deployment:
            own["deployment"] = f"{self.deployment.application}/{self.deployment.name}"
        if self.base_url is None:
            return own
        return {**own, "base_url": self.base_url, "logprobs": self.endpoint.logprobs}
