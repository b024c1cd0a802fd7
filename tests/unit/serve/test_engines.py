"""Calls to an engine: what it is asked, what comes back, what its failures become. The handle is a plain object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from clinical_reasoner.config.serving import ReplicasConfig, ServingConfig
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.serving.panel import ModelUnavailableError, Prompt, Reply

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, on import

CANARY = "Zebulon"
MESSAGES = [{"role": "user", "content": f"{CANARY} is a beekeeper."}]
HANGS = object()


class Answer:
    """What Ray Serve returns from a call with `stream`: things in order, errors are raised, and it can be cancelled."""

    def __init__(self, things: list[Any]) -> None:
        self._things = iter(things)
        self.cancelled = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        thing = next(self._things, StopAsyncIteration())
        if isinstance(thing, BaseException):
            raise thing
        if thing is HANGS:
            await asyncio.sleep(60)
        return thing

    def cancel(self) -> None:
        self.cancelled += 1


class PlainHandle:
    """Stands for a handle: `options(stream=True, method_name=method).remote(request)`."""

    app_name, deployment_name = "diagnosis", "engine-teacher"

    def __init__(self, *things: Any) -> None:
        self.answer = Answer(list(things))
        self.requests: list[Any] = []
        self.methods: list[str] = []

    def options(self, *, stream: bool, method_name: str) -> PlainHandle:
        assert stream
        self.methods.append(method_name)
        return self

    def remote(self, request: Any) -> Answer:
        self.requests.append(request)
        return self.answer


def status(application: str, running: int, asked: list[int]) -> Any:
    deployment = SimpleNamespace(replica_states={"RUNNING": running})
    one = SimpleNamespace(status=SimpleNamespace(value=application), deployments={"engine-teacher": deployment})

    def look() -> Any:
        asked.append(1)
        return SimpleNamespace(applications={"diagnosis": one})

    return look


@pytest.fixture(autouse=True)
def _runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve.status", status("RUNNING", 1, []))


def deployed(handle: Any, **engine: Any) -> Any:
    from serve.engines import DeployedEngine  # takes seconds: it imports vLLM

    return DeployedEngine("teacher", handle, EngineConfig(**engine), SamplingConfig(max_tokens=8, seed=3))


def ask(*things: Any, piecewise: bool = False, prompt: Prompt | None = None, **engine: Any) -> tuple[list[Reply], Any]:
    """The replies, and the handle."""

    async def collect() -> list[Reply]:
        stream = deployed(handle, **engine).stream(prompt or Prompt(MESSAGES), piecewise=piecewise)
        return [reply async for reply in stream]

    handle = PlainHandle(*things)
    return asyncio.run(collect()), handle


def failure(kind: str) -> Any:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError

    if kind == "busy":
        return BackPressureError(9, 8)
    if kind == "dead":
        return RayActorError(error_msg=CANARY)
    if kind == "raised":  # Ray's gRPC transport raises what the engine raised
        return KeyError(CANARY)
    return Sent({"error": {"code": int(kind), "message": f"{CANARY} is too long"}})


class Sent:
    """A response or error as a pydantic model would be."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def model_dump(self) -> dict[str, Any]:
        return self._content


