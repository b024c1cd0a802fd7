"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

from typing import Protocol

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serve.telemetry import Meters


class _Measured(Protocol):
    @property
    def meters(self) -> Meters: ...


def add_metrics_routes(api: FastAPI, desk: _Measured) -> None:
    """Open to whoever reaches the port, also where the other routes want a key: it tells counts and no patient."""

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(desk.meters.exposition(), media_type=CONTENT_TYPE_LATEST)
