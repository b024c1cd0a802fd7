"""One call to an engine: what it is asked, and what its failures become. The handle is a plain object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.serving.panel import ModelUnavailableError, Reply

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, on import

CANARY = "Zebulon"
MESSAGES = [{"role": "user", "content": f"{CANARY} is a beekeeper."}]


class PlainHandle:
    """Stands for a handle: `options(stream=True).chat.remote(request)` gives one thing, or raises it."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.requests: list[Any] = []
        self.chat = SimpleNamespace(remote=self._answer)

    def options(self, *, stream: bool) -> PlainHandle:
        assert stream
        return self

    async def _answer(self, request: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        yield self.outcome


def ask(outcome: Any, **engine: Any) -> tuple[Reply, Any]:
    """The reply, and the request that the handle got."""
    from serve.engines import DeployedEngine  # takes seconds: it imports vLLM

    handle: Any = PlainHandle(outcome)
    deployed = DeployedEngine("teacher", handle, EngineConfig(**engine), SamplingConfig(max_tokens=8, seed=3))
    return asyncio.run(deployed.ask(MESSAGES)), handle.requests[0]


def failure(kind: str) -> Any:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError

    if kind == "busy":
        return BackPressureError(9, 8)
    if kind == "dead":
        return RayActorError(error_msg=CANARY)
    return SimpleNamespace(error=SimpleNamespace(code=int(kind), message=f"{CANARY} is too long"))


def completion(text: str | None) -> Any:
    candidates = [SimpleNamespace(token="A", logprob=-0.1), SimpleNamespace(token="B", logprob=-2.5)]
    place = SimpleNamespace(token="A", top_logprobs=candidates)
    message = SimpleNamespace(content=text)
    return SimpleNamespace(choices=[SimpleNamespace(message=message, logprobs=SimpleNamespace(content=[place]))])


def test_answer_with_the_candidates_of_each_token() -> None:
    reply, request = ask(completion("A"), chat_template_kwargs={"enable_thinking": False})
    assert reply == Reply("A", [("A", {"A": -0.1, "B": -2.5})])
    assert (request.model, request.max_tokens, request.seed, request.temperature) == ("teacher", 8, 3, 0.0)
    assert request.chat_template_kwargs == {"enable_thinking": False}
    assert ask(completion(None))[0].text == ""


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("busy", 503, "too many requests are waiting"),
        ("dead", 503, "no answer (RayActorError)"),
        ("400", 422, "the prompt does not fit into 256 tokens"),
        ("500", 502, "engine error 500"),
    ],
)
def test_failures_have_a_status_and_no_patient(kind: str, status: int, reason: str) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        ask(failure(kind), max_model_len=256)
    error = caught.value
    assert (error.role, error.status, error.reason) == ("teacher", status, reason)
    assert CANARY not in str(error)