PLACE = {
    "token": "A",
    "logprob": -0.1,
    "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.0}],
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def response(text: str | None, *places: dict[str, Any]) -> Any:
    """What Ray's engine yields for a request without `stream`."""
    from ray.serve.llm.openai_api_models import ChatCompletionResponse

    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": {"content": list(places)}}
    return ChatCompletionResponse.model_validate({"model": "teacher", "choices": [choice], "usage": USAGE})


def whole(text: str | None) -> Reply:
    """What AnswerServer makes of it."""
    from serve.engine_replies import read_completion

    return read_completion(response(text, PLACE))


def chunk(text: str | None, *, places: int = 1) -> str:
    choice = {"delta": {"content": text}, "logprobs": {"content": [PLACE] * places} if places else None}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


LAST = f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n"
DONE = "data: [DONE]\n\n"


def test_answer_with_the_candidates_of_each_token() -> None:
    replies, handle = ask(whole("A"), chat_template_kwargs={"enable_thinking": False})
    assert replies == [Reply("A", [("A", {"A": -0.1, "B": -2})], 7, 2)]
    request = handle.requests[0]
    assert (request.model, request.max_tokens, request.seed, request.temperature) == ("teacher", 8, 3, 0.0)
    assert (request.stream, request.structured_outputs) == (False, None)
    assert request.chat_template_kwargs == {"enable_thinking": False}
    assert handle.methods == ["answer"]
    assert ask(whole(None))[0][0].text == ""


def test_a_pattern_and_a_length_go_to_the_engine() -> None:
    _, handle = ask(whole("A"), prompt=Prompt(MESSAGES, pattern="[AB]", max_tokens=2))
    request = handle.requests[0]
    assert (request.structured_outputs.regex, request.max_tokens) == ("[AB]", 2)
    params = request.to_sampling_params(2, {})
    assert params.structured_outputs.regex == "[AB]"


def test_pieces_add_up_to_the_answer_with_every_token() -> None:
    sent = [[chunk("", places=0), chunk("No ")], [chunk("atro"), chunk("phy")], [chunk("", places=1), LAST], [DONE]]
    replies, handle = ask(*sent, piecewise=True)
    assert [reply.text for reply in replies] == ["No ", "atrophy", ""]
    assert [len(reply.tokens) for reply in replies] == [1, 2, 1]
    assert [(reply.prompt_tokens, reply.output_tokens) for reply in replies] == [(0, 0), (0, 0), (7, 2)]
    assert handle.methods == ["chat"]
    assert handle.requests[0].stream and handle.requests[0].stream_options.include_usage
    assert handle.answer.cancelled == 0


def test_a_whole_answer_is_not_cancelled_when_it_has_come() -> None:
    assert ask(whole("A"))[1].answer.cancelled == 0


def test_who_stops_listening_ends_the_generation() -> None:
    async def leave() -> None:
        stream = deployed(handle).stream(Prompt(MESSAGES), piecewise=True)
        assert (await anext(stream)).text == "No "
        await stream.aclose()

    handle = PlainHandle([chunk("No ")], [chunk("atrophy")])
    asyncio.run(leave())
    assert handle.answer.cancelled == 1


@pytest.mark.parametrize("piecewise", [True, False])
def test_a_deadline_ends_the_generation(piecewise: bool) -> None:
    async def wait() -> None:
        async with asyncio.timeout(0.2):
            async for _ in deployed(handle).stream(Prompt(MESSAGES), piecewise=piecewise):
                pass

    handle = PlainHandle(HANGS)
    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    assert handle.answer.cancelled == 1


FAILURES = [
    ("busy", 503, "too many requests are waiting"),
    ("dead", 503, "no answer (RayActorError)"),
    ("raised", 503, "no answer (KeyError)"),
    ("400", 422, "the prompt does not fit into 256 tokens"),
    ("500", 502, "engine error 500"),
]


@pytest.mark.parametrize("piecewise", [True, False])
@pytest.mark.parametrize(("kind", "status", "reason"), FAILURES)
def test_failures_have_a_status_and_no_patient(kind: str, status: int, reason: str, piecewise: bool) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        ask(failure(kind), max_model_len=256, piecewise=piecewise)
    error = caught.value
    assert (error.role, error.status, error.reason) == ("teacher", status, reason)
    assert CANARY not in str(error)


def test_an_error_in_the_middle_of_a_stream_is_one() -> None:
    error = json.dumps({"error": {"code": 500, "message": CANARY}})
    with pytest.raises(ModelUnavailableError, match="engine error 500"):
        ask([chunk("No ")], [f"data: {error}\n\n", DONE], piecewise=True)
    with pytest.raises(ModelUnavailableError, match="engine error 500"):
        ask([failure("500")], piecewise=True)


def test_an_empty_answer_is_no_answer() -> None:
    with pytest.raises(ModelUnavailableError, match="it was empty"):
        ask(piecewise=True)


def test_chat_gives_the_engines_objects_one_by_one() -> None:
    async def collect(request: dict[str, Any]) -> list[dict[str, Any]]:
        return [one async for one in deployed(handle).chat(request)]

    handle = PlainHandle([chunk("No "), chunk("atrophy")], [LAST, DONE])
    chunks = asyncio.run(collect({"messages": MESSAGES, "stream": True, "temperature": 0.5}))
    assert [len(one["choices"]) for one in chunks] == [1, 1, 0]
    assert (handle.requests[0].model, handle.requests[0].temperature) == ("teacher", 0.5)
    handle = PlainHandle(response("A", PLACE))
    assert USAGE.items() <= asyncio.run(collect({"messages": MESSAGES}))[0]["usage"].items()
    assert handle.methods == ["chat"]


def test_an_engine_that_is_down_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve.status", status("RUNNING", 0, []))
    with pytest.raises(ModelUnavailableError) as caught:
        ask(HANGS)
    assert (caught.value.status, caught.value.reason) == (503, "not running")


def test_an_engine_is_asked_where_serve_says_nothing_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications={}))
    assert ask(whole("A"))[0][0].text == "A"


