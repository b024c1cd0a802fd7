"""The HTTP side over engines that are plain objects: statuses, limits, records, and no patient in any error."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel, Reply, student_role, teacher_role
from clinical_reasoner.serving.schema import AnsweredBy
from serve.api import build_api
from serve.desk import Desk
from tests.unit.conftest import student_of
from tests.unit.serve.desks import client_of, plain_desk, records_in, send
from tests.unit.serving.engines import RATIONALE, TASK, PlainEngine, Said, reply
from tests.unit.serving.upload_files import png

PANEL = Panel(
    TASK, student_role(student_of("label_only")), teacher_role("someone/teacher", NO_EXEMPLARS), threshold=0.8
)
CANARY = "Zebulon"
BODY = {"description": f"{CANARY} is a beekeeper.", "model": "auto"}
URL = "/v1/diagnose"
SURE, UNSURE, TEACHER = reply("direct", "AD", 0.9), reply("direct", "AD", 0.5), reply("diagnose", "AD", 0.7)
SURE_TEACHER = reply("diagnose", "AD", 0.85)
BOTH_UNSURE = "; teacher unsure: 0.70 < 0.80; refer to a clinician"
MUMBLE = Reply(f"{CANARY} may have it.")


async def hangs() -> Reply:
    await asyncio.sleep(60)
    raise AssertionError("it was waited for")


def refuses(role: AnsweredBy, status: int) -> Exception:
    return ModelUnavailableError(role, status, "no answer")


def desk_of(
    folder: Path,
    student: Said = SURE,
    teacher: Said = TEACHER,
    running: tuple[bool, bool] = (True, True),
    **limits: Any,
) -> Desk:
    engines: Any = {"student": PlainEngine(student, running[0]), "teacher": PlainEngine(teacher, running[1])}
    return plain_desk(PANEL, engines, folder, **limits)


def api(folder: Path, *args: Any, **kwargs: Any) -> FastAPI:
    return build_api(desk_of(folder, *args, **kwargs))


def assert_problem(response: httpx.Response, status: int) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["status"] == status
    assert CANARY not in response.text
    assert (response.headers.get("retry-after") is not None) == (status == 503)


def events_in(text: str) -> list[tuple[str, Any]]:
    """Names and contents of server-sent events."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.mark.parametrize(
    ("student", "teacher", "answered_by", "routing", "degraded", "refer"),
    [
        (SURE, refuses("teacher", 503), "student", "student confident: 0.90 >= 0.80", False, False),
        (UNSURE, SURE_TEACHER, "teacher", "student below threshold: 0.50 < 0.80", False, False),
        (UNSURE, TEACHER, "teacher", f"student below threshold: 0.50 < 0.80{BOTH_UNSURE}", False, True),
        (refuses("student", 503), SURE_TEACHER, "teacher", "student not available", False, False),
        (refuses("student", 422), TEACHER, "teacher", f"student not available{BOTH_UNSURE}", False, True),
        (
            UNSURE, refuses("teacher", 503),
            "student", "student below threshold: 0.50 < 0.80; teacher not available", True, True,
        ),
    ],
)  # fmt: skip
def test_auto_answers_while_one_model_does(
    tmp_path: Path, student: Said, teacher: Said, answered_by: str, routing: str, degraded: bool, refer: bool
) -> None:
    response = send(api(tmp_path, student, teacher), "POST", URL, json=BODY)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["answered_by"], answer["routing"], answer["degraded"]) == (answered_by, routing, degraded)
    assert answer["refer"] == refer


def test_a_teacher_that_is_too_slow_leaves_the_student(tmp_path: Path) -> None:
    answer = send(api(tmp_path, UNSURE, hangs, request_timeout_s=0.4), "POST", URL, json=BODY).json()
    assert (answer["answered_by"], answer["degraded"]) == ("student", True)


