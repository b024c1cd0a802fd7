"""Engines that are plain objects, for the parts above them: they say what they are given, whole or in pieces."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from math import log
from typing import Any

from clinical_reasoner.llm.prompting import render_answer
from clinical_reasoner.records import Ask
from clinical_reasoner.serving.panel import ModelUnavailableError, Prompt, Reply
from clinical_reasoner.task import load_task

TASK = load_task("configs/tasks/alzheimers.yaml")
RATIONALE = "The MMSE score of 22 out of 30 is low. The MRI shows mild hippocampal atrophy and severe amygdala atrophy."

Said = Reply | Exception | Callable[[], Awaitable[Reply]]


@dataclass
class PlainEngine:
    said: Said | list[Said]
    """One answer for all prompts, or one for each in turn; an exception is raised."""
    running: bool = True
    prompts: list[Prompt] = field(default_factory=list)
    closed: int = 0
    """Answers that were given up, or came to their end."""

    async def stream(self, prompt: Prompt, *, piecewise: bool) -> AsyncGenerator[Reply]:
        said = self.said[len(self.prompts)] if isinstance(self.said, list) else self.said
        self.prompts.append(prompt)
        try:
            if isinstance(said, Exception):
                raise said
            reply = said if isinstance(said, Reply) else await said()
            for piece in pieces(reply) if piecewise else [reply]:
                yield piece
        finally:
            self.closed += 1

    async def chat(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        raise ModelUnavailableError("student", 503, "no chat here")
        yield {}

    async def is_running(self) -> bool:
        return self.running


def reply(ask: Ask, label: str, confidence: float, rationale: str = RATIONALE) -> Reply:
    """An answer as the models write it, and the option letter's candidates."""
    text = render_answer(ask, rationale, label, TASK)
    letter = f"({TASK.label(label).option})"
    before, after = text.split(letter, 1) if ask == "diagnose_label_first" else text.rsplit(letter, 1)
    option = letter[1]
    others = [one for one in TASK.options if one != option]
    candidates = {option: log(confidence), **{one: log((1 - confidence) / 2) for one in others}}
    tokens = [(before, {before: 0.0}), ("(", {"(": 0.0}), (option, candidates), (f"){after}", {")": 0.0})]
    return Reply(text, tokens, prompt_tokens=100, output_tokens=len(tokens))


def pieces(whole: Reply) -> list[Reply]:
    """Word by word, as an engine streams it; each token's candidates with the piece in which it begins."""
    found, place = [], 0
    ends, end = [], 0
    for token, candidates in whole.tokens:
        ends.append((end, token, candidates))
        end += len(token)
    for match in re.finditer(r"\s*\S+\s*?|\s+", whole.text):
        stop = match.end()
        tokens = [(token, candidates) for start, token, candidates in ends if place <= start < stop]
        found.append(Reply(whole.text[place:stop], tokens))
        place = stop
    last = found[-1]
    found[-1] = Reply(last.text, last.tokens, whole.prompt_tokens, whole.output_tokens)
    return found
