"""The deployment of an engine: Ray Serve LLM's, which besides gives whole answers in the small form of the endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.serve.llm import LLMServer

from serve.engine_replies import read_completion


class AnswerServer(LLMServer):
    """A response of OpenAI's form has an object for each candidate of each token: most of the time that an answer takes
    on its way would go into them."""

    async def answer(self, request: Any) -> AsyncGenerator[Any]:
        """The Reply to a ChatCompletionRequest without `stream`, or the engine's error."""
        async for sent in await self.chat(request):
            yield read_completion(sent) if hasattr(sent, "choices") else sent
