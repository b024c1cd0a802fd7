"""The engine's own side of a whole answer: what is sent of it, and that it is read as if all had been sent."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from clinical_reasoner.llm.answers import option_probabilities
from clinical_reasoner.serving.panel import Reply
from tests.unit.serve.test_engines import PLACE, failure, response
from tests.unit.serving.engines import TASK

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # Ray's own, on import
    "ignore:coroutine 'LLMServer.__del__' was never awaited:RuntimeWarning",  # Ray Serve awaits it
)


class PlainEngine:
    """Yields what it is given, and then stays busy."""

    def __init__(self, *things: Any) -> None:
        self._things = things
        self.asked: list[Any] = []
        self.ended = 0

    async def chat(self, request: Any, raw_request_info: Any) -> AsyncGenerator[Any]:
        self.asked.append(request)
        try:
            for thing in self._things:
                yield thing
            await asyncio.sleep(60)
        finally:
            self.ended += 1


def server_of(engine: PlainEngine) -> Any:
    from ray.serve.llm import LLMConfig

    from serve.answer_server import AnswerServer

    config, kind = LLMConfig(model_loading_config={"model_id": "teacher"}), cast(Any, PlainEngine)
    server = AnswerServer.sync_init(config, engine_cls=kind)  # not started
    server.engine = cast(Any, engine)
    return server


def first(engine: PlainEngine) -> Any:
    async def ask() -> Any:
        async with aclosing(server_of(engine).answer(request)) as sent:
            return await anext(sent)

    request = object()
    sent = asyncio.run(ask())
    assert engine.asked == [request]
    return sent


def place(token: str, *candidates: str) -> dict[str, Any]:
    tops = [{"token": one, "logprob": -0.5 * number} for number, one in enumerate(candidates, 1)]
    return {"token": token, "logprob": -0.5, "top_logprobs": tops}


def test_an_answer_is_sent_as_a_reply() -> None:
    assert first(PlainEngine(response("A", PLACE))) == Reply("A", [("A", {"A": -0.1, "B": -2.0})], 7, 2)
    assert first(PlainEngine(response(None))) == Reply("", [], 7, 2)


def test_an_error_is_sent_as_it_is() -> None:
    error = failure("400")
    assert first(PlainEngine(error)) is error


def test_a_call_that_is_cancelled_ends_the_generation() -> None:
    async def wait() -> None:
        async with asyncio.timeout(0.2):
            async for _ in server_of(engine).answer(object()):
                raise AssertionError("nothing was generated")

    engine = PlainEngine()
    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    assert engine.ended == 1


@pytest.mark.parametrize(
    ("before", "letter", "candidates", "kept"),
    [
        (" (", "B", ["B", "A", "Bo", "mild"], ["B", "A"]),
        ("", " B", [" B", " A", "B", " The"], [" B", " A", "B"]),
        ("", " (B", [" (B", " (A", "(C", " ("], [" (B", " (A", "(C"]),
        (" ", "(B)", ["(B)", "(A)", "B)", "AD"], ["(B)", "(A)", "B)"]),
        (" (", "B)", ["B)", "A", "b", "."], ["B)", "A"]),
    ],
)
def test_what_is_kept_gives_the_same_probabilities(
    before: str, letter: str, candidates: list[str], kept: list[str]
) -> None:
    places = [
        place("Low", "Low", "A", "The"),
        place("\n", "\n", "."),
        place("Diagnosis:", "Diagnosis:"),
        place(before, before),
        place(letter, *candidates),
        place(" mild", " mild", ","),
    ]
    sent = first(PlainEngine(response("Low\nDiagnosis: (B", *places)))
    everything = [(one["token"], {top["token"]: top["logprob"] for top in one["top_logprobs"]}) for one in places]
    assert [token for token, _ in sent.tokens] == [token for token, _ in everything]
    assert [list(found) for _, found in sent.tokens] == [["A"], [], [], [], kept, []]
    expected = option_probabilities(everything, TASK)
    assert expected is not None and option_probabilities(sent.tokens, TASK) == expected


def test_it_is_small_to_send() -> None:
    places = [place(" word", *(f" word{number}" for number in range(5)))] * 150
    answer = response("word", *places)
    assert len(pickle.dumps(first(PlainEngine(answer)))) < len(pickle.dumps(answer)) / 20
