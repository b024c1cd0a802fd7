"""Which rows are asked again, and what the answers of a run have cost."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.config.teacher import EndpointConfig, TeacherConfig
from clinical_reasoner.rationales.counts import Counts, is_unanswered


@pytest.mark.parametrize(
    ("reason", "unanswered"),
    [
        (None, False),
        ("engine: InternalServerError 503", True),
        ("engine: RateLimitError 429", True),
        ("engine: APIConnectionError", True),
        ("engine: InvalidReply", True),
        ("engine: OSError", True),
        ("engine: prompt longer than the context", False),
        ("engine: BadRequestError 400", False),
        ("engine: VLLMValidationError", False),
        ("parse: empty answer", False),
        ("cut: at sampling.max_tokens or engine.max_model_len", False),
    ],
)
def test_what_is_asked_again(reason: str | None, unanswered: bool) -> None:
    assert is_unanswered({"reject_reason": reason}) is unanswered


def row(model: str, ask: str, prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
    answer = {"rationale": "r", "predicted": "AD", "label": "AD", "reject_reason": None, "selected": None}
    claims = {"claims_supported": 1, "claims_contradicted": 0, "claims_not_in_evidence": 0}
    tokens = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
    return {"model": model, "ask": ask, **answer, **claims, **tokens}


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"prompt_price": 2.0}, 0.6),
        ({"output_price": 10.0}, 0.5),
        ({"prompt_price": 2.0, "output_price": 10.0}, 1.1),
        ({"prompt_price": 0.0}, 0.0),
    ],
    ids=["unknown", "of prompts", "of answers", "of both", "free"],
)
def test_cost_of_all_asks_of_a_teacher(prices: dict[str, float], cost: float | None) -> None:
    counts = Counts()
    for one in (row("m", "diagnose", 200_000, 40_000), row("m", "direct", 100_000, 10_000), row("n", "direct", 7, 7)):
        counts.add(one)
    teachers = {"m": TeacherConfig(model="m", endpoint=EndpointConfig(**prices)), "n": TeacherConfig(model="n")}
    told = counts.summary(teachers)
    assert told["costs"] == ({} if cost is None else {"m": pytest.approx(cost)})
    assert {model: list(asks) for model, asks in told["asks"].items()} == {"m": ["diagnose", "direct"], "n": ["direct"]}
    assert counts.rows == 3


def test_no_row_no_counts() -> None:
    assert Counts().summary({}) == {"asks": {}, "reasons": {}, "selected": {}, "unanswered": 0, "costs": {}}
