"""Limits of a JSON schema that an answer is to keep to: an engine compiles it, and a crafted one could occupy it."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

MAX_NODES = 500
MAX_DEPTH = 16
MAX_COUNT = 256
"""Largest value of a keyword that counts items, characters or properties."""
MAX_TEXT = 256
"""Longest key or text in it, characters."""
_REFUSED = frozenset(("pattern", "patternProperties", "not", "if", "then", "else", "dependentSchemas"))
_COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_NAMES = frozenset(("properties", "$defs", "definitions"))
"""Keywords under which keys are names, not keywords."""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises PydanticCustomError for a schema that is too large, refers elsewhere, or uses a refused keyword."""
    nodes = 0
    waiting: list[tuple[Any, int, bool]] = [(schema, 0, False)]
    while waiting:
        value, depth, names = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _fault(f"the schema is too large: at most {MAX_NODES} values, {MAX_DEPTH} deep")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise _fault(f"a text in the schema is longer than {MAX_TEXT} characters")
        if isinstance(value, list):
            waiting += [(one, depth + 1, False) for one in value]
        if isinstance(value, dict):
            for key, one in value.items():
                if len(key) > MAX_TEXT:
                    raise _fault(f"a key in the schema is longer than {MAX_TEXT} characters")
                if not names:
                    _check_keyword(key, one)
                waiting.append((one, depth + 1, key in _NAMES and not names))


def _check_keyword(key: str, value: Any) -> None:
    if key in _REFUSED:
        raise _fault(f"`{key}` is not supported in a schema")
    if key == "$ref" and not (isinstance(value, str) and value.startswith("#/")):
        raise _fault("a `$ref` should begin with #/")
    if key in _COUNTS and not (type(value) is int and 0 <= value <= MAX_COUNT):
        raise _fault(f"`{key}` should be a whole number from 0 to {MAX_COUNT}")


def _fault(message: str) -> PydanticCustomError:
    return PydanticCustomError("json_schema", message)
