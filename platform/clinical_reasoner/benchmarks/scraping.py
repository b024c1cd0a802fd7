"""What the engines of a run say about their prefix cache on Ray's Prometheus endpoint."""

from __future__ import annotations

import re
from typing import Any

import httpx

_TIMEOUT_S = 5.0
_SAMPLE = re.compile(r"^ray_vllm[:_]prefix_cache_(queries|hits)(?:_total)?\{([^}]*)\} (\S+)$", re.MULTILINE)


class PrefixCache:
    """To be looked at again and again while the engines live: their counters go with them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], float] = {}
        """By kind and the labels of an engine."""

    def hit_rate(self) -> float | None:
        """Tokens of prompts that were in the cache, of all that were looked for; None without a sample."""
        hits, looked_for = (
            sum(count for (kind, _), count in self._counts.items() if kind == wanted) for wanted in ("hits", "queries")
        )
        return round(hits / looked_for, 3) if looked_for else None

    def look(self) -> None:
        """Take what the engines say now into account."""
        import ray

        nodes: Any = ray.nodes  # has no types
        for node in nodes():
            self.read(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")

    def read(self, address: str) -> None:
        """Take what stands at this address into account; nothing, where none answers."""
        try:
            text = httpx.get(address, timeout=_TIMEOUT_S, trust_env=False).text
        except httpx.HTTPError:
            return  # the next look may find it
        for kind, labels, value in _SAMPLE.findall(text):
            self._counts[kind, labels] = max(self._counts.get((kind, labels), 0.0), float(value))
