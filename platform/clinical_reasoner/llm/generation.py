"""A model as the stages know it, what it returned for one prompt, wherever it runs, and what is made of that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clinical_reasoner.config.student import Family
from clinical_reasoner.config.teacher import DeploymentConfig, EndpointConfig, EngineConfig, SamplingConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.storage import RunError
from clinical_reasoner.task import DiagnosisTask

Row = dict[str, Any]

FAILURE = "engine_failure"
"""Column of a generated row: kind of the engine's error, or null."""
PLACE = "place"
"""Column of a prompt and of its generated row: number of the prompt, from 0."""
TOO_LONG = "prompt longer than the context"
_TOO_LONG = re.compile(r"maximum model length|context[ _](?:length|size|window)", re.IGNORECASE)
_FINAL = re.compile(rf"{TOO_LONG}|\w*(?:Value|Type|Validation)Error|.* (?:400|413|422)")


class NoAnswerError(RunError):
    """Nothing answers for a model: its engine fails on every prompt, or its server or deployment is not there."""


@dataclass(frozen=True)
class Generation:
    """What an engine returned for one prompt."""

    text: str
    tokens: TokenLogprobs
    prompt_tokens: int
    output_tokens: int
    error: str | None
    """Kind of the engine's error, without the prompt; None when the text is good."""
    token_ids: tuple[int, ...] = ()
    candidates: tuple[dict[int, float], ...] = ()
    """For each of `token_ids` the log-probabilities of the tokens that could have stood there, where they are kept."""
    cut: bool = False
    """Whether the text ended at a limit of tokens rather than by itself."""


def failed(kind: str, message: str = "") -> Generation:
    """No answer. Of the message, which may hold the prompt and so the patient, only is read whether the prompt was too
    long."""
    return Generation("", [], 0, 0, TOO_LONG if _TOO_LONG.search(message) else kind)


def is_final(kind: str) -> bool:
    """Whether the prompt itself was refused, so that to ask again would change nothing."""
    return _FINAL.fullmatch(kind) is not None


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
    deployment: DeploymentConfig | None = None
    """The Serve deployment that answers for it; None runs it in the engine."""
    token_candidates: int = 0
    """Candidates per token that an answer with a rationale keeps, by their ids; only of a model in the engine."""
    sees_pictures: bool = False
    """Whether its messages hold pictures; in the engine it must then be a vision-language model."""
    family: Family = "decoder"
    """Any other than decoders runs in transformers."""
    task: DiagnosisTask | None = None
    """Of an encoder: its classes are the labels."""


@dataclass(frozen=True)
class Steps:
    """What is done to each row, on the workers."""

    model: Model
    render: Callable[[Row], list[Message]]
    finish: Callable[[Row, Generation], Row]
    columns: tuple[str, ...]
    """Of a finished row."""

    def settle(self, row: Row, generation: Generation) -> Row:
        """The finished row with FAILURE and PLACE, and nothing else."""
        finished = self.finish(row, generation)
        return {**{name: finished[name] for name in self.columns}, FAILURE: generation.error, PLACE: row[PLACE]}
