"""What an engine under Ray Serve sends, read: replies, whole responses, server-sent chunks in lists, and errors."""

from __future__ import annotations

import json
from typing import Any

from clinical_reasoner.llm.answers import may_be_option
from clinical_reasoner.serving.panel import Reply

Piece = list[Any]
"""Chunks of OpenAI's form that arrived together, one whole response, or one whole Reply."""
_DATA = "data:"
_DONE = "[DONE]"


def items_of(sent: Any) -> tuple[Piece, bool, int | None]:
    """The objects in what was sent, whether the answer ends with it, and the engine's status where it is an error.

    Ray Serve LLM yields a response, an error, or with `stream` lists of server-sent events and errors; AnswerServer a
    Reply.
    """
    if isinstance(sent, Reply):
        return [sent], True, None
    items: Piece = []
    for one in [] if sent is None else sent if isinstance(sent, list) else [sent]:
        for item in _events(one) if isinstance(one, str) else [one]:
            if item == _DONE:
                return items, True, None
            content = item if isinstance(item, dict) else item.model_dump()
            if content.get("error"):
                return items, True, int(content["error"].get("code") or 500)
            items.append(content)
    return items, False, None


def _events(text: str) -> list[Any]:
    """Objects of the events in a text, `[DONE]` as it stands."""
    lines = [line.removeprefix(_DATA).strip() for line in text.splitlines() if line.startswith(_DATA)]
    return [line if line == _DONE else json.loads(line) for line in lines]


def read_completion(response: Any) -> Reply:
    """A whole response, as text with those candidates of each token that may be an option: it is small to send."""
    choice, usage = response.choices[0], response.usage
    places = choice.logprobs.content if choice.logprobs else None
    tokens = [
        (place.token, {one.token: one.logprob for one in place.top_logprobs if may_be_option(one.token)})
        for place in places or ()
    ]
    return Reply(choice.message.content or "", tokens, usage.prompt_tokens, usage.completion_tokens or 0)


def read_chunk(piece: Piece) -> Reply:
    """Chunks that arrived together, as one piece of the answer."""
    choices = [choice for chunk in piece for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    usage = next((chunk["usage"] for chunk in piece if chunk.get("usage")), None)
    return Reply(text, [place for choice in choices for place in _places(choice)], *_counts(usage))


def _places(choice: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    content = (choice.get("logprobs") or {}).get("content") or []
    return [(place["token"], {one["token"]: one["logprob"] for one in place["top_logprobs"]}) for place in content]


def _counts(usage: dict[str, Any] | None) -> tuple[int, int]:
    """Tokens of the prompt and of the answer."""
    return (usage["prompt_tokens"], usage.get("completion_tokens") or 0) if usage else (0, 0)
