"""The middleware over a small ASGI app that stands for Ray's proxy: it answers with what it saw."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from clinical_reasoner.cluster import QUIET
from clinical_reasoner.serving.proxy_guard import ProxyGuard, middlewares, safe_request_id
from clinical_reasoner.serving.schema import PROBLEM_MEDIA_TYPE

CANARY = "Zebulon"
KNOWN = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"


def says(status: int, body: bytes, content_type: str, *more: tuple[bytes, bytes]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [[b"Content-Type", content_type.encode()], *[list(one) for one in more]]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    seen = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    body = json.dumps({"headers": seen, "method": scope["method"], "path": scope["path"]}).encode()
    await says(200, body, "application/json")(scope, receive, send)


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


def call(
    app: ASGIApp, method: str = "POST", path: str = "/v1/x", headers: list[tuple[str, str]] | None = None
) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ProxyGuard(app)), base_url="http://x") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def seen_by_ray(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [tuple(one) for one in call(echo, headers=headers).json()["headers"]]


def is_uuid4(text: str) -> bool:
    return str(UUID(text)) == text and UUID(text).version == 4


@pytest.mark.parametrize(
    "given",
    [
        [],
        [CANARY],
        [""],
        [f"{KNOWN} {CANARY}"],
        [f"{KNOWN}{CANARY}"],
        [KNOWN.replace("-", "")],
        [f"{{{KNOWN}}}"],
        [KNOWN, CANARY],
        [KNOWN, KNOWN],
        ["x" * 100_000],
        ["é"],
    ],
)
@pytest.mark.parametrize("name", ["x-request-id", "X-Request-ID", "x_request_id"])
def test_ray_sees_exactly_one_request_id_and_it_is_a_uuid(given: list[str], name: str) -> None:
    headers: Any = [(name.encode(), value.encode("latin-1")) for value in given]
    ids = [value for key, value in seen_by_ray(headers) if "request" in key]
    assert len(ids) == 1
    assert is_uuid4(ids[0])
    assert ids[0] not in given


@pytest.mark.parametrize("given", [KNOWN, KNOWN.upper(), "00000000-0000-1000-8000-000000000000"])
def test_a_clients_uuid_is_kept(given: str) -> None:
    assert ("x-request-id", given.lower()) in seen_by_ray([("x-request-id", given)])


def test_no_two_requests_get_the_same_id() -> None:
    assert len({safe_request_id(None) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "name",
    [
        "serve_multiplexed_model_id",
        "Serve-Multiplexed-Model-Id",
        "x-session-id",
        "X_Session_ID",
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "traceparent",
        "tracestate",
        "baggage",
    ],
)
def test_headers_that_steer_ray_are_dropped(name: str) -> None:
    seen = seen_by_ray([(name, CANARY), ("authorization", "Bearer x"), ("content-type", "application/json")])
    assert CANARY not in str(seen)
    assert ("authorization", "Bearer x") in seen
    assert ("content-type", "application/json") in seen


def test_session_header_of_another_name_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_SESSION_ID_HEADER_KEY", "X-Affinity")
    assert CANARY not in str(seen_by_ray([("x_affinity", CANARY)]))


def test_method_that_http_does_not_know_never_reaches_ray() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it was passed on")

    response = call(fails, method=CANARY)
    assert response.status_code == 405
    assert response.headers["allow"]
    assert CANARY.lower() not in (response.text + str(response.headers)).lower()
    assert call(echo, method="DELETE").json()["method"] == "DELETE"


@pytest.mark.parametrize(
    ("status", "retry_after"), [(404, None), (408, None), (429, "4"), (503, "4"), (418, None), (499, None)]
)
def test_rays_own_failures_become_problems_without_the_path(status: int, retry_after: str | None) -> None:
    more = [(b"Retry-After", retry_after.encode())] if retry_after else []
    response = call(
        says(status, f"Path '/v1/{CANARY}' not found.".encode(), "text/plain; charset=utf-8", *more),
        headers=[("x-request-id", KNOWN)],
    )
    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert response.headers.get("retry-after") == retry_after
    assert response.headers["x-request-id"] == KNOWN
    assert int(response.headers["content-length"]) == len(response.content)
    assert set(response.json()) == {"type", "title", "status", "detail", "errors"}
    assert response.json()["status"] == status
    assert CANARY not in response.text


def test_503_always_says_when_to_come_back() -> None:
    assert call(says(503, b"", "text/plain")).headers["retry-after"] == "1"


def test_silence_of_ray_becomes_a_problem() -> None:
    response = call(silent)
    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM_MEDIA_TYPE)


@pytest.mark.parametrize(
    ("status", "content_type"),
    [(200, "text/plain"), (200, "text/event-stream"), (422, PROBLEM_MEDIA_TYPE), (404, "application/json")],
)
def test_answers_of_the_endpoint_pass_unchanged(status: int, content_type: str) -> None:
    response = call(says(status, b"just as it is", content_type))
    assert (response.status_code, response.content) == (status, b"just as it is")
    assert response.headers["content-type"] == content_type


def test_what_is_no_request_passes() -> None:
    passed = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("it was called")

    asyncio.run(ProxyGuard(app)({"type": "lifespan"}, nothing, nothing))
    assert passed == ["lifespan"]


def test_ray_is_told_where_the_middleware_is() -> None:
    module, _, function = QUIET["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert (module, function) == (middlewares.__module__, middlewares.__name__)
    given: list[Any] = middlewares()
    assert [one.cls for one in given] == [ProxyGuard]


_AS_RAY_WRAPS_IT = """
import asyncio
from ray.serve._private.http_util import _apply_middlewares, configure_http_middlewares
from ray.serve.config import HTTPOptions

async def proxy(scope, receive, send):
    print("seen", [value.decode() for name, value in scope["headers"] if name == b"x-request-id"])
    await send({"type": "http.response.start", "status": 200, "headers": []})

async def send(message):
    print("sent", [value.decode() for name, value in message["headers"] if name.lower() == b"x-request-id"])

headers = [(b"x-request-id", b"Zebulon")]
app = _apply_middlewares(proxy, configure_http_middlewares(HTTPOptions()).middlewares)
asyncio.run(app({"type": "http", "method": "GET", "path": "/", "headers": headers}, None, send))
"""


def test_ray_puts_it_in_front_of_its_own_middleware() -> None:
    environment = {**QUIET, "PYTHONPATH": "platform"}
    done = subprocess.run(
        [sys.executable, "-c", _AS_RAY_WRAPS_IT], env=environment, capture_output=True, text=True, check=True
    )
    seen, sent = done.stdout.strip().splitlines()
    assert is_uuid4(seen.removeprefix("seen ['").removesuffix("']"))
    assert sent == seen.replace("seen", "sent")
    assert CANARY not in done.stdout + done.stderr
