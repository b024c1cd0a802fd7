"""Limits of the whole endpoint: batches beside single patients, uploads, time, and what is recorded and counted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.serving.keys import Key, Keyring, digest_of, new_token
from clinical_reasoner.serving.panel import Reply
from serve import slice_routes
from serve.access import Door
from serve.api import build_api
from serve.desk import MOST_BATCHES, Desk
from tests.unit.serve.desks import client_of, records_in, send
from tests.unit.serve.test_api import BODY, CANARY, SURE, URL, assert_problem, desk_of, hangs

LINE = json.dumps({**BODY, "model": "student"}) + "\n"
FORM = {"content-type": "multipart/form-data; boundary=xyz"}


def limited(desk: Desk) -> dict[str, float]:
    lines = desk.meters.exposition().decode().splitlines()
    found = [line for line in lines if line.startswith("clinical_reasoner_limited_total{")]
    return {line.split('limit="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}


def test_a_batch_leaves_places_for_single_patients(tmp_path: Path) -> None:
    async def scene() -> httpx.Response:
        leave = asyncio.Event()
        said: list[Any] = []

        async def waits() -> Reply:
            said.append(None)
            if len(said) == 1:
                await leave.wait()
            return SURE

        async with client_of(build_api(desk_of(tmp_path, waits, max_ongoing_requests=2))) as client:
            batch = asyncio.create_task(client.post(f"{URL}/batch", content=LINE * 4))
            while not said:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(said) == 1
            single = await client.post(URL, json=BODY)
            leave.set()
            assert (await batch).text.count('"status":200') == 4
            return single

    assert asyncio.run(scene()).status_code == 200


def test_one_batch_too_many_is_refused_before_its_body_and_its_place_comes_back(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async def scene() -> tuple[httpx.Response, list[int]]:
        async with client_of(build_api(desk)) as client:
            for _ in range(MOST_BATCHES):
                await desk.batches.acquire()
            refused = await client.post(f"{URL}/batch", content=never())
            desk.batches.release()
            return refused, [(await client.post(f"{URL}/batch", content=LINE)).status_code for _ in range(3)]

    refused, later = asyncio.run(scene())
    assert_problem(refused, 503)
    assert later == [200] * 3
    assert limited(desk) == {"places": 1}


@pytest.mark.parametrize("path", [URL, "/v1/slices"])
def test_an_upload_too_many_is_refused_before_its_body(path: str, tmp_path: Path) -> None:
    desk = desk_of(tmp_path, uploads={"at_a_time": 1, "max_waiting": 0})

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    with desk.scans.place():
        assert_problem(send(build_api(desk), "POST", path, content=never(), headers=FORM), 503)
    assert limited(desk) == {"places": 1}
    assert [(row.status, row.outcome) for row in records_in(tmp_path)] == [(503, "refused")]


@pytest.mark.parametrize("path", [URL, f"{URL}/batch", "/v1/slices", "/v1/chat/completions", "/fhir/$diagnose"])
def test_a_client_that_leaves_while_its_body_is_read_is_recorded(path: str, tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        yield b"--xyz"
        await asyncio.sleep(60)

    async def scene() -> None:
        kind = FORM if path == "/v1/slices" else {"content-type": "application/json"}
        async with client_of(build_api(desk_of(tmp_path))) as client:
            request = asyncio.create_task(client.post(path, content=slow(), headers=kind))
            await begun.wait()
            await asyncio.sleep(0.05)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request

    begun = asyncio.Event()
    asyncio.run(scene())
    assert [(row.status, row.outcome) for row in records_in(tmp_path)] == [(499, "cancelled")]


@pytest.mark.parametrize("keyless", [False, True])
def test_what_the_door_turns_away_is_counted_and_recorded_where_the_key_is_known(keyless: bool, tmp_path: Path) -> None:
    token, desk = new_token(), desk_of(tmp_path)
    keys = Keyring((Key(id="ward", sha256=digest_of(token), requests_per_minute=1),))
    desk.door = Door(ServingConfig(), keys)
    headers = {} if keyless else {"authorization": f"Bearer {token}"}
    app = build_api(desk)
    paths = (URL, "/fhir/$diagnose", "/v1/chat/completions")
    statuses = [send(app, "POST", path, json=BODY, headers=headers).status_code for path in paths]
    assert statuses == ([401] * 3 if keyless else [200, 429, 429])
    assert limited(desk) == ({"key": 3} if keyless else {"rate": 2})
    rows = [(row.form, row.status, row.key_id) for row in records_in(tmp_path)]
    assert rows == ([] if keyless else [("diagnose", 200, "ward"), ("fhir", 429, "ward"), ("chat", 429, "ward")])


def test_the_time_of_the_body_counts(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.8)
        yield LINE.encode()

    async def scene() -> float:
        async with client_of(build_api(desk_of(tmp_path, hangs, request_timeout_s=1))) as client:
            started = asyncio.get_running_loop().time()
            assert_problem(await client.post(URL, content=slow()), 504)
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(scene()) < 1.5


def test_an_item_of_a_batch_has_its_time_from_its_place_on(tmp_path: Path) -> None:
    async def takes_time() -> Reply:
        await asyncio.sleep(0.4)
        return SURE

    app = build_api(desk_of(tmp_path, takes_time, request_timeout_s=1, max_ongoing_requests=2))
    answer = send(app, "POST", f"{URL}/batch", content=LINE * 4)
    assert answer.text.count('"status":200') == 4


def test_an_error_outside_of_the_answer_keeps_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desk_of(tmp_path)

    def fails(*_: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(desk.meters, "exposition", fails)
    monkeypatch.setattr(slice_routes, "read_parts", fails)
    with caplog.at_level(logging.DEBUG):
        assert_problem(send(build_api(desk), "GET", "/metrics"), 500)
        assert_problem(send(build_api(desk), "POST", "/v1/slices", content=b"", headers=FORM), 500)
    assert CANARY not in caplog.text
    assert [(row.form, row.status, row.outcome) for row in records_in(tmp_path)] == [("slices", 500, "failed")]


def test_a_stream_that_breaks_on_the_way_ends_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> str:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("serve.diagnose_routes._line", fails)
    with caplog.at_level(logging.DEBUG):
        response = send(build_api(desk_of(tmp_path)), "POST", URL, params={"stream": True}, json=BODY)
    assert response.text.startswith("event: problem") and CANARY not in response.text + caplog.text
