"""How many requests a key may send: a token bucket for each."""

from __future__ import annotations

_ROUNDING = 1e-6
"""Requests; a wait that was kept to the end must be enough."""


class Rates:
    """Buckets that hold a minute's requests, full at first and filling evenly. Times: seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        """Key id -> (requests left, time of that)."""

    def allow(self, key_id: str, per_minute: int, now: float, cost: int = 1, paid: int = 0) -> float:
        """Take `cost` requests, of which `paid` have been taken before; seconds to wait if refused, 0 if allowed.

        More than a bucket holds needs a full one and is lent: what follows waits until that is paid back. The wait
        counts `paid` in again, as it will be taken again when the request comes back.
        """
        left, then = self._buckets.get(key_id, (float(per_minute), now))
        left = min(per_minute, left + (now - then) * per_minute / 60)
        needed = min(cost, per_minute)
        allowed = left + _ROUNDING >= needed - paid
        self._buckets[key_id] = (left - (cost - paid) if allowed else left, now)
        return 0.0 if allowed else (needed - left) * 60 / per_minute
