"""The door over real HTTP requests in memory: who is let in, and what a refusal says."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.serving.keys import ALL_MODELS, Key, Keyring, digest_of, new_token
from serve.access import ANONYMOUS, FAILURES_PER_MINUTE, Caller, Door
from serve.problems import Refused, problem_docs, respond

GOOD, STUDENT, OLD = new_token(), new_token(), new_token()
KEYRING = Keyring(
    (
        Key(id="good", sha256=digest_of(GOOD), requests_per_minute=5),
        Key(id="student-only", sha256=digest_of(STUDENT), models=("student",), requests_per_minute=100),
        Key(id="old", sha256=digest_of(OLD), expires=date(2026, 1, 1)),
    )
)
# No `from __future__ import annotations` here: FastAPI reads the dependency, which is made at run time.

Headers = list[tuple[bytes, bytes]]


@dataclass
class Clock:
    seconds: float = 0.0
    day: datetime = field(default_factory=lambda: datetime(2026, 6, 1, tzinfo=UTC))

    def door(self, keyring: Keyring | None = KEYRING) -> Door:
        return Door(ServingConfig(), keyring, clock=lambda: self.seconds, now=lambda: self.day)


def api_of(door: Door) -> FastAPI:
    api = FastAPI()

    async def refused(_: Any, error: Exception) -> Any:
        assert isinstance(error, Refused)
        return respond(error.problem, error.headers)

    api.add_exception_handler(Refused, refused)

    @api.get("/who", responses=problem_docs(401, 403, 429))
    async def who(
        caller: Annotated[Caller, Depends(door.enter)], model: str = "student", patients: int = 0
    ) -> dict[str, str]:
        door.require_model(caller, model)
        if patients:
            door.charge(caller, patients)
        return {"key": caller.key_id}

    return api


def call(door: Door, headers: Headers, query: str = "", times: int = 1) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api_of(door)), base_url="http://x") as client:
            return [await client.get(f"/who{query}", headers=headers) for _ in range(times)]

    return asyncio.run(send())


def bearer(token: str) -> Headers:
    return [(b"authorization", f"Bearer {token}".encode())]


@pytest.mark.parametrize(
    "headers",
    [
        bearer(GOOD),
        [(b"Authorization", f"bearer {GOOD}".encode())],
        [(b"authorization", f"BEARER {GOOD}".encode())],
        [(b"x-api-key", GOOD.encode())],
        [(b"X-API-Key", GOOD.encode())],
    ],
)
def test_good_key_is_let_in(headers: Headers) -> None:
    [response] = call(Clock().door(), headers)
    assert (response.status_code, response.json()) == (200, {"key": "good"})


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", f"Bearer  {GOOD}".encode())],
        [(b"authorization", f"Bearer {GOOD} {GOOD}".encode())],
        [(b"authorization", f"Bearer {GOOD},".encode())],
        [(b"authorization", f"Basic {GOOD}".encode())],
        [(b"authorization", GOOD.encode())],
        [(b"authorization", f"Bearer\t{GOOD}".encode())],
        [(b"authorization", b"Bearer \xff\xfe\xe9")],
        [(b"authorization", "Bearer ключ".encode())],
        [(b"authorization", b"Bearer " + b"a" * 60_000)],
        [(b"x-api-key", f"Bearer {GOOD}".encode())],
        [(b"x-api-key", b"")],
        [*bearer(GOOD), *bearer(GOOD)],
        [*bearer("x"), *bearer(GOOD)],
        [*bearer(GOOD), (b"x-api-key", GOOD.encode())],
        [(b"x-api-key", GOOD.encode()), (b"x-api-key", GOOD.encode())],
        bearer(GOOD[:-1]),
        bearer(GOOD + "a"),
        bearer(GOOD.swapcase()),
        bearer(digest_of(GOOD)),
        bearer(OLD),
        bearer(new_token()),
    ],
)
def test_anything_else_is_answered_401_and_repeats_nothing(headers: Headers) -> None:
    [response] = call(Clock().door(), headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["status"] == 401
    for _, value in headers:
        sent = value.decode("latin-1").removeprefix("Bearer").strip()
        assert not sent or sent not in response.text


def test_expiry_counts_from_the_day_on() -> None:
    clock = Clock(day=datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC))
    door = clock.door()
    assert call(door, bearer(OLD))[0].status_code == 200
    clock.day = datetime(2026, 1, 1, tzinfo=UTC)
    assert call(door, bearer(OLD))[0].status_code == 401


def test_models_without_a_right_are_answered_403_and_the_rights_are_named() -> None:
    door = Clock().door()
    [response] = call(door, bearer(STUDENT), "?model=auto")
    assert response.status_code == 403
    assert response.json()["detail"].endswith(": student")
    assert call(door, bearer(STUDENT), "?model=student")[0].status_code == 200
    for model in ALL_MODELS:
        assert call(door, bearer(GOOD), f"?model={model}")[0].status_code == 200


def test_exactly_the_rate_passes_and_the_next_says_when() -> None:
    clock = Clock()
    door = clock.door()
    responses = call(door, bearer(GOOD), times=7)
    assert [one.status_code for one in responses] == [200] * 5 + [429] * 2
    assert responses[-1].headers["retry-after"] == "12"
    clock.seconds = 11.9
    assert call(door, bearer(GOOD))[0].status_code == 429
    clock.seconds = 12.0
    assert [one.status_code for one in call(door, bearer(GOOD), times=2)] == [200, 429]
    assert call(door, bearer(STUDENT))[0].status_code == 200, "each key has its own rate"


def test_batch_is_charged_for_each_patient_and_its_first_request_counts_once() -> None:
    clock = Clock()
    door = clock.door()
    [first] = call(door, bearer(GOOD), "?patients=5")
    assert first.status_code == 200, "five patients, five requests"
    [second] = call(door, bearer(GOOD), "?patients=2")
    assert second.status_code == 429
    clock.seconds = 24
    [third] = call(door, bearer(GOOD), "?patients=2")
    assert third.status_code == 200


def test_failures_are_limited_and_good_keys_are_not_held_up() -> None:
    clock = Clock()
    door = clock.door()
    statuses = [one.status_code for one in call(door, bearer("guess"), times=FAILURES_PER_MINUTE + 3)]
    assert statuses == [401] * FAILURES_PER_MINUTE + [429] * 3
    refused = call(door, [])[0]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert call(door, bearer(GOOD))[0].status_code == 200
    clock.seconds = 1.0
    assert call(door, bearer("guess"))[0].status_code == 401


def test_replaced_keys_hold_at_once_and_what_was_spent_stays_spent() -> None:
    door = Clock().door()
    assert [one.status_code for one in call(door, bearer(GOOD), times=5)] == [200] * 5
    new = new_token()
    door.replace(Keyring((KEYRING.keys[0], Key(id="new", sha256=digest_of(new)))))
    assert call(door, bearer(new))[0].status_code == 200
    assert call(door, bearer(STUDENT))[0].status_code == 401
    assert call(door, bearer(GOOD))[0].status_code == 429


def test_batch_of_a_key_that_has_gone_meanwhile_is_refused() -> None:
    door = Clock().door()
    with pytest.raises(Refused) as caught:
        door.charge(Caller("gone", frozenset()), 3)
    assert caught.value.problem.status == 401


def test_without_keys_everybody_is_let_in_as_often_as_they_like() -> None:
    door = Clock().door(keyring=None)
    for headers in ([], bearer("EMPTY"), [*bearer("a"), *bearer("b")]):
        responses = call(door, headers, "?model=teacher&patients=1000", times=200)
        assert {(one.status_code, one.json()["key"]) for one in responses} == {(200, ANONYMOUS)}
    with pytest.raises(ValueError, match=r"serving\.api_keys"):
        door.replace(KEYRING)


def test_door_does_not_open_where_the_keys_that_were_asked_for_are_missing() -> None:
    with pytest.raises(ValueError, match=r"serving\.api_keys"):
        Door(ServingConfig(api_keys="keys.yaml"), None)


def test_documentation_asks_for_a_key_exactly_where_one_is_needed() -> None:
    schema = api_of(Clock().door()).openapi()
    assert schema["paths"]["/who"]["get"]["security"] == [{"bearer": []}, {"apiKey": []}]
    schemes = schema["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["apiKey"]["type"], schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == (
        "apiKey",
        "header",
        "x-api-key",
    )
    parameters = schema["paths"]["/who"]["get"]["parameters"]
    assert {one["name"] for one in parameters} == {"model", "patients"}
    opened = api_of(Clock().door(keyring=None)).openapi()
    assert "security" not in opened["paths"]["/who"]["get"]
