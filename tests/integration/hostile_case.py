"""One hostile input, how it is sent, and what came back."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.integration.endpoint_run import Endpoint

JSON = "application/json"
LIMIT_S = 45.0
SILENCE_S = 10.0
"""Longest time without a byte on a socket that is written to as it stands."""
END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Hostile:
    family: str
    name: str
    content: bytes = b""
    path: str = "/v1/diagnose"
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": JSON})
    raw: bytes | None = None
    """A whole request, written to the socket as it stands; `KEY` in it becomes the API key."""


@dataclass(frozen=True)
class Answer:
    status: int
    """0 where the connection ended without one."""
    kind: str
    """Its content-type."""
    text: str


def diagnose(family: str, name: str, body: Any) -> Hostile:
    return Hostile(family, name, json.dumps(body).encode())


def send(endpoint: Endpoint, case: Hostile) -> Answer:
    if case.raw is not None:
        return _written(endpoint, case.raw.replace(b"KEY", endpoint.tokens["suite"].encode()))
    headers = {**endpoint.headers(), **case.headers}
    response = httpx.post(f"{endpoint.url}{case.path}", content=case.content, headers=headers, timeout=LIMIT_S)
    return Answer(response.status_code, response.headers.get("content-type", ""), response.text)


def _written(endpoint: Endpoint, request: bytes) -> Answer:
    """The connection stays open on this side: a server drops what it was about to say to one that hung up. Where it
    refuses before it has read all, the rest cannot be sent, and its answer is there all the same."""
    received = bytearray()
    with socket.create_connection(endpoint.host, timeout=SILENCE_S) as connection:
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(request)
        with suppress(ConnectionError, TimeoutError):
            while not _is_whole(bytes(received)) and (piece := connection.recv(65536)):
                received += piece
    head, _, body = bytes(received).partition(END_OF_HEAD)
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
    return Answer(status, _field(lines, "content-type"), body.decode("utf-8", "replace"))


def _is_whole(received: bytes) -> bool:
    """Whether the body has its stated length; one without ends with the connection."""
    head, end, body = received.partition(END_OF_HEAD)
    length = _field(head.decode("latin-1").split("\r\n"), "content-length")
    return bool(end) and bool(length) and len(body) >= int(length)


def _field(lines: list[str], name: str) -> str:
    """Value of a field of the head; empty where it is missing."""
    return next((line.partition(":")[2].strip() for line in lines if line.lower().startswith(f"{name}:")), "")


def reason(answer: Answer) -> str:
    """Why it was refused, in the form of the route: problem details, FHIR's OperationOutcome, or OpenAI's error; what
    is no HTTP at all is refused by the HTTP server, in plain text. Empty where there is none."""
    if answer.kind.startswith("text/plain"):
        return answer.text if answer.status == 400 and "Invalid HTTP request" in answer.text else ""
    try:
        body = json.loads(answer.text)
    except json.JSONDecodeError:
        return ""
    if answer.kind == "application/problem+json":
        return str(body["detail"]) if body["status"] == answer.status else ""
    if body.get("resourceType") == "OperationOutcome":
        return str(body["issue"][0]["diagnostics"])
    error = body.get("error")
    return str(error["message"]) if isinstance(error, dict) else ""
