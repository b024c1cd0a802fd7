"""API keys: the file of their hashes, and finding the key that a token belongs to.

    keys:
      - {id: hospital-1, sha256: "64 hexadecimal digits", models: [auto, student], requests_per_minute: 60}

One SHA-256 is enough here, without salt or a slow hash: a token is 256 random bits, so there is no dictionary to try.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.serving.schema import ModelChoice
from clinical_reasoner.storage import read_file

ALL_MODELS: tuple[ModelChoice, ...] = get_args(ModelChoice)
TOKEN_PREFIX = "cr_"  # so that scanners for secrets can know one
_TOKEN_BYTES = 32


class KeyFileError(UserError):
    """The file of API keys cannot be used; the message names the file and the field, and repeats no value."""


class Key(StrictConfig):
    """One key: whom it belongs to and what it may do."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name in audit records and in no answer; not secret."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the token."""
    models: tuple[ModelChoice, ...] = Field(default=ALL_MODELS, min_length=1)
    """Values of `model` that a request may have. `auto` may ask both models."""
    requests_per_minute: int = Field(default=120, ge=1)
    """A patient of a batch counts as one request."""
    expires: date | None = None
    """First day on which it is refused, UTC; None: never."""

    def is_expired(self, now: datetime) -> bool:
        """`now` has a time zone."""
        return self.expires is not None and now.astimezone(UTC).date() >= self.expires


class KeyFile(StrictConfig):
    """The whole file."""

    keys: tuple[Key, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> KeyFile:
        for field in ("id", "sha256"):
            if max(Counter(getattr(key, field) for key in self.keys).values()) > 1:
                raise ValueError(f"two keys have the same {field}")
        return self


@dataclass(frozen=True)
class Keyring:
    """The keys that are known now."""

    keys: tuple[Key, ...]

    def find(self, token: str, now: datetime) -> Key | None:
        """The key of a token, unless it has expired; takes as long for the last key as for the first or for none."""
        digest = digest_of(token)
        found = None
        for key in self.keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key  # goes on: the time must not tell which key it was
        return None if found is None or found.is_expired(now) else found

    def with_id(self, key_id: str) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)


def new_token() -> str:
    """256 random bits, to be shown once and never stored."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """SHA-256 as hexadecimal digits, as the file holds it."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def read_keyring(path: str) -> Keyring:
    """Raises UserError where there is no file at `path` or it is no file of keys."""
    return Keyring(parse_keys(read_file(path), path).keys)


def parse_keys(content: bytes, place: str) -> KeyFile:
    """The content of a file, YAML or JSON. Raises KeyFileError; `place` is its path."""
    try:
        loaded = json.dumps(yaml.safe_load(content.decode("utf-8")), default=str)
    except (ValueError, TypeError, yaml.YAMLError) as error:  # a date that is none, a list within itself
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise KeyFileError(f"{place}{line}: not readable as YAML or JSON") from error
    try:
        # Strict rules of JSON, as for configs: a list fills a tuple and a text a date, nothing else changes its type.
        return KeyFile.model_validate_json(loaded, strict=True)
    except ValidationError as error:
        errors = error.errors(include_input=False)
        # Pydantic also says of a list of bad items alone that it is too short.
        shown = [one for one in errors if one["type"] != "too_short"] or errors
        raise KeyFileError("\n".join(f"{place}: {_place(one['loc'])}: {one['msg']}" for one in shown)) from error


def _place(parts: tuple[Any, ...]) -> str:
    known = set(Key.model_fields) | set(KeyFile.model_fields)
    # The name of an unknown field may be a token in the wrong place.
    return ".".join(str(part) if isinstance(part, int) or part in known else "(unknown field)" for part in parts) or (
        "write `keys:` and a list of them"
    )
