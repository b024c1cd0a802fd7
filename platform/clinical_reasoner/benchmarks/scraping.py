"""What the engines of a run say about their prefix cache on Ray's Prometheus endpoint."""

from __future__ import annotations

import re
import threading
from types import TracebackType
from typing import Any

import httpx

_LOOK_S = 8.0
_SAMPLE = re.compile(r"^ray_vllm[:_]prefix_cache_(queries|hits)(?:_total)?\{[^}]*\} (\S+)$", re.MULTILINE)


class PrefixCache:
    """Context manager. Looks again and again while the engines live: their counters go with them."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._counts: dict[str, float] = {}

    def __enter__(self) -> PrefixCache:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()

    def hit_rate(self) -> float | None:
        """Tokens of prompts that were in the cache, of all that were looked for; None without a sample."""
        looked_for = self._counts.get("queries", 0.0)
        return round(self._counts.get("hits", 0.0) / looked_for, 3) if looked_for else None

    def _watch(self) -> None:
        import ray

        nodes: Any = ray.nodes  # has no types
        while not self._ended.wait(_LOOK_S):
            for node in nodes():
                self._read(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")

    def _read(self, address: str) -> None:
        try:
            text = httpx.get(address, timeout=_LOOK_S, trust_env=False).text
        except httpx.HTTPError:
            return  # the next look may find it
        for name, value in _SAMPLE.findall(text):
            self._counts[name] = max(self._counts.get(name, 0.0), float(value))
