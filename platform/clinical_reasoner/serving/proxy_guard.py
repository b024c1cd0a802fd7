"""What Ray Serve may see of a request: ASGI middleware in front of its proxy, which logs ids, methods and models.

Ray calls `middlewares` in each process that listens for HTTP, also behind HAProxy, where the environment variable
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it. It sees a request before Ray does:

- `x-request-id` is kept where it is a UUID, else replaced by a UUID 4: a client's own may hold a patient's name. It is
  for following a request through logs and records, and two clients may give the same one.
- Headers with which a client steers or labels what Ray does are dropped.
- A method that HTTP does not know is refused, as it stands in the access log.
- Ray's own failures, which are plain text and may repeat the path, become problem details (RFC 9457).

Paths and query strings need nothing: Ray logs the pattern of the route that matched, or its prefix.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from http import HTTPMethod
from uuid import uuid4

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinical_reasoner.serving.schema import PROBLEM_MEDIA_TYPE, problem

REQUEST_ID_HEADER = "x-request-id"
SESSION_VARIABLE = "RAY_SERVE_SESSION_ID_HEADER_KEY"
"""Names the header that Ray takes for a session id."""
_OF_RAY = frozenset(
    {
        "serve_multiplexed_model_id",
        "x_session_id",
        # A client must not switch off the time limit, nor the cancelling of an answer that nobody waits for.
        "x_request_timeout_seconds",
        "x_request_disconnect_disabled",
        "traceparent",
        "tracestate",
        "baggage",
    }
)
"""With `_` for `-`, as Ray takes both."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Header = tuple[bytes, bytes]


def middlewares() -> list[Middleware]:
    """What Ray Serve asks for."""
    return [Middleware(ProxyGuard)]


def safe_request_id(given: str | None) -> str:
    """A client's request id in lower case where it is a UUID, else a new UUID 4."""
    return given.lower() if given is not None and _UUID.fullmatch(given) else str(uuid4())


class ProxyGuard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._dropped = _OF_RAY | {_plain(os.environ.get(SESSION_VARIABLE, "x-session-id"))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id, headers = _cleaned(scope["headers"], self._dropped)
        answer = _Answer(send, request_id)
        if scope.get("method", "GET") not in HTTPMethod.__members__:
            await answer.fail(405, [(b"allow", b"GET, POST")])
            return
        await self._app({**scope, "headers": headers}, receive, answer.pass_on)
        if scope["type"] == "http" and not answer.started:
            await answer.fail(500)  # Ray ends without a word where it failed itself


class _Answer:
    """One response on its way out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._held_back = False
        self.started = False

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_plain_failure(message):
            self._held_back = True
            kept = [(name.lower(), value) for name, value in message["headers"] if name.lower() in _KEPT]
            await self.fail(message["status"], kept)
        elif not self._held_back:
            self.started = True
            await self._send(message)

    async def fail(self, status: int, headers: Iterable[Header] = ()) -> None:
        self.started = True
        detail = _DETAILS.get(status, "the request was not answered")
        body = json.dumps(problem(status, detail).model_dump()).encode()
        own: dict[bytes, bytes] = {
            b"content-type": PROBLEM_MEDIA_TYPE.encode(),
            b"content-length": str(len(body)).encode(),
            b"x-request-id": self._request_id.encode(),
        }
        if status == 503:
            own[b"retry-after"] = b"1"
        sent = list({**own, **dict(headers)}.items())
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body})


_KEPT = frozenset({b"retry-after", b"allow"})
_DETAILS = {
    404: "see /docs for what this endpoint offers",
    405: "see /docs for what this endpoint offers",
    408: "no answer within the time limit",
    429: "too many requests",
    500: "the request failed; the log has the kind of error",
    503: "too many requests are in work, or the endpoint is starting",
}


def _cleaned(headers: Iterable[Header], dropped: Iterable[str]) -> tuple[str, list[Header]]:
    """The request id, and the headers without any that Ray would take as its own, with that id."""
    kept, ids = [], []
    for name, value in headers:
        plain = _plain(name.decode("latin-1"))
        if plain == _plain(REQUEST_ID_HEADER):
            ids.append(value.decode("latin-1"))
        elif plain not in dropped and name.isascii():  # Ray reads every name as UTF-8
            kept.append((name, value))
    request_id = safe_request_id(ids[0] if len(ids) == 1 else None)
    return request_id, [*kept, (REQUEST_ID_HEADER.encode(), request_id.encode())]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_plain_failure(start: Message) -> bool:
    kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return bool(start["status"] >= 400 and kinds and kinds[0].lower().startswith(b"text/plain"))
