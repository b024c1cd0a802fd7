"""Who may ask what, and how often: API keys at the door. Knows no Ray."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.serving.keys import ALL_MODELS, Key, Keyring
from clinical_reasoner.serving.rates import Rates
from serve.problems import Refused, refuse

ANONYMOUS = "anonymous"
"""Key id where the endpoint has no keys."""
FAILURES_PER_MINUTE = 60
"""Answered 401 by this process; more are answered 429. Keys that are good are not held up."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HOW = "Made by jobs/create_api_key.py."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_HOW)
_API_KEY = APIKeyHeader(name="x-api-key", auto_error=False, scheme_name="apiKey", description=_HOW)


@dataclass(frozen=True)
class Caller:
    """Whose request it is."""

    key_id: str
    """For audit records."""
    models: frozenset[str]
    """Values of `model` that this caller may send."""


class Door:
    """Lets callers in. `enter` is the dependency of every route that asks a model."""

    def __init__(
        self,
        limits: ServingConfig,
        keyring: Keyring | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Without a keyring everybody is let in, and no rate holds. `clock` counts seconds, `now` is the date."""
        if limits.api_keys is not None and keyring is None:
            raise ValueError("serving.api_keys names a file, but no keyring was given")
        self._keyring = keyring
        self._clock, self._now = clock, now
        self._rates, self._failures = Rates(), Rates()

    @property
    def enter(self) -> Callable[..., Any]:
        """FastAPI dependency that gives the Caller, or raises Refused with 401 or 429; documented where keys count."""
        return self._enter_open if self._keyring is None else self._enter_with_key

    @property
    def keyring(self) -> Keyring | None:
        """The keys in use."""
        return self._keyring

    def replace(self, keyring: Keyring) -> None:
        """New keys hold from the next request on; what keys have spent stays spent. Not for a door without keys."""
        if self._keyring is None:
            raise ValueError("this endpoint was started without serving.api_keys")
        self._keyring = keyring

    def charge(self, caller: Caller, cost: int) -> None:
        """For a batch of `cost` patients, of which `enter` took the first. Raises Refused with 429.

        More than the rate of a minute waits for a full minute, and then holds up what follows.
        """
        if self._keyring is None:
            return
        key = self._keyring.with_id(caller.key_id)
        if key is None:
            raise self._unknown()
        self._take(key, cost, paid=1)

    @staticmethod
    def require_model(caller: Caller, model: str) -> None:
        """Raises Refused with 403 where the key has no right to `model`, as it stands in the request."""
        if model not in caller.models:
            allowed = ", ".join(name for name in ALL_MODELS if name in caller.models)
            raise refuse(403, f"this API key may ask for these models: {allowed}")

    async def _enter_open(self) -> Caller:
        return Caller(ANONYMOUS, frozenset(ALL_MODELS))

    async def _enter_with_key(
        self, request: Request, _bearer: Annotated[Any, Security(_BEARER)], _key: Annotated[Any, Security(_API_KEY)]
    ) -> Caller:
        assert self._keyring is not None
        token = _token(request)
        key = self._keyring.find(token, self._now()) if token else None
        if key is None:
            raise self._unknown(given=token is not None)
        self._take(key)
        return Caller(key.id, frozenset(key.models))

    def _take(self, key: Key, cost: int = 1, paid: int = 0) -> None:
        wait_s = self._rates.allow(key.id, key.requests_per_minute, self._clock(), cost, paid)
        if wait_s > 0:
            raise _too_many(f"this API key has {key.requests_per_minute} requests per minute", wait_s)

    def _unknown(self, *, given: bool = True) -> Refused:
        wait_s = self._failures.allow("", FAILURES_PER_MINUTE, self._clock())
        if wait_s > 0:
            return _too_many("too many requests without a valid API key", wait_s)
        challenge = 'Bearer error="invalid_token"' if given else "Bearer"
        detail = "the API key is unknown or has expired" if given else "give one API key: Authorization: Bearer KEY"
        return refuse(401, detail, headers={"www-authenticate": challenge})


def _token(request: Request) -> str | None:
    """What stands in the one header that names a key; None where there is none, or several, or no token in it."""
    bearer, plain = request.headers.getlist("authorization"), request.headers.getlist("x-api-key")
    if len(bearer) + len(plain) != 1:
        return None
    scheme, _, token = bearer[0].partition(" ") if bearer else ("bearer", "", plain[0])
    return token if scheme.lower() == "bearer" and _TOKEN.fullmatch(token) else None


def _too_many(detail: str, wait_s: float) -> Refused:
    return refuse(429, detail, retry_after_s=ceil(wait_s))
