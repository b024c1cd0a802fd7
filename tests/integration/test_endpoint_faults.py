"""The endpoint under more load than it can take, with engines that hang and engines that are killed."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import httpx
import pytest

from tests.integration.endpoint_load import Load, load, percentile, sampled
from tests.integration.endpoint_run import (
    CANARY,
    CAPACITY,
    TIMEOUT_S,
    Endpoint,
    canary_patient,
    engine_processes,
    eventually,
    mib,
    patients,
    replica,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

OVERLOAD_S = float(os.environ.get("OVERLOAD_S", "15"))
"""60 for a figure to publish."""
SLOWEST_S = 10.0
"""Of an answer under overload: half of the time limit."""
GROWTH_MIB = 64.0
"""Of the HTTP side and both replicas of engines under overload: buffers of connections and Python's arenas, no more."""
RECOVERY_S = 180.0
MODELS = ("student", "teacher", "auto")


def bodies() -> list[dict[str, Any]]:
    return [{"patient": patient, "model": model} for patient in patients() for model in MODELS]


def memory(endpoint: Endpoint) -> float:
    """MiB of the processes that hold requests."""
    names = ("diagnosis", "engine-student", "engine-teacher")
    engines = [one for role in ("student", "teacher") for one in engine_processes(endpoint, role)]
    return sum(mib(one) for one in (*(replica(endpoint, name) for name in names), *engines))


def health(endpoint: Endpoint) -> dict[str, Any]:
    try:
        said: dict[str, Any] = endpoint.client.get("/healthz", timeout=10).json()
    except httpx.TransportError:
        return {}
    return said


def test_four_times_the_capacity_gives_answers_or_refusals_in_time_and_takes_no_memory(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    with load(endpoint.url, endpoint.headers(), bodies(), CAPACITY) as warm:
        time.sleep(5)
    assert set(warm.statuses()) == {200}, warm.statuses()
    before = memory(endpoint)
    with load(endpoint.url, endpoint.headers(), bodies(), 4 * CAPACITY) as over:
        used = sampled(lambda: memory(endpoint), OVERLOAD_S)
        healthy = health(endpoint)
    seconds = [outcome.seconds for outcome in over.good()]
    with capsys.disabled():
        print(
            f"\noverload: {4 * CAPACITY} clients for {OVERLOAD_S:g} s, {dict(over.statuses())}, answered p50 "
            f"{percentile(seconds, 0.5):.2f} s, p95 {percentile(seconds, 0.95):.2f} s, longest {max(seconds):.2f} s; "
            f"at capacity p50 {percentile([one.seconds for one in warm.good()], 0.5):.2f} s; "
            f"memory {before:.0f} MiB before, at most {max(used):.0f}, {used[-1]:.0f} at the end"
        )
    assert set(over.statuses()) <= {200, 429, 503} and over.statuses()[503] > 0
    assert all(int(one.retry_after or 0) >= 1 for one in over.outcomes if one.status != 200)
    assert max(seconds) < SLOWEST_S
    assert max(used) - before < GROWTH_MIB
    assert healthy["status"] == "ok", "an endpoint that is busy is not broken"
    assert endpoint.ask(patient=patients()[0], model="teacher").status_code == 200


def test_a_model_that_hangs_ends_at_the_time_limit(endpoint: Endpoint) -> None:
    """Its engine is stopped and goes on later, so that nothing is lost; the patient is the canary."""
    frozen = engine_processes(endpoint, "teacher")
    for process in frozen:
        process.suspend()
    try:
        started = time.monotonic()
        alone = endpoint.ask(**canary_patient(), model="teacher")
        waited = time.monotonic() - started
    finally:
        for process in frozen:
            process.resume()
    assert alone.status_code == 504 and CANARY not in alone.text
    assert alone.headers["content-type"] == "application/problem+json"
    assert TIMEOUT_S - 1 < waited < TIMEOUT_S + 3
    again = eventually(lambda: endpoint.ask(**canary_patient(), model="teacher").is_success, 60, "the teacher answers")
    assert again


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_killed_engine_gives_no_wrong_answer_and_comes_back(
    endpoint: Endpoint, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    eventually(lambda: health(endpoint).get("status") == "ok", RECOVERY_S, "both engines run")
    known = {
        (place, model): endpoint.ask(patient=patient, model=model).json()["diagnosis"]
        for place, patient in enumerate(patients())
        for model in ("student", "teacher")
    }
    told: list[str] = []
    asked = [*bodies(), *({**canary_patient(), "model": model} for model in MODELS)]
    with load(endpoint.url, endpoint.headers(), asked, 8) as running:
        time.sleep(2)
        killed_at = time.monotonic()
        for process in engine_processes(endpoint, role):
            os.kill(process.pid, signal.SIGKILL)

        def seen() -> str:
            told.append(str(health(endpoint).get(role)))
            return told[-1]

        eventually(lambda: seen() == "stopped", 60, f"/healthz says that the {role} is gone")
        eventually(lambda: seen() == "ok", RECOVERY_S, f"the {role} is back")
        back_s = time.monotonic() - killed_at
        eventually(lambda: answered_since(running, role, time.monotonic() - 5), 60, f"the {role} answers again")
    with capsys.disabled():
        print(f"\n{role}'s engine killed: {report(running, killed_at, back_s)}")
    assert set(running.statuses()) <= {200, 429, 502, 503}, running.statuses()
    wrong = [one for one in running.good() if one.place < len(bodies()) and not is_known(one, known)]
    assert wrong == []
    assert all(CANARY not in one.text for one in running.outcomes if one.status != 200)
    degraded = [one for one in running.good() if one.answer["degraded"]]
    assert all(
        (one.model, one.answer["answered_by"], one.answer["refer"]) == ("auto", "student", True) for one in degraded
    )
    stood_in = [one for one in running.good() if "student not available" in one.answer["routing"]]
    assert degraded if role == "teacher" else stood_in, "`auto` went on with the other model"
    assert endpoint.process.poll() is None


def answered_since(running: Load, role: str, moment: float) -> bool:
    return any(one.model == role and one.started > moment for one in running.good())


def is_known(outcome: Any, known: dict[tuple[int, str], str]) -> bool:
    """Whether the same model said the same about the same patient before the fault."""
    patient = outcome.place // len(MODELS)
    return bool(outcome.answer["diagnosis"] == known[patient, outcome.answer["answered_by"]])


def report(running: Load, killed_at: float, back_s: float) -> str:
    failed = [one for one in running.outcomes if one.status != 200]
    good = [one for one in running.good() if one.started > killed_at]
    degraded = sum(bool(one.answer["degraded"]) for one in good)
    return (
        f"{len(running.outcomes)} requests, {len(failed)} failed ({dict(running.statuses())}), {len(good)} answered "
        f"afterwards, {degraded} of them degraded; it was back after {back_s:.0f} s"
    )
