"""What stands for an answer that there is not, when it is final, and what a worker makes of a row."""

from __future__ import annotations

import pytest

from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.generation import FAILURE, PLACE, TOO_LONG, Generation, Model, Row, Steps, failed, is_final

CANARY = "Zebulon"
WORDINGS = [
    # vLLM, its engine
    "The decoder prompt (length 2100) is longer than the maximum model length of 2048. Make sure that `max_model_len` "
    "is no smaller than the number of text tokens.",
    "The decoder prompt (length 2048) plus the number of requested output tokens (at least 1) is longer than the "
    "maximum model length of 2048. Make sure that `max_model_len` is no smaller than the number of text tokens "
    "(prompt + requested output tokens).",
    # vLLM, its server
    "This model's maximum context length is 2048 tokens. However, you requested 320 output tokens and your prompt "
    "contains at least 1729 input tokens, for a total of at least 2049 tokens. Please reduce the length of the input "
    "prompt or the number of requested output tokens.",
    "Input length (2100) exceeds model's maximum context length (2048).",
    # OpenAI
    "Error code: 400 - {'error': {'message': \"This model's maximum context length is 8192 tokens. However, your "
    "messages resulted in 9000 tokens. Please reduce the length of the messages.\", 'type': 'invalid_request_error', "
    "'param': 'messages', 'code': 'context_length_exceeded'}}",
    "Error code: 400 - {'error': {'message': 'Input tokens exceed the configured limit of 272000 tokens. Your messages "
    "resulted in 280000 tokens. Please reduce the length of the messages.', 'code': 'context_length_exceeded'}}",
    "Error code: 400 - {'error': {'message': 'Your input exceeds the context window of this model.'}}",
    # llama.cpp
    "the request exceeds the available context size, try increasing it",
]


@pytest.mark.parametrize("message", WORDINGS)
def test_prompt_that_is_too_long_in_the_words_of_engines(message: str) -> None:
    assert failed("BadRequestError 400", message) == Generation("", [], 0, 0, TOO_LONG)
    assert failed("VLLMValidationError", f"{message} {CANARY}").error == TOO_LONG


@pytest.mark.parametrize(
    "message",
    [
        "",
        f"The prompt of {CANARY} cannot be empty",
        f"the length of {CANARY} in the context of a long maximum",
        "Rate limit reached: 90000 tokens per minute",
        "The model's output exceeds max_tokens",
    ],
)
def test_any_other_failure_is_its_kind_and_no_word_of_the_message(message: str) -> None:
    assert failed("RateLimitError 429", message) == Generation("", [], 0, 0, "RateLimitError 429")


@pytest.mark.parametrize(
    ("kind", "final"),
    [
        (TOO_LONG, True),
        ("ValueError", True),
        ("TypeError", True),
        ("VLLMValidationError", True),
        ("BadRequestError 400", True),
        ("APIStatusError 413", True),
        ("UnprocessableEntityError 422", True),
        ("invalid_request_error 400", True),
        ("RateLimitError 429", False),
        ("InternalServerError 500", False),
        ("InternalServerError 503", False),
        ("AuthenticationError 401", False),
        ("NotFoundError 404", False),
        ("APITimeoutError", False),
        ("APIConnectionError", False),
        ("InvalidReply", False),
        ("TimeoutError", False),
        ("EngineDeadError", False),
        ("OSError", False),
        ("error", False),
        ("", False),
    ],
)
def test_whether_asking_again_can_change_anything(kind: str, final: bool) -> None:
    assert is_final(kind) is final


def render(row: Row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["row_id"]}]


def finish(row: Row, generation: Generation) -> Row:
    return {"row_id": row["row_id"], "text": generation.text, "note": "of no column", "description": CANARY}


STEPS = Steps(Model("m", EngineConfig(), SamplingConfig(), 5), render, finish, ("row_id", "text"))


@pytest.mark.parametrize(
    ("generation", "settled"),
    [
        (Generation("Good.", [], 7, 2, None), {"text": "Good.", FAILURE: None}),
        (failed("OSError", CANARY), {"text": "", FAILURE: "OSError"}),
    ],
)
def test_settled_row_has_the_columns_of_the_table_failure_and_place(generation: Generation, settled: Row) -> None:
    row = {"row_id": "r", PLACE: 3, "prompt": CANARY, "messages": [CANARY]}
    assert STEPS.settle(row, generation) == {"row_id": "r", **settled, PLACE: 3}
