"""What a deployment of Ray Serve returns for a row: an answer, an error of its server, or one of the call itself."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.config.teacher import DeploymentConfig, EngineConfig, SamplingConfig
from clinical_reasoner.llm.deployment import read_response
from clinical_reasoner.llm.engine import ENGINE_ERROR
from clinical_reasoner.llm.generation import TOO_LONG, Generation, Model

CANARY = "Zebulon"
MODEL = Model("teacher", EngineConfig(), SamplingConfig(), 5, deployment=DeploymentConfig(name="engine"))
ASKED: dict[str, Any] = {"row_id": "r", "description": CANARY, ENGINE_ERROR: "", "error": None, "choices": None}
"""A row among whose neighbours are errors and answers has the columns of both."""


def answer(**message: Any) -> dict[str, Any]:
    """As the server's model of a completion is dumped."""
    place = {"token": "A", "logprob": -0.1, "bytes": [65], "top_logprobs": [{"token": "B", "logprob": -2.4}]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Diagnosis: (A)", "reasoning": None, "tool_calls": []} | message,
        "logprobs": {"content": [place]},
        "finish_reason": "stop",
    }
    return ASKED | {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}


def test_an_answer() -> None:
    expected = Generation("Diagnosis: (A)", [("A", {"B": -2.4})], 7, 5, None)
    assert read_response(answer(), MODEL) == expected
    bare = {name: value for name, value in answer().items() if name not in (ENGINE_ERROR, "error")}
    assert read_response(bare, MODEL) == expected


def test_an_answer_with_thinking() -> None:
    assert read_response(answer(reasoning="Hm."), MODEL).text == "<think>Hm.</think>Diagnosis: (A)"


def error(message: str | None, kind: str | None = "BadRequestError", code: int | None = 400) -> dict[str, Any]:
    return ASKED | {"error": {"message": message, "type": kind, "param": CANARY, "code": code}}


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (error(f"no such role: {CANARY}"), "BadRequestError 400"),
        (error(None), "BadRequestError 400"),
        (error(f"{CANARY} fell", "InternalServerError", 500), "InternalServerError 500"),
        (error(CANARY, None, None), "error"),
        (error(CANARY, "NotFoundError", None), "NotFoundError"),
        (error(f"This model's maximum context length is 2048 tokens, not {CANARY}"), TOO_LONG),
        (ASKED | {ENGINE_ERROR: f"TimeoutError: no answer about {CANARY} after 300.0s"}, "TimeoutError"),
        (ASKED | {ENGINE_ERROR: f"RayTaskError(ValueError): ray::chat() {CANARY}"}, "ValueError"),
        (ASKED | {ENGINE_ERROR: f"ValidationError: 1 validation error\ninput_value={CANARY!r}"}, "ValidationError"),
        (ASKED | {ENGINE_ERROR: f"ValueError: longer than the maximum model length: {CANARY}"}, TOO_LONG),
        (ASKED, "InvalidReply"),
        (ASKED | {"choices": []}, "InvalidReply"),
    ],
)
def test_a_failure_is_its_kind_and_nothing_of_the_patient(row: dict[str, Any], kind: str) -> None:
    assert read_response(row, MODEL) == Generation("", [], 0, 0, kind)
