"""A teacher behind an OpenAI-compatible endpoint: vLLM's server, a gateway, or a service.

The official client sends the requests, and tries again on 408, 409, 429, 5xx, time-outs and lost connections, with
growing waits or those that the server asks for. Ray's own HTTP stage is not used: on a failure it raises for a whole
batch, with the prompts, and so patients, in its message.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.teacher import EndpointConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.generation import Generation, Model, NoAnswerError, Row, Steps, failed

INVALID = "InvalidReply"
NO_KEY = "none"
"""Sent where no key is set: servers on one's own machine ask for none."""


def check_endpoint(model: Model) -> None:
    """Raises NoAnswerError, before anything is asked, when nothing answers there or the model is not served there."""
    import openai

    address, endpoint = model.base_url, model.endpoint
    client = openai.OpenAI(base_url=address, api_key=_key(endpoint), max_retries=1, timeout=endpoint.timeout_s)
    try:
        served = [one.id for one in client.models.list()]
    except openai.NotFoundError:
        return  # a gateway need not list its models
    except openai.AuthenticationError as error:
        raise NoAnswerError(f"teacher.base_url: {address} refuses the key in {endpoint.key_variable}") from error
    except openai.OpenAIError as error:
        raise NoAnswerError(f"teacher.base_url: no answer from {address} ({type(error).__name__})") from error
    if served and model.source not in served:
        raise NoAnswerError(f"teacher.model {model.source!r} is not served at {address}; it has {', '.join(served)}")


class EndpointAsker:
    """Callable class for Ray Data: rows of asks -> settled rows."""

    def __init__(self, steps: Steps) -> None:
        import openai

        self._steps, self._model, self._endpoint = steps, steps.model, steps.model.endpoint
        self._openai = openai
        self._next = time.monotonic()

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        generations = asyncio.run(self._answers(rows))
        settled = zip(rows, generations, strict=True)
        return pa.Table.from_pylist([self._steps.settle(row, generation) for row, generation in settled])

    async def _answers(self, rows: list[Row]) -> list[Generation]:
        client = self._openai.AsyncOpenAI(
            base_url=self._model.base_url,
            api_key=_key(self._endpoint),
            max_retries=self._endpoint.max_retries,
            timeout=self._endpoint.timeout_s,
        )
        async with client:
            return list(await asyncio.gather(*(self._answer(client, row) for row in rows)))

    async def _answer(self, client: Any, row: Row) -> Generation:
        await self._turn()
        try:
            reply = await client.chat.completions.create(**self._request(row))
        except self._openai.OpenAIError as error:
            return failed(failure_kind(error), str(error))
        except ValueError:  # the client lets that of a body which is no JSON through
            return failed(INVALID)
        return read_completion(reply.model_dump() if hasattr(reply, "model_dump") else {})

    async def _turn(self) -> None:
        """Wait until the configured rate allows one more request."""
        if self._endpoint.requests_per_minute:
            now = time.monotonic()
            self._next = max(self._next, now) + 60 / self._endpoint.requests_per_minute
            await asyncio.sleep(self._next - 60 / self._endpoint.requests_per_minute - now)

    def _request(self, row: Row) -> dict[str, Any]:
        asked = chat_request(self._steps, row)
        if not self._endpoint.logprobs:
            asked = {name: value for name, value in asked.items() if "logprobs" not in name}
        kwargs = asked.pop("chat_template_kwargs", None)
        return {
            **asked,
            "model": self._model.source,
            **({"extra_body": {"chat_template_kwargs": kwargs}} if kwargs else {}),
        }


def chat_request(steps: Steps, row: Row) -> dict[str, Any]:
    """Of a row, in the names of the chat completions API; candidates where the answer holds a diagnosis."""
    sampling, kwargs = steps.model.sampling, steps.model.engine.chat_template_kwargs
    return {
        "messages": steps.render(row),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": row["seed"],
        **({"logprobs": True, "top_logprobs": steps.model.logprobs} if ASK_KINDS[row["ask"]].gives_label else {}),
        **({"chat_template_kwargs": kwargs} if kwargs else {}),
    }


def failure_kind(error: Exception) -> str:
    """The error's class and HTTP status: its message may hold the prompt, and so the patient."""
    status = getattr(error, "status_code", None)
    return type(error).__name__ + (f" {status}" if status else "")


def read_completion(reply: dict[str, Any]) -> Generation:
    """A chat completion. One without a choice, or with none of the fields, is a failure. Thinking that the server has
    kept apart stands before the text, as the model wrote it: without an end where it was cut."""
    try:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        message = choice["message"]
        text, cut = message["content"] or "", choice["finish_reason"] == "length"
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        end = "" if cut and not text else "</think>"
        return Generation(
            text=(f"<think>{thought}{end}" if thought else "") + text,
            tokens=_tokens(choice.get("logprobs")),
            prompt_tokens=usage.get("prompt_tokens") or 0,
            output_tokens=usage.get("completion_tokens") or 0,
            error=None,
            cut=cut,
        )
    except (AttributeError, IndexError, KeyError, TypeError):
        return failed(INVALID)


def _tokens(logprobs: dict[str, Any] | None) -> TokenLogprobs:
    places = (logprobs or {}).get("content") or []
    return [(place["token"], {one["token"]: one["logprob"] for one in place["top_logprobs"]}) for place in places]


def _key(endpoint: EndpointConfig) -> str:
    return os.environ.get(endpoint.key_variable) or NO_KEY
