"""What Schemathesis has to be told of this endpoint: how a body of JSON Lines is sent."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A generated text as it is; of a list, each element as a line; anything else as one line."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
