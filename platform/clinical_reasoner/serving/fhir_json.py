"""JSON that a stranger sent, read with limits, and the error that says what is wrong with it and where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

from clinical_reasoner.serving.schema import FieldError, Problem, problem

DEEPEST = 32
"""Levels of objects and lists; a Bundle of what is read here has about 10."""
MOST_VALUES = 20_000
"""Objects, lists, texts and numbers together; 500 Observations have about 17,000, which take a second to check."""
_MOST_DIGITS = 18
"""Of a number without a point; FHIR's integers have 32 bits."""
_MOST_ERRORS = 50
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_WHOLE = "Bundle"


class BundleError(Exception):
    """A Bundle cannot be used. `problem.errors` has FHIRPath-like places, and repeats no value that was sent."""

    def __init__(self, status: int, errors: Iterable[FieldError]) -> None:
        super().__init__(status)
        listed = tuple(errors)[:_MOST_ERRORS]
        self.problem: Problem = problem(status, "the Bundle cannot be used", listed)


def parse_json(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises BundleError (400) where it is none, has NaN or numbers too large for a double, a key
    twice, half a character, more than DEEPEST levels, or more than MOST_VALUES values."""
    try:
        parsed = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_decimal,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise malformed(f"more than {DEEPEST} levels of nesting") from error
    except _UnusableError as error:
        raise malformed(str(error)) from error
    except ValueError as error:  # no UTF-8, or no JSON
        raise malformed("not valid JSON in UTF-8") from error
    if not isinstance(parsed, dict):
        raise malformed("should be a JSON object")
    _walk(parsed)
    return parsed


def malformed(message: str) -> BundleError:
    return BundleError(400, [FieldError(field=_WHOLE, message=message)])


class _UnusableError(ValueError):
    """Its message holds nothing of the content."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _UnusableError("an object has the same key twice")
    return found


def _no_number(_: str) -> float:
    raise _UnusableError("NaN and Infinity are no JSON")


def _decimal(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise _UnusableError("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise _UnusableError("a number is too large")
    return int(text)


def _walk(parsed: Any) -> None:
    """Without recursion, so that depth is a refusal and never an error of ours."""
    level: list[Any] = [parsed]
    values = 0
    for _ in range(DEEPEST):
        values += len(level)
        if values > MOST_VALUES:
            raise malformed(f"more than {MOST_VALUES} values")
        texts = [one for one in level if isinstance(one, str)]
        lower = [part for one in level if isinstance(one, list) for part in one]
        for one in level:
            if isinstance(one, dict):
                texts.extend(one)
                lower.extend(one.values())
        if any(_HALF_CHARACTER.search(text) for text in texts):
            raise malformed("a text has half a character (a lone surrogate)")
        if not lower:
            return
        level = lower
    raise malformed(f"more than {DEEPEST} levels of nesting")
