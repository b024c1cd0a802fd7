"""A teacher behind an endpoint, over real HTTP: what is sent, what comes back, and what is said when it fails."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pytest

from clinical_reasoner.config.teacher import EndpointConfig, EngineConfig, SamplingConfig
from clinical_reasoner.llm.endpoint import EndpointAsker, check_endpoint, read_completion
from clinical_reasoner.llm.generation import FAILURE, PLACE, TOO_LONG, Generation, Model, Row, Steps
from clinical_reasoner.records import Ask
from clinical_reasoner.storage import RunError

CANARY = "Zebulon"
GOOD: dict[str, Any] = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "teacher",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Diagnosis: (A)"},
            "logprobs": {
                "content": [
                    {"token": " (", "logprob": 0.0, "bytes": None, "top_logprobs": []},
                    {
                        "token": "A",
                        "logprob": -0.1,
                        "bytes": None,
                        "top_logprobs": [
                            {"token": "A", "logprob": -0.1, "bytes": None},
                            {"token": "B", "logprob": -2.4, "bytes": None},
                        ],
                    },
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}


@dataclass
class Server:
    """What the server answers, in turn (the last one again and again), and what it was asked."""

    answers: list[tuple[int, Any]]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models: tuple[int, Any] = (
        200,
        {"object": "list", "data": [{"id": "teacher", "object": "model", "created": 0, "owned_by": "x"}]},
    )


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server([(200, GOOD)])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*state.models)

        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            state.times.append(time.monotonic())
            status, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            if status == 0:
                time.sleep(float(body))
                return
            self._send(status, body)

        def _send(self, status: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "0.05")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()


def model(server: Server, **endpoint: Any) -> Model:
    settings = EndpointConfig(**{"max_retries": 2, "timeout_s": 5.0} | endpoint)
    engine = EngineConfig(chat_template_kwargs={"enable_thinking": False})
    return Model("teacher", engine, SamplingConfig(seed=3, max_tokens=50), 5, server.url, settings)


def finish(row: Row, generation: Generation) -> Row:
    return {"row_id": row["row_id"], "generation": repr(generation), "text": generation.text}


def ask(one: Model, rows: int = 1, ask: Ask = "direct") -> list[dict[str, Any]]:
    steps = Steps(one, lambda row: [{"role": "user", "content": f"{CANARY} {row['row_id']}"}], finish, COLUMNS)
    asks = {"row_id": [f"r{n}" for n in range(rows)], "seed": [9] * rows, "ask": [ask] * rows, PLACE: range(rows)}
    found: list[dict[str, Any]] = EndpointAsker(steps)(pa.table(asks)).to_pylist()
    return found


COLUMNS = ("row_id", "generation", "text")


def test_an_answer_with_its_candidates(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-1")
    check_endpoint(model(server))
    (row,) = ask(model(server))
    generation = Generation("Diagnosis: (A)", [(" (", {}), ("A", {"A": -0.1, "B": -2.4})], 7, 5, None)
    assert (row["row_id"], row[FAILURE], row["generation"]) == ("r0", None, repr(generation))
    (asked,) = server.asked
    assert asked["messages"] == [{"role": "user", "content": f"{CANARY} r0"}]
    assert (asked["seed"], asked["max_tokens"], asked["logprobs"], asked["top_logprobs"]) == (9, 50, True, 5)
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.headers[0]["authorization"] == "Bearer key-1"


def test_rows_stay_in_their_order_and_keep_the_rate(server: Server) -> None:
    rows = ask(model(server, requests_per_minute=600), rows=6)
    assert [row["row_id"] for row in rows] == [f"r{n}" for n in range(6)]
    assert max(server.times) - min(server.times) > 0.4  # five pauses of a tenth of a second
    assert "logprobs" not in ask_plainly(server)


def ask_plainly(server: Server) -> dict[str, Any]:
    server.asked.clear()
    ask(model(server, logprobs=False))
    return server.asked[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_tries_again(server: Server, status: int) -> None:
    server.answers = [(status, {"error": {"message": CANARY}}), (200, GOOD)]
    (row,) = ask(model(server))
    assert row[FAILURE] is None and len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ((429, {"error": {"message": CANARY}}), "RateLimitError 429"),
        ((503, {"error": {"message": CANARY}}), "InternalServerError 503"),
        ((400, {"error": {"message": f"no such parameter: {CANARY}"}}), "BadRequestError 400"),
        ((400, {"error": {"message": f"This model's maximum context length is 9 tokens: {CANARY}"}}), TOO_LONG),
        ((401, {"error": {"message": CANARY}}), "AuthenticationError 401"),
        ((0, 3), "APITimeoutError"),
        ((200, b"{no json"), "InvalidReply"),
        ((200, {"choices": []}), "InvalidReply"),
    ],
)
def test_a_failure_is_a_row_and_says_its_kind_alone(server: Server, answer: tuple[int, Any], failure: str) -> None:
    server.answers = [answer]
    (row,) = ask(model(server, max_retries=1, timeout_s=0.5))
    assert row[FAILURE] == failure and row["text"] == ""
    assert CANARY not in str(row)


def test_candidates_are_asked_for_where_the_answer_holds_a_diagnosis(server: Server) -> None:
    ask(model(server), ask="rationalize")
    ask(model(server), ask="diagnose")
    assert ["top_logprobs" in asked for asked in server.asked] == [False, True]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_that_the_server_keeps_apart_stands_before_the_text(server: Server, name: str) -> None:
    (choice,) = copy.deepcopy(GOOD)["choices"]
    choice["message"][name] = "Hm."
    server.answers = [(200, GOOD | {"choices": [choice]})]
    (row,) = ask(model(server))
    assert row["text"] == "<think>Hm.</think>Diagnosis: (A)"


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        (None, "length", "<think>Hm."),
        ("", "length", "<think>Hm."),
        ("Diag", "length", "<think>Hm.</think>Diag"),
        (None, "stop", "<think>Hm.</think>"),
    ],
    ids=["within the thinking", "with an empty text", "within the text", "by itself"],
)
def test_thinking_that_was_cut_has_no_end(content: str | None, reason: str, text: str) -> None:
    message = {"role": "assistant", "content": content, "reasoning_content": "Hm."}
    generation = read_completion({"choices": [{"message": message, "finish_reason": reason}]})
    assert (generation.text, generation.cut) == (text, reason == "length")


def test_an_empty_answer_is_no_failure(server: Server) -> None:
    (choice,) = copy.deepcopy(GOOD)["choices"]
    choice |= {"message": {"role": "assistant", "content": None}, "logprobs": None}
    server.answers = [(200, GOOD | {"choices": [choice]})]
    (row,) = ask(model(server))
    assert row[FAILURE] is None and row["text"] == ""


def test_what_cannot_be_asked_is_said_before(server: Server) -> None:
    other = Model("gpt-9", EngineConfig(), SamplingConfig(), 5, server.url, EndpointConfig(timeout_s=2))
    with pytest.raises(RunError, match=r"teacher\.model 'gpt-9' is not served at .*; it has teacher"):
        check_endpoint(other)
    server.models = (401, {"error": {"message": "no"}})
    with pytest.raises(RunError, match="refuses the key in OPENAI_API_KEY"):
        check_endpoint(model(server))
    server.models = (404, {"error": {"message": "no such route"}})
    check_endpoint(model(server))
    nobody = Model("teacher", EngineConfig(), SamplingConfig(), 5, "http://127.0.0.1:9/v1", EndpointConfig(timeout_s=2))
    with pytest.raises(RunError, match=r"no answer from http://127\.0\.0\.1:9/v1 \(APIConnectionError\)"):
        check_endpoint(nobody)
