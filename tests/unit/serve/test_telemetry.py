from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics_routes import add_metrics_routes
from serve.telemetry import SECONDS, Meters


def values_of(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(meters: Meters, name: str, **labels: str) -> float | None:
    found = values_of(meters.exposition().decode())
    return found.get((f"clinical_reasoner_{name}", frozenset({"replica": "r1", **labels}.items())))


def test_ended_requests_are_counted_and_timed() -> None:
    meters = Meters("r1")
    meters.ended("diagnose", 200, 0.2, "student")
    meters.ended("diagnose", 200, 3.0, "teacher")
    meters.ended("batch", 503, 0.01)
    assert value(meters, "requests_total", form="diagnose", status="200") == 2
    assert value(meters, "requests_total", form="batch", status="503") == 1
    assert value(meters, "request_seconds_count", form="diagnose", tier="student") == 1
    assert value(meters, "request_seconds_sum", form="diagnose", tier="teacher") == 3.0
    assert value(meters, "request_seconds_bucket", form="diagnose", tier="student", le="0.1") == 0
    assert value(meters, "request_seconds_bucket", form="diagnose", tier="student", le="0.25") == 1
    assert value(meters, "request_seconds_count", form="batch", tier="none") == 1
    assert list(SECONDS) == sorted(SECONDS)


def test_cascade_can_be_read_from_the_answers() -> None:
    meters = Meters("r1")
    for _ in range(3):
        meters.answered("diagnose", "auto", "student")
    meters.answered("stream", "auto", "teacher", refer=True)
    meters.answered("diagnose", "auto", "student", degraded=True)
    meters.answered("chat", "teacher", "teacher")
    assert value(meters, "answers_total", form="diagnose", asked="auto", tier="student", degraded="false") == 3
    assert value(meters, "answers_total", form="stream", asked="auto", tier="teacher", degraded="false") == 1
    assert value(meters, "answers_total", form="diagnose", asked="auto", tier="student", degraded="true") == 1
    assert value(meters, "answers_total", form="chat", asked="teacher", tier="teacher", degraded="false") == 1
    assert value(meters, "referred_total", tier="teacher") == 1
    assert value(meters, "referred_total", tier="student") is None


def test_models_limits_and_tokens_are_counted() -> None:
    meters = Meters("r1", {"student": "rationale_then_label", "teacher": "someone/teacher"})
    meters.unavailable("teacher", 503)
    meters.limited("rate")
    meters.limited("rate")
    meters.generated("student", "completion", 140)
    meters.generated("student", "completion", 2)
    meters.generated("student", "prompt", 200)
    assert value(meters, "model_unavailable_total", tier="teacher", status="503") == 1
    assert value(meters, "limited_total", limit="rate") == 2
    assert value(meters, "tokens_total", tier="student", kind="completion") == 142
    assert value(meters, "tokens_total", tier="student", kind="prompt") == 200
    assert value(meters, "model", tier="teacher", model="someone/teacher") == 1


def test_requests_in_work_are_counted_down_also_where_they_fail() -> None:
    meters = Meters("r1")

    def fail() -> None:
        with meters.working("fhir"):
            assert value(meters, "in_work", form="fhir") == 2
            raise RuntimeError

    with meters.working("fhir"):
        assert value(meters, "in_work", form="fhir") == 1
        with pytest.raises(RuntimeError):
            fail()
        assert value(meters, "in_work", form="fhir") == 1
    assert value(meters, "in_work", form="fhir") == 0


def test_two_replicas_keep_their_numbers_apart() -> None:
    one, two = Meters("r1"), Meters("r2")
    one.limited("places")
    assert "limited_total{" not in two.exposition().decode()
    assert value(one, "limited_total", limit="places") == 1


@dataclass(frozen=True)
class Counted:
    meters: Meters


def test_route_shows_the_metrics_and_is_not_documented() -> None:
    meters = Meters("r1")
    api = FastAPI()
    add_metrics_routes(api, Counted(meters))
    meters.ended("chat", 200, 1.0)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://x") as client:
            return await client.get("/metrics")

    response = asyncio.run(get())
    assert (response.status_code, response.content) == (200, meters.exposition())
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert values_of(response.text)
    assert "/metrics" not in api.openapi()["paths"]