@pytest.mark.parametrize("running", [0, 1])
def test_many_health_checks_ask_the_controller_once(running: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> list[bool]:
        engine = deployed(PlainHandle())
        return list(await asyncio.gather(*(engine.is_running() for _ in range(50))))

    asked: list[int] = []
    monkeypatch.setattr("ray.serve.status", status("RUNNING", running, asked))
    assert asyncio.run(check()) == [bool(running)] * 50
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("application", "running", "sent", "warm"),
    [
        ("DEPLOYING", 1, Reply("Yes"), True),
        ("RUNNING", 1, Reply("Yes"), True),
        ("RUNNING", 0, Reply("Yes"), False),
        ("DEPLOY_FAILED", 0, Reply("Yes"), False),
        ("RUNNING", 1, ValueError(), False),
    ],
)
def test_warm_up_asks_an_engine_that_runs_and_waits_for_none_that_does_not(
    application: str, running: int, sent: Any, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = PlainHandle(sent)
    monkeypatch.setattr("ray.serve.status", status(application, running, []))
    assert asyncio.run(deployed(handle).warm_up()) is warm
    assert [request.structured_outputs.regex for request in handle.requests] == ["(Yes|No)"] * bool(running)


def test_a_fixed_number_of_engines_is_not_scaled() -> None:
    from serve.engines import replica_options

    assert replica_options(ReplicasConfig(least=2, most=2), EngineConfig()) == {"num_replicas": 2}


def test_each_model_is_scaled_by_its_own_settings() -> None:
    from ray.serve.config import AutoscalingConfig

    from serve.engines import deployment_options

    serving = ServingConfig(
        teacher_replicas=ReplicasConfig(least=1, most=4, upscale_delay_s=5), request_timeout_s=30, max_queued_requests=9
    )
    engine = EngineConfig(max_num_seqs=48)
    student, teacher = (deployment_options(role, engine, serving) for role in ("student", "teacher"))
    assert student["num_replicas"] == 1 and "autoscaling_config" not in student
    scaling = AutoscalingConfig(**teacher["autoscaling_config"])
    assert (scaling.min_replicas, scaling.max_replicas, scaling.upscale_delay_s) == (1, 4, 5)
    assert scaling.target_ongoing_requests == 24
    assert "num_replicas" not in teacher
    for options in (student, teacher):
        assert (options["max_ongoing_requests"], options["max_queued_requests"]) == (48, 9)
        assert options["graceful_shutdown_timeout_s"] > 30


def test_on_a_cpu_prompts_are_read_whole_since_anybody_may_give_a_seed() -> None:
    from clinical_reasoner.llm.engine import served_engine_arguments

    assert served_engine_arguments(EngineConfig(max_model_len=8192))["max_num_batched_tokens"] == 8192
    assert served_engine_arguments(EngineConfig())["enable_chunked_prefill"] is False
    assert "enable_chunked_prefill" not in served_engine_arguments(EngineConfig(gpus=1))
