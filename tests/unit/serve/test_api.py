"""The HTTP side over engines that are plain objects: statuses, limits, and nothing about the patient in any error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import log
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.llm.prompting import Message, load_exemplars, render_answer
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel, Reply, student_role, teacher_role
from clinical_reasoner.serving.schema import AnsweredBy
from clinical_reasoner.task import load_task
from serve.api import Desk, build_api
from tests.unit.conftest import student_of

TASK = load_task("configs/tasks/alzheimers.yaml")
EXEMPLARS = load_exemplars(TASK.exemplars, TASK)
PANEL = Panel(
    TASK, student_role(student_of("label_only")), teacher_role("someone/teacher", NO_EXEMPLARS), threshold=0.8
)
CANARY = "Zebulon"
BODY = {"description": f"{CANARY} is a beekeeper.", "model": "auto"}
URL = "/v1/diagnose"

Ask = Callable[[], Awaitable[Reply]]


@dataclass(frozen=True)
class PlainEngine:
    answer: Ask
    running: bool = True

    async def ask(self, messages: list[Message]) -> Reply:
        assert CANARY in messages[-1]["content"]
        return await self.answer()

    async def is_running(self) -> bool:
        return self.running


def answers(confidence: float, ask: Any = "diagnose") -> Ask:
    async def answer() -> Reply:
        text = render_answer(ask, "The MMSE score is low.", "AD", TASK)
        before, after = text.rsplit("(A", 1)
        candidates = {"A": log(confidence), "B": log((1 - confidence) / 2), "C": log((1 - confidence) / 2)}
        return Reply(text, [(f"{before}(", {"(": 0.0}), ("A", candidates), (after, {after: 0.0})])

    return answer


def fails(error: Exception) -> Ask:
    async def answer() -> Reply:
        raise error

    return answer


def refuses(role: AnsweredBy, status: int) -> Ask:
    return fails(ModelUnavailableError(role, status, "no answer"))


async def mumbles() -> Reply:
    return Reply(f"{CANARY} may have it.", [])


async def hangs() -> Reply:
    await asyncio.sleep(60)
    raise AssertionError("it was waited for")


SURE, UNSURE, TEACHER = answers(0.9, "direct"), answers(0.5, "direct"), answers(0.7)


def api(
    student: Ask = SURE, teacher: Ask = TEACHER, running: tuple[bool, bool] = (True, True), **limits: Any
) -> FastAPI:
    engines: dict[AnsweredBy, PlainEngine] = {
        "student": PlainEngine(student, running[0]),
        "teacher": PlainEngine(teacher, running[1]),
    }
    return build_api(Desk(PANEL, engines, ServingConfig(**limits), EXEMPLARS[0]))


def send(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(sent())


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint")


def assert_problem(response: httpx.Response, status: int) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["status"] == status
    assert CANARY not in response.text
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.mark.parametrize(
    ("student", "teacher", "answered_by", "routing", "degraded"),
    [
        (SURE, refuses("teacher", 503), "student", "student confident: 0.90 >= 0.80", False),
        (UNSURE, TEACHER, "teacher", "student below threshold: 0.50 < 0.80", False),
        (refuses("student", 503), TEACHER, "teacher", "student not available", False),
        (refuses("student", 422), TEACHER, "teacher", "student not available", False),
        (
            UNSURE, refuses("teacher", 503),
            "student", "student below threshold: 0.50 < 0.80; teacher not available", True,
        ),
    ],
)  # fmt: skip
def test_auto_answers_while_one_model_does(
    student: Ask, teacher: Ask, answered_by: str, routing: str, degraded: bool
) -> None:
    response = send(api(student, teacher), "POST", URL, json=BODY)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["answered_by"], answer["routing"], answer["degraded"]) == (answered_by, routing, degraded)


def test_a_teacher_that_is_too_slow_leaves_the_student() -> None:
    answer = send(api(UNSURE, hangs, request_timeout_s=0.2), "POST", URL, json=BODY).json()
    assert (answer["answered_by"], answer["degraded"]) == ("student", True)


@pytest.mark.parametrize(
    ("model", "student", "teacher", "status", "detail"),
    [
        ("auto", refuses("student", 502), refuses("teacher", 503), 503, "teacher: no answer"),
        ("auto", refuses("student", 503), refuses("teacher", 502), 502, "teacher: no answer"),
        ("auto", refuses("student", 503), mumbles, 502, "the teacher's answer could not be read: no diagnosis line"),
        ("student", refuses("student", 503), TEACHER, 503, "student: no answer"),
        ("student", refuses("student", 422), TEACHER, 422, "student: no answer"),
        ("teacher", SURE, hangs, 504, "teacher: no answer within 0.2 s"),
        ("student", fails(RuntimeError(f"prompt: {CANARY}")), TEACHER, 500, "the log has the kind"),
    ],
)
def test_failures_are_problems(
    model: str, student: Ask, teacher: Ask, status: int, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = send(api(student, teacher, request_timeout_s=0.2), "POST", URL, json={**BODY, "model": model})
    assert_problem(response, status)
    problem = response.json()
    assert detail in problem["detail"]
    expected = [{"field": "description", "message": "no answer"}] if status == 422 else []
    assert problem["errors"] == expected
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        (b'{"description": "Zebulon', "(body)", "not valid JSON"),
        (b"", "(body)", "missing"),
        (b"null", "(body)", "missing"),
        (b'{"description": "Zebulon \xff"}', "(body)", "not valid JSON"),
        (b'{"description": ' + b"[" * 100_000 + b'"Zebulon"', "(body)", "not valid JSON"),
        (b'{"patient": {"mmse": ' + b"1" * 5000 + b"}}", "(body)", "not valid JSON"),
        (b'"Zebulon"', "(body)", "JSON object"),
        (b'{"description": "Zebulon \\ud800"}', "description", "valid string"),
        (b'{"patient": {"mmse": "Zebulon"}}', "patient.mmse", "valid integer"),
        (b'{"patient": {"findings": {"Zebulon!": "No"}}}', "patient.findings.(unknown)", "should be"),
    ],
    ids=["cut", "empty", "null", "no UTF-8", "deep", "long number", "text", "half a character", "type", "key"],
)
def test_bodies_that_cannot_be_used(content: bytes, field: str, message: str) -> None:
    response = send(api(), "POST", URL, content=content, headers={"content-type": "application/json"})
    assert_problem(response, 422)
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", URL, 405), ("POST", f"/{CANARY}", 404)])
def test_other_refusals(method: str, path: str, status: int) -> None:
    assert_problem(send(api(), method, path), status)


@pytest.mark.parametrize(
    ("running", "status", "detail"),
    [
        ((True, True), 200, None),
        ((False, True), 503, "not running: student"),
        ((True, False), 503, "not running: teacher"),
        ((False, False), 503, "not running: student, teacher"),
    ],
)
def test_health(running: tuple[bool, bool], status: int, detail: str | None) -> None:
    response = send(api(running=running), "GET", "/healthz")
    assert response.status_code == status
    if detail is None:
        assert response.json().items() >= {"status": "ok", "student": "ok", "teacher": "ok"}.items()
    else:
        assert_problem(response, 503)
        assert response.json()["detail"] == detail


def test_a_full_endpoint_refuses_patients_and_is_healthy() -> None:
    async def scene() -> tuple[httpx.Response, httpx.Response, httpx.Response, httpx.Response]:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def waits() -> Reply:
            entered.set()
            await leave.wait()
            return await SURE()

        async with client_of(api(waits, max_ongoing_requests=1)) as client:
            first = asyncio.create_task(client.post(URL, json=BODY))
            await entered.wait()
            refused, health = await client.post(URL, json=BODY), await client.get("/healthz")
            leave.set()
            return await first, refused, health, await client.post(URL, json=BODY)

    first, refused, health, later = asyncio.run(scene())
    assert_problem(refused, 503)
    assert (first.status_code, health.status_code, later.status_code) == (200, 200, 200)


def test_documentation_names_the_degraded_answer_and_the_problems() -> None:
    schema = send(api(), "GET", "/openapi.json").json()
    assert "degraded" in schema["components"]["schemas"]["DiagnoseResponse"]["required"]
    responses = schema["paths"][URL]["post"]["responses"]
    assert {status: list(response["content"]) for status, response in responses.items() if status != "200"} == {
        status: ["application/problem+json"] for status in ("422", "500", "502", "503", "504")
    }