@pytest.mark.parametrize(
    ("model", "student", "teacher", "status", "detail"),
    [
        ("auto", refuses("student", 502), refuses("teacher", 503), 503, "teacher: no answer"),
        ("auto", refuses("student", 503), refuses("teacher", 502), 502, "teacher: no answer"),
        ("auto", refuses("student", 503), MUMBLE, 502, "teacher: the answer could not be read: no diagnosis line"),
        ("student", refuses("student", 503), TEACHER, 503, "student: no answer"),
        ("student", refuses("student", 422), TEACHER, 422, "student: no answer"),
        ("teacher", SURE, hangs, 504, "teacher: no answer within 0.2 s"),
        ("student", RuntimeError(f"prompt: {CANARY}"), TEACHER, 500, "the log has the kind"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_are_problems(
    tmp_path: Path,
    model: str,
    student: Said,
    teacher: Said,
    status: int,
    detail: str,
    stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = api(tmp_path, student, teacher, request_timeout_s=0.2)
    with caplog.at_level(logging.DEBUG):
        response = send(app, "POST", URL, params={"stream": stream}, json={**BODY, "model": model})
    if stream and "could not be read" in detail:  # its words were sent before
        assert response.status_code == 200
        name, problem = events_in(response.text)[-1]
        assert (name, problem["status"]) == ("problem", status)
    else:
        assert_problem(response, status)
        problem = response.json()
    assert CANARY not in json.dumps(problem)
    assert detail in problem["detail"]
    expected = [{"field": "description", "message": "no answer"}] if status == 422 else []
    assert problem["errors"] == expected
    assert CANARY not in caplog.text
    (row,) = records_in(tmp_path)
    assert (row.status, row.outcome, row.model_asked) == (status, "failed", model)
    assert row.form == ("stream" if stream else "diagnose")
    assert row.reason and CANARY not in row.model_dump_json()


def test_a_stream_tells_what_the_whole_answer_has(tmp_path: Path) -> None:
    app = api(tmp_path, UNSURE, TEACHER)
    events = events_in(send(app, "POST", URL, params={"stream": True}, json=BODY).text)
    assert [name for name, _ in events if name != "text"] == [
        "tier", "probabilities", "tier", "probabilities", "answer",
    ]  # fmt: skip
    assert "".join(data["text"] for name, data in events if name == "text") == RATIONALE
    whole = send(app, "POST", URL, json=BODY).json()
    (streamed,) = (data for name, data in events if name == "answer")
    assert {**streamed, "request_id": ""} == {**whole, "request_id": ""}


def test_every_answer_is_recorded_without_its_patient(tmp_path: Path) -> None:
    app = api(tmp_path, UNSURE, TEACHER)
    request_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    answer = send(app, "POST", URL, json=BODY, headers={"x-request-id": request_id}).json()
    (row,) = records_in(tmp_path)
    assert answer["request_id"] == row.request_id == request_id
    assert (row.status, row.outcome, row.form, row.key_id) == (200, "answered", "diagnose", "anonymous")
    assert (row.answered_by, row.routing, row.diagnosis) == ("teacher", "student_unsure", answer["diagnosis"])
    assert row.probabilities and sum(one.probability for one in row.probabilities) == pytest.approx(1)
    assert row.prompt_tokens == 200
    assert row.input_hmac and CANARY not in row.model_dump_json()


@pytest.mark.parametrize("given", [CANARY, "", "a" * 500, "0f8fad5b-d9cb-469f-a165-70867728950e "])
def test_a_request_id_that_is_no_uuid_is_replaced(tmp_path: Path, given: str) -> None:
    answer = send(api(tmp_path), "POST", URL, json=BODY, headers={"x-request-id": given}).json()
    assert len(answer["request_id"]) == 36 and CANARY not in answer["request_id"]


def test_nothing_is_answered_where_nothing_can_be_recorded(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    journal = tmp_path / "audit/journal"
    for file in journal.glob("*") if journal.is_dir() else ():
        file.unlink()
    if journal.is_dir():
        journal.rmdir()
    journal.parent.mkdir(exist_ok=True)
    journal.write_text("in the way")
    response = send(build_api(desk), "POST", URL, json=BODY)
    assert_problem(response, 503)
    assert "recorded" in response.json()["detail"]
    counted = desk.meters.exposition().decode()
    assert 'status="503"' in counted and 'status="200"' not in counted
    assert "clinical_reasoner_answers_total{" not in counted


BAD_BODIES: list[tuple[bytes, str, str]] = [
    (b'{"description": "Zebulon', "(body)", "not valid JSON"),
    (b"", "(body)", "not valid JSON"),
    (b"null", "(body)", "JSON object"),
    (b'{"description": "Zebulon \xff"}', "(body)", "not valid JSON"),
    (b'{"description": ' + b"[" * 100_000 + b'"Zebulon"', "(body)", "not valid JSON"),
    (b'{"patient": {"mmse": ' + b"1" * 5000 + b"}}", "(body)", "not valid JSON"),
    (b'"Zebulon"', "(body)", "JSON object"),
    (b'{"description": "Zebulon \\ud800"}', "(body)", "not valid JSON"),
    (b'{"patient": {"mmse": "Zebulon"}}', "patient.mmse", "should be a"),
    (b'{"patient": {"mmse": NaN}}', "patient.mmse", "should be a"),
    (b'{"patient": {"findings": {"Zebulon!": "No"}}}', "patient.findings.(unknown)", "should be"),
]


@pytest.mark.parametrize(("content", "field", "message"), BAD_BODIES)
def test_bodies_that_cannot_be_used(tmp_path: Path, content: bytes, field: str, message: str) -> None:
    response = send(api(tmp_path), "POST", URL, content=content, headers={"content-type": "application/json"})
    assert_problem(response, 422)
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert message in error["message"]
    (row,) = records_in(tmp_path)
    assert (row.outcome, row.status, row.reason) == ("refused", 422, "invalid")


def test_the_hash_of_the_input_changes_with_the_picture(tmp_path: Path) -> None:
    app = api(tmp_path)
    pictures = [png(9, 7), png(9, 7), png(7, 9)]
    for picture in pictures:
        form = {"files": {"slices": ("x.png", picture)}, "data": {"request": json.dumps(BODY)}}
        response = send(app, "POST", URL, **form)
        assert response.status_code == 200, response.text
    send(app, "POST", URL, json=BODY)
    first, again, other, without = [row.input_hmac for row in records_in(tmp_path)]
    assert first == again
    assert len({first, other, without}) == 3


def test_a_body_of_many_wrong_keys_has_a_short_answer(tmp_path: Path) -> None:
    content = json.dumps({f"key_{number}": 1 for number in range(1000)})
    response = send(api(tmp_path), "POST", URL, content=content)
    assert_problem(response, 422)
    assert len(response.json()["errors"]) == 51
    assert "key_" not in response.text


WRONG_FINDINGS = {"patient": {"findings": {f"key_{number}": 1 for number in range(3000)}}}
"""Telling what is wrong with each takes seconds for as many as fit into the size of a body."""


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (URL, {"json": WRONG_FINDINGS}),
        (URL, {"content": b'{"model": "auto"' + b', "model": "auto"' * 3000 + b"}"}),
        (URL, {"files": {"slices": png(9, 7)}, "data": {"request": json.dumps(WRONG_FINDINGS)}}),
        ("/v1/slices", {"files": {"slices": png(9, 7)}, "data": {"request": json.dumps(WRONG_FINDINGS)}}),
        ("/v1/chat/completions", {"json": {**WRONG_FINDINGS, "model": "student"}}),
    ],
)
def test_a_body_of_too_many_fields_is_refused_unread(tmp_path: Path, path: str, request_: dict[str, Any]) -> None:
    response = send(api(tmp_path), "POST", path, **request_)
    assert response.status_code == 413
    assert "more than 2000 fields" in response.text and "key_" not in response.text
    (row,) = records_in(tmp_path)
    assert (row.outcome, row.reason) == ("refused", "too_large")


def test_a_line_of_too_many_fields_leaves_the_others(tmp_path: Path) -> None:
    content = f"{json.dumps(WRONG_FINDINGS)}\n{json.dumps(BODY)}"
    response = send(api(tmp_path), "POST", f"{URL}/batch", content=content)
    assert [line["status"] for line in lines_of(response)] == [413, 200]


def test_a_body_beyond_its_size_is_not_read(tmp_path: Path) -> None:
    app = api(tmp_path, max_body_mib=0.01)
    assert_problem(send(app, "POST", URL, content=b'{"description": "' + b"a" * 20_000), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", URL, 405), ("POST", f"/{CANARY}", 404), ("POST", f"{URL}/", 404)]
)
def test_other_refusals(tmp_path: Path, method: str, path: str, status: int) -> None:
    """With `/` at the end too: a redirect would name http:// behind a proxy with TLS, and the patient follow it."""
    assert_problem(send(api(tmp_path), method, path, json=BODY), status)


@pytest.mark.parametrize(
    ("running", "status", "said"),
    [
        ((True, True), 200, {"status": "ok", "student": "ok", "teacher": "ok"}),
        ((False, True), 200, {"status": "degraded", "student": "stopped", "teacher": "ok"}),
        ((True, False), 200, {"status": "degraded", "student": "ok", "teacher": "stopped"}),
        ((False, False), 503, {}),
    ],
)
def test_health(tmp_path: Path, running: tuple[bool, bool], status: int, said: dict[str, str]) -> None:
    app = api(tmp_path, running=running)
    response = send(app, "GET", "/healthz")
    assert response.status_code == status
    assert response.json().items() >= said.items()
    assert send(app, "GET", "/readyz").status_code == status


def test_it_is_not_ready_before_its_engines_are_warm(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.warm = False
    app = build_api(desk)
    assert_problem(send(app, "GET", "/readyz"), 503)
    desk.warm = True
    assert send(app, "GET", "/readyz").json() == {"status": "ready"}


def test_a_full_endpoint_refuses_patients_and_is_healthy(tmp_path: Path) -> None:
    async def scene() -> list[httpx.Response]:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def waits() -> Reply:
            entered.set()
            await leave.wait()
            return SURE

        async with client_of(api(tmp_path, waits, max_ongoing_requests=1)) as client:
            first = asyncio.create_task(client.post(URL, json=BODY))
            await entered.wait()
            refused = await client.post(URL, json=BODY)
            streamed = await client.post(URL, params={"stream": True}, json=BODY)
            health = await client.get("/healthz")
            leave.set()
            return [await first, refused, streamed, health, await client.post(URL, json=BODY)]

    first, refused, streamed, health, later = asyncio.run(scene())
    assert_problem(refused, 503)
    assert_problem(streamed, 503)
    assert (first.status_code, health.status_code, later.status_code) == (200, 200, 200)


def lines_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_batch_is_answered_in_its_order_line_by_line(tmp_path: Path) -> None:
    bodies = [{"patient": {"mmse": number}, "model": "student"} for number in (10, 99, 20)]
    lines = [*(json.dumps(body) for body in bodies), "", "{not json", json.dumps(BODY)]
    response = send(api(tmp_path), "POST", f"{URL}/batch", content="\n".join(lines))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    answers = lines_of(response)
    assert [line["index"] for line in answers] == [0, 1, 2, 3, 4]
    assert [line["status"] for line in answers] == [200, 422, 200, 422, 200]
    assert answers[1]["problem"]["errors"][0]["field"] == "patient.mmse"
    assert answers[4]["answer"]["diagnosis"] == "AD"
    rows = records_in(tmp_path)
    assert sorted((row.item, row.status) for row in rows) == [(0, 200), (1, 422), (2, 200), (3, 422), (4, 200)]
    assert len({row.request_id for row in rows}) == 1


@pytest.mark.parametrize(("content", "status"), [(b"", 422), (b"\n \n", 422), (b"{}\n" * 11, 413)])
def test_batches_that_cannot_be_used(tmp_path: Path, content: bytes, status: int) -> None:
    assert_problem(send(api(tmp_path, max_batch=10), "POST", f"{URL}/batch", content=content), status)


def test_a_batch_works_on_a_few_at_a_time(tmp_path: Path) -> None:
    now, most = 0, 0

    async def counts() -> Reply:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return SURE

    content = "\n".join(json.dumps({"patient": {"mmse": 20}, "model": "student"}) for _ in range(12))
    response = send(api(tmp_path, counts, batch_at_a_time=4), "POST", f"{URL}/batch", content=content)
    assert [line["status"] for line in lines_of(response)] == [200] * 12
    assert most == 4


def test_documentation_is_whole(tmp_path: Path) -> None:
    schema = send(api(tmp_path), "GET", "/openapi.json").json()
    schemas = schema["components"]["schemas"]
    assert {"degraded", "refer", "prediction_set"} <= set(schemas["DiagnoseResponse"]["required"])
    operation = schema["paths"][URL]["post"]
    body = operation["requestBody"]["content"]
    assert body["application/json"]["schema"]["$ref"].rpartition("/")[2] in schemas
    assert set(body["application/json"]["examples"]) == {"patient", "description"}
    assert "multipart/form-data" in body
    assert {"application/json", "text/event-stream"} <= set(operation["responses"]["200"]["content"])
    for path in (URL, "/v1/chat/completions"):
        content = schema["paths"][path]["post"]["responses"]["200"]["content"]
        event = content["text/event-stream"]["schema"]
        assert event["type"] == "object" and "data" in event["required"], "what a reader of the stream gets"
    for status, response in operation["responses"].items():
        if status != "200":
            assert list(response["content"]) == ["application/problem+json"], status
    named = json.dumps(schema).split('"#/components/schemas/')[1:]
    assert {text.split('"')[0] for text in named} <= set(schemas)


def test_documentation_and_page_can_be_switched_off(tmp_path: Path) -> None:
    app = api(tmp_path, docs=False, page=False)
    assert [send(app, "GET", path).status_code for path in ("/openapi.json", "/docs", "/")] == [404, 404, 404]
