"""Manifest of a finished stage: what it was made from, and the identity that decides whether it can be skipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python


class Manifest(BaseModel):
    """What a finished stage was made from, and how many rows went through it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    """Folder below the run folder."""
    identity: str
    """SHA-256 of stage, settings and inputs, hex."""
    settings: dict[str, Any]
    """Everything that changes the result, as in the config."""
    inputs: dict[str, str]
    """Identity of each stage that was read."""
    rows_in: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    rows_rejected: int = Field(ge=0)
    created: str
    """When the stage finished, UTC, ISO 8601."""
    version: str
    """Version of this package."""
    seconds: float = Field(ge=0)
    """Wall time of the stage, seconds."""
    details: dict[str, Any] = {}
    """Whatever else the stage reports; no part of the identity."""


def identity(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """SHA-256 (hex) of what decides a stage's result; the order of keys does not matter."""
    text = _canonical({"stage": stage, "settings": settings, "inputs": inputs})
    return hashlib.sha256(text.encode()).hexdigest()


def difference(found: Manifest, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """How a stage on disk differs from the one that is asked for, as the end of "was made ..."."""
    old, new = _leaves(found.settings), _leaves(to_jsonable_python(settings))
    changed = [
        f"{key}: {old.get(key, '(not set)')} -> {new.get(key, '(not set)')}"
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]
    names = sorted(found.inputs.keys() | inputs.keys())
    upstream = [repr(name) for name in names if found.inputs.get(name) != inputs.get(name)]
    parts = [f"with other settings ({', '.join(changed)})"] if changed else []
    parts += [f"from other inputs (changed upstream: {', '.join(upstream)})"] if upstream else []
    return " and ".join(parts) or "under another identity"


def _leaves(value: Any, key: str = "") -> dict[str, str]:
    """Dotted key and value, as JSON, of everything in nested settings."""
    if not isinstance(value, dict) or not value:
        return {key: _canonical(value)}
    parts = [_leaves(item, f"{key}.{name}" if key else name) for name, item in value.items()]
    return {place: text for part in parts for place, text in part.items()}


def _canonical(value: Any) -> str:
    return json.dumps(to_jsonable_python(value), sort_keys=True, separators=(",", ":"))
