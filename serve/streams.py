"""A response that is sent while it is made, and whose making ends when the client does not listen any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Protocol

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

SSE_MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Nobody on the way keeps or gathers what is sent."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class ClosingStream(StreamingResponse):
    """`made` is what `content` is sent from; closed in every case, which ends its generation in the engine."""

    def __init__(
        self,
        content: AsyncIterator[str],
        made: _Closable,
        media_type: str,
        headers: Mapping[str, str] = HEADERS,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._made = made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._made):
            await super().__call__(scope, receive, send)
