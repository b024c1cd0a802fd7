"""A model as the stages know it, and what it returned for one prompt, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clinical_reasoner.config.teacher import EndpointConfig, EngineConfig, SamplingConfig
from clinical_reasoner.llm.answers import TokenLogprobs

Row = dict[str, Any]


@dataclass(frozen=True)
class Generation:
    """What an engine returned for one prompt."""

    text: str
    tokens: TokenLogprobs
    prompt_tokens: int
    output_tokens: int
    error: str | None
    """Kind of the engine's error, without the prompt; None when the text is good."""
    cut: bool = False
    """Whether the text ended at a limit of tokens rather than by itself."""


@dataclass(frozen=True)
class Model:
    """A model, the engine it runs in, and how it is sampled."""

    source: str
    """Hugging Face name or local folder."""
    engine: EngineConfig
    sampling: SamplingConfig
    logprobs: int
    """Candidates kept per generated token; the options of the question must be among them."""
    base_url: str | None = None
    """Where an OpenAI-compatible server answers for it; None runs it in the engine."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """How that server is asked."""
