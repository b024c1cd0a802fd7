"""Whether the endpoint lives (`/healthz`) and can answer (`/readyz`)."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI

from clinical_reasoner import __version__
from serve.desk import Desk
from serve.problems import problem_docs, refuse


def add_health_routes(api: FastAPI, desk: Desk) -> None:
    async def stopped() -> list[str]:
        running = await asyncio.gather(*(engine.is_running() for engine in desk.engines.values()))
        return [name for name, runs in zip(desk.engines, running, strict=True) if not runs]

    @api.get("/healthz", response_model=dict[str, str | None], responses=problem_docs(503))
    async def healthz() -> Any:
        """200 while at least one engine runs, however busy: `degraded` where one of them does not."""
        missing = await stopped()
        if len(missing) == len(desk.engines):
            raise refuse(503, f"not running: {', '.join(missing)}")
        engines = {name: "stopped" if name in missing else "ok" for name in desk.engines}
        point = desk.panel.operating_point
        return {
            "status": "degraded" if missing else "ok",
            **engines,
            "version": __version__,
            "operating_point": point.version if point else None,
        }

    @api.get("/readyz", response_model=dict[str, str], responses=problem_docs(503))
    async def readyz() -> Any:
        """200 once the engines are warm, while a patient would get an answer."""
        if not desk.warm:
            raise refuse(503, "warming up", retry_after_s=5)
        missing = await stopped()
        if len(missing) == len(desk.engines):
            raise refuse(503, f"not running: {', '.join(missing)}")
        if desk.places.locked():
            raise refuse(503, "too many requests are in work", retry_after_s=1)
        return {"status": "ready"}
