"""Hostile inputs, more than 200: each is refused with a reason, and the endpoint is afterwards what it was before."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.integration import hostile_files, hostile_http, hostile_json
from tests.integration.endpoint_run import Endpoint, eventually, mib, patients, replica
from tests.integration.hostile_case import Answer, Hostile, reason, send

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

CASES = [*hostile_json.cases(), *hostile_files.cases(), *hostile_http.cases()]
FAMILIES = sorted({case.family for case in CASES})
AT_A_TIME = 6
GROWTH_MIB = 48.0
"""Of the HTTP side, after inputs that ask for gigabytes: what Python's allocator keeps of the largest bodies."""


@dataclass(frozen=True)
class Sent:
    answers: list[tuple[Hostile, Answer]]
    seconds: float
    before_mib: float
    after_mib: float


@pytest.fixture(scope="module")
def sent(endpoint: Endpoint) -> Sent:
    """All of them, a few at a time, between two looks at the memory; the first ones warm up what is used later."""
    process = replica(endpoint, "diagnosis")
    for case in CASES[::40]:
        send(endpoint, case)
    before, started = mib(process), time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        answers = list(pool.map(lambda case: send(endpoint, case), CASES))
    seconds = time.monotonic() - started
    assert process.is_running(), "the HTTP side was started anew"
    return Sent(list(zip(CASES, answers, strict=True)), seconds, before, mib(process))


def test_there_are_at_least_200_that_differ() -> None:
    assert len({(case.content, case.raw, case.path, str(case.headers)) for case in CASES}) >= 200
    assert len(FAMILIES) >= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_each_is_refused_with_a_reason(sent: Sent, family: str) -> None:
    answers = [(case.name, answer) for case, answer in sent.answers if case.family == family]
    wrong = [
        (name, answer.status, answer.text[:200])
        for name, answer in answers
        if not 400 <= answer.status < 500 or not reason(answer)
    ]
    assert wrong == []


def test_no_answer_repeats_what_was_sent(sent: Sent) -> None:
    orders = ("passwd", "DROP TABLE", "jndi", "ignore all previous", "__globals__", "evil")
    assert [case.name for case, answer in sent.answers for order in orders if order in answer.text.lower()] == []


def test_the_endpoint_lives_and_its_memory_is_back(
    endpoint: Endpoint, sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    process = replica(endpoint, "diagnosis")
    eventually(lambda: mib(process) < sent.before_mib + GROWTH_MIB, 20, "memory of the HTTP side is back")
    with capsys.disabled():
        print(
            f"\nhostile: {len(sent.answers)} inputs in {sent.seconds:.0f} s; HTTP side "
            f"{sent.before_mib:.0f} MiB before, {sent.after_mib:.0f} after, {mib(process):.0f} now"
        )
    assert endpoint.client.get("/readyz").status_code == 200
    assert endpoint.ask(patient=patients()[0], model="auto").status_code == 200
