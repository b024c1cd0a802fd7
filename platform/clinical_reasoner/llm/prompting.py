"""Render: from an ask about a patient to chat messages. Fixed instructions first, then exemplars, the patient last.

Jinja2 files, in a folder per prompt version, with the blocks `system`, `user` and `assistant`; the last one is how an
answer looks, for exemplars and for training a student.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask, TaskError

PROMPT_VERSION = "v1"
EXEMPLAR_KEYS = ("patient_description", "clinical_rationale", "diagnosis")

Message = dict[str, Any]
"""`role` (system, user, assistant) and `content`: a text, or parts of OpenAI's form where there is a picture."""


@dataclass(frozen=True)
class Exemplar:
    """A worked case by an expert."""

    description: str
    rationale: str
    label: str
    """Table name of the diagnosis."""
    name: str = field(default="", compare=False)
    """Key in the exemplar file; says nothing about the case."""


def render_messages(
    ask: Ask,
    description: str,
    task: DiagnosisTask,
    *,
    exemplars: Sequence[Exemplar] = (),
    label: str | None = None,
    words: str | None = None,
    version: str = PROMPT_VERSION,
) -> list[Message]:
    """Messages of one ask, up to and with the user's turn about the patient.

    `description` ends with the question. `label` is the known diagnosis; an ask that is told it needs it (ValueError
    otherwise) and no other ask may see it. `words` is the length asked for, as in "Write the rationale in {words}
    words."; None leaves it open.
    """
    told = ASK_KINDS[ask].told_label
    if (label is not None) != told:
        raise ValueError(f"ask {ask!r} {'needs' if told else 'must not be given'} the known label")
    messages = [{"role": "system", "content": _system(version, ask, task, words)}]
    for exemplar in exemplars:
        user, assistant = _turns(version, ask, exemplar, task)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    answer = task.answer_text(label) if label is not None else ""
    messages.append({"role": "user", "content": _user(version, ask, description, answer)})
    return messages


def with_picture(messages: Sequence[Message], png: bytes | None = None) -> list[Message]:
    """The same messages, in parts, with a picture before the text of the first user's turn: a PNG for an engine or
    endpoint, or None for the place of one that is given apart, as to a processor of transformers."""
    picture: dict[str, Any] = {"type": "image"}
    if png is not None:
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        picture = {"type": "image_url", "image_url": {"url": url}}
    first = next(place for place, message in enumerate(messages) if message["role"] == "user")
    parts: list[list[dict[str, Any]]] = [[{"type": "text", "text": message["content"]}] for message in messages]
    parts[first].insert(0, picture)
    return [{"role": message["role"], "content": content} for message, content in zip(messages, parts, strict=True)]


def plain_text(messages: Sequence[Message]) -> str:
    """Messages as one text, for models without a chat template: their contents, joined by blank lines."""
    return "\n\n".join(message["content"] for message in messages)


def render_answer(ask: Ask, rationale: str, label: str, task: DiagnosisTask, version: str = PROMPT_VERSION) -> str:
    """The assistant's turn for a known rationale and diagnosis, in the form that `parse_answer` reads."""
    return _block(version, ask, "assistant", rationale=rationale, answer=task.answer_text(label))


def load_exemplars(path: str, task: DiagnosisTask) -> tuple[Exemplar, ...]:
    """Read an exemplar file: JSON, any top-level names, each with the three keys of EXEMPLAR_KEYS.

    Raises TaskError with the file, the exemplar and the fix.
    """
    file = Path(path)
    if not file.is_file():
        raise TaskError(f"task.exemplars: no file at {path!r} (looked in {Path.cwd()})")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise TaskError(f"{path}: expected an object with one entry per exemplar")
    return tuple(_read_exemplar(path, name, entry, task) for name, entry in content.items())


def _read_exemplar(path: str, name: str, entry: Any, task: DiagnosisTask) -> Exemplar:
    if not isinstance(entry, dict):
        raise TaskError(f"{path}: {name}: expected an object with {', '.join(EXEMPLAR_KEYS)}")
    for key in EXEMPLAR_KEYS:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise TaskError(f"{path}: {name}: {key} is missing or not a text")
    label = task.read_label(entry["diagnosis"])
    if label is None:
        # What stands there instead is left out: an exemplar may be a patient.
        raise TaskError(f"{path}: {name}: diagnosis is none of {', '.join(task.label_names)}")
    question = task.question_text()
    description = entry["patient_description"].strip().removesuffix(question).rstrip()
    return Exemplar(f"{description}\n\n{question}", entry["clinical_rationale"].strip(), label, name)


@lru_cache(maxsize=32)
def _system(version: str, ask: Ask, task: DiagnosisTask, words: str | None) -> str:
    return _block(version, ask, "system", task=task, words=words)


@lru_cache(maxsize=256)
def _turns(version: str, ask: Ask, exemplar: Exemplar, task: DiagnosisTask) -> tuple[str, str]:
    """An exemplar as its user's and its assistant's turn."""
    user = _user(version, ask, exemplar.description, task.answer_text(exemplar.label))
    return user, render_answer(ask, exemplar.rationale, exemplar.label, task)


def _user(version: str, ask: Ask, description: str, answer: str) -> str:
    return _block(version, ask, "user", description=description, answer=answer)


def _block(version: str, ask: Ask, block: str, **values: Any) -> str:
    template = _template(version, ASK_KINDS[ask].template)
    return "".join(template.blocks[block](template.new_context(values))).strip()


@lru_cache(maxsize=32)
def _template(version: str, name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("clinical_reasoner", "llm/prompts"),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{version}/{name}.j2")
