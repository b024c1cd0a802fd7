"""OpenAI's chat completions: which requests are taken, what of them an engine gets, and what is sent back.

The messages are the client's own: no prompt of the project stands before them, so that there is none to be revealed.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.llm.control_tokens import neutralize
from clinical_reasoner.serving.chat_schemas import check_schema
from clinical_reasoner.serving.schema import names_in

MAX_MESSAGES = 256
MAX_PARTS = 64
MAX_TOP_LOGPROBS = 20
_INT64 = 2**63
_PNG = "data:image/png;base64,"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


class ChatError(ValueError):
    """A request that cannot be passed on; holds no text of it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        """Dotted place in the request."""
        self.message = message


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # After it the input is no longer taken for JSON, where a strict tuple would accept an array: fields are lists.
    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: Any) -> Any:
        return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value


class TextPart(_Form):
    type: Literal["text"]
    text: str


class ImageUrl(_Form):
    url: str = Field(description="`data:image/png;base64,...`; an address is not fetched.")
    detail: Literal["auto", "low", "high"] | None = Field(default=None, description="Without effect.")


class ImagePart(_Form):
    type: Literal["image_url"]
    image_url: ImageUrl


_Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
_Parts = Annotated[list[_Part], Field(min_length=1, max_length=MAX_PARTS)]
_Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[_Parts, Tag("parts")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
]


class ChatMessage(_Form):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content
    name: str | None = Field(default=None, max_length=64, description="Without effect.")


class PlainFormat(_Form):
    type: Literal["text", "json_object"]


class NamedSchema(_Form):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = Field(default=None, max_length=1024, description="Without effect.")
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(default=None, description="Without effect: the answer always keeps to the schema.")

    @field_validator("schema_")
    @classmethod
    def _small(cls, schema: dict[str, Any]) -> dict[str, Any]:
        check_schema(schema)
        return schema


class SchemaFormat(_Form):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(_Form):
    include_usage: bool = False
    include_obfuscation: bool | None = Field(default=None, description="Without effect.")


_Stop = Annotated[str, Field(min_length=1, max_length=64)]
_Stops = Annotated[list[_Stop], Field(min_length=1, max_length=4)]


class ChatRequest(_Form):
    """The part of OpenAI's chat completions that is offered; tools, sound and several answers are not."""

    model: Literal["student", "teacher"]
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1, description="Older name of `max_completion_tokens`.")
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    stop: (
        Annotated[
            Annotated[_Stop, Tag("one")] | Annotated[_Stops, Tag("several")],
            Discriminator(lambda value: "one" if isinstance(value, str) else "several"),
        ]
        | None
    ) = None
    n: Literal[1] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    user: str | None = Field(default=None, max_length=512, description="Without effect; it is not recorded.")
    safety_identifier: str | None = Field(default=None, max_length=512, description="Without effect.")
    prompt_cache_key: str | None = Field(default=None, max_length=512, description="Without effect.")
    metadata: dict[str, str] | None = Field(default=None, max_length=16, description="Without effect.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="Without effect.")
    store: Literal[False] | None = Field(default=None, description="Nothing is stored.")

    @model_validator(mode="after")
    def _belong_together(self) -> ChatRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("alone", "stream_options needs stream: true", {"field": "stream_options"})
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("alone", "top_logprobs needs logprobs: true", {"field": "top_logprobs"})
        return self


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True)  # what else an engine says is left out


class TokenLogprob(_Sent):
    token: str
    logprob: float
    bytes: list[int] | None = None


class ChosenLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob] = []


class ChoiceLogprobs(_Sent):
    content: list[ChosenLogprob] | None = None
    refusal: None = None


class AnswerMessage(_Sent):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None


class Choice(_Sent):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = Field(default=None, description="`stop`, or `length` where the answer was cut.")


class Usage(_Sent):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(_Sent):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[Choice]
    usage: Usage


_NOT_OFFERED = frozenset(
    [
        "audio",
        "best_of",
        "chat_template",
        "chat_template_kwargs",
        "function_call",
        "functions",
        "guided_json",
        "ignore_eos",
        "logit_bias",
        "min_p",
        "min_tokens",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "prompt_logprobs",
        "reasoning_effort",
        "repetition_penalty",
        "structured_outputs",
        "tool_call_id",
        "tool_calls",
        "tool_choice",
        "tools",
        "top_k",
        "verbosity",
        "web_search_options",
    ]
)
"""Fields of OpenAI and vLLM that a client may well send: it is told which of them to leave out."""
CHAT_NAMES = names_in(ChatRequest) | _NOT_OFFERED | {"text", "parts", "one", "several"}
"""What may stand in the place of an error: fields, and the kinds of content and of `stop`."""


