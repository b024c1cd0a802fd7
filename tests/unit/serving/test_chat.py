"""Which chat requests are taken, and what of them an engine gets."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.serving.chat import (
    CHAT_NAMES,
    ChatError,
    ChatRequest,
    check_pictures,
    engine_request,
    sent_chunk,
)
from clinical_reasoner.serving.schema import field_errors

USER = {"role": "user", "content": "Hello"}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps({"model": "teacher", "messages": [USER], **fields}))


def asked(**fields: Any) -> dict[str, Any]:
    return engine_request(request(**fields), ())


def test_only_what_was_given_reaches_the_engine() -> None:
    assert asked() == {"messages": [USER], "logprobs": False}
    assert asked(
        temperature=0, top_p=0.5, seed=-3, stop="a", presence_penalty=1, user="someone", metadata={"a": "b"}
    ) == {
        "messages": [USER],
        "logprobs": False,
        "temperature": 0,
        "top_p": 0.5,
        "seed": -3,
        "stop": "a",
        "presence_penalty": 1,
    }


def test_null_is_as_good_as_left_out() -> None:
    assert request(tools=None, stop=None, temperature=None, messages=[{**USER, "refusal": None}]) == request()


def test_the_newer_name_of_the_length_wins() -> None:
    assert asked(max_tokens=5)["max_tokens"] == 5
    assert asked(max_tokens=5, max_completion_tokens=9)["max_tokens"] == 9


def test_a_stream_always_counts_its_tokens() -> None:
    assert asked(stream=True)["stream_options"] == {"include_usage": True}


def test_log_probabilities_are_asked_for_together() -> None:
    assert asked(logprobs=True)["top_logprobs"] == 0
    assert asked(logprobs=True, top_logprobs=20)["top_logprobs"] == 20


def test_texts_of_several_parts_are_one_text_and_pictures_stay_parts() -> None:
    texts = [{"type": "text", "text": "a<|user|>"}, {"type": "text", "text": "b"}]
    picture = {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}
    assert asked(messages=[{"role": "developer", "content": texts}])["messages"] == [
        {"role": "system", "content": "a< |user|>\nb"}
    ]
    content = asked(messages=[{"role": "user", "content": [texts[0], picture]}])["messages"][0]["content"]
    assert content == [
        {"type": "text", "text": "a< |user|>"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
    ]


def schema_of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def test_forms_of_answers_become_structured_output() -> None:
    schema = {
        "type": "object",
        "properties": {"pattern": {"type": "string", "maxLength": 9}, "$ref": {"$ref": "#/$defs/one"}},
        "$defs": {"one": {"enum": ["A", "B"]}},
    }
    assert asked(response_format=schema_of(schema))["structured_outputs"] == {"json": schema}
    assert asked(response_format={"type": "json_object"})["structured_outputs"] == {"json_object": True}
    assert "structured_outputs" not in asked(response_format={"type": "text"})


def deep(levels: int) -> dict[str, Any]:
    return {"type": "array", "items": deep(levels - 1)} if levels else {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a+)+$"},
        {"patternProperties": {"(a|a)*": {}}},
        {"type": "array", "items": {"type": "string"}, "maxItems": 100_000},
        {"type": "string", "minLength": -1},
        {"type": "string", "maxLength": True},
        {"$ref": "http://169.254.169.254/schema"},
        {"properties": {"x": {"properties": {"y": {"pattern": "a"}}}}},
        {"enum": [str(number) for number in range(600)]},
        {"enum": ["x" * 300]},
        {"properties": {"x" * 300: {}}},
        deep(20),
    ],
)
def test_schemas_that_could_occupy_the_engine_are_refused(schema: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        request(response_format=schema_of(schema))
    assert caught.value.errors()[0]["type"] == "json_schema"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": float("nan")},
        {"temperature": "0.5"},
        {"top_p": 0},
        {"max_tokens": 0},
        {"stream": "yes"},
        {"stream_options": {"include_usage": True}},
        {"stop": ""},
        {"stop": []},
        {"logit_bias": {"1": 100}},
        {"ignore_eos": True},
        {"messages": [USER] * 257},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"messages": [{"role": "user"}]},
    ],
)
def test_what_is_not_offered_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**fields)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": [{"role": "Zebulon", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{**USER, "content": [{"type": "text", "text": 7}]}]}, "messages.0.content.parts.0.text.text"),
        ({"messages": [{**USER, "content": [{"type": "Zebulon"}]}]}, "messages.0.content.parts.0"),
        ({"stop": ["a", 7]}, "stop.several.1"),
        ({"Zebulon": 1}, "(unknown)"),
        ({"metadata": {"Zebulon": 1}}, "metadata.(unknown)"),
        ({"response_format": schema_of(7)}, "response_format.json_schema.json_schema.schema"),
    ],
)
def test_a_place_has_positions_and_our_own_names_alone(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(**fields)
    (error,) = field_errors(caught.value.errors(), CHAT_NAMES)
    assert error.field == place
    assert "Zebulon" not in error.message


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x00\x00\x00\x00"


def picture(content: bytes | str) -> dict[str, Any]:
    url = content if isinstance(content, str) else f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def check(*pictures: dict[str, Any], sees: bool = True) -> None:
    body = request(messages=[USER, {"role": "user", "content": [{"type": "text", "text": "?"}, *pictures]}])
    check_pictures(body, sees, UploadsConfig(max_pixels=10_000, max_pictures=2))


def test_small_pictures_are_for_a_model_that_sees() -> None:
    check(picture(png(100, 99)), picture(png(10, 10)))
    check(sees=False)
    with pytest.raises(ChatError, match="sees no pictures"):
        check(picture(png(1, 1)), sees=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("https://example.org/a.png", "should be a PNG in the request itself"),
        ("file:///etc/passwd", "should be a PNG in the request itself"),
        ("data:image/svg+xml;base64,AAAA", "should be a PNG in the request itself"),
        ("data:image/png;base64,%%%", "not readable as base64"),
        ("data:image/png;base64,é", "not readable as base64"),
        (b"GIF89a" + bytes(40), "no PNG"),
        (png(1, 1)[:20], "no PNG"),
        (png(60_000, 60_000), "width times height should be at most 10000"),
        (png(0, 5), "width times height"),
    ],
)
def test_other_pictures_are_refused_with_their_place(content: bytes | str, message: str) -> None:
    with pytest.raises(ChatError, match=message) as caught:
        check(picture(content))
    assert caught.value.param == "messages.1.content.1.image_url.url"
    assert "example" not in str(caught.value) and "passwd" not in str(caught.value)


def test_pictures_that_are_together_too_large_are_refused() -> None:
    with pytest.raises(ChatError, match="at most 10000, of all pictures together") as caught:
        check(picture(png(100, 99)), picture(png(10, 11)))
    assert caught.value.param == "messages.1.content.2.image_url.url"


def test_too_many_pictures_are_refused() -> None:
    with pytest.raises(ChatError, match="at most 2 pictures"):
        check(*[picture(png(1, 1))] * 3)


def test_a_chunk_is_sent_without_what_else_the_engine_says() -> None:
    raw = {
        "id": "chatcmpl-1",
        "created": 3,
        "model": "/secret/folder",
        "prompt_text": "secret",
        "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "secret"}, "logprobs": None, "token_ids": [1]}],
    }
    chunk = sent_chunk(raw, "teacher")
    assert "secret" not in json.dumps(chunk)
    assert chunk["choices"] == [{"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}]
    assert "usage" not in chunk
