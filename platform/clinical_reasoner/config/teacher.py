"""The teacher, its engine, and what it is asked."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.records import Ask, Split

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
    batch_size: int = Field(default=32, ge=1)
    """Rows handed to an engine at a time; `batch_size` x `concurrent_batches` must reach `max_num_seqs`."""
    concurrent_batches: int = Field(default=4, ge=1)
    """Batches in an engine at a time."""
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

    @model_validator(mode="after")
    def _batches_fill_engine(self) -> EngineConfig:
        if self.batch_size * self.concurrent_batches < self.max_num_seqs:
            raise ValueError(
                f"batch_size {self.batch_size} x concurrent_batches {self.concurrent_batches} is below "
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


class TeacherConfig(StrictConfig):
    model: str
    """Hugging Face name or local folder."""
    engine: EngineConfig = EngineConfig()
    sampling: SamplingConfig = SamplingConfig()

    def identity(self) -> dict[str, Any]:
        """What its answers depend on, besides the content of the model."""
        return {**self.model_dump(mode="json", exclude={"engine"}), "engine": self.engine.identity()}


class AsksConfig(StrictConfig):
    """Which splits each ask is put about."""

    rationalize: tuple[Split, ...] = ("train",)
    """The diagnosis is told and the rationale asked for: what students learn from."""
    diagnose: tuple[Split, ...] = ("test",)
    """Few-shot reasoning, then the diagnosis."""
    direct: tuple[Split, ...] = ("test",)
    """The diagnosis alone."""

    def splits(self) -> dict[Ask, tuple[Split, ...]]:
        return {"rationalize": self.rationalize, "diagnose": self.diagnose, "direct": self.direct}


class LengthBounds(StrictConfig):
    """How long a rationale may be to be trained on."""

    min_words: int = Field(default=8, ge=1)
    """Fewest words."""
    max_words: int = Field(default=600, ge=1)
    """Most words."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> LengthBounds:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}: no rationale fits")
        return self


class RationalesConfig(StrictConfig):
    asks: AsksConfig = AsksConfig()
    length: LengthBounds = LengthBounds()
    shots: int = Field(default=3, ge=0, le=16)
    """Exemplars in the prompts of `rationalize` and `diagnose`: the labels in turn, in the order of the file; `direct`
    has none."""
    rows_per_block: int = Field(default=50, ge=1)
    """Asks per block of work: what a kill can lose at the most, for each engine."""