def engine_request(body: ChatRequest, control_tokens: tuple[str, ...]) -> dict[str, Any]:
    """What an engine is asked. Control tokens in the messages are made plain text; fields without effect stay here."""
    messages = [
        {"role": "system" if one.role == "developer" else one.role, "content": _content(one, control_tokens)}
        for one in body.messages
    ]
    fields = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "logprobs")
    given = {name: getattr(body, name) for name in fields if getattr(body, name) is not None}
    request: dict[str, Any] = {"messages": messages, **given}
    if body.logprobs:
        request["top_logprobs"] = body.top_logprobs or 0
    limit = body.max_completion_tokens or body.max_tokens
    if limit is not None:
        request["max_tokens"] = limit
    if body.stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    if isinstance(body.response_format, SchemaFormat):
        request["structured_outputs"] = {"json": body.response_format.json_schema.schema_}
    elif body.response_format is not None and body.response_format.type == "json_object":
        request["structured_outputs"] = {"json_object": True}
    return request


def check_pictures(body: ChatRequest, sees: bool, limits: UploadsConfig) -> None:
    """Raises ChatError for pictures that the model cannot see, that are no PNG in the request itself, or that are
    together too large."""
    found = list(_pictures(body))
    if found and not sees:
        raise ChatError(found[0][0], f"the {body.model} sees no pictures; send text")
    if len(found) > limits.max_pictures:
        raise ChatError(found[limits.max_pictures][0], f"at most {limits.max_pictures} pictures")
    total = 0
    for place, url in found:
        width, height = _size(place, url)
        total += width * height
        if width * height == 0 or total > limits.max_pixels:
            raise ChatError(
                place, f"width times height should be at most {limits.max_pixels}, of all pictures together"
            )


def sent_chunk(raw: dict[str, Any], model: str) -> dict[str, Any]:
    """A chunk of an engine in OpenAI's form, without what else the engine says."""
    chunk: dict[str, Any] = {
        "id": raw["id"],
        "object": "chat.completion.chunk",
        "created": raw["created"],
        "model": model,
        "choices": [_sent_choice(choice) for choice in raw["choices"]],
    }
    if raw.get("usage"):
        chunk["usage"] = Usage.model_validate(raw["usage"]).model_dump()
    return chunk


def _sent_choice(choice: dict[str, Any]) -> dict[str, Any]:
    delta = {name: choice["delta"][name] for name in ("role", "content") if choice["delta"].get(name) is not None}
    logprobs = choice.get("logprobs")
    return {
        "index": choice["index"],
        "delta": delta,
        "logprobs": ChoiceLogprobs.model_validate(logprobs).model_dump() if logprobs else None,
        "finish_reason": choice.get("finish_reason"),
    }


def _content(message: ChatMessage, control_tokens: tuple[str, ...]) -> Any:
    if isinstance(message.content, str):
        return neutralize(message.content, control_tokens)
    parts = message.content
    if all(isinstance(part, TextPart) for part in parts):  # templates of models without sight know texts alone
        return neutralize("\n".join(part.text for part in parts if isinstance(part, TextPart)), control_tokens)
    return [
        {"type": "text", "text": neutralize(part.text, control_tokens)}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.image_url.url}}
        for part in parts
    ]


def _pictures(body: ChatRequest) -> Iterator[tuple[str, str]]:
    """Place and address of each."""
    for at, message in enumerate(body.messages):
        for part_at, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImagePart):
                yield f"messages.{at}.content.{part_at}.image_url.url", part.image_url.url


def _size(place: str, url: str) -> tuple[int, int]:
    """Width and height that a PNG declares, pixels; nothing of it is unpacked."""
    if not url.startswith(_PNG):
        raise ChatError(place, f"should be a PNG in the request itself: {_PNG}...")
    try:
        data = base64.b64decode(url.removeprefix(_PNG), validate=True)
    except ValueError:  # also for what is no ASCII
        raise ChatError(place, "not readable as base64") from None
    if not data.startswith(_PNG_HEAD) or len(data) < len(_PNG_HEAD) + 8:
        raise ChatError(place, "no PNG")
    width, height = struct.unpack(">II", data[len(_PNG_HEAD) : len(_PNG_HEAD) + 8])
    return width, height
