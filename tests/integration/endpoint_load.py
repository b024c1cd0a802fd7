"""Many clients at a time against the running endpoint, and what came of each request."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

PAUSE_S = 0.2
"""A client that was refused comes back sooner than `Retry-After` asks."""
LONGEST_S = 60


@dataclass(frozen=True)
class Outcome:
    """One request."""

    place: int
    """Of its body in the list."""
    model: str
    """Asked for."""
    status: int
    """0 where the connection broke."""
    started: float
    """Seconds, `time.monotonic`."""
    seconds: float
    answer: dict[str, Any]
    """Body of the response."""
    retry_after: str | None
    text: str


@dataclass
class Load:
    """Clients that ask one after the other until they are told to stop."""

    url: str
    headers: dict[str, str]
    bodies: Sequence[dict[str, Any]]
    clients: int
    outcomes: list[Outcome] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def statuses(self) -> Counter[int]:
        return Counter(outcome.status for outcome in self.outcomes)

    def good(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == 200]

    async def _run(self) -> None:
        turn = itertools.count()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, limits=limits, timeout=LONGEST_S) as one:
            await asyncio.gather(*(self._ask(one, turn) for _ in range(self.clients)))

    async def _ask(self, client: httpx.AsyncClient, turn: Iterator[int]) -> None:
        while not self._over.is_set():
            place = next(turn) % len(self.bodies)
            body, started = self.bodies[place], time.monotonic()
            try:
                response = await client.post("/v1/diagnose", json=body)
                status, text, wait = response.status_code, response.text, response.headers.get("retry-after")
                answer = response.json() if status == 200 else {}
            except httpx.TransportError as error:
                status, text, wait, answer = 0, type(error).__name__, None, {}
            seconds = time.monotonic() - started
            self.outcomes.append(Outcome(place, body["model"], status, started, seconds, answer, wait, text))
            if status != 200:
                await asyncio.sleep(PAUSE_S)


@contextmanager
def load(url: str, headers: dict[str, str], bodies: Sequence[dict[str, Any]], clients: int) -> Iterator[Load]:
    """Around what is to be seen under load; every request has ended when it is left."""
    running = Load(url, headers, bodies, clients)
    thread = threading.Thread(target=lambda: asyncio.run(running._run()))
    thread.start()
    try:
        yield running
    finally:
        running._over.set()
        thread.join()


def percentile(values: Sequence[float], share: float) -> float:
    """Of at least one value."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def sampled(measure: Callable[[], list[float]], seconds: float, every_s: float = 1.0) -> list[list[float]]:
    """Measures over some time."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(measure())
        time.sleep(every_s)
    return found
