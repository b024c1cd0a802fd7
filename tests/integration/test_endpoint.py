"""The endpoint as a client meets it: who answers and why, refusals, health, keys, a batch job beside it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from tests.integration.endpoint_run import (
    CANARY,
    Endpoint,
    Ranked,
    dividing,
    example,
    operating_at,
    operating_point,
    patients,
)
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_healthz_says_that_both_engines_answer(endpoint: Endpoint) -> None:
    response = endpoint.client.get("/healthz")
    assert response.status_code == 200
    said = {"status": "ok", "student": "ok", "teacher": "ok", "operating_point": operating_point().version}
    assert response.json().items() >= said.items()


def test_readyz_says_that_patients_are_taken(endpoint: Endpoint) -> None:
    """Both are open: a load balancer has no key."""
    for path in ("/healthz", "/readyz"):
        assert httpx.get(f"{endpoint.url}{path}").status_code == 200


@pytest.mark.parametrize("form", ["patient", "description"])
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_the_model_that_was_asked_for_answers(endpoint: Endpoint, model: str, form: str) -> None:
    response = endpoint.ask(**{**example(endpoint, form), "model": model})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["answered_by"], answer["routing"]) == (model, f"{model} asked for")
    assert answer["model"] == {"student": "rationale_then_label", "teacher": "teacher"}[model]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["diagnosis"]
    assert len(answer["rationale"]) > 100
    supported = [claim for claim in answer["claims"] if claim["verdict"] == "supported"]
    assert len(supported) >= 0.8 * len(answer["claims"]) > 0
    assert "Research use only" in answer["research_use_only"]


def test_both_forms_of_a_patient_get_the_same_answer(endpoint: Endpoint) -> None:
    answers = [
        endpoint.ask(**{**example(endpoint, form), "model": "teacher"}).json() for form in ("patient", "description")
    ]
    assert answers[0]["rationale"] == answers[1]["rationale"]


def test_auto_asks_the_teacher_where_the_student_is_below_the_threshold(endpoint: Endpoint, ranked: Ranked) -> None:
    point = operating_point(threshold=dividing(ranked))
    with operating_at(endpoint, point):
        answers = [endpoint.ask(patient=patient, model="auto").json() for _, patient in ranked]
    answered = set()
    for (confidence, _), answer in zip(ranked, answers, strict=True):
        confident = confidence >= point.threshold
        assert answer["answered_by"] == ("student" if confident else "teacher"), answer["routing"]
        assert ("student confident" if confident else "student below threshold") in answer["routing"]
        assert (answer["degraded"], answer["calibrated"]) == (False, True)
        assert answer["diagnosis"] in answer["prediction_set"] and answer["coverage"] == 0.9
        assert answer["operating_point"] == point.version
        answered.add(answer["answered_by"])
    assert answered == {"student", "teacher"}, "these patients do not show both"


def test_no_answer_without_a_key_and_none_of_another_model_than_it_has(endpoint: Endpoint) -> None:
    body = {"patient": patients()[0], "model": "student"}
    with httpx.Client(base_url=endpoint.url, timeout=60) as stranger:
        for headers in ({}, {"authorization": "Bearer cr_nothing"}, {"authorization": "Basic eDp5"}):
            refused = stranger.post("/v1/diagnose", json=body, headers=headers)
            assert refused.status_code == 401 and "www-authenticate" in refused.headers, headers
            assert refused.headers["content-type"] == "application/problem+json"
        only = endpoint.headers("student-only")
        assert stranger.post("/v1/diagnose", json=body, headers=only).json()["answered_by"] == "student"
        assert stranger.post("/v1/diagnose", json={**body, "model": "auto"}, headers=only).status_code == 403
        assert stranger.post("/v1/diagnose", json=body, headers={"x-api-key": endpoint.tokens["suite"]}).is_success


def test_a_key_that_asks_too_often_is_told_when_to_come_back(endpoint: Endpoint) -> None:
    with httpx.Client(base_url=endpoint.url, headers=endpoint.headers("slow"), timeout=60) as slow:
        responses = [slow.post("/v1/diagnose", json={"patient": {}}) for _ in range(4)]
    assert [response.status_code for response in responses] == [422, 422, 429, 429]
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 60


def test_request_id_is_in_body_and_header(endpoint: Endpoint) -> None:
    responses = [endpoint.ask(**example(endpoint, "patient")) for _ in range(2)]
    ids = [response.json()["request_id"] for response in responses]
    assert [response.headers["x-request-id"] for response in responses] == ids
    assert len({str(uuid.UUID(one, version=4)) for one in ids}) == 2


def test_requests_are_answered_side_by_side(endpoint: Endpoint) -> None:
    """Equal requests that start together end together; one after another, the ends would spread over the whole time."""
    body = {**example(endpoint, "patient"), "model": "teacher"}
    endpoint.ask(**body)  # fills the prefix cache

    def ask(_: int) -> tuple[int, float]:
        return endpoint.ask(**body).status_code, time.monotonic()

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses, ends = zip(*pool.map(ask, range(8)), strict=True)
    assert statuses == (200,) * 8
    assert max(ends) - min(ends) < 0.5 * (max(ends) - started)  # 7/8 where one waits for the other


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"patient": {"mmse": 99}}, "patient.mmse"),
        ({"patient": {"findings": {"hippocampal_atrophy": CANARY}}}, "patient.findings.hippocampal_atrophy"),
        ({"patient": {"findings": {"atrophy": "No"}}}, "patient.findings.(unknown)"),
        ({"patient": {}}, "patient"),
        ({}, "patient"),
        ({"patient": {"mmse": 22}, "description": CANARY}, "description"),
        ({"description": f"{CANARY} " * 2000}, "description"),
        ({"description": f"{CANARY} {chr(0x1F9E0)} " * 700, "model": "teacher"}, "description"),
        ({"description": CANARY, "model": "oracle"}, "model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_requests_get_422_and_the_field(endpoint: Endpoint, body: dict[str, Any], field: str) -> None:
    response = endpoint.ask(**body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert CANARY not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/diagnose", 405), ("POST", "/v1/nothing", 404), ("POST", "/v1/diagnose", 422)],
)
def test_other_failures_are_problems_too(endpoint: Endpoint, method: str, path: str, status: int) -> None:
    response = endpoint.client.request(method, path, content=b"{not json", headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    if status == 422:
        assert response.json()["errors"] == [{"field": "(body)", "message": "not valid JSON"}]


def test_a_batch_asks_the_teacher_that_the_endpoint_runs(endpoint: Endpoint, tmp_path: Path) -> None:
    """The stage joins the endpoint's cluster, and starts no engine of its own."""
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={tmp_path}"]
    command += ["cohort.patients=80", "cohort.phantoms=null", "imaging.slices=false", "evidence.fewest_controls=10"]
    command += ["rationales.asks={rationalize: [train], diagnose: [test], direct: [test]}"]
    command += ["teacher.model=teacher", "teacher.deployment.name=engine-teacher", "teacher.deployment.at_a_time=8"]
    shell = {**environment(), "RAY_TMPDIR": str(endpoint.ray), "RAY_ADDRESS": "auto"}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rows = RunFolder(str(tmp_path)).read_table("rationales", RATIONALES).to_pylist()
    assert {row["model"] for row in rows} == {"teacher"}
    assert {row["ask"] for row in rows} == {"rationalize", "diagnose", "direct"}
    assert sum(row["rationale"] is not None or row["predicted"] is not None for row in rows) >= 0.95 * len(rows)
    told = [row for row in rows if row["ask"] != "rationalize" and row["predicted"]]
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in told)
    assert endpoint.client.get("/healthz").status_code == 200, "the endpoint goes on"


def test_a_deployment_that_does_not_run_is_said_before(endpoint: Endpoint, tmp_path: Path) -> None:
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={tmp_path}"]
    command += ["cohort.patients=80", "cohort.phantoms=null", "imaging.slices=false", "evidence.fewest_controls=10"]
    command += ["teacher.model=teacher", "teacher.deployment.name=nothing"]
    shell = {**environment(), "RAY_TMPDIR": str(endpoint.ray), "RAY_ADDRESS": "auto"}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "teacher.deployment.name 'nothing'" in done.stderr and "Traceback" not in done.stderr
